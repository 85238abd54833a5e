//! The sample that a book gives to the aggregators: its depth in every band, or why it has none. Pure.

use std::sync::Arc;

use fathom_market::{
    book::{BookKeeper, BookState, OrderBook},
    decimal::to_decimal,
    depth::sum_to_decimal,
    instrument::Instrument,
    sample::{BandSums, DepthSample, SampleState},
};

use crate::settings::DepthSettings;

/// Takes the sample of a book now.
pub fn take(
    instrument: &Arc<Instrument>,
    keeper: &BookKeeper,
    depth: &DepthSettings,
    boundary_ms: i64,
    now_us: i64,
) -> DepthSample {
    let state = sample_state(keeper.state());
    let book = keeper.book();
    let usable = state.is_usable();
    let price = |level: Option<fathom_market::event::Level>| {
        level.filter(|_| usable).map(|level| to_decimal(level.price, instrument.price_scale))
    };
    DepthSample {
        instrument: instrument.clone(),
        boundary_ms,
        state,
        mid: book.mid(instrument.price_scale).filter(|_| usable),
        best_bid: price(book.best_bid()),
        best_ask: price(book.best_ask()),
        last_id: keeper.last_id().unwrap_or(0),
        age_us: keeper.last_recv_us().map_or(0, |last| now_us - last),
        bands: if usable { bands(instrument, book, depth) } else { Vec::new() },
    }
}

/// The state of a book as a sample's.
pub const fn sample_state(state: BookState) -> SampleState {
    match state {
        BookState::Live => SampleState::Live,
        BookState::Polled => SampleState::Polled,
        BookState::Syncing => SampleState::Syncing,
        BookState::Stale => SampleState::Stale,
        BookState::Crossed => SampleState::Crossed,
        BookState::Paused => SampleState::Paused,
    }
}

fn bands(instrument: &Instrument, book: &OrderBook, depth: &DepthSettings) -> Vec<BandSums> {
    let Some(sums) = book.depth(&depth.bands, depth.reference) else { return Vec::new() };
    let base = |sum| sum_to_decimal(sum, instrument.qty_scale);
    let quote = |sum| sum_to_decimal(sum, instrument.price_scale + instrument.qty_scale);
    sums.bands
        .iter()
        .map(|band| BandSums {
            bid_volume: base(band.bid_qty),
            ask_volume: base(band.ask_qty),
            bid_quote: quote(band.bid_notional),
            ask_quote: quote(band.ask_notional),
            bid_covered: band.bid_covered,
            ask_covered: band.ask_covered,
        })
        .collect()
}
