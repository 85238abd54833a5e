-- What people query. Names come from the instruments in force; `symbol` is the venue's own (BTCUSDT), `unified` is BTC/USDT
-- or BTC/USDT:USDT; `timestamp` and `*_time`, `*_at` are milliseconds, `ts_*` microseconds, all UTC.
--
-- Prices and quantities are exact numerics.
-- The joins are inner ones, so that a question by symbol starts from the instrument; a fact is visible once its instrument is.

create view candles as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.timeframe,
    r.open_ms as timestamp,
    r.open_ms as open_time,
    r.close_ms as close_time,
    r.open as open_price,
    r.high as high_price,
    r.low as low_price,
    r.close as close_price,
    r.volume as volume,
    r.quote_volume as quote_volume,
    r.trades,
    r.taker_buy_volume as taker_buy_volume,
    r.taker_buy_quote_volume as taker_buy_quote_volume,
    r.closed,
    r.updated_us / 1000 as updated_at
from candles_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view historical_data as select * from candles;

-- `bids` and `asks` are JSON [["price","quantity"],...], best first; cast to jsonb to read into them.
create view orderbook_data as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.timestamp_ms as timestamp,
    r.last_update_id,
    r.bids,
    r.asks
from orderbook_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view collector_state as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.timeframe,
    r.last_timestamp_ms as last_timestamp,
    r.last_updated_us / 1000 as last_updated,
    r.is_realtime
from collector_state_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

-- A range of time is found by partition and index when it is asked of ts_exchange; `timestamp` is computed from it.
create view book_ticker as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us / 1000 as timestamp,
    r.event_us as ts_exchange,
    r.recv_us as ts_received,
    r.venue_time,
    r.update_id,
    r.ordinal,
    on_scale(r.bid_price_m, r.price_scale) as bid_price,
    on_scale(r.bid_qty_m, r.qty_scale) as bid_qty,
    on_scale(r.ask_price_m, r.price_scale) as ask_price,
    on_scale(r.ask_qty_m, r.qty_scale) as ask_qty,
    on_scale(r.ask_price_m - r.bid_price_m, r.price_scale) as spread
from book_ticker_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view tick_data as
select
    r.event_us / 1000 as timestamp,
    i.native as symbol,
    upper(i.market) as market_type,
    i.venue,
    r.event_us as ts_exchange,
    on_scale(r.bid_price_m, r.price_scale) as best_bid,
    on_scale(r.ask_price_m, r.price_scale) as best_ask,
    on_scale(r.bid_qty_m, r.qty_scale) as bid_volume,
    on_scale(r.ask_qty_m, r.qty_scale) as ask_volume,
    on_scale(r.ask_price_m - r.bid_price_m, r.price_scale) as spread
from book_ticker_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

-- `side` is the taker's.
create view trades as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.kind,
    r.trade_id,
    r.event_us / 1000 as timestamp,
    r.event_us as ts_exchange,
    r.recv_us as ts_received,
    on_scale(r.price_m, r.price_scale) as price,
    on_scale(r.qty_m, r.qty_scale) as quantity,
    on_scale(r.price_m, r.price_scale) * on_scale(r.qty_m, r.qty_scale) as quote_quantity,
    r.side,
    r.first_raw_id,
    r.last_raw_id
from trades_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view depth_events as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us / 1000 as timestamp,
    r.event_us as ts_exchange,
    r.recv_us as ts_received,
    r.first_id,
    r.last_id,
    r.prev_id,
    r.bids,
    r.asks
from depth_events_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view symbol_snapshots as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    upper(i.market) as market_type,
    r.timestamp_ms as timestamp,
    r.depth as depth,
    r.bid_volume as bid_volume,
    r.ask_volume as ask_volume,
    r.bid_volume_usd as bid_volume_usd,
    r.ask_volume_usd as ask_volume_usd,
    r.mid_price as mid_price,
    r.best_bid as best_bid,
    r.best_ask as best_ask,
    r.state,
    r.bid_covered,
    r.ask_covered,
    r.last_update_id,
    r.created_us / 1000 as created_at
from symbol_snapshots_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

