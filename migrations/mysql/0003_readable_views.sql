-- What people query. Names come from the instruments in force; `symbol` is the venue's own (BTCUSDT), `unified` is BTC/USDT
-- or BTC/USDT:USDT; `timestamp` and `*_time`, `*_at` are milliseconds, `ts_*` microseconds, all UTC. Numbers are exact.
--
-- There is no book_ticker, tick_data, trades or depth_events: this store keeps no ticks.
-- The joins are inner ones, so that a question by symbol starts from the instrument; a fact is visible once its instrument is.

create or replace view candles as
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
    r.volume,
    r.quote_volume,
    r.trades,
    r.taker_buy_volume,
    r.taker_buy_quote_volume,
    r.closed,
    r.updated_us div 1000 as updated_at
from candles_raw r
join instruments i on i.in_force = r.instrument_id;

create or replace view historical_data as select * from candles;

-- `bids` and `asks` are JSON [["price","quantity"],...], best first; json_extract reads into them.
create or replace view orderbook_data as
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
join instruments i on i.in_force = r.instrument_id;

create or replace view collector_state as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.timeframe,
    r.last_timestamp_ms as last_timestamp,
    r.last_updated_us div 1000 as last_updated,
    r.is_realtime
from collector_state_raw r
join instruments i on i.in_force = r.instrument_id;

create or replace view symbol_snapshots as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    upper(i.market) as market_type,
    r.timestamp_ms as timestamp,
    r.depth,
    r.bid_volume,
    r.ask_volume,
    r.bid_volume_usd,
    r.ask_volume_usd,
    r.mid_price,
    r.best_bid,
    r.best_ask,
    r.state,
    r.bid_covered,
    r.ask_covered,
    r.last_update_id,
    r.created_us div 1000 as created_at
from symbol_snapshots_raw r
join instruments i on i.in_force = r.instrument_id;

-- `symbol_count` members are in the sums; `bid_covered` and `ask_covered` of them have a book that reaches the whole band.
create or replace view category_snapshots as
select
    r.timestamp_ms as timestamp,
    r.category,
    r.market_type,
    r.depth,
    r.total_bid_volume,
    r.total_ask_volume,
    r.total_bid_volume_usd,
    r.total_ask_volume_usd,
    r.avg_price,
    r.symbol_count,
    r.created_us div 1000 as created_at,
    r.scope,
    r.member_count,
    r.bid_covered,
    r.ask_covered,
    r.stale_count,
    r.unpriced_count
from category_snapshots_raw r;

create or replace view funding as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us div 1000 as timestamp,
    r.event_us as ts_exchange,
    r.mark_price,
    r.index_price,
    r.funding_rate,
    r.next_funding_ms as next_funding_time
from funding_raw r
join instruments i on i.in_force = r.instrument_id;

create or replace view tickers as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.event_us div 1000 as timestamp,
    r.event_us as ts_exchange,
    r.last,
    r.bid,
    r.ask,
    r.open,
    r.high,
    r.low,
    r.volume,
    r.quote_volume,
    r.trades
from tickers_raw r
join instruments i on i.in_force = r.instrument_id;

-- One-second bars. `partial` marks one that a crash or a stop cut short.
create or replace view bt_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    cast(r.bid_open_m * p.unit as decimal(38, 18)) as bid_open,
    cast(r.bid_high_m * p.unit as decimal(38, 18)) as bid_high,
    cast(r.bid_low_m * p.unit as decimal(38, 18)) as bid_low,
    cast(r.bid_close_m * p.unit as decimal(38, 18)) as bid_close,
    cast(r.ask_open_m * p.unit as decimal(38, 18)) as ask_open,
    cast(r.ask_high_m * p.unit as decimal(38, 18)) as ask_high,
    cast(r.ask_low_m * p.unit as decimal(38, 18)) as ask_low,
    cast(r.ask_close_m * p.unit as decimal(38, 18)) as ask_close,
    cast(r.spread_open_m * p.unit as decimal(38, 18)) as spread_open,
    cast(r.spread_high_m * p.unit as decimal(38, 18)) as spread_high,
    cast(r.spread_low_m * p.unit as decimal(38, 18)) as spread_low,
    cast(r.spread_close_m * p.unit as decimal(38, 18)) as spread_close,
    cast(r.micro_open_m * m.unit as decimal(38, 18)) as microprice_open,
    cast(r.micro_high_m * m.unit as decimal(38, 18)) as microprice_high,
    cast(r.micro_low_m * m.unit as decimal(38, 18)) as microprice_low,
    cast(r.micro_close_m * m.unit as decimal(38, 18)) as microprice_close,
    r.ticks,
    r.partial
from bt_1s_raw r
join instruments i on i.in_force = r.instrument_id
join decimal_units p on p.scale = r.price_scale
join decimal_units m on m.scale = r.price_scale + 4;

create or replace view trade_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    cast(r.open_m * p.unit as decimal(38, 18)) as open,
    cast(r.high_m * p.unit as decimal(38, 18)) as high,
    cast(r.low_m * p.unit as decimal(38, 18)) as low,
    cast(r.close_m * p.unit as decimal(38, 18)) as close,
    r.volume,
    r.buy_volume,
    r.sell_volume,
    r.quote_volume,
    r.vwap,
    r.trades,
    r.partial
from trade_1s_raw r
join instruments i on i.in_force = r.instrument_id
join decimal_units p on p.scale = r.price_scale;

