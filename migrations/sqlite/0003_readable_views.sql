-- What people query. Names come from the instruments in force; `symbol` is the venue's own (BTCUSDT), `unified` is BTC/USDT
-- or BTC/USDT:USDT; `timestamp` and `*_time`, `*_at` are milliseconds, `ts_*` microseconds, all UTC.
--
-- Prices and quantities are numbers here (real), so that comparing, max() and order by do what they should. They are rounded
-- to the nearest double; the exact values are in the `*_raw` tables.
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
    cast(r.open as real) as open_price,
    cast(r.high as real) as high_price,
    cast(r.low as real) as low_price,
    cast(r.close as real) as close_price,
    cast(r.volume as real) as volume,
    cast(r.quote_volume as real) as quote_volume,
    r.trades,
    cast(r.taker_buy_volume as real) as taker_buy_volume,
    cast(r.taker_buy_quote_volume as real) as taker_buy_quote_volume,
    r.closed,
    r.updated_us / 1000 as updated_at
from candles_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null;

create view historical_data as select * from candles;

-- `bids` and `asks` are JSON [["price","quantity"],...], best first; json_extract reads into them.
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

-- A range of time is found by index when it is asked of ts_exchange; `timestamp` is computed from it.
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
    r.bid_price_m / p.unit as bid_price,
    r.bid_qty_m / q.unit as bid_qty,
    r.ask_price_m / p.unit as ask_price,
    r.ask_qty_m / q.unit as ask_qty,
    (r.ask_price_m - r.bid_price_m) / p.unit as spread
from book_ticker_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
join decimal_units p on p.scale = r.price_scale
join decimal_units q on q.scale = r.qty_scale;

create view tick_data as
select
    r.event_us / 1000 as timestamp,
    i.native as symbol,
    upper(i.market) as market_type,
    i.venue,
    r.event_us as ts_exchange,
    r.bid_price_m / p.unit as best_bid,
    r.ask_price_m / p.unit as best_ask,
    r.bid_qty_m / q.unit as bid_volume,
    r.ask_qty_m / q.unit as ask_volume,
    (r.ask_price_m - r.bid_price_m) / p.unit as spread
from book_ticker_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
join decimal_units p on p.scale = r.price_scale
join decimal_units q on q.scale = r.qty_scale;

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
    r.price_m / p.unit as price,
    r.qty_m / q.unit as quantity,
    (r.price_m / p.unit) * (r.qty_m / q.unit) as quote_quantity,
    r.side,
    r.first_raw_id,
    r.last_raw_id
from trades_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
join decimal_units p on p.scale = r.price_scale
join decimal_units q on q.scale = r.qty_scale;

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
    cast(r.depth as real) as depth,
    cast(r.bid_volume as real) as bid_volume,
    cast(r.ask_volume as real) as ask_volume,
    cast(r.bid_volume_usd as real) as bid_volume_usd,
    cast(r.ask_volume_usd as real) as ask_volume_usd,
    cast(r.mid_price as real) as mid_price,
    cast(r.best_bid as real) as best_bid,
    cast(r.best_ask as real) as best_ask,
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
    cast(r.depth as real) as depth,
    cast(r.total_bid_volume as real) as total_bid_volume,
    cast(r.total_ask_volume as real) as total_ask_volume,
    cast(r.total_bid_volume_usd as real) as total_bid_volume_usd,
    cast(r.total_ask_volume_usd as real) as total_ask_volume_usd,
    cast(r.avg_price as real) as avg_price,
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
    cast(r.depth as real) as depth,
    avg(cast(r.total_bid_volume_usd as real)) as avg_bid_volume_usd,
    max(cast(r.total_bid_volume_usd as real)) as max_bid_volume_usd,
    min(cast(r.total_bid_volume_usd as real)) as min_bid_volume_usd,
    avg(cast(r.total_ask_volume_usd as real)) as avg_ask_volume_usd,
    max(cast(r.total_ask_volume_usd as real)) as max_ask_volume_usd,
    min(cast(r.total_ask_volume_usd as real)) as min_ask_volume_usd,
    avg(cast(r.avg_price as real)) as avg_price,
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
    cast(r.depth as real) as depth,
    avg(cast(r.total_bid_volume_usd as real)) as avg_bid_volume_usd,
    max(cast(r.total_bid_volume_usd as real)) as max_bid_volume_usd,
    min(cast(r.total_bid_volume_usd as real)) as min_bid_volume_usd,
    avg(cast(r.total_ask_volume_usd as real)) as avg_ask_volume_usd,
    max(cast(r.total_ask_volume_usd as real)) as max_ask_volume_usd,
    min(cast(r.total_ask_volume_usd as real)) as min_ask_volume_usd,
    avg(cast(r.avg_price as real)) as avg_price,
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
    cast(r.mark_price as real) as mark_price,
    cast(r.index_price as real) as index_price,
    cast(r.funding_rate as real) as funding_rate,
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
    cast(r.last as real) as last,
    cast(r.bid as real) as bid,
    cast(r.ask as real) as ask,
    cast(r.open as real) as open,
    cast(r.high as real) as high,
    cast(r.low as real) as low,
    cast(r.volume as real) as volume,
    cast(r.quote_volume as real) as quote_volume,
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
    r.bid_open_m / p.unit as bid_open,
    r.bid_high_m / p.unit as bid_high,
    r.bid_low_m / p.unit as bid_low,
    r.bid_close_m / p.unit as bid_close,
    r.ask_open_m / p.unit as ask_open,
    r.ask_high_m / p.unit as ask_high,
    r.ask_low_m / p.unit as ask_low,
    r.ask_close_m / p.unit as ask_close,
    r.spread_open_m / p.unit as spread_open,
    r.spread_high_m / p.unit as spread_high,
    r.spread_low_m / p.unit as spread_low,
    r.spread_close_m / p.unit as spread_close,
    r.micro_open_m / m.unit as microprice_open,
    r.micro_high_m / m.unit as microprice_high,
    r.micro_low_m / m.unit as microprice_low,
    r.micro_close_m / m.unit as microprice_close,
    r.ticks,
    r.partial
