//! Hands the events of one socket read to the books' inboxes: one item an instrument, nothing awaited. What an inbox
//! cannot take is lost and said so in its place.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fathom_market::{event::Event, instrument::InstrumentIdx};

use crate::{
    feed::FeedItem,
    kernel::{Outlet, SendError},
};

/// The inboxes of a market's books, by instrument index. Shared by all its shards; grows as symbols are added.
pub type Routes = Arc<ArcSwap<Vec<Outlet<FeedItem>>>>;

/// The router of one shard.
pub struct Router {
    routes: Routes,
    groups: Vec<Vec<Event>>,
    touched: Vec<InstrumentIdx>,
    lost: Vec<usize>,
    lost_total: u64,
}

impl Router {
    /// A router that holds nothing.
    pub const fn new(routes: Routes) -> Self {
        Self { routes, groups: Vec::new(), touched: Vec::new(), lost: Vec::new(), lost_total: 0 }
    }

    /// Adds an event to what the next [`Router::flush`] sends.
    #[inline]
    pub fn push(&mut self, event: Event) {
        let at = event.instrument.0 as usize;
        if at >= self.groups.len() {
            self.groups.resize_with(at + 1, Vec::new);
        }
        let group = &mut self.groups[at];
        if group.is_empty() {
            self.touched.push(event.instrument);
        }
        group.push(event);
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let routes = self.routes.load_full();
        for idx in std::mem::take(&mut self.touched) {
            self.flush_one(&routes, idx);
        }
    }

    /// Sends an item to one book, after what was gathered for it.
    pub fn send(&mut self, idx: InstrumentIdx, item: FeedItem) {
        let routes = self.routes.load_full();
        if self.groups.get(idx.0 as usize).is_some_and(|group| !group.is_empty()) {
            self.touched.retain(|touched| *touched != idx);
            self.flush_one(&routes, idx);
        }
        self.offer(&routes, idx, item);
    }

    /// Events lost to full inboxes so far.
    pub const fn lost_total(&self) -> u64 {
        self.lost_total
    }

    fn flush_one(&mut self, routes: &[Outlet<FeedItem>], idx: InstrumentIdx) {
        let events = std::mem::take(&mut self.groups[idx.0 as usize]);
        self.offer(routes, idx, FeedItem::Events(events));
    }

    fn offer(&mut self, routes: &[Outlet<FeedItem>], idx: InstrumentIdx, item: FeedItem) {
        let at = idx.0 as usize;
        let Some(outlet) = routes.get(at) else { return };
        if self.lost.get(at).is_some_and(|lost| *lost > 0) {
            let marker = FeedItem::Overflow { events: self.lost[at] };
            match outlet.offer(marker) {
                Err(SendError::Full(_)) => return self.lose(at, &item),
                Ok(_) | Err(SendError::Closed(_)) => self.lost[at] = 0,
            }
        }
        // A closed inbox belongs to a symbol that is not collected any more.
        if let Err(SendError::Full(item)) = outlet.offer(item) {
            self.lose(at, &item);
        }
    }

    fn lose(&mut self, at: usize, item: &FeedItem) {
        let events = if let FeedItem::Events(events) = item { events.len() } else { 1 };
        if at >= self.lost.len() {
            self.lost.resize(at + 1, 0);
        }
        self.lost[at] += events;
        self.lost_total += events as u64;
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::event::{Body, Level, Quote};

    use super::*;
    use crate::kernel::{Clock, Inbox, Overflow, inbox::bounded};

    fn quote(instrument: u32, id: u64) -> Event {
        let level = Level { price: 1, qty: 1 };
        Event {
            instrument: InstrumentIdx(instrument),
            event_us: None,
            sent_us: None,
            recv_us: 0,
            body: Body::Quote(Quote { update_id: Some(id), bid: level, ask: level }),
        }
    }

    fn router(capacity: usize) -> (Router, Vec<Inbox<FeedItem>>) {
        let (outlets, inboxes) =
            (0..2).map(|_| bounded("book", capacity, Overflow::Fault, &Clock::system())).unzip();
        (Router::new(Arc::new(ArcSwap::from_pointee(outlets))), inboxes)
    }

    fn ids(item: Option<FeedItem>) -> Vec<u64> {
        let Some(FeedItem::Events(events)) = item else { panic!("events, not {item:?}") };
        let id = |event: Event| if let Body::Quote(quote) = event.body { quote.update_id } else { None };
        events.into_iter().filter_map(id).collect()
    }

    #[test]
    fn one_read_is_one_item_a_book_in_order() {
        let (mut router, inboxes) = router(8);
        for (instrument, id) in [(0, 1), (1, 2), (0, 3), (7, 4)] {
            router.push(quote(instrument, id));
        }
        router.flush();
        assert_eq!(ids(inboxes[0].try_recv()), [1, 3]);
        assert_eq!(ids(inboxes[1].try_recv()), [2]);
        assert!(inboxes[0].is_empty() && inboxes[1].is_empty());
    }

    #[test]
    fn what_is_lost_is_said_in_its_place() {
        let (mut router, inboxes) = router(2);
        for id in 1..=4 {
            router.push(quote(0, id));
            router.flush();
        }
        assert_eq!((ids(inboxes[0].try_recv()), ids(inboxes[0].try_recv())), (vec![1], vec![2]));
        router.push(quote(0, 5));
        router.flush();
        assert!(matches!(inboxes[0].try_recv(), Some(FeedItem::Overflow { events: 2 })));
        assert_eq!(ids(inboxes[0].try_recv()), [5]);
        assert_eq!(router.lost_total(), 2);
    }

    #[test]
    fn a_marker_follows_what_was_gathered_before_it() {
        let (mut router, inboxes) = router(8);
        router.push(quote(0, 1));
        router.send(InstrumentIdx(0), FeedItem::Pulse);
        router.flush();
        assert_eq!(ids(inboxes[0].try_recv()), [1]);
        assert!(matches!(inboxes[0].try_recv(), Some(FeedItem::Pulse)));
        assert!(inboxes[0].is_empty());
    }
}
