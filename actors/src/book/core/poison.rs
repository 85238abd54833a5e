//! Items that make the book's actor panic: each one is named before it is worked on, and one that did it twice is set
//! aside.

use std::hash::{Hash, Hasher};

use fathom_market::event::{Body, Candle, Channel, Event};
use fathom_market::{book::Cause, gap::GapCause};
use rustc_hash::FxHasher;

use super::BookCore;
use crate::kernel::{ItemTag, Lifeline};

/// The reason under which they are counted.
pub const POISONED: &str = "poisoned";

impl BookCore {
    /// Whoever works on the items knows which one is in hand.
    #[must_use]
    pub fn guarded(mut self, life: Lifeline) -> Self {
        self.life = Some(life);
        self
    }

    /// Begins with an item; false when it is to be set aside.
    pub(super) fn take_up(&self, tag: impl FnOnce() -> ItemTag) -> bool {
        let Some(life) = &self.life else { return true };
        let tag = tag();
        if life.refuses(tag) {
            return false;
        }
        life.item(Some(tag));
        #[cfg(test)]
        testing::break_on(tag);
        true
    }

    /// Nothing is in hand.
    pub(super) fn put_down(&self) {
        if let Some(life) = &self.life {
            life.item(None);
        }
    }

    /// What an event that is set aside said is missing.
    pub(super) fn set_aside(&mut self, channel: Channel, now_us: i64) {
        tracing::error!(symbol = %self.instrument.native, channel = channel.as_str(), "an item that panics again and again is set aside");
        self.reject(POISONED, 1);
        self.bars.interrupt();
        self.gap(channel, GapCause::Unreadable, now_us);
        if channel == Channel::Depth {
            self.keeper.reset(Cause::Unreadable, now_us);
        }
    }

    /// Counts an answer of the venue that is set aside.
    pub fn answer_set_aside(&mut self) {
        self.reject(POISONED, 1);
    }
}

/// The name of an event: what it is, not when it was received, so that it is known when it comes again.
pub(super) fn tag_of_event(event: &Event) -> ItemTag {
    let mut hasher = FxHasher::default();
    event.event_us.hash(&mut hasher);
    match &event.body {
        Body::Quote(quote) => {
            let numbers = [quote.bid, quote.ask].map(|level| (level.price, level.qty));
            (0_u8, quote.update_id, numbers).hash(&mut hasher);
        }
        Body::Trade(trade) => (1_u8, &trade.id, trade.price, trade.qty).hash(&mut hasher),
        Body::Delta(delta) => {
            (2_u8, delta.ids.first, delta.ids.last, delta.bids.len(), delta.asks.len()).hash(&mut hasher);
        }
        Body::Snapshot(snapshot) => (3_u8, snapshot.last_id, snapshot.bids.len()).hash(&mut hasher),
        Body::Candle(candle) => hash_candle(candle, &mut hasher),
        Body::Ticker(ticker) => {
            (5_u8, ticker.last, ticker.bid, ticker.ask, ticker.volume, ticker.trades).hash(&mut hasher);
        }
        Body::Funding(funding) => {
            (6_u8, funding.mark_price, funding.index_price, funding.rate).hash(&mut hasher)
        }
    }
    ItemTag(hasher.finish())
}

/// The name of a fetched candle.
pub(super) fn tag_of_candle(candle: &Candle) -> ItemTag {
    let mut hasher = FxHasher::default();
    hash_candle(candle, &mut hasher);
    ItemTag(hasher.finish())
}

fn hash_candle(candle: &Candle, hasher: &mut FxHasher) {
    let amounts = (candle.close, candle.volume, candle.trades);
    (4_u8, candle.timeframe, candle.open_ms, candle.closed, amounts).hash(hasher);
}

/// The name of an answer of the venue's REST service.
pub fn tag_of_answer(body: &[u8]) -> ItemTag {
    let mut hasher = FxHasher::default();
    (7_u8, body).hash(&mut hasher);
    ItemTag(hasher.finish())
}

/// Items that break whoever takes them up.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Mutex;

    use super::{Event, ItemTag, tag_of_answer, tag_of_event};

    static BREAKING: Mutex<Vec<ItemTag>> = Mutex::new(Vec::new());

    /// From here on this event breaks its book.
    pub(crate) fn poison_event(event: &Event) {
        BREAKING.lock().unwrap().push(tag_of_event(event));
    }

    /// From here on this answer breaks its book.
    pub(crate) fn poison_answer(body: &[u8]) {
        BREAKING.lock().unwrap().push(tag_of_answer(body));
    }

    pub(crate) fn break_on(tag: ItemTag) {
        let breaks = BREAKING.lock().unwrap().contains(&tag);
        assert!(!breaks, "the item is poisoned");
    }
}
