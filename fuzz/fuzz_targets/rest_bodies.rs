//! Any body is read without a panic, by every parser of every venue of the registry, and any frame by its decoders.
//!
//! `cargo +nightly fuzz run rest_bodies`

#![no_main]

use std::sync::Arc;

use fathom_market::{
    ids::Market,
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
    plan::RestAnswer,
    timeframe::Timeframe,
};
use fathom_venues::{Venue, registry};
use libfuzzer_sys::fuzz_target;

fn read(venue: &dyn Venue, market: Market, instruments: &[Instrument], answer: &RestAnswer) {
    let _ = venue.parse_tickers(market, answer);
    let _ = venue.parse_funding(market, answer);
    let _ = venue.parse_candles(Timeframe::M1, answer, 0);
    let _ = venue.parse_time(answer);
    for instrument in instruments {
        let _ = venue.parse_snapshot(instrument, 100, answer);
        let _ = venue.parse_trades(instrument, InstrumentIdx(0), answer, 0);
    }
    let table = InstrumentTable::new(instruments.iter().cloned()).unwrap_or_default();
    for class in venue.classes(market) {
        venue.decoder(market, *class, Arc::new(table.clone())).decode(&answer.body, 0, &mut Vec::new());
    }
}

fuzz_target!(|body: &[u8]| {
    let answer = RestAnswer { status: 200, retry_after: None, body: body.to_vec() };
    for venue in registry::VENUES {
        for market in Market::ALL {
            let listed =
                venue.parse_instruments(market, &answer, 0).map(|parsed| parsed.rows).unwrap_or_default();
            read(*venue, market, &listed, &answer);
        }
    }
});