create or replace view depth_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    r.second_ms as timestamp,
    r.updates,
    r.bid_changes,
    r.ask_changes,
    r.bid_added,
    r.bid_removed,
    r.ask_added,
    r.ask_removed,
    r.ofi,
    r.best_bid,
    r.best_ask,
    r.last_id,
    r.partial
from depth_1s_raw r
join instruments i on i.in_force = r.instrument_id;

-- On TimescaleDB these are continuous aggregates of the raw ticks; here the service's own bars are all there is.
create or replace view bt_1s_continuous as select * from bt_1s;

create or replace view trade_1s_continuous as select * from trade_1s;

create or replace view depth_1s_continuous as select * from depth_1s;

-- The bars side by side, every second for which there is one of any kind; what a second does not have is null. Three disjoint
-- parts, each with its own join to the instruments, so that a condition on symbol and time reaches the indexes of each.
create or replace view market_data_1s as
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    b.second_ms as timestamp,
    cast(b.bid_close_m * bp.unit as decimal(38, 18)) as bid,
    cast(b.ask_close_m * bp.unit as decimal(38, 18)) as ask,
    cast(b.spread_close_m * bp.unit as decimal(38, 18)) as spread,
    cast(b.micro_close_m * bm.unit as decimal(38, 18)) as microprice,
    b.ticks,
    cast(t.open_m * tp.unit as decimal(38, 18)) as open,
    cast(t.high_m * tp.unit as decimal(38, 18)) as high,
    cast(t.low_m * tp.unit as decimal(38, 18)) as low,
    cast(t.close_m * tp.unit as decimal(38, 18)) as close,
    t.volume,
    t.buy_volume,
    t.sell_volume,
    t.quote_volume,
    t.vwap,
    t.trades,
    d.updates,
    d.bid_changes,
    d.ask_changes,
    d.bid_added,
    d.bid_removed,
    d.ask_added,
    d.ask_removed,
    d.ofi,
    d.best_bid,
    d.best_ask,
    greatest(b.partial, coalesce(t.partial, 0), coalesce(d.partial, 0)) as partial
from bt_1s_raw b
join instruments i on i.in_force = b.instrument_id
join decimal_units bp on bp.scale = b.price_scale
join decimal_units bm on bm.scale = b.price_scale + 4
left join trade_1s_raw t on t.instrument_id = b.instrument_id and t.second_ms = b.second_ms
left join decimal_units tp on tp.scale = t.price_scale
left join depth_1s_raw d on d.instrument_id = b.instrument_id and d.second_ms = b.second_ms
union all
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    t.second_ms as timestamp,
    null as bid,
    null as ask,
    null as spread,
    null as microprice,
    null as ticks,
    cast(t.open_m * tp.unit as decimal(38, 18)) as open,
    cast(t.high_m * tp.unit as decimal(38, 18)) as high,
    cast(t.low_m * tp.unit as decimal(38, 18)) as low,
    cast(t.close_m * tp.unit as decimal(38, 18)) as close,
    t.volume,
    t.buy_volume,
    t.sell_volume,
    t.quote_volume,
    t.vwap,
    t.trades,
    d.updates,
    d.bid_changes,
    d.ask_changes,
    d.bid_added,
    d.bid_removed,
    d.ask_added,
    d.ask_removed,
    d.ofi,
    d.best_bid,
    d.best_ask,
    greatest(t.partial, coalesce(d.partial, 0)) as partial
from trade_1s_raw t
join instruments i on i.in_force = t.instrument_id
join decimal_units tp on tp.scale = t.price_scale
left join depth_1s_raw d on d.instrument_id = t.instrument_id and d.second_ms = t.second_ms
where not exists (select 1 from bt_1s_raw b where b.instrument_id = t.instrument_id and b.second_ms = t.second_ms)
union all
select
    i.venue,
    i.market,
    i.native as symbol,
    i.symbol as unified,
    d.second_ms as timestamp,
    null as bid,
    null as ask,
    null as spread,
    null as microprice,
    null as ticks,
    null as open,
    null as high,
    null as low,
    null as close,
    null as volume,
    null as buy_volume,
    null as sell_volume,
    null as quote_volume,
    null as vwap,
    null as trades,
    d.updates,
    d.bid_changes,
    d.ask_changes,
    d.bid_added,
    d.bid_removed,
    d.ask_added,
    d.ask_removed,
    d.ofi,
    d.best_bid,
    d.best_ask,
    d.partial
from depth_1s_raw d
join instruments i on i.in_force = d.instrument_id
where not exists (select 1 from bt_1s_raw b where b.instrument_id = d.instrument_id and b.second_ms = d.second_ms)
    and not exists (select 1 from trade_1s_raw t where t.instrument_id = d.instrument_id and t.second_ms = d.second_ms);

create or replace view trading_pairs as
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
    tick_size,
    lot_size,
    contract_size,
    valid_from_us div 1000 as valid_from
from instruments
where valid_to_us is null;

create or replace view exchanges as
select
    venue as id,
    venue as name,
    count(*) as pairs,
    cast(sum(status = 'trading') as signed) as active_pairs,
    cast(sum(market = 'spot') as signed) as spot_pairs,
    cast(sum(market = 'futures') as signed) as futures_pairs,
    max(status = 'trading') as active
from instruments
where valid_to_us is null
group by venue;
