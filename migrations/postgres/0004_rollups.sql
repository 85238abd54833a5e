-- Hours and days of category snapshots, kept for good: the snapshots themselves expire. What is stored are exact sums; an
-- average is a sum divided when it is read. Before, the two views read all snapshots and forgot with them.

drop view category_snapshots_agg_1h;
drop view category_snapshots_agg_1d;

create table category_snapshots_1h (
    scope text collate "C" not null,
    market_type text collate "C" not null,
    category text collate "C" not null,
    depth numeric(28,12) not null,
    bucket_ms bigint not null,
    bid_sum numeric not null,
    bid_max numeric(28,12) not null,
    bid_min numeric(28,12) not null,
    ask_sum numeric not null,
    ask_max numeric(28,12) not null,
    ask_min numeric(28,12) not null,
    -- Of the snapshots that have a price, `priced` in number.
    price_sum numeric not null,
    priced bigint not null,
    symbols bigint not null,
    count bigint not null,
    primary key (scope, market_type, category, depth, bucket_ms)
);
create index category_snapshots_1h_by_time on category_snapshots_1h (bucket_ms);

create table category_snapshots_1d (
    scope text collate "C" not null,
    market_type text collate "C" not null,
    category text collate "C" not null,
    depth numeric(28,12) not null,
    bucket_ms bigint not null,
    bid_sum numeric not null,
    bid_max numeric(28,12) not null,
    bid_min numeric(28,12) not null,
    ask_sum numeric not null,
    ask_max numeric(28,12) not null,
    ask_min numeric(28,12) not null,
    price_sum numeric not null,
    priced bigint not null,
    symbols bigint not null,
    count bigint not null,
    primary key (scope, market_type, category, depth, bucket_ms)
);
create index category_snapshots_1d_by_time on category_snapshots_1d (bucket_ms);

-- Hours into which snapshots were written since they were last rolled up.
create table category_snapshots_dirty (
    bucket_ms bigint not null,
    scope text collate "C" not null,
    market_type text collate "C" not null,
    category text collate "C" not null,
    depth numeric(28,12) not null,
    primary key (bucket_ms, scope, market_type, category, depth)
);

-- The age below which snapshots may have expired. Only grows.
create table rollup_floor (
    one smallint primary key check (one = 1),
    floor_ms bigint not null
);
insert into rollup_floor (one, floor_ms) values (1, -9223372036854775808);

-- Also a late row, and one that is replayed from a spool, marks its hour. A roll-up takes the lock for itself: while it removes
-- marks and reads rows, nobody can have added to an hour and found it marked.
create function mark_category_snapshots() returns trigger
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock_shared(hashtext('fathom roll-up'));
    insert into category_snapshots_dirty (bucket_ms, scope, market_type, category, depth)
    values (new.timestamp_ms - new.timestamp_ms % 3600000, new.scope, new.market_type, new.category, new.depth)
    on conflict do nothing;
    return null;
end
$$;
create trigger category_snapshots_mark after insert on category_snapshots_raw
for each row execute function mark_category_snapshots();

insert into category_snapshots_dirty (bucket_ms, scope, market_type, category, depth)
select distinct timestamp_ms - timestamp_ms % 3600000, scope, market_type, category, depth from category_snapshots_raw;

-- A sum of columns by a number of rows, rounded half-even to twelve decimals, as the program does it.
create function half_even(total numeric, rows bigint) returns numeric
language sql immutable strict parallel safe
as $$
    select (u.whole + case
        when 2 * abs(u.rest) > rows or (2 * abs(u.rest) = rows and u.whole % 2 <> 0) then sign(u.rest)
        else 0
    end) * 0.000000000001
    from (select div(total * 1000000000000, rows) as whole, mod(total * 1000000000000, rows) as rest) u
$$;

-- As of the last roll-up: the service rolls up every half a minute.
create view category_snapshots_agg_1h as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth,
    half_even(r.bid_sum, r.count) as avg_bid_volume_usd,
    r.bid_max as max_bid_volume_usd,
    r.bid_min as min_bid_volume_usd,
    half_even(r.ask_sum, r.count) as avg_ask_volume_usd,
    r.ask_max as max_ask_volume_usd,
    r.ask_min as min_ask_volume_usd,
    half_even(r.price_sum, nullif(r.priced, 0)) as avg_price,
    half_even(r.symbols::numeric, r.count) as avg_symbol_count,
    r.count
from category_snapshots_1h r;

create view category_snapshots_agg_1d as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth,
    half_even(r.bid_sum, r.count) as avg_bid_volume_usd,
    r.bid_max as max_bid_volume_usd,
    r.bid_min as min_bid_volume_usd,
    half_even(r.ask_sum, r.count) as avg_ask_volume_usd,
    r.ask_max as max_ask_volume_usd,
    r.ask_min as min_ask_volume_usd,
    half_even(r.price_sum, nullif(r.priced, 0)) as avg_price,
    half_even(r.symbols::numeric, r.count) as avg_symbol_count,
    r.count
from category_snapshots_1d r;

-- Trade gaps that were repaired, whose seconds of trade_1s are to be made anew from trades.
create table trade_bars_dirty (
    gap_id text collate "C" not null primary key,
    instrument_id bigint not null,
    from_us bigint not null,
    to_us bigint not null
);

create function mark_trade_bars() returns trigger
language plpgsql
as $$
begin
    insert into trade_bars_dirty (gap_id, instrument_id, from_us, to_us)
    values (new.gap_id, new.instrument_id, new.from_us, new.to_us)
    on conflict (gap_id) do update
    set from_us = least(trade_bars_dirty.from_us, excluded.from_us), to_us = greatest(trade_bars_dirty.to_us, excluded.to_us);
    return null;
end
$$;
create trigger trade_bars_mark after insert or update on data_gaps_raw
for each row when (new.channel = 'trade' and new.status = 'repaired' and new.to_us is not null)
execute function mark_trade_bars();

insert into trade_bars_dirty (gap_id, instrument_id, from_us, to_us)
select gap_id, instrument_id, from_us, to_us from data_gaps_raw
where channel = 'trade' and status = 'repaired' and to_us is not null;
