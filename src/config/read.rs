//! Reads one section of the tree: each key once, by type and range. What was not read at the end is unknown.

use std::{collections::BTreeSet, fmt::Display, ops::RangeInclusive, path::PathBuf, time::Duration};

use fathom_market::decimal::parse_decimal;
use rust_decimal::Decimal;

use super::{
    error::{ConfigError, Origin},
    raw::{Kind, Leaf, Node, Table},
    secret::Secret,
};

/// What is shown instead of a secret.
const HIDDEN: &str = "[hidden]";

type Outcome<T> = Result<T, ConfigError>;

/// A section being read. A section that was not given reads as empty.
pub(super) struct Reader<'a> {
    table: Option<&'a Table>,
    path: String,
    seen: BTreeSet<String>,
    /// Paths of the default configuration, for suggestions.
    known: &'a [String],
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: &'a Table, known: &'a [String]) -> Self {
        Self { table: Some(table), path: String::new(), seen: BTreeSet::new(), known }
    }

    /// The dotted path of a key in here.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The keys that were given in here.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.table.map_or_else(Vec::new, |table| table.entries.keys().map(String::as_str).collect())
    }

    fn node(&mut self, key: &str) -> Option<&'a Node> {
        self.seen.insert(key.to_owned());
        self.table.and_then(|table| table.entries.get(key))
    }

    /// Opens a section.
    pub(super) fn section(&mut self, key: &str) -> Outcome<Self> {
        let table = match self.node(key) {
            None => None,
            Some(Node::Table(table)) => Some(table),
            Some(other) => return Err(self.refuse(key, other, "a section")),
        };
        Ok(Self { table, path: self.path_of(key), seen: BTreeSet::new(), known: self.known })
    }

    /// Opens each section of a list of them.
    pub(super) fn sections(&mut self, key: &str) -> Outcome<Vec<Self>> {
        let items = match self.node(key) {
            None => return Ok(Vec::new()),
            Some(Node::List(items, _)) => items,
            Some(other) => return Err(self.refuse(key, other, "a list of sections")),
        };
        let open = |(index, item): (usize, &'a Node)| match item {
            Node::Table(table) => {
                let path = format!("{}[{index}]", self.path_of(key));
                Ok(Self { table: Some(table), path, seen: BTreeSet::new(), known: self.known })
            }
            other => Err(self.refuse(key, other, "a list of sections")),
        };
        items.iter().enumerate().map(open).collect()
    }

    /// Ends the section.
    ///
    /// # Errors
    /// A key that was given but never read is unknown.
    pub(super) fn finish(self) -> Outcome<()> {
        let given = self.table.into_iter().flat_map(|table| &table.entries);
        for (key, node) in given {
            if !self.seen.contains(key) {
                return Err(self.unknown(key, node.origin()));
            }
        }
        Ok(())
    }

    fn unknown(&self, key: &str, origin: &Origin) -> ConfigError {
        let nearest = self.nearest(key);
        ConfigError::Unknown { key: self.path_of(key), origin: origin.clone(), nearest }
    }

    /// A similar key of this section, else the same name in another section, else whatever looks most alike.
    fn nearest(&self, key: &str) -> String {
        let siblings = self.seen.iter().map(|name| (strsim::damerau_levenshtein(key, name), name));
        let similar = siblings.min().filter(|(distance, _)| *distance <= (key.len() / 3).max(2));
        let longer = || self.seen.iter().find(|name| name.starts_with(key));
        if let Some(name) = similar.map(|(_, name)| name).or_else(longer) {
            return self.path_of(name);
        }
        if let Some(path) = self.known.iter().find(|path| path.rsplit('.').next() == Some(key)) {
            return path.clone();
        }
        let full = self.path_of(key);
        let own = self.seen.iter().map(|name| self.path_of(name));
        let all = own.chain(self.known.iter().cloned());
        all.min_by_key(|path| strsim::damerau_levenshtein(&full, path)).unwrap_or_default()
    }

    fn refuse(&self, key: &str, node: &Node, expected: &str) -> ConfigError {
        ConfigError::Invalid {
            key: self.path_of(key),
            value: node.shown(),
            origin: node.origin().clone(),
            reason: format!("expected {expected}"),
        }
    }

    /// An error about a key whose value was read, but is not usable for this reason.
    pub(super) fn invalid(&self, key: &str, reason: impl Display) -> ConfigError {
        match self.table.and_then(|table| table.entries.get(key)) {
            Some(node) => ConfigError::Invalid {
                key: self.path_of(key),
                value: node.shown(),
                origin: node.origin().clone(),
                reason: reason.to_string(),
            },
            None => ConfigError::Missing { key: self.path_of(key) },
        }
    }

    /// The same about a key whose value must not be shown.
    pub(super) fn invalid_secret(&self, key: &str, reason: impl Display) -> ConfigError {
        match self.invalid(key, reason) {
            ConfigError::Invalid { key, origin, reason, .. } => {
                ConfigError::Invalid { key, value: HIDDEN.to_owned(), origin, reason }
            }
            other => other,
        }
    }

    /// Text that must not be shown; `None` when it is empty.
    pub(super) fn secret(&mut self, key: &str) -> Outcome<Option<Secret>> {
        let Some(node) = self.node(key) else { return Ok(None) };
        match node {
            Node::Leaf(leaf) => Ok(Secret::text(&leaf.text)),
            _ => Err(self.invalid_secret(key, "expected text")),
        }
    }

    /// Where a key of this section was given.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let node = self.table.and_then(|table| table.entries.get(key));
        node.map_or(Origin::Default, |node| node.origin().clone())
    }

    /// Reads a value; `None` when the key was not given.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Leaf) -> Option<T>,
    ) -> Outcome<Option<T>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let value = match node {
            Node::Leaf(leaf) => read(leaf),
            _ => None,
        };
        value.map(Some).ok_or_else(|| self.refuse(key, node, expected))
    }

    /// Reads a value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Leaf) -> Option<T>,
    ) -> Outcome<T> {
        match self.optional(key, expected, read)? {
            Some(value) => Ok(value),
            None => Err(self.missing(key)),
        }
    }

    /// A key that was given under a similar but wrong name is the likelier fault.
    fn missing(&self, key: &str) -> ConfigError {
        let given = self.table.into_iter().flat_map(|table| &table.entries);
        let mut misspelt = given.filter(|(name, _)| !self.seen.contains(*name));
        match misspelt.find(|(name, _)| strsim::damerau_levenshtein(name, key) <= 2) {
            Some((name, node)) => self.unknown(name, node.origin()),
            None => ConfigError::Missing { key: self.path_of(key) },
        }
    }

    /// An integer within a range.
    pub(super) fn int<T: TryFrom<u64>>(&mut self, key: &str, range: RangeInclusive<u64>) -> Outcome<T> {
        self.required(key, &int_expected(&range), |leaf| int_in(leaf, &range))
    }

    /// An integer within a range, or nothing.
    pub(super) fn optional_int<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Outcome<Option<T>> {
        self.optional(key, &int_expected(&range), |leaf| int_in(leaf, &range))
    }

    /// Milliseconds within a range.
    pub(super) fn millis(&mut self, key: &str, range: RangeInclusive<u64>) -> Outcome<Duration> {
        let expected = format!("milliseconds from {} to {}", range.start(), range.end());
        self.required(key, &expected, |leaf| int_in(leaf, &range)).map(Duration::from_millis)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> Outcome<bool> {
        self.required(key, "true or false", read_flag)
    }

    /// `true` or `false`, or the default.
    pub(super) fn flag_or(&mut self, key: &str, default: bool) -> Outcome<bool> {
        Ok(self.optional(key, "true or false", read_flag)?.unwrap_or(default))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Outcome<T> {
        self.required(key, &words_expected(words), |leaf| read_word(leaf, words))
    }

    /// One of a few words, or the default.
    pub(super) fn choice_or<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: T) -> Outcome<T> {
        let word = self.optional(key, &words_expected(words), |leaf| read_word(leaf, words))?;
        Ok(word.unwrap_or(default))
    }

    /// A path; a relative one given in a file is taken from that file's folder. Empty text is no path.
    pub(super) fn optional_path(&mut self, key: &str) -> Outcome<Option<PathBuf>> {
        let path =
            self.optional(key, "a path", |leaf| leaf.text().map(|text| resolve(text, &leaf.origin)))?;
        Ok(path.filter(|path| !path.as_os_str().is_empty()))
    }

    /// An age such as `7d`, `48h`, `30m` or `90s`; `off` is none.
    pub(super) fn age(&mut self, key: &str) -> Outcome<Option<Duration>> {
        self.required(key, "an age such as \"7d\", \"48h\", \"30m\", \"90s\", or \"off\"", |leaf| match leaf
            .text(
        )? {
            "off" => Some(None),
            text => age(text).map(Some),
        })
    }

    /// A list, each item read from its text. It may be typed as a TOML list, or as one text: separated by commas, or a
    /// JSON or Python list.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Outcome<Option<Vec<T>>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let texts = match node {
            Node::Leaf(leaf) => split_list(&leaf.text),
            Node::List(items, _) => items.iter().map(leaf_text).collect(),
            Node::Table(_) => None,
        };
        let values = texts.and_then(|texts| texts.iter().map(|text| read(text)).collect());
        values.map(Some).ok_or_else(|| self.refuse(key, node, expected))
    }

    /// A list that must be there.
    pub(super) fn required_list<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Outcome<Vec<T>> {
        match self.list(key, expected, read)? {
            Some(values) => Ok(values),
            None => Err(self.missing(key)),
        }
    }
}

