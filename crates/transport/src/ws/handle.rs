//! What the owner of a session tells it, and the state the two share.
//!
//! The session is usually moved into an actor's mailbox loop, so its owner keeps a handle. The lock is held for a few
//! instructions and never across user code; a poisoned one is taken over, since every change under it is complete.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use fathom_market::plan::OutFrame;
use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

use crate::session_clock::SessionClock;

/// Frames that may wait to be written, beside the initial subscription.
pub const OUTBOX: usize = 64;

/// The session's queue of frames to write is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session has {OUTBOX} frames waiting to be written")]
pub struct Full;

/// What session and handle share under the lock.
pub(super) struct Core {
    pub(super) clock: SessionClock,
    pub(super) outbox: VecDeque<OutFrame>,
    /// How many at the front of the outbox are the initial subscription.
    pub(super) subscribing: usize,
}

impl Core {
    /// The next frame to write, counted as written.
    pub(super) fn next_frame(&mut self, now: Duration) -> Option<Message> {
        let frame = self.outbox.pop_front()?;
        let subscription = self.subscribing > 0;
        self.subscribing = self.subscribing.saturating_sub(1);
        self.clock.sent(now, frame.ack, subscription);
        Some(Message::Text(frame.text.into()))
    }

    /// The keep-alive message, counted as written: `text`, or a ping where there is none.
    pub(super) fn keep_alive(&mut self, now: Duration, text: Option<&Utf8Bytes>) -> Message {
        self.clock.sent_keep_alive(now);
        match text {
            Some(text) => Message::Text(text.clone()),
            None => Message::Ping(Bytes::new()),
        }
    }
}

pub(super) struct Shared {
    pub(super) opened: Instant,
    pub(super) waker: AtomicWaker,
    pub(super) closing: AtomicBool,
    data_seen: AtomicBool,
    core: Mutex<Core>,
}

impl Shared {
    pub(super) fn new(opened: Instant, core: Core) -> Self {
        Self {
            opened,
            waker: AtomicWaker::new(),
            closing: AtomicBool::new(false),
            data_seen: AtomicBool::new(false),
            core: Mutex::new(core),
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a session what its owner found in the frames, and what to send.
#[derive(Clone)]
pub struct SessionHandle {
    pub(super) shared: Arc<Shared>,
}

impl SessionHandle {
    /// The venue answered the frame with this acknowledgement id.
    pub fn acked(&self, id: u64) {
        self.shared.core().clock.acked(self.shared.opened.elapsed(), id);
        self.shared.waker.wake();
    }

    /// Market data came. Only the first call does anything, so it may be called for every batch.
    pub fn data_seen(&self) {
        if !self.shared.data_seen.swap(true, Relaxed) {
            self.shared.core().clock.data_seen();
        }
    }

    /// Queues a frame, to be written at the venue's pace; its acknowledgement is then awaited as for a subscription.
    ///
    /// # Errors
    /// [`Full`] when [`OUTBOX`] frames wait already.
    pub fn send(&self, frame: OutFrame) -> Result<(), Full> {
        let mut core = self.shared.core();
        if core.outbox.len() - core.subscribing >= OUTBOX {
            return Err(Full);
        }
        core.outbox.push_back(frame);
        drop(core);
        self.shared.waker.wake();
        Ok(())
    }

    /// Ends the session: a close frame is written, frames that still come are dropped, and `Ended(Local)` follows when
    /// the server has answered or the close deadline has passed.
    pub fn close(&self) {
        self.shared.closing.store(true, Relaxed);
        self.shared.waker.wake();
    }
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").finish_non_exhaustive()
    }
}
