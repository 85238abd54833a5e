//! One-second trade bars, made anew from stored trades after a gap was repaired. Pure, and the same for every store.
//!
//! A live bar is of the second in which its trades were received. A trade that was fetched afterwards was received long
//! after it happened, so it belongs to the second of its own time; [`second_ms`] tells from the row alone which it is, and
//! so each trade is in exactly one bar.
//!
//! A bar is replaced only by one that knows more ([`rebuild`]): raw rows that were refused or have expired never make a
//! bar poorer, and doing it twice changes nothing.

use std::collections::BTreeMap;

use fathom_market::{bars::bar_of_trades, event::Side, table::TradeBarRow};

/// A trade that is received this much after its own time was fetched, not streamed; microseconds.
pub const STREAMED_WITHIN_US: i64 = 5_000_000;
/// Seconds of one pass, so that no transaction is long.
pub const PASS_MS: i64 = 60_000;

/// What a bar needs of a stored trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTrade {
    /// `trade` or `agg`.
    pub kind: String,
    /// The venue's id.
    pub trade_id: String,
    /// Its time, microseconds.
    pub event_us: i64,
    /// When it was received, microseconds.
    pub recv_us: i64,
    /// Price, mantissa on `price_scale`.
    pub price_m: i64,
    /// Quantity, mantissa on `qty_scale`.
    pub qty_m: i64,
    /// Decimals of the price.
    pub price_scale: i64,
    /// Decimals of the quantity.
    pub qty_scale: i64,
    /// The taker's side, `buy` or `sell`.
    pub side: String,
}

/// What is known of a stored bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBar {
    /// Its trades.
    pub trades: i64,
    /// Whether it was cut short.
    pub partial: bool,
}

/// An interval of time, microseconds; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Where it begins.
    pub from_us: i64,
    /// Where it ends.
    pub to_us: i64,
}

impl Interval {
    fn meets(&self, second_ms: i64) -> bool {
        let start_us = second_ms.saturating_mul(1000);
        self.from_us < start_us.saturating_add(1_000_000) && self.to_us >= start_us
    }

    /// The seconds whose bars its trades may be in, milliseconds: the first, and the one behind the last.
    pub const fn seconds_ms(&self) -> (i64, i64) {
        let first_us = self.from_us.saturating_sub(STREAMED_WITHIN_US);
        let last_us = self.to_us.saturating_add(STREAMED_WITHIN_US);
        (first_us.div_euclid(1_000_000) * 1000, (last_us.div_euclid(1_000_000) + 1) * 1000)
    }
}

/// What is known of some seconds of an instrument.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The trades of these seconds; more do no harm.
    pub trades: Vec<StoredTrade>,
    /// The bars that are stored.
    pub bars: BTreeMap<i64, StoredBar>,
    /// Where trades are missing still.
    pub holes: Vec<Interval>,
    /// Time of the oldest trade that is stored at all, microseconds: older ones may have expired.
    pub oldest_us: i64,
}

/// The start of the second whose bar a trade belongs to, milliseconds.
pub const fn second_ms(event_us: i64, recv_us: i64) -> i64 {
    let streamed = recv_us.saturating_sub(event_us).saturating_abs() < STREAMED_WITHIN_US;
    let own_us = if streamed { recv_us } else { event_us };
    own_us.div_euclid(1_000_000) * 1000
}

/// The bars of the seconds from `from_ms` to before `to_ms` that know more than the stored ones, `repaired` being what was
/// filled: those with more trades, those that were cut short there, and those that were missing there.
pub fn rebuild(
    instrument_id: i64,
    (from_ms, to_ms): (i64, i64),
    repaired: Interval,
    known: &Known,
) -> Vec<TradeBarRow> {
    let mut seconds: BTreeMap<i64, Vec<&StoredTrade>> = BTreeMap::new();
    for trade in &known.trades {
        let second = second_ms(trade.event_us, trade.recv_us);
        if (from_ms..to_ms).contains(&second) && second.saturating_mul(1000) > known.oldest_us {
            seconds.entry(second).or_default().push(trade);
        }
    }
    let bar = |(second, trades)| rebuild_bar(instrument_id, second, trades, repaired, known);
    seconds.into_iter().filter_map(bar).collect()
}