impl Leaf {
    /// Its text, where text is meant.
    pub(super) fn text(&self) -> Option<&str> {
        matches!(self.kind, Kind::Text | Kind::Bare).then_some(self.text.trim())
    }
}

fn leaf_text(node: &Node) -> Option<String> {
    match node {
        Node::Leaf(leaf) => Some(leaf.text.clone()),
        _ => None,
    }
}

fn int_expected(range: &RangeInclusive<u64>) -> String {
    format!("an integer from {} to {}", range.start(), range.end())
}

fn int_in<T: TryFrom<u64>>(leaf: &Leaf, range: &RangeInclusive<u64>) -> Option<T> {
    let typed = matches!(leaf.kind, Kind::Integer | Kind::Bare);
    let value = leaf.text.trim().parse::<u64>().ok().filter(|value| typed && range.contains(value))?;
    T::try_from(value).ok()
}

pub(super) fn flag_of(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn read_flag(leaf: &Leaf) -> Option<bool> {
    matches!(leaf.kind, Kind::Flag | Kind::Bare).then(|| flag_of(&leaf.text)).flatten()
}

fn words_expected<T>(words: &[(&str, T)]) -> String {
    format!("one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
}

fn read_word<T: Copy>(leaf: &Leaf, words: &[(&str, T)]) -> Option<T> {
    let text = leaf.text()?;
    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn resolve(text: &str, origin: &Origin) -> PathBuf {
    match origin {
        Origin::File { path, .. } if !text.is_empty() => {
            path.parent().map_or_else(|| PathBuf::from(text), |folder| folder.join(text))
        }
        _ => PathBuf::from(text),
    }
}

fn age(text: &str) -> Option<Duration> {
    let unit_at = text.find(|symbol: char| !symbol.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let count = count.parse::<u64>().ok().filter(|count| (1..=1_000_000).contains(count))?;
    Some(Duration::from_secs(count * seconds))
}

/// Splits `A,B`, `["A", "B"]` and `['A', 'B']`; `None` when a bracket or a quote is left open, or an item is empty.
fn split_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let inner = match (text.strip_prefix('['), text.strip_suffix(']')) {
        (Some(_), Some(_)) => text[1..text.len() - 1].trim(),
        (None, None) => text,
        _ => return None,
    };
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner.split(',').map(unquote).collect()
}

fn unquote(item: &str) -> Option<String> {
    let item = item.trim();
    let plain = match item.chars().next()? {
        quote @ ('"' | '\'') => item.strip_prefix(quote)?.strip_suffix(quote)?,
        _ => item,
    };
    let usable = !plain.is_empty() && !plain.contains(['"', '\'', '[', ']']);
    usable.then(|| plain.to_owned())
}

/// Reads a decimal exactly.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    parse_decimal(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_three_spellings() {
        let expected = Some(vec!["BTCUSDT".to_owned(), "ETHUSDT".to_owned()]);
        assert_eq!(split_list("BTCUSDT, ETHUSDT"), expected);
        assert_eq!(split_list("[\"BTCUSDT\",\"ETHUSDT\"]"), expected);
        assert_eq!(split_list("['BTCUSDT', 'ETHUSDT',]"), expected);
        assert_eq!(split_list(""), Some(Vec::new()));
        for broken in ["[A,B", "A,,B", "'A", "\"A,B\"", "]"] {
            assert_eq!(split_list(broken), None, "{broken}");
        }
    }

    #[test]
    fn ages_need_a_unit() {
        assert_eq!(age("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(age("90s"), Some(Duration::from_secs(90)));
        for broken in ["7", "d", "0d", "7w", "-7d", "99999999999999999999d"] {
            assert_eq!(age(broken), None, "{broken}");
        }
    }
}
