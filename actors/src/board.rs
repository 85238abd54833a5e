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
    live_since_ms: i64,
}

impl MinuteBoard {
    /// An empty board that expects nobody.
    pub fn new(venue: VenueId, market: Market) -> Self {
        let inner = Inner {
            board: SampleBoard::new([]),
            closed: BTreeMap::new(),
            started_ms: None,
            live_since_ms: i64::MAX,
        };
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
        let mut inner = self.lock();
        if sample.state.is_usable() {
            inner.live_since_ms = inner.live_since_ms.min(sample.boundary_ms);
        }
        inner.board.put(sample);
    }

    /// True when one of its books was live at this boundary or an earlier one.
    pub fn was_live(&self, boundary_ms: i64) -> bool {
        self.lock().live_since_ms <= boundary_ms
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

#[cfg(test)]
mod tests {
    use fathom_market::sample::SampleState;

    use super::*;
    use crate::fixtures::{BINANCE, MINUTE_MS, dec, instrument, instrument_of, sample};

    const NEXT_MS: i64 = MINUTE_MS + 60_000;

    fn board(market: Market) -> (MinuteBoard, Arc<Instrument>, Arc<Instrument>) {
        let board = MinuteBoard::new(BINANCE, market);
        let (btc, eth) = (instrument(market, "BTC"), instrument(market, "ETH"));
        board.expect(vec![btc.clone(), eth.clone()], MINUTE_MS);
        (board, btc, eth)
    }

    #[test]
    fn a_boundary_is_closed_once_and_everyone_gets_the_same_view() {
        let (board, btc, eth) = board(Market::Spot);
        board.put(sample(&btc, MINUTE_MS, "100", "1", "1"));
        let view = board.close(MINUTE_MS).unwrap();
        assert_eq!((view.samples.len(), view.members.len(), view.missing()), (1, 2, 1));
        board.put(sample(&eth, MINUTE_MS, "10", "1", "1"));
        board.put(sample(&btc, MINUTE_MS, "999", "1", "1"));
        assert_eq!(board.counts(), BoardCounts { late: 2, ..BoardCounts::default() });
        let again = board.close(MINUTE_MS).unwrap();
        assert!(Arc::ptr_eq(&view, &again));
        assert_eq!((again.samples.len(), again.samples[0].mid), (1, Some(dec("100"))));
    }

    #[test]
    fn a_boundary_is_complete_when_nothing_more_can_come() {
        let empty = MinuteBoard::new(BINANCE, Market::Spot);
        assert!(empty.complete(MINUTE_MS) && empty.close(MINUTE_MS).is_none(), "no book is known yet");
        let (board, btc, eth) = board(Market::Spot);
        assert!(
            board.complete(MINUTE_MS - 60_000) && board.close(MINUTE_MS - 60_000).is_none(),
            "before its start"
        );
        assert!(!board.complete(MINUTE_MS));
        board.put(sample(&btc, MINUTE_MS, "100", "1", "1"));
        assert!(!board.complete(MINUTE_MS));
        board.put(sample(&eth, MINUTE_MS, "10", "1", "1"));
        assert!(board.complete(MINUTE_MS) && !board.complete(NEXT_MS));
        board.close(NEXT_MS);
        assert!(board.complete(NEXT_MS), "it is closed");
    }

    #[test]
    fn what_is_no_member_or_said_before_is_refused() {
        let (board, btc, _) = board(Market::Spot);
        board.put(sample(&btc, MINUTE_MS, "100", "1", "1"));
        board.put(sample(&btc, MINUTE_MS, "200", "1", "1"));
        board.put(sample(&instrument(Market::Spot, "SOL"), MINUTE_MS, "1", "1", "1"));
        assert_eq!(board.counts(), BoardCounts { duplicate: 1, unexpected: 1, ..BoardCounts::default() });
        assert_eq!(board.close(MINUTE_MS).unwrap().samples[0].mid, Some(dec("100")), "the first one stays");
    }

    #[test]
    fn closed_boundaries_are_kept_for_those_who_come_late_but_not_for_ever() {
        let (board, ..) = board(Market::Spot);
        let minutes: Vec<_> = (0..6).map(|minute| MINUTE_MS + minute * 60_000).collect();
        let views: Vec<_> = minutes.iter().map(|&at_ms| board.close(at_ms).unwrap()).collect();
        for (at, &at_ms) in minutes.iter().enumerate() {
            let again = board.close(at_ms);
            assert_eq!(again.is_some_and(|view| Arc::ptr_eq(&view, &views[at])), at >= 2, "minute {at}");
        }
    }

    #[test]
    fn rates_come_from_every_market_and_are_worked_out_once() {
        let (spot, btc, eth) = board(Market::Spot);
        let futures = MinuteBoard::new(BINANCE, Market::Futures);
        let in_eth = instrument_of(BINANCE, Market::Futures, "LINK", "ETH");
        futures.expect(vec![in_eth.clone()], MINUTE_MS);
        let boards = Boards::new(vec![Arc::new(spot), Arc::new(futures)], vec!["USDT".into()]);
        let (spot, futures) =
            (boards.get(BINANCE, Market::Spot).unwrap(), boards.get(BINANCE, Market::Futures).unwrap());
        assert_eq!(boards.of_market(Market::Spot).count(), 1);
        spot.put(sample(&btc, MINUTE_MS, "50000", "1", "1"));
        spot.put(sample(&eth, MINUTE_MS, "2000", "1", "1"));
        assert!(spot.complete(MINUTE_MS) && !boards.complete(MINUTE_MS), "futures are awaited");
        futures.put(sample(&in_eth, MINUTE_MS, "0.01", "1", "1"));
        assert!(boards.complete(MINUTE_MS));

        let rates = boards.rates(MINUTE_MS);
        let rate = |asset| rates.get().unwrap().usd(BINANCE, Market::Futures, asset);
        assert_eq!(
            [rate("USDT"), rate("ETH"), rate("BTC")],
            ["1", "2000", "50000"].map(|usd| Some(dec(usd)))
        );
        assert_eq!(rate("DOGE"), None);
        assert!(Arc::ptr_eq(&rates, &boards.rates(MINUTE_MS)));
        for board in [spot, futures] {
            let view = board.close(MINUTE_MS).unwrap();
            assert_eq!(view.missing(), 0, "aggregators of both markets fold what the rates were made from");
        }
        let unusable = DepthSample { state: SampleState::Stale, ..sample(&eth, NEXT_MS, "2000", "1", "1") };
        assert_eq!(boards.live_rates([&unusable].into_iter()).usd(BINANCE, Market::Spot, "ETH"), None);
    }
}
