//! When a line connects again. Pure: time and dice are arguments.
//!
//! Reconnecting is not restarting: a lost socket is the line's own business and the actor lives on. The machine
//! never gives up; `failed` is what is shown while the breaker is open.

use std::time::Duration;

use serde::Serialize;

use crate::kernel::{Backoff, Breaker, BreakerSpec, BreakerState, Micros, Threshold, clock::between};

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Not asked to connect: not yet started, or paused.
    Disconnected,
    /// The first connection is under way.
    Connecting,
    /// The socket is open and has delivered.
    Connected,
    /// The connection was lost, the next one is under way or waits for its time.
    Reconnecting,
    /// The breaker is open: the next attempt waits for its end.
    Failed,
}

impl ConnectionState {
    /// The state's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
        }
    }
}

/// The rules of reconnecting.
#[derive(Clone, Debug)]
pub struct ReconnectRules {
    /// Delay of the second and later attempts; its `reset_after` is how long a connection must hold to count as good.
    pub backoff: Backoff,
    /// Failures that open the breaker.
    pub threshold: Threshold,
    /// How long it stays open.
    pub breaker: BreakerSpec,
}

/// The reconnect machine of one line.
#[derive(Clone, Debug)]
pub struct Reconnect {
    rules: ReconnectRules,
    breaker: Breaker,
    state: ConnectionState,
    since_us: Micros,
    attempts: u32,
    opened_us: Option<Micros>,
    reconnects: u64,
}

impl Reconnect {
    /// A line that has not been asked to connect.
    pub fn new(rules: ReconnectRules, now: Micros) -> Self {
        let breaker = Breaker::new(rules.threshold, rules.breaker);
        let state = ConnectionState::Disconnected;
        Self { rules, breaker, state, since_us: now, attempts: 0, opened_us: None, reconnects: 0 }
    }

    /// An attempt begins.
    pub fn connecting(&mut self, now: Micros) {
        let state = match self.state {
            ConnectionState::Disconnected => ConnectionState::Connecting,
            ConnectionState::Connecting => ConnectionState::Connecting,
            _ => ConnectionState::Reconnecting,
        };
        self.enter(state, now);
    }

    /// The line delivered its first data.
    pub fn delivered(&mut self, now: Micros) {
        if self.state == ConnectionState::Connected {
            return;
        }
        self.breaker.on_success(now);
        self.opened_us = Some(now);
        self.enter(ConnectionState::Connected, now);
    }

    /// The attempt failed, or the connection was lost. Gives the time to wait before the next attempt: none after a
    /// connection that had held.
    pub fn ended(&mut self, now: Micros, dice: u64) -> Duration {
        let held =
            self.opened_us.take().is_some_and(|at| between(at, now) >= self.rules.backoff.reset_after());
        self.reconnects += 1;
        if held {
            self.attempts = 0;
        }
        self.breaker.on_failure(now);
        let delay = match self.attempts {
            0 => Duration::ZERO,
            attempt => self.rules.backoff.delay(attempt - 1, dice),
        };
        self.attempts = self.attempts.saturating_add(1);
        if let BreakerState::Open { until_us } = self.breaker.state(now) {
            self.enter(ConnectionState::Failed, now);
            return delay.max(between(now, until_us));
        }
        self.enter(ConnectionState::Reconnecting, now);
        delay
    }

    /// A planned end: no failure is counted and the next attempt begins at once.
    pub fn replaced(&mut self, now: Micros) {
        self.opened_us = None;
        self.attempts = 0;
        self.enter(ConnectionState::Reconnecting, now);
    }

    /// The line was told to stop.
    pub fn stopped(&mut self, now: Micros) {
        self.opened_us = None;
        self.enter(ConnectionState::Disconnected, now);
    }

    /// Where the line stands.
    pub const fn state(&self) -> ConnectionState {
        self.state
    }

    /// Since when.
    pub const fn since_us(&self) -> Micros {
        self.since_us
    }

    /// The breaker's state.
    pub fn breaker(&self, now: Micros) -> BreakerState {
        self.breaker.state(now)
    }

    /// Connections lost or failed since the start.
    pub const fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Adds what was lost before this machine took over.
    pub const fn count(&mut self, reconnects: u64) {
        self.reconnects += reconnects;
    }

    /// When the present connection delivered first.
    pub const fn opened_us(&self) -> Option<Micros> {
        self.opened_us
    }

    fn enter(&mut self, state: ConnectionState, now: Micros) {
        if self.state != state {
            self.state = state;
            self.since_us = now;
        }
    }
}

/// The default rules: 1 to 30 s, five failures in 60 s open the breaker for 60 s.
///
/// # Errors
/// Never with these figures; the checks are the constructors' own.
pub fn standard_rules() -> Result<ReconnectRules, crate::kernel::SpecError> {
    Ok(ReconnectRules {
        backoff: Backoff::try_new(
            Duration::from_secs(1),
            Duration::from_secs(30),
            2,
            Duration::from_secs(30),
        )?,
        threshold: Threshold { failures: 5, window: Duration::from_secs(60) },
        breaker: BreakerSpec::try_new(Duration::from_secs(60), Duration::from_secs(600))?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::clock::micros;

    const S: Micros = 1_000_000;

    fn machine() -> Reconnect {
        Reconnect::new(standard_rules().unwrap(), 0)
    }

    #[test]
    fn the_first_retry_is_immediate_and_later_ones_back_off() {
        let mut line = machine();
        line.connecting(0);
        assert_eq!(line.state(), ConnectionState::Connecting);
        line.delivered(S);
        assert_eq!(line.ended(100 * S, 0), Duration::ZERO);
        assert_eq!(line.state(), ConnectionState::Reconnecting);
        line.connecting(100 * S);
        let second = line.ended(101 * S, 0);
        assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&second), "{second:?}");
    }

    #[test]
    fn five_failures_open_the_breaker_and_a_delivery_closes_it() {
        let mut line = machine();
        for n in 0..4 {
            line.ended(n * S, 0);
            assert_eq!(line.state(), ConnectionState::Reconnecting);
        }
        let wait = line.ended(4 * S, 0);
        assert_eq!((line.state(), wait), (ConnectionState::Failed, Duration::from_secs(60)));
        line.connecting(64 * S);
        assert_eq!(line.breaker(64 * S), BreakerState::HalfOpen);
        line.delivered(65 * S);
        assert_eq!((line.state(), line.breaker(65 * S)), (ConnectionState::Connected, BreakerState::Closed));
    }

    #[test]
    fn a_connection_that_never_held_does_not_earn_an_immediate_retry() {
        let mut line = machine();
        line.delivered(0);
        line.ended(S, 0);
        line.delivered(2 * S);
        assert!(line.ended(3 * S, 0) > Duration::ZERO);
    }

    proptest! {
        #[test]
        fn it_always_tries_again_within_the_bounds(ends in proptest::collection::vec((1_i64..120, any::<bool>(), any::<u64>()), 1..60)) {
            let (mut line, mut now) = (machine(), 0);
            for (after, delivers, dice) in ends {
                line.connecting(now);
                if delivers {
                    line.delivered(now);
                }
                now += after * S;
                let wait = line.ended(now, dice);
                prop_assert!(wait <= Duration::from_secs(600));
                now += micros(wait);
            }
        }
    }
}