-- `symbol_count` members are in the sums; `bid_covered` and `ask_covered` of them have a book that reaches the whole band.
create view category_snapshots as
select
    r.timestamp_ms as timestamp,
    r.category,
    r.market_type,
    r.depth as depth,
    r.total_bid_volume as total_bid_volume,
    r.total_ask_volume as total_ask_volume,
    r.total_bid_volume_usd as total_bid_volume_usd,
    r.total_ask_volume_usd as total_ask_volume_usd,
    r.avg_price as avg_price,
    r.symbol_count,
    r.created_us / 1000 as created_at,
    r.scope,
    r.member_count,
    r.bid_covered,
    r.ask_covered,
    r.stale_count,
    r.unpriced_count
from category_snapshots_raw r;

create view category_snapshots_agg_1h as
select
    r.timestamp_ms - r.timestamp_ms % 3600000 as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth as depth,
    avg(r.total_bid_volume_usd) as avg_bid_volume_usd,
    max(r.total_bid_volume_usd) as max_bid_volume_usd,
    min(r.total_bid_volume_usd) as min_bid_volume_usd,
    avg(r.total_ask_volume_usd) as avg_ask_volume_usd,
    max(r.total_ask_volume_usd) as max_ask_volume_usd,
    min(r.total_ask_volume_usd) as min_ask_volume_usd,
    avg(r.avg_price) as avg_price,
    avg(r.symbol_count) as avg_symbol_count,
    count(*) as count
from category_snapshots_raw r
group by r.scope, r.market_type, r.category, r.depth, r.timestamp_ms - r.timestamp_ms % 3600000;

create view category_snapshots_agg_1d as
select
    r.timestamp_ms - r.timestamp_ms % 86400000 as bucket,
    r.scope,
    r.category,
    r.market_type,
    r.depth as depth,
    avg(r.total_bid_volume_usd) as avg_bid_volume_usd,
    max(r.total_bid_volume_usd) as max_bid_volume_usd,
    min(r.total_bid_volume_usd) as min_bid_volume_usd,
    avg(r.total_ask_volume_usd) as avg_ask_volume_usd,
    max(r.total_ask_volume_usd) as max_ask_volume_usd,
    min(r.total_ask_volume_usd) as min_ask_volume_usd,
    avg(r.avg_price) as avg_price,
    avg(r.symbol_count) as avg_symbol_count,
    count(*) as count
from category_snapshots_raw r
group by r.scope, r.market_type, r.category, r.depth, r.timestamp_ms - r.timestamp_ms % 86400000;

create view funding as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us / 1000 as timestamp,
    r.event_us as ts_exchange,
    r.mark_price as mark_price,
    r.index_price as index_price,
    r.funding_rate as funding_rate,
    r.next_funding_ms as next_funding_time
from funding_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view tickers as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us / 1000 as timestamp,
    r.event_us as ts_exchange,
    r.last as last,
    r.bid as bid,
    r.ask as ask,
    r.open as open,
    r.high as high,
    r.low as low,
    r.volume as volume,
    r.quote_volume as quote_volume,
    r.trades
from tickers_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

-- One-second bars. `partial` marks one that a crash or a stop cut short.
create view bt_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    on_scale(r.bid_open_m, r.price_scale) as bid_open,
    on_scale(r.bid_high_m, r.price_scale) as bid_high,
    on_scale(r.bid_low_m, r.price_scale) as bid_low,
    on_scale(r.bid_close_m, r.price_scale) as bid_close,
    on_scale(r.ask_open_m, r.price_scale) as ask_open,
    on_scale(r.ask_high_m, r.price_scale) as ask_high,
    on_scale(r.ask_low_m, r.price_scale) as ask_low,
    on_scale(r.ask_close_m, r.price_scale) as ask_close,
    on_scale(r.spread_open_m, r.price_scale) as spread_open,
    on_scale(r.spread_high_m, r.price_scale) as spread_high,
    on_scale(r.spread_low_m, r.price_scale) as spread_low,
    on_scale(r.spread_close_m, r.price_scale) as spread_close,
    on_scale(r.micro_open_m, r.price_scale + 4) as microprice_open,
    on_scale(r.micro_high_m, r.price_scale + 4) as microprice_high,
    on_scale(r.micro_low_m, r.price_scale + 4) as microprice_low,
    on_scale(r.micro_close_m, r.price_scale + 4) as microprice_close,
    r.ticks,
    r.partial
