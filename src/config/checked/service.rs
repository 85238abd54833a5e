//! The process itself: HTTP, logging, supervision.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::{error::ConfigError, read::Reader, secret::Secret};

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address to bind. Anything but loopback comes with a token.
    pub host: IpAddr,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Server threads.
    pub workers: usize,
    /// The token of writing calls; `None` leaves them open, on loopback only.
    pub token: Option<Secret>,
    /// Open connections at most.
    pub max_connections: usize,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Rows of an answer at most.
    pub max_rows: usize,
    /// Time in which a request's head must arrive.
    pub request_timeout: Duration,
}

impl Http {
    pub(super) fn read(reader: &mut Reader<'_>, token: Option<Secret>) -> Result<Self, ConfigError> {
        let host = reader.required("host", "an IP address or localhost", |leaf| address(leaf.text()?))?;
        let token_file = reader.optional_path("token_file")?;
        let from_file = token_file.map(|path| read_token(reader, &path)).transpose()?;
        let token = token.or(from_file);
        if token.is_none() && !host.is_loopback() {
            return Err(ConfigError::Exposed { host, origin: reader.origin("host") });
        }
        Ok(Self {
            host,
            port: reader.int("port", 0..=65_535)?,
            workers: reader.int("workers", 1..=64)?,
            token,
            max_connections: reader.int("max_connections", 1..=100_000)?,
            max_body_bytes: reader.int("max_body_bytes", 1024..=67_108_864)?,
            max_rows: reader.int("max_rows", 1..=1_000_000)?,
            request_timeout: reader.millis("request_timeout_ms", 100..=600_000)?,
        })
    }
}

fn address(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().ok()
}

fn read_token(reader: &Reader<'_>, path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Secret::token(&text).ok_or_else(|| {
        reader.invalid("token_file", "expected a file that holds one token of visible ASCII without blanks")
    })
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The name as configured.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `2025-10-23 12:45:30 [INFO] [component] text`.
    Human,
    /// One JSON object a line.
    Json,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// A file besides standard output.
    pub file: Option<PathBuf>,
}

impl Log {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        const LEVELS: [LogLevel; 5] =
            [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        Ok(Self {
            level: reader.choice("level", &LEVELS.map(|level| (level.as_str(), level)))?,
            format: reader.choice("format", &[("human", LogFormat::Human), ("json", LogFormat::Json)])?,
            file: reader.optional_path("file")?,
        })
    }
}

/// Deadlines and limits of the actor tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// How long a reader waits for an actor's answer.
    pub ask_deadline: Duration,
    /// Restarts by an operator at most, a minute and target.
    pub manual_restarts_per_minute: u32,
    /// Time in which a stop must drain, flush and close.
    pub shutdown_deadline: Duration,
}

impl Supervision {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            ask_deadline: reader.millis("ask_deadline_ms", 10..=60_000)?,
            manual_restarts_per_minute: reader.int("manual_restarts_per_minute", 1..=600)?,
            shutdown_deadline: reader.millis("shutdown_deadline_ms", 1000..=600_000)?,
        })
    }
}
