//! Applies recorded payloads to the book that they describe, and reads what the ledger wants to know of them.

use fathom_market::decimal::parse_scaled;
use fathom_market::ids::Market;
use serde::Deserialize;

use super::scan::{RecordedManifest, ScanError};
use crate::engine::book::{Book, Levels, Side};
use crate::engine::cell::Cell;
use crate::ledger::{DepthRow, TradeRow};
use crate::wire::streams::Kind;

/// Diffs that may come before the snapshot.
const EARLY: usize = 10_000;

/// What a payload was.
pub(crate) enum Applied {
    Trade(TradeRow),
    Depth(DepthRow),
    Other,
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

#[derive(Deserialize)]
struct Diff<'a> {
    #[serde(rename = "E")]
    event_ms: i64,
    #[serde(rename = "U")]
    first: u64,
    #[serde(rename = "u")]
    last: u64,
    #[serde(rename = "pu")]
    previous: Option<u64>,
    #[serde(borrow, rename = "b")]
    bids: Pairs<'a>,
    #[serde(borrow, rename = "a")]
    asks: Pairs<'a>,
}

#[derive(Deserialize)]
struct Snapshot<'a> {
    #[serde(rename = "lastUpdateId")]
    id: u64,
    #[serde(borrow)]
    bids: Pairs<'a>,
    #[serde(borrow)]
    asks: Pairs<'a>,
}

#[derive(Deserialize)]
struct Print<'a> {
    t: i64,
    p: &'a str,
    q: &'a str,
    #[serde(rename = "T")]
    ms: i64,
    m: bool,
}

/// The books of a replay: loaded or not, with the diffs that came early.
pub(crate) struct Books {
    market: Market,
    scales: Vec<(u8, u8)>,
    early: Vec<Option<Vec<String>>>,
}

fn payload(error: impl std::fmt::Display) -> ScanError {
    ScanError::Payload(error.to_string())
}

impl Books {
    pub(crate) fn new(manifest: &RecordedManifest) -> Self {
        let scales = manifest.symbols.iter().map(|symbol| (symbol.price_decimals, symbol.qty_decimals));
        Self {
            market: manifest.market,
            scales: scales.collect(),
            early: vec![Some(Vec::new()); manifest.symbols.len()],
        }
    }

    /// Takes the recorded snapshot, then the diffs that came before it.
    pub(crate) fn load(&mut self, index: usize, cell: &mut Cell, body: &str) -> Result<(), ScanError> {
        let snapshot: Snapshot<'_> = serde_json::from_str(body).map_err(payload)?;
        let side = |pairs: &Pairs<'_>| {
            pairs.iter().map(|pair| self.level(index, *pair)).collect::<Result<Levels, _>>()
        };
        cell.book = Book::new(snapshot.id, side(&snapshot.bids)?, side(&snapshot.asks)?);
        for early in self.early[index].take().unwrap_or_default() {
            let diff: Diff<'_> = serde_json::from_str(&early).map_err(payload)?;
            self.change(index, &mut cell.book, &diff)?;
        }
        Ok(())
    }

    fn level(&self, index: usize, (price, qty): (&str, &str)) -> Result<(i64, i64), ScanError> {
        let (price_scale, qty_scale) = self.scales[index];
        let price = parse_scaled(price.as_bytes(), price_scale).map_err(payload)?;
        Ok((price, parse_scaled(qty.as_bytes(), qty_scale).map_err(payload)?))
    }

    fn change(&self, index: usize, book: &mut Book, diff: &Diff<'_>) -> Result<(), ScanError> {
        if diff.last <= book.id() {
            return Ok(());
        }
        for (side, pairs) in [(Side::Bid, &diff.bids), (Side::Ask, &diff.asks)] {
            for pair in pairs {
                let (price, qty) = self.level(index, *pair)?;
                book.set(side, price, qty, diff.last, diff.event_ms);
            }
        }
        Ok(())
    }

    pub(crate) fn apply(
        &mut self,
        index: usize,
        kind: Kind,
        cell: &mut Cell,
        data: &str,
    ) -> Result<Applied, ScanError> {
        match kind {
            Kind::Trade => self.trade(index, data),
            Kind::Depth(_) => self.depth(index, cell, data),
            Kind::BookTicker => {
                cell.quotes += 1;
                Ok(Applied::Other)
            }
            _ => Ok(Applied::Other),
        }
    }

    fn trade(&self, index: usize, data: &str) -> Result<Applied, ScanError> {
        let print: Print<'_> = serde_json::from_str(data).map_err(payload)?;
        let (price, qty) = self.level(index, (print.p, print.q))?;
        Ok(Applied::Trade(TradeRow {
            channel: "trade",
            id: print.t,
            price,
            qty,
            ts_ms: print.ms,
            taker_sold: print.m,
        }))
    }

    fn depth(&mut self, index: usize, cell: &mut Cell, data: &str) -> Result<Applied, ScanError> {
        let diff: Diff<'_> = serde_json::from_str(data).map_err(payload)?;
        match &mut self.early[index] {
            Some(early) if early.len() < EARLY => early.push(data.to_owned()),
            Some(_) => {}
            None => self.change(index, &mut cell.book, &diff)?,
        }
        let heard = cell.topics.iter().find(|topic| matches!(topic.kind, Kind::Depth(_)) && !topic.is_idle());
        let previous =
            if self.market == Market::Spot { diff.first - 1 } else { diff.previous.unwrap_or_default() };
        Ok(Applied::Depth(DepthRow {
            stream: heard.map(|topic| topic.name.clone()).unwrap_or_default(),
            first: diff.first,
            last: diff.last,
            previous,
            levels: diff.bids.len() + diff.asks.len(),
        }))
    }
}
