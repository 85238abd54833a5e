//! How far the book believes its streams, and what it does without them: evidence against the depth stream, polling while
//! it is away, comparison with the venue's own book.

use fathom_market::{
    book::{BookState, Cause, Step},
    decimal::to_scaled,
    event::{BookDelta, BookSnapshot, Channel, Side, Trade},
    gap::GapCause,
};

use super::{Action, BookCore};
use crate::book::verify::{Finding, Look, Verifier};

/// A depth stream that is found dead is renewed again after this time, if there is new evidence against it.
const RENEW_AGAIN_US: i64 = 11_000_000;
/// Levels of a side by which two polls are compared.
const COMPARED: usize = 20;

impl BookCore {
    /// The venue's ids mean nothing outside of a connection: no snapshot can be compared with the book.
    #[must_use]
    pub const fn without_verification(mut self, reason: &'static str) -> Self {
        self.verifier.skip(reason);
        self
    }

    /// A trade beyond the best price, by more than a tick, should be followed by a depth update that takes that price
    /// away. One that is no newer than the book is contained in it.
    pub(super) fn weigh_trade(&mut self, trade: &Trade, event_us: i64, recv_us: i64) {
        let Some(book) = self.keeper.live_book() else { return };
        if self.keeper.last_event_us().is_some_and(|newest| event_us <= newest) {
            return;
        }
        let beyond = match trade.side {
            Side::Buy => book.best_ask().map_or(0, |ask| trade.price.saturating_sub(ask.price)),
            Side::Sell => book.best_bid().map_or(0, |bid| bid.price.saturating_sub(trade.price)),
        };
        if beyond > 0
            && to_scaled(self.instrument.tick_size, self.instrument.price_scale)
                .is_ok_and(|tick| beyond > tick)
        {
            self.evidence.on_trade_through(recv_us);
        }
    }

    /// The depth stream does not say what happens: the book is in doubt until it speaks.
    pub(super) fn convict_depth(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        self.keeper.mark_stale(Cause::Disagrees, now_us);
        self.depth_is_dead = true;
        self.renewed_us = now_us;
        self.polling.forgiven();
        actions.push(Action::Renew(Channel::Depth));
    }

    /// A stream that was found dead is renewed again upon new evidence only; a venue's book that stands still absolves it.
    pub(super) fn check_dead(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        if now_us - self.renewed_us <= RENEW_AGAIN_US {
            return;
        }
        if self.evidence.suspects(None, false, now_us).0 {
            self.renewed_us = now_us;
            self.polling.forgiven();
            actions.push(Action::Renew(Channel::Depth));
        } else if self.polling.is_quiet() {
            self.depth_is_dead = false;
            self.polling.forgiven();
        }
    }

    /// A polled book that is not polled again for long is not believed.
    pub(super) fn check_polled(&mut self, now_us: i64) {
        let last_us = self.keeper.last_recv_us().unwrap_or(now_us);
        if self.keeper.state() == BookState::Polled && now_us - last_us > self.polling.believed_us() {
            self.keeper.mark_stale(Cause::Silent, now_us);
        }
    }

    /// How many levels are to be polled now; `None` while the stream is there, or a poll is not due.
    pub fn wants_poll(&mut self, now_us: i64) -> Option<usize> {
        let is_away = self.is_away(now_us);
        self.polling.wants(is_away, now_us)
    }

    /// True while the book cannot become live because its stream is away or dead.
    fn is_away(&self, now_us: i64) -> bool {
        !self.is_held
            && !matches!(self.keeper.state(), BookState::Live | BookState::Paused)
            && (self.depth_open_us.is_none() || self.depth_is_dead || self.is_silent(now_us))
    }

    /// True while the answer to a poll is of use.
    pub const fn is_polling(&self) -> bool {
        self.polling.is_under_way()
    }

    /// The poll leaves.
    pub const fn poll_asked(&mut self, now_us: i64) {
        self.polling.asked(now_us);
    }

