//! What an error of SQLite means for the caller. Codes: <https://www.sqlite.org/rescode.html>.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::error::StoreError;

/// Somebody else holds the lock; the busy timeout was waited for already.
const AFTER_BUSY: Duration = Duration::from_millis(250);
const AFTER_IO: Duration = Duration::from_secs(2);
/// Space comes back by retention or by an operator, not in an instant.
const AFTER_FULL: Duration = Duration::from_secs(30);

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go through later.
    Transient(Duration),
    /// A row is refused for what it holds.
    Row,
    /// It needs an operator.
    Fatal,
}

/// Sorts an extended result code.
pub(crate) const fn verdict_of_code(code: i32) -> Verdict {
    // A read that found a damaged file system is no passing trouble: SQLITE_IOERR_CORRUPTFS.
    if code == 8458 {
        return Verdict::Fatal;
    }
    match code & 0xff {
        // ABORT, BUSY, LOCKED, INTERRUPT, PROTOCOL (WAL lock race), SCHEMA
        4 | 5 | 6 | 9 | 15 | 17 => Verdict::Transient(AFTER_BUSY),
        // NOMEM, IOERR, CANTOPEN (also: out of descriptors)
        7 | 10 | 14 => Verdict::Transient(AFTER_IO),
        // FULL
        13 => Verdict::Transient(AFTER_FULL),
        // TOOBIG, CONSTRAINT, MISMATCH
        18..=20 => Verdict::Row,
        _ => Verdict::Fatal,
    }
}

/// Sorts any error of the driver.
pub(crate) fn verdict(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(inner) => code(inner.as_ref()).map_or(Verdict::Fatal, verdict_of_code),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => {
            Verdict::Transient(AFTER_IO)
        }
        sqlx::Error::Encode(_) => Verdict::Row,
        _ => Verdict::Fatal,
    }
}

fn code(error: &dyn sqlx::error::DatabaseError) -> Option<i32> {
    error.code()?.parse().ok()
}

/// Whether a failed commit may have reached the disk all the same: the answer was lost, or the disk failed while syncing.
pub(crate) fn commit_is_unknown(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(inner) => code(inner.as_ref()).is_some_and(|code| code & 0xff == 10),
        _ => false,
    }
}

/// The error of a call that writes no rows.
pub(crate) fn store_error(error: &sqlx::Error) -> StoreError {
    match verdict(error) {
        Verdict::Transient(retry_after) => StoreError::transient(retry_after, error.to_string()),
        Verdict::Row | Verdict::Fatal => StoreError::fatal(error.to_string()),
    }
}

/// The error of a migration.
pub(crate) fn migrate_error(error: &MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => StoreError::fatal(format!(
            "the database was made by a newer program: migration {version} is not known to this one"
        )),
        MigrateError::VersionMismatch(version) => {
            StoreError::fatal(format!("migration {version} was changed after it had been applied"))
        }
        MigrateError::Execute(inner) => store_error(inner),
        MigrateError::ExecuteMigration(inner, version) => {
            store_error(inner).while_doing(&format!("migration {version}"))
        }
        other => StoreError::fatal(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_helps() {
        let cases = [
            (5, Verdict::Transient(AFTER_BUSY)),
            (517, Verdict::Transient(AFTER_BUSY)),
            (6, Verdict::Transient(AFTER_BUSY)),
            (13, Verdict::Transient(AFTER_FULL)),
            (778, Verdict::Transient(AFTER_IO)),
            (8458, Verdict::Fatal),
            (275, Verdict::Row),
            (3091, Verdict::Row),
            (8, Verdict::Fatal),
            (11, Verdict::Fatal),
            (26, Verdict::Fatal),
            (1, Verdict::Fatal),
        ];
        for (code, expected) in cases {
            assert_eq!(verdict_of_code(code), expected, "{code}");
        }
        assert!(AFTER_FULL > AFTER_BUSY);
    }
}
