//! Restart limits, backoff and liveness of each kind of actor. Start values from the design; load tests tune them.
//!
//! Only a shard's actor may work twice at a time: of all others a handover is a graceful restart.

use std::time::Duration;

use fathom_market::plan::DepthSpeed;

use crate::kernel::{Backoff, BreakerSpec, ChildBuilder, LivenessSpec, RestartLimits, Service};

/// Instruments that one market may collect while the process lives; removed ones keep their place.
pub const MAX_INSTRUMENTS: usize = 8192;

struct Rules {
    restarts: u32,
    window_s: u64,
    backoff_ms: (u64, u64),
    breaker_s: (u64, u64),
    stall_s: u64,
}

const STREAM: Rules =
    Rules { restarts: 10, window_s: 60, backoff_ms: (100, 30_000), breaker_s: (60, 600), stall_s: 10 };
const BOOK: Rules =
    Rules { restarts: 5, window_s: 10, backoff_ms: (50, 5000), breaker_s: (10, 120), stall_s: 5 };
const AGGREGATOR: Rules =
    Rules { restarts: 5, window_s: 10, backoff_ms: (50, 5000), breaker_s: (10, 120), stall_s: 5 };
const WRITER: Rules =
    Rules { restarts: 5, window_s: 60, backoff_ms: (100, 30_000), breaker_s: (30, 300), stall_s: 30 };
const SERVICE: Rules =
    Rules { restarts: 5, window_s: 60, backoff_ms: (250, 30_000), breaker_s: (30, 300), stall_s: 10 };

/// How long a healthy instance lives before its failures are forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The rules of a shard's actor.
pub fn stream<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    apply(child, &STREAM)
}

/// The rules of a book.
pub fn book<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    apply(child, &BOOK).solitary()
}

/// The rules of an aggregator.
pub fn aggregator<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    apply(child, &AGGREGATOR).solitary()
}

/// The rules of the writer.
pub fn writer<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    apply(child, &WRITER).solitary()
}

/// The rules of history, market supervisors and upkeep.
pub fn service<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    apply(child, &SERVICE).solitary()
}

fn apply<A: Service>(child: ChildBuilder<A>, rules: &Rules) -> ChildBuilder<A> {
    let (min, max) = (Duration::from_millis(rules.backoff_ms.0), Duration::from_millis(rules.backoff_ms.1));
    let (open, open_max) = (Duration::from_secs(rules.breaker_s.0), Duration::from_secs(rules.breaker_s.1));
    // The figures above are within the constructors' bounds, as a test shows; the defaults are never taken.
    child
        .limits(
            RestartLimits::try_new(rules.restarts, Duration::from_secs(rules.window_s)).unwrap_or_default(),
        )
        .backoff(Backoff::try_new(min, max, 2, HEALTHY_AFTER).unwrap_or_default())
        .breaker(BreakerSpec::try_new(open, open_max).unwrap_or_default())
        .liveness(LivenessSpec::try_new(Duration::from_secs(rules.stall_s), None).unwrap_or_default())
}

/// The longest interval between two updates of a depth stream in a moving market.
pub const fn depth_pace(speed: DepthSpeed) -> Duration {
    match speed {
        DepthSpeed::Fast => Duration::from_millis(100),
        DepthSpeed::Slow => Duration::from_millis(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_within_the_bounds_of_the_kernel() {
        for rules in [STREAM, BOOK, AGGREGATOR, WRITER, SERVICE] {
            let millis = Duration::from_millis;
            assert!(RestartLimits::try_new(rules.restarts, Duration::from_secs(rules.window_s)).is_ok());
            assert!(
                Backoff::try_new(millis(rules.backoff_ms.0), millis(rules.backoff_ms.1), 2, HEALTHY_AFTER)
                    .is_ok()
            );
            let (open, max) = rules.breaker_s;
            assert!(BreakerSpec::try_new(Duration::from_secs(open), Duration::from_secs(max)).is_ok());
        }
    }
}
