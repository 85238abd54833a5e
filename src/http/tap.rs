//! `GET /api/v1/tap`: live events as lines of JSON, for as long as the client listens. Events are those of `fathom replay`.
//! What the rate leaves out, and what the queue drops for a client that reads too slowly, is counted in lines of
//! `"type": "tap"`, once a second and at the end. Nothing here can hold up the actors.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, ServiceConfig},
};
use fathom_actors::{
    fanout::LiveEvent,
    kernel::{Clock, Inbox, Overflow},
    system::venues,
};
use fathom_market::ids::{Market, VenueId};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::time::Instant;

use super::{
    AppState, Shared,
    error::{Answer, ApiError},
    params::Params,
    read,
};
use crate::replay::print::{Label, event as print_event};

/// Listeners at once.
const MOST: usize = 16;
/// Events that may wait for a listener; then the oldest go.
const QUEUE: usize = 8192;
/// Events looked at before other tasks of the thread have their turn.
const TURN: usize = 512;
const BEAT: Duration = Duration::from_secs(1);
const DEFAULT_RATE: i64 = 50;
const MAX_RATE: i64 = 10_000;
const CHANNELS: [&str; 6] = ["quote", "trade", "depth", "candle", "ticker", "funding"];

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/tap", tap));
}

/// How many listen.
#[derive(Default)]
pub(super) struct Taps(Arc<AtomicUsize>);

struct Place(Arc<AtomicUsize>);

impl Taps {
    fn take(&self) -> Option<Place> {
        let more = |now: usize| (now < MOST).then_some(now + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(self.0.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Which events are wanted; what is not given fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    venue: Option<VenueId>,
    market: Option<Market>,
    symbol: Option<String>,
    channel: Option<&'static str>,
}

impl Filter {
    fn read(state: &AppState, params: &Params) -> Result<Self, ApiError> {
        let known = venues(state.system.settings());
        let venue = choice(params, "venue", &known, |venue| venue.as_str())?;
        let market = choice(params, "market", &Market::ALL, |market| market.as_str())?;
        let channel = choice(params, "channel", &CHANNELS, |channel| channel)?;
        let filter = Self { venue, market, symbol: params.get("symbol").map(str::to_owned), channel };
        match &filter.symbol {
            Some(symbol) if !filter.knows(state, symbol) => {
                Err(ApiError::not_found("SYMBOL_NOT_FOUND", format!("no symbol {symbol}"))
                    .with("symbol", symbol))
            }
            _ => Ok(filter),
        }
    }

    /// Whether the symbol is collected on any market that fits.
    fn knows(&self, state: &AppState, symbol: &str) -> bool {
        let directory = state.system.directory();
        let fits = directory.markets().into_iter().filter(|entry| {
            self.venue.is_none_or(|venue| venue == entry.venue)
                && self.market.is_none_or(|market| market == entry.market)
        });
        let mut books = fits.flat_map(|entry| directory.books(entry.venue, entry.market));
        books.any(|book| is_named(&book.cell.instrument, symbol))
    }

    fn fits(&self, live: &LiveEvent) -> bool {
        let instrument = &live.instrument;
        self.venue.is_none_or(|venue| venue == instrument.venue)
            && self.market.is_none_or(|market| market == instrument.market)
            && self.channel.is_none_or(|channel| channel == live.event.body.channel().as_str())
            && self.symbol.as_ref().is_none_or(|symbol| is_named(instrument, symbol))
    }
}

fn is_named(instrument: &fathom_market::instrument::Instrument, symbol: &str) -> bool {
    instrument.native.eq_ignore_ascii_case(symbol) || instrument.unified.eq_ignore_ascii_case(symbol)
}

/// A parameter that has to be one of these.
fn choice<T: Copy>(
    params: &Params,
    name: &str,
    valid: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<Option<T>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let found = valid.iter().copied().find(|value| word(*value).eq_ignore_ascii_case(text));
    let words: Vec<&str> = valid.iter().map(|value| word(*value)).collect();
    found.map(Some).ok_or_else(|| ApiError::parameter(name, text, &format!("one of {}", words.join(", "))))
}

/// Lets so many events a second through. Pure: time is an argument.
#[derive(Debug)]
struct Sieve {
    /// Microseconds that one event costs.
    cost_us: i64,
    credit_us: i64,
    seen_us: i64,
}

impl Sieve {
    /// What may go at once after a pause: a tenth of a second's worth.
    const BURST_US: i64 = 100_000;

    const fn new(rate: i64, now_us: i64) -> Self {
        let cost_us = 1_000_000 / rate;
        Self { cost_us, credit_us: cost_us, seen_us: now_us }
    }

    fn lets_through(&mut self, now_us: i64) -> bool {
        let most = Self::BURST_US.max(self.cost_us);
        self.credit_us = (self.credit_us + (now_us - self.seen_us).max(0)).min(most);
        self.seen_us = now_us;
        let enough = self.credit_us >= self.cost_us;
        if enough {
            self.credit_us -= self.cost_us;
        }
        enough
    }
}

/// One listener.
struct Tap {
    inbox: Inbox<Arc<LiveEvent>>,
    filter: Filter,
    sieve: Sieve,
    /// Events still wanted.
    wanted: u64,
    sent: u64,
    left_out: u64,
    beat: Instant,
    clock: Clock,
    over: bool,
    _place: Place,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Tap {
    fn take(&mut self, live: &LiveEvent, out: &mut Vec<u8>) {
        if self.wanted == 0 || !self.filter.fits(live) {
            return;
        }
        if !self.sieve.lets_through(self.clock.now_us()) {
            self.left_out += 1;
            return;
        }
        self.sent += 1;
        self.wanted -= 1;
        print_event(out, &Label::of(&live.instrument), &live.event, Some(live.event.recv_us));
    }

    /// The line that tells what is not shown.
    fn account(&self, state: &str, out: &mut Vec<u8>) {
        let dropped = self.inbox.gauge().health().dropped_total;
        let line = json!({"type": "tap", "state": state, "at_us": self.clock.now_us(), "sent": self.sent,
            "left_out": self.left_out, "dropped": dropped});
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }

    /// The next piece of the answer.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.over {
            return None;
        }
        let mut out = Vec::new();
        while out.is_empty() {
            match tokio::time::timeout_at(self.beat, self.inbox.recv()).await {
                Ok(Some(first)) => {
                    let rest: VecDeque<_> = std::iter::from_fn(|| self.inbox.try_recv()).take(TURN).collect();
                    std::iter::once(first).chain(rest).for_each(|live| self.take(&live, &mut out));
                }
                Ok(None) => self.over = true,
                Err(_) => {}
            }
            if Instant::now() >= self.beat {
                self.beat = Instant::now() + BEAT;
                self.account("open", &mut out);
            }
            if self.wanted == 0 || self.over {
                self.over = true;
                self.account("end", &mut out);
            }
            // A full queue is always ready: without this nothing else would run on the thread.
            tokio::task::yield_now().await;
        }
        Some((Ok(out.into()), self))
    }

    fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, Self::next)
    }
}

