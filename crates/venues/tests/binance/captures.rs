//! Finding and reading recordings, the instruments they need, and golden files.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use fathom_market::{ids::Market, instrument::InstrumentTable, plan::RestAnswer};
use fathom_venues::{Venue, binance::Binance};

/// The recordings of the venue; `None`, said aloud, where there are none.
pub(crate) fn folder() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/captures");
    let folder =
        env::var("FATHOM_CAPTURES").map_or_else(|_| PathBuf::from(default), PathBuf::from).join("binance");
    if folder.is_dir() {
        return Some(folder);
    }
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "skipped: no recordings in {}; set FATHOM_CAPTURES", folder.display());
    None
}

/// The text of a recording, uncompressed.
pub(crate) fn text(folder: &Path, name: &str) -> String {
    let bytes = fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bytes = match name.rsplit('.').next() {
        Some("zst") => zstd::stream::decode_all(bytes.as_slice()).unwrap(),
        Some("gz") => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        }
        _ => bytes,
    };
    String::from_utf8(bytes).unwrap()
}

/// One recorded thing, with the recorder's time in microseconds.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) recv_us: i64,
    /// What was asked, for a REST answer.
    pub(crate) url: Option<String>,
    pub(crate) body: String,
}

/// `<seconds>: <frame>` and `<url> -> <seconds>: <body>` of cryptofeed; other lines are the recorder's own.
pub(crate) fn cryptofeed(text: &str) -> Vec<Line> {
    let seconds = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        whole.parse::<i64>().unwrap() * 1_000_000 + micros.parse::<i64>().unwrap()
    };
    let line = |line: &str| {
        if let Some((url, rest)) = line.split_once(" -> ") {
            let (at, body) = rest.split_once(": ")?;
            return Some(Line { recv_us: seconds(at), url: Some(url.to_owned()), body: body.to_owned() });
        }
        let (at, body) = line.split_once(": ")?;
        let is_time = at.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_time.then(|| Line { recv_us: seconds(at), url: None, body: body.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// `<nanoseconds> <frame or REST body>` of hftbacktest.
pub(crate) fn hftbacktest(text: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (at, body) = line.split_once(' ').unwrap();
        Line { recv_us: at.parse::<i64>().unwrap() / 1000, url: None, body: body.to_owned() }
    };
    text.lines().map(line).collect()
}

/// A success.
pub(crate) fn answer(body: &str) -> RestAnswer {
    RestAnswer { status: 200, retry_after: None::<Duration>, body: body.into() }
}

/// The instruments of a recorded `exchangeInfo`.
pub(crate) fn listed(market: Market, body: &str) -> InstrumentTable {
    let parsed = Binance.parse_instruments(market, &answer(body), 0).unwrap();
    assert_eq!(parsed.rejected, []);
    InstrumentTable::new(parsed.rows).unwrap()
}

/// Instruments of these names, written as the venue lists them.
pub(crate) fn named(market: Market, names: &[&str]) -> InstrumentTable {
    let row = |name: &&str| {
        let (pair, expiry) =
            name.split_once('_').map_or((*name, None), |(pair, expiry)| (pair, Some(expiry)));
        let base = &pair[..3];
        let (contract, delivery) = match expiry {
            Some(_) => ("CURRENT_QUARTER", 1_656_057_600_000_i64),
            None => ("PERPETUAL", 4_133_404_800_000),
        };
        format!(
            r#"{{"symbol":"{name}","status":"TRADING","baseAsset":"{base}","quoteAsset":"{}","marginAsset":"{}",
            "contractType":"{contract}","deliveryDate":{delivery},"filters":[
            {{"filterType":"PRICE_FILTER","minPrice":"0.01","maxPrice":"1000000.00","tickSize":"0.01000000"}},
            {{"filterType":"LOT_SIZE","minQty":"0.00001","maxQty":"9000.00","stepSize":"0.00001000"}}]}}"#,
            &pair[3..],
            &pair[3..]
        )
    };
    let rows: Vec<_> = names.iter().map(row).collect();
    listed(market, &format!(r#"{{"symbols":[{}]}}"#, rows.join(",")))
}

/// Counts by name, in the order of names.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, name: impl Into<String>) {
        *self.0.entry(name.into()).or_default() += 1;
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn write(&self, out: &mut String) {
        for (name, count) in &self.0 {
            writeln!(out, "{count:>8} {name}").unwrap();
        }
    }
}

/// Compares with the golden file of a recording, or writes it where `FATHOM_UPDATE_GOLDEN` is 1.
pub(crate) fn golden(recording: &str, found: &str) {
    let name = format!("{}.golden", recording.replace('/', "__"));
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/binance")).join(name);
    if env::var("FATHOM_UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        fs::write(&path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if expected == found {
        return;
    }
    let differing = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    let lengths = (expected.lines().count(), found.lines().count());
    panic!(
        "{} differs (lines {lengths:?}); first: {differing:#?}\nFATHOM_UPDATE_GOLDEN=1 rewrites",
        path.display()
    );
}
