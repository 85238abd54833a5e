-- The stored rows, exact: mantissas (`*_m`) are integers with their scale beside them, other decimals are text such as
-- '0.00000005'. The readable views of the next migration give numbers; docs/decisions/0003-sqlite-numbers.md has the reasons.
--
-- Every table has a natural key, which makes writing a row twice harmless. Small rows live in the key's own tree (without
-- rowid): one tree instead of two halves the work of an insert. Rows with long texts keep a rowid, because long rows make a
-- key's tree slow to search.
-- There is no foreign key to `instruments`: its key is a period, and a fact may be written before its instrument.

create table book_ticker_raw (
    instrument_id integer not null,
    update_id integer not null,
    event_us integer not null,
    ordinal integer not null,
    venue_time integer not null check (venue_time in (0, 1)),
    recv_us integer not null,
    bid_price_m integer not null,
    bid_qty_m integer not null,
    ask_price_m integer not null,
    ask_qty_m integer not null,
    price_scale integer not null check (price_scale between 0 and 18),
    qty_scale integer not null check (qty_scale between 0 and 18),
    primary key (instrument_id, update_id, event_us, ordinal)
) strict, without rowid;
-- The busiest table has one index, which grows at its end only. An index by instrument and time would be written at as many
-- places as there are instruments and halves the rows a second; a question by symbol reads that symbol's part of the key,
-- and ticks are kept for hours or days.
create index book_ticker_raw_by_time on book_ticker_raw (event_us, instrument_id);

create table trades_raw (
    instrument_id integer not null,
    kind text not null check (kind in ('trade', 'agg')),
    trade_id text not null,
    event_us integer not null,
    recv_us integer not null,
    price_m integer not null,
    qty_m integer not null,
    price_scale integer not null check (price_scale between 0 and 18),
    qty_scale integer not null check (qty_scale between 0 and 18),
    side text not null check (side in ('buy', 'sell')),
    first_raw_id integer,
    last_raw_id integer,
    primary key (instrument_id, kind, trade_id)
) strict, without rowid;
create index trades_raw_by_instrument on trades_raw (instrument_id, event_us);
create index trades_raw_by_time on trades_raw (event_us);

create table depth_events_raw (
    instrument_id integer not null,
    last_id integer not null,
    first_id integer not null,
    prev_id integer,
    event_us integer not null,
    recv_us integer not null,
    bids text not null,
    asks text not null,
    primary key (instrument_id, last_id)
) strict;
create index depth_events_raw_by_instrument on depth_events_raw (instrument_id, event_us);
create index depth_events_raw_by_time on depth_events_raw (event_us);

create table orderbook_raw (
    instrument_id integer not null,
    timestamp_ms integer not null,
    last_update_id integer not null,
    bids text not null,
    asks text not null,
    primary key (instrument_id, timestamp_ms)
) strict;
create index orderbook_raw_by_time on orderbook_raw (timestamp_ms);

create table candles_raw (
    instrument_id integer not null,
    timeframe text not null,
    open_ms integer not null,
    close_ms integer not null,
    open text not null,
    high text not null,
    low text not null,
    close text not null,
    volume text not null,
    quote_volume text not null,
    trades integer not null,
    taker_buy_volume text not null,
    taker_buy_quote_volume text not null,
    closed integer not null check (closed in (0, 1)),
    updated_us integer not null,
    primary key (instrument_id, timeframe, open_ms)
) strict, without rowid;
create index candles_raw_by_time on candles_raw (open_ms);

create table symbol_snapshots_raw (
    instrument_id integer not null,
    depth text not null,
    timestamp_ms integer not null,
    bid_volume text not null,
    ask_volume text not null,
    bid_volume_usd text,
    ask_volume_usd text,
    mid_price text,
    best_bid text,
    best_ask text,
    state text not null,
    bid_covered integer not null check (bid_covered in (0, 1)),
    ask_covered integer not null check (ask_covered in (0, 1)),
    last_update_id integer not null,
    created_us integer not null,
    primary key (instrument_id, depth, timestamp_ms)
) strict, without rowid;
create index symbol_snapshots_raw_by_instrument on symbol_snapshots_raw (instrument_id, timestamp_ms);
create index symbol_snapshots_raw_by_time on symbol_snapshots_raw (timestamp_ms);

