//! Growing, jittered delays between attempts. Pure: the dice are an argument.

use std::time::Duration;

use super::clock::micros;

/// A specification that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A duration that must be positive is zero.
    #[error("{0} must be longer than zero")]
    Zero(&'static str),
    /// A lower bound above its upper bound.
    #[error("{0} must not exceed {1}")]
    Order(&'static str, &'static str),
    /// A number outside its range.
    #[error("{name} is {value}, must be {range}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What is possible.
        range: &'static str,
    },
}

/// `delay(n)` lies in `[base - jitter, base]` with `base = min(max, min * factor^n)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    factor: u32,
    jitter_percent: u32,
    reset_after: Duration,
}

impl Backoff {
    /// Half of each delay is jitter; `reset_after` is how long an instance must live for the delay to start again
    /// at `min`.
    ///
    /// # Errors
    /// When `min` or `reset_after` is zero, `min > max`, or `factor` is not in 1..=10.
    pub fn try_new(
        min: Duration,
        max: Duration,
        factor: u32,
        reset_after: Duration,
    ) -> Result<Self, SpecError> {
        if min.is_zero() {
            return Err(SpecError::Zero("backoff min"));
        }
        if reset_after.is_zero() {
            return Err(SpecError::Zero("backoff reset_after"));
        }
        if min > max {
            return Err(SpecError::Order("backoff min", "backoff max"));
        }
        if !(1..=10).contains(&factor) {
            return Err(SpecError::Range { name: "backoff factor", value: factor.into(), range: "1 to 10" });
        }
        Ok(Self { min, max, factor, jitter_percent: 50, reset_after })
    }

    /// Sets the share of the delay that is random.
    ///
    /// # Errors
    /// Above 90 percent: the delay could come near to zero.
    pub fn jitter(mut self, percent: u32) -> Result<Self, SpecError> {
        if percent > 90 {
            return Err(SpecError::Range {
                name: "backoff jitter",
                value: percent.into(),
                range: "0 to 90 percent",
            });
        }
        self.jitter_percent = percent;
        Ok(self)
    }

    /// The delay before attempt `attempt` (the first is 0); `dice` is any random number.
    #[must_use]
    pub fn delay(&self, attempt: u32, dice: u64) -> Duration {
        let base = self.base_us(attempt);
        let spread = base * u64::from(self.jitter_percent) / 100;
        Duration::from_micros((base - spread + dice % (spread + 1)).max(1))
    }

    /// How long an instance must live to be called healthy.
    #[must_use]
    pub fn reset_after(&self) -> Duration {
        self.reset_after
    }

    /// The longest delay.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The base of the first delay.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.min
    }

    fn base_us(&self, attempt: u32) -> u64 {
        let (min, max) = (micros(self.min).unsigned_abs(), micros(self.max).unsigned_abs());
        let grown = u64::from(self.factor).checked_pow(attempt).and_then(|power| min.checked_mul(power));
        grown.unwrap_or(u64::MAX).min(max).min(u64::MAX / 128)
    }
}

impl Default for Backoff {
    /// 50 ms doubling to 5 s, healthy after 30 s.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(50),
            max: Duration::from_secs(5),
            factor: 2,
            jitter_percent: 50,
            reset_after: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_zero_never_above_max(min in 1u64..1_000_000, extra in 0u64..1_000_000_000, factor in 1u32..=10,
                                      jitter in 0u32..=90, attempt in 0u32..200, dice: u64) {
            let (low, high) = (Duration::from_micros(min), Duration::from_micros(min + extra));
            let backoff = Backoff::try_new(low, high, factor, Duration::from_secs(1)).unwrap().jitter(jitter).unwrap();
            let delay = backoff.delay(attempt, dice);
            prop_assert!(delay <= high);
            prop_assert!(delay >= Duration::from_micros(1));
            prop_assert!(delay.as_micros() * 100 + 100 >= u128::from(min) * u128::from(100 - jitter));
        }

        #[test]
        fn the_sum_of_a_crash_loop_is_bounded_below(dice in proptest::collection::vec(any::<u64>(), 20)) {
            let backoff = Backoff::default();
            let sum: Duration = (0u32..).zip(dice).map(|(n, d)| backoff.delay(n, d)).sum();
            // 6 delays double from 25 ms on, the other 14 are at least half of the maximum, but for rounding.
            prop_assert!(sum >= Duration::from_millis(25 * 63 + 14 * 2_499));
        }
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::try_new(Duration::ZERO, second, 2, second), Err(SpecError::Zero("backoff min")));
        assert!(matches!(Backoff::try_new(second * 2, second, 2, second), Err(SpecError::Order(..))));
        assert!(matches!(
            Backoff::try_new(second, second, 0, second),
            Err(SpecError::Range { value: 0, .. })
        ));
        assert!(Backoff::default().jitter(91).is_err());
    }
}
