-- Hours and days of category snapshots, kept for good: the snapshots themselves expire. What is stored are exact sums; an
-- average is a sum divided when it is read.

create table if not exists category_snapshots_1h (
    scope varchar(64) not null,
    market_type varchar(16) not null,
    category varchar(191) not null,
    depth decimal(28, 12) not null,
    bucket_ms bigint not null,
    bid_sum decimal(40, 12) not null,
    bid_max decimal(28, 12) not null,
    bid_min decimal(28, 12) not null,
    ask_sum decimal(40, 12) not null,
    ask_max decimal(28, 12) not null,
    ask_min decimal(28, 12) not null,
    -- Of the snapshots that have a price, `priced` in number.
    price_sum decimal(40, 12) not null,
    priced bigint not null,
    symbols bigint not null,
    count bigint not null,
    primary key (scope, market_type, category, depth, bucket_ms),
    key category_snapshots_1h_by_time (bucket_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists category_snapshots_1d (
    scope varchar(64) not null,
    market_type varchar(16) not null,
    category varchar(191) not null,
    depth decimal(28, 12) not null,
    bucket_ms bigint not null,
    bid_sum decimal(40, 12) not null,
    bid_max decimal(28, 12) not null,
    bid_min decimal(28, 12) not null,
    ask_sum decimal(40, 12) not null,
    ask_max decimal(28, 12) not null,
    ask_min decimal(28, 12) not null,
    price_sum decimal(40, 12) not null,
    priced bigint not null,
    symbols bigint not null,
    count bigint not null,
    primary key (scope, market_type, category, depth, bucket_ms),
    key category_snapshots_1d_by_time (bucket_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- Hours into which snapshots were written since they were last rolled up. The transaction that writes a snapshot marks its hour:
-- a trigger would need rights that many servers do not give.
create table if not exists category_snapshots_dirty (
    bucket_ms bigint not null,
    scope varchar(64) not null,
    market_type varchar(16) not null,
    category varchar(191) not null,
    depth decimal(28, 12) not null,
    primary key (bucket_ms, scope, market_type, category, depth)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- The age below which snapshots may have expired. Only grows.
create table if not exists rollup_floor (
    one smallint not null check (one = 1),
    floor_ms bigint not null,
    primary key (one)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

insert into rollup_floor (one, floor_ms) values (1, -9223372036854775808)
on duplicate key update one = one;

insert into category_snapshots_dirty (bucket_ms, scope, market_type, category, depth)
select distinct timestamp_ms - timestamp_ms % 3600000, scope, market_type, category, depth from category_snapshots_raw
on duplicate key update category_snapshots_dirty.bucket_ms = category_snapshots_dirty.bucket_ms;

-- As of the last roll-up: the service rolls up each minute.
create or replace view category_snapshots_agg_1h as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth,
    cast(r.bid_sum / r.count as decimal(28, 12)) as avg_bid_volume_usd,
    r.bid_max as max_bid_volume_usd,
    r.bid_min as min_bid_volume_usd,
    cast(r.ask_sum / r.count as decimal(28, 12)) as avg_ask_volume_usd,
    r.ask_max as max_ask_volume_usd,
    r.ask_min as min_ask_volume_usd,
    cast(r.price_sum / nullif(r.priced, 0) as decimal(28, 12)) as avg_price,
    cast(cast(r.symbols as decimal(28, 12)) / r.count as decimal(28, 12)) as avg_symbol_count,
    r.count
from category_snapshots_1h r;

create or replace view category_snapshots_agg_1d as
select
    r.bucket_ms as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth,
    cast(r.bid_sum / r.count as decimal(28, 12)) as avg_bid_volume_usd,
    r.bid_max as max_bid_volume_usd,
    r.bid_min as min_bid_volume_usd,
    cast(r.ask_sum / r.count as decimal(28, 12)) as avg_ask_volume_usd,
    r.ask_max as max_ask_volume_usd,
    r.ask_min as min_ask_volume_usd,
    cast(r.price_sum / nullif(r.priced, 0) as decimal(28, 12)) as avg_price,
    cast(cast(r.symbols as decimal(28, 12)) / r.count as decimal(28, 12)) as avg_symbol_count,
    r.count
from category_snapshots_1d r;
