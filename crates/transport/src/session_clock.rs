//! The deadlines and the pacing of one WebSocket session, as plain data.
//!
//! It does no IO and reads no clock: `now` is the time since the session was opened, passed in. [`SessionClock`] is told
//! what happened and says what is due, what expired and when to look again.

use std::time::Duration;

use fathom_market::plan::{KeepAlive, SessionRules};

const SECOND: Duration = Duration::from_secs(1);

/// A deadline that passed and ends the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// These subscriptions were not acknowledged in time.
    Ack {
        /// Their ids, in the order sent.
        ids: Vec<u64>,
    },
    /// Everything is acknowledged and nothing came.
    FirstData,
    /// No frame at all for too long.
    Idle,
    /// Our ping was not answered, though data may still come.
    Pong,
    /// The venue is about to close the connection for its age.
    Life,
}

/// Deadlines and pacing of one session.
#[derive(Clone, Debug)]
pub struct SessionClock {
    ack_deadline: Duration,
    first_data_deadline: Duration,
    idle_timeout: Duration,
    life_limit: Duration,
    keep_alive: Option<Duration>,
    pings: bool,
    interval: Duration,

    /// Subscription frames not yet written.
    unsent: usize,
    pending: Vec<(u64, Duration)>,
    /// When the last subscription was settled; the first data is awaited from here.
    settled: Option<Duration>,
    data_seen: bool,
    last_frame: Duration,
    /// When the oldest ping without an answer was written.
    unanswered: Option<Duration>,
    last_keep_alive: Duration,
    next_slot: Duration,
    warn_at: Option<Duration>,
}

impl SessionClock {
    /// A session opened now, with `subscriptions` frames to write, that warns `life_margin` before its life limit.
    ///
    /// Client messages are spread evenly over a second at one less than the venue tolerates, so that a pong always has
    /// room and jitter on the way never makes two seconds' messages one.
    pub fn new(rules: &SessionRules, subscriptions: usize, life_margin: Duration) -> Self {
        let (keep_alive, pings) = match &rules.keep_alive {
            KeepAlive::ServerPings => (None, false),
            KeepAlive::PingFrame { every } => (Some(*every), true),
            KeepAlive::Text { every, .. } => (Some(*every), false),
        };
        Self {
            ack_deadline: rules.ack_deadline,
            first_data_deadline: rules.first_data_deadline,
            idle_timeout: rules.idle_timeout,
            life_limit: rules.life_limit,
            // An interval of zero would be due for ever.
            keep_alive: keep_alive.map(|every| every.max(Duration::from_millis(100))),
            pings,
            // Half of what is tolerated: what a slow network holds up arrives together.
            interval: 2 * SECOND / rules.messages_per_second.max(1),
            unsent: subscriptions,
            pending: Vec::new(),
            settled: (subscriptions == 0).then_some(Duration::ZERO),
            data_seen: false,
            last_frame: Duration::ZERO,
            unanswered: None,
            last_keep_alive: Duration::ZERO,
            next_slot: Duration::ZERO,
            warn_at: Some(rules.life_limit.saturating_sub(life_margin)),
        }
    }

    /// A frame of any kind came.
    pub fn received(&mut self, now: Duration) {
        self.last_frame = now;
    }

    /// A pong came.
    pub fn pong(&mut self) {
        self.unanswered = None;
    }

    /// A ping of the server was answered. Answers are never held back, so what follows them waits.
    pub fn answered_ping(&mut self, now: Duration) {
        self.take_slot(now);
    }

    /// Whether a message may be written now.
    pub fn may_send(&self, now: Duration) -> bool {
        now >= self.next_slot
    }

    /// A message was written; `subscription` says that it is one of those counted in [`SessionClock::new`].
    pub fn sent(&mut self, now: Duration, ack: Option<u64>, subscription: bool) {
        self.take_slot(now);
        if let Some(id) = ack {
            self.pending.push((id, now + self.ack_deadline));
        }
        if subscription {
            self.unsent = self.unsent.saturating_sub(1);
        }
        self.settle(now);
    }

    /// The keep-alive message was written.
    pub fn sent_keep_alive(&mut self, now: Duration) {
        self.take_slot(now);
        self.last_keep_alive = now;
        if self.pings && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
    }

    /// Whether the keep-alive message is due.
    pub fn keep_alive_due(&self, now: Duration) -> bool {
        self.keep_alive.is_some_and(|every| now >= self.last_keep_alive + every)
    }

    /// The venue acknowledged `id`, or refused it: either way it has been answered. Unknown ids are ignored.
    pub fn acked(&mut self, now: Duration, id: u64) {
        self.pending.retain(|(pending, _)| *pending != id);
        self.settle(now);
    }