async fn tap(state: Shared, params: Params) -> Answer {
    let filter = Filter::read(&state, &params)?;
    let rate = params.int("rate", 1..=MAX_RATE)?.unwrap_or(DEFAULT_RATE);
    let wanted = params.int("limit", 1..=i64::MAX)?.map_or(u64::MAX, i64::unsigned_abs);
    let full = || ApiError::unavailable("TOO_MANY_TAPS", format!("{MOST} listen already"), BEAT);
    let place = state.taps.take().ok_or_else(full)?;
    let inbox = state.system.live().subscribe("tap", QUEUE, Overflow::DropOldest).ok_or_else(full)?;
    let clock = state.system.clock().clone();
    let sieve = Sieve::new(rate, clock.now_us());
    let (sent, left_out, over) = (0, 0, false);
    let tap = Tap {
        inbox,
        filter,
        sieve,
        wanted,
        sent,
        left_out,
        beat: Instant::now(),
        clock,
        over,
        _place: place,
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/x-ndjson"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(tap.lines()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sieve_keeps_the_rate_and_never_saves_up() {
        let mut sieve = Sieve::new(50, 0);
        let mut passed = |from_us: i64, to_us: i64| {
            (from_us..to_us).step_by(1000).filter(|now_us| sieve.lets_through(*now_us)).count()
        };
        assert!((50..=51).contains(&passed(0, 1_000_000)));
        assert!(passed(3_600_000_000, 3_600_100_000) <= 10, "an hour of silence earns a tenth of a second");
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let taps = Taps::default();
        let mut held: Vec<Place> = std::iter::from_fn(|| taps.take()).collect();
        assert_eq!(held.len(), MOST);
        held.pop();
        assert!(taps.take().is_some());
    }
}
