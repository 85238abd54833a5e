//! What was refused on the way to the store, as gaps: one of each stream for as long as the refusing lasts, from the first
//! refused record to the last. Pure.

use std::collections::BTreeMap;

use fathom_market::{
    batch::Batch,
    gap::{Gap, GapCause, GapStatus},
    ids::InstrumentId,
    mark::Extent,
};
use fathom_storage::{Class, Refusal};

/// A stream of which nothing more was refused for this long has its gap closed.
const QUIET_US: i64 = 5_000_000;
/// How often a gap that grows is written again.
const AGAIN_US: i64 = 10_000_000;
/// Streams whose gaps are held; beyond it rows are only counted.
const MAX_STREAMS: usize = 65_536;

/// Why rows will not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// They were refused.
    Refused(Refusal),
    /// They left the spool for their age.
    Expired,
}

impl Noticed {
    const fn words(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Overload) => {
                "refused by policy: too much waited for the store; from the first to the last refused record"
            }
            Self::Refused(Refusal::SpoolFull) => {
                "refused by policy: the spool was too full; from the first to the last refused record"
            }
            Self::Refused(Refusal::SenderFull) => {
                "refused: the sender's own bound was reached; from the first to the last refused record"
            }
            Self::Refused(Refusal::SenderLost) => {
                "lost: the sender ended with the rows in its hands; from the first to the last lost record"
            }
            Self::Refused(Refusal::QuarantineFull) => {
                "refused: poison, and the quarantine was full; from the first to the last refused record"
            }
            Self::Refused(Refusal::ProcessKilled) => "lost: the process was killed",
            Self::Expired => "dropped: older than the spool keeps; from the first to the last dropped record",
        }
    }
}

/// Refusals by stream.
#[derive(Debug, Default)]
pub struct Refusals {
    streams: BTreeMap<(i64, String), Episode>,
    /// Rows refused that no gap holds.
    unheld: u64,
}

#[derive(Debug)]
struct Episode {
    extent: Extent,
    why: Noticed,
    /// More was refused since it was last looked at.
    touched: bool,
    told: Option<Told>,
}

#[derive(Clone, Debug)]
struct Told {
    id: String,
    opened_us: i64,
    told_us: i64,
    touched_us: i64,
    rows: u64,
}

impl Refusals {
    /// Rows will not be stored. What is missing of the gap ledger itself opens no gap.
    pub fn note(&mut self, batch: &Batch, why: Noticed) {
        if Class::of(batch.table()) == Class::Ledger {
            return;
        }
        for extent in batch.extents() {
            let key = (extent.instrument_id, extent.channel.clone());
            if let Some(episode) = self.streams.get_mut(&key) {
                episode.grow(extent);
            } else if self.streams.len() < MAX_STREAMS {
                self.streams.insert(key, Episode { extent, why, touched: true, told: None });
            } else {
                self.unheld += extent.rows;
            }
        }
    }

    /// Gaps that began, grew or ended, to be told now. With `all`, every gap that is held ends.
    pub fn collect(&mut self, now_us: i64, all: bool) -> Vec<Gap> {
        let mut gaps = Vec::new();
        self.streams.retain(|_, episode| {
            let over = episode.look(now_us) || all;
            if over || episode.is_due(now_us) {
                gaps.push(episode.tell(now_us, over));
            }
            !over
        });
        gaps
    }

    /// Streams of which rows are being refused.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Rows refused beyond the number of streams that are held.
    pub const fn unheld(&self) -> u64 {
        self.unheld
    }
}

impl Episode {
    fn grow(&mut self, more: Extent) {
        let extent = &mut self.extent;
        extent.rows += more.rows;
        if more.first_us < extent.first_us {
            (extent.first_us, extent.first_id) = (more.first_us, more.first_id);
        }
        if more.last_us >= extent.last_us {
            (extent.last_us, extent.last_id) = (more.last_us, more.last_id);
        }
        self.touched = true;
    }

