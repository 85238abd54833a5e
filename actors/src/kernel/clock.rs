//! The one source of time of the kernel: UTC microseconds that never run backwards.
//!
//! Reads nothing but the operating system's clocks. Tests use [`ManualClock`], so that no rule depends on real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// Past this the wall clock was set or the machine slept: catching up slowly would give wrong times for days.
const JUMP_US: i64 = 60_000_000;

/// A cheap, cloneable handle on the time source.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System { anchor: Instant, offset: AtomicI64, aligned: AtomicI64, last: AtomicI64 },
    Manual(AtomicI64),
}

impl Clock {
    /// The machine's clock: wall time at the start, carried on by the monotonic clock.
    #[must_use]
    pub fn system() -> Self {
        let wall = wall_us();
        Self(Arc::new(Source::System {
            anchor: monotonic(),
            offset: AtomicI64::new(wall),
            aligned: AtomicI64::new(0),
            last: AtomicI64::new(wall),
        }))
    }

    /// The time now, in microseconds UTC; never less than an earlier answer.
    #[must_use]
    pub fn now_us(&self) -> Micros {
        match &*self.0 {
            Source::Manual(now) => now.load(Relaxed),
            Source::System { anchor, offset, last, .. } => {
                let now = offset.load(Relaxed).saturating_add(elapsed_us(*anchor));
                last.fetch_max(now, Relaxed).max(now)
            }
        }
    }

    /// Follows the wall clock: by at most a twentieth of the time since the last call, or at once when it is more
    /// than a minute ahead. The kernel calls this on each sweep.
    pub fn realign(&self) {
        let Source::System { anchor, offset, aligned, .. } = &*self.0 else { return };
        let passed = elapsed_us(*anchor);
        let since = passed.saturating_sub(aligned.swap(passed, Relaxed)).max(0);
        let behind = wall_us().saturating_sub(offset.load(Relaxed).saturating_add(passed));
        offset.fetch_add(correction(behind, since), Relaxed);
    }
}

fn correction(behind: i64, since: i64) -> i64 {
    if behind > JUMP_US { behind } else { behind.clamp(-since / 20, since / 20) }
}

/// A clock that a test moves by hand.
#[derive(Clone, Debug)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// A clock that stands at `start_us`.
    #[must_use]
    pub fn new(start_us: Micros) -> Self {
        Self(Clock(Arc::new(Source::Manual(AtomicI64::new(start_us)))))
    }

    /// The handle to hand out.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.0.clone()
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &*self.0.0 {
            now.fetch_add(micros(by), Relaxed);
        }
    }
}

/// A duration in microseconds, saturating.
#[must_use]
pub fn micros(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The duration between two instants, zero when `later` is not later.
#[must_use]
pub fn between(earlier: Micros, later: Micros) -> Duration {
    Duration::from_micros(u64::try_from(later.saturating_sub(earlier)).unwrap_or(0))
}

fn elapsed_us(anchor: Instant) -> Micros {
    micros(anchor.elapsed())
}

#[allow(clippy::disallowed_methods, reason = "the clock is the one place that reads the machine's time")]
fn monotonic() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the clock is the one place that reads the machine's time")]
fn wall_us() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_never_goes_back() {
        let clock = Clock::system();
        let mut last = clock.now_us();
        for _ in 0..10_000 {
            clock.realign();
            let now = clock.now_us();
            assert!(now >= last);
            last = now;
        }
        assert!((wall_us() - last).abs() < 5_000_000);
    }

    #[test]
    fn small_differences_are_followed_slowly_and_a_sleep_at_once() {
        assert_eq!(correction(1_000_000, 100_000), 5_000);
        assert_eq!(correction(-1_000_000, 100_000), -5_000);
        assert_eq!(correction(1_000, 100_000), 1_000);
        assert_eq!(correction(3_600_000_000, 100_000), 3_600_000_000);
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let manual = ManualClock::new(5);
        let clock = manual.clock();
        manual.advance(Duration::from_millis(1));
        assert_eq!(clock.now_us(), 1_005);
        assert_eq!(between(10, 5), Duration::ZERO);
    }
}
