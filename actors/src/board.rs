//! The barrier of a minute boundary: every book of a market puts one sample, every aggregator folds the same ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fathom_market::{
    ids::{Market, VenueId},
    instrument::Instrument,
    rates::UsdRates,
    sample::{BoardCounts, BoundaryView, DepthSample, SampleBoard},
};

/// Closed boundaries that are kept, for aggregators that come late.
const KEPT: usize = 4;

/// The board of one venue and market. Shared by its books (writers) and the aggregators (readers).
pub struct MinuteBoard {
    venue: VenueId,
    market: Market,
    inner: Mutex<Inner>,
}

struct Inner {
    board: SampleBoard,
    closed: BTreeMap<i64, Arc<BoundaryView>>,
    started_ms: Option<i64>,
}

impl MinuteBoard {
    /// An empty board that expects nobody.
    pub fn new(venue: VenueId, market: Market) -> Self {
        let inner = Inner { board: SampleBoard::new([]), closed: BTreeMap::new(), started_ms: None };
        Self { venue, market, inner: Mutex::new(inner) }
    }

    /// The venue.
    pub const fn venue(&self) -> VenueId {
        self.venue
    }

    /// The market.
    pub const fn market(&self) -> Market {
        self.market
    }

    /// Tells which books are to put samples from now on.
    pub fn expect(&self, members: Vec<Arc<Instrument>>, now_ms: i64) {
        let mut inner = self.lock();
        inner.board.set_members(members);
        inner.started_ms.get_or_insert(now_ms);
    }

    /// Takes a book's sample of a boundary; a late one is refused and counted.
    pub fn put(&self, sample: DepthSample) {
        self.lock().board.put(sample);
    }

    /// True when nothing more can come for this boundary: every expected book has put its sample, the boundary is
    /// closed, or the market had no book yet when it passed.
    pub fn complete(&self, boundary_ms: i64) -> bool {
        let inner = self.lock();
        inner.started_ms.is_none_or(|started| started > boundary_ms)
            || inner.closed.contains_key(&boundary_ms)
            || inner.board.is_complete(boundary_ms)
    }

    /// Samples refused so far, by reason.
    pub fn counts(&self) -> BoardCounts {
        self.lock().board.counts()
    }

    /// Closes a boundary, once; everyone who asks gets the same view. `None` before the market's books existed.
    pub fn close(&self, boundary_ms: i64) -> Option<Arc<BoundaryView>> {
        let mut inner = self.lock();
        if let Some(view) = inner.closed.get(&boundary_ms) {
            return Some(view.clone());
        }
        if inner.started_ms.is_none_or(|started| started > boundary_ms) {
            return None;
        }
        let view = Arc::new(inner.board.close(boundary_ms)?);
        inner.closed.insert(boundary_ms, view.clone());
        while inner.closed.len() > KEPT {
            inner.closed.pop_first();
        }
        Some(view)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is consistent between calls, so a panic elsewhere while holding the lock leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All boards, and the dollar rates of each boundary, worked out once.
#[derive(Default)]
pub struct Boards {
    boards: Vec<Arc<MinuteBoard>>,
    stablecoins: Vec<String>,
    rates: Mutex<BTreeMap<i64, Arc<OnceLock<UsdRates>>>>,
}

impl Boards {
    /// Boards of every collected venue and market.
    pub fn new(boards: Vec<Arc<MinuteBoard>>, stablecoins: Vec<String>) -> Self {
        Self { boards, stablecoins, rates: Mutex::default() }
    }

    /// The boards of a market, one a venue.
    pub fn of_market(&self, market: Market) -> impl Iterator<Item = &Arc<MinuteBoard>> {
        self.boards.iter().filter(move |board| board.market == market)
    }

    /// The board of a venue and market.
    pub fn get(&self, venue: VenueId, market: Market) -> Option<&Arc<MinuteBoard>> {
        self.boards.iter().find(|board| board.venue == venue && board.market == market)
    }

    /// True when every board of every market is complete: rates may come from any of them.
    pub fn complete(&self, boundary_ms: i64) -> bool {
        self.boards.iter().all(|board| board.complete(boundary_ms))
    }

    /// The dollar rates of a boundary, from the samples of all venues and markets at that boundary.
    pub fn rates(&self, boundary_ms: i64) -> Arc<OnceLock<UsdRates>> {
        let cell = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            while rates.len() > KEPT {
                rates.pop_first();
            }
            rates.entry(boundary_ms).or_default().clone()
        };
        cell.get_or_init(|| {
            let views: Vec<_> = self.boards.iter().filter_map(|board| board.close(boundary_ms)).collect();
            let samples = views.iter().flat_map(|view| &view.samples);
            UsdRates::from_samples(samples, &self.stablecoins)
        });
        cell
    }

    /// The dollar rates of these live samples.
    pub fn live_rates<'a>(&self, samples: impl Iterator<Item = &'a DepthSample>) -> UsdRates {
        UsdRates::from_samples(samples, &self.stablecoins)
    }
}
