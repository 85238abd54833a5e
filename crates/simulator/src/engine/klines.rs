//! Candles of one symbol: the second and the minute are summed from trades; every longer interval is the sum of its
//! minutes, those before the start taken from the [`PricePath`]. A closed candle leaves exactly once.

use std::collections::{HashMap, VecDeque};

use super::interval::Interval;
use super::path::PricePath;

const MINUTE: i64 = 60_000;
/// Live minutes kept, two days.
const MINUTES_KEPT: usize = 2880;
const SECONDS_KEPT: usize = 1000;
const DAYS_CACHED: usize = 1500;

/// One candle. Prices in ticks, volumes in lots, quote volumes in ticks times lots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candle {
    pub open_ms: i64,
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    pub volume: i128,
    pub quote: i128,
    pub count: u64,
    pub taker_volume: i128,
    pub taker_quote: i128,
    /// First and last trade id; -1 without trades.
    pub first: i64,
    pub last: i64,
}

impl Candle {
    const fn flat(open_ms: i64, price: i64) -> Self {
        Self {
            open_ms,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 0,
            quote: 0,
            count: 0,
            taker_volume: 0,
            taker_quote: 0,
            first: -1,
            last: -1,
        }
    }

    fn add(&mut self, trade: &Fill) {
        if self.count == 0 {
            (self.open, self.high, self.low) = (trade.price, trade.price, trade.price);
            self.first = trade.id;
        }
        self.high = self.high.max(trade.price);
        self.low = self.low.min(trade.price);
        self.close = trade.price;
        self.last = trade.id;
        self.count += 1;
        let (lots, quote) = (i128::from(trade.qty), i128::from(trade.price) * i128::from(trade.qty));
        self.volume += lots;
        self.quote += quote;
        if !trade.taker_sold {
            self.taker_volume += lots;
            self.taker_quote += quote;
        }
    }

    fn extend(&mut self, later: &Self) {
        if self.count == 0 && later.count > 0 && self.first < 0 {
            (self.open, self.high, self.low) = (later.open, later.high, later.low);
        }
        if later.count > 0 {
            self.high = self.high.max(later.high);
            self.low = self.low.min(later.low);
            self.close = later.close;
        }
        self.volume += later.volume;
        self.quote += later.quote;
        self.count += later.count;
        self.taker_volume += later.taker_volume;
        self.taker_quote += later.taker_quote;
        if self.first < 0 {
            self.first = later.first;
        }
        self.last = self.last.max(later.last);
    }
}

/// What a candle needs to know of a trade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub id: i64,
    pub price: i64,
    pub qty: i64,
    pub taker_sold: bool,
}

/// The candles of a symbol.
#[derive(Debug)]
pub(crate) struct Klines {
    path: PricePath,
    onboard_ms: i64,
    start_ms: i64,
    minutes: VecDeque<Candle>,
    seconds: VecDeque<Candle>,
    minute: Candle,
    second: Candle,
    /// Closed minutes of the running candle of each interval that somebody watches.
    watched: Vec<(Interval, Option<Candle>, i64)>,
    days: HashMap<i64, Candle>,
    rolling: Option<(i64, Candle)>,
}

impl Klines {
    pub(crate) fn new(path: PricePath, onboard_ms: i64, now_ms: i64) -> Self {
        let start_ms = Interval::MINUTE.open(now_ms);
        let price = path.price(start_ms / MINUTE);
        Self {
            path,
            onboard_ms: Interval::DAY.open(onboard_ms),
            start_ms,
            minutes: VecDeque::new(),
            seconds: VecDeque::new(),
            minute: Candle::flat(start_ms, price),
            second: Candle::flat(Interval::SECOND.open(now_ms), price),
            watched: Vec::new(),
            days: HashMap::new(),
            rolling: None,
        }
    }

    /// The price at the start, in ticks.
    pub(crate) fn start_price(&self) -> i64 {
        self.path.price(self.start_ms / MINUTE)
    }

    pub(crate) fn add(&mut self, trade: &Fill) {
        self.minute.add(trade);
        self.second.add(trade);
    }

