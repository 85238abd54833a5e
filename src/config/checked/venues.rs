//! Venues: which markets are collected, which symbols, from which addresses.

use std::{collections::BTreeMap, path::PathBuf};

use fathom_market::ids::{Market, VenueId};
use fathom_venues::registry;

use super::symbols;
use crate::config::{error::ConfigError, raw::Leaf, read::Reader};

/// A venue that this program can collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownVenue {
    /// Its id.
    pub id: VenueId,
    /// Names of its WebSocket endpoint classes, of each market in the order of [`Market::ALL`].
    pub classes: [Vec<&'static str>; 2],
}

impl KnownVenue {
    /// Every venue of the registry.
    pub fn all() -> Vec<Self> {
        let known = registry::VENUES.iter().map(|venue| Self {
            id: venue.id(),
            classes: Market::ALL
                .map(|market| venue.classes(market).iter().map(|class| class.as_str()).collect()),
        });
        known.collect()
    }

    fn classes(&self, market: Market) -> &[&'static str] {
        match market {
            Market::Spot => &self.classes[0],
            Market::Futures => &self.classes[1],
        }
    }
}

/// Addresses that replace a venue's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOverrides {
    /// REST base, without a slash at its end.
    pub rest: Option<String>,
    /// WebSocket bases by endpoint class, without a slash at their end.
    pub ws: BTreeMap<&'static str, String>,
}

/// One market of one venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueMarket {
    /// Venue.
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// Whether it is collected.
    pub enabled: bool,
    /// Native or unified symbols, upper case, the most important first. Native ones are to be compared without regard to
    /// case. What the venue does not list is skipped.
    pub symbols: Vec<String>,
    /// Address overrides.
    pub endpoints: EndpointOverrides,
    /// A PEM file of authorities to trust besides the usual ones.
    pub extra_ca: Option<PathBuf>,
    /// Single trades instead of the venue's aggregate, where both exist.
    pub raw_trades: bool,
    /// Whether 24 hour statistics are collected.
    pub ticker: bool,
    /// Ceiling of the REST budget, weight a minute; the venue's own figure where it is lower.
    pub budget_ceiling: Option<u32>,
}

fn find<'a>(known: &'a [KnownVenue], id: &str) -> Option<&'a KnownVenue> {
    known.iter().find(|venue| venue.id.as_str().eq_ignore_ascii_case(id))
}

pub(super) fn primary(root: &mut Reader<'_>, known: &[KnownVenue]) -> Result<VenueId, ConfigError> {
    let ids: Vec<&str> = known.iter().map(|venue| venue.id.as_str()).collect();
    let expected = format!("one of {}", ids.join(", "));
    root.required("primary_venue", &expected, |leaf| find(known, leaf.text()?).map(|venue| venue.id))
}

/// Reads `venues.<id>.<market>`. Keys that were left out have the defaults that `config/default.toml` shows for its venue.
pub(super) fn read(reader: &mut Reader<'_>, known: &[KnownVenue]) -> Result<Vec<VenueMarket>, ConfigError> {
    let given = reader.names();
    let mut markets = Vec::new();
    for venue in known {
        let mut section = reader.section(venue.id.as_str())?;
        let listed = section.names();
        for market in Market::ALL {
            let mut entry = section.section(market.as_str())?;
            if given.contains(&venue.id.as_str()) && listed.contains(&market.as_str()) {
                markets.push(read_market(&mut entry, venue, market)?);
                entry.finish()?;
            }
        }
        section.finish()?;
    }
    Ok(markets)
}

fn read_market(
    reader: &mut Reader<'_>,
    venue: &KnownVenue,
    market: Market,
) -> Result<VenueMarket, ConfigError> {
    let trades = [("aggregate", false), ("raw", true)];
    Ok(VenueMarket {
        venue: venue.id,
        market,
        enabled: reader.flag_or("enabled", true)?,
        symbols: read_symbols(reader, market)?,
        endpoints: read_endpoints(reader, venue, market)?,
        extra_ca: reader.optional_path("extra_ca")?,
        raw_trades: reader.choice_or("trades", &trades, false)?,
        ticker: reader.flag_or("ticker", true)?,
        budget_ceiling: reader.optional_int("budget_ceiling", 1..=1_000_000)?,
    })
}

/// A list of names; `builtin`; or the path of a file like `config/symbols.toml`.
fn read_symbols(reader: &mut Reader<'_>, market: Market) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "symbols";
    const EXPECTED: &str = "native or unified symbols such as BTCUSDT or BTC/USDT, \"builtin\", or a path that ends in .toml \
                            (\"database\" is not built yet)";
    let names = reader.list(KEY, EXPECTED, |text| match text.trim() {
        text if text.eq_ignore_ascii_case("database") => None,
        text if is_source(text) => Some(text.to_owned()),
        text => symbols::symbol_name(text, market),
    })?;
    match names.as_deref() {
        None => symbols::builtin(market),
        Some([word]) if word.eq_ignore_ascii_case("builtin") => symbols::builtin(market),
        Some([word]) if is_source(word) => match reader.optional_path(KEY)? {
            Some(path) => symbols::from_file(&path, market),
            None => Err(reader.invalid(KEY, format!("expected {EXPECTED}"))),
        },
        Some(names) if names.iter().any(|name| is_source(name)) => {
            Err(reader.invalid(KEY, format!("expected {EXPECTED}")))
        }
        Some(names) => Ok(symbols::distinct(names.to_vec())),
    }
}

fn is_source(text: &str) -> bool {
    text.eq_ignore_ascii_case("builtin") || text.ends_with(".toml")
}

fn read_endpoints(
    parent: &mut Reader<'_>,
    venue: &KnownVenue,
    market: Market,
) -> Result<EndpointOverrides, ConfigError> {
    let mut reader = parent.section("endpoints")?;
    let rest = reader
        .optional("rest", "an http:// or https:// address", |leaf| address(leaf, ["http://", "https://"]))?;
    let mut sockets = reader.section("ws")?;
    let mut ws = BTreeMap::new();
    for class in venue.classes(market) {
        let base = sockets
            .optional(class, "a ws:// or wss:// address", |leaf| address(leaf, ["ws://", "wss://"]))?;
        if let Some(base) = base.flatten() {
            ws.insert(*class, base);
        }
    }
    sockets.finish()?;
    reader.finish()?;
    Ok(EndpointOverrides { rest: rest.flatten(), ws })
}

/// Reads a base address; empty text is none.
fn address(leaf: &Leaf, schemes: [&str; 2]) -> Option<Option<String>> {
    let text = leaf.text()?.trim_end_matches('/');
    if text.is_empty() {
        return Some(None);
    }
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme))?;
    let usable = !host.is_empty() && !host.starts_with('/') && !text.contains(char::is_whitespace);
    usable.then(|| Some(text.to_owned()))
}
