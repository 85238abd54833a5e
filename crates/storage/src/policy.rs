//! What is refused first when there is no room for everything: ticks, then trades and bars, then what is open or comes again,
//! last of all what is closed for good. One policy for the memory before the store and for the spool. Pure.

use fathom_market::{
    batch::{Batch, Column},
    table::Table,
};

/// What a row is worth when not every row can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Best bids and asks, depth updates, 24 hour statistics.
    Ticks,
    /// Trades and one-second bars.
    Trades,
    /// Open candles, stored books, funding: what comes again soon.
    Passing,
    /// Closed candles, snapshots, instruments, how far candles are stored.
    Final,
    /// The gap ledger: what says what is missing. No fill refuses it.
    Ledger,
}

impl Class {
    /// Those that a fill can refuse, the first to go first.
    pub const REFUSABLE: [Self; 4] = [Self::Ticks, Self::Trades, Self::Passing, Self::Final];

    /// The class's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Trades => "trades",
            Self::Passing => "passing",
            Self::Final => "final",
            Self::Ledger => "ledger",
        }
    }

    /// The class of a table's rows; of candles that of the closed ones.
    pub const fn of(table: Table) -> Self {
        match table {
            Table::BookTicker | Table::DepthEvents | Table::Tickers => Self::Ticks,
            Table::Trades | Table::Bt1s | Table::Trade1s | Table::Depth1s => Self::Trades,
            Table::OrderbookData | Table::FundingRates => Self::Passing,
            Table::Candles
            | Table::SymbolSnapshots
            | Table::CategorySnapshots
            | Table::Instruments
            | Table::CollectorState => Self::Final,
            Table::DataGaps => Self::Ledger,
        }
    }

    /// The class of one row.
    pub fn of_row(batch: &Batch, row: usize) -> Self {
        match (batch.table(), batch.column("closed")) {
            (Table::Candles, Some(Column::Flag(closed))) if closed.get(row) == Some(&false) => Self::Passing,
            (table, _) => Self::of(table),
        }
    }
}

/// From which fill on each class is refused, in thousandths of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    thresholds: [u32; 4],
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The thresholds do not rise from above 0 to at most 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected thousandths that do not fall, each from 1 to 1000")]
pub struct BadPolicy;

impl Policy {
    /// Ticks from 70 % on, trades from 85 %, what passes from 95 %, the rest when it is full.
    pub const DEFAULT: Self = Self { thresholds: [700, 850, 950, 1000] };

    /// Thresholds of ticks, trades, what passes, and the rest, in thousandths of the bound.
    ///
    /// # Errors
    /// When they fall, or one is not within 1 to 1000.
    pub fn try_new(thresholds: [u32; 4]) -> Result<Self, BadPolicy> {
        let within = thresholds.iter().all(|part| (1..=1000).contains(part));
        (within && thresholds.is_sorted()).then_some(Self { thresholds }).ok_or(BadPolicy)
    }

    /// How many classes are refused at this fill, in thousandths.
    pub fn step(&self, fill: u32) -> u8 {
        self.thresholds.iter().map(|from| u8::from(fill >= *from)).sum()
    }

    /// Whether a row of this class is refused at a step.
    pub const fn refuses(step: u8, class: Class) -> bool {
        (class as u8) < step
    }

    /// The classes that are refused at a step, for logs and health.
    pub fn refused(step: u8) -> Vec<&'static str> {
        let refused = Class::REFUSABLE.into_iter().filter(|class| Self::refuses(step, *class));
        refused.map(Class::as_str).collect()
    }

    /// From which fill on a class is refused, in thousandths.
    pub fn threshold(&self, class: Class) -> Option<u32> {
        self.thresholds.get(class as usize).copied()
    }
}

/// How full, in thousandths; an empty bound is always full.
pub fn fill(used: u64, limit: u64) -> u32 {
    let part = u128::from(used) * 1000 / u128::from(limit.max(1));
    u32::try_from(part).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worth_of_a_row_decides_when_it_goes() {
        let policy = Policy::default();
        let refused = |fill| {
            let step = policy.step(fill);
            Table::ALL.iter().filter(move |table| Policy::refuses(step, Class::of(**table))).count()
        };
        assert_eq!([0, 699, 700, 850, 950, 999, 1000, 5000].map(refused), [0, 0, 3, 7, 9, 9, 14, 14]);
        assert!(!Policy::refuses(policy.step(u32::MAX), Class::of(Table::DataGaps)));
        assert_eq!(Policy::refused(policy.step(860)), ["ticks", "trades"]);
    }

    #[test]
    fn thresholds_rise() {
        assert!(Policy::try_new([700, 700, 900, 1000]).is_ok());
        for bad in [[0, 1, 2, 3], [700, 600, 900, 1000], [1, 2, 3, 1001]] {
            assert_eq!(Policy::try_new(bad), Err(BadPolicy), "{bad:?}");
        }
    }

    #[test]
    fn a_fill_is_in_thousandths_and_cannot_overflow() {
        assert_eq!((fill(7, 10), fill(0, 0), fill(1, 0), fill(u64::MAX, 1)), (700, 0, 1000, u32::MAX));
    }
}
