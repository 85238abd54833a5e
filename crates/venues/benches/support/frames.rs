//! Frames as spot sends them: book tickers of 142 bytes, aggregate trades of 205, depth updates of about 4 KB with 120
//! changes on a book of 1000 levels a side; the mix is 70, 20 and 10 of a hundred.

use std::fmt::Write;

use fathom_market::{
    event::Level,
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus, InstrumentTable},
};
use rust_decimal::Decimal;

pub(crate) const SCALE: u8 = 8;
const CHANGES_A_SIDE: usize = 60;
const LEVELS: usize = 1000;
const SYMBOLS: usize = 200;
const MID: i64 = 6_000_000_000_000;
const TICK: i64 = 1_000_000;

/// A table of some hundred instruments, of which the frames use one.
pub(crate) fn table() -> InstrumentTable {
    let venue = VenueId::new("binance");
    let instrument = |native: String| Instrument {
        id: InstrumentId::derive(venue, Market::Spot, &native),
        venue,
        market: Market::Spot,
        unified: native.as_str().into(),
        native: native.into(),
        base: "B".into(),
        quote: "USDT".into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 5),
        contract_size: Decimal::ONE,
        price_scale: SCALE,
        qty_scale: SCALE,
        valid_from_us: 0,
    };
    let names = (0..SYMBOLS).map(|n| format!("C{n}USDT")).chain(["BTCUSDT".to_owned()]);
    InstrumentTable::new(names.map(instrument)).expect("distinct names")
}

/// Which wire struct a frame needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ticker,
    Trade,
    Depth,
}

pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// Makes frames of one market whose book keeps its size.
pub(crate) struct Generator {
    seed: u64,
    update_id: u64,
    taken: [Vec<bool>; 2],
}

impl Generator {
    pub(crate) fn new() -> Self {
        let side: Vec<bool> = (0..LEVELS * 2).map(|slot| slot % 2 == 0).collect();
        Self { seed: 0x9e37_79b9_7f4a_7c15, update_id: 50_093_239_189, taken: [side.clone(), side] }
    }

    /// A linear congruential generator (Knuth's MMIX): reproducible, and good enough for digits.
    fn below(&mut self, limit: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % limit
    }

    fn qty(&mut self) -> i64 {
        1000 * (1 + self.below(900_000)).cast_signed()
    }

    fn price(&self, side: usize, slot: usize) -> i64 {
        let away = (MID / 100 * 30 / TICK / (LEVELS as i64 * 2)) * TICK * (slot as i64 + 1);
        if side == 0 { MID - away } else { MID + away }
    }

    pub(crate) fn snapshot(&mut self) -> [Vec<Level>; 2] {
        [0, 1].map(|side| {
            let slots: Vec<_> = (0..LEVELS * 2).filter(|slot| self.taken[side][*slot]).collect();
            slots.into_iter().map(|slot| Level { price: self.price(side, slot), qty: self.qty() }).collect()
        })
    }

    pub(crate) fn ticker(&mut self) -> Frame {
        self.update_id += 1;
        let (bid, ask) = (text(self.qty()), text(self.qty()));
        let (bid_price, ask_price) = (text(self.price(0, 0)), text(self.price(1, 0)));
        let text = format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{},"s":"BTCUSDT","b":"{bid_price}","B":"{bid}","a":"{ask_price}","A":"{ask}"}}}}"#,
            self.update_id
        );
        Frame { kind: Kind::Ticker, text }
    }

    pub(crate) fn trade(&mut self) -> Frame {
        self.update_id += 1;
        let (id, qty, maker) = (self.update_id, text(self.qty()), self.below(2) == 0);
        let price = text(self.price(usize::from(!maker), 0));
        let text = format!(
            r#"{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":1723161255343,"s":"BTCUSDT","a":{},"p":"{price}","q":"{qty}","f":{},"l":{},"T":1723161255342,"m":{maker},"M":true}}}}"#,
            id / 16,
            id / 13,
            id / 13 + 1
        );
        Frame { kind: Kind::Trade, text }
    }

    pub(crate) fn depth(&mut self) -> Frame {
        let first = self.update_id + 1;
        self.update_id += 150;
        let [bids, asks] = [0, 1].map(|side| self.changes(side));
        let text = format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":{first},"u":{},"b":[{bids}],"a":[{asks}]}}}}"#,
            self.update_id
        );
        Frame { kind: Kind::Depth, text }
    }

    /// A third of the changes are removals, as many are additions, the rest change a quantity; best first.
    fn changes(&mut self, side: usize) -> String {
        let mut slots: Vec<usize> = Vec::new();
        while slots.len() < CHANGES_A_SIDE {
            let wants_taken = slots.len() % 3 != 1;
            let slot = usize::try_from(self.below(LEVELS as u64 * 2)).expect("a small number");
            if self.taken[side][slot] == wants_taken && !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        let mut changes: Vec<_> = slots.iter().enumerate().map(|(at, slot)| (*slot, at % 3 == 0)).collect();
        changes.sort_unstable();
        let mut out = String::new();
        for (slot, removed) in changes {
            self.taken[side][slot] = !removed;
            let qty = if removed { 0 } else { self.qty() };
            let comma = if out.is_empty() { "" } else { "," };
            write!(out, r#"{comma}["{}","{}"]"#, text(self.price(side, slot)), text(qty)).expect("a string");
        }
        out
    }

    /// Hundreds of frames, 70 % tickers, 20 % trades, 10 % depth, evenly spread.
    pub(crate) fn mix(&mut self, hundreds: usize) -> Vec<Frame> {
        let frame = |n: usize| match n % 10 {
            4 => self.depth(),
            1 | 7 => self.trade(),
            _ => self.ticker(),
        };
        (0..hundreds * 100).map(frame).collect()
    }
}

fn text(mantissa: i64) -> String {
    format!("{}.{:08}", mantissa / 100_000_000, mantissa % 100_000_000)
}
