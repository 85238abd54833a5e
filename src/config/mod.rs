//! Configuration: what was typed (`raw`), the environment names of the old services (`legacy`), and what the service runs
//! with (`checked`). Everything that needs a value gets it from a checked [`Config`]; nothing else reads the
//! environment or a file of settings.
//!
//! Later wins: the embedded `config/default.toml` and `config/categories.toml`, the file, old environment names,
//! `FATHOM__SECTION__KEY` variables, the command line.

mod checked;
mod error;
mod legacy;
mod raw;
mod read;
mod secret;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use self::{
    checked::check,
    raw::{Node, Table},
};
pub use self::{
    checked::{
        Candles, Config, Depth, EndpointOverrides, Gaps, Http, KnownVenue, Log, LogFormat, LogLevel,
        OrderbookSnapshots, Poll, RawTables, Redis, Rollup, Spool, SpoolMode, Store, StoreKind, StoreServer,
        Stream, Supervision, Ticks, TierOrder, Tiers, VenueMarket, time_ms,
    },
    error::{ConfigError, Origin},
    legacy::names as old_environment_names,
    secret::Secret,
};

/// The embedded defaults, which document every key.
pub const DEFAULT: &str = include_str!("../../config/default.toml");
/// The embedded categories.
pub const CATEGORIES: &str = include_str!("../../config/categories.toml");
/// The embedded ranked list of base assets.
pub const BUILTIN_SYMBOLS: &str = include_str!("../../config/symbols.toml");
/// The variable that holds the token of writing calls.
pub const TOKEN_VARIABLE: &str = "FATHOM_API_TOKEN";

const GENERIC_PREFIX: &str = "FATHOM__";

/// The environment of this process, without what is not Unicode.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Loads and checks the configuration: the defaults, then `path`, then `environment`, then `overrides` (dotted key and
/// value, as typed on the command line). `known` are the venues that can be collected.
///
/// # Errors
/// [`ConfigError`] names the key, the value and where it was given; the process then ends with
/// [`ConfigError::EXIT_CODE`].
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[(String, String)],
    known: &[KnownVenue],
) -> Result<Config, ConfigError> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let mut tree = Table::parse_default(DEFAULT)?;
    tree.merge(Table::parse_default(CATEGORIES)?);
    let known_keys = tree.paths();
    if let Some(path) = path {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        tree.merge(Table::parse_file(&text, path.to_owned())?);
    }
    let notes = legacy::apply(&mut tree, &environment)?;
    apply_generic(&mut tree, &environment);
    for (key, value) in overrides {
        tree.set(key, Node::typed(value, Origin::CommandLine));
    }
    let token = token_of(&environment)?;
    Ok(Config { notes, ..check(&tree, &known_keys, known, token)? })
}

/// `FATHOM__HTTP__PORT=9000` sets `http.port`. An empty value counts as not set.
fn apply_generic(tree: &mut Table, environment: &BTreeMap<String, String>) {
    for (name, value) in environment {
        let key = name.strip_prefix(GENERIC_PREFIX).filter(|_| !value.trim().is_empty());
        if let Some(key) = key {
            let origin = Origin::Environment(Arc::from(name.as_str()));
            tree.set(&key.to_ascii_lowercase().replace("__", "."), Node::typed(value, origin));
        }
    }
}

fn token_of(environment: &BTreeMap<String, String>) -> Result<Option<Secret>, ConfigError> {
    let given = environment.get(TOKEN_VARIABLE).filter(|text| !text.trim().is_empty());
    let refused = || ConfigError::Invalid {
        key: "http token".to_owned(),
        value: "[hidden]".to_owned(),
        origin: Origin::Environment(Arc::from(TOKEN_VARIABLE)),
        reason: "expected visible ASCII without blanks".to_owned(),
    };
    given.map(|text| Secret::token(text).ok_or_else(refused)).transpose()
}
