//! A book that doubts its streams, loses them, is polled and comes back, and one that is not the venue's.

use std::time::Duration;

use fathom_market::{
    book::{BookState, Cause},
    event::{Body, BookDelta, BookSnapshot, Channel, Event, Quote, SeqIds, Side, Trade, TradeId, TradeKind},
    ids::Market,
    instrument::InstrumentIdx,
    sample::SampleState,
};

use super::{
    core::{Action, BookCore},
    polling::PollRules,
    verify::Look,
};
use crate::{
    feed::FeedItem,
    fixtures::{MINUTE_US, S, binance, book_settings, depth_settings, instrument, level},
    settings::BookSettings,
};

const EVERY: Duration = Duration::from_secs(600);

/// A core with polling and verification, its clock and what it asks for.
struct Bench {
    core: BookCore,
    now: i64,
    actions: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        let seconds = Duration::from_secs;
        let settings = BookSettings {
            verify_every: Some(EVERY),
            poll: Some(PollRules { after: seconds(5), every: seconds(5), levels: 100 }),
            ..book_settings()
        };
        let now = MINUTE_US + 10 * S;
        let rule = binance().sync_rule(Market::Spot);
        let core = BookCore::new(instrument(Market::Spot, "BTC"), rule, settings, depth_settings(), now);
        let mut bench = Self { core, now, actions: Vec::new() };
        bench.item(FeedItem::Open { channels: vec![Channel::Depth, Channel::Quote] });
        bench.delta(11, 12);
        assert!(bench.sync(10));
        bench
    }

    fn item(&mut self, item: FeedItem) {
        self.core.on_item(item, self.now, &mut self.actions);
    }

    fn event(&mut self, event_us: Option<i64>, body: Body) {
        let event = Event { instrument: InstrumentIdx(0), event_us, sent_us: None, recv_us: self.now, body };
        self.item(FeedItem::Events(vec![event]));
    }

    fn delta(&mut self, first: u64, last: u64) {
        let ids = SeqIds { first, last, prev: None };
        let delta = BookDelta { ids, bids: vec![level(9999, 1000)], asks: vec![] };
        self.event(Some(self.now - 1000), Body::Delta(delta));
    }

    fn trade(&mut self, price: i64, side: Side, event_us: i64) {
        let (id, kind) = (TradeId::Number(1), TradeKind::Single);
        self.event(Some(event_us), Body::Trade(Trade { id, kind, raw_ids: None, price, qty: 1, side }));
    }

    fn sync(&mut self, last_id: u64) -> bool {
        let epoch = self.core.keeper_mut().begin_sync();
        self.core.on_snapshot(&snapshot(last_id, 2000), epoch, self.now)
    }

    /// Ticks, with a pulse each, ten times a second.
    fn pass(&mut self, us: i64) {
        let end = self.now + us;
        while self.now < end {
            self.now += 100_000;
            self.item(FeedItem::Pulse);
            self.core.on_tick(self.now, &mut self.actions);
        }
    }

    /// Passes time and answers polls at once with what the venue's book is then; the seconds at which they came.
    fn polled(&mut self, seconds: i64, answer: impl Fn(i64) -> BookSnapshot) -> Vec<i64> {
        let from = self.now;
        let mut asked = Vec::new();
        while self.now < from + seconds * S {
            self.pass(S);
            if self.core.wants_poll(self.now).is_some() {
                let second = (self.now - from) / S;
                asked.push(second);
                self.core.poll_asked(self.now);
                assert!(self.core.on_poll(&answer(second), self.now));
            }
        }
        asked
    }

    fn state(&self) -> (BookState, Cause) {
        (self.core.keeper().state(), self.core.keeper().cause())
    }

    fn renewed(&mut self) -> Vec<Channel> {
        let renewed = self.actions.iter().filter_map(|action| match action {
            Action::Renew(channel) => Some(*channel),
            _ => None,
        });
        let renewed = renewed.collect();
        self.actions.clear();
        renewed
    }

    fn lose_line(&mut self) {
        self.item(FeedItem::Reset { channels: vec![Channel::Depth], cause: "lost" });
    }
}

fn snapshot(last_id: u64, bid_qty: i64) -> BookSnapshot {
    let (bids, asks) =
        (vec![level(9999, 1000), level(9998, bid_qty)], vec![level(10_001, 3000), level(10_002, 4000)]);
    BookSnapshot { last_id, bids, asks, limit: 100 }
}

