//! The first pass: which symbols a recording has, how many decimals their prices and quantities really use, and which
//! instruments are listed in it. Scales that are no finer than needed let every value fit its mantissa.
//!
//! It only looks for numbers, after binance.md section 4; what they mean is the decoder's to say.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::Context;
use fathom_market::{
    decimal::decimals_used,
    ids::Market,
    instrument::{Instrument, InstrumentTable},
    plan::RestAnswer,
};
use fathom_venues::Venue;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    content::{self, Content},
    names,
};

/// A number with more decimals is damaged: it must not take room from all others of its symbol.
const MAX_DECIMALS: u8 = 12;
const MAX_SYMBOLS: usize = 10_000;
const MAX_SYMBOL_BYTES: usize = 64;

/// Decimals that the numbers of a symbol use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decimals {
    pub(super) price: u8,
    pub(super) qty: u8,
}

impl Decimals {
    fn price(&mut self, text: &str) {
        self.price = wider(self.price, text);
    }

    fn qty(&mut self, text: &str) {
        self.qty = wider(self.qty, text);
    }

    /// `[["price","qty"],...]`, read as text: a survey needs no more than the numbers.
    fn levels(&mut self, levels: &str) {
        for level in levels.split('[').filter(|level| !level.is_empty()) {
            let mut numbers = level.split([',', ']']).map(unquoted);
            if let (Some(price), Some(qty)) = (numbers.next(), numbers.next()) {
                self.price(price);
                self.qty(qty);
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.price = self.price.max(other.price);
        self.qty = self.qty.max(other.qty);
    }
}

fn wider(decimals: u8, text: &str) -> u8 {
    let used = decimals_used(text).ok().filter(|used| *used <= MAX_DECIMALS);
    decimals.max(used.unwrap_or(0))
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    e: Option<&'a RawValue>,
    #[serde(borrow)]
    s: Option<&'a RawValue>,
    #[serde(borrow)]
    p: Option<&'a RawValue>,
    #[serde(borrow)]
    q: Option<&'a RawValue>,
    #[serde(borrow)]
    b: Option<&'a RawValue>,
    #[serde(borrow, rename = "B")]
    bid_qty: Option<&'a RawValue>,
    #[serde(borrow)]
    a: Option<&'a RawValue>,
    #[serde(borrow, rename = "A")]
    ask_qty: Option<&'a RawValue>,
    #[serde(borrow)]
    k: Option<&'a RawValue>,
    #[serde(borrow)]
    bids: Option<&'a RawValue>,
    #[serde(borrow)]
    asks: Option<&'a RawValue>,
}

impl Record<'_> {
    fn decimals(&self) -> Decimals {
        let mut decimals = Decimals::default();
        let text = |raw: &Option<&RawValue>| raw.map_or("", |raw| unquoted(raw.get())).to_owned();
        match self.e.map(|kind| unquoted(kind.get())) {
            Some("aggTrade" | "trade") => {
                decimals.price(&text(&self.p));
                decimals.qty(&text(&self.q));
            }
            Some("depthUpdate") => {
                [self.b, self.a].iter().flatten().for_each(|side| decimals.levels(side.get()))
            }
            Some("bookTicker") | None => {
                [&self.b, &self.a].into_iter().for_each(|price| decimals.price(&text(price)));
                [&self.bid_qty, &self.ask_qty].into_iter().for_each(|qty| decimals.qty(&text(qty)));
                [self.bids, self.asks].iter().flatten().for_each(|side| decimals.levels(side.get()));
            }
            Some(_) => {}
        }
        decimals
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn name(raw: &RawValue) -> Option<Cow<'_, str>> {
    if raw.get().contains('\\') {
        read(raw.get()).map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(unquoted(raw.get())))
    }
}

/// Which symbols a recording has, as far as that tells whose a nameless book is.
#[derive(Default)]
enum Sole {
    #[default]
    None,
    One(String),
    Several,
}

#[derive(Default)]
struct FileFacts {
    symbol: Sole,
    /// Of books whose symbol is not told.
    nameless: Decimals,
}

impl FileFacts {
    fn note(&mut self, symbol: &str) {
        match &self.symbol {
            Sole::None => self.symbol = Sole::One(symbol.to_owned()),
            Sole::One(known) if known == symbol => {}
            Sole::One(_) | Sole::Several => self.symbol = Sole::Several,
        }
    }
}

/// What the first pass found.
pub(super) struct Survey {
    venue: &'static dyn Venue,
    market: Market,
    symbols: BTreeMap<String, Decimals>,
    files: BTreeMap<usize, FileFacts>,
    listed: HashMap<Box<str>, Instrument>,
}

impl Survey {
    pub(super) fn new(venue: &'static dyn Venue, market: Market) -> Self {
        Self { venue, market, symbols: BTreeMap::new(), files: BTreeMap::new(), listed: HashMap::new() }
    }

