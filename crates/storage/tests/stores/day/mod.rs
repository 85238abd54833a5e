//! One day of a market, made from a seed, written to every store in another disorder: batches of many sizes, rows that come
//! late, batches that come again. Every question has the answer that follows from the day, computed here without a store.

mod made;
mod naive;

use fathom_market::{
    batch::Batch,
    table::{Row, Table},
};
use fathom_storage::{CandleQuery, CategoryQuery, RollupQuery, RollupWidth, SnapshotQuery, WriteOutcome};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rust_decimal::Decimal;

use crate::{
    rollups::{folded, plain, rolled_up},
    rows,
    stand::Stand,
    views::shows,
};
use made::Day;

const SEED: u64 = 20_261_121;
/// One batch in so many comes again, at once or later.
const AGAIN: u32 = 7;

pub(crate) async fn the_same_day_gives_the_same_answers(stand: &Stand) {
    let day = Day::make(SEED);
    Writing { stand, dice: StdRng::seed_from_u64(SEED ^ stand.kind as u64) }.day(&day).await;
    rolled_up(&*stand.store).await;
    counts(stand, &day).await;
    categories(stand, &day).await;
    symbols(stand, &day).await;
    candles(stand, &day).await;
    views(stand, &day).await;
}

struct Writing<'a> {
    stand: &'a Stand,
    dice: StdRng,
}

impl Writing<'_> {
    async fn day(&mut self, day: &Day) {
        self.rows(day.instruments.clone(), false).await;
        self.rows(day.categories.clone(), true).await;
        self.rows(day.symbols.clone(), true).await;
        self.rows(day.quote_bars.clone(), true).await;
        self.rows(day.trade_bars.clone(), true).await;
        self.rows(day.candles.clone(), true).await;
        if self.stand.takes(Table::Trades) {
            self.rows(day.trades.clone(), true).await;
        }
    }

    /// Writes rows once each, though not in their order, and some batches twice; what comes new and what again is counted
    /// exactly where the first commit wins.
    async fn rows<R: Row + Clone>(&mut self, rows: Vec<R>, in_disorder: bool) {
        let (mut early, mut late): (Vec<R>, Vec<R>) = (Vec::new(), Vec::new());
        for row in rows {
            let is_late = in_disorder && self.dice.random_ratio(1, 20);
            if is_late { late.push(row) } else { early.push(row) }
        }
        let mut held: Option<Batch> = None;
        let mut rest: &[R] = &early;
        while !rest.is_empty() {
            let size = self.dice.random_range(1..=3000).min(rest.len());
            let (now, after) = rest.split_at(size);
            rest = after;
            let batch = Batch::of(now.iter().cloned());
            self.for_the_first_time(&batch).await;
            if let Some(again) = held.take() {
                self.again(&again).await;
            }
            if self.dice.random_ratio(1, AGAIN) {
                held = Some(batch);
            }
        }
        // The late ones backwards, mixed with some that are known.
        late.reverse();
        for part in late.chunks(500) {
            let known = early.iter().take(100).cloned();
            let batch = Batch::of(part.iter().cloned().chain(known));
            self.stand.write(&batch).await;
        }
    }

    async fn for_the_first_time(&self, batch: &Batch) {
        let WriteOutcome::Committed { inserted, duplicate } = self.stand.write(batch).await else { return };
        assert_eq!(inserted + duplicate, batch.len() as u64, "{:?}", batch.table());
        if batch.table() != Table::Candles {
            assert_eq!(duplicate, 0, "{:?}", batch.table());
        }
    }

    async fn again(&self, batch: &Batch) {
        let WriteOutcome::Committed { inserted, .. } = self.stand.write(batch).await else { return };
        if batch.table() != Table::Candles {
            assert_eq!(inserted, 0, "{:?}", batch.table());
        }
    }
}

async fn counts(stand: &Stand, day: &Day) {
    let mut all = vec![
        (Table::Instruments, day.instruments.len()),
        (Table::CategorySnapshots, day.categories.len()),
        (Table::SymbolSnapshots, day.symbols.len()),
        (Table::Bt1s, day.quote_bars.len()),
        (Table::Trade1s, day.trade_bars.len()),
        (Table::Candles, naive::newest(&day.candles).len()),
    ];
    if stand.takes(Table::Trades) {
        all.push((Table::Trades, day.trades.len()));
    }
    for (table, rows) in all {
        assert_eq!(stand.count(table).await, rows as u64, "{table:?}");
    }
}

async fn categories(stand: &Stand, day: &Day) {
    let history = stand.store.history();
    for market_type in made::MARKET_TYPES {
        for depth in made::DEPTHS.map(rows::dec) {
            for category in made::CATEGORIES {
                let all = naive::category(day, market_type, category, depth);
                for (from, to, limit) in naive::ranges() {
                    let query = CategoryQuery {
                        scope: made::SCOPE.into(),
                        market_type: market_type.into(),
                        category: category.into(),
                        depth,
                        from_ms: from,
                        to_ms: to,
                        limit,
                    };
                    let wanted = naive::part(&all, |row| row.timestamp_ms, from, to, limit);
                    assert_eq!(history.category_range(&query).await.unwrap(), wanted, "{query:?}");
                }
                for width in [RollupWidth::Hour, RollupWidth::Day] {
                    let query = RollupQuery {
                        scope: made::SCOPE.into(),
                        market_type: market_type.into(),
                        category: category.into(),
                        depth,
                        width,
                        from_ms: None,
                        to_ms: None,
                        limit: 100,
                    };
                    let read = history.category_rollup(&query).await.unwrap();
                    let read: Vec<_> = read.into_iter().map(plain).collect();
                    assert_eq!(read, folded(&all, width), "{query:?}");
                }
            }
            let latest = history.latest_categories(made::SCOPE, market_type, depth).await.unwrap();
            assert_eq!(latest, naive::latest(day, market_type, depth));
        }
    }
    assert_eq!(history.category_stats(made::SCOPE).await.unwrap(), naive::stats(day));
}

