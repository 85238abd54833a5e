//! Connections and topics: who gets which message, through bounded queues, with the faults of a stream applied. No sockets
//! here.

pub(crate) mod made;
pub(crate) mod rules;
pub(crate) mod topic;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fathom_market::ids::Market;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::faults::active::Active;
use crate::wire::streams::Route;

/// How a connection ends by the server's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The socket is cut.
    Cut(String),
    /// A close frame is sent.
    Close(u16, String),
}

/// How far a connection's queue was worked off, shared with the ledger.
#[derive(Debug, Default)]
pub(crate) struct Written {
    done: AtomicU64,
    /// Ranges of frame numbers that were thrown away.
    lost: Mutex<Vec<(u64, u64)>>,
}

impl Written {
    pub(crate) fn add(&self, frames: u64, lost: bool) {
        let mut ranges = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let to = self.done.fetch_add(frames, Ordering::AcqRel) + frames;
        let from = to + 1 - frames;
        match ranges.last_mut().filter(|last| last.1 + 1 == from) {
            _ if !lost || frames == 0 => {}
            Some(last) => last.1 = to,
            None => ranges.push((from, to)),
        }
    }

    /// Frames worked off, and the ranges of them that were thrown away.
    pub(crate) fn state(&self) -> (u64, Vec<(u64, u64)>) {
        let ranges = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        (self.done.load(Ordering::Acquire), ranges.clone())
    }

    /// Whether the frame of this number was written to the socket.
    pub(crate) fn holds(&self, number: u64) -> bool {
        if self.done.load(Ordering::Acquire) < number {
            return false;
        }
        let ranges = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        !ranges.iter().any(|(from, to)| (*from..=*to).contains(&number))
    }
}

/// The sending half of a connection, shared by the topics that it subscribed.
pub(crate) struct Conn {
    pub id: u64,
    pub market: Market,
    pub route: Route,
    pub peer: IpAddr,
    sender: mpsc::Sender<Utf8Bytes>,
    offered: AtomicU64,
    pub written: Arc<Written>,
    queued: AtomicUsize,
    queue_bytes: usize,
    end: Mutex<Option<End>>,
    pub ended: Notify,
    /// Told when a fault of the connection came in.
    pub afflicted: Notify,
    faults: Mutex<Vec<Arc<Active>>>,
    has_faults: AtomicBool,
}

/// A frame for a connection.
pub(crate) type Addressed = (Arc<Conn>, Utf8Bytes);

impl Conn {
    pub(crate) fn new(
        id: u64,
        market: Market,
        route: Route,
        peer: IpAddr,
        queue: (usize, usize),
    ) -> (Arc<Self>, mpsc::Receiver<Utf8Bytes>) {
        let (sender, receiver) = mpsc::channel(queue.0.max(1));
        let conn = Self {
            id,
            market,
            route,
            peer,
            sender,
            offered: AtomicU64::new(0),
            written: Arc::default(),
            queued: AtomicUsize::new(0),
            queue_bytes: queue.1,
            end: Mutex::new(None),
            ended: Notify::new(),
            afflicted: Notify::new(),
            faults: Mutex::default(),
            has_faults: AtomicBool::new(false),
        };
        (Arc::new(conn), receiver)
    }

    /// Queues a frame; a client too slow for its queue loses the connection.
    fn offer(&self, frame: Utf8Bytes) -> Option<u64> {
        let bytes = frame.len();
        if self.queued.fetch_add(bytes, Ordering::AcqRel) + bytes > self.queue_bytes
            || self.sender.try_send(frame).is_err()
        {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            if !self.sender.is_closed() {
                self.finish(End::Cut("slow client".to_owned()));
            }
            return None;
        }
        Some(self.offered.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Queues a frame, waiting for room.
    pub(crate) async fn push(&self, frame: Utf8Bytes) -> Option<u64> {
        self.queued.fetch_add(frame.len(), Ordering::AcqRel);
        self.sender.send(frame).await.ok()?;
        Some(self.offered.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Frames were written out.
    pub(crate) fn wrote(&self, frames: u64, bytes: usize) {
        self.written.add(frames, false);
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Frames were thrown away instead.
    pub(crate) fn lost(&self, frames: u64, bytes: usize) {
        self.written.add(frames, true);
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Asks the connection's task to end it; the first wish counts.
    pub(crate) fn finish(&self, end: End) {
        let mut wish = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if wish.is_none() {
            *wish = Some(end);
            self.ended.notify_one();
        }
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a fault of the connection in.
    pub(crate) fn afflict(&self, active: Arc<Active>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < 64 {
            active.wait();
            faults.push(active);
            self.has_faults.store(true, Ordering::Release);
            self.afflicted.notify_one();
        }
    }

    /// The faults in force on the connection; those whose time is over are done.
    pub(crate) fn faults(&self, now_ms: i64) -> Vec<Arc<Active>> {
        if !self.has_faults.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|active| {
            let goes_on = active.in_force(now_ms);
            if !goes_on {
                active.done(now_ms);
            }
            goes_on
        });
        self.has_faults.store(!faults.is_empty(), Ordering::Release);
        faults.clone()
    }

    /// The connection is gone, and its faults are done.
    pub(crate) fn gone(&self, now_ms: i64) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.drain(..).for_each(|active| active.done(now_ms));
    }
}
