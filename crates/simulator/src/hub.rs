//! Connections and topics: who gets which message, through bounded queues, with the faults of a stream applied. A
//! message is spelled once and shared by all its receivers. No sockets here.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fathom_market::ids::Market;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::ledger::entries::Delivery;
use crate::wire::streams::Route;

/// How a connection ends by the server's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The socket is cut.
    Cut(String),
    /// A close frame is sent.
    Close(u16, String),
}

/// The sending half of a connection, shared by the topics that it subscribed.
pub(crate) struct Conn {
    pub id: u64,
    pub market: Market,
    pub route: Route,
    pub peer: IpAddr,
    sender: mpsc::Sender<Utf8Bytes>,
    offered: AtomicU64,
    pub flushed: Arc<AtomicU64>,
    queued: AtomicUsize,
    queue_bytes: usize,
    end: Mutex<Option<End>>,
    pub ended: Notify,
    pub half_open: AtomicBool,
}

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
            flushed: Arc::default(),
            queued: AtomicUsize::new(0),
            queue_bytes: queue.1,
            end: Mutex::new(None),
            ended: Notify::new(),
            half_open: AtomicBool::new(false),
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
        self.flushed.fetch_add(frames, Ordering::AcqRel);
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
}

struct Subscriber {
    conn: Arc<Conn>,
    raw: bool,
    /// Hears nothing until it subscribes anew.
    muted: bool,
}

/// What waits to happen to a stream's next messages.
#[derive(Debug, Default)]
struct Pending {
    skip: u32,
    duplicate: u32,
    garbage: u32,
    reorder: bool,
    held: Option<String>,
    silent_until_ms: i64,
}

/// One stream and its subscribers.
pub(crate) struct Topic<K> {
    pub kind: K,
    pub name: String,
    subscribers: Vec<Subscriber>,
    pending: Pending,
}

/// A frame for a connection.
pub(crate) type Addressed = (Arc<Conn>, Utf8Bytes);