async fn symbols(stand: &Stand, day: &Day) {
    let history = stand.store.history();
    for instrument in &day.instruments {
        for depth in made::DEPTHS.map(rows::dec) {
            let all = naive::symbol(day, instrument.instrument_id, depth);
            for (from_ms, to_ms, limit) in naive::ranges() {
                let instrument_id = instrument.instrument_id;
                let query = SnapshotQuery { instrument_id, depth, from_ms, to_ms, limit };
                let wanted = naive::part(&all, |row| row.timestamp_ms, from_ms, to_ms, limit);
                assert_eq!(history.symbol_range(&query).await.unwrap(), wanted, "{query:?}");
            }
        }
        let ends = async |table| history.ends(table, instrument.instrument_id, None).await.unwrap();
        assert_eq!(
            ends(Table::Bt1s).await,
            naive::ends(&day.quote_bars, instrument, |row| (row.instrument_id, row.second_ms))
        );
        assert_eq!(
            ends(Table::Trade1s).await,
            naive::ends(&day.trade_bars, instrument, |row| (row.instrument_id, row.second_ms))
        );
    }
    let mut wanted = day.instruments.clone();
    wanted.sort_by(|one, other| {
        (other.market.as_str(), &one.native).cmp(&(one.market.as_str(), &other.native))
    });
    assert_eq!(history.instruments().await.unwrap(), wanted);
}

async fn candles(stand: &Stand, day: &Day) {
    let history = stand.store.history();
    let newest = naive::newest(&day.candles);
    for instrument in &day.instruments {
        let instrument_id = instrument.instrument_id;
        for timeframe in made::TIMEFRAMES {
            let all = naive::series(&newest, instrument_id, timeframe);
            for (from_ms, to_ms, limit) in naive::ranges() {
                let query = CandleQuery { instrument_id, timeframe: timeframe.into(), from_ms, to_ms, limit };
                let wanted = naive::part(&all, |row| row.open_ms, from_ms, to_ms, limit);
                assert_eq!(history.candles(&query).await.unwrap(), wanted, "{query:?}");
            }
            let last = all.last().map(|row| (row.open_ms, row.closed));
            assert_eq!(history.last_candle(instrument_id, timeframe).await.unwrap(), last);
        }
    }
}

/// Sums and ends of the day by symbol, as people ask for them.
async fn views(stand: &Stand, day: &Day) {
    let columns = [
        "count(*)",
        "min(low)",
        "max(high)",
        "sum(volume)",
        "sum(buy_volume)",
        "sum(sell_volume)",
        "sum(quote_volume)",
        "sum(trades)",
        "min(vwap)",
        "max(vwap)",
        "sum(open)",
        "sum(close)",
    ];
    shows(
        stand,
        &columns,
        "trade_1s group by market, symbol order by market, symbol",
        &naive::trade_sums(day),
    )
    .await;
    let columns = [
        "count(*)",
        "sum(ticks)",
        "min(bid_low)",
        "max(ask_high)",
        "sum(bid_open)",
        "sum(ask_close)",
        "max(spread_high)",
    ];
    shows(stand, &columns, "bt_1s group by market, symbol order by market, symbol", &naive::quote_sums(day))
        .await;
    let columns =
        ["count(*)", "sum(volume)", "min(low_price)", "max(high_price)", "sum(close_price)", "sum(trades)"];
    let from = "candles where timeframe = '1m' group by market, symbol order by market, symbol";
    shows(stand, &columns, from, &naive::candle_sums(day)).await;
    let columns =
        ["bucket", "avg_bid_volume_usd", "max_ask_volume_usd", "avg_price", "avg_symbol_count", "count"];
    let from = "category_snapshots_agg_1h where market_type = 'SPOT' and category = 'OTHERS' and depth = 5 order by bucket";
    let hours = folded(&naive::category(day, "SPOT", "OTHERS", rows::dec("5")), RollupWidth::Hour);
    let hours: Vec<_> = hours
        .iter()
        .map(|hour| {
            let whole = |value: i64| Some(Decimal::from(value));
            let (bid, ask) = (Some(hour.bid_volume_usd[0]), Some(hour.ask_volume_usd[1]));
            let count = Some(Decimal::from(hour.count));
            vec![whole(hour.bucket_ms), bid, ask, hour.avg_price, Some(hour.avg_symbol_count), count]
        })
        .collect();
    shows(stand, &columns, from, &hours).await;
    // One row of a bar of every kind: each second with any of them, once.
    let seconds = [Some(Decimal::from(naive::seconds(day)))];
    shows(stand, &["count(*)"], "market_data_1s", &[seconds.to_vec()]).await;
}
