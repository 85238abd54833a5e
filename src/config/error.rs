//! What can be wrong with a configuration. Every variant names the key and where its value came from.

use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc};

use thiserror::Error;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The defaults embedded in the program.
    Default,
    /// A file, with the line counted from 1.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// Its line.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// An option of the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the built-in defaults"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::CommandLine => f.write_str("the command line"),
        }
    }
}

/// Why a configuration cannot be used. The process ends with [`ConfigError::EXIT_CODE`].
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A text is no TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where it stands.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// Nothing has this name.
    #[error("unknown key {key} in {origin}; the nearest right one is {nearest}")]
    Unknown {
        /// Dotted path of the key.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// Dotted path of the most similar key.
        nearest: String,
    },
    /// A key without a default was left out.
    #[error("missing key {key}")]
    Missing {
        /// Dotted path of the key.
        key: String,
    },
    /// A value cannot be used.
    #[error("{key} = {value:?} from {origin} is not usable: {reason}")]
    Invalid {
        /// Dotted path of the key.
        key: String,
        /// What was given; secrets are left out.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// Why, or what was expected.
        reason: String,
    },
    /// The service would be open to others without a token.
    #[error(
        "http.host = {host} from {origin} is not a loopback address, and no token is set: \
         set FATHOM_API_TOKEN or http.token_file"
    )]
    Exposed {
        /// The address to bind.
        host: IpAddr,
        /// Where it was given.
        origin: Origin,
    },
}

impl ConfigError {
    /// The exit code of a process whose configuration is not usable.
    pub const EXIT_CODE: u8 = 2;
}