    /// True when nothing more was refused for long.
    fn look(&mut self, now_us: i64) -> bool {
        let touched = std::mem::take(&mut self.touched);
        let Some(told) = &mut self.told else { return false };
        if touched {
            told.touched_us = now_us;
        }
        now_us - told.touched_us >= QUIET_US
    }

    fn is_due(&self, now_us: i64) -> bool {
        let grown = |told: &Told| told.rows < self.extent.rows && now_us - told.told_us >= AGAIN_US;
        self.told.as_ref().is_none_or(grown)
    }

    fn tell(&mut self, now_us: i64, over: bool) -> Gap {
        let Extent { instrument_id, channel, first_us, first_id, last_us, last_id, rows } =
            self.extent.clone();
        let instrument = InstrumentId(instrument_id);
        let told = self.told.get_or_insert_with(|| Told {
            id: Gap::name(instrument, &channel, first_us, GapCause::Refused),
            opened_us: now_us,
            told_us: now_us,
            touched_us: now_us,
            rows,
        });
        (told.told_us, told.rows) = (now_us, rows);
        Gap {
            id: told.id.clone(),
            instrument,
            channel,
            cause: GapCause::Refused,
            status: if over { GapStatus::Lost } else { GapStatus::Open },
            from_us: first_us,
            to_us: Some(last_us),
            from_id: first_id,
            to_id: last_id,
            missing: Some(rows),
            reason: Some(self.why.words().to_owned()),
            opened_us: told.opened_us,
            closed_us: over.then_some(now_us),
            updated_us: now_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::table::FundingRow;
    use rust_decimal::Decimal;

    use super::*;

    fn funding(instrument_id: i64, times: std::ops::Range<i64>) -> Batch {
        Batch::of(times.map(|event_us| FundingRow {
            instrument_id,
            event_us,
            mark_price: Decimal::ONE,
            index_price: None,
            funding_rate: None,
            next_funding_ms: None,
        }))
    }

    const WHY: Noticed = Noticed::Refused(Refusal::Overload);

    #[test]
    fn one_gap_a_stream_for_as_long_as_it_lasts_with_exact_bounds() {
        let mut refusals = Refusals::default();
        refusals.note(&funding(1, 10..13), WHY);
        refusals.note(&funding(2, 11..12), WHY);
        let opened = refusals.collect(1_000_000, false);
        assert_eq!(opened.len(), 2);
        assert!(opened.iter().all(|gap| gap.status == GapStatus::Open));
        let id = opened[0].id.clone();
        refusals.note(&funding(1, 20..25), WHY);
        assert!(
            refusals.collect(1_000_000 + QUIET_US - 1, false).is_empty(),
            "it is not told with every row"
        );
        let closed = refusals.collect(1_000_000 + QUIET_US, false);
        assert_eq!(closed.len(), 1, "of the second stream nothing more was refused");
        assert_eq!((closed[0].instrument.0, closed[0].missing), (2, Some(1)));
        let last = refusals.collect(1_000_000 + 2 * QUIET_US, false);
        let gap = &last[0];
        assert_eq!((gap.id.as_str(), gap.from_us, gap.to_us), (id.as_str(), 10, Some(24)));
        assert_eq!((gap.missing, gap.status, gap.opened_us), (Some(8), GapStatus::Lost, 1_000_000));
        assert_eq!(refusals.streams(), 0);
    }

    #[test]
    fn a_gap_that_grows_is_told_again_in_its_time() {
        let mut refusals = Refusals::default();
        refusals.note(&funding(1, 0..1), WHY);
        refusals.collect(0, false);
        let mut told = 0;
        for second in 1..=25 {
            refusals.note(&funding(1, second..second + 1), WHY);
            told += refusals.collect(second * 1_000_000, false).len();
        }
        assert_eq!(told, 2);
        assert_eq!(refusals.collect(26_000_000, true)[0].missing, Some(26));
    }
}
