//! Lists of symbols: typed by name, or from a ranked list of base assets.

use std::{collections::BTreeSet, fs, path::Path};

use fathom_market::ids::Market;

use crate::config::{
    BUILTIN_SYMBOLS,
    error::ConfigError,
    raw::{Node, Table},
    read::Reader,
};

/// Names a symbol as collected on a market: upper case, a unified futures symbol with its settlement asset. A list may
/// name unified symbols without one (`BTC/USDT`), which on futures means the linear perpetual.
pub(super) fn symbol_name(text: &str, market: Market) -> Option<String> {
    let name = text.trim().to_uppercase();
    let usable = (2..=40).contains(&name.chars().count())
        && name.chars().all(|symbol| symbol.is_alphanumeric() || "/:_-.".contains(symbol));
    if !usable {
        return None;
    }
    let Some((base, rest)) = name.split_once('/') else {
        return (!name.contains(':')).then_some(name);
    };
    let (quote, settle) = rest.split_once(':').map_or((rest, None), |(quote, settle)| (quote, Some(settle)));
    if base.is_empty() || quote.is_empty() || settle.is_some_and(str::is_empty) || quote.contains('/') {
        return None;
    }
    Some(match (market, settle) {
        (Market::Futures, None) => format!("{name}:{quote}"),
        _ => name,
    })
}

/// Keeps the first of equal names.
pub(super) fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// The embedded list.
pub(super) fn builtin(market: Market) -> Result<Vec<String>, ConfigError> {
    expand(&Table::parse_default(BUILTIN_SYMBOLS)?, market)
}

/// A list of the same form as `config/symbols.toml`.
pub(super) fn from_file(path: &Path, market: Market) -> Result<Vec<String>, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    expand(&Table::parse_file(&text, path.to_owned())?, market)
}

fn expand(table: &Table, market: Market) -> Result<Vec<String>, ConfigError> {
    let known = ["quote", "bases", "rename", "rename.spot", "rename.futures"].map(str::to_owned);
    let mut reader = Reader::new(table, &known);
    let quote = reader.required("quote", "an asset", |leaf| leaf.text().map(str::to_uppercase))?;
    let bases =
        reader.required_list("bases", "a list of base assets", |text| Some(text.trim().to_uppercase()))?;
    let mut rename = reader.section("rename")?;
    for each in Market::ALL {
        rename.section(each.as_str())?;
    }
    rename.finish()?;
    reader.finish()?;
    let renamed = table.table("rename").and_then(|rename| rename.table(market.as_str()));
    let local = |base: &str| match renamed.and_then(|names| names.entries.get(base)) {
        Some(Node::Leaf(leaf)) => leaf.text.to_uppercase(),
        _ => base.to_owned(),
    };
    let names = bases.iter().map(|base| symbol_name(&format!("{}/{quote}", local(base)), market));
    let names: Option<Vec<String>> = names.collect();
    names
        .map(distinct)
        .ok_or_else(|| Reader::new(table, &known).invalid("bases", "expected a list of base assets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized_for_their_market() {
        assert_eq!(symbol_name("btcusdt", Market::Spot), Some("BTCUSDT".to_owned()));
        assert_eq!(symbol_name("btc/usdt", Market::Spot), Some("BTC/USDT".to_owned()));
        assert_eq!(symbol_name("BTC/USDT", Market::Futures), Some("BTC/USDT:USDT".to_owned()));
        assert_eq!(symbol_name("BTC/USDT:USDT", Market::Futures), Some("BTC/USDT:USDT".to_owned()));
        for broken in ["", "B", "BTC USDT", "/USDT", "BTC/", "BTC/USDT:", "BTC:USDT", "A/B/C"] {
            assert_eq!(symbol_name(broken, Market::Spot), None, "{broken}");
        }
    }

    #[test]
    fn the_builtin_list_fills_the_default_tiers_and_starts_with_bitcoin() {
        let spot = builtin(Market::Spot).expect("valid");
        let futures = builtin(Market::Futures).expect("valid");
        assert_eq!(spot.len(), 200);
        assert_eq!(spot.first().map(String::as_str), Some("BTC/USDT"));
        assert_eq!(futures.first().map(String::as_str), Some("BTC/USDT:USDT"));
        assert!(spot.iter().any(|name| name == "PEPE/USDT"));
        assert!(futures.iter().any(|name| name == "1000PEPE/USDT:USDT"));
        assert!(!futures.iter().any(|name| name == "PEPE/USDT:USDT"));
        assert_eq!(spot.len(), futures.len());
    }
}