    /// Market data came.
    pub fn data_seen(&mut self) {
        self.data_seen = true;
    }

    /// True once, when the life limit is near.
    pub fn take_life_warning(&mut self, now: Duration) -> bool {
        self.warn_at.take_if(|at| now >= *at).is_some()
    }

    /// The deadline that has passed, the gravest first.
    pub fn expired(&self, now: Duration) -> Option<Expiry> {
        if now >= self.last_frame + self.idle_timeout {
            return Some(Expiry::Idle);
        }
        if self.pong_deadline().is_some_and(|at| now >= at) {
            return Some(Expiry::Pong);
        }
        let ids: Vec<u64> = self.pending.iter().filter(|(_, at)| now >= *at).map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            return Some(Expiry::Ack { ids });
        }
        if self.first_data_at().is_some_and(|at| now >= at) {
            return Some(Expiry::FirstData);
        }
        (now >= self.life_limit).then_some(Expiry::Life)
    }

    /// When to look again. `waiting` says that a message waits for its slot; `writable` is false while the socket takes
    /// nothing more, when no message can be due.
    pub fn next_deadline(&self, waiting: bool, writable: bool) -> Duration {
        let idle = self.last_frame + self.idle_timeout;
        let keep_alive = self.keep_alive.filter(|_| writable).map(|every| self.last_keep_alive + every);
        let keep_alive = keep_alive.map(|at| at.max(self.next_slot));
        let acks = self.pending.iter().map(|(_, at)| *at).min();
        let slot = (waiting && writable).then_some(self.next_slot);
        [acks, self.first_data_at(), self.pong_deadline(), keep_alive, slot, self.warn_at]
            .into_iter()
            .flatten()
            .fold(idle.min(self.life_limit), Duration::min)
    }

    fn take_slot(&mut self, now: Duration) {
        self.next_slot = self.next_slot.max(now) + self.interval;
    }

    fn settle(&mut self, now: Duration) {
        if self.settled.is_none() && self.unsent == 0 && self.pending.is_empty() {
            self.settled = Some(now);
        }
    }

    fn first_data_at(&self) -> Option<Duration> {
        self.settled.filter(|_| !self.data_seen).map(|at| at + self.first_data_deadline)
    }

    fn pong_deadline(&self) -> Option<Duration> {
        self.unanswered.map(|at| at + self.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rules() -> SessionRules {
        SessionRules {
            connect_deadline: ms(5_000),
            ack_deadline: ms(10_000),
            first_data_deadline: ms(20_000),
            idle_timeout: ms(60_000),
            keep_alive: KeepAlive::ServerPings,
            life_limit: ms(86_400_000),
            messages_per_second: 5,
            max_frame_bytes: 1 << 20,
        }
    }

    fn clock(subscriptions: usize) -> SessionClock {
        SessionClock::new(&rules(), subscriptions, ms(600_000))
    }

    #[test]
    fn an_ack_has_its_deadline_from_when_it_was_written() {
        let mut clock = clock(2);
        clock.sent(ms(0), Some(1), true);
        clock.sent(ms(250), Some(2), true);
        assert_eq!(clock.next_deadline(false, true), ms(10_000));
        assert_eq!(clock.expired(ms(9_999)), None);
        assert_eq!(clock.expired(ms(10_000)), Some(Expiry::Ack { ids: vec![1] }));
        clock.acked(ms(9_000), 1);
        assert_eq!(clock.next_deadline(false, true), ms(10_250));
        assert_eq!(clock.expired(ms(10_250)), Some(Expiry::Ack { ids: vec![2] }));
    }

    #[test]
    fn first_data_is_awaited_from_the_last_ack() {
        let mut clock = clock(1);
        assert_eq!(clock.expired(ms(25_000)), None, "nothing was asked for yet");
        clock.sent(ms(1_000), Some(7), true);
        clock.acked(ms(3_000), 7);
        clock.received(ms(3_000));
        assert_eq!(clock.next_deadline(false, true), ms(23_000));
        assert_eq!(clock.expired(ms(22_999)), None);
        assert_eq!(clock.expired(ms(23_000)), Some(Expiry::FirstData));
        clock.data_seen();
        assert_eq!(clock.expired(ms(23_000)), None);
    }

    #[test]
    fn without_acks_first_data_is_awaited_from_the_last_frame_written() {
        assert_eq!(clock(0).expired(ms(20_000)), Some(Expiry::FirstData));
        let mut clock = clock(1);
        clock.sent(ms(500), None, true);
        assert_eq!(clock.expired(ms(20_499)), None);
        assert_eq!(clock.expired(ms(20_500)), Some(Expiry::FirstData));
    }

    #[test]
    fn a_later_subscription_does_not_await_first_data_again() {
        let mut clock = clock(0);
        clock.data_seen();
        clock.sent(ms(1_000), Some(9), false);
        clock.acked(ms(1_500), 9);
        assert_eq!(clock.expired(ms(59_999)), None);
        assert_eq!(clock.expired(ms(60_000)), Some(Expiry::Idle));
    }

    #[test]
    fn any_frame_holds_off_idle() {
        let mut clock = clock(0);
        clock.data_seen();
        clock.received(ms(59_999));
        assert_eq!(clock.expired(ms(119_998)), None);
        assert_eq!(clock.next_deadline(false, true), ms(119_999));
        assert_eq!(clock.expired(ms(119_999)), Some(Expiry::Idle));
    }

    #[test]
    fn client_pings_are_due_by_interval_and_must_be_answered() {
        let every = ms(15_000);
        let mut clock = SessionClock::new(
            &SessionRules { keep_alive: KeepAlive::PingFrame { every }, ..rules() },
            0,
            ms(0),
        );
        clock.data_seen();
        assert!(!clock.keep_alive_due(ms(14_999)));
        assert!(clock.keep_alive_due(ms(15_000)));
        clock.sent_keep_alive(ms(15_000));
        assert_eq!(clock.next_deadline(false, true), ms(30_000));
        clock.received(ms(74_000));
        clock.sent_keep_alive(ms(30_000));
        assert_eq!(clock.expired(ms(74_999)), None);
        assert_eq!(
            clock.expired(ms(75_000)),
            Some(Expiry::Pong),
            "counted from the oldest without an answer"
        );
        clock.pong();
        assert_eq!(clock.expired(ms(75_000)), None);
    }

    #[test]
    fn a_text_keep_alive_awaits_no_pong() {
        let keep_alive = KeepAlive::Text { every: ms(20_000), text: "ping".into() };
        let mut clock = SessionClock::new(&SessionRules { keep_alive, ..rules() }, 0, ms(0));
        clock.data_seen();
        clock.sent_keep_alive(ms(20_000));
        clock.received(ms(79_000));
        assert_eq!(clock.expired(ms(80_000)), None);
    }

    #[test]
    fn life_is_warned_of_once_and_then_ends() {
        let mut clock = clock(0);
        clock.data_seen();
        clock.received(ms(86_390_000));
        assert!(!clock.take_life_warning(ms(85_799_999)));
        assert!(clock.take_life_warning(ms(85_800_000)));
        assert!(!clock.take_life_warning(ms(85_900_000)));
        assert_eq!(clock.expired(ms(86_399_999)), None);
        assert_eq!(clock.expired(ms(86_400_000)), Some(Expiry::Life));
    }

    proptest! {
        /// However messages are offered and pings come, no second holds more messages than the venue tolerates, as long
        /// as pings come no faster than one a second.
        #[test]
        fn never_more_messages_a_second_than_tolerated(
            limit in 2u32..20,
            steps in prop::collection::vec((1u64..400, any::<bool>()), 1..300),
        ) {
            let mut clock =
                SessionClock::new(&SessionRules { messages_per_second: limit, ..rules() }, 0, ms(0));
            let (mut now, mut last_ping, mut sent) = (ms(0), None, Vec::new());
            for (step, ping) in steps {
                now += ms(step);
                if ping && last_ping.is_none_or(|at| now >= at + SECOND) {
                    clock.answered_ping(now);
                    last_ping = Some(now);
                    sent.push(now);
                } else if clock.may_send(now) {
                    clock.sent(now, None, false);
                    sent.push(now);
                }
            }
            for (i, from) in sent.iter().enumerate() {
                let within = sent[i..].iter().take_while(|at| **at < *from + SECOND).count();
                prop_assert!(within <= limit as usize, "{within} messages in the second from {from:?}");
            }
        }

        /// Nothing expires before the next deadline, and something is due or expired at it.
        #[test]
        fn the_next_deadline_is_tight(
            acks in prop::collection::vec(0u64..60_000, 0..5),
            frame in 0u64..60_000,
            seen in any::<bool>(),
        ) {
            let mut clock = clock(acks.len());
            for (id, at) in acks.iter().enumerate() {
                clock.sent(ms(*at), Some(id as u64), true);
            }
            clock.received(ms(frame));
            if seen {
                clock.data_seen();
            }
            let next = clock.next_deadline(false, true);
            prop_assert_eq!(clock.expired(next.saturating_sub(ms(1))), None);
            prop_assert!(clock.expired(next).is_some());
        }
    }
}
