//! The spool's file: opened, checked, and set aside when it is damaged.

use std::path::{Path, PathBuf};

use sqlx::{SqlitePool, migrate::Migrator};

use super::SpoolConfig;
use crate::{
    error::StoreError,
    sqlite::{
        SqliteConfig,
        classify::store_error,
        connect::{self, WriterOptions},
        migrate,
        writer::Writer,
    },
};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/spool");
/// A greater file is not read through at its opening; what is damaged in it is found when its turn comes.
const CHECKED_BYTES: u64 = 256 * 1024 * 1024;
const READERS: u32 = 2;

/// An open file.
pub(super) struct File {
    pub(super) writer: Writer,
    pub(super) readers: SqlitePool,
}

/// Why a file could not be opened.
pub(super) struct OpenError {
    pub(super) error: StoreError,
    pub(super) is_corrupt: bool,
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self { is_corrupt: is_corrupt(&error), error: store_error(&error) }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        // The words of SQLITE_CORRUPT and SQLITE_NOTADB; a migration's error carries no code.
        let is_corrupt = ["malformed", "not a database"].iter().any(|words| error.message().contains(words));
        Self { error, is_corrupt }
    }
}

impl File {
    /// Opens the file, making it where missing, with the schema of this program.
    pub(super) async fn open(config: &SpoolConfig) -> Result<Self, OpenError> {
        connect::make_parent(&config.path)?;
        let options = SqliteConfig {
            durability: config.durability,
            readers: READERS,
            ..SqliteConfig::new(&config.path)
        };
        let writer_options = WriterOptions::new(&options, &[]);
        let mut connection = writer_options.connect().await?;
        if std::fs::metadata(&config.path).is_ok_and(|file| file.len() <= CHECKED_BYTES) {
            check(&mut connection).await?;
        }
        let writer = Writer::new(writer_options, connection);
        migrate::apply(&writer, &MIGRATIONS).await?;
        Ok(Self { writer, readers: connect::readers(&options) })
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn check(connection: &mut sqlx::SqliteConnection) -> Result<(), OpenError> {
    let found: String = sqlx::query_scalar("pragma quick_check(1)").fetch_one(connection).await?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError { error: StoreError::fatal(found), is_corrupt: true })
}

/// Whether SQLite found the file damaged: SQLITE_CORRUPT, SQLITE_NOTADB.
pub(super) fn is_corrupt(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(inner) = error else { return false };
    let code = inner.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Renames a damaged file and what belongs to it, and gives the new path. Errors name the file alone: they are shown to
/// everybody.
pub(super) fn set_aside(path: &Path, now_us: i64, error: &StoreError) -> Result<PathBuf, StoreError> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    let aside = PathBuf::from(named(&format!(".corrupt-{now_us}")));
    std::fs::rename(path, &aside).map_err(|error| {
        tracing::error!(%error, path = %path.display(), "a damaged file cannot be set aside");
        StoreError::fatal(format!("damaged file {} cannot be set aside: {error}", name(path)))
    })?;
    for suffix in ["-wal", "-shm"] {
        let mut to = aside.clone().into_os_string();
        to.push(suffix);
        // Without a log there is nothing to keep.
        let _ = std::fs::rename(named(suffix), to);
    }
    tracing::error!(%error, aside = %aside.display(), "the spool is damaged: it is set aside and a fresh one begun");
    Ok(aside)
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
