//! What leaves a shard: its merge, its router, and the sinks between a line, the merge and the books. It belongs to the
//! shard's slot, so that two instances can feed it while one hands over to the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use fathom_market::{
    event::{Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
};
use fathom_venues::Venue;

use super::{
    line::Sink,
    merge::{LineKey, Merge, Uncarried},
    router::{Router, Routes},
};
use crate::{
    fanout::{LiveEvent, LiveEvents},
    feed::FeedItem,
};

/// Merge and router of a shard.
pub struct Outflow {
    /// What all lines say, merged.
    pub merge: Merge,
    /// The way to the books.
    pub router: Router,
}

/// The outflow of a shard's slot. Instances that work beside each other share one and run on one thread, so its lock is
/// never waited for; an instance without a predecessor begins a new one, whatever state its predecessor left.
#[derive(Clone)]
pub struct OutflowCell(Arc<ArcSwap<Mutex<Outflow>>>);

impl OutflowCell {
    /// The outflow of a shard that has not started.
    pub fn new(venue: &dyn Venue, market: Market, routes: Routes) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Mutex::new(Outflow::new(venue, market, routes)))))
    }

    /// The one in use.
    pub fn shared(&self) -> Arc<Mutex<Outflow>> {
        self.0.load_full()
    }

    /// A new one, from here on in use.
    pub fn fresh(&self, venue: &dyn Venue, market: Market, routes: Routes) -> Arc<Mutex<Outflow>> {
        let fresh = Arc::new(Mutex::new(Outflow::new(venue, market, routes)));
        self.0.store(fresh.clone());
        fresh
    }
}

/// For the length of one read.
pub fn locked(outflow: &Mutex<Outflow>) -> MutexGuard<'_, Outflow> {
    outflow.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the books and the listeners of live events need.
#[derive(Clone, Copy)]
pub struct Audience<'a> {
    /// Whoever listens.
    pub live: &'a LiveEvents,
    /// The market's instruments.
    pub table: &'a InstrumentTable,
}

impl Outflow {
    fn new(venue: &dyn Venue, market: Market, routes: Routes) -> Self {
        Self { merge: Merge::new(venue, market), router: Router::new(routes) }
    }

    /// Where one connection puts what it decodes.
    pub const fn inlet<'a>(&'a mut self, line: LineKey, audience: Audience<'a>) -> Inlet<'a> {
        Inlet { line, merge: &mut self.merge, books: Books { router: &mut self.router, audience } }
    }

    /// These streams have been acknowledged on a connection.
    pub fn subscribed(
        &mut self,
        line: LineKey,
        streams: &[(InstrumentIdx, Channel)],
        now_us: i64,
        audience: Audience<'_>,
    ) {
        let mut books = Books { router: &mut self.router, audience };
        for (instrument, channel) in streams {
            self.merge.attach(line, *instrument, *channel, now_us, &mut books);
        }
        self.router.flush();
    }

    /// A connection is over. The books are told of the streams that no other carries.
    pub fn leave(&mut self, line: LineKey, cause: &'static str, now_us: i64, audience: Audience<'_>) {
        let mut books = Books { router: &mut self.router, audience };
        let uncarried = self.merge.leave(line, now_us, &mut books);
        self.reset(uncarried, cause);
    }

    /// The connections of every other instance are over.
    pub fn leave_strangers(
        &mut self,
        generation: u64,
        cause: &'static str,
        now_us: i64,
        audience: Audience<'_>,
    ) {
        let mut books = Books { router: &mut self.router, audience };
        let uncarried = self.merge.leave_strangers(generation, now_us, &mut books);
        self.reset(uncarried, cause);
    }

    /// Tells the books that what they have of these streams is in doubt.
    pub fn reset(&mut self, streams: Uncarried, cause: &'static str) {
        self.router.flush();
        for (instrument, channels) in streams {
            self.router.send(instrument, FeedItem::Reset { channels, cause });
        }
    }

    /// Streams that a connection has given up, which is no loss.
    pub fn mute(
        &mut self,
        line: LineKey,
        streams: &[(InstrumentIdx, Channel)],
        now_us: i64,
        audience: Audience<'_>,
    ) {
        let mut books = Books { router: &mut self.router, audience };
        for (instrument, channel) in streams {
            self.merge.mute(line, *instrument, *channel, now_us, &mut books);
        }
        self.router.flush();
    }

    /// Passes on what has waited long enough.
    pub fn expire(&mut self, now_us: i64, audience: Audience<'_>) {
        self.merge.expire(now_us, &mut Books { router: &mut self.router, audience });
        self.router.flush();
    }
}

/// From a line into the merge.
pub struct Inlet<'a> {
    line: LineKey,
    merge: &'a mut Merge,
    books: Books<'a>,
}

impl Sink for Inlet<'_> {
    fn event(&mut self, event: Event) {
        self.merge.offer(self.line, event, &mut self.books);
    }

    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64) {
        self.books.gap(instrument, expected, got);
    }

    /// Beside another line the merge finds out whether that one could read it.
    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str) {
        if !self.merge.is_carried_beside(self.line, instrument, channel) {
            self.books.unreadable(instrument, channel, reason);
        }
    }

    fn opened(&mut self, instrument: InstrumentIdx, channel: Channel) {
        self.books.opened(instrument, channel);
    }

    fn set_back(&mut self, instrument: InstrumentIdx, channel: Channel) {
        self.books.set_back(instrument, channel);
    }

    fn cut(&mut self, instrument: InstrumentIdx, channel: Channel) {
        self.books.cut(instrument, channel);
    }
}

/// From the merge to the books and to whoever listens.
pub struct Books<'a> {
    router: &'a mut Router,
    audience: Audience<'a>,
}

impl Sink for Books<'_> {
    fn event(&mut self, event: Event) {
        let Audience { live, table } = self.audience;
        if !live.is_idle()
            && let Some(instrument) = table.get(event.instrument)
        {
            let (instrument, event) = (instrument.clone(), event.clone());
            live.publish(|| Arc::new(LiveEvent { instrument, event }));
        }
        self.router.push(event);
    }

    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64) {
        self.router.send(instrument, FeedItem::Gap { expected, got });
    }

    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str) {
        self.router.send(instrument, FeedItem::Unreadable { channel, reason });
    }

    fn opened(&mut self, instrument: InstrumentIdx, channel: Channel) {
        self.router.send(instrument, FeedItem::Open { channels: vec![channel] });
    }

    fn set_back(&mut self, instrument: InstrumentIdx, channel: Channel) {
        self.router.send(instrument, FeedItem::SetBack { channel });
    }

    fn cut(&mut self, instrument: InstrumentIdx, channel: Channel) {
        let channels = vec![channel];
        self.router.send(instrument, FeedItem::Reset { channels: channels.clone(), cause: "line_changed" });
        self.router.send(instrument, FeedItem::Open { channels });
    }
}
