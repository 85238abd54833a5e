//! Environment names of the services that fathom replaces: one table from old names to configuration keys. Only this
//! file knows the old names.

use std::{collections::BTreeMap, sync::Arc};

use fathom_market::decimal::parse_decimal;
use rust_decimal::Decimal;

use crate::address::Address;

use super::{
    error::{ConfigError, Origin},
    raw::{Node, Table},
    read::flag_of,
};

/// Reads a value in its old spelling: the text for the new key, `None` when nothing changes, or what was expected.
type Convert = fn(&str) -> Result<Option<String>, &'static str>;

/// Where an old name goes.
#[derive(Clone, Copy)]
enum Target {
    /// One key.
    Key(&'static str),
    /// This key of every configured market of every venue.
    EachMarket(&'static str),
    /// A JSON object by venue; each figure goes to this key of the venue's markets.
    ByVenue(&'static str),
    /// The store's address, which says of what kind it is too.
    StoreAddress,
    /// This key of the store's server.
    StoreServer(&'static str),
    /// The feature is not part of this version: the value is checked, reported and left alone.
    NotYet(&'static str),
}

struct OldName {
    name: &'static str,
    target: Target,
    convert: Convert,
}

const fn old(name: &'static str, target: Target, convert: Convert) -> OldName {
    OldName { name, target, convert }
}

use Target::{ByVenue, EachMarket, Key, NotYet, StoreAddress, StoreServer};

const DATABASE_URL: &str = "DATABASE_URL";
const DB_HOST: &str = "DB_HOST";
const DB_NAME: &str = "DB_NAME";

static OLD_NAMES: &[OldName] = &[
    old(DATABASE_URL, StoreAddress, store_address),
    old(DB_HOST, StoreServer("store.host"), word),
    old("DB_PORT", StoreServer("store.port"), port),
    old(DB_NAME, StoreServer("store.database"), word),
    old("DB_USER", StoreServer("store.user"), word),
    old("DB_PASSWORD", StoreServer("store.password"), same),
    old("REDIS_HOST", Key("redis.host"), word),
    old("REDIS_PORT", Key("redis.port"), port),
    old("RABBITMQ_URL", NotYet("RabbitMQ"), amqp),
    old("BINANCE_BASE_URL", Key("venues.binance.spot.endpoints.rest"), same),
    old("SYMBOLS", EachMarket("symbols"), same),
    old("START_DATE", Key("candles.start_date"), same),
    old("INTERVAL", Key("candles.timeframes"), same),
    old("BATCH_SIZE", Key("candles.request_rows"), same),
    old("RETRY_DELAY", Key("candles.retry_delay_ms"), seconds),
    old("MAX_RETRIES", Key("candles.max_retries"), same),
    old("REALTIME_INTERVAL", Key("candles.publish_ms"), seconds),
    old("ORDERBOOK_LEVELS", Key("orderbook.levels"), same),
    old("ORDERBOOK_UPDATE_INTERVAL", Key("orderbook.interval_ms"), seconds),
    old("ORDERBOOK_RETRY_DELAY", Key("orderbook.retry_delay_ms"), seconds),
    old("ORDERBOOK_MAX_RETRIES", Key("orderbook.max_retries"), same),
    old("DEBUG", Key("log.level"), debug),
    old("HOST", Key("http.host"), same),
    old("PORT", Key("http.port"), same),
    old("EXCHANGE_RATE_LIMITS", ByVenue("budget_ceiling"), same),
    old("WEBSOCKET_MAX_CONNECTIONS", NotYet("the WebSocket server"), count),
    old("WEBSOCKET_PORT", NotYet("the WebSocket server"), port),
    old("CACHE_TTL_TICKER", Key("redis.ticker_ttl_ms"), seconds),
    old("CACHE_TTL_ORDERBOOK", Key("redis.orderbook_ttl_ms"), seconds),
    old("CACHE_TTL_KLINES", Key("redis.candles_ttl_ms"), seconds),
];

/// Every old name, in the order of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    OLD_NAMES.iter().map(|entry| entry.name)
}

/// Lays the old names found in the environment over the tree. Gives a note for each that is not used by this version.
/// An empty value counts as not set.
pub(super) fn apply(
    tree: &mut Table,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<String>, ConfigError> {
    let mut notes = Vec::new();
    for entry in OLD_NAMES {
        let given = environment.get(entry.name).map(|text| text.trim()).filter(|text| !text.is_empty());
        if let Some(text) = given {
            let has = |name: &str| environment.get(name).is_some_and(|text| !text.trim().is_empty());
            apply_one(tree, entry, text, &has, &mut notes)?;
        }
    }
    Ok(notes)
}

fn apply_one(
    tree: &mut Table,
    entry: &OldName,
    text: &str,
    has: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let origin = Origin::Environment(Arc::from(entry.name));
    let refuse = |expected: &str| ConfigError::Invalid {
        key: entry.target.key().unwrap_or(entry.name).to_owned(),
        value: shown(text),
        origin: origin.clone(),
        reason: format!("expected {expected}"),
    };
    let Some(value) = (entry.convert)(text).map_err(refuse)? else {
        return Ok(());
    };
    match entry.target {
        Key(key) => tree.set(key, Node::bare(&value, origin)),
        EachMarket(key) => {
            for path in market_paths(tree, None) {
                tree.set(&format!("{path}.{key}"), Node::bare(&value, origin.clone()));
            }
        }
        ByVenue(key) => {
            let limits: BTreeMap<String, serde_json::Value> = serde_json::from_str(&value)
                .map_err(|_| refuse("a JSON object such as {\"binance\": 1200}, requests a minute"))?;
            for (venue, limit) in limits {
                set_limit(tree, entry.name, key, &venue, &limit, notes);
            }
        }
        StoreAddress => set_store(tree, &value, &origin),
        StoreServer(key) => {
            if !set_server(tree, key, &value, &origin, has) {
                notes.push(format!(
                    "{} is not used: the store is a file, and {DB_HOST} names no server",
                    entry.name
                ));
            }
        }
        NotYet(feature) => {
            notes.push(format!("{} is not used by this version: it has no {feature}", entry.name))
        }
    }
    Ok(())
}

/// The environment wins over a file: what that says of the server is taken back.
fn set_store(tree: &mut Table, address: &str, origin: &Origin) {
    let Some(parsed) = Address::parse(address) else { return };
    let mut set = |key: &str, value: &str| tree.set(key, Node::bare(value, origin.clone()));
    for key in ["store.url", "store.url_file", "store.host", "store.password"] {
        set(key, "");
    }
    match parsed.path() {
        Some(path) => {
            set("store.kind", "sqlite");
            set("store.path", &path.to_string_lossy());
        }
        None => {
            set("store.url", address);
            if kind(tree).is_none_or(|kind| {
                Address::parse(&format!("{kind}://h/d")).is_none_or(|known| known.family() != parsed.family())
            }) {
                tree.set("store.kind", Node::bare(parsed.kind(), origin.clone()));
            }
        }
    }
}

/// Sets a part of the server's address. A host or a database's name says that there is a server: PostgreSQL, unless another
/// is configured. False when nothing says so.
fn set_server(tree: &mut Table, key: &str, value: &str, origin: &Origin, has: &dyn Fn(&str) -> bool) -> bool {
    let is_file = kind(tree).is_none_or(|kind| kind == "sqlite");
    if is_file && !has(DB_HOST) && !has(DB_NAME) {
        return false;
    }
    if !has(DATABASE_URL) {
        for taken_back in ["store.url", "store.url_file"] {
            tree.set(taken_back, Node::bare("", origin.clone()));
        }
        if is_file {
            tree.set("store.kind", Node::bare("postgres", origin.clone()));
        }
        if !has(DB_HOST) && !has_text(tree, "host") {
            tree.set("store.host", Node::bare("localhost", origin.clone()));
        }
    }
    tree.set(key, Node::bare(value, origin.clone()));
    true
}

/// The kind of the store as far as it is given.
fn kind(tree: &Table) -> Option<String> {
    match tree.table("store")?.entries.get("kind")? {
        Node::Leaf(leaf) => Some(leaf.text.to_ascii_lowercase()),
        _ => None,
    }
}

fn has_text(tree: &Table, key: &str) -> bool {
    let node = tree.table("store").and_then(|store| store.entries.get(key));
    matches!(node, Some(Node::Leaf(leaf)) if !leaf.text.trim().is_empty())
}

fn set_limit(
    tree: &mut Table,
    name: &str,
    key: &str,
    venue: &str,
    limit: &serde_json::Value,
    notes: &mut Vec<String>,
) {
    let paths = market_paths(tree, Some(venue));
    if paths.is_empty() {
        notes.push(format!("{name} names {venue}, which is not configured: its limit is not used"));
    }
    let origin = Origin::Environment(Arc::from(name));
    for path in paths {
        tree.set(&format!("{path}.{key}"), Node::bare(&limit.to_string(), origin.clone()));
    }
}

/// Paths of the configured markets, of one venue or of all.
fn market_paths(tree: &Table, only: Option<&str>) -> Vec<String> {
    let Some(venues) = tree.table("venues") else {
        return Vec::new();
    };
    let chosen =
        venues.entries.iter().filter(|(venue, _)| only.is_none_or(|id| id.eq_ignore_ascii_case(venue)));
    let markets = chosen.filter_map(|(venue, node)| match node {
        Node::Table(markets) => {
            Some(markets.entries.keys().map(move |market| format!("venues.{venue}.{market}")))
        }
        _ => None,
    });
    markets.flatten().collect()
}

impl Target {
    fn key(self) -> Option<&'static str> {
        match self {
            Key(key) | EachMarket(key) | ByVenue(key) => Some(key),
            StoreAddress => Some("store.url"),
            StoreServer(key) => Some(key),
            NotYet(_) => None,
        }
    }
}

/// An address may hold a password: only its scheme is shown.
fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://..."),
        None if text.contains('@') => "...".to_owned(),
        None => text.to_owned(),
    }
}

fn same(text: &str) -> Result<Option<String>, &'static str> {
    Ok(Some(text.to_owned()))
}

fn word(text: &str) -> Result<Option<String>, &'static str> {
    if text.contains(char::is_whitespace) { Err("a name without blanks") } else { same(text) }
}

