//! Candle intervals as the venue names and aligns them (binance sheet, section 7). UTC.

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// A candle interval. `1w` opens on Monday, `1M` on the first of the month, `3d` counts from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Interval {
    Fixed(&'static str, i64),
    Week,
    Month,
}

const FIXED: [(&str, i64); 14] = [
    ("1s", 1000),
    ("1m", MINUTE),
    ("3m", 3 * MINUTE),
    ("5m", 5 * MINUTE),
    ("15m", 15 * MINUTE),
    ("30m", 30 * MINUTE),
    ("1h", 60 * MINUTE),
    ("2h", 120 * MINUTE),
    ("4h", 240 * MINUTE),
    ("6h", 360 * MINUTE),
    ("8h", 480 * MINUTE),
    ("12h", 720 * MINUTE),
    ("1d", DAY),
    ("3d", 3 * DAY),
];

impl Interval {
    pub(crate) const SECOND: Self = Self::Fixed("1s", 1000);
    pub(crate) const MINUTE: Self = Self::Fixed("1m", MINUTE);
    pub(crate) const DAY: Self = Self::Fixed("1d", DAY);

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "1w" => Some(Self::Week),
            "1M" => Some(Self::Month),
            _ => FIXED.iter().find(|(name, _)| *name == text).map(|(name, ms)| Self::Fixed(name, *ms)),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fixed(name, _) => name,
            Self::Week => "1w",
            Self::Month => "1M",
        }
    }

    /// Open time of the interval that holds `ms`.
    pub(crate) fn open(self, ms: i64) -> i64 {
        match self {
            Self::Fixed(_, length) => ms - ms.rem_euclid(length),
            // The epoch was a Thursday: Mondays lie four days after multiples of a week.
            Self::Week => ms - (ms - 4 * DAY).rem_euclid(7 * DAY),
            Self::Month => {
                let (year, month) = year_month(ms.div_euclid(DAY));
                days_from(year, month) * DAY
            }
        }
    }

    /// Open time of the interval after the one that opens at `open`.
    pub(crate) fn next(self, open: i64) -> i64 {
        match self {
            Self::Fixed(_, length) => open + length,
            Self::Week => open + 7 * DAY,
            Self::Month => self.open(open + 32 * DAY),
        }
    }
}

/// Year and month of a day since the epoch (Howard Hinnant's civil calendar algorithm).
fn year_month(days: i64) -> (i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month)
}

/// Day since the epoch of the first of a month.
fn days_from(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_follow_the_calendar() {
        let saturday = 1_795_249_177_000; // 2026-11-21 08:19:37 UTC
        assert_eq!(Interval::Month.open(saturday), 1_793_491_200_000); // 2026-11-01
        assert_eq!(Interval::Month.next(1_793_491_200_000), 1_796_083_200_000); // 2026-12-01
        assert_eq!(Interval::Week.open(saturday), 1_794_787_200_000); // Monday 2026-11-16
        assert_eq!(Interval::Month.next(Interval::Month.open(1_798_761_599_000)), 1_798_761_600_000); // 2027-01-01
        assert_eq!(Interval::parse("1m").unwrap().open(saturday), 1_795_249_140_000);
        assert_ne!(Interval::parse("1m"), Interval::parse("1M"));
        assert_eq!(Interval::parse("1H"), None);
    }
}
