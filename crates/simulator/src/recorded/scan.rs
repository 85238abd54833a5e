//! Reads recorded files (`<receive time ns> <json>`, gzip) and finds out what they hold. Nothing is kept but counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fathom_market::decimal::decimals_used;
use fathom_market::ids::Market;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::universe::{Contract, Listing};
use crate::wire::streams::Kind;

/// Why a recording cannot be used.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not what the format says.
    #[error("{path}: a line is no recorded frame: {line:.120}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// A frame's payload cannot be read.
    #[error("unreadable payload: {0}")]
    Payload(String),
    /// A snapshot names no symbol, so its file must hold only one.
    #[error("{0} holds a snapshot and other than one symbol")]
    AmbiguousSnapshot(PathBuf),
    /// There is nothing in the files.
    #[error("the recording is empty")]
    Empty,
}

/// One recorded symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSymbol {
    /// Native symbol.
    pub native: String,
    /// Frames of each stream.
    pub streams: BTreeMap<String, u64>,
    /// Decimals that its prices really use.
    pub price_decimals: u8,
    /// Decimals that its quantities really use.
    pub qty_decimals: u8,
}

/// What a recording holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedManifest {
    /// Its market.
    pub market: Market,
    /// Its symbols.
    pub symbols: Vec<RecordedSymbol>,
    /// Frames of all streams.
    pub frames: u64,
    /// REST depth snapshots.
    pub snapshots: u64,
    /// Receive time of the first line, ns.
    pub first_ns: i64,
    /// Receive time of the last line, ns.
    pub last_ns: i64,
    /// The symbol of each file that holds only one.
    files: Vec<(PathBuf, Option<usize>)>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Frame { ns: i64, stream: String, data: String },
    Snapshot { ns: i64, body: String },
}

impl Line {
    pub(crate) const fn ns(&self) -> i64 {
        match self {
            Self::Frame { ns, .. } | Self::Snapshot { ns, .. } => *ns,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (ns, json) = text.split_once(' ')?;
        let ns = ns.parse().ok()?;
        let Some(rest) = json.strip_prefix(r#"{"stream":""#) else {
            return json.contains("lastUpdateId").then(|| Self::Snapshot { ns, body: json.to_owned() });
        };
        let (stream, rest) = rest.split_once('"')?;
        let data = rest.strip_prefix(r#","data":"#)?.strip_suffix('}')?;
        Some(Self::Frame { ns, stream: stream.to_owned(), data: data.to_owned() })
    }
}

/// The lines of a file.
pub(crate) fn lines(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Line, ScanError>> + Send + use<>, ScanError> {
    let path: Arc<Path> = Arc::from(path);
    let io = |path: &Path, source| ScanError::Io { path: path.to_owned(), source };
    let file = File::open(&path).map_err(|source| io(&path, source))?;
    let reader = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(file)));
    Ok(reader.lines().filter(|line| !matches!(line, Ok(text) if text.trim().is_empty())).map(move |line| {
        let text = line.map_err(|source| io(&path, source))?;
        Line::parse(text.trim_end())
            .ok_or_else(|| ScanError::BadLine { path: path.to_path_buf(), line: text })
    }))
}

/// The numbers of a payload, for their digits.
#[derive(Deserialize)]
struct Numbers<'a> {
    #[serde(borrow, default, alias = "bids")]
    b: Option<Part<'a>>,
    #[serde(borrow, default, alias = "asks")]
    a: Option<Part<'a>>,
    #[serde(default, rename = "B")]
    bid_qty: Option<&'a str>,
    #[serde(default, rename = "A")]
    ask_qty: Option<&'a str>,
    #[serde(default, rename = "p")]
    price: Option<&'a str>,
    #[serde(default, rename = "q")]
    qty: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part<'a> {
    One(&'a str),
    #[serde(borrow)]
    Many(Vec<(&'a str, &'a str)>),
}

#[derive(Default)]
struct Digits {
    price: u8,
    qty: u8,
}

impl Digits {
    fn read(&mut self, payload: &str) -> Result<(), ScanError> {
        let numbers: Numbers<'_> =
            serde_json::from_str(payload).map_err(|error| ScanError::Payload(error.to_string()))?;
        for part in [&numbers.b, &numbers.a].into_iter().flatten() {
            match part {
                Part::One(price) => see(&mut self.price, price)?,
                Part::Many(levels) => {
                    for (price, qty) in levels {
                        see(&mut self.price, price)?;
                        see(&mut self.qty, qty)?;
                    }
                }
            }
        }
        for qty in [numbers.bid_qty, numbers.ask_qty, numbers.qty].into_iter().flatten() {
            see(&mut self.qty, qty)?;
        }
        numbers.price.map_or(Ok(()), |price| see(&mut self.price, price))
    }
}

fn see(most: &mut u8, text: &str) -> Result<(), ScanError> {
    let used = decimals_used(text).map_err(|error| ScanError::Payload(format!("{text:?}: {error}")))?;
    *most = (*most).max(used);
    Ok(())
}

impl RecordedManifest {
    /// Reads all files once.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is no frame, an empty recording, a snapshot of an unknown symbol.
    pub fn scan(market: Market, files: &[PathBuf]) -> Result<Self, ScanError> {
        let mut manifest = Self {
            market,
            symbols: Vec::new(),
            frames: 0,
            snapshots: 0,
            first_ns: 0,
            last_ns: 0,
            files: Vec::new(),
        };
        let mut digits: Vec<Digits> = Vec::new();
        for path in files {
            manifest.scan_file(path, &mut digits)?;
        }
        if manifest.frames == 0 {
            return Err(ScanError::Empty);
        }
        for (symbol, digits) in manifest.symbols.iter_mut().zip(&digits) {
            (symbol.price_decimals, symbol.qty_decimals) = (digits.price, digits.qty);
        }
        Ok(manifest)
    }

