//! Books rebuilt from recordings by the venue's rule: all of them sync, nothing is missing, none is ever crossed. The
//! numbers of updates are those that were verified when the recordings were collected.

use std::collections::BTreeMap;

use fathom_market::{
    book::{BookKeeper, BookState, KeeperLimits, LineChain, Link},
    event::{Body, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
};
use fathom_venues::{Decoded, Decoder, Venue, binance::Binance, binance::decode::BinanceDecoder};

use crate::captures::{Line, answer, cryptofeed, folder, hftbacktest, listed, named, text};

struct Book {
    keeper: BookKeeper,
    chain: LineChain,
    epoch: u64,
}

struct Replay<'t> {
    market: Market,
    table: &'t InstrumentTable,
    decoder: BinanceDecoder,
    books: BTreeMap<InstrumentIdx, Book>,
}

impl<'t> Replay<'t> {
    fn new(market: Market, table: &'t InstrumentTable) -> Self {
        Self { market, table, decoder: BinanceDecoder::new(table), books: BTreeMap::new() }
    }

    fn book(&mut self, idx: InstrumentIdx, now_us: i64) -> &mut Book {
        let rule = Binance.sync_rule(self.market);
        self.books.entry(idx).or_insert_with(|| {
            let mut keeper = BookKeeper::new(rule, KeeperLimits::default(), now_us);
            let epoch = keeper.begin_sync();
            Book { keeper, chain: LineChain::new(), epoch }
        })
    }

    fn frame(&mut self, line: &Line) {
        let mut out = Vec::new();
        self.decoder.decode(line.body.as_bytes(), line.recv_us, &mut out);
        let rule = Binance.sync_rule(self.market);
        for decoded in out {
            if let Decoded::Event(Event { instrument, event_us, recv_us, body: Body::Delta(delta), .. }) =
                decoded
            {
                let book = self.book(instrument, recv_us);
                let link = book.chain.check(rule, &delta.ids);
                assert!(!matches!(link, Link::Gap { .. }), "{link:?} at {delta:?}");
                book.keeper.on_delta(delta, event_us, recv_us);
            }
        }
    }

    fn snapshot(&mut self, native: &str, limit: usize, line: &Line) {
        let idx = self.table.find(native).unwrap();
        let instrument = self.table.get(idx).unwrap().clone();
        let snapshot = Binance.parse_snapshot(&instrument, limit, &answer(&line.body)).unwrap();
        let book = self.book(idx, line.recv_us);
        let epoch = book.epoch;
        book.keeper.on_snapshot(&snapshot, epoch, line.recv_us);
    }

    fn assert_sound(&self, books: usize, applied: u64) {
        assert_eq!(self.books.len(), books);
        for book in self.books.values() {
            let counters = book.keeper.counters();
            assert_eq!(book.keeper.state(), BookState::Live, "{:?}", book.keeper.cause());
            assert_eq!((counters.gaps, counters.crossed, counters.refused, counters.synced), (0, 0, 0, 1));
            assert!(!book.keeper.book().is_crossed() && book.keeper.book().n_bids() > 100);
        }
        assert_eq!(self.books.values().map(|book| book.keeper.counters().applied).sum::<u64>(), applied);
    }
}

#[test]
fn books_of_one_symbol_over_a_days_end() {
    let Some(folder) = folder() else { return };
    let table = named(Market::Spot, &["BTCUSDT"]);
    let mut replay = Replay::new(Market::Spot, &table);
    for (recording, applied) in
        [("spot/btcusdt_20240808.hftb.gz", 3449), ("spot/btcusdt_20240809.hftb.gz", 3449 + 3044)]
    {
        run(&mut replay, "BTCUSDT", &hftbacktest(&text(&folder, recording)));
        replay.assert_sound(1, applied);
    }
    let table = named(Market::Futures, &["ETHUSDT"]);
    let mut replay = Replay::new(Market::Futures, &table);
    run(&mut replay, "ETHUSDT", &hftbacktest(&text(&folder, "usdm/ethusdt_20240808.hftb.gz")));
    replay.assert_sound(1, 6581);
}

fn run(replay: &mut Replay<'_>, native: &str, lines: &[Line]) {
    for line in lines {
        if line.body.starts_with("{\"lastUpdateId\"") {
            replay.snapshot(native, 1000, line);
        } else {
            replay.frame(line);
        }
    }
}

#[test]
fn books_of_several_small_coins() {
    let Some(folder) = folder() else { return };
    for (market, recording, applied) in
        [(Market::Spot, "spot/alts_20211012", 172), (Market::Futures, "usdm/alts_20210722", 752)]
    {
        let read = |name: &str| cryptofeed(&text(&folder, &format!("{recording}/{name}")));
        let table = listed(market, &read("exchangeInfo.http.zst")[0].body);
        let mut replay = Replay::new(market, &table);
        let mut lines = read("stream.ws.zst");
        lines.extend(read("depth_snapshots.http.zst"));
        lines.sort_by_key(|line| line.recv_us);
        for line in &lines {
            match &line.url {
                Some(url) => {
                    let symbol = url.split("symbol=").nth(1).unwrap().split('&').next().unwrap();
                    replay.snapshot(symbol, 1000, line);
                }
                None => replay.frame(line),
            }
        }
        replay.assert_sound(4, applied);
    }
}