    /// Looks at a recorded text of the recording at this position.
    pub(super) fn frame(&mut self, file: usize, text: &[u8]) {
        self.content(file, &Content::of(text));
    }

    /// Looks at an answer of REST.
    pub(super) fn answer(&mut self, file: usize, url: &str, body: &[u8]) {
        if let Some((content, _)) = content::of_answer(url, body) {
            self.content(file, &content);
        }
    }

    fn content(&mut self, file: usize, content: &Content<'_>) {
        match content {
            Content::Frame(frame) => {
                if let Ok(text) = std::str::from_utf8(frame) {
                    self.events(file, text);
                }
            }
            Content::Snapshot { symbol, body } => {
                let record = std::str::from_utf8(body).ok().and_then(read::<Record<'_>>);
                let decimals = record.map_or_else(Decimals::default, |record| record.decimals());
                match symbol {
                    Some(symbol) => self.note(file, symbol, decimals),
                    None => self.files.entry(file).or_default().nameless.join(decimals),
                }
            }
            Content::Instruments(body) => self.instruments(body),
        }
    }

    fn events(&mut self, file: usize, text: &str) {
        let envelope = read::<Envelope<'_>>(text).filter(|_| !text.trim_start().starts_with('['));
        let (stream, data) = match &envelope {
            Some(Envelope { stream: Some(stream), data: Some(data) }) => (name(stream), data.get()),
            _ => (None, text),
        };
        if !data.starts_with('[') {
            return self.event(file, data, stream.as_deref());
        }
        for element in read::<Vec<&RawValue>>(data).unwrap_or_default() {
            self.event(file, element.get(), stream.as_deref());
        }
    }

    fn event(&mut self, file: usize, text: &str, stream: Option<&str>) {
        let Some(record) = read::<Record<'_>>(text) else { return };
        let of_candle =
            record.k.and_then(|candle| read::<Record<'_>>(candle.get())).and_then(|candle| candle.s);
        let of_stream = || Some(Cow::Owned(stream?.split_once('@')?.0.to_ascii_uppercase()));
        let symbol = of_candle.or(record.s).and_then(name).or_else(of_stream);
        if let Some(symbol) = symbol {
            self.note(file, &symbol, record.decimals());
        }
    }

    fn note(&mut self, file: usize, symbol: &str, decimals: Decimals) {
        self.files.entry(file).or_default().note(symbol);
        if let Some(known) = self.symbols.get_mut(symbol) {
            return known.join(decimals);
        }
        if self.symbols.len() < MAX_SYMBOLS && !symbol.is_empty() && symbol.len() <= MAX_SYMBOL_BYTES {
            self.symbols.insert(symbol.to_owned(), decimals);
        }
    }

    fn instruments(&mut self, body: &[u8]) {
        let answer = RestAnswer { status: 200, retry_after: None, body: body.to_vec() };
        if let Ok(parsed) = self.venue.parse_instruments(self.market, &answer, 0) {
            let entry = |instrument: Instrument| (instrument.native.clone(), instrument);
            self.listed.extend(parsed.rows.into_iter().map(entry));
        }
    }

    /// The only symbol of the recording at this position.
    pub(super) fn only_symbol(&self, file: usize) -> Option<&str> {
        match &self.files.get(&file)?.symbol {
            Sole::One(symbol) => Some(symbol),
            Sole::None | Sole::Several => None,
        }
    }

    /// What nameless books ask of a symbol: those of its own recordings, and of recordings of several symbols.
    fn nameless(&self, native: &str) -> Decimals {
        let mut decimals = Decimals::default();
        for facts in self.files.values() {
            if !matches!(&facts.symbol, Sole::One(symbol) if symbol != native) {
                decimals.join(facts.nameless);
            }
        }
        decimals
    }

    /// The instruments of the recording's symbols: as listed, else by their names.
    ///
    /// # Errors
    /// When two symbols have the same id.
    pub(super) fn table(&self) -> anyhow::Result<Arc<InstrumentTable>> {
        let instrument = |(native, decimals): (&String, &Decimals)| {
            let mut decimals = *decimals;
            decimals.join(self.nameless(native));
            match self.listed.get(native.as_str()) {
                Some(listed) => Some(Instrument {
                    price_scale: decimals.price,
                    qty_scale: decimals.qty,
                    ..listed.clone()
                }),
                None => names::instrument(self.venue.id(), self.market, native, decimals),
            }
        };
        let table = InstrumentTable::new(self.symbols.iter().filter_map(instrument));
        Ok(Arc::new(table.context("cannot tell the recording's symbols apart")?))
    }
}