fn rebuild_bar(
    instrument_id: i64,
    second_ms: i64,
    trades: Vec<&StoredTrade>,
    repaired: Interval,
    known: &Known,
) -> Option<TradeBarRow> {
    let stored = known.bars.get(&second_ms).copied();
    let is_repaired = repaired.meets(second_ms);
    let is_holed = known.holes.iter().any(|hole| hole.meets(second_ms));
    let partial = is_holed || (!is_repaired && stored.is_some_and(|bar| bar.partial));
    let trades = in_order(of_one_kind(trades));
    let count = trades.len() as i64;
    let knows_more = match stored {
        // A second that has no bar although nothing was missing there is not over yet.
        None => is_repaired,
        Some(bar) => count > bar.trades || (count == bar.trades && bar.partial && !partial),
    };
    if !knows_more {
        return None;
    }
    let scales = trades.iter().map(|trade| (trade.price_scale, trade.qty_scale));
    let (price_scale, qty_scale) = scales.fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)));
    let items = trades.iter().map(|trade| {
        let price = on_scale(trade.price_m, price_scale - trade.price_scale)?;
        let qty = on_scale(trade.qty_m, qty_scale - trade.qty_scale)?;
        Some((price, qty, if trade.side == Side::Buy.as_str() { Side::Buy } else { Side::Sell }))
    });
    let items = items.collect::<Option<Vec<_>>>()?;
    let scales = (u8::try_from(price_scale).ok()?, u8::try_from(qty_scale).ok()?);
    bar_of_trades(instrument_id, second_ms, scales, items, partial)
}

/// Single trades and aggregates tell of the same: of both, those that are more.
fn of_one_kind(mut trades: Vec<&StoredTrade>) -> Vec<&StoredTrade> {
    let single = trades.iter().filter(|trade| trade.kind == "trade").count();
    let kind = if single * 2 > trades.len() { "trade" } else { "agg" };
    if trades.iter().any(|trade| trade.kind == kind) {
        trades.retain(|trade| trade.kind == kind);
    }
    trades
}

/// In the order of their ids where these are numbers, else of their times.
fn in_order(mut trades: Vec<&StoredTrade>) -> Vec<&StoredTrade> {
    let number = |trade: &&StoredTrade| trade.trade_id.parse::<u64>().unwrap_or(0);
    trades.sort_by_cached_key(|trade| (number(trade), trade.event_us, trade.trade_id.clone()));
    trades
}