#[test]
fn a_book_whose_line_is_away_is_polled_until_its_stream_is_back() {
    let mut bench = Bench::new();
    assert!(bench.polled(60, |_| unreachable!()).is_empty(), "a live book is not polled");
    bench.lose_line();
    assert_eq!(bench.core.wants_poll(bench.now), None);
    assert_eq!(bench.polled(21, |at| snapshot(100 + at as u64, at)), [5, 10, 15, 20]);
    assert_eq!(bench.state(), (BookState::Polled, Cause::Disconnected));
    let sample = bench.core.sample(0, bench.now);
    assert_eq!((sample.state, sample.last_id, sample.bands.is_empty()), (SampleState::Polled, 120, false));
    // The line fails to come back: what was polled stays.
    bench.lose_line();
    assert_eq!(bench.state().0, BookState::Polled);
    assert_eq!(bench.core.wants_snapshot(bench.now), None, "nothing could join it");

    bench.item(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.delta(200, 201);
    assert_eq!(
        (bench.state().0, bench.core.wants_snapshot(bench.now)),
        (BookState::Polled, Some(Duration::ZERO))
    );
    bench.pass(6 * S);
    assert_eq!(bench.core.wants_poll(bench.now), None, "the sync has taken over");
    assert!(bench.sync(200));
    assert_eq!(bench.state(), (BookState::Live, Cause::Synced));
    assert_eq!(bench.core.keeper().counters().polled, 4);
}

#[test]
fn a_polled_book_that_cannot_be_polled_again_is_not_believed_for_long() {
    let mut bench = Bench::new();
    bench.lose_line();
    bench.polled(6, |_| snapshot(100, 1));
    assert_eq!(bench.state().0, BookState::Polled);
    bench.pass(60 * S);
    assert_eq!(bench.state().0, BookState::Polled);
    bench.pass(S);
    assert_eq!(bench.state(), (BookState::Stale, Cause::Silent));
    bench.polled(6, |_| snapshot(101, 1));
    assert_eq!(bench.state().0, BookState::Polled);
}

#[test]
fn a_dead_stream_is_renewed_again_while_rest_moves_and_absolved_when_it_stands_still() {
    let mut bench = Bench::new();
    let convict = |bench: &mut Bench| {
        let quote = Quote { update_id: Some(900), bid: level(9997, 5), ask: level(9998, 6) };
        bench.event(None, Body::Quote(quote));
        bench.pass(4 * S);
        assert_eq!(bench.state(), (BookState::Stale, Cause::Disagrees));
        assert_eq!(bench.renewed(), [Channel::Depth]);
    };
    convict(&mut bench);
    bench.polled(40, |second| snapshot(900, second));
    assert_eq!(bench.state(), (BookState::Polled, Cause::Disagrees));
    let renewed = bench.renewed();
    assert!(
        (2..=3).contains(&renewed.len()) && renewed.iter().all(|one| *one == Channel::Depth),
        "{renewed:?}"
    );

    bench.polled(60, |_| snapshot(901, 1));
    assert_eq!(bench.core.wants_snapshot(bench.now), Some(Duration::ZERO), "it has missed nothing");
    bench.renewed();
    bench.pass(30 * S);
    assert_eq!(bench.renewed(), [], "no evidence, no renewal");
    assert!(bench.sync(901));
    assert_eq!(bench.state().0, BookState::Live);
}

#[test]
fn a_trade_beyond_the_best_price_that_no_update_follows_is_evidence() {
    let stands = |trades: &[(i64, Side, i64)]| {
        let mut bench = Bench::new();
        bench.pass(S);
        for &(price, side, age_us) in trades {
            bench.trade(price, side, bench.now - age_us);
        }
        bench.pass(4 * S);
        (bench.state().0 == BookState::Live, bench.renewed())
    };
    // Best bid 99.99, best ask 100.01; a tick is 0.01.
    for (price, side) in [(10_001, Side::Buy), (10_002, Side::Buy), (9999, Side::Sell), (9998, Side::Sell)] {
        assert_eq!(stands(&[(price, side, 0)]), (true, vec![]), "{price} {side:?}");
    }
    let through = [(10_003, Side::Buy, 0), (9997, Side::Sell, 0)];
    for trade in through {
        assert_eq!(stands(&[trade]), (false, vec![Channel::Depth]), "{trade:?}");
    }
    assert_eq!(stands(&[(10_003, Side::Buy, 2 * S)]), (true, vec![]), "older than what the book contains");

    let mut bench = Bench::new();
    bench.trade(10_003, Side::Buy, bench.now);
    bench.pass(S);
    bench.delta(13, 13);
    bench.pass(10 * S);
    assert_eq!((bench.state().0, bench.renewed()), (BookState::Live, vec![]), "the book moves");
}

#[test]
fn a_corrupted_level_is_found_within_the_period_and_only_the_book_is_loaded_anew() {
    let mut bench = Bench::new();
    bench.core.corrupt_level().unwrap();
    let (from, mut id) = (bench.now, 12);
    let mut look = None;
    while look.is_none() {
        bench.pass(S);
        id += 1;
        bench.delta(id, id);
        look = bench.core.wants_verification(bench.now);
        assert!(bench.now - from <= 601 * S, "not looked at");
    }
    assert_eq!(look, Some(Look::Whole));
    bench.core.verification_asked(Look::Whole, bench.now);
    bench.delta(id + 1, id + 1);
    let mut actions = Vec::new();
    bench.core.on_verification(snapshot(id, 2000), bench.now, &mut actions);
    assert_eq!(bench.state(), (BookState::Syncing, Cause::Diverged));
    assert_eq!((actions, bench.renewed()), (vec![], vec![]), "no stream is to blame");
    let counts = bench.core.verifier().counts();
    assert_eq!((counts.divergences, counts.divergent_levels, counts.verifications), (1, 1, 1));
    bench.delta(id + 2, id + 2);
    assert_eq!(bench.core.wants_snapshot(bench.now), Some(Duration::ZERO));
    assert!(bench.sync(id + 1));
    bench.core.verification_asked(Look::Whole, bench.now);
    bench.core.on_verification(snapshot(id + 2, 2000), bench.now, &mut bench.actions);
    assert_eq!((bench.state().0, bench.core.verifier().verified_us()), (BookState::Live, Some(bench.now)));
}

#[test]
fn a_symbol_on_which_everything_fell_silent_is_found_by_a_glance() {
    let mut bench = Bench::new();
    let mut waited = 0;
    while bench.core.wants_verification(bench.now) != Some(Look::Glance) {
        bench.pass(S);
        waited += 1;
        if bench.core.wants_verification(bench.now) == Some(Look::Whole) {
            bench.core.verification_asked(Look::Whole, bench.now);
            bench.core.on_verification(snapshot(12, 2000), bench.now, &mut Vec::new());
        }
        assert!(waited <= 61, "not glanced at");
    }
    bench.core.verification_asked(Look::Glance, bench.now);
    let ahead = BookSnapshot { limit: 2, ..snapshot(400, 2222) };
    bench.core.on_verification(ahead, bench.now, &mut Vec::new());
    assert_eq!(bench.state().0, BookState::Live, "its updates may be on their way");
    bench.renewed();
    bench.pass(11 * S);
    assert_eq!(bench.state(), (BookState::Stale, Cause::Disagrees));
    assert_eq!(bench.renewed(), [Channel::Depth, Channel::Quote, Channel::Trade]);
    assert_eq!(bench.core.verifier().counts().behind, 1);
}

#[test]
fn a_look_ends_with_the_life_of_its_book() {
    let mut bench = Bench::new();
    bench.core.verification_asked(Look::Whole, bench.now);
    bench.lose_line();
    bench.pass(S);
    assert!(!bench.core.verifier().is_recording());
    bench.core.on_verification(snapshot(12, 2000), bench.now, &mut bench.actions);
    assert_eq!(bench.core.wants_verification(bench.now), None, "it is not live");
    assert_eq!(bench.core.verifier().counts().verifications, 0);
}

#[test]
fn a_book_of_a_paused_shard_asks_nobody_until_the_shard_goes_on() {
    let polls = |bench: &mut Bench| {
        let mut polls = 0;
        for _ in 0..60 {
            bench.now += S;
            bench.item(FeedItem::Pulse);
            polls += usize::from(bench.core.wants_poll(bench.now).is_some());
        }
        polls
    };
    for (cause, expected) in [("connection_lost", true), ("shard_paused", false)] {
        let mut bench = Bench::new();
        bench.item(FeedItem::Reset { channels: vec![Channel::Depth], cause });
        assert_eq!(polls(&mut bench) > 0, expected, "{cause}");
        // The shard begins again, and its line does not come.
        bench.item(FeedItem::Reset { channels: vec![Channel::Depth], cause: "shard_started" });
        assert!(polls(&mut bench) > 0, "{cause}");
    }
}
