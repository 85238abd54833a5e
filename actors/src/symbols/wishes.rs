//! Which symbols are wanted: the configured ones, changed by what operators said. Pure.

use fathom_venues::planner::Tier;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One wanted symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Native or unified, as it was typed.
    pub symbol: String,
    /// The tier that an operator chose; without one it is found.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "tier_name")]
    pub tier: Option<Tier>,
}

/// What operators changed in one market. The last word on a symbol counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Takes the place of the configured symbols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Vec<String>>,
    /// Wanted besides them.
    #[serde(default)]
    pub added: Vec<Wish>,
    /// Not wanted.
    #[serde(default)]
    pub removed: Vec<String>,
}

impl Change {
    /// A symbol is wanted from now on.
    pub fn add(&mut self, wish: Wish) {
        self.removed.retain(|symbol| !is_same(symbol, &wish.symbol));
        self.added.retain(|added| !is_same(&added.symbol, &wish.symbol));
        self.added.push(wish);
    }

    /// A symbol is not wanted any more.
    pub fn remove(&mut self, symbol: &str) {
        self.added.retain(|added| !is_same(&added.symbol, symbol));
        if !self.removed.iter().any(|removed| is_same(removed, symbol)) {
            self.removed.push(symbol.to_owned());
        }
    }

    /// These symbols, and no others, are wanted from now on.
    pub fn set(&mut self, symbols: Vec<String>) {
        *self = Self { set: Some(symbols), ..Self::default() };
    }

    /// The wanted symbols in the order of their importance: the configured ones, then those that were added.
    pub fn wanted(&self, configured: &[String]) -> Vec<Wish> {
        let base = self.set.as_deref().unwrap_or(configured);
        let mut wanted: Vec<Wish> = Vec::with_capacity(base.len() + self.added.len());
        for symbol in base.iter().filter(|symbol| !self.removed.iter().any(|gone| is_same(gone, symbol))) {
            wanted.push(Wish { symbol: symbol.clone(), tier: None });
        }
        for added in &self.added {
            match wanted.iter_mut().find(|wish| is_same(&wish.symbol, &added.symbol)) {
                Some(wish) => wish.tier = added.tier.or(wish.tier),
                None => wanted.push(added.clone()),
            }
        }
        wanted
    }
}

/// A symbol without its punctuation, so that `BTC/USDT`, `BTC_USDT`, `btcusdt` and `BTC/USDT:USDT` are one name. The
/// date of a contract that ends stays.
pub fn compact(symbol: &str) -> String {
    let (pair, rest) = symbol.split_once(':').unwrap_or((symbol, ""));
    let date = rest.split_once('-').map_or("", |(_, date)| date);
    let letters = pair.chars().chain(date.chars()).filter(|letter| letter.is_alphanumeric());
    letters.flat_map(char::to_uppercase).collect()
}

/// True when two spellings name the same symbol.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || compact(one) == compact(other)
}

/// Reads the name of a symbol as operators type it, in upper case.
///
/// # Errors
/// A sentence that names it.
pub fn symbol_name(text: &str) -> Result<String, String> {
    let name = text.trim().to_uppercase();
    let usable = (2..=40).contains(&name.chars().count())
        && name.chars().all(|letter| letter.is_alphanumeric() || "/:_-.".contains(letter))
        && compact(&name).chars().count() >= 2;
    if usable {
        return Ok(name);
    }
    let shown: String = text.chars().take(64).collect();
    Err(format!("{shown:?} is no symbol: expected a name such as BTCUSDT or BTC/USDT"))
}

mod tier_name {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Tier};

    pub(super) fn serialize<S: Serializer>(tier: &Option<Tier>, serializer: S) -> Result<S::Ok, S::Error> {
        tier.map(Tier::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Tier>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        let unknown = |name: &str| serde::de::Error::custom(format!("unknown tier {name:?}"));
        name.map(|name| Tier::parse(&name).ok_or_else(|| unknown(&name))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(change: &Change, configured: &[&str]) -> Vec<String> {
        let configured: Vec<String> = configured.iter().map(|&name| name.to_owned()).collect();
        change.wanted(&configured).into_iter().map(|wish| wish.symbol).collect()
    }

    fn wish(symbol: &str) -> Wish {
        Wish { symbol: symbol.into(), tier: None }
    }

    #[test]
    fn spellings_of_one_symbol_are_one_name() {
        for spelling in ["BTCUSDT", "btc/usdt", "BTC_USDT", "BTC-USDT", "BTC/USDT:USDT"] {
            assert_eq!(compact(spelling), "BTCUSDT", "{spelling}");
        }
        assert_eq!(compact("BTC/USDT:USDT-251226"), compact("BTCUSDT_251226"));
        assert!(!is_same("BTC/USDT:USDT-251226", "BTCUSDT"));
        assert_eq!(symbol_name(" eth/usdt "), Ok("ETH/USDT".to_owned()));
        for bad in ["", "B", "//", "A B", "x\u{7}y", &"A".repeat(41)] {
            assert!(symbol_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_word_on_a_symbol_counts() {
        let mut change = Change::default();
        change.remove("BTCUSDT");
        change.add(wish("SOLUSDT"));
        assert_eq!(names(&change, &["BTC/USDT", "ETH/USDT"]), ["ETH/USDT", "SOLUSDT"]);
        change.add(wish("BTC/USDT"));
        change.remove("SOL/USDT");
        assert_eq!(names(&change, &["BTC/USDT", "ETH/USDT"]), ["BTC/USDT", "ETH/USDT"]);
        change.set(vec!["XRPUSDT".into()]);
        assert_eq!(names(&change, &["BTC/USDT"]), ["XRPUSDT"]);
        change.add(wish("BTCUSDT"));
        assert_eq!(names(&change, &["BTC/USDT"]), ["XRPUSDT", "BTCUSDT"]);
    }

    #[test]
    fn a_chosen_tier_is_kept_and_read_again() {
        let mut change = Change::default();
        change.add(Wish { symbol: "BTCUSDT".into(), tier: Some(Tier::High) });
        assert_eq!(change.wanted(&["BTC/USDT".to_owned()])[0].tier, Some(Tier::High));
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
        assert!(serde_json::from_str::<Change>(r#"{"added":[{"symbol":"A","tier":"best"}]}"#).is_err());
    }
}
