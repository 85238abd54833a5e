-- The gap ledger.
create table data_gaps_raw (
    gap_id text not null,
    instrument_id integer not null,
    channel text not null,
    cause text not null,
    status text not null check (status in ('open', 'none_missed', 'resynced', 'repaired', 'lost')),
    from_us integer not null,
    to_us integer,
    from_id text,
    to_id text,
    missing integer,
    reason text,
    opened_us integer not null,
    closed_us integer,
    updated_us integer not null,
    primary key (gap_id)
) strict, without rowid;
create index data_gaps_raw_by_instrument on data_gaps_raw (instrument_id, from_us);
create index data_gaps_raw_by_time on data_gaps_raw (from_us);

create view data_gaps as
select
    g.gap_id,
    i.venue,
    i.market,
    i.native as symbol,
    g.channel,
    g.cause,
    g.status,
    g.from_us / 1000 as from_time,
    g.to_us / 1000 as to_time,
    g.from_id,
    g.to_id,
    g.missing,
    g.reason,
    g.opened_us / 1000 as opened_at,
    case when g.status in ('repaired', 'resynced', 'none_missed') then g.closed_us / 1000 end as repaired_at,
    g.closed_us / 1000 as closed_at
from data_gaps_raw g
left join instruments i on i.instrument_id = g.instrument_id and i.valid_to_us is null;