    fn scan_file(&mut self, path: &Path, digits: &mut Vec<Digits>) -> Result<(), ScanError> {
        let mut seen: Vec<usize> = Vec::new();
        let mut bodies = Vec::new();
        for line in lines(path)? {
            let line = line?;
            if self.first_ns == 0 {
                self.first_ns = line.ns();
            }
            self.last_ns = line.ns();
            match line {
                Line::Snapshot { body, .. } => bodies.push(body),
                Line::Frame { stream, data, .. } => {
                    let index = self.count(&stream, digits);
                    digits[index].read(&data)?;
                    if !seen.contains(&index) {
                        seen.push(index);
                    }
                }
            }
        }
        let only = if seen.len() == 1 { Some(seen[0]) } else { None };
        self.files.push((path.to_owned(), only));
        for body in bodies {
            let index = only.ok_or_else(|| ScanError::AmbiguousSnapshot(path.to_owned()))?;
            digits[index].read(&body)?;
            self.snapshots += 1;
        }
        Ok(())
    }

    fn count(&mut self, stream: &str, digits: &mut Vec<Digits>) -> usize {
        self.frames += 1;
        let native = stream.split('@').next().unwrap_or(stream).to_ascii_uppercase();
        let index = self.symbols.iter().position(|symbol| symbol.native == native).unwrap_or_else(|| {
            let streams = BTreeMap::new();
            self.symbols.push(RecordedSymbol { native, streams, price_decimals: 0, qty_decimals: 0 });
            digits.push(Digits::default());
            self.symbols.len() - 1
        });
        *self.symbols[index].streams.entry(stream.to_owned()).or_default() += 1;
        index
    }

    pub(crate) fn symbol_of_file(&self, path: &Path) -> Result<usize, ScanError> {
        let found = self.files.iter().find(|(file, _)| file == path).and_then(|(_, symbol)| *symbol);
        found.ok_or_else(|| ScanError::AmbiguousSnapshot(path.to_owned()))
    }

    /// What a recorded stream name means.
    pub(crate) fn meaning(&self, stream: &str) -> Option<(usize, Kind)> {
        let (symbol, what) = stream.split_once('@')?;
        let index = self.symbols.iter().position(|known| known.native.eq_ignore_ascii_case(symbol))?;
        let kind = if what.starts_with("depth@") { Kind::Depth(0) } else { Kind::parse(self.market, what)? };
        Some((index, kind))
    }

    /// Symbol and kind of every recorded stream.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (usize, Kind)> {
        self.symbols.iter().flat_map(|symbol| symbol.streams.keys()).filter_map(|stream| self.meaning(stream))
    }

    /// The symbols as instruments.
    pub(crate) fn listings(&self) -> Vec<Listing> {
        self.symbols.iter().map(|symbol| self.listing(symbol)).collect()
    }

    fn listing(&self, symbol: &RecordedSymbol) -> Listing {
        let spot = super::is_spot(self.market);
        let quotes = ["USDT", "USDC", "FDUSD", "BUSD", "EUR", "BTC", "ETH", "BNB"];
        let quote = quotes.into_iter().find(|quote| symbol.native.ends_with(quote)).unwrap_or("USDT");
        let base = symbol.native.strip_suffix(quote).unwrap_or(&symbol.native);
        let (price, qty) = (symbol.price_decimals, symbol.qty_decimals);
        Listing {
            native: symbol.native.clone(),
            lower: symbol.native.to_ascii_lowercase(),
            base: base.to_owned(),
            quote: quote.to_owned(),
            margin: quote.to_owned(),
            contract: if spot { Contract::Spot } else { Contract::Perpetual },
            status: "TRADING",
            price_scale: price,
            qty_scale: qty,
            price_decimals: if spot { price.max(8) } else { price },
            qty_decimals: if spot { qty.max(8) } else { qty },
            quote_decimals: price + qty,
            anchor: 0.0,
            quote_usd: 1.0,
            weight: 1.0,
            levels: 0,
            onboard_ms: self.first_ns / 1_000_000,
            funding_hours: 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_without_touching_the_data() {
        let line = r#"17 {"stream":"btcusdt@trade","data":{"e":"trade","p":"1.0"}}"#;
        let data = r#"{"e":"trade","p":"1.0"}"#.to_owned();
        assert_eq!(Line::parse(line), Some(Line::Frame { ns: 17, stream: "btcusdt@trade".to_owned(), data }));
        assert!(matches!(Line::parse(r#"5 {"lastUpdateId":1}"#), Some(Line::Snapshot { ns: 5, .. })));
        assert_eq!(Line::parse("nonsense"), None);
    }
}