fn port(text: &str) -> Result<Option<String>, &'static str> {
    match text.parse::<u16>() {
        Ok(1..) => same(text),
        _ => Err("a port from 1 to 65535"),
    }
}

fn count(text: &str) -> Result<Option<String>, &'static str> {
    match text.parse::<u32>() {
        Ok(1..) => same(text),
        _ => Err("a positive integer"),
    }
}

fn amqp(text: &str) -> Result<Option<String>, &'static str> {
    let usable = text.starts_with("amqp://") || text.starts_with("amqps://");
    if usable { same(text) } else { Err("an amqp:// or amqps:// address") }
}

fn debug(text: &str) -> Result<Option<String>, &'static str> {
    match flag_of(text) {
        Some(true) => Ok(Some("debug".to_owned())),
        Some(false) => Ok(None),
        None => Err("true or false"),
    }
}

/// Seconds, fractions allowed, as whole milliseconds.
fn seconds(text: &str) -> Result<Option<String>, &'static str> {
    const EXPECTED: &str = "seconds, at most three decimals";
    let value = parse_decimal(text).map_err(|_| EXPECTED)?;
    let millis = value.checked_mul(Decimal::ONE_THOUSAND).ok_or(EXPECTED)?.normalize();
    let usable = millis >= Decimal::ZERO && millis.scale() == 0;
    usable.then(|| Some(millis.to_string())).ok_or(EXPECTED)
}

/// An address of a store, in any spelling.
fn store_address(text: &str) -> Result<Option<String>, &'static str> {
    const EXPECTED: &str =
        "an address: sqlite:// with a path, postgres:// or mysql:// with host and database";
    Address::parse(text).map(|_| Some(text.to_owned())).ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_exact_milliseconds() {
        assert_eq!(seconds("0.5"), Ok(Some("500".to_owned())));
        assert_eq!(seconds("1"), Ok(Some("1000".to_owned())));
        assert_eq!(seconds("1e1"), Ok(Some("10000".to_owned())));
        for broken in ["0.0005", "-1", "soon", ""] {
            assert!(seconds(broken).is_err(), "{broken}");
        }
    }
}
