use std::collections::BTreeMap;

use proptest::prelude::*;
use rust_decimal::{Decimal, RoundingStrategy};

use super::*;
use crate::{
    ids::Market,
    sample::fixtures::{BINANCE, dec, instrument},
};

fn bars() -> SecondBars {
    SecondBars::new(&instrument(BINANCE, Market::Spot, "BTC", "USDT"))
}

fn level(price: i64, qty: i64) -> Level {
    Level { price, qty }
}

fn top(bid: Option<(i64, i64)>, ask: Option<(i64, i64)>) -> TopOfBook {
    TopOfBook {
        bid: bid.map(|(price, qty)| level(price, qty)),
        ask: ask.map(|(price, qty)| level(price, qty)),
    }
}

#[test]
fn microprice_leans_to_the_thin_side_and_rounds_half_even() {
    let cases = [
        ((100, 1), (102, 1), Some(1_010_000)),
        ((100, 3), (104, 1), Some(1_030_000)),
        ((100, 1), (104, 3), Some(1_010_000)),
        ((100, 1), (101, 2), Some(1_003_333)),
        ((100, 2), (101, 1), Some(1_006_667)),
        // 100 + 1/20000 is half a unit above 1 000 000, 100 + 3/20000 above 1 000 001.
        ((100, 1), (101, 19_999), Some(1_000_000)),
        ((100, 3), (101, 19_997), Some(1_000_002)),
        ((100, 0), (101, 5), Some(1_000_000)),
        ((100, 0), (101, 0), None),
        ((0, 1), (101, 1), None),
        ((100, -1), (101, 1), None),
        ((i64::MAX / 20_000, i64::MAX), (i64::MAX / 20_000, i64::MAX), Some(i64::MAX / 20_000 * 10_000)),
        ((i64::MAX, 1), (i64::MAX, 1), None),
    ];
    for ((bid, bid_qty), (ask, ask_qty), expected) in cases {
        assert_eq!(
            microprice(level(bid, bid_qty), level(ask, ask_qty)),
            expected,
            "{bid}x{bid_qty} {ask}x{ask_qty}"
        );
    }
}

#[test]
fn order_flow_follows_the_paper() {
    let before = top(Some((100, 5)), Some((102, 7)));
    let cases = [
        (before, 0),
        (top(Some((100, 8)), Some((102, 7))), 3),
        (top(Some((101, 2)), Some((102, 7))), 2),
        (top(Some((99, 9)), Some((102, 7))), -5),
        (top(Some((100, 5)), Some((102, 4))), 3),
        (top(Some((100, 5)), Some((101, 4))), -4),
        (top(Some((100, 5)), Some((103, 4))), 7),
        (top(None, Some((102, 7))), -5),
        (top(Some((100, 5)), None), 7),
    ];
    for (after, expected) in cases {
        assert_eq!(order_flow(before, after), expected, "{after:?}");
    }
    assert_eq!(order_flow(TopOfBook::default(), before), -2);
}

#[test]
fn seconds_are_half_open_and_empty_ones_have_no_bar() {
    let mut bars = bars();
    for time_us in [10_000_000, 10_999_999, 11_000_000, 14_500_000] {
        assert!(bars.on_quote(level(100, 1), level(101, 1), time_us));
    }
    let rows = bars.roll(15_000_000).quotes;
    let seen: Vec<_> = rows.iter().map(|row| (row.second_ms, row.ticks, row.partial)).collect();
    assert_eq!(seen, [(10_000, 2, true), (11_000, 1, false), (14_000, 1, false)]);
    assert!(bars.roll(99_000_000).is_empty());
}

#[test]
fn a_bar_is_finished_when_its_second_is_over() {
    let mut bars = bars();
    bars.on_trade(100, 1, Side::Buy, 10_000_000);
    assert!(bars.roll(10_999_999).is_empty());
    assert_eq!(bars.roll(11_000_000).trades.len(), 1);
}

#[test]
fn late_items_go_to_the_open_or_the_next_bar_and_are_counted() {
    let mut bars = bars();
    bars.on_trade(100, 1, Side::Buy, 10_500_000);
    bars.on_trade(101, 1, Side::Buy, 11_000_000);
    bars.on_trade(99, 1, Side::Sell, 10_900_000);
    assert_eq!(bars.counts().late, 1);
    let rows = bars.roll(12_000_000).trades;
    assert_eq!(
        rows.iter().map(|row| (row.second_ms, row.trades, row.low_m)).collect::<Vec<_>>(),
        [(10_000, 1, 100), (11_000, 2, 99)]
    );
    // Second 11 has been issued: what still comes for it belongs to the next bar.
    bars.on_trade(98, 1, Side::Sell, 11_999_999);
    assert_eq!(bars.counts().late, 2);
    let rows = bars.roll(13_000_000).trades;
    assert_eq!(rows.iter().map(|row| (row.second_ms, row.trades)).collect::<Vec<_>>(), [(12_000, 1)]);
}

