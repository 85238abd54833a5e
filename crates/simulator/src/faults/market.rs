//! The faults in force on a market that are bound neither to a stream nor to a connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::active::Active;
use super::{BookPart, CertificateProblem, Effect, Servers};

/// How many may be in force at once; the oldest makes room.
const MOST: usize = 256;

/// What becomes of a REST request.
#[derive(Default)]
pub(crate) struct RestFate {
    /// Answer so much later.
    pub delay_ms: u64,
    /// Answer when this fault is over.
    pub hang: Option<Arc<Active>>,
    /// Answer with this status and `Retry-After`.
    pub error: Option<(u16, Option<u64>)>,
}

/// The life of connections under a fault.
#[derive(Clone)]
pub(crate) struct LifeLimit {
    pub active: Arc<Active>,
    pub life_ms: i64,
    pub notice_ms: Option<i64>,
}

/// The faults in force on a market.
#[derive(Default)]
pub(crate) struct MarketFaults {
    inner: Mutex<Vec<Arc<Active>>>,
    /// Whether event times may be shifted: asked for every message.
    shifted: AtomicBool,
}

impl fmt::Debug for MarketFaults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MarketFaults").finish_non_exhaustive()
    }
}

impl MarketFaults {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Active>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, active: Arc<Active>) {
        if matches!(active.fault.effect, Effect::TimeJump { .. }) {
            self.shifted.store(true, Ordering::Release);
        }
        let mut inner = self.lock();
        if inner.len() >= MOST {
            inner.remove(0);
        }
        inner.push(active);
    }

    /// The newest in force that fits.
    fn find<T>(&self, now_ms: i64, fits: impl Fn(&Active) -> Option<T>) -> Option<(Arc<Active>, T)> {
        let mut inner = self.lock();
        inner.retain(|active| active.in_force(now_ms));
        inner.iter().rev().find_map(|active| Some((Arc::clone(active), fits(active)?)))
    }

    /// What becomes of a request; `path` with its query.
    pub(crate) fn rest(&self, path: &str, now_ms: i64) -> RestFate {
        let wanted = |active: &Active, part: &Option<String>| {
            let symbol = active.fault.target.symbol.as_ref();
            part.as_ref().is_none_or(|part| path.contains(part.as_str()))
                && symbol.is_none_or(|symbol| asks_for(path, symbol))
        };
        let mut fate = RestFate::default();
        let slow = self.find(now_ms, |active| match &active.fault.effect {
            Effect::SlowRest { ms, path } if wanted(active, path) => Some(*ms),
            _ => None,
        });
        fate.delay_ms = slow.filter(|(active, _)| active.take(now_ms, None)).map_or(0, |(_, ms)| ms);
        let hang = self.find(now_ms, |active| match &active.fault.effect {
            Effect::RestHang { path } if wanted(active, path) => Some(()),
            _ => None,
        });
        fate.hang = hang.map(|(active, ())| active);
        if let Some(active) = &fate.hang {
            active.acted(now_ms, None);
        }
        let error = self.find(now_ms, |active| match &active.fault.effect {
            Effect::RestError { status, retry_after_s, path } if wanted(active, path) => {
                Some((*status, *retry_after_s))
            }
            _ => None,
        });
        fate.error = error.filter(|(active, _)| active.take(now_ms, None)).map(|(_, error)| error);
        fate
    }

    /// Whether a new connection is refused.
    pub(crate) fn refuses(&self, now_ms: i64) -> bool {
        let found = self
            .find(now_ms, |active| matches!(active.fault.effect, Effect::RefuseConnections).then_some(()));
        found.is_some_and(|(active, ())| active.take(now_ms, None))
    }

    /// How old a symbol's snapshots are.
    pub(crate) fn snapshot_age(&self, symbol: &str, now_ms: i64) -> Option<i64> {
        let (active, age_ms) = self.find(now_ms, |active| match active.fault.effect {
            Effect::StaleSnapshot { age_ms } if of_symbol(active, symbol) => Some(age_ms),
            _ => None,
        })?;
        active.take(now_ms, None).then(|| i64::try_from(age_ms.min(60_000)).unwrap_or(60_000))
    }

    /// Whether a symbol's next snapshot is crossed.
    pub(crate) fn crosses_snapshot(&self, symbol: &str, now_ms: i64) -> bool {
        let found = self.find(now_ms, |active| match active.fault.effect {
            Effect::CrossedBook { on: BookPart::Snapshot } if of_symbol(active, symbol) => Some(()),
            _ => None,
        });
        found.is_some_and(|(active, ())| active.take(now_ms, None))
    }

    /// By how much event times are off.
    pub(crate) fn shift_ms(&self, now_ms: i64) -> i64 {
        if !self.shifted.load(Ordering::Acquire) {
            return 0;
        }
        let found = self.find(now_ms, |active| match active.fault.effect {
            Effect::TimeJump { offset_ms } => Some(offset_ms),
            _ => None,
        });
        let Some((active, offset_ms)) = found else {
            self.shifted.store(false, Ordering::Release);
            return 0;
        };
        active.acted(now_ms, None);
        offset_ms
    }

    /// What limits the life of connections.
    pub(crate) fn life(&self, now_ms: i64) -> Option<LifeLimit> {
        let (active, (life_ms, notice_ms)) = self.find(now_ms, |active| match active.fault.effect {
            Effect::LifeLimit { life_ms, notice_ms } => Some((life_ms, notice_ms)),
            _ => None,
        })?;
        let ms = |value: u64| i64::try_from(value).unwrap_or(i64::MAX / 4);
        Some(LifeLimit { active, life_ms: ms(life_ms), notice_ms: notice_ms.map(ms) })
    }

    /// What is wrong with the certificate that a new connection is shown.
    pub(crate) fn certificate(&self, server: Servers, now_ms: i64) -> Option<CertificateProblem> {
        let (active, problem) = self.find(now_ms, |active| match active.fault.effect {
            Effect::WrongCertificate { problem, on } if on == Servers::Both || on == server => Some(problem),
            _ => None,
        })?;
        active.take(now_ms, None).then_some(problem)
    }
}

