//! The pace of a market, which can be changed while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A pace: steps a second, or messages a second that the steps shall follow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Market steps a second over all symbols.
    #[serde(default)]
    pub steps_per_s: Option<f64>,
    /// Data frames a second that all connections of the market together shall get.
    #[serde(default)]
    pub messages_per_s: Option<f64>,
}

/// A pace that threads share. Floats as their bits.
#[derive(Debug)]
pub(crate) struct Rate {
    steps: AtomicU64,
    messages: AtomicU64,
}

fn sound(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 10_000_000.0) } else { 0.0 }
}

impl Rate {
    pub(crate) fn new(steps: f64, messages: Option<f64>) -> Self {
        let rate = Self { steps: AtomicU64::new(0), messages: AtomicU64::new(0) };
        rate.set(Pace { steps_per_s: Some(steps), messages_per_s: messages });
        rate
    }

    /// Sets what is given; steps alone end the following of messages.
    pub(crate) fn set(&self, pace: Pace) {
        if let Some(steps) = pace.steps_per_s {
            self.follow(sound(steps));
            self.messages.store(0.0_f64.to_bits(), Ordering::Release);
        }
        if let Some(messages) = pace.messages_per_s {
            self.messages.store(sound(messages).to_bits(), Ordering::Release);
        }
    }

    /// Steps a second on the way to the messages that were asked for.
    pub(crate) fn follow(&self, steps: f64) {
        self.steps.store(steps.to_bits(), Ordering::Release);
    }

    pub(crate) fn steps(&self) -> f64 {
        f64::from_bits(self.steps.load(Ordering::Acquire))
    }

    pub(crate) fn messages(&self) -> Option<f64> {
        Some(f64::from_bits(self.messages.load(Ordering::Acquire))).filter(|messages| *messages > 0.0)
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { steps_per_s: Some(self.steps()), messages_per_s: self.messages() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_alone_end_the_following_of_messages() {
        let rate = Rate::new(10.0, Some(500.0));
        assert_eq!(rate.pace(), Pace { steps_per_s: Some(10.0), messages_per_s: Some(500.0) });
        rate.set(Pace { steps_per_s: Some(f64::NAN), messages_per_s: None });
        assert_eq!(rate.pace(), Pace { steps_per_s: Some(0.0), messages_per_s: None });
    }
}