#[test]
fn interruptions_and_shutdown_make_bars_partial() {
    let mut bars = bars();
    let seconds =
        |rows: &[TradeBarRow]| rows.iter().map(|row| (row.second_ms, row.partial)).collect::<Vec<_>>();
    for second in 10..13 {
        bars.on_trade(100, 1, Side::Buy, second * 1_000_000);
    }
    bars.interrupt();
    for second in 15..18 {
        bars.on_trade(100, 1, Side::Buy, second * 1_000_000);
    }
    let finished = bars.flush(17_400_000);
    let expected =
        [(10_000, true), (11_000, false), (12_000, true), (15_000, true), (16_000, false), (17_000, true)];
    assert_eq!(seconds(&finished.trades), expected);
    // The flushed second is not issued again.
    bars.on_trade(100, 1, Side::Buy, 17_900_000);
    assert_eq!(seconds(&bars.flush(20_000_000).trades), [(18_000, true)]);

    bars.on_trade(100, 1, Side::Buy, 20_000_000);
    bars.on_trade(100, 1, Side::Buy, 21_000_000);
    assert_eq!(
        seconds(&bars.flush(22_000_000).trades),
        [(20_000, true), (21_000, false)],
        "second 21 was over"
    );
}

#[test]
fn what_no_bar_can_hold_is_rejected() {
    let mut bars = bars();
    assert!(!bars.on_quote(level(0, 1), level(1, 1), 0));
    assert!(!bars.on_trade(0, 1, Side::Buy, 0));
    assert!(!bars.on_trade(1, -1, Side::Buy, 0));
    assert!(bars.on_trade(i64::MAX, i64::MAX, Side::Buy, 0));
    assert!(bars.on_trade(i64::MAX, i64::MAX, Side::Buy, 0));
    assert!(!bars.on_trade(i64::MAX, i64::MAX, Side::Buy, 0), "the sum would need more than 127 bits");
    assert_eq!(bars.counts().rejected, 4);
    assert!(bars.roll(1_000_000).is_empty(), "the volume does not fit its column");
    assert_eq!(bars.counts().unfit, 1);
}

#[test]
fn bars_that_nobody_fetches_are_bounded() {
    let mut bars = bars();
    let seconds = PENDING_BARS as i64 + 6;
    for second in 0..seconds {
        bars.on_trade(1, 1, Side::Buy, second * 1_000_000);
    }
    let rows = bars.roll(seconds * 1_000_000).trades;
    assert_eq!((rows.len(), rows[0].second_ms, bars.counts().overflowed), (PENDING_BARS, 6_000, 6));
}

#[test]
fn columns_are_rounded_once_and_counted() {
    let mut pair = (*instrument(BINANCE, Market::Spot, "SHIB", "BTC")).clone();
    (pair.price_scale, pair.qty_scale) = (12, 8);
    let mut bars = SecondBars::new(&pair);
    bars.on_trade(5, 150_000_000, Side::Buy, 0);
    bars.on_trade(6, 150_000_000, Side::Sell, 0);
    let row = bars.roll(1_000_000).trades.remove(0);
    // 16.5 and 5.5 units of the twelfth decimal.
    assert_eq!((row.quote_volume, row.vwap), (dec("0.000000000016"), dec("0.000000000006")));
    assert_eq!((row.volume, row.buy_volume), (dec("3"), dec("1.5")));
    assert_eq!(bars.counts().rounded, 2);
}

#[test]
fn depth_bars_sum_changes_and_end_with_the_last_top() {
    let mut bars = bars();
    let first = DepthChange {
        bid_changes: 2,
        ask_changes: 1,
        bid_added: 1500,
        ask_removed: 250,
        before: top(Some((10_000, 5000)), Some((10_010, 7000))),
        after: top(Some((10_000, 6500)), Some((10_010, 6750))),
        last_id: 41,
        ..DepthChange::default()
    };
    let second = DepthChange {
        ask_changes: 1,
        ask_added: 4000,
        bid_removed: 1,
        before: first.after,
        after: top(Some((10_000, 6500)), None),
        last_id: 42,
        ..DepthChange::default()
    };
    assert!(bars.on_depth(&first, 5_000_000) && bars.on_depth(&second, 5_100_000));
    let row = bars.roll(6_000_000).depths.remove(0);
    let expected = DepthBarRow {
        instrument_id: row.instrument_id,
        second_ms: 5000,
        updates: 2,
        bid_changes: 2,
        ask_changes: 2,
        bid_added: dec("1.5"),
        bid_removed: dec("0.001"),
        ask_added: dec("4"),
        ask_removed: dec("0.25"),
        // 1500 more on the bid and 250 less on the ask, then the whole ask of 6750 gone.
        ofi: dec("8.5"),
        best_bid: Some(dec("100")),
        best_ask: None,
        last_id: 42,
        partial: true,
    };
    assert_eq!(row, expected);
}

