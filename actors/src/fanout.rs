//! Live events for any number of subscribers, each behind a bounded queue with its own answer to "full". Costs one
//! load of a pointer while nobody listens.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::kernel::{Clock, Inbox, Outlet, Overflow, SendError, inbox::bounded};

/// Most subscribers at once.
const MAX_SUBSCRIBERS: usize = 256;

/// A source of events.
pub struct Fanout<T> {
    subscribers: ArcSwap<Vec<Outlet<T>>>,
    clock: Clock,
}

impl<T: Clone + Send + 'static> Fanout<T> {
    /// A source without subscribers.
    pub fn new(clock: Clock) -> Self {
        Self { subscribers: ArcSwap::default(), clock }
    }

    /// Adds a subscriber; `None` when there are too many. It leaves by closing its inbox.
    pub fn subscribe(&self, name: &'static str, capacity: usize, overflow: Overflow<T>) -> Option<Inbox<T>> {
        if self.subscribers.load().len() >= MAX_SUBSCRIBERS {
            return None;
        }
        let (outlet, inbox) = bounded(name, capacity, overflow, &self.clock);
        self.subscribers.rcu(|now| {
            let mut next = Vec::clone(now);
            next.push(outlet.clone());
            next
        });
        Some(inbox)
    }

    /// True when nobody listens.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.subscribers.load().is_empty()
    }

    /// Gives an event to every subscriber; it is made only when there is one. Those that have left are forgotten.
    pub fn publish(&self, make: impl FnOnce() -> T) {
        let subscribers = self.subscribers.load_full();
        if subscribers.is_empty() {
            return;
        }
        let event = make();
        let gone = subscribers
            .iter()
            .filter(|outlet| matches!(outlet.offer(event.clone()), Err(SendError::Closed(_))))
            .count();
        if gone > 0 {
            self.forget_closed();
        }
    }

    fn forget_closed(&self) {
        self.subscribers
            .rcu(|now| now.iter().filter(|outlet| !outlet.is_closed()).cloned().collect::<Vec<_>>());
    }
}

/// A live event and its instrument.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// The instrument.
    pub instrument: Arc<fathom_market::instrument::Instrument>,
    /// The event.
    pub event: fathom_market::event::Event,
}

/// The source of every line's events.
pub type LiveEvents = Fanout<Arc<LiveEvent>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn fanout() -> Fanout<u32> {
        Fanout::new(Clock::system())
    }

    #[test]
    fn nothing_is_made_while_nobody_listens() {
        fanout().publish(|| panic!("nobody listens"));
    }

    #[test]
    fn each_subscriber_has_its_own_answer_to_full() {
        let fanout = fanout();
        let oldest = fanout.subscribe("oldest", 2, Overflow::DropOldest).unwrap();
        let newest = fanout.subscribe("newest", 2, Overflow::DropNewest).unwrap();
        (1..=3).for_each(|n| fanout.publish(|| n));
        assert_eq!((oldest.try_recv(), oldest.try_recv(), oldest.try_recv()), (Some(2), Some(3), None));
        assert_eq!((newest.try_recv(), newest.try_recv(), newest.try_recv()), (Some(1), Some(2), None));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let fanout = fanout();
        let inbox = fanout.subscribe("gone", 2, Overflow::DropOldest).unwrap();
        inbox.close();
        fanout.publish(|| 1);
        assert!(fanout.is_idle());
    }
}
