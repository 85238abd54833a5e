//! The input of aggregation: what a book says of itself at a minute boundary (or on demand), and the board that
//! collects one such sample of every member before a boundary is closed.
//!
//! Nothing here computes depth, and nothing here waits: the owner of a board decides when its grace is over.

use std::{collections::BTreeMap, sync::Arc};

use rust_decimal::Decimal;

use crate::{ids::InstrumentId, instrument::Instrument};

/// The sums of one depth band of one book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BandSums {
    /// Bids inside the band, base units.
    pub bid_volume: Decimal,
    /// Asks inside the band, base units.
    pub ask_volume: Decimal,
    /// Bids inside the band, price times quantity, quote units.
    pub bid_quote: Decimal,
    /// Asks inside the band, price times quantity, quote units.
    pub ask_quote: Decimal,
    /// True when the known bids reach the end of the band.
    pub bid_covered: bool,
    /// True when the known asks reach the end of the band.
    pub ask_covered: bool,
}

/// The state of a book when its sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SampleState {
    /// Kept by an unbroken sequence.
    Live,
    /// Taken from REST because no sequence can be kept at present.
    Polled,
    /// Waiting for a snapshot, or for the deltas that join it.
    Syncing,
    /// Nothing has been heard for longer than allowed.
    Stale,
    /// The best bid is not below the best ask.
    Crossed,
    /// Paused by an operator.
    Paused,
}

impl SampleState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Live, Self::Polled, Self::Syncing, Self::Stale, Self::Crossed, Self::Paused];

    /// `live`, `polled`, `syncing`, `stale`, `crossed` or `paused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Polled => "polled",
            Self::Syncing => "syncing",
            Self::Stale => "stale",
            Self::Crossed => "crossed",
            Self::Paused => "paused",
        }
    }

    /// True when numbers of such a book may enter a sum.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Live | Self::Polled)
    }
}

/// What one book says of itself at one moment.
#[derive(Clone, Debug)]
pub struct DepthSample {
    /// Whose book it is.
    pub instrument: Arc<Instrument>,
    /// The minute boundary that the sample belongs to; for a live sample the time at which it was taken.
    pub boundary_ms: i64,
    /// The state of the book.
    pub state: SampleState,
    /// Midpoint of the best levels, quote units; `None` while a side is empty.
    pub mid: Option<Decimal>,
    /// Best bid price, quote units.
    pub best_bid: Option<Decimal>,
    /// Best ask price, quote units.
    pub best_ask: Option<Decimal>,
    /// The venue's update id of the last update in the book.
    pub last_id: u64,
    /// Time since that update, microseconds.
    pub age_us: i64,
    /// The sums of each configured depth, in the configured order; empty unless the state is usable.
    pub bands: Vec<BandSums>,
}

impl DepthSample {
    /// The sample's positive mid price, when its book is usable.
    pub fn usable_mid(&self) -> Option<Decimal> {
        self.mid.filter(|mid| self.state.is_usable() && *mid > Decimal::ZERO)
    }

    /// The sums of the depth at this index of the configured depths, when the book is usable.
    pub fn usable_band(&self, depth_index: usize) -> Option<&BandSums> {
        self.bands.get(depth_index).filter(|_| self.state.is_usable())
    }
}

/// How many boundaries a board remembers, open and closed together.
pub const BOARD_BOUNDARIES: usize = 3;

/// What a board refused or gave up; every count only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoardCounts {
    /// Samples of a boundary that was closed already, or is too old.
    pub late: u64,
    /// Second samples of an instrument for the same boundary; the first one stays.
    pub duplicate: u64,
    /// Samples of instruments that are no members.
    pub unexpected: u64,
    /// Boundaries given up unclosed, because newer ones needed the room.
    pub abandoned: u64,
}

/// A closed boundary, ready to be folded.
#[derive(Clone, Debug)]
pub struct BoundaryView {
    /// The boundary.
    pub boundary_ms: i64,
    /// The samples that came in time, at most one of each member, ordered by instrument id.
    pub samples: Vec<DepthSample>,
    /// Every expected member, ordered by instrument id. Those without a sample count as stale.
    pub members: Vec<Arc<Instrument>>,
}

impl BoundaryView {
    /// Number of members that sent no sample.
    pub fn missing(&self) -> usize {
        self.members.len() - self.samples.len()
    }
}

#[derive(Debug)]
enum Slot {
    Open(BTreeMap<InstrumentId, DepthSample>),
    Closed,
}

/// Collects the samples of each boundary until it is closed. It remembers [`BOARD_BOUNDARIES`] boundaries; whatever
/// is closed or older stays so, so that a late sample can never lead to a second, different result.
#[derive(Debug)]
pub struct SampleBoard {
    members: BTreeMap<InstrumentId, Arc<Instrument>>,
    slots: BTreeMap<i64, Slot>,
    /// Every boundary up to this one is over.
    floor_ms: i64,
    counts: BoardCounts,
}

