//! Candle timeframes and their canonical names.

use std::fmt;

use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// The length of a candle. Names are canonical: `1m` is a minute, `1M` a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Timeframe {
    S1,
    M1,
    M3,
    M5,
    M15,
    M30,
    H1,
    H2,
    H4,
    H6,
    H8,
    H12,
    D1,
    D3,
    W1,
    Mo1,
}

impl Timeframe {
    /// Every timeframe, shortest first.
    pub const ALL: [Self; 16] = [
        Self::S1,
        Self::M1,
        Self::M3,
        Self::M5,
        Self::M15,
        Self::M30,
        Self::H1,
        Self::H2,
        Self::H4,
        Self::H6,
        Self::H8,
        Self::H12,
        Self::D1,
        Self::D3,
        Self::W1,
        Self::Mo1,
    ];

    /// The timeframes collected unless configured otherwise.
    pub const DEFAULT: [Self; 7] = [Self::M1, Self::M5, Self::M15, Self::M30, Self::H1, Self::H4, Self::D1];

    /// The canonical name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::M1 => "1m",
            Self::M3 => "3m",
            Self::M5 => "5m",
            Self::M15 => "15m",
            Self::M30 => "30m",
            Self::H1 => "1h",
            Self::H2 => "2h",
            Self::H4 => "4h",
            Self::H6 => "6h",
            Self::H8 => "8h",
            Self::H12 => "12h",
            Self::D1 => "1d",
            Self::D3 => "3d",
            Self::W1 => "1w",
            Self::Mo1 => "1M",
        }
    }

    /// Reads a canonical name; case matters (`1m` and `1M`).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timeframe| timeframe.as_str() == text)
    }

    /// The fixed length in milliseconds; `None` for a month, which has none.
    pub const fn fixed_ms(self) -> Option<i64> {
        Some(match self {
            Self::S1 => 1000,
            Self::M1 => MINUTE_MS,
            Self::M3 => 3 * MINUTE_MS,
            Self::M5 => 5 * MINUTE_MS,
            Self::M15 => 15 * MINUTE_MS,
            Self::M30 => 30 * MINUTE_MS,
            Self::H1 => 60 * MINUTE_MS,
            Self::H2 => 120 * MINUTE_MS,
            Self::H4 => 240 * MINUTE_MS,
            Self::H6 => 360 * MINUTE_MS,
            Self::H8 => 480 * MINUTE_MS,
            Self::H12 => 720 * MINUTE_MS,
            Self::D1 => DAY_MS,
            Self::D3 => 3 * DAY_MS,
            Self::W1 => 7 * DAY_MS,
            Self::Mo1 => return None,
        })
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_case_matters() {
        for timeframe in Timeframe::ALL {
            assert_eq!(Timeframe::parse(timeframe.as_str()), Some(timeframe));
        }
        assert_eq!(Timeframe::parse("1m"), Some(Timeframe::M1));
        assert_eq!(Timeframe::parse("1M"), Some(Timeframe::Mo1));
        assert_eq!(Timeframe::parse("1H"), None);
    }
}
