-- The gap ledger.
create table if not exists data_gaps_raw (
    gap_id varchar(191) not null,
    instrument_id bigint not null,
    channel varchar(64) not null,
    cause varchar(64) not null,
    status varchar(32) not null check (status in ('open', 'none_missed', 'resynced', 'repaired', 'lost')),
    from_us bigint not null,
    to_us bigint,
    from_id varchar(191),
    to_id varchar(191),
    missing bigint,
    reason text,
    opened_us bigint not null,
    closed_us bigint,
    updated_us bigint not null,
    primary key (gap_id),
    key data_gaps_raw_by_instrument (instrument_id, from_us),
    key data_gaps_raw_by_time (from_us)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create or replace view data_gaps as
select
    g.gap_id,
    i.venue,
    i.market,
    i.native as symbol,
    g.channel,
    g.cause,
    g.status,
    g.from_us div 1000 as from_time,
    g.to_us div 1000 as to_time,
    g.from_id,
    g.to_id,
    g.missing,
    g.reason,
    g.opened_us div 1000 as opened_at,
    case when g.status in ('repaired', 'resynced', 'none_missed') then g.closed_us div 1000 end as repaired_at,
    g.closed_us div 1000 as closed_at
from data_gaps_raw g
left join instruments i on i.in_force = g.instrument_id;