    /// Closes what ended before `now_ms`; closed candles are appended, shortest interval first.
    pub(crate) fn roll(&mut self, now_ms: i64, closed: &mut Vec<(Interval, Candle)>) {
        if now_ms < self.second.open_ms + 1000 {
            return;
        }
        self.roll_seconds(now_ms, closed);
        while now_ms >= self.minute.open_ms + MINUTE {
            let done = self.minute;
            closed.push((Interval::MINUTE, done));
            let next = done.open_ms + MINUTE;
            for (interval, base, open) in &mut self.watched {
                match base {
                    Some(sum) => sum.extend(&done),
                    None => *base = Some(Candle { open_ms: *open, ..done }),
                }
                if next >= interval.next(*open) {
                    closed.extend(base.take().map(|sum| (*interval, sum)));
                    *open = next;
                }
            }
            keep(&mut self.minutes, done, MINUTES_KEPT);
            self.minute = Candle::flat(next, done.close);
        }
    }

    fn roll_seconds(&mut self, now_ms: i64, closed: &mut Vec<(Interval, Candle)>) {
        // A process that slept does not owe every second since.
        let newest = Interval::SECOND.open(now_ms);
        if newest - self.second.open_ms > 120_000 {
            self.second = Candle::flat(newest - 120_000, self.second.close);
        }
        while now_ms >= self.second.open_ms + 1000 {
            let done = self.second;
            closed.push((Interval::SECOND, done));
            keep(&mut self.seconds, done, SECONDS_KEPT);
            self.second = Candle::flat(done.open_ms + 1000, done.close);
        }
    }

    /// From now on closed candles of `interval` are reported too.
    pub(crate) fn watch(&mut self, interval: Interval) {
        if matches!(interval, Interval::SECOND | Interval::MINUTE)
            || self.watched.iter().any(|w| w.0 == interval)
        {
            return;
        }
        let open = interval.open(self.minute.open_ms);
        let base = self.sum(open, self.minute.open_ms);
        self.watched.push((interval, base, open));
    }

    /// The running candle.
    pub(crate) fn current(&mut self, interval: Interval) -> Candle {
        match interval {
            Interval::SECOND => return self.second,
            Interval::MINUTE => return self.minute,
            _ => self.watch(interval),
        }
        let Some((_, base, open)) = self.watched.iter().find(|watched| watched.0 == interval) else {
            return self.minute;
        };
        match base {
            Some(base) => {
                let mut sum = *base;
                sum.extend(&self.minute);
                sum
            }
            None => Candle { open_ms: *open, ..self.minute },
        }
    }

    /// The last 24 hours, rolling by the minute.
    pub(crate) fn day(&mut self) -> Candle {
        let to = self.minute.open_ms;
        let closed = match self.rolling {
            Some((at, sum)) if at == to => sum,
            _ => {
                let from = (to - 1439 * MINUTE).max(self.onboard_ms);
                let sum = self.sum_minutes(from, to).unwrap_or(Candle::flat(to, self.minute.open));
                self.rolling = Some((to, sum));
                sum
            }
        };
        let mut sum = closed;
        sum.extend(&self.minute);
        sum
    }

    /// REST rows, ascending, the running candle last where the range reaches it.
    pub(crate) fn rows(
        &mut self,
        interval: Interval,
        from: Option<i64>,
        to: Option<i64>,
        limit: usize,
    ) -> Vec<Candle> {
        let newest = self.current(interval).open_ms;
        let oldest = interval.open(self.onboard_ms);
        let last = interval.open(to.unwrap_or(newest)).min(newest);
        let mut open = match from {
            Some(from) if interval.open(from) == from => from,
            Some(from) => interval.next(interval.open(from)),
            None => back(interval, last, limit),
        };
        open = open.max(oldest);
        let mut rows = Vec::new();
        while open <= last && rows.len() < limit {
            rows.push(self.row(interval, open, newest));
            open = interval.next(open);
        }
        rows
    }

    fn row(&mut self, interval: Interval, open: i64, newest: i64) -> Candle {
        if open == newest {
            return self.current(interval);
        }
        if interval == Interval::SECOND {
            return self.second_row(open);
        }
        let sum = self.sum(open, interval.next(open));
        sum.map_or_else(|| Candle::flat(open, self.minute.open), |sum| Candle { open_ms: open, ..sum })
    }

    fn second_row(&self, open: i64) -> Candle {
        let live = self.seconds.iter().rev().find(|second| second.open_ms == open);
        live.copied().unwrap_or_else(|| Candle::flat(open, self.path.price(open / MINUTE)))
    }

    fn one_minute(&self, open: i64) -> Option<Candle> {
        if open < self.onboard_ms {
            return None;
        }
        if open < self.start_ms {
            return Some(self.path.minute(open));
        }
        let first = self.minutes.front()?.open_ms;
        let index = usize::try_from((open - first) / MINUTE).ok().filter(|_| open >= first)?;
        self.minutes.get(index).copied()
    }