/// The second of each item's bar, by the rules in words: never before one already opened or rolled past.
fn seconds_of(times: &[i64]) -> Vec<i64> {
    let mut latest = i64::MIN;
    times
        .iter()
        .map(|time| {
            latest = latest.max(time.div_euclid(1_000_000));
            latest
        })
        .collect()
}

fn grouped<T: Clone>(times: &[i64], items: &[T]) -> BTreeMap<i64, Vec<T>> {
    let mut groups = BTreeMap::<i64, Vec<T>>::new();
    for (second, item) in seconds_of(times).into_iter().zip(items) {
        groups.entry(second).or_default().push(item.clone());
    }
    groups
}

fn times(steps: &[i64]) -> Vec<i64> {
    steps
        .iter()
        .scan(50_000_000, |now, step| {
            *now += step;
            Some(*now)
        })
        .collect()
}

fn ohlc(values: &[i64]) -> [i64; 4] {
    [values[0], *values.iter().max().unwrap(), *values.iter().min().unwrap(), values[values.len() - 1]]
}

fn nearest(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(12, RoundingStrategy::MidpointNearestEven).normalize()
}

proptest! {
    #[test]
    fn quote_bars_agree_with_plain_groups(
        drawn in proptest::collection::vec((-200_000_i64..900_000, 1_i64..100_000, 1_i64..50, 0_i64..1000, 1_i64..1000), 1..80),
        rolled in any::<bool>(),
    ) {
        let times = times(&drawn.iter().map(|d| d.0).collect::<Vec<_>>());
        let quotes: Vec<_> = drawn.iter().map(|d| (level(d.1, d.3), level(d.1 + d.2, d.4))).collect();
        let (mut bars, mut rows) = (bars(), Vec::new());
        for (time, (bid, ask)) in times.iter().zip(&quotes) {
            prop_assert!(bars.on_quote(*bid, *ask, *time));
            if rolled {
                rows.extend(bars.roll(*time).quotes);
            }
        }
        rows.extend(bars.roll(times.iter().max().unwrap() + 1_000_000).quotes);
        let expected = grouped(&times, &quotes);
        prop_assert_eq!(rows.iter().map(|row| row.second_ms).collect::<Vec<_>>(), expected.keys().map(|s| s * 1000).collect::<Vec<_>>());
        let late = times.iter().zip(seconds_of(&times)).filter(|(time, second)| time.div_euclid(1_000_000) < *second).count();
        prop_assert_eq!(bars.counts().late, late as u64);
        for (at, (row, quotes)) in rows.iter().zip(expected.values()).enumerate() {
            let of = |value: &dyn Fn(&(Level, Level)) -> i64| ohlc(&quotes.iter().map(value).collect::<Vec<_>>());
            prop_assert_eq!([row.bid_open_m, row.bid_high_m, row.bid_low_m, row.bid_close_m], of(&|q| q.0.price));
            prop_assert_eq!([row.ask_open_m, row.ask_high_m, row.ask_low_m, row.ask_close_m], of(&|q| q.1.price));
            prop_assert_eq!([row.spread_open_m, row.spread_high_m, row.spread_low_m, row.spread_close_m], of(&|q| q.1.price - q.0.price));
            let micro = of(&|(bid, ask)| {
                let sum = Decimal::from(ask.price * bid.qty + bid.price * ask.qty) * Decimal::from(10_000);
                let exact = sum / Decimal::from(bid.qty + ask.qty);
                i64::try_from(exact.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven)).unwrap()
            });
            prop_assert_eq!([row.micro_open_m, row.micro_high_m, row.micro_low_m, row.micro_close_m], micro);
            prop_assert_eq!((row.ticks, row.partial), (quotes.len() as i64, at == 0));
        }
    }

    #[test]
    fn trade_bars_agree_with_plain_groups(
        drawn in proptest::collection::vec((-200_000_i64..900_000, 1_i64..100_000, 1_i64..100_000, any::<bool>()), 1..80),
    ) {
        let times = times(&drawn.iter().map(|d| d.0).collect::<Vec<_>>());
        let mut bars = bars();
        for (time, (_, price, qty, buy)) in times.iter().zip(&drawn) {
            let side = if *buy { Side::Buy } else { Side::Sell };
            prop_assert!(bars.on_trade(*price, *qty, side, *time));
        }
        let rows = bars.flush(times.iter().max().unwrap() + 1_000_000).trades;
        let expected = grouped(&times, &drawn);
        prop_assert_eq!(rows.len(), expected.len());
        for (row, (second, trades)) in rows.iter().zip(&expected) {
            let qty = |wanted: fn(bool) -> bool| -> Decimal {
                trades.iter().filter(|t| wanted(t.3)).map(|t| Decimal::new(t.2, 3)).sum()
            };
            let quote: Decimal = trades.iter().map(|t| Decimal::new(t.1, 2) * Decimal::new(t.2, 3)).sum();
            prop_assert_eq!(row.second_ms, second * 1000);
            prop_assert_eq!([row.open_m, row.high_m, row.low_m, row.close_m], ohlc(&trades.iter().map(|t| t.1).collect::<Vec<_>>()));
            prop_assert_eq!((row.volume, row.buy_volume, row.sell_volume), (qty(|_| true), qty(|buy| buy), qty(|buy| !buy)));
            prop_assert_eq!((row.quote_volume, row.vwap), (quote, nearest(quote / qty(|_| true))));
            prop_assert_eq!(row.trades, trades.len() as i64);
        }
    }

    #[test]
    fn depth_bars_agree_with_plain_groups(
        drawn in proptest::collection::vec((-200_000_i64..900_000, 95_i64..105, 1_i64..50, 106_i64..110, 1_i64..50, 0_u32..9), 2..80),
    ) {
        let times = times(&drawn.iter().map(|d| d.0).collect::<Vec<_>>());
        let tops: Vec<_> = drawn.iter().map(|d| top(Some((d.1, d.2)), Some((d.3, d.4)))).collect();
        let changes: Vec<_> = (1_u64..).zip(tops.windows(2)).zip(&drawn[1..]).map(|((id, pair), d)| DepthChange {
            bid_changes: d.5,
            ask_changes: 1,
            bid_added: i128::from(d.2),
            bid_removed: i128::from(d.4),
            ask_added: i128::from(d.5),
            ask_removed: 1,
            before: pair[0],
            after: pair[1],
            last_id: id,
        }).collect();
        let mut bars = bars();
        for (time, change) in times[1..].iter().zip(&changes) {
            prop_assert!(bars.on_depth(change, *time));
        }
        let rows = bars.flush(times.iter().max().unwrap() + 1_000_000).depths;
        let expected = grouped(&times[1..], &changes);
        prop_assert_eq!(rows.len(), expected.len());
        for (row, changes) in rows.iter().zip(expected.values()) {
            let sum = |of: fn(&DepthChange) -> i128| Decimal::from_i128_with_scale(changes.iter().map(of).sum(), 3);
            let flow = |change: &DepthChange| -> i128 {
                let (b, a) = (change.before, change.after);
                let (pb, pa) = (b.bid.unwrap(), b.ask.unwrap());
                let (nb, na) = (a.bid.unwrap(), a.ask.unwrap());
                let on = |test: bool, qty: i64| if test { i128::from(qty) } else { 0 };
                on(nb.price >= pb.price, nb.qty) - on(nb.price <= pb.price, pb.qty)
                    - on(na.price <= pa.price, na.qty) + on(na.price >= pa.price, pa.qty)
            };
            prop_assert_eq!(row.ofi, sum(flow));
            prop_assert_eq!([row.bid_added, row.bid_removed], [sum(|c| c.bid_added), sum(|c| c.bid_removed)]);
            prop_assert_eq!([row.ask_added, row.ask_removed], [sum(|c| c.ask_added), sum(|c| c.ask_removed)]);
            prop_assert_eq!(row.bid_changes, changes.iter().map(|c| i64::from(c.bid_changes)).sum::<i64>());
            prop_assert_eq!((row.updates, row.ask_changes), (changes.len() as i64, changes.len() as i64));
            let last = changes[changes.len() - 1];
            prop_assert_eq!(row.best_bid, last.after.bid.map(|bid| Decimal::new(bid.price, 2)));
            prop_assert_eq!(row.last_id, last.last_id as i64);
        }
    }
}
