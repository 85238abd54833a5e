-- The tables that are not cut up by age. The others, `book_ticker_raw` and so on, are made by the program before these
-- migrations, because their shape depends on the server: native partitions, or plain tables that an extension cuts up.
--
-- Every table has a natural key, which makes writing a row twice harmless. There is no foreign key to `instruments`: its key is
-- a period, and a fact may be written before its instrument.

create table candles_raw (
    instrument_id bigint not null,
    timeframe text collate "C" not null,
    open_ms bigint not null,
    close_ms bigint not null,
    open numeric(28,12) not null,
    high numeric(28,12) not null,
    low numeric(28,12) not null,
    close numeric(28,12) not null,
    volume numeric(28,12) not null,
    quote_volume numeric(28,12) not null,
    trades bigint not null,
    taker_buy_volume numeric(28,12) not null,
    taker_buy_quote_volume numeric(28,12) not null,
    closed boolean not null,
    updated_us bigint not null,
    primary key (instrument_id, timeframe, open_ms)
)
-- The open candle is written again and again: room on its page keeps an update from touching the indexes.
with (fillfactor = 90);
create index candles_raw_by_time on candles_raw (open_ms);

-- One row an instrument: there is nothing to index.
create table tickers_raw (
    instrument_id bigint not null,
    event_us bigint not null,
    last numeric(28,12),
    bid numeric(28,12),
    ask numeric(28,12),
    open numeric(28,12),
    high numeric(28,12),
    low numeric(28,12),
    volume numeric(28,12),
    quote_volume numeric(28,12),
    trades bigint,
    primary key (instrument_id)
) with (fillfactor = 50);

create table collector_state_raw (
    instrument_id bigint not null,
    timeframe text collate "C" not null,
    last_timestamp_ms bigint not null,
    last_updated_us bigint not null,
    is_realtime boolean not null,
    primary key (instrument_id, timeframe)
) with (fillfactor = 50);

-- The gap ledger. Its rows are updated, the time from which they reach included: kept whole, and expired row by row.
create table data_gaps_raw (
    gap_id text collate "C" not null,
    instrument_id bigint not null,
    channel text collate "C" not null,
    cause text collate "C" not null,
    status text collate "C" not null check (status in ('open', 'none_missed', 'resynced', 'repaired', 'lost')),
    from_us bigint not null,
    to_us bigint,
    from_id text collate "C",
    to_id text collate "C",
    missing bigint,
    reason text collate "C",
    opened_us bigint not null,
    closed_us bigint,
    updated_us bigint not null,
    primary key (gap_id)
);
create index data_gaps_raw_by_instrument on data_gaps_raw (instrument_id, from_us);
create index data_gaps_raw_by_time on data_gaps_raw (from_us);
