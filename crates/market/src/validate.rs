//! Sanity of events before they are used or stored: what is flagged here is counted by reason and is not good data.
//!
//! Each instrument and channel is judged by itself, against what was accepted there before. The checks are of **live**
//! events; history has jumps of its own, so fetched candles are checked by [`check_candle`] alone.

use rust_decimal::Decimal;
use rustc_hash::FxHashMap;

use crate::{
    decimal::to_scaled,
    event::{Body, BookDelta, BookSnapshot, Candle, Channel, Event, Funding, Level, Quote, Ticker, Trade},
    instrument::{Instrument, InstrumentIdx},
};

/// Why an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// The best bid is not below the best ask.
    Crossed,
    /// A price is zero or negative.
    NonPositivePrice,
    /// A quantity is negative, or zero where it must not be.
    NonPositiveQuantity,
    /// The price is too far from the last accepted one, and not yet confirmed.
    PriceSpike,
    /// Venue time is behind that of an earlier event by more than the tolerance.
    TimeBackwards,
    /// Venue time is ahead of the receive time by more than the tolerance, as with a wrong unit.
    TimeAhead,
    /// A candle whose low or high does not bound its open and close, or that ends before it begins.
    CandleShape,
    /// A volume is negative.
    NegativeVolume,
    /// Takers bought more than was traded.
    TakerVolume,
    /// A funding rate beyond 100 %.
    AbsurdRate,
}

impl Flag {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Crossed,
        Self::NonPositivePrice,
        Self::NonPositiveQuantity,
        Self::PriceSpike,
        Self::TimeBackwards,
        Self::TimeAhead,
        Self::CandleShape,
        Self::NegativeVolume,
        Self::TakerVolume,
        Self::AbsurdRate,
    ];

    /// The reason as metrics and logs name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crossed => "crossed",
            Self::NonPositivePrice => "non_positive_price",
            Self::NonPositiveQuantity => "non_positive_quantity",
            Self::PriceSpike => "price_spike",
            Self::TimeBackwards => "time_backwards",
            Self::TimeAhead => "time_ahead",
            Self::CandleShape => "candle_shape",
            Self::NegativeVolume => "negative_volume",
            Self::TakerVolume => "taker_volume",
            Self::AbsurdRate => "absurd_rate",
        }
    }
}

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Use and store it.
    Accept,
    /// Neither use nor store it. A refused depth event breaks its book's chain: the book must resync.
    Reject(Flag),
}

impl Verdict {
    /// True for [`Verdict::Accept`].
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Accept)
    }
}

impl From<Result<(), Flag>> for Verdict {
    fn from(result: Result<(), Flag>) -> Self {
        result.map_or_else(Self::Reject, |()| Self::Accept)
    }
}

/// How many events were refused for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagCounts([u64; Flag::ALL.len()]);

impl FlagCounts {
    /// The count of one reason.
    pub const fn get(&self, flag: Flag) -> u64 {
        self.0[flag as usize]
    }

    /// Every reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Flag, u64)> {
        Flag::ALL.into_iter().zip(self.0)
    }

    /// Refused events of all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Counts a refusal that was found elsewhere, as by [`check_candle`].
    pub const fn add(&mut self, flag: Flag) {
        self.0[flag as usize] += 1;
    }
}

/// How much is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A price is a spike when the greater of it and the last accepted one exceeds the lesser by more than this many
    /// basis points: 5000 allows a rise by half and a fall to two thirds; 90 000 ten times either way.
    pub max_move_bps: u32,
    /// Moves of at most this many price steps are never spikes: a coin may cost one step.
    pub free_ticks: u32,
    /// Of this many values in a row away from the last accepted price, each within the bound of the one before, the
    /// last is accepted as the new price; 1 turns the spike check off.
    pub confirmations: u32,
    /// A value away from the last accepted price is also accepted this long after the first one in a row of such,
    /// by receive time; the same time heals venue clocks that were set back.
    pub accept_after_us: i64,
    /// How far venue time may run backwards.
    pub backwards_us: i64,
    /// How far venue time may be ahead of the receive time.
    pub ahead_us: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_move_bps: 5000,
            free_ticks: 10,
            confirmations: 3,
            accept_after_us: 10_000_000,
            backwards_us: 5_000_000,
            ahead_us: 86_400_000_000,
        }
    }
}