    /// The sum over `[from, to)`, whole days of the past taken from a cache.
    fn sum(&mut self, from: i64, to: i64) -> Option<Candle> {
        let day = Interval::DAY;
        let mut total: Option<Candle> = None;
        let mut at = from;
        while at < to {
            let next = day.next(day.open(at)).min(to);
            let whole = day.open(at) == at && day.next(at) == next && next <= self.start_ms;
            let part = if whole { self.cached_day(at) } else { self.sum_minutes(at, next) };
            total = join(total, part);
            at = next;
        }
        total
    }

    fn cached_day(&mut self, open: i64) -> Option<Candle> {
        if let Some(day) = self.days.get(&open) {
            return Some(*day);
        }
        let day = self.sum_minutes(open, open + 1440 * MINUTE)?;
        if self.days.len() >= DAYS_CACHED {
            self.days.clear();
        }
        self.days.insert(open, day);
        Some(day)
    }

    fn sum_minutes(&self, from: i64, to: i64) -> Option<Candle> {
        let mut total = None;
        let mut at = from;
        while at < to {
            total = join(total, self.one_minute(at));
            at += MINUTE;
        }
        total
    }
}

fn join(total: Option<Candle>, part: Option<Candle>) -> Option<Candle> {
    match (total, part) {
        (Some(mut total), Some(part)) => {
            total.extend(&part);
            Some(total)
        }
        (total, part) => total.or(part),
    }
}

fn keep(ring: &mut VecDeque<Candle>, candle: Candle, cap: usize) {
    if ring.len() >= cap {
        ring.pop_front();
    }
    ring.push_back(candle);
}

/// The open of the first of `limit` candles that end with `last`.
fn back(interval: Interval, last: i64, limit: usize) -> i64 {
    (1..limit).fold(last, |open, _| interval.open(open - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_249_177_000;

    fn klines() -> Klines {
        Klines::new(PricePath::new(5, 50_000.0, 1000.0), NOW - 400 * 86_400_000, NOW)
    }

    #[test]
    fn long_candles_are_the_sum_of_their_minutes_and_chain() {
        let mut klines = klines();
        let interval = Interval::parse("1h").unwrap();
        let hours = klines.rows(interval, None, Some(NOW - 86_400_000), 3);
        assert_eq!(hours.len(), 3);
        for hour in &hours {
            let end = hour.open_ms + 3_600_000 - 1;
            let minutes = klines.rows(Interval::MINUTE, Some(hour.open_ms), Some(end), 1000);
            assert_eq!(minutes.len(), 60);
            assert_eq!(minutes.iter().map(|m| m.volume).sum::<i128>(), hour.volume);
            assert_eq!(minutes.iter().map(|m| m.high).max(), Some(hour.high));
            assert_eq!((minutes[0].open, minutes[59].close), (hour.open, hour.close));
        }
        assert_eq!(hours[0].close, hours[1].open);
        let month = klines.rows(Interval::Month, None, None, 2);
        assert_eq!(month[1].open_ms, Interval::Month.open(NOW));
    }

    #[test]
    fn history_starts_at_the_listing() {
        let mut klines = klines();
        let rows = klines.rows(Interval::DAY, Some(0), None, 1000);
        assert_eq!(rows.len(), 401);
        assert_eq!(rows[0].open_ms, Interval::DAY.open(NOW - 400 * 86_400_000));
    }

    #[test]
    fn each_interval_closes_once_with_its_trades() {
        let mut klines = klines();
        let five = Interval::parse("5m").unwrap();
        klines.watch(five);
        let mut closed = Vec::new();
        for second in 0..600_i64 {
            klines.roll(NOW + second * 1000, &mut closed);
            klines.add(&Fill { id: second, price: 50_000 + second, qty: 2, taker_sold: second % 2 == 0 });
        }
        let of = |interval| closed.iter().filter(move |(i, _)| *i == interval).map(|(_, c)| *c);
        let minutes: Vec<Candle> = of(Interval::MINUTE).collect();
        assert_eq!(minutes.len(), 10);
        assert!(minutes.windows(2).all(|pair| pair[0].open_ms + 60_000 == pair[1].open_ms));
        assert_eq!((minutes[1].count, minutes[1].volume), (60, 120));
        assert_eq!(of(five).count(), 2);
        let last = of(five).next_back().unwrap();
        assert_eq!((last.count, last.volume, last.taker_volume), (300, 600, 300));
        let again = klines.rows(five, Some(last.open_ms), Some(last.open_ms), 1);
        assert_eq!(again, vec![last], "rest and stream agree");
    }
}
