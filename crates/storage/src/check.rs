//! What a store should hold, and whether it does: tables, partitions, indexes, views, triggers, policies.

use std::collections::BTreeMap;

/// One thing that a store should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `table`, `partition`, `hypertable`, `index`, `view`, `trigger`, `function`, `policy`, `aggregate`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How it should be; empty where being there is all.
    pub expected: String,
    /// How it is; `None` where it is missing.
    pub found: Option<String>,
}

impl Check {
    /// Whether it is there and as it should be.
    pub fn is_ok(&self) -> bool {
        self.found.as_deref() == Some(self.expected.as_str())
    }
}

/// What is expected beside what was found, by kind and name.
pub(crate) fn compare(
    expected: impl IntoIterator<Item = ((String, String), String)>,
    found: &BTreeMap<(String, String), String>,
) -> Vec<Check> {
    let check = |(key, expected): ((String, String), String)| {
        let found = found.get(&key).cloned();
        Check { kind: key.0, name: key.1, expected, found }
    };
    expected.into_iter().map(check).collect()
}

/// The names of what migrations make, by kind, in the order of their statements: what is dropped again is left out.
pub(crate) fn made_by<'a>(migrations: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut made: Vec<(String, String)> = Vec::new();
    for line in migrations.into_iter().flat_map(str::lines) {
        let mut words = line.split([' ', '(', ';']).filter(|word| !word.is_empty());
        let verb = words.next();
        let mut words = words.filter(|word| *word != "unique");
        let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
        let is_kind = ["table", "index", "view", "trigger", "function"].contains(&kind);
        let key = (kind.to_owned(), name.to_owned());
        match verb {
            Some("create") if is_kind => made.push(key),
            Some("drop") if is_kind => made.retain(|known| *known != key),
            _ => {}
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_migrations_make_is_read_from_their_statements() {
        let first = "-- create table no (\ncreate table a (\n    create_it integer\n);\ncreate unique index a_b on a (b);\n\
                     create view v as\nselect 1;\ncreate view w as select 2;";
        let second = "drop view v;\ncreate view v as select 3;\ndrop view w;\ncreate function f(x bigint) returns bigint";
        let made = made_by([first, second]);
        let names: Vec<String> = made.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
        assert_eq!(names, ["table a", "index a_b", "view v", "function f"]);
    }

    #[test]
    fn a_thing_is_right_when_it_is_there_and_as_expected() {
        let key = |name: &str| ("table".to_owned(), name.to_owned());
        let found = BTreeMap::from([(key("a"), "x".to_owned()), (key("b"), "y".to_owned())]);
        let expected = ["a", "b", "c"].map(|name| (key(name), "x".to_owned()));
        let right: Vec<bool> = compare(expected, &found).iter().map(Check::is_ok).collect();
        assert_eq!(right, [true, false, false]);
    }
}
