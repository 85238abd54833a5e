//! What was typed: a tree of keys whose values keep their text and their origin. Numbers stay text, so that a decimal
//! never passes through a float. Nothing is checked here.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A quoted string.
    Text,
    /// Text of an environment variable or of the command line, whose type the reader decides.
    Bare,
    /// An integer.
    Integer,
    /// A number with a point or an exponent.
    Number,
    /// `true` or `false`.
    Flag,
    /// A date, a time or both.
    Time,
}

/// A value with its source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, Node>,
    pub(super) origin: Origin,
}

/// A value, a list or a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Leaf(Leaf),
    List(Vec<Node>, Origin),
    Table(Table),
}

impl Node {
    /// Text from the environment or the command line. Lists, inline tables and quoted strings are read as TOML.
    pub(super) fn typed(text: &str, origin: Origin) -> Self {
        let text = text.trim();
        let structured = text.starts_with(['[', '{', '"', '\'']);
        let parsed =
            structured.then(|| Table::parse(&format!("value = {text}"), |_| origin.clone()).ok()).flatten();
        match parsed.and_then(|mut table| table.entries.remove("value")) {
            Some(node) => node,
            None => Self::bare(text, origin),
        }
    }

    /// Text whose type the reader decides.
    pub(super) fn bare(text: &str, origin: Origin) -> Self {
        Self::Leaf(Leaf { kind: Kind::Bare, text: text.to_owned(), origin })
    }

    /// Where it was given.
    pub(super) fn origin(&self) -> &Origin {
        match self {
            Self::Leaf(leaf) => &leaf.origin,
            Self::List(_, origin) => origin,
            Self::Table(table) => &table.origin,
        }
    }

    /// A rendering for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.text.clone(),
            Self::List(items, _) => items.iter().map(Self::shown).collect::<Vec<_>>().join(", "),
            Self::Table(_) => "a section".to_owned(),
        }
    }
}

impl Table {
    /// Reads the defaults embedded in the program.
    pub(super) fn parse_default(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, |_| Origin::Default)
    }

    /// Reads a file's text; `path` is only named.
    pub(super) fn parse_file(text: &str, path: PathBuf) -> Result<Self, ConfigError> {
        let path = Arc::new(path);
        Self::parse(text, |line| Origin::File { path: Arc::clone(&path), line })
    }

    fn parse(text: &str, origin: impl Fn(usize) -> Origin) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let parsed = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: origin(line_of(error.span().map_or(0, |span| span.start))),
            message: error.message().to_owned(),
        })?;
        let locate = |at: usize| origin(line_of(at));
        Ok(Self::convert(parsed.into_inner(), origin(1), &locate))
    }

    fn convert(table: DeTable<'_>, origin: Origin, locate: &dyn Fn(usize) -> Origin) -> Self {
        let entries = table.into_iter().map(|(key, value)| {
            let origin = locate(key.span().start);
            (key.into_inner().into_owned(), convert_value(value.into_inner(), origin, locate))
        });
        Self { entries: entries.collect(), origin }
    }

    /// Lays `over` on top: sections are merged key by key, everything else is replaced.
    pub(super) fn merge(&mut self, over: Self) {
        for (key, node) in over.entries {
            match (self.entries.get_mut(&key), node) {
                (Some(Node::Table(below)), Node::Table(above)) => below.merge(above),
                (_, node) => {
                    self.entries.insert(key, node);
                }
            }
        }
    }

    /// Sets the value at a path; what stands in the way is replaced by sections.
    pub(super) fn set(&mut self, path: &str, node: Node) {
        let origin = node.origin().clone();
        let over = path.rsplit('.').fold(node, |inner, key| {
            let entries = BTreeMap::from([(key.to_owned(), inner)]);
            Node::Table(Self { entries, origin: origin.clone() })
        });
        if let Node::Table(over) = over {
            self.merge(over);
        }
    }

    /// The section of this name.
    pub(super) fn table(&self, key: &str) -> Option<&Self> {
        match self.entries.get(key) {
            Some(Node::Table(table)) => Some(table),
            _ => None,
        }
    }

    /// Dotted paths of everything in here.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (key, node) in &self.entries {
            paths.push(key.clone());
            if let Node::Table(table) = node {
                paths.extend(table.paths().into_iter().map(|path| format!("{key}.{path}")));
            }
        }
        paths
    }
}

fn convert_value(value: DeValue<'_>, origin: Origin, locate: &dyn Fn(usize) -> Origin) -> Node {
    let leaf = |kind, text: String| Node::Leaf(Leaf { kind, text, origin: origin.clone() });
    match value {
        DeValue::String(text) => leaf(Kind::Text, text.into_owned()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let decimal = i128::from_str_radix(digits, number.radix()).map(|value| value.to_string());
            leaf(Kind::Integer, decimal.unwrap_or_else(|_| digits.to_owned()))
        }
        DeValue::Float(number) => leaf(Kind::Number, number.as_str().trim_start_matches('+').to_owned()),
        DeValue::Boolean(flag) => leaf(Kind::Flag, flag.to_string()),
        DeValue::Datetime(time) => leaf(Kind::Time, time.to_string()),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| {
                let origin = locate(item.span().start);
                convert_value(item.into_inner(), origin, locate)
            });
            Node::List(items.collect(), origin)
        }
        DeValue::Table(table) => Node::Table(Table::convert(table, origin, locate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf<'a>(table: &'a Table, key: &str) -> &'a Leaf {
        match table.entries.get(key) {
            Some(Node::Leaf(leaf)) => leaf,
            other => panic!("{key} is {other:?}"),
        }
    }

    #[test]
    fn numbers_keep_their_text_and_values_their_line() {
        let text = "a = 0.1000000000000000055511151231257827\nb = 0x1F\n\nc = 1_000\n";
        let table = Table::parse_file(text, PathBuf::from("x.toml")).expect("valid");
        assert_eq!(leaf(&table, "a").text, "0.1000000000000000055511151231257827");
        assert_eq!(leaf(&table, "b").text, "31");
        assert_eq!(leaf(&table, "c").text, "1000");
        assert_eq!(leaf(&table, "c").origin.to_string(), "x.toml:4");
    }

    #[test]
    fn merging_replaces_values_and_keeps_the_rest_of_a_section() {
        let mut table = Table::parse_default("[a]\nx = 1\ny = [1, 2]\n").expect("valid");
        table.set("a.x", Node::typed("7", Origin::CommandLine));
        table.set("b.c.d", Node::typed("[\"q\"]", Origin::CommandLine));
        let a = table.table("a").expect("section");
        assert_eq!(leaf(a, "x").text, "7");
        assert!(matches!(a.entries.get("y"), Some(Node::List(items, _)) if items.len() == 2));
        assert_eq!(table.paths(), ["a", "a.x", "a.y", "b", "b.c", "b.c.d"]);
    }

    #[test]
    fn bad_syntax_names_file_and_line() {
        let error = Table::parse_file("a = 1\nb = = 2\n", PathBuf::from("x.toml")).expect_err("invalid");
        assert!(error.to_string().starts_with("x.toml:2: "), "{error}");
    }
}