/// Judges events. It remembers one small state for each instrument and channel seen, until told to forget them.
#[derive(Clone, Debug, Default)]
pub struct Validator {
    bounds: Bounds,
    states: FxHashMap<(InstrumentIdx, Channel), State>,
    counts: FlagCounts,
}

impl Validator {
    /// A validator that has seen nothing: it accepts the first price and time of each channel as they are.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, states: FxHashMap::default(), counts: FlagCounts::default() }
    }

    /// Judges an event of `instrument`, which must be the one that its index means.
    ///
    /// Depth is judged by its prices and quantities only: its order is that of its sequence numbers, and snapshots
    /// are rightly older than the deltas around them.
    pub fn check(&mut self, instrument: &Instrument, event: &Event) -> Verdict {
        let result = check_alone(event).and_then(|()| self.check_course(instrument, event));
        if let Err(flag) = result {
            self.counts.add(flag);
        }
        result.into()
    }

    /// Forgets an instrument: it was removed, or its scales changed.
    pub fn forget(&mut self, instrument: InstrumentIdx) {
        self.states.retain(|(known, _), _| *known != instrument);
    }

    /// What was refused so far.
    pub const fn counts(&self) -> &FlagCounts {
        &self.counts
    }

    fn check_course(&mut self, instrument: &Instrument, event: &Event) -> Result<(), Flag> {
        let channel = event.body.channel();
        if channel == Channel::Depth {
            return Ok(());
        }
        if event.event_us.is_some_and(|time| time > event.recv_us.saturating_add(self.bounds.ahead_us)) {
            return Err(Flag::TimeAhead);
        }
        let bounds = &self.bounds;
        let state = self.states.entry((event.instrument, channel)).or_insert_with(|| State::new(instrument));
        if let Some(time_us) = event.event_us {
            state.time.check(time_us, event.recv_us, bounds)?;
        }
        match reference_price(&event.body) {
            Some(Price::Mantissa(price)) => {
                let tick = state.tick_mantissa;
                state
                    .mantissa
                    .check(price, event.recv_us, bounds, |a, b| mantissas_apart(a, b, tick, bounds))?;
            }
            Some(Price::Exact(price)) => {
                let tick = instrument.tick_size;
                state.exact.check(price, event.recv_us, bounds, |a, b| decimals_apart(a, b, tick, bounds))?;
            }
            None => {}
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct State {
    tick_mantissa: i64,
    time: TimeCourse,
    mantissa: PriceCourse<i64>,
    exact: PriceCourse<Decimal>,
}

impl State {
    fn new(instrument: &Instrument) -> Self {
        Self {
            tick_mantissa: to_scaled(instrument.tick_size, instrument.price_scale).unwrap_or(1).max(1),
            time: TimeCourse::default(),
            mantissa: PriceCourse::default(),
            exact: PriceCourse::default(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct TimeCourse {
    newest_us: Option<i64>,
    /// Receive time of the first event in a row that is behind.
    behind_since_us: Option<i64>,
}

impl TimeCourse {
    fn check(&mut self, time_us: i64, recv_us: i64, bounds: &Bounds) -> Result<(), Flag> {
        let newest = self.newest_us.unwrap_or(time_us);
        if time_us >= newest.saturating_sub(bounds.backwards_us) {
            *self = Self { newest_us: Some(newest.max(time_us)), behind_since_us: None };
            return Ok(());
        }
        let since = *self.behind_since_us.get_or_insert(recv_us);
        if recv_us.saturating_sub(since) < bounds.accept_after_us {
            return Err(Flag::TimeBackwards);
        }
        *self = Self { newest_us: Some(time_us), behind_since_us: None };
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct PriceCourse<P> {
    accepted: Option<P>,
    away: Option<Away<P>>,
}

#[derive(Clone, Debug)]
struct Away<P> {
    price: P,
    in_a_row: u32,
    since_us: i64,
}

impl<P> Default for PriceCourse<P> {
    fn default() -> Self {
        Self { accepted: None, away: None }
    }
}

impl<P: Copy> PriceCourse<P> {
    fn check(
        &mut self,
        price: P,
        recv_us: i64,
        bounds: &Bounds,
        apart: impl Fn(P, P) -> bool,
    ) -> Result<(), Flag> {
        if self.accepted.is_none_or(|accepted| !apart(accepted, price)) {
            *self = Self { accepted: Some(price), away: None };
            return Ok(());
        }
        let (in_a_row, since_us) = match &self.away {
            Some(away) if !apart(away.price, price) => (away.in_a_row.saturating_add(1), away.since_us),
            // The price is somewhere else again: its confirmation begins anew, the time bound does not.
            Some(away) => (1, away.since_us),
            None => (1, recv_us),
        };
        let confirmed = in_a_row >= bounds.confirmations;
        if confirmed || recv_us.saturating_sub(since_us) >= bounds.accept_after_us {
            *self = Self { accepted: Some(price), away: None };
            return Ok(());
        }
        self.away = Some(Away { price, in_a_row, since_us });
        Err(Flag::PriceSpike)
    }
}

enum Price {
    Mantissa(i64),
    Exact(Decimal),
}

/// The price by which a channel's course is judged: midpoint, trade price, close, last, mark price.
fn reference_price(body: &Body) -> Option<Price> {
    match body {
        Body::Quote(quote) => Some(Price::Mantissa(quote.bid.price.midpoint(quote.ask.price))),
        Body::Trade(trade) => Some(Price::Mantissa(trade.price)),
        Body::Candle(candle) => Some(Price::Exact(candle.close)),
        Body::Ticker(ticker) => ticker.last.map(Price::Exact),
        Body::Funding(funding) => Some(Price::Exact(funding.mark_price)),
        Body::Delta(_) | Body::Snapshot(_) => None,
    }
}

/// Positive mantissas that are further apart than the bound allows.
fn mantissas_apart(a: i64, b: i64, tick: i64, bounds: &Bounds) -> bool {
    let (low, high) = (i128::from(a.min(b)), i128::from(a.max(b)));
    let free = i128::from(tick) * i128::from(bounds.free_ticks);
    high - low > free && (high - low) * 10_000 > low * i128::from(bounds.max_move_bps)
}

/// As [`mantissas_apart`]; what is too far apart to be computed is apart.
fn decimals_apart(a: Decimal, b: Decimal, tick: Decimal, bounds: &Bounds) -> bool {
    let (low, high) = (a.min(b), a.max(b));
    let free = tick.checked_mul(Decimal::from(bounds.free_ticks)).unwrap_or(Decimal::ZERO);
    if high - low <= free {
        return false;
    }
    let bound = Decimal::from(u64::from(bounds.max_move_bps) + 10_000);
    match (high.checked_mul(Decimal::from(10_000_u32)), low.checked_mul(bound)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(high), Some(allowed)) => high > allowed,
    }
}

/// The checks that need no memory.
fn check_alone(event: &Event) -> Result<(), Flag> {
    match &event.body {
        Body::Quote(quote) => check_quote(quote),
        Body::Trade(trade) => check_trade(trade),
        Body::Delta(delta) => check_delta(delta),
        Body::Snapshot(snapshot) => check_snapshot(snapshot),
        Body::Candle(candle) => check_candle(candle),
        Body::Ticker(ticker) => check_ticker(ticker),
        Body::Funding(funding) => check_funding(funding),
    }
}

/// Checks a best bid and ask: positive prices and quantities, bid below ask.
///
/// # Errors
/// The first fault found.
pub fn check_quote(quote: &Quote) -> Result<(), Flag> {
    check_level(quote.bid, 1)?;
    check_level(quote.ask, 1)?;
    if quote.bid.price >= quote.ask.price { Err(Flag::Crossed) } else { Ok(()) }
}

/// Checks a trade: positive price and quantity.
///
/// # Errors
/// The first fault found.
pub fn check_trade(trade: &Trade) -> Result<(), Flag> {
    check_level(Level { price: trade.price, qty: trade.qty }, 1)
}

fn check_level(level: Level, least_qty: i64) -> Result<(), Flag> {
    if level.price <= 0 {
        return Err(Flag::NonPositivePrice);
    }
    if level.qty < least_qty { Err(Flag::NonPositiveQuantity) } else { Ok(()) }
}

/// A quantity of zero removes a level, so a delta may have it.
fn check_delta(delta: &BookDelta) -> Result<(), Flag> {
    delta.bids.iter().chain(&delta.asks).try_for_each(|level| check_level(*level, 0))
}

fn check_snapshot(snapshot: &BookSnapshot) -> Result<(), Flag> {
    snapshot.bids.iter().chain(&snapshot.asks).try_for_each(|level| check_level(*level, 1))?;
    match (snapshot.bids.first(), snapshot.asks.first()) {
        (Some(bid), Some(ask)) if bid.price >= ask.price => Err(Flag::Crossed),
        _ => Ok(()),
    }
}

/// Checks a candle by itself: positive prices, `low <= open, close <= high`, volumes not negative, what takers bought
/// within the volume, an end after its beginning.
///
/// # Errors
/// The first fault found.
pub fn check_candle(candle: &Candle) -> Result<(), Flag> {
    let prices = [candle.open, candle.high, candle.low, candle.close];
    if prices.iter().any(|price| *price <= Decimal::ZERO) {
        return Err(Flag::NonPositivePrice);
    }
    let bounded = prices.iter().all(|price| candle.low <= *price && *price <= candle.high);
    if !bounded || candle.close_ms <= candle.open_ms {
        return Err(Flag::CandleShape);
    }
    let volumes =
        [candle.volume, candle.quote_volume, candle.taker_buy_volume, candle.taker_buy_quote_volume];
    if volumes.iter().any(|volume| *volume < Decimal::ZERO) {
        return Err(Flag::NegativeVolume);
    }
    let within =
        candle.taker_buy_volume <= candle.volume && candle.taker_buy_quote_volume <= candle.quote_volume;
    if within { Ok(()) } else { Err(Flag::TakerVolume) }
}

/// A bid or ask of zero says that a side is empty, and an open, high or low of zero that nothing was traded.
fn check_ticker(ticker: &Ticker) -> Result<(), Flag> {
    let optional = [ticker.bid, ticker.ask, ticker.open, ticker.high, ticker.low];
    let negative = |value: &Decimal| *value < Decimal::ZERO;
    if ticker.last.is_some_and(|last| last <= Decimal::ZERO) || optional.iter().flatten().any(negative) {
        return Err(Flag::NonPositivePrice);
    }
    if [ticker.volume, ticker.quote_volume].iter().flatten().any(negative) {
        return Err(Flag::NegativeVolume);
    }
    match (ticker.bid, ticker.ask) {
        (Some(bid), Some(ask)) if bid >= ask && ask > Decimal::ZERO => Err(Flag::Crossed),
        _ => Ok(()),
    }
}

fn check_funding(funding: &Funding) -> Result<(), Flag> {
    let index_is_bad = funding.index_price.is_some_and(|price| price <= Decimal::ZERO);
    if funding.mark_price <= Decimal::ZERO || index_is_bad {
        return Err(Flag::NonPositivePrice);
    }
    if funding.rate.is_some_and(|rate| rate.abs() > Decimal::ONE) { Err(Flag::AbsurdRate) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{SeqIds, Side, TradeId, TradeKind},
        ids::Market,
        sample::fixtures::{BINANCE, dec, instrument},
        timeframe::Timeframe,
    };

    const BTC: InstrumentIdx = InstrumentIdx(0);
    const ETH: InstrumentIdx = InstrumentIdx(1);

    fn level(price: i64, qty: i64) -> Level {
        Level { price, qty }
    }

    fn quote(bid: Level, ask: Level) -> Body {
        Body::Quote(Quote { update_id: None, bid, ask })
    }

    fn trade(price: i64, qty: i64) -> Body {
        let id = TradeId::Number(1);
        Body::Trade(Trade { id, kind: TradeKind::Single, raw_ids: None, price, qty, side: Side::Buy })
    }

    fn delta(bid: Level) -> Body {
        Body::Delta(BookDelta {
            ids: SeqIds { first: 1, last: 1, prev: None },
            bids: vec![bid],
            asks: vec![],
        })
    }

    fn snapshot(bid: Level, ask: Level) -> Body {
        Body::Snapshot(BookSnapshot { last_id: 1, bids: vec![bid], asks: vec![ask], limit: 5 })
    }

    fn candle(ohlc: [&str; 4], volumes: [&str; 4]) -> Candle {
        let ([open, high, low, close], [volume, quote_volume, taker, taker_quote]) =
            (ohlc.map(dec), volumes.map(dec));
        Candle {
            timeframe: Timeframe::M1,
            open_ms: 0,
            close_ms: 59_999,
            open,
            high,
            low,
            close,
            volume,
            quote_volume,
            trades: 1,
            taker_buy_volume: taker,
            taker_buy_quote_volume: taker_quote,
            closed: true,
        }
    }

    fn ticker(last: &str, bid: &str, ask: &str, volume: &str) -> Body {
        let value = |text| Some(dec(text));
        let (last, bid, ask, volume) = (value(last), value(bid), value(ask), value(volume));
        Body::Ticker(Box::new(Ticker { last, bid, ask, volume, ..Ticker::default() }))
    }

    fn funding(mark: &str, rate: &str) -> Body {
        let (mark_price, rate) = (dec(mark), Some(dec(rate)));
        Body::Funding(Box::new(Funding { mark_price, index_price: None, rate, next_ms: None }))
    }

    fn event(instrument: InstrumentIdx, event_us: Option<i64>, recv_us: i64, body: Body) -> Event {
        Event { instrument, event_us, sent_us: None, recv_us, body }
    }

    struct Bench {
        validator: Validator,
        pair: std::sync::Arc<Instrument>,
    }

    impl Bench {
        fn new(bounds: Bounds) -> Self {
            let pair = instrument(BINANCE, Market::Spot, "BTC", "USDT");
            Self { validator: Validator::new(bounds), pair }
        }

        fn see(&mut self, event: &Event) -> Result<(), Flag> {
            match self.validator.check(&self.pair, event) {
                Verdict::Accept => Ok(()),
                Verdict::Reject(flag) => Err(flag),
            }
        }

        fn trade(&mut self, price: i64, recv_us: i64) -> Result<(), Flag> {
            self.see(&event(BTC, None, recv_us, trade(price, 1)))
        }
    }

    #[test]
    fn what_is_wrong_by_itself_is_flagged_and_counted() {
        let sound = ["2", "4", "1", "3"];
        let as_body = |candle| Body::Candle(Box::new(candle));
        let backwards = Candle { close_ms: 0, ..candle(sound, ["1", "1", "1", "1"]) };
        let cases = [
            (quote(level(10, 1), level(11, 1)), Ok(())),
            (quote(level(11, 1), level(11, 1)), Err(Flag::Crossed)),
            (quote(level(12, 1), level(11, 1)), Err(Flag::Crossed)),
            (quote(level(0, 1), level(11, 1)), Err(Flag::NonPositivePrice)),
            (quote(level(10, 0), level(11, 1)), Err(Flag::NonPositiveQuantity)),
            (quote(level(10, 1), level(11, -1)), Err(Flag::NonPositiveQuantity)),
            (trade(-1, 1), Err(Flag::NonPositivePrice)),
            (trade(1, 0), Err(Flag::NonPositiveQuantity)),
            (delta(level(1, 0)), Ok(())),
            (delta(level(1, -1)), Err(Flag::NonPositiveQuantity)),
            (delta(level(0, 1)), Err(Flag::NonPositivePrice)),
            (snapshot(level(10, 1), level(11, 1)), Ok(())),
            (snapshot(level(11, 1), level(11, 1)), Err(Flag::Crossed)),
            (snapshot(level(10, 0), level(11, 1)), Err(Flag::NonPositiveQuantity)),
            (as_body(candle(sound, ["1", "2", "1", "2"])), Ok(())),
            (as_body(candle(["2", "2", "2", "2"], ["0", "0", "0", "0"])), Ok(())),
            (as_body(candle(["2", "2.9", "1", "3"], ["1", "1", "1", "1"])), Err(Flag::CandleShape)),
            (as_body(candle(["0.9", "4", "1", "3"], ["1", "1", "1", "1"])), Err(Flag::CandleShape)),
            (as_body(backwards), Err(Flag::CandleShape)),
            (as_body(candle(["2", "4", "0", "3"], ["1", "1", "1", "1"])), Err(Flag::NonPositivePrice)),
            (as_body(candle(sound, ["1", "-1", "0", "0"])), Err(Flag::NegativeVolume)),
            (as_body(candle(sound, ["1", "1", "1.1", "1"])), Err(Flag::TakerVolume)),
            (as_body(candle(sound, ["1", "1", "1", "1.1"])), Err(Flag::TakerVolume)),
            (ticker("2", "0", "0", "0"), Ok(())),
            (ticker("0", "1", "2", "1"), Err(Flag::NonPositivePrice)),
            (ticker("1", "2", "2", "1"), Err(Flag::Crossed)),
            (ticker("1", "1", "2", "-1"), Err(Flag::NegativeVolume)),
            (funding("100", "-0.001"), Ok(())),
            (funding("0", "0.001"), Err(Flag::NonPositivePrice)),
            (funding("100", "1.5"), Err(Flag::AbsurdRate)),
        ];
        for (body, expected) in &cases {
            let mut bench = Bench::new(Bounds::default());
            assert_eq!(bench.see(&event(BTC, None, 0, body.clone())), *expected, "{body:?}");
            let counts = bench.validator.counts();
            assert_eq!(counts.total(), u64::from(expected.is_err()));
            if let Err(flag) = expected {
                assert_eq!(counts.get(*flag), 1);
                assert_eq!(
                    counts.iter().filter(|(_, count)| *count == 1).map(|(f, _)| f).collect::<Vec<_>>(),
                    [*flag]
                );
            }
        }
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = Flag::ALL.iter().map(|flag| flag.as_str()).collect();
        assert_eq!(names.len(), Flag::ALL.len());
        assert!(Flag::ALL.iter().enumerate().all(|(at, flag)| *flag as usize == at));
    }

    #[test]
    fn a_spike_is_refused_and_the_old_price_goes_on() {
        let mut bench = Bench::new(Bounds::default());
        // By half upwards and to two thirds downwards is allowed; prices have two decimals.
        let cases = [
            (10_000, Ok(())),
            (15_000, Ok(())),
            (22_501, Err(Flag::PriceSpike)),
            (15_100, Ok(())),
            (10_066, Err(Flag::PriceSpike)),
            (10_067, Ok(())),
            (100, Err(Flag::PriceSpike)),
            (1_000_000, Err(Flag::PriceSpike)),
            (100, Err(Flag::PriceSpike)),
            (10_000, Ok(())),
        ];
        for (price, expected) in cases {
            assert_eq!(bench.trade(price, 0), expected, "{price}");
        }
        assert_eq!(bench.validator.counts().get(Flag::PriceSpike), 5);
    }

    #[test]
    fn a_real_move_is_accepted_when_confirmed_or_lasting() {
        let mut bench = Bench::new(Bounds::default());
        let away = Err(Flag::PriceSpike);
        assert_eq!(bench.trade(10_000, 0), Ok(()));
        assert_eq!(
            [bench.trade(30_000, 1), bench.trade(30_500, 2), bench.trade(31_000, 3)],
            [away, away, Ok(())]
        );
        assert_eq!(bench.trade(31_000, 4), Ok(()));
        assert_eq!(bench.trade(10_000, 5), away, "the old level is the spike now");
        // Never twice near the same price, but away for ten seconds.
        let mut bench = Bench::new(Bounds::default());
        assert_eq!(bench.trade(10_000, 0), Ok(()));
        assert_eq!([bench.trade(30_000, 1), bench.trade(60_000, 5_000_000)], [away, away]);
        assert_eq!(bench.trade(120_000, 10_000_000), away);
        assert_eq!(bench.trade(60_000, 10_000_001), Ok(()));
    }

    #[test]
    fn bounds_are_configurable_and_a_few_ticks_are_free() {
        let mut tenfold = Bench::new(Bounds { max_move_bps: 90_000, ..Bounds::default() });
        assert_eq!([tenfold.trade(1_000, 0), tenfold.trade(10_000, 0), tenfold.trade(1_000, 0)], [Ok(()); 3]);
        assert_eq!(tenfold.trade(10_001, 0), Err(Flag::PriceSpike));
        let mut off = Bench::new(Bounds { confirmations: 1, ..Bounds::default() });
        assert_eq!([off.trade(1, 0), off.trade(i64::MAX, 0)], [Ok(()); 2]);
        // The step is 0.01, so ten steps are a mantissa of 10.
        let mut cheap = Bench::new(Bounds::default());
        assert_eq!([cheap.trade(1, 0), cheap.trade(11, 0), cheap.trade(1, 0)], [Ok(()); 3]);
        assert_eq!(cheap.trade(12, 0), Err(Flag::PriceSpike));
    }

    #[test]
    fn decimal_channels_are_bounded_too() {
        let mut bench = Bench::new(Bounds::default());
        let cases = [
            ("100", Ok(())),
            ("149", Ok(())),
            ("300", Err(Flag::PriceSpike)),
            ("70000000000000000000000000000", Err(Flag::PriceSpike)),
        ];
        for (mark, expected) in cases {
            assert_eq!(bench.see(&event(BTC, None, 0, funding(mark, "0"))), expected, "{mark}");
        }
        assert_eq!(
            bench.see(&event(BTC, None, 0, ticker("300", "299", "301", "1"))),
            Ok(()),
            "another channel"
        );
        assert_eq!(bench.see(&event(ETH, None, 0, funding("300", "0"))), Ok(()), "another instrument");
        bench.validator.forget(BTC);
        assert_eq!(bench.see(&event(BTC, None, 0, funding("9", "0"))), Ok(()));
    }

    #[test]
    fn venue_time_may_not_run_backwards_for_long() {
        const S: i64 = 1_000_000;
        let mut bench = Bench::new(Bounds::default());
        let mut see = |channel_body: Body, event_s: i64, recv_s: i64| {
            bench.see(&event(BTC, Some(event_s * S), recv_s * S, channel_body))
        };
        let sound = || trade(100, 1);
        let behind = Err(Flag::TimeBackwards);
        assert_eq!(see(sound(), 100, 100), Ok(()));
        assert_eq!(see(sound(), 95, 101), Ok(()));
        assert_eq!(see(sound(), 94, 102), behind);
        assert_eq!(see(sound(), 101, 103), Ok(()));
        assert_eq!(see(quote(level(99, 1), level(101, 1)), 50, 103), Ok(()), "another channel");
        assert_eq!(see(delta(level(99, 1)), 100, 103), Ok(()));
        assert_eq!(see(delta(level(99, 1)), 10, 103), Ok(()), "depth is ordered by its sequence");
        assert_eq!(see(sound(), 103 + 86_401, 103), Err(Flag::TimeAhead));
        // A venue that set its clock back is believed after ten seconds.
        assert_eq!([see(sound(), 50, 104), see(sound(), 59, 113)], [behind; 2]);
        assert_eq!(see(sound(), 60, 114), Ok(()));
        assert_eq!(see(sound(), 61, 115), Ok(()));
        assert_eq!(see(sound(), 50, 116), behind);
    }
}
