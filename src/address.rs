//! Addresses of stores, as people write them. What is shown of one never holds its password.

use std::{fmt::Write as _, path::PathBuf};

/// Whose protocol an address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A file.
    Sqlite,
    /// PostgreSQL, with TimescaleDB or without.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

/// A store's address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    family: Family,
    scheme: String,
    rest: String,
}

impl Address {
    /// Reads `sqlite://PATH`, `postgres://...` and `mysql://...` with their other names: `postgresql`, `timescale`,
    /// `mariadb`, and what stands behind a `+` (a driver of another language) is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let scheme = scheme.split('+').next().unwrap_or_default().to_ascii_lowercase();
        let family = match scheme.as_str() {
            "sqlite" => Family::Sqlite,
            "postgres" | "postgresql" | "timescale" => Family::Postgres,
            "mysql" | "mariadb" => Family::Mysql,
            _ => return None,
        };
        let usable = !rest.is_empty() && !rest.contains(char::is_whitespace);
        let address = Self { family, scheme, rest: rest.to_owned() };
        let named = match family {
            Family::Sqlite => address.path().is_some(),
            _ => !address.host_and_path().starts_with(['/', ':']) && !address.database().is_empty(),
        };
        (usable && named).then_some(address)
    }

    /// Whose protocol it speaks.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The kind of store that it names.
    pub fn kind(&self) -> &str {
        if self.scheme == "postgresql" { "postgres" } else { &self.scheme }
    }

    /// The file of a SQLite address. Three slashes begin an absolute path, as people are used to; a database in memory is no
    /// file.
    pub fn path(&self) -> Option<PathBuf> {
        let path = self.rest.split('?').next().unwrap_or_default();
        let usable = self.family == Family::Sqlite && !path.is_empty() && path != ":memory:";
        usable.then(|| PathBuf::from(path))
    }

    /// The address as drivers want it, with its password.
    pub fn url(&self) -> String {
        let scheme = match self.family {
            Family::Sqlite => "sqlite",
            Family::Postgres => "postgres",
            Family::Mysql => "mysql",
        };
        format!("{scheme}://{}", self.rest)
    }

    /// Host, port and database, or the file.
    pub fn shown(&self) -> String {
        match self.family {
            Family::Sqlite => self.rest.split('?').next().unwrap_or_default().to_owned(),
            _ => self.host_and_path().to_owned(),
        }
    }

    /// What stands behind user and password. A password may hold an `@` that nobody encoded, so the last one counts.
    fn host_and_path(&self) -> &str {
        let rest = self.rest.split(['?', '#']).next().unwrap_or_default();
        rest.rsplit_once('@').map_or(rest, |(_, behind)| behind)
    }

    fn database(&self) -> &str {
        self.host_and_path().split_once('/').map_or("", |(_, path)| path)
    }
}

/// Text as a part of an address: whatever could end the part is written as `%XX`.
pub fn encoded(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_password() {
        for (text, shown) in [
            ("postgres://me:hunter2@db:5433/market?sslmode=require", "db:5433/market"),
            ("postgresql+asyncpg://me:hun@ter2@db/market", "db/market"),
            ("mysql+aiomysql://u:hunter2@h/db", "h/db"),
            ("sqlite:///srv/f.db?mode=rwc", "/srv/f.db"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.shown(), shown, "{text}");
            assert!(!address.shown().contains("ter2"));
        }
    }

    #[test]
    fn drivers_get_one_spelling() {
        let url = |text| Address::parse(text).map(|address| address.url());
        assert_eq!(url("mysql+aiomysql://u:p@h/db").as_deref(), Some("mysql://u:p@h/db"));
        assert_eq!(url("mariadb://u@h/db").as_deref(), Some("mysql://u@h/db"));
        assert_eq!(url("timescale://h/db").as_deref(), Some("postgres://h/db"));
        for other in
            ["", "f.db", "sqlite://:memory:", "sqlite://", "oracle://h/db", "postgres://h", "postgres:///db"]
        {
            assert_eq!(url(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_cannot_end_early() {
        assert_eq!(encoded("p@ss:w/ö%"), "p%40ss%3Aw%2F%C3%B6%25");
    }
}