from bt_1s_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
join decimal_units p on p.scale = r.price_scale
join decimal_units m on m.scale = r.price_scale + 4;

create view trade_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    r.open_m / p.unit as open,
    r.high_m / p.unit as high,
    r.low_m / p.unit as low,
    r.close_m / p.unit as close,
    cast(r.volume as real) as volume,
    cast(r.buy_volume as real) as buy_volume,
    cast(r.sell_volume as real) as sell_volume,
    cast(r.quote_volume as real) as quote_volume,
    cast(r.vwap as real) as vwap,
    r.trades,
    r.partial
from trade_1s_raw r
join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
join decimal_units p on p.scale = r.price_scale;

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
    cast(r.bid_added as real) as bid_added,
    cast(r.bid_removed as real) as bid_removed,
    cast(r.ask_added as real) as ask_added,
    cast(r.ask_removed as real) as ask_removed,
    cast(r.ofi as real) as ofi,
    cast(r.best_bid as real) as best_bid,
    cast(r.best_ask as real) as best_ask,
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
    b.bid_close_m / bp.unit as bid,
    b.ask_close_m / bp.unit as ask,
    b.spread_close_m / bp.unit as spread,
    b.micro_close_m / bm.unit as microprice,
    b.ticks,
    t.open_m / tp.unit as open,
    t.high_m / tp.unit as high,
    t.low_m / tp.unit as low,
    t.close_m / tp.unit as close,
    cast(t.volume as real) as volume,
    cast(t.buy_volume as real) as buy_volume,
    cast(t.sell_volume as real) as sell_volume,
    cast(t.quote_volume as real) as quote_volume,
    cast(t.vwap as real) as vwap,
    t.trades,
    d.updates,
    d.bid_changes,
    d.ask_changes,
    cast(d.bid_added as real) as bid_added,
    cast(d.bid_removed as real) as bid_removed,
    cast(d.ask_added as real) as ask_added,
    cast(d.ask_removed as real) as ask_removed,
    cast(d.ofi as real) as ofi,
    cast(d.best_bid as real) as best_bid,
    cast(d.best_ask as real) as best_ask,
    max(coalesce(b.partial, 0), coalesce(t.partial, 0), coalesce(d.partial, 0)) as partial
from market_seconds k
join instruments i on i.instrument_id = k.instrument_id and i.valid_to_us is null
left join bt_1s_raw b on b.instrument_id = k.instrument_id and b.second_ms = k.second_ms
left join decimal_units bp on bp.scale = b.price_scale
left join decimal_units bm on bm.scale = b.price_scale + 4
left join trade_1s_raw t on t.instrument_id = k.instrument_id and t.second_ms = k.second_ms
left join decimal_units tp on tp.scale = t.price_scale
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
    cast(tick_size as real) as tick_size,
    cast(lot_size as real) as lot_size,
    cast(contract_size as real) as contract_size,
    valid_from_us / 1000 as valid_from
from instruments
where valid_to_us is null;

create view exchanges as
select
    venue as id,
    venue as name,
    count(*) as pairs,
    sum(status = 'trading') as active_pairs,
    sum(market = 'spot') as spot_pairs,
    sum(market = 'futures') as futures_pairs,
    max(status = 'trading') as active
from instruments
where valid_to_us is null
group by venue;
