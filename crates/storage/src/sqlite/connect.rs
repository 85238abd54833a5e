//! How connections are opened: one for writing, a bounded pool for reading. Nothing is asked of the tables here.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::classify::store_error;
use crate::{account::QuarantineLimits, error::StoreError};

/// Applies to new files. A batch touches a page or two of each instrument and logs them whole: pages of 8192 were measured
/// to take a fifth to a third off the rows a second.
const PAGE_BYTES: u32 = 4096;
/// Negative counts are KiB.
const WRITER_CACHE: &str = "-32768";
const READER_CACHE: &str = "-8192";
/// The write-ahead log is cut back to this after a checkpoint, bytes.
const JOURNAL_LIMIT: &str = "67108864";
/// Pages in the log before a commit moves them into the file: 32 MiB, so that a page touched by many batches moves once.
const CHECKPOINT_PAGES: &str = "8192";
/// One statement for each table and each power of two of rows, and the few others.
const STATEMENTS: usize = 256;
const READER_WAIT: Duration = Duration::from_secs(5);
const ROWS_AHEAD: usize = 512;

/// What a commit outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process. A power cut may take the last commits, but never leaves the file damaged.
    #[default]
    Normal,
    /// A power cut too, at the price of a disk sync for each commit.
    Full,
}

/// Where and how to open a SQLite store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file; it and its directory are made where missing.
    pub path: PathBuf,
    /// What a commit outlives.
    pub durability: Durability,
    /// Reading connections at most; at least one is opened.
    pub readers: u32,
    /// How long to wait for a lock that another process holds.
    pub busy_timeout: Duration,
    /// How much the quarantine may hold.
    pub quarantine: QuarantineLimits,
}

impl SqliteConfig {
    /// The defaults for a file: normal durability, four readers, five seconds.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            quarantine: QuarantineLimits::default(),
        }
    }
}

/// Opens the writing connection again and again: it is thrown away whenever its state is in doubt.
#[derive(Clone, Debug)]
pub(crate) struct WriterOptions(SqliteConnectOptions);

impl WriterOptions {
    pub(crate) fn new(config: &SqliteConfig, extra: &[(&'static str, &'static str)]) -> Self {
        let synchronous = match config.durability {
            Durability::Normal => SqliteSynchronous::Normal,
            Durability::Full => SqliteSynchronous::Full,
        };
        let options = common(config)
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .pragma("cache_size", WRITER_CACHE)
            .pragma("journal_size_limit", JOURNAL_LIMIT)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .thread_name(|_| "sqlite-writer".into());
        Self(extra.iter().fold(options, |options, (key, value)| options.pragma(*key, *value)))
    }

    pub(crate) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.0.connect().await
    }
}

/// The reading pool; it connects when it is first asked.
pub(crate) fn readers(config: &SqliteConfig) -> SqlitePool {
    let options = common(config)
        .read_only(true)
        .row_buffer_size(ROWS_AHEAD)
        .pragma("cache_size", READER_CACHE)
        .thread_name(|id| format!("sqlite-reader-{id}"));
    SqlitePoolOptions::new()
        .max_connections(config.readers.max(1))
        .acquire_timeout(READER_WAIT)
        .connect_lazy_with(options)
}

fn common(config: &SqliteConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&config.path)
        .busy_timeout(config.busy_timeout)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
}

/// Makes the directory that the file will be in.
pub(crate) fn make_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(parent)
        .map_err(|error| StoreError::fatal(format!("directory {} cannot be made: {error}", parent.display())))
}

/// An error of opening, with the file's name.
pub(crate) fn open_error(path: &Path, error: &sqlx::Error) -> StoreError {
    store_error(error).while_doing(&format!("database {}", path.display()))
}
