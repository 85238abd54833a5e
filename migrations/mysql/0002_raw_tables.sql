-- The stored rows, exact: mantissas (`*_m`) are integers with their scale beside them, other numbers are decimal(28,12).
--
-- Every table has a natural key, which makes writing a row twice harmless and is the order of its tree.
-- There is no foreign key to `instruments`: its key is a period, and a fact may be written before its instrument.
-- Best bids and asks, trades and depth updates are not kept here: hundreds of instruments would be written at as many places
-- of a tree at thousands of rows a second, and taken out again row by row. They belong into another store.

create table if not exists orderbook_raw (
    instrument_id bigint not null,
    timestamp_ms bigint not null,
    last_update_id bigint not null,
    bids mediumtext not null,
    asks mediumtext not null,
    primary key (instrument_id, timestamp_ms),
    key orderbook_raw_by_time (timestamp_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists candles_raw (
    instrument_id bigint not null,
    timeframe varchar(16) not null,
    open_ms bigint not null,
    close_ms bigint not null,
    open decimal(28, 12) not null,
    high decimal(28, 12) not null,
    low decimal(28, 12) not null,
    close decimal(28, 12) not null,
    volume decimal(28, 12) not null,
    quote_volume decimal(28, 12) not null,
    trades bigint not null,
    taker_buy_volume decimal(28, 12) not null,
    taker_buy_quote_volume decimal(28, 12) not null,
    closed boolean not null,
    updated_us bigint not null,
    primary key (instrument_id, timeframe, open_ms),
    key candles_raw_by_time (open_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists symbol_snapshots_raw (
    instrument_id bigint not null,
    depth decimal(28, 12) not null,
    timestamp_ms bigint not null,
    bid_volume decimal(28, 12) not null,
    ask_volume decimal(28, 12) not null,
    bid_volume_usd decimal(28, 12),
    ask_volume_usd decimal(28, 12),
    mid_price decimal(28, 12),
    best_bid decimal(28, 12),
    best_ask decimal(28, 12),
    state varchar(32) not null,
    bid_covered boolean not null,
    ask_covered boolean not null,
    last_update_id bigint not null,
    created_us bigint not null,
    primary key (instrument_id, depth, timestamp_ms),
    key symbol_snapshots_raw_by_instrument (instrument_id, timestamp_ms),
    key symbol_snapshots_raw_by_time (timestamp_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists category_snapshots_raw (
    scope varchar(64) not null,
    market_type varchar(16) not null check (market_type in ('SPOT', 'FUTURES')),
    category varchar(191) not null,
    depth decimal(28, 12) not null,
    timestamp_ms bigint not null,
    total_bid_volume decimal(28, 12) not null,
    total_ask_volume decimal(28, 12) not null,
    total_bid_volume_usd decimal(28, 12) not null,
    total_ask_volume_usd decimal(28, 12) not null,
    avg_price decimal(28, 12),
    symbol_count bigint not null,
    member_count bigint not null,
    bid_covered bigint not null,
    ask_covered bigint not null,
    stale_count bigint not null,
    unpriced_count bigint not null,
    created_us bigint not null,
    primary key (scope, market_type, category, depth, timestamp_ms),
    key category_snapshots_raw_by_time (timestamp_ms),
    -- Counts and first and last times of each category are answered from this index alone.
    key category_snapshots_raw_by_category (scope, category, market_type, timestamp_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists funding_raw (
    instrument_id bigint not null,
    event_us bigint not null,
    mark_price decimal(28, 12) not null,
    index_price decimal(28, 12),
    funding_rate decimal(28, 12),
    next_funding_ms bigint,
    primary key (instrument_id, event_us),
    key funding_raw_by_time (event_us)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists bt_1s_raw (
    instrument_id bigint not null,
    second_ms bigint not null,
    price_scale smallint not null check (price_scale between 0 and 18),
    bid_open_m bigint not null,
    bid_high_m bigint not null,
    bid_low_m bigint not null,
    bid_close_m bigint not null,
    ask_open_m bigint not null,
    ask_high_m bigint not null,
    ask_low_m bigint not null,
    ask_close_m bigint not null,
    spread_open_m bigint not null,
    spread_high_m bigint not null,
    spread_low_m bigint not null,
    spread_close_m bigint not null,
    -- On price_scale + 4.
    micro_open_m bigint not null,
    micro_high_m bigint not null,
    micro_low_m bigint not null,
    micro_close_m bigint not null,
    ticks bigint not null,
    partial boolean not null,
    primary key (instrument_id, second_ms),
    key bt_1s_raw_by_time (second_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists trade_1s_raw (
    instrument_id bigint not null,
    second_ms bigint not null,
    price_scale smallint not null check (price_scale between 0 and 18),
    qty_scale smallint not null check (qty_scale between 0 and 18),
    open_m bigint not null,
    high_m bigint not null,
    low_m bigint not null,
    close_m bigint not null,
    volume decimal(28, 12) not null,
    buy_volume decimal(28, 12) not null,
    sell_volume decimal(28, 12) not null,
    quote_volume decimal(28, 12) not null,
    vwap decimal(28, 12) not null,
    trades bigint not null,
    partial boolean not null,
    primary key (instrument_id, second_ms),
    key trade_1s_raw_by_time (second_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists depth_1s_raw (
    instrument_id bigint not null,
    second_ms bigint not null,
    updates bigint not null,
    bid_changes bigint not null,
    ask_changes bigint not null,
    bid_added decimal(28, 12) not null,
    bid_removed decimal(28, 12) not null,
    ask_added decimal(28, 12) not null,
    ask_removed decimal(28, 12) not null,
    ofi decimal(28, 12) not null,
    best_bid decimal(28, 12),
    best_ask decimal(28, 12),
    last_id bigint not null,
    partial boolean not null,
    primary key (instrument_id, second_ms),
    key depth_1s_raw_by_time (second_ms)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- One row an instrument: there is nothing to index.
create table if not exists tickers_raw (
    instrument_id bigint not null,
    event_us bigint not null,
    last decimal(28, 12),
    bid decimal(28, 12),
    ask decimal(28, 12),
    open decimal(28, 12),
    high decimal(28, 12),
    low decimal(28, 12),
    volume decimal(28, 12),
    quote_volume decimal(28, 12),
    trades bigint,
    primary key (instrument_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table if not exists collector_state_raw (
    instrument_id bigint not null,
    timeframe varchar(16) not null,
    last_timestamp_ms bigint not null,
    last_updated_us bigint not null,
    is_realtime boolean not null,
    primary key (instrument_id, timeframe)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;
