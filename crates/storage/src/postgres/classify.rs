//! What an error of PostgreSQL means for the caller. Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::{error::StoreError, store::WriteOutcome};

/// Another transaction was in the way.
const AFTER_CLASH: Duration = Duration::from_millis(250);
/// The server is away, starting, or out of connections or memory.
const AFTER_AWAY: Duration = Duration::from_secs(2);
/// Space, a privilege, a role or a table comes back by an operator, not in an instant.
const AFTER_OPERATOR: Duration = Duration::from_secs(30);

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same transaction may go through when it is begun again.
    Again,
    /// It may go through later.
    Later(Duration),
    /// A row is refused for what it holds.
    Row,
    /// It needs an operator, and then goes through.
    Operator,
    /// The stored data is damaged, or the store is closed.
    Fatal,
}

/// Sorts an SQLSTATE.
pub(super) fn verdict_of_state(state: &str) -> Verdict {
    match state {
        // Lock not to be had within its timeout; a plan or statement that another session's change made void.
        "55P03" | "0A000" | "26000" => return Verdict::Again,
        // A statement beyond its timeout.
        "57014" => return Verdict::Later(AFTER_AWAY),
        "53100" | "25006" => return Verdict::Later(AFTER_OPERATOR),
        "XX001" | "XX002" => return Verdict::Fatal,
        _ => {}
    }
    match state.get(..2).unwrap_or_default() {
        "40" => Verdict::Again,
        // Connection, transaction state, resources, object in use, operator's intervention, system.
        "08" | "25" | "53" | "55" | "57" | "58" => Verdict::Later(AFTER_AWAY),
        // Data, constraints, limits such as a key too long for its index.
        "22" | "23" | "54" => Verdict::Row,
        _ => Verdict::Operator,
    }
}

/// Sorts any error of the driver.
pub(super) fn verdict(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(inner) => {
            inner.code().map_or(Verdict::Operator, |code| verdict_of_state(&code))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => Verdict::Later(AFTER_AWAY),
        sqlx::Error::Encode(_) => Verdict::Row,
        sqlx::Error::PoolClosed => Verdict::Fatal,
        _ => Verdict::Operator,
    }
}

/// Whether a key was there already.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.code().as_deref() == Some("23505"))
}

/// Whether a table is not there.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.code().as_deref() == Some("42P01"))
}

/// Whether a failed commit may have been carried out all the same: the answer was lost.
pub(super) fn commit_is_unknown(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(inner) => {
            inner.code().is_none_or(|code| code.starts_with("08") || code.starts_with("57"))
        }
        _ => false,
    }
}

/// The error's words, with more sense than the pool's own.
fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => {
            "no connection in time: the server is away, or all connections are in use".to_owned()
        }
        sqlx::Error::PoolClosed => "the store is closed".to_owned(),
        other => other.to_string(),
    }
}

/// The error of a call that writes no rows.
pub(super) fn store_error(error: &sqlx::Error) -> StoreError {
    match verdict(error) {
        Verdict::Again => StoreError::transient(AFTER_CLASH, words(error)),
        Verdict::Later(retry_after) => StoreError::transient(retry_after, words(error)),
        Verdict::Row | Verdict::Operator | Verdict::Fatal => StoreError::fatal(words(error)),
    }
}

/// The outcome of a write that failed before its commit. What needs an operator is transient here: a fatal outcome would
/// make the caller look for the rows to blame, and there are none.
pub(super) fn outcome(error: &sqlx::Error) -> WriteOutcome {
    let transient = |retry_after| WriteOutcome::Transient { retry_after, error: words(error) };
    match verdict(error) {
        Verdict::Again => transient(AFTER_CLASH),
        Verdict::Later(retry_after) => transient(retry_after),
        Verdict::Operator => transient(AFTER_OPERATOR),
        Verdict::Row => WriteOutcome::Poison { rows: Vec::new() },
        Verdict::Fatal => WriteOutcome::Fatal { error: words(error) },
    }
}

/// The error of a migration.
pub(super) fn migrate_error(error: &MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => newer(*version),
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

/// The error of a database that knows more than this program.
pub(super) fn newer(version: i64) -> StoreError {
    StoreError::fatal(format!(
        "the database was made by a newer program: migration {version} is not known to this one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_helps() {
        let cases = [
            ("40001", Verdict::Again),
            ("40P01", Verdict::Again),
            ("55P03", Verdict::Again),
            ("57P01", Verdict::Later(AFTER_AWAY)),
            ("57P03", Verdict::Later(AFTER_AWAY)),
            ("57014", Verdict::Later(AFTER_AWAY)),
            ("08006", Verdict::Later(AFTER_AWAY)),
            ("53300", Verdict::Later(AFTER_AWAY)),
            ("53200", Verdict::Later(AFTER_AWAY)),
            ("53100", Verdict::Later(AFTER_OPERATOR)),
            ("25006", Verdict::Later(AFTER_OPERATOR)),
            ("22003", Verdict::Row),
            ("23514", Verdict::Row),
            ("54000", Verdict::Row),
            ("42501", Verdict::Operator),
            ("42P01", Verdict::Operator),
            ("28P01", Verdict::Operator),
            ("XX001", Verdict::Fatal),
            ("", Verdict::Operator),
        ];
        for (state, expected) in cases {
            assert_eq!(verdict_of_state(state), expected, "{state}");
        }
    }

    #[test]
    fn only_a_lost_answer_leaves_a_commit_unknown() {
        assert!(commit_is_unknown(&sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into())));
        assert!(!commit_is_unknown(&sqlx::Error::RowNotFound));
    }

    #[test]
    fn a_server_that_is_away_is_waited_for() {
        assert!(matches!(outcome(&sqlx::Error::PoolTimedOut), WriteOutcome::Transient { .. }));
        assert!(store_error(&sqlx::Error::PoolTimedOut).is_transient());
    }
}