from bt_1s_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view trade_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    on_scale(r.open_m, r.price_scale) as open,
    on_scale(r.high_m, r.price_scale) as high,
    on_scale(r.low_m, r.price_scale) as low,
    on_scale(r.close_m, r.price_scale) as close,
    r.volume as volume,
    r.buy_volume as buy_volume,
    r.sell_volume as sell_volume,
    r.quote_volume as quote_volume,
    r.vwap as vwap,
    r.trades,
    r.partial
from trade_1s_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view depth_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    r.updates,
    r.bid_changes,
    r.ask_changes,
    r.bid_added as bid_added,
    r.bid_removed as bid_removed,
    r.ask_added as ask_added,
    r.ask_removed as ask_removed,
    r.ofi as ofi,
    r.best_bid as best_bid,
    r.best_ask as best_ask,
    r.last_id,
    r.partial
from depth_1s_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

-- On TimescaleDB these are continuous aggregates of the raw ticks; here the service's own bars are all there is.
create view bt_1s_continuous as select * from bt_1s;
create view trade_1s_continuous as select * from trade_1s;
create view depth_1s_continuous as select * from depth_1s;

-- Every second of an instrument for which there is a bar of any kind, each once. Three disjoint parts instead of a full outer
-- join: conditions reach into the parts of a union, where they find the indexes, but not into an outer join.
create view market_seconds as
select instrument_id, second_ms from bt_1s_raw
union all
select t.instrument_id, t.second_ms
from trade_1s_raw t
where not exists (select 1 from bt_1s_raw b where b.instrument_id = t.instrument_id and b.second_ms = t.second_ms)
union all
select d.instrument_id, d.second_ms
from depth_1s_raw d
where not exists (select 1 from bt_1s_raw b where b.instrument_id = d.instrument_id and b.second_ms = d.second_ms)
    and not exists (select 1 from trade_1s_raw t where t.instrument_id = d.instrument_id and t.second_ms = d.second_ms);

-- The bars side by side; what a second does not have is null.
create view market_data_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    k.second_ms as timestamp,
    on_scale(b.bid_close_m, b.price_scale) as bid,
    on_scale(b.ask_close_m, b.price_scale) as ask,
    on_scale(b.spread_close_m, b.price_scale) as spread,
    on_scale(b.micro_close_m, b.price_scale + 4) as microprice,
    b.ticks,
    on_scale(t.open_m, t.price_scale) as open,
    on_scale(t.high_m, t.price_scale) as high,
    on_scale(t.low_m, t.price_scale) as low,
    on_scale(t.close_m, t.price_scale) as close,
    t.volume as volume,
    t.buy_volume as buy_volume,
    t.sell_volume as sell_volume,
    t.quote_volume as quote_volume,
    t.vwap as vwap,
    t.trades,
    d.updates,
    d.bid_changes,
    d.ask_changes,
    d.bid_added as bid_added,
    d.bid_removed as bid_removed,
    d.ask_added as ask_added,
    d.ask_removed as ask_removed,
    d.ofi as ofi,
    d.best_bid as best_bid,
    d.best_ask as best_ask,
    coalesce(b.partial, false) or coalesce(t.partial, false) or coalesce(d.partial, false) as partial
from market_seconds k
join instruments i on i.instrument_id = k.instrument_id and i.valid_to_us is null
left join bt_1s_raw b on b.instrument_id = k.instrument_id and b.second_ms = k.second_ms
left join trade_1s_raw t on t.instrument_id = k.instrument_id and t.second_ms = k.second_ms
left join depth_1s_raw d on d.instrument_id = k.instrument_id and d.second_ms = k.second_ms;

create view trading_pairs as
select
    venue as exchange,
    venue,
    market,
    native as symbol,
    symbol as unified,
    base,
    quote,
    settle,
    kind,
    expiry_ms as expiry,
    status,
    status = 'trading' as active,
    tick_size as tick_size,
    lot_size as lot_size,
    contract_size as contract_size,
    valid_from_us / 1000 as valid_from
from instruments
where valid_to_us is null;

create view exchanges as
select
    venue as id,
    venue as name,
    count(*) as pairs,
    count(*) filter (where status = 'trading') as active_pairs,
    count(*) filter (where market = 'spot') as spot_pairs,
    count(*) filter (where market = 'futures') as futures_pairs,
    bool_or(status = 'trading') as active
from instruments
where valid_to_us is null
group by venue;

-- The gap ledger.
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
