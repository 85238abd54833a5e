//! What an error of MySQL or MariaDB means for the caller. Numbers: <https://dev.mysql.com/doc/mysql-errors/8.0/en/> and
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use std::time::Duration;

use sqlx::{migrate::MigrateError, mysql::MySqlDatabaseError};

use crate::error::StoreError;

/// Another transaction was in the way.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);
/// The server is away, or has too much to do.
const AFTER_LOSS: Duration = Duration::from_secs(1);
/// Space comes back by retention or by an operator, not in an instant.
const AFTER_FULL: Duration = Duration::from_secs(30);

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another transaction was in the way: the same one goes through when it is begun again.
    Conflict,
    /// It may go through later.
    Transient(Duration),
    /// A row is refused for what it holds.
    Row,
    /// It needs an operator.
    Fatal,
}

/// A row with this key is stored.
pub(super) const DUPLICATE_KEY: u16 = 1062;

const fn verdict_of_number(number: u16) -> Verdict {
    match number {
        // Deadlock, waited for a lock, lock table full, rolled back by the cluster, and a key that appeared after it was
        // looked for.
        1213 | 1205 | 1206 | 3101 | DUPLICATE_KEY => Verdict::Conflict,
        // Too many connections; shutting down; lost or killed; interrupted or out of time; a table that was just altered; a
        // statement to be prepared again; a cluster's node that is not ready; idle for too long.
        1040
        | 1041
        | 1047
        | 1053
        | 1077
        | 1079
        | 1129
        | 1152
        | 1158..=1161
        | 1184
        | 1203
        | 1226
        | 1317
        | 1412
        | 1615
        | 1637
        | 1927
        | 1969
        | 2006
        | 2013
        | 3024
        | 3168
        | 3169
        | 4031 => Verdict::Transient(AFTER_LOSS),
        // Out of disk or memory.
        1021 | 1026 | 1028 | 1037 | 1038 | 1114 => Verdict::Transient(AFTER_FULL),
        // Null; cut; no value; no number or time; out of range; too long; not of the character set; an expression out of range;
        // too great for a message; a check of MySQL or MariaDB.
        1048 | 1153 | 1264 | 1265 | 1292 | 1300 | 1364 | 1366 | 1367 | 1406 | 1690 | 3819 | 3988 | 4025 => {
            Verdict::Row
        }
        // Read-only (1290, 1792, 1836) as well: a server that is no longer the primary does not become it by waiting.
        _ => Verdict::Fatal,
    }
}

/// Sorts any error of the driver.
pub(super) fn verdict(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(_) => number(error).map_or(Verdict::Fatal, verdict_of_number),
        // What the driver cannot read is a connection that broke off, or one left in the middle of an answer.
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => Verdict::Transient(AFTER_LOSS),
        sqlx::Error::Encode(_) => Verdict::Row,
        _ => Verdict::Fatal,
    }
}

/// The server's number of an error.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(inner) = error else { return None };
    inner.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// Whether a failed commit may have been stored all the same: the answer was lost, or the server went away.
pub(super) fn commit_is_unknown(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => !matches!(verdict(error), Verdict::Conflict | Verdict::Row),
        _ => true,
    }
}

/// The error of a call that writes no rows.
pub(super) fn store_error(error: &sqlx::Error) -> StoreError {
    match (error, verdict(error)) {
        (sqlx::Error::PoolClosed, _) => StoreError::fatal(CLOSED),
        (_, Verdict::Conflict) => StoreError::transient(AFTER_CONFLICT, error.to_string()),
        (_, Verdict::Transient(retry_after)) => StoreError::transient(retry_after, error.to_string()),
        (_, Verdict::Row | Verdict::Fatal) => StoreError::fatal(error.to_string()),
    }
}

/// What is said after closing.
pub(super) const CLOSED: &str = "the store is closed";

/// The error of a migration.
pub(super) fn migrate_error(error: &MigrateError) -> StoreError {
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
    fn numbers_are_sorted_by_what_helps() {
        let cases = [
            (1213, Verdict::Conflict),
            (1205, Verdict::Conflict),
            (1062, Verdict::Conflict),
            (1040, Verdict::Transient(AFTER_LOSS)),
            (1053, Verdict::Transient(AFTER_LOSS)),
            (1969, Verdict::Transient(AFTER_LOSS)),
            (3024, Verdict::Transient(AFTER_LOSS)),
            (1114, Verdict::Transient(AFTER_FULL)),
            (1264, Verdict::Row),
            (1406, Verdict::Row),
            (1366, Verdict::Row),
            (3819, Verdict::Row),
            (4025, Verdict::Row),
            (1045, Verdict::Fatal),
            (1049, Verdict::Fatal),
            (1054, Verdict::Fatal),
            (1146, Verdict::Fatal),
            (1290, Verdict::Fatal),
        ];
        for (number, expected) in cases {
            assert_eq!(verdict_of_number(number), expected, "{number}");
        }
    }

    #[test]
    fn a_lost_connection_passes_and_leaves_a_commit_in_doubt() {
        let lost = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(verdict(&lost), Verdict::Transient(AFTER_LOSS));
        assert!(commit_is_unknown(&lost));
        assert!(commit_is_unknown(&sqlx::Error::Protocol("half a packet".into())));
        assert!(store_error(&lost).is_transient());
        assert_eq!(store_error(&sqlx::Error::PoolClosed), StoreError::fatal(CLOSED));
    }
}