    /// The poll failed.
    pub fn poll_failed(&mut self, now_us: i64) {
        self.polling.failed(now_us);
    }

    /// Takes the answer to a poll. True when the book is polled.
    pub fn on_poll(&mut self, snapshot: &BookSnapshot, now_us: i64) -> bool {
        let before = (self.keeper.state() == BookState::Polled).then(|| self.keeper.book().top(COMPARED));
        let step = self.keeper.on_polled(snapshot, now_us);
        if !matches!(step, Step::Synced { .. }) {
            self.polling.failed(now_us);
            return false;
        }
        let moved = before.map(|before| before != self.keeper.book().top(COMPARED));
        self.polling.succeeded(moved.unwrap_or(true), now_us);
        if moved == Some(true) && self.depth_is_dead {
            self.evidence.on_rest_moved();
        }
        true
    }

    pub(super) fn recorded(&mut self, applied: Option<BookDelta>, now_us: i64) {
        if let Some(delta) = applied {
            self.verifier.record(delta, now_us);
        }
    }

    /// How much of the venue's book is to be asked for now to verify this one.
    pub fn wants_verification(&self, now_us: i64) -> Option<Look> {
        self.keeper.live_book().and_then(|_| self.verifier.due(now_us))
    }

    /// The request leaves.
    pub fn verification_asked(&mut self, look: Look, now_us: i64) {
        self.verifier.begin(look, now_us);
    }

    /// Gives the book up and begins anew, as an operator wishes.
    pub fn resync(&mut self, now_us: i64) {
        let was = self.keeper.state();
        self.bars.interrupt();
        self.keeper.reset(Cause::Operator, now_us);
        self.watch_book(was, now_us);
    }

    /// The request failed.
    pub fn verification_failed(&mut self, now_us: i64) {
        self.verifier.failed(now_us);
    }

    /// Takes the answer.
    pub fn on_verification(&mut self, snapshot: BookSnapshot, now_us: i64, actions: &mut Vec<Action>) {
        let (Some(book), Some(last_id)) = (self.keeper.live_book(), self.keeper.last_id()) else {
            return self.verifier.cancel(now_us);
        };
        let was = self.keeper.state();
        let found = self.verifier.answered(snapshot, book, last_id, now_us);
        self.heed(found, now_us, actions);
        self.watch_book(was, now_us);
    }

    pub(super) fn check_verification(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        if !self.verifier.is_recording() {
            return;
        }
        let (Some(book), Some(last_id)) = (self.keeper.live_book(), self.keeper.last_id()) else {
            return self.verifier.cancel(now_us);
        };
        let found = self.verifier.compare(book, last_id, now_us);
        self.heed(found, now_us, actions);
    }

    fn heed(&mut self, found: Option<Finding>, now_us: i64, actions: &mut Vec<Action>) {
        match found {
            None | Some(Finding::Same) => {}
            Some(Finding::Differs(levels)) => self.on_divergence(levels, now_us),
            Some(Finding::Behind(levels)) => {
                tracing::warn!(symbol = %self.instrument.native, levels, "the venue's book has moved on, the streams are silent");
                self.bars.interrupt();
                self.convict_depth(now_us, actions);
                for channel in [Channel::Quote, Channel::Trade] {
                    self.gap(channel, GapCause::Silence, now_us);
                }
                actions.extend([Channel::Quote, Channel::Trade].map(Action::Renew));
            }
        }
    }

    /// The book is not the venue's: it alone is loaded anew.
    fn on_divergence(&mut self, levels: u32, now_us: i64) {
        tracing::warn!(symbol = %self.instrument.native, levels, "the book differs from the venue's");
        self.reject("diverged", 1);
        self.bars.interrupt();
        self.keeper.reset(Cause::Diverged, now_us);
    }

    /// How the book is verified, and what was found.
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Changes one level of the book in memory, for tests of what finds it.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn corrupt_level(&mut self) -> Option<fathom_market::event::Level> {
        self.keeper.live_book()?;
        self.keeper.corrupt_level()
    }
}
