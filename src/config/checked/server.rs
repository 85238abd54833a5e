//! Where a store's server is and how it is talked to: a whole address, a file that holds one, or its parts.

use std::{path::Path, time::Duration};

use super::storing::StoreKind;
use crate::{
    address::{Address, encoded},
    config::{error::ConfigError, read::Reader, secret::Secret},
};

/// A store that is a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreServer {
    /// Its address, with the password.
    pub url: Secret,
    /// The same to be shown: host, port and database.
    pub shown: String,
    /// Connections at most.
    pub pool: u32,
    /// The server gives a statement up after this time.
    pub statement_timeout: Duration,
    /// The server ends a session that leaves a transaction open for so long.
    pub idle_in_transaction_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
}

impl StoreServer {
    /// Reads the keys of a server; `None` for the store that is none, which must not be given an address.
    pub(super) fn read(reader: &mut Reader<'_>, kind: StoreKind) -> Result<Option<Self>, ConfigError> {
        let given = Given::read(reader)?;
        let pool = reader.int("pool", 1..=200)?;
        let statement_timeout = reader.millis("statement_timeout_ms", 100..=3_600_000)?;
        let idle_in_transaction_timeout =
            reader.millis("idle_in_transaction_timeout_ms", 1000..=86_400_000)?;
        let connect_timeout = reader.millis("connect_timeout_ms", 100..=60_000)?;
        given.once(reader, kind)?;
        if !kind.is_server() {
            return Ok(None);
        }
        let (url, shown) = given.address(reader, kind)?;
        let url = Secret::address(&url).ok_or_else(|| reader.invalid_secret("url", NOT_AN_ADDRESS))?;
        Ok(Some(Self { url, shown, pool, statement_timeout, idle_in_transaction_timeout, connect_timeout }))
    }
}

const NOT_AN_ADDRESS: &str = "expected an address without blanks";

/// What says where the server is.
struct Given {
    url: Option<Secret>,
    url_file: Option<std::path::PathBuf>,
    host: Option<String>,
    port: u16,
    database: String,
    user: String,
    password: Option<Secret>,
}

impl Given {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        const NAME: &str = "a name without blanks";
        let name = |text: &str| (!text.contains(char::is_whitespace)).then(|| text.to_owned());
        let host = reader.required("host", NAME, |leaf| name(leaf.text()?))?;
        Ok(Self {
            url: reader.secret("url")?,
            url_file: reader.optional_path("url_file")?,
            host: Some(host).filter(|host| !host.is_empty()),
            port: reader.int("port", 0..=65_535)?,
            database: reader.required("database", NAME, |leaf| name(leaf.text()?))?,
            user: reader.required("user", NAME, |leaf| name(leaf.text()?))?,
            password: reader.secret("password")?,
        })
    }

    /// Two answers to one question are refused, and an address where there is no server.
    fn once(&self, reader: &Reader<'_>, kind: StoreKind) -> Result<(), ConfigError> {
        let given = [
            ("url", self.url.is_some()),
            ("url_file", self.url_file.is_some()),
            ("host", self.host.is_some()),
            ("password", self.password.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
        let Some(first) = given.next() else { return Ok(()) };
        if !kind.is_server() {
            let reason = "expected none: store.kind = sqlite is no server; set store.kind to postgres, timescale, mysql or mariadb";
            return Err(reader.invalid_secret(first, reason));
        }
        match (first, given.next()) {
            ("host" | "password", _) | (_, None) => Ok(()),
            (first, Some(second)) => {
                let reason = format!("expected none: store.{first} says already where the server is");
                Err(reader.invalid_secret(second, reason))
            }
        }
    }

    /// The address, and what of it may be shown.
    fn address(&self, reader: &Reader<'_>, kind: StoreKind) -> Result<(String, String), ConfigError> {
        let (key, text) = match (&self.url, &self.url_file, &self.host) {
            (Some(url), ..) => ("url", url.expose().to_owned()),
            (None, Some(path), _) => ("url_file", read_file(path)?),
            (None, None, Some(host)) => ("host", self.composed(kind, host)),
            (None, None, None) => return Err(ConfigError::Missing { key: reader.path_of("url") }),
        };
        let expected = || {
            let reason =
                format!("expected an address such as {}://user:password@host/database", kind.scheme());
            reader.invalid_secret(key, reason)
        };
        let address = Address::parse(&text).ok_or_else(expected)?;
        if address.family() != kind.family() {
            return Err(expected());
        }
        Ok((address.url(), address.shown()))
    }

    fn composed(&self, kind: StoreKind, host: &str) -> String {
        let port = if self.port == 0 { String::new() } else { format!(":{}", self.port) };
        let password = self.password.as_ref().map(|password| format!(":{}", encoded(password.expose())));
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        format!(
            "{}://{}{}@{host}{port}/{}",
            kind.scheme(),
            encoded(&self.user),
            password.unwrap_or_default(),
            encoded(&self.database)
        )
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}
