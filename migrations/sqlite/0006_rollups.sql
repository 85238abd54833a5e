-- Hours and days of category snapshots, kept for good: the snapshots themselves expire. What is stored are exact sums; an
-- average is a sum divided when it is read. Before, the two views read all snapshots and forgot with them.

drop view category_snapshots_agg_1h;
drop view category_snapshots_agg_1d;

create table category_snapshots_1h (
    scope text not null,
    market_type text not null,
    category text not null,
    depth text not null,
    bucket_ms integer not null,
    bid_sum text not null,
    bid_max text not null,
    bid_min text not null,
    ask_sum text not null,
    ask_max text not null,
    ask_min text not null,
    -- Of the snapshots that have a price, `priced` in number.
    price_sum text not null,
    priced integer not null,
    symbols integer not null,
    count integer not null,
    primary key (scope, market_type, category, depth, bucket_ms)
) strict, without rowid;
create index category_snapshots_1h_by_time on category_snapshots_1h (bucket_ms);

create table category_snapshots_1d (
    scope text not null,
    market_type text not null,
    category text not null,
    depth text not null,
    bucket_ms integer not null,
    bid_sum text not null,
    bid_max text not null,
    bid_min text not null,
    ask_sum text not null,
    ask_max text not null,
    ask_min text not null,
    price_sum text not null,
    priced integer not null,
    symbols integer not null,
    count integer not null,
    primary key (scope, market_type, category, depth, bucket_ms)
) strict, without rowid;
create index category_snapshots_1d_by_time on category_snapshots_1d (bucket_ms);

-- Hours into which snapshots were written since they were last rolled up.
create table category_snapshots_dirty (
    bucket_ms integer not null,
    scope text not null,
    market_type text not null,
    category text not null,
    depth text not null,
    primary key (bucket_ms, scope, market_type, category, depth)
) strict, without rowid;

-- The age below which snapshots may have expired. Only grows.
create table rollup_floor (
    one integer primary key check (one = 1),
    floor_ms integer not null
) strict;
insert into rollup_floor (one, floor_ms) values (1, -9223372036854775808);

-- Also a late row, and one that is replayed from a spool, marks its hour.
create trigger category_snapshots_mark after insert on category_snapshots_raw
begin
    insert into category_snapshots_dirty (bucket_ms, scope, market_type, category, depth)
    values (new.timestamp_ms - new.timestamp_ms % 3600000, new.scope, new.market_type, new.category, new.depth)
    on conflict do nothing;
end;

insert into category_snapshots_dirty (bucket_ms, scope, market_type, category, depth)
select distinct timestamp_ms - timestamp_ms % 3600000, scope, market_type, category, depth from category_snapshots_raw;

-- As of the last roll-up: the service rolls up each minute.
create view category_snapshots_agg_1h as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    cast(r.depth as real) as depth,
    cast(r.bid_sum as real) / r.count as avg_bid_volume_usd,
    cast(r.bid_max as real) as max_bid_volume_usd,
    cast(r.bid_min as real) as min_bid_volume_usd,
    cast(r.ask_sum as real) / r.count as avg_ask_volume_usd,
    cast(r.ask_max as real) as max_ask_volume_usd,
    cast(r.ask_min as real) as min_ask_volume_usd,
    cast(r.price_sum as real) / nullif(r.priced, 0) as avg_price,
    cast(r.symbols as real) / r.count as avg_symbol_count,
    r.count
from category_snapshots_1h r;

create view category_snapshots_agg_1d as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    cast(r.depth as real) as depth,
    cast(r.bid_sum as real) / r.count as avg_bid_volume_usd,
    cast(r.bid_max as real) as max_bid_volume_usd,
    cast(r.bid_min as real) as min_bid_volume_usd,
    cast(r.ask_sum as real) / r.count as avg_ask_volume_usd,
    cast(r.ask_max as real) as max_ask_volume_usd,
    cast(r.ask_min as real) as min_ask_volume_usd,
    cast(r.price_sum as real) / nullif(r.priced, 0) as avg_price,
    cast(r.symbols as real) / r.count as avg_symbol_count,
    r.count
from category_snapshots_1d r;

-- Trade gaps that were repaired, whose seconds of trade_1s are to be made anew from trades.
create table trade_bars_dirty (
    gap_id text not null primary key,
    instrument_id integer not null,
    from_us integer not null,
    to_us integer not null
) strict, without rowid;

create trigger trade_bars_mark_new after insert on data_gaps_raw
when new.channel = 'trade' and new.status = 'repaired' and new.to_us is not null
begin
    insert into trade_bars_dirty (gap_id, instrument_id, from_us, to_us)
    values (new.gap_id, new.instrument_id, new.from_us, new.to_us)
    on conflict (gap_id) do update set from_us = min(from_us, excluded.from_us), to_us = max(to_us, excluded.to_us);
end;

create trigger trade_bars_mark_closed after update on data_gaps_raw
when new.channel = 'trade' and new.status = 'repaired' and new.to_us is not null
begin
    insert into trade_bars_dirty (gap_id, instrument_id, from_us, to_us)
    values (new.gap_id, new.instrument_id, new.from_us, new.to_us)
    on conflict (gap_id) do update set from_us = min(from_us, excluded.from_us), to_us = max(to_us, excluded.to_us);
end;

insert into trade_bars_dirty (gap_id, instrument_id, from_us, to_us)
select gap_id, instrument_id, from_us, to_us from data_gaps_raw
where channel = 'trade' and status = 'repaired' and to_us is not null;
