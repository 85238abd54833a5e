//! Any bytes are decoded without a panic, and the fast path says what the full parser says.
//!
//! `cargo +nightly fuzz run decode_binance -- -dict=fuzz/binance.dict`

#![no_main]

use std::sync::OnceLock;

use fathom_market::{ids::Market, instrument::InstrumentTable, plan::RestAnswer};
use fathom_venues::{Decoder, Venue, binance::Binance, binance::decode::BinanceDecoder};
use libfuzzer_sys::fuzz_target;

const LISTED: &str = r#"{"symbols":[
    {"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[
        {"filterType":"PRICE_FILTER","maxPrice":"1000000","tickSize":"0.01"},
        {"filterType":"LOT_SIZE","maxQty":"9000","stepSize":"0.00001"}]},
    {"symbol":"A","status":"TRADING","baseAsset":"A","quoteAsset":"USDT","filters":[
        {"filterType":"PRICE_FILTER","maxPrice":"9000000000000000","tickSize":"0.01"},
        {"filterType":"LOT_SIZE","maxQty":"9000000000000000","stepSize":"1"}]}]}"#;

fn table() -> &'static InstrumentTable {
    static TABLE: OnceLock<InstrumentTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let answer = RestAnswer { status: 200, retry_after: None, body: LISTED.into() };
        let parsed = Binance.parse_instruments(Market::Spot, &answer, 0).expect("a sound body");
        InstrumentTable::new(parsed.rows).expect("distinct names")
    })
}

fuzz_target!(|frame: &[u8]| {
    let mut decoder = BinanceDecoder::new(table());
    let (mut fast, mut full) = (Vec::new(), Vec::new());
    decoder.decode(frame, 1, &mut fast);
    decoder.decode_full(frame, 1, &mut full);
    assert_eq!(fast, full);
});
