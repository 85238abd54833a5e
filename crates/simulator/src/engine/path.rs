//! The price before the simulator started: a closed function of (seed, minute), so that any candle of the past can be
//! computed on its own and twice the same. Floats draw the shape; what leaves here is in whole ticks and lots.

use super::klines::Candle;
use crate::number::{mix, unit};

const MINUTE: i64 = 60_000;
/// (period in minutes, amplitude of the logarithm).
const OCTAVES: [(i64, f64); 6] =
    [(43_200, 0.18), (4320, 0.06), (720, 0.025), (60, 0.008), (10, 0.003), (1, 0.0009)];

/// The deterministic past of one symbol.
#[derive(Clone, Debug)]
pub(crate) struct PricePath {
    seed: u64,
    anchor: f64,
    /// Lots that trade in a quiet minute.
    lots: f64,
}

impl PricePath {
    /// `anchor` in ticks; `lots` is the typical volume of a minute.
    pub(crate) const fn new(seed: u64, anchor: f64, lots: f64) -> Self {
        Self { seed, anchor, lots }
    }

    /// The price in ticks at a whole minute.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a drawn price, whole ticks"
    )]
    pub(crate) fn price(&self, minute: i64) -> i64 {
        let mut log = 0.0;
        for (octave, (period, amplitude)) in (0_u64..).zip(OCTAVES) {
            let cell = minute.div_euclid(period);
            let x = minute.rem_euclid(period) as f64 / period as f64;
            let seed = mix(self.seed, octave);
            let (from, to) =
                (unit(mix(seed, cell.cast_unsigned())), unit(mix(seed, (cell + 1).cast_unsigned())));
            let smooth = x * x * 2.0_f64.mul_add(-x, 3.0);
            log += amplitude * 2.0_f64.mul_add((to - from).mul_add(smooth, from), -1.0);
        }
        ((self.anchor * log.exp()) as i64).max(2)
    }

    /// The candle of one minute, given by its open time.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "drawn values, whole ticks and lots"
    )]
    pub(crate) fn minute(&self, open_ms: i64) -> Candle {
        let minute = open_ms.div_euclid(MINUTE);
        let (open, close) = (self.price(minute), self.price(minute + 1));
        let roll = |salt: u64| unit(mix(mix(self.seed, 100 + salt), minute.cast_unsigned()));
        let reach = (open as f64 * 0.0006).max(1.0);
        let high = open.max(close) + (roll(0) * reach) as i64;
        let low = (open.min(close) - (roll(1) * reach) as i64).max(1);
        let volume = ((self.lots * roll(2).mul_add(1.8, 0.1)) as i128).max(1);
        let taker = ((volume as f64) * roll(3).mul_add(0.6, 0.2)) as i128;
        let count = (roll(4) * 200.0) as u64 + 1;
        let middle = i128::from(i64::midpoint(open, close));
        Candle {
            open_ms,
            open,
            high,
            low,
            close,
            volume,
            quote: volume * middle,
            count,
            taker_volume: taker,
            taker_quote: taker * middle,
            first: -1,
            last: -1,
        }
    }
}