impl SampleBoard {
    /// A board that expects one sample a boundary of each member.
    pub fn new(members: impl IntoIterator<Item = Arc<Instrument>>) -> Self {
        let mut board = Self {
            members: BTreeMap::new(),
            slots: BTreeMap::new(),
            floor_ms: i64::MIN,
            counts: BoardCounts::default(),
        };
        board.set_members(members);
        board
    }

    /// Replaces the expected members, for boundaries still open and those to come.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Arc<Instrument>>) {
        self.members = members.into_iter().map(|member| (member.id, member)).collect();
    }

    /// Takes a sample. True when it completes its boundary; false also for a sample that is refused and counted:
    /// late, a duplicate, or of no member.
    pub fn put(&mut self, sample: DepthSample) -> bool {
        let boundary_ms = sample.boundary_ms;
        if self.is_over(boundary_ms) {
            self.counts.late += 1;
            return false;
        }
        let id = sample.instrument.id;
        if !self.members.contains_key(&id) {
            self.counts.unexpected += 1;
            return false;
        }
        if let Slot::Open(samples) =
            self.slots.entry(boundary_ms).or_insert_with(|| Slot::Open(BTreeMap::new()))
        {
            if samples.contains_key(&id) {
                self.counts.duplicate += 1;
                return false;
            }
            samples.insert(id, sample);
        }
        self.make_room();
        self.is_complete(boundary_ms)
    }

    /// True when every member has a sample in this open boundary.
    pub fn is_complete(&self, boundary_ms: i64) -> bool {
        match self.slots.get(&boundary_ms) {
            Some(Slot::Open(samples)) => {
                samples.len() >= self.members.len() && self.members.keys().all(|id| samples.contains_key(id))
            }
            _ => false,
        }
    }

    /// Closes a boundary and gives what it holds, even if that is nothing. `None` when it was closed before, or is
    /// too old to be known.
    pub fn close(&mut self, boundary_ms: i64) -> Option<BoundaryView> {
        if self.is_over(boundary_ms) {
            return None;
        }
        let samples = match self.slots.insert(boundary_ms, Slot::Closed) {
            Some(Slot::Open(samples)) => samples,
            _ => BTreeMap::new(),
        };
        self.make_room();
        let samples = samples.into_iter().filter(|(id, _)| self.members.contains_key(id));
        Some(BoundaryView {
            boundary_ms,
            samples: samples.map(|(_, sample)| sample).collect(),
            members: self.members.values().cloned().collect(),
        })
    }

    /// The open boundaries, oldest first.
    pub fn open_boundaries(&self) -> impl Iterator<Item = i64> {
        self.slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Open(_)))
            .map(|(&boundary_ms, _)| boundary_ms)
    }

    /// What was refused or given up so far.
    pub const fn counts(&self) -> BoardCounts {
        self.counts
    }

    fn is_over(&self, boundary_ms: i64) -> bool {
        let older_than_all = self.slots.len() >= BOARD_BOUNDARIES
            && self.slots.first_key_value().is_some_and(|(&oldest, _)| boundary_ms < oldest);
        boundary_ms <= self.floor_ms
            || older_than_all
            || matches!(self.slots.get(&boundary_ms), Some(Slot::Closed))
    }

    fn make_room(&mut self) {
        while self.slots.len() > BOARD_BOUNDARIES {
            let Some((boundary_ms, slot)) = self.slots.pop_first() else { return };
            self.floor_ms = boundary_ms;
            self.counts.abandoned += u64::from(matches!(slot, Slot::Open(_)));
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::{
        decimal::parse_decimal,
        ids::{Market, VenueId},
        instrument::{InstrumentKind, InstrumentStatus, unified_symbol},
    };

    pub(crate) const BINANCE: VenueId = VenueId::new("binance");
    pub(crate) const BYBIT: VenueId = VenueId::new("bybit");

    pub(crate) fn dec(text: &str) -> Decimal {
        parse_decimal(text).unwrap()
    }

    pub(crate) fn instrument(venue: VenueId, market: Market, base: &str, quote: &str) -> Arc<Instrument> {
        let native = format!("{base}{quote}");
        let (kind, settle) = match market {
            Market::Spot => (InstrumentKind::Spot, None),
            Market::Futures => (InstrumentKind::Perpetual, Some(quote)),
        };
        Arc::new(Instrument {
            id: InstrumentId::derive(venue, market, &native),
            venue,
            market,
            unified: unified_symbol(base, quote, settle, kind).into(),
            native: native.into(),
            base: base.into(),
            quote: quote.into(),
            settle: settle.map(Into::into),
            kind,
            status: InstrumentStatus::Trading,
            tick_size: dec("0.01"),
            lot_size: dec("0.001"),
            contract_size: Decimal::ONE,
            price_scale: 2,
            qty_scale: 3,
            valid_from_us: 0,
        })
    }

    /// A live sample whose one band holds `bid` and `ask` base units, valued at the mid.
    pub(crate) fn sample(instrument: &Arc<Instrument>, mid: &str, bid: &str, ask: &str) -> DepthSample {
        let (mid, bid, ask) = (dec(mid), dec(bid), dec(ask));
        DepthSample {
            instrument: Arc::clone(instrument),
            boundary_ms: 60_000,
            state: SampleState::Live,
            mid: Some(mid),
            best_bid: Some(mid),
            best_ask: Some(mid),
            last_id: 7,
            age_us: 0,
            bands: vec![BandSums {
                bid_volume: bid,
                ask_volume: ask,
                bid_quote: bid * mid,
                ask_quote: ask * mid,
                bid_covered: true,
                ask_covered: true,
            }],
        }
    }

    /// What a book in this state sends: no numbers unless it is usable.
    pub(crate) fn in_state(mut sample: DepthSample, state: SampleState) -> DepthSample {
        sample.state = state;
        if !state.is_usable() {
            sample.bands.clear();
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::*, *};
    use crate::ids::Market;

    fn at(sample: &DepthSample, boundary_ms: i64) -> DepthSample {
        DepthSample { boundary_ms, ..sample.clone() }
    }

    fn board() -> (SampleBoard, DepthSample, DepthSample) {
        let btc = instrument(BINANCE, Market::Spot, "BTC", "USDT");
        let eth = instrument(BINANCE, Market::Spot, "ETH", "USDT");
        let board = SampleBoard::new([Arc::clone(&btc), Arc::clone(&eth)]);
        (board, sample(&btc, "100", "1", "1"), sample(&eth, "10", "1", "1"))
    }

    #[test]
    fn only_live_and_polled_books_are_usable() {
        let usable: Vec<_> = SampleState::ALL.iter().filter(|s| s.is_usable()).map(|s| s.as_str()).collect();
        assert_eq!(usable, ["live", "polled"]);
        let (_, btc, _) = board();
        assert!(btc.usable_mid().is_some() && btc.usable_band(0).is_some() && btc.usable_band(1).is_none());
        // The bands are left in place on purpose: the state alone must forbid their use.
        let stale = DepthSample { state: SampleState::Stale, ..btc };
        assert!(stale.usable_mid().is_none() && stale.usable_band(0).is_none());
    }

    #[test]
    fn the_last_member_completes_a_boundary_and_the_first_sample_stays() {
        let (mut board, btc, eth) = board();
        assert!(!board.put(at(&btc, 60_000)));
        assert!(!board.put(DepthSample { last_id: 8, ..at(&btc, 60_000) }));
        assert!(!board.put(at(&btc, 120_000)));
        assert!(board.put(at(&eth, 60_000)));
        let view = board.close(60_000).unwrap();
        assert_eq!((view.samples.len(), view.members.len(), view.missing()), (2, 2, 0));
        assert!(view.samples.iter().all(|sample| sample.last_id == 7));
        assert!(view.samples.is_sorted_by_key(|sample| sample.instrument.id));
        assert_eq!(board.counts(), BoardCounts { duplicate: 1, ..BoardCounts::default() });
        assert_eq!(board.open_boundaries().collect::<Vec<_>>(), [120_000]);
    }

    #[test]
    fn the_first_close_wins_and_late_samples_are_refused() {
        let (mut board, btc, eth) = board();
        board.put(at(&btc, 60_000));
        assert_eq!(board.close(60_000).unwrap().missing(), 1);
        assert!(!board.put(at(&eth, 60_000)));
        assert_eq!(board.counts().late, 1);
        assert!(board.close(60_000).is_none());
        assert_eq!(board.close(120_000).unwrap().missing(), 2);
    }

    #[test]
    fn three_boundaries_are_kept_and_the_oldest_is_given_up() {
        let (mut board, btc, _) = board();
        for minute in [2, 3, 4, 5] {
            board.put(at(&btc, minute * 60_000));
        }
        assert_eq!(board.counts().abandoned, 1);
        assert!(!board.put(at(&btc, 120_000)));
        assert!(!board.put(at(&btc, 60_000)));
        assert_eq!(board.counts().late, 2);
        assert!(board.close(120_000).is_none());
        assert!(board.close(180_000).is_some());
        assert_eq!(board.open_boundaries().count(), 2);
    }

    #[test]
    fn members_come_and_go() {
        let (mut board, btc, eth) = board();
        let sol = instrument(BINANCE, Market::Spot, "SOL", "USDT");
        assert!(!board.put(at(&sample(&sol, "1", "1", "1"), 60_000)));
        assert_eq!(board.counts().unexpected, 1);
        board.put(at(&btc, 60_000));
        board.put(at(&eth, 60_000));
        board.set_members([Arc::clone(&btc.instrument)]);
        assert!(board.is_complete(60_000));
        let view = board.close(60_000).unwrap();
        assert_eq!((view.samples.len(), view.missing()), (1, 0));
    }
}
