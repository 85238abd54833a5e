//! The references: typed `serde_json`, once with the same 64-bit mantissas and once with decimals, told which struct to
//! read and so spared every look at the frame; and books as `BTreeMap`s of decimals.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    ops::Bound::{Excluded, Included, Unbounded},
    str::FromStr,
};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de};

use super::frames::{Frame, Kind, SCALE};

/// A number type of the reference.
pub(crate) trait Number: Sized {
    fn parse(text: &str) -> Option<Self>;
}

impl Number for i64 {
    /// As lean as such a loop gets: no signs, no exponents, no overflow.
    fn parse(text: &str) -> Option<Self> {
        let (mut value, mut missing, mut seen_point) = (0_i64, u32::from(SCALE), false);
        for byte in text.bytes() {
            if byte == b'.' {
                seen_point = true;
                continue;
            }
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            missing = missing.wrapping_sub(u32::from(seen_point));
        }
        10_i64.checked_pow(missing).map(|unit| value.wrapping_mul(unit))
    }
}

impl Number for Decimal {
    fn parse(text: &str) -> Option<Self> {
        Self::from_str(text).ok()
    }
}

pub(crate) struct Quoted<N>(pub N);

impl<'de, N: Number> Deserialize<'de> for Quoted<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<N>(PhantomData<N>);
        impl<N: Number> de::Visitor<'_> for Visitor<N> {
            type Value = Quoted<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                N::parse(text).map(Quoted).ok_or_else(|| E::custom("not a number"))
            }
        }
        deserializer.deserialize_str(Visitor(PhantomData))
    }
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "reading it is the cost")]
pub(crate) struct Combined<'a, T> {
    #[serde(borrow)]
    pub(crate) stream: &'a str,
    pub(crate) data: T,
}

#[derive(Deserialize)]
#[allow(non_snake_case, dead_code, reason = "the venue's keys, and reading them is the cost")]
#[serde(bound = "N: Number")]
pub(crate) struct Ticker<'a, N> {
    pub(crate) u: u64,
    pub(crate) s: &'a str,
    pub(crate) b: Quoted<N>,
    pub(crate) B: Quoted<N>,
    pub(crate) a: Quoted<N>,
    pub(crate) A: Quoted<N>,
}

#[derive(Deserialize)]
#[allow(non_snake_case, dead_code, reason = "the venue's keys, and reading them is the cost")]
#[serde(bound = "N: Number")]
pub(crate) struct Trade<'a, N> {
    pub(crate) E: i64,
    pub(crate) s: &'a str,
    pub(crate) a: u64,
    pub(crate) p: Quoted<N>,
    pub(crate) q: Quoted<N>,
    pub(crate) f: u64,
    pub(crate) l: u64,
    pub(crate) T: i64,
    pub(crate) m: bool,
}

#[derive(Deserialize)]
#[allow(non_snake_case, dead_code, reason = "the venue's keys, and reading them is the cost")]
#[serde(bound = "N: Number")]
pub(crate) struct Depth<'a, N> {
    pub(crate) E: i64,
    pub(crate) s: &'a str,
    pub(crate) U: u64,
    pub(crate) u: u64,
    pub(crate) b: Vec<(Quoted<N>, Quoted<N>)>,
    pub(crate) a: Vec<(Quoted<N>, Quoted<N>)>,
}

pub(crate) enum Read<'a, N> {
    Ticker(Ticker<'a, N>),
    Trade(Trade<'a, N>),
    Depth(Depth<'a, N>),
}

/// Reads a frame whose kind is known beforehand.
pub(crate) fn read<N: Number>(frame: &Frame) -> Read<'_, N> {
    fn data<'a, T: Deserialize<'a>>(text: &'a str) -> T {
        serde_json::from_slice::<Combined<'a, T>>(text.as_bytes()).expect("a frame of the generator").data
    }
    match frame.kind {
        Kind::Ticker => Read::Ticker(data(&frame.text)),
        Kind::Trade => Read::Trade(data(&frame.text)),
        Kind::Depth => Read::Depth(data(&frame.text)),
    }
}

/// The book that most collectors keep.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pub(crate) bids: BTreeMap<Decimal, Decimal>,
    pub(crate) asks: BTreeMap<Decimal, Decimal>,
}

impl Book {
    pub(crate) fn apply(&mut self, update: &Depth<'_, Decimal>) {
        fn side(levels: &mut BTreeMap<Decimal, Decimal>, changes: &[(Quoted<Decimal>, Quoted<Decimal>)]) {
            for (price, qty) in changes {
                if qty.0.is_zero() {
                    levels.remove(&price.0);
                } else {
                    levels.insert(price.0, qty.0);
                }
            }
        }
        side(&mut self.bids, &update.b);
        side(&mut self.asks, &update.a);
    }

    /// Base and quote sums of each band and side; bands ascend, and each level is visited once.
    pub(crate) fn sums(&self, percents: &[Decimal]) -> Vec<(Decimal, Decimal)> {
        let (Some((bid, _)), Some((ask, _))) = (self.bids.last_key_value(), self.asks.first_key_value())
        else {
            return Vec::new();
        };
        let mid = (bid + ask) / Decimal::TWO;
        let part = |percent: &Decimal| mid * percent / Decimal::ONE_HUNDRED;
        let lower: Vec<_> = percents.iter().map(|percent| mid - part(percent)).collect();
        let upper: Vec<_> = percents.iter().map(|percent| mid + part(percent)).collect();
        let bids = (0..lower.len()).map(|at| {
            let inner = if at == 0 { Unbounded } else { Excluded(lower[at - 1]) };
            total(self.bids.range((Included(lower[at]), inner)))
        });
        let asks = (0..upper.len()).map(|at| {
            let inner = if at == 0 { Unbounded } else { Excluded(upper[at - 1]) };
            total(self.asks.range((inner, Included(upper[at]))))
        });
        let (mut all, asks) = (running(bids), running(asks));
        all.extend(asks);
        all
    }
}

fn total<'b>(levels: impl Iterator<Item = (&'b Decimal, &'b Decimal)>) -> (Decimal, Decimal) {
    levels
        .fold((Decimal::ZERO, Decimal::ZERO), |(base, quote), (price, qty)| (base + qty, quote + price * qty))
}

/// Each band holds the narrower ones.
fn running(parts: impl Iterator<Item = (Decimal, Decimal)>) -> Vec<(Decimal, Decimal)> {
    let sum = |sum: &mut (Decimal, Decimal), part: (Decimal, Decimal)| {
        *sum = (sum.0 + part.0, sum.1 + part.1);
        Some(*sum)
    };
    parts.scan((Decimal::ZERO, Decimal::ZERO), sum).collect()
}