create table category_snapshots_raw (
    scope text not null,
    market_type text not null check (market_type in ('SPOT', 'FUTURES')),
    category text not null,
    depth text not null,
    timestamp_ms integer not null,
    total_bid_volume text not null,
    total_ask_volume text not null,
    total_bid_volume_usd text not null,
    total_ask_volume_usd text not null,
    avg_price text,
    symbol_count integer not null,
    member_count integer not null,
    bid_covered integer not null,
    ask_covered integer not null,
    stale_count integer not null,
    unpriced_count integer not null,
    created_us integer not null,
    primary key (scope, market_type, category, depth, timestamp_ms)
) strict, without rowid;
create index category_snapshots_raw_by_time on category_snapshots_raw (timestamp_ms);
-- Counts and first and last times of each category are answered from this index alone.
create index category_snapshots_raw_by_category on category_snapshots_raw (scope, category, market_type, timestamp_ms);

create table funding_raw (
    instrument_id integer not null,
    event_us integer not null,
    mark_price text not null,
    index_price text,
    funding_rate text,
    next_funding_ms integer,
    primary key (instrument_id, event_us)
) strict, without rowid;
create index funding_raw_by_time on funding_raw (event_us);

create table bt_1s_raw (
    instrument_id integer not null,
    second_ms integer not null,
    price_scale integer not null check (price_scale between 0 and 18),
    bid_open_m integer not null,
    bid_high_m integer not null,
    bid_low_m integer not null,
    bid_close_m integer not null,
    ask_open_m integer not null,
    ask_high_m integer not null,
    ask_low_m integer not null,
    ask_close_m integer not null,
    spread_open_m integer not null,
    spread_high_m integer not null,
    spread_low_m integer not null,
    spread_close_m integer not null,
    -- On price_scale + 4.
    micro_open_m integer not null,
    micro_high_m integer not null,
    micro_low_m integer not null,
    micro_close_m integer not null,
    ticks integer not null,
    partial integer not null check (partial in (0, 1)),
    primary key (instrument_id, second_ms)
) strict, without rowid;
create index bt_1s_raw_by_time on bt_1s_raw (second_ms);

create table trade_1s_raw (
    instrument_id integer not null,
    second_ms integer not null,
    price_scale integer not null check (price_scale between 0 and 18),
    qty_scale integer not null check (qty_scale between 0 and 18),
    open_m integer not null,
    high_m integer not null,
    low_m integer not null,
    close_m integer not null,
    volume text not null,
    buy_volume text not null,
    sell_volume text not null,
    quote_volume text not null,
    vwap text not null,
    trades integer not null,
    partial integer not null check (partial in (0, 1)),
    primary key (instrument_id, second_ms)
) strict, without rowid;
create index trade_1s_raw_by_time on trade_1s_raw (second_ms);

create table depth_1s_raw (
    instrument_id integer not null,
    second_ms integer not null,
    updates integer not null,
    bid_changes integer not null,
    ask_changes integer not null,
    bid_added text not null,
    bid_removed text not null,
    ask_added text not null,
    ask_removed text not null,
    ofi text not null,
    best_bid text,
    best_ask text,
    last_id integer not null,
    partial integer not null check (partial in (0, 1)),
    primary key (instrument_id, second_ms)
) strict, without rowid;
create index depth_1s_raw_by_time on depth_1s_raw (second_ms);

-- One row an instrument: there is nothing to index.
create table tickers_raw (
    instrument_id integer not null,
    event_us integer not null,
    last text,
    bid text,
    ask text,
    open text,
    high text,
    low text,
    volume text,
    quote_volume text,
    trades integer,
    primary key (instrument_id)
) strict, without rowid;

create table collector_state_raw (
    instrument_id integer not null,
    timeframe text not null,
    last_timestamp_ms integer not null,
    last_updated_us integer not null,
    is_realtime integer not null check (is_realtime in (0, 1)),
    primary key (instrument_id, timeframe)
) strict, without rowid;