fn of_symbol(active: &Active, symbol: &str) -> bool {
    active.fault.target.symbol.as_ref().is_none_or(|wanted| wanted == symbol)
}

fn asks_for(path: &str, symbol: &str) -> bool {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.strip_prefix("symbol=") == Some(symbol))
}

#[cfg(test)]
mod tests {
    use fathom_market::ids::Market;

    use super::*;
    use crate::faults::Fault;

    fn put(faults: &MarketFaults, effect: Effect, change: impl FnOnce(Fault) -> Fault) {
        faults.add(Arc::new(Active::new(1, change(Fault::new(Market::Spot, effect)), 0)));
    }

    #[test]
    fn rest_faults_are_aimed_counted_and_end() {
        let faults = MarketFaults::default();
        let path = Some("depth".to_owned());
        put(&faults, Effect::RestError { status: 503, retry_after_s: None, path }, |fault| {
            fault.lasting(100)
        });
        put(&faults, Effect::SlowRest { ms: 40, path: None }, |fault| fault.symbol("BTCUSDT").times(1));
        let depth = faults.rest("/api/v3/depth?symbol=BTCUSDT&limit=5", 50);
        assert_eq!((depth.error.map(|error| error.0), depth.delay_ms), (Some(503), 40));
        assert_eq!(faults.rest("/api/v3/depth?symbol=BTCUSDT", 60).delay_ms, 0, "it was for one request");
        assert!(faults.rest("/api/v3/klines?symbol=BTCUSDT", 60).error.is_none());
        assert!(faults.rest("/api/v3/depth", 100).error.is_none(), "it is over");
    }

    #[test]
    fn clocks_jump_and_come_back() {
        let faults = MarketFaults::default();
        assert_eq!(faults.shift_ms(0), 0);
        put(&faults, Effect::TimeJump { offset_ms: -5000 }, |fault| fault.lasting(10));
        assert_eq!((faults.shift_ms(9), faults.shift_ms(10)), (-5000, 0));
    }

    #[test]
    fn certificates_are_wrong_where_it_was_said() {
        let faults = MarketFaults::default();
        let effect = Effect::WrongCertificate { problem: CertificateProblem::Expired, on: Servers::Rest };
        put(&faults, effect, |fault| fault.times(1));
        assert_eq!(faults.certificate(Servers::Ws, 1), None);
        assert_eq!(faults.certificate(Servers::Rest, 1), Some(CertificateProblem::Expired));
        assert_eq!(faults.certificate(Servers::Rest, 2), None);
    }
}