fn on_scale(mantissa: i64, decimals: i64) -> Option<i64> {
    mantissa.checked_mul(10_i64.checked_pow(u32::try_from(decimals).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Received 20 ms after its time.
    fn streamed(id: u64, event_us: i64, qty_m: i64) -> StoredTrade {
        StoredTrade {
            kind: "trade".into(),
            trade_id: id.to_string(),
            event_us,
            recv_us: event_us + 20_000,
            price_m: 1000 + id.cast_signed(),
            qty_m,
            price_scale: 2,
            qty_scale: 3,
            side: if id.is_multiple_of(2) { "buy" } else { "sell" }.into(),
        }
    }

    fn fetched(id: u64, event_us: i64, qty_m: i64) -> StoredTrade {
        StoredTrade { recv_us: event_us + 600 * SECOND, ..streamed(id, event_us, qty_m) }
    }

    fn known(trades: Vec<StoredTrade>, bars: &[(i64, i64, bool)]) -> Known {
        let bars = bars.iter().map(|(second, trades, partial)| {
            (second * 1000, StoredBar { trades: *trades, partial: *partial })
        });
        Known { trades, bars: bars.collect(), holes: Vec::new(), oldest_us: 0 }
    }

    fn seconds(bars: &[TradeBarRow]) -> Vec<(i64, i64, bool)> {
        bars.iter().map(|bar| (bar.second_ms / 1000, bar.trades, bar.partial)).collect()
    }

    const HOLE: Interval = Interval { from_us: 10 * SECOND + 400_000, to_us: 12 * SECOND + 600_000 };

    fn all(known: &Known) -> Vec<TradeBarRow> {
        rebuild(7, HOLE.seconds_ms(), HOLE, known)
    }

    #[test]
    fn a_trade_is_in_one_second_streamed_or_fetched() {
        assert_eq!(second_ms(10 * SECOND - 1, 10 * SECOND + 5), 10_000);
        assert_eq!(second_ms(10 * SECOND - 1, 700 * SECOND), 9000);
        assert_eq!(second_ms(10 * SECOND + 9, 10 * SECOND - 1), 9000);
        assert_eq!(HOLE.seconds_ms(), (5000, 18_000));
    }

    #[test]
    fn what_was_cut_short_or_missing_is_made_of_all_trades() {
        let trades = vec![
            streamed(1, 10 * SECOND + 100_000, 10),
            fetched(2, 10 * SECOND + 500_000, 20),
            fetched(4, 11 * SECOND + 999_999, 40),
            fetched(3, 11 * SECOND, 30),
            streamed(5, 12 * SECOND + 600_000, 50),
        ];
        let bars = all(&known(trades, &[(10, 1, true), (12, 1, true)]));
        assert_eq!(seconds(&bars), [(10, 2, false), (11, 2, false), (12, 1, false)]);
        let eleventh = &bars[1];
        assert_eq!(
            (eleventh.open_m, eleventh.high_m, eleventh.low_m, eleventh.close_m),
            (1003, 1004, 1003, 1004)
        );
        assert_eq!(eleventh.volume.to_string(), "0.07");
        assert_eq!(
            (eleventh.buy_volume.to_string(), eleventh.sell_volume.to_string()),
            ("0.04".into(), "0.03".into())
        );
        // 10.03 * 0.030 + 10.04 * 0.040
        assert_eq!(eleventh.quote_volume.to_string(), "0.7025");
        assert_eq!(eleventh.vwap.round_dp(6).to_string(), "10.035714");
    }

    #[test]
    fn a_bar_that_knows_as_much_or_more_stays() {
        let trades = vec![
            streamed(1, 10 * SECOND + 100_000, 10),
            streamed(5, 12 * SECOND + 600_000, 50),
            streamed(6, 14 * SECOND, 60),
            streamed(7, 17 * SECOND, 70),
        ];
        // A whole one of as many, a partial one of more, one outside of the hole that was cut short by something else, and a
        // second that is not over.
        let stored = [(10, 1, false), (12, 3, true), (14, 1, true)];
        assert_eq!(seconds(&all(&known(trades.clone(), &stored))), []);
        // A hole that was seen late: its bar was taken for whole.
        let mut more = known(trades, &[(10, 1, false), (12, 3, true), (14, 1, true)]);
        more.trades.push(fetched(2, 10 * SECOND + 900_000, 20));
        assert_eq!(seconds(&all(&more)), [(10, 2, false)]);
    }

    #[test]
    fn a_second_with_another_hole_stays_partial_and_old_seconds_are_left_alone() {
        let trades = vec![
            streamed(1, 10 * SECOND + 100_000, 10),
            fetched(2, 10 * SECOND + 500_000, 20),
            fetched(3, 11 * SECOND, 30),
        ];
        let mut known = known(trades, &[(10, 1, true)]);
        known.holes.push(Interval { from_us: 10 * SECOND + 950_000, to_us: 10 * SECOND + 960_000 });
        assert_eq!(seconds(&all(&known)), [(10, 2, true), (11, 1, false)]);
        known.oldest_us = 10 * SECOND + 100_000;
        assert_eq!(seconds(&all(&known)), [(11, 1, false)]);
    }

    #[test]
    fn scales_and_kinds_that_changed_within_a_second_do_not_mix() {
        let finer = StoredTrade { price_m: 10_040, price_scale: 3, ..fetched(4, 11 * SECOND + 5, 40) };
        let aggregate = StoredTrade { kind: "agg".into(), ..fetched(1, 11 * SECOND + 6, 70) };
        let bars = all(&known(vec![fetched(3, 11 * SECOND, 30), finer, aggregate], &[]));
        assert_eq!(seconds(&bars), [(11, 2, false)]);
        assert_eq!((bars[0].price_scale, bars[0].open_m, bars[0].close_m), (3, 10_030, 10_040));
    }
}