impl<K> Topic<K> {
    pub(crate) fn new(kind: K, name: &str) -> Self {
        Self { kind, name: name.to_owned(), subscribers: Vec::new(), pending: Pending::default() }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(crate) fn join(&mut self, conn: &Arc<Conn>, raw: bool) {
        self.leave(conn.id);
        self.subscribers.push(Subscriber { conn: Arc::clone(conn), raw, muted: false });
    }

    pub(crate) fn leave(&mut self, conn: u64) {
        self.subscribers.retain(|subscriber| subscriber.conn.id != conn);
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.subscribers.iter().map(|subscriber| &subscriber.conn)
    }

    pub(crate) const fn skip(&mut self, count: u32) {
        self.pending.skip += count;
    }

    pub(crate) const fn duplicate(&mut self, count: u32) {
        self.pending.duplicate += count;
    }

    pub(crate) const fn garbage(&mut self, count: u32) {
        self.pending.garbage += count;
    }

    pub(crate) const fn reorder(&mut self) {
        self.pending.reorder = true;
    }

    /// Silence until a time, or for those who listen now until they subscribe anew.
    pub(crate) fn silence(&mut self, until_ms: Option<i64>) {
        match until_ms {
            Some(until_ms) => self.pending.silent_until_ms = until_ms,
            None => self.subscribers.iter_mut().for_each(|subscriber| subscriber.muted = true),
        }
    }

    /// The frames that a message becomes, faults applied.
    pub(crate) fn frames(&mut self, data: &str, now_ms: i64) -> Vec<Addressed> {
        if self.subscribers.is_empty() || now_ms < self.pending.silent_until_ms {
            return Vec::new();
        }
        let pending = &mut self.pending;
        if pending.skip > 0 {
            pending.skip -= 1;
            return Vec::new();
        }
        if pending.reorder && pending.held.is_none() {
            pending.held = Some(data.to_owned());
            return Vec::new();
        }
        if pending.garbage > 0 {
            pending.garbage -= 1;
            let middle =
                (data.len() / 2..data.len()).find(|at| data.is_char_boundary(*at)).unwrap_or(data.len());
            return self.spell(&data[..middle]);
        }
        let mut frames = self.spell(data);
        if self.pending.duplicate > 0 {
            self.pending.duplicate -= 1;
            frames.extend(frames.clone());
        }
        if let Some(held) = self.pending.held.take() {
            self.pending.reorder = false;
            frames.extend(self.spell(&held));
        }
        frames
    }

    fn spell(&self, data: &str) -> Vec<Addressed> {
        let (mut combined, mut bare): (Option<Utf8Bytes>, Option<Utf8Bytes>) = (None, None);
        let mut frames = Vec::with_capacity(self.subscribers.len());
        for subscriber in self.subscribers.iter().filter(|subscriber| !subscriber.muted) {
            let frame = if subscriber.raw {
                bare.get_or_insert_with(|| Utf8Bytes::from(data))
            } else {
                combined.get_or_insert_with(|| wrap(&self.name, data))
            };
            frames.push((Arc::clone(&subscriber.conn), frame.clone()));
        }
        frames
    }

    /// Queues a message for all subscribers at once.
    pub(crate) fn publish(&mut self, data: &str, now_ms: i64) -> Vec<Delivery> {
        let offer = |(conn, frame): Addressed| {
            conn.offer(frame).map(|number| Delivery { connection: conn.id, number })
        };
        self.frames(data, now_ms).into_iter().filter_map(offer).collect()
    }
}

fn wrap(name: &str, data: &str) -> Utf8Bytes {
    let mut text = String::with_capacity(name.len() + data.len() + 22);
    text.push_str(r#"{"stream":""#);
    text.push_str(name);
    text.push_str(r#"","data":"#);
    text.push_str(data);
    text.push('}');
    Utf8Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn conn(id: u64, frames: usize) -> (Arc<Conn>, mpsc::Receiver<Utf8Bytes>) {
        Conn::new(id, Market::Spot, Route::Spot, IpAddr::V4(Ipv4Addr::LOCALHOST), (frames, 1000))
    }

    fn drain(receiver: &mut mpsc::Receiver<Utf8Bytes>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|frame| frame.to_string()).collect()
    }

    #[test]
    fn a_message_reaches_raw_and_combined_subscribers() {
        let mut topic = Topic::new((), "x@trade");
        let ((a, mut from_a), (b, mut from_b)) = (conn(1, 9), conn(2, 9));
        topic.join(&a, false);
        topic.join(&b, true);
        let sent = topic.publish("{}", 0);
        assert_eq!(sent, vec![Delivery { connection: 1, number: 1 }, Delivery { connection: 2, number: 1 }]);
        assert_eq!(drain(&mut from_a), vec![r#"{"stream":"x@trade","data":{}}"#]);
        assert_eq!(drain(&mut from_b), vec!["{}"]);
    }

    #[test]
    fn stream_faults_do_what_they_say() {
        let mut topic = Topic::new((), "x");
        let (a, mut from_a) = conn(1, 99);
        topic.join(&a, true);
        topic.skip(1);
        topic.publish("1", 0);
        topic.reorder();
        topic.publish("2", 0);
        topic.publish("3", 0);
        topic.duplicate(1);
        topic.publish("4", 0);
        topic.garbage(1);
        topic.publish("{55}", 0);
        topic.silence(Some(10));
        topic.publish("6", 9);
        topic.publish("7", 10);
        topic.silence(None);
        topic.publish("8", 11);
        topic.join(&a, true);
        topic.publish("9", 12);
        assert_eq!(drain(&mut from_a), vec!["3", "2", "4", "4", "{5", "7", "9"]);
    }

    #[test]
    fn a_slow_client_is_cut_and_nothing_grows() {
        let mut topic = Topic::new((), "x");
        let (a, _receiver) = conn(1, 2);
        topic.join(&a, true);
        assert_eq!((0..5).map(|_| topic.publish("1", 0).len()).sum::<usize>(), 2);
        assert_eq!(a.end(), Some(End::Cut("slow client".to_owned())));
    }
}
