//! One stream and its subscribers: each message is spelled once and shared by all its receivers, the faults of the stream
//! are applied, and its ids are remembered.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::made::{MadeRing, Memory};
use super::rules::{Alter, Leaving, Rule};
use super::{Addressed, Conn};
use crate::faults::active::Active;
use crate::ledger::entries::Delivery;

struct Subscriber {
    conn: Arc<Conn>,
    raw: bool,
}

/// A message with the range of ids that it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub data: &'a str,
    pub first: u64,
    pub id: u64,
}

/// One stream and its subscribers.
pub(crate) struct Topic<K> {
    pub kind: K,
    pub name: String,
    pub made: MadeRing,
    subscribers: Vec<Subscriber>,
    rules: Vec<Rule>,
}

impl<K> Topic<K> {
    pub(crate) fn new(kind: K, name: &str, memory: &Arc<Memory>) -> Self {
        let made = MadeRing::new(Arc::clone(memory));
        Self { kind, name: name.to_owned(), made, subscribers: Vec::new(), rules: Vec::new() }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(crate) fn join(&mut self, conn: &Arc<Conn>, raw: bool, now_ms: i64) {
        self.leave(conn.id, Leaving::Unsubscribed, now_ms);
        self.subscribers.push(Subscriber { conn: Arc::clone(conn), raw });
    }

    pub(crate) fn leave(&mut self, conn: u64, how: Leaving, now_ms: i64) {
        self.subscribers.retain(|subscriber| subscriber.conn.id != conn);
        self.rules.retain_mut(|rule| {
            let over = rule.left(conn, how);
            if over {
                rule.active.done(now_ms);
            }
            !over
        });
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.subscribers.iter().map(|subscriber| &subscriber.conn)
    }

    /// Puts a fault on the stream.
    pub(crate) fn afflict(&mut self, active: &Arc<Active>) {
        let listeners = self.subscribers.iter().map(|subscriber| subscriber.conn.id);
        if let Some(rule) = Rule::new(Arc::clone(active), listeners) {
            active.wait();
            self.rules.push(rule);
        }
    }

    /// The frames that a message becomes, faults applied.
    pub(crate) fn frames(&mut self, message: &Message<'_>, now_ms: i64, alter: Alter<'_>) -> Vec<Addressed> {
        if self.subscribers.is_empty() {
            return Vec::new();
        }
        self.rules.retain_mut(|rule| {
            let goes_on = rule.goes_on(now_ms);
            if !goes_on {
                rule.active.done(now_ms);
            }
            goes_on
        });
        if self.rules.is_empty() {
            return self.spell(message.data, |_| true);
        }
        self.under_rules(message, now_ms, alter)
    }

    /// The oldest rule that hits a subscriber decides what it gets; each rule counts a message once.
    fn under_rules(&mut self, message: &Message<'_>, now_ms: i64, alter: Alter<'_>) -> Vec<Addressed> {
        let mut rules = std::mem::take(&mut self.rules);
        let rule_of = |id: u64| rules.iter().position(|rule| rule.hits(id));
        let hit: Vec<(u64, Option<usize>)> =
            self.connections().map(|conn| (conn.id, rule_of(conn.id))).collect();
        let on_path = |id: u64, rule: Option<usize>| hit.contains(&(id, rule));
        let mut frames = self.spell(message.data, |id| on_path(id, None));
        let mut over = Vec::new();
        for (at, rule) in rules.iter_mut().enumerate() {
            let whom: Vec<u64> = hit.iter().filter(|of| of.1 == Some(at)).map(|of| of.0).collect();
            if whom.is_empty() {
                continue;
            }
            let (becomes, done) = rule.fire(message.data, alter);
            for data in becomes {
                frames.extend(self.spell(&data, |id| on_path(id, Some(at))));
            }
            rule.active.hit(now_ms, &self.name, (message.first, message.id), whom);
            if done {
                rule.active.done(now_ms);
                over.push(at);
            }
        }
        let mut at = 0;
        rules.retain(|_| {
            at += 1;
            !over.contains(&(at - 1))
        });
        self.rules = rules;
        frames
    }

    fn spell(&self, data: &str, wanted: impl Fn(u64) -> bool) -> Vec<Addressed> {
        let (mut combined, mut bare): (Option<Utf8Bytes>, Option<Utf8Bytes>) = (None, None);
        let mut frames = Vec::with_capacity(self.subscribers.len());
        for subscriber in self.subscribers.iter().filter(|subscriber| wanted(subscriber.conn.id)) {
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
    pub(crate) fn publish(&mut self, message: &Message<'_>, now_ms: i64, alter: Alter<'_>) -> Vec<Delivery> {
        let offer = |(conn, frame): Addressed| {
            conn.offer(frame).map(|number| Delivery { connection: conn.id, number })
        };
        let to: Vec<Delivery> = self.frames(message, now_ms, alter).into_iter().filter_map(offer).collect();
        self.made.push(message.first, message.id, now_ms, &to);
        to
    }

    /// A message that nobody listens to: only its ids are kept.
    pub(crate) fn unheard(&mut self, first: u64, id: u64, now_ms: i64) {
        self.made.push(first, id, now_ms, &[]);
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
    use std::net::{IpAddr, Ipv4Addr};

    use fathom_market::ids::Market;
    use tokio::sync::mpsc;

    use super::super::End;
    use super::*;
    use crate::faults::{Effect, Fault};
    use crate::wire::streams::Route;

    type Receiver = mpsc::Receiver<Utf8Bytes>;

    fn conn(id: u64, frames: usize) -> (Arc<Conn>, Receiver) {
        Conn::new(id, Market::Spot, Route::Spot, IpAddr::V4(Ipv4Addr::LOCALHOST), (frames, 1000))
    }

    fn topic() -> Topic<()> {
        Topic::new((), "x@trade", &Memory::new(100))
    }

    fn drain(receiver: &mut Receiver) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|frame| frame.to_string()).collect()
    }

    fn say(topic: &mut Topic<()>, data: &str, now_ms: i64) -> Vec<Delivery> {
        topic.publish(&Message { data, first: 1, id: 1 }, now_ms, &mut |_| None)
    }

    fn put(
        topic: &mut Topic<()>,
        effect: Effect,
        now_ms: i64,
        change: impl FnOnce(Fault) -> Fault,
    ) -> Arc<Active> {
        let active = Arc::new(Active::new(1, change(Fault::new(Market::Spot, effect)), now_ms));
        topic.afflict(&active);
        active
    }

    #[test]
    fn a_message_reaches_raw_and_combined_subscribers() {
        let mut topic = topic();
        let ((a, mut from_a), (b, mut from_b)) = (conn(1, 9), conn(2, 9));
        topic.join(&a, false, 0);
        topic.join(&b, true, 0);
        let sent = say(&mut topic, "{}", 0);
        assert_eq!(sent, vec![Delivery { connection: 1, number: 1 }, Delivery { connection: 2, number: 1 }]);
        assert_eq!(drain(&mut from_a), vec![r#"{"stream":"x@trade","data":{}}"#]);
        assert_eq!(drain(&mut from_b), vec!["{}"]);
    }

    #[test]
    fn stream_faults_do_what_they_say() {
        let mut topic = topic();
        let (a, mut from_a) = conn(1, 99);
        topic.join(&a, true, 0);
        let skip = put(&mut topic, Effect::Skip, 0, |fault| fault);
        say(&mut topic, "1", 5);
        assert_eq!((skip.entry(9).first_effect_ms, skip.entry(9).ended_ms), (Some(5), Some(5)));
        put(&mut topic, Effect::Reorder, 0, |fault| fault);
        say(&mut topic, "2", 0);
        say(&mut topic, "3", 0);
        put(&mut topic, Effect::Duplicate, 0, |fault| fault);
        say(&mut topic, "4", 0);
        put(&mut topic, Effect::Garbage, 0, |fault| fault);
        say(&mut topic, "{55}", 0);
        let silence = put(&mut topic, Effect::Silence { stubborn: None }, 0, |fault| fault.lasting(10));
        say(&mut topic, "6", 9);
        say(&mut topic, "7", 10);
        assert_eq!((silence.entry(10).effects, silence.entry(10).ended_ms), (1, Some(10)));
        assert_eq!(drain(&mut from_a), vec!["3", "2", "4", "4", "{5", "7"]);
    }

    #[test]
    fn silence_is_healed_by_subscribing_anew_unless_it_is_stubborn() {
        let mut topic = topic();
        let ((a, mut from_a), (b, mut from_b)) = (conn(1, 99), conn(2, 99));
        topic.join(&a, true, 0);
        let meek = put(&mut topic, Effect::Silence { stubborn: None }, 0, |fault| fault);
        topic.join(&b, true, 0);
        say(&mut topic, "1", 1);
        topic.join(&a, true, 2);
        say(&mut topic, "2", 2);
        assert_eq!(
            (drain(&mut from_a), drain(&mut from_b)),
            (vec!["2".into()], vec!["1".into(), "2".into()])
        );
        assert_eq!(meek.entry(9).ended_ms, Some(2));

        let stubborn =
            put(&mut topic, Effect::Silence { stubborn: Some(true) }, 3, |fault| fault.connection(1));
        topic.leave(1, Leaving::Unsubscribed, 3);
        topic.join(&a, true, 3);
        say(&mut topic, "3", 4);
        assert_eq!((drain(&mut from_a).len(), drain(&mut from_b).len()), (0, 1));
        assert!(stubborn.in_force(4));
        topic.leave(1, Leaving::Gone, 5);
        let (anew, mut from_anew) = conn(3, 99);
        topic.join(&anew, true, 5);
        say(&mut topic, "4", 6);
        assert_eq!((drain(&mut from_anew), stubborn.entry(6).ended_ms), (vec!["4".to_owned()], Some(5)));
    }

    #[test]
    fn one_connection_is_hit_and_the_other_is_not() {
        let mut topic = topic();
        let ((a, mut from_a), (b, mut from_b)) = (conn(1, 9), conn(2, 9));
        topic.join(&a, true, 0);
        topic.join(&b, true, 0);
        put(&mut topic, Effect::Skip, 0, |fault| fault.connection(2).times(2));
        put(&mut topic, Effect::Duplicate, 0, |fault| fault.connection(1));
        ["1", "2", "3"].into_iter().for_each(|data| drop(say(&mut topic, data, 0)));
        assert_eq!(drain(&mut from_a), ["1", "1", "2", "3"]);
        assert_eq!(drain(&mut from_b), ["3"]);
    }

    #[test]
    fn a_slow_client_is_cut_and_nothing_grows() {
        let mut topic = topic();
        let (a, _receiver) = conn(1, 2);
        topic.join(&a, true, 0);
        assert_eq!((0..5).map(|_| say(&mut topic, "1", 0).len()).sum::<usize>(), 2);
        assert_eq!(a.end(), Some(End::Cut("slow client".to_owned())));
    }
}
