//! The schema: the embedded migrations, applied in order, by one process at a time.
//!
//! A statement that changes the schema commits on its own here, so that a crash leaves a migration half done. Each is recorded
//! before its first statement and marked done after its last; one that is not marked is run again from its beginning, which its
//! statements allow.

use std::collections::HashMap;

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, Row as _,
    migrate::{Migrate as _, MigrateError, Migration, Migrator},
};

use super::{classify::migrate_error, connect::Opener};
use crate::error::StoreError;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/mysql");
const RECORD: &str = "_sqlx_migrations";
/// How long to wait for another process that migrates, seconds.
const WAIT: u32 = 60;
/// Locks belong to the server, so their names hold a digest of the database's; 64 characters at most.
const LOCK: &str = "concat('fathom.migrate.', left(sha1(database()), 40))";

/// Applies what is missing and gives the names.
pub(super) async fn migrate(opener: &Opener) -> Result<Vec<String>, StoreError> {
    apply(opener, &MIGRATIONS).await.map_err(|error| migrate_error(&error))
}

/// Applies what is missing of some migrations and gives the names.
pub(super) async fn apply(opener: &Opener, migrations: &Migrator) -> Result<Vec<String>, MigrateError> {
    let mut connection = opener.session().await?.connection;
    // An index of a great table takes longer than a statement may.
    connection.execute(opener.unbounded()).await?;
    lock(&mut connection).await?;
    let applied = apply_locked(&mut connection, migrations).await;
    // The lock ends with the connection, however it ends.
    let _ = connection.close().await;
    applied
}

async fn lock(connection: &mut MySqlConnection) -> Result<(), MigrateError> {
    let locked = connection.fetch_one(AssertSqlSafe(format!("select get_lock({LOCK}, {WAIT})"))).await?;
    match locked.try_get::<Option<i64>, _>(0)? {
        Some(1) => Ok(()),
        _ => Err(MigrateError::Execute(sqlx::Error::PoolTimedOut)),
    }
}

async fn apply_locked(
    connection: &mut MySqlConnection,
    migrations: &Migrator,
) -> Result<Vec<String>, MigrateError> {
    connection.ensure_migrations_table(RECORD).await?;
    let known = connection
        .fetch_all("select version, checksum, success from _sqlx_migrations order by version")
        .await?;
    let mut recorded: HashMap<i64, (Vec<u8>, bool)> = HashMap::new();
    for row in known {
        recorded.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    if let Some(newer) = recorded.keys().find(|version| !migrations.version_exists(**version)) {
        return Err(MigrateError::VersionMissing(*newer));
    }
    let mut names = Vec::new();
    for migration in migrations.iter() {
        match recorded.get(&migration.version) {
            Some((checksum, _)) if **checksum != *migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version));
            }
            Some((_, true)) => continue,
            Some((_, false)) => {}
            None => record(connection, migration).await?,
        }
        run(connection, migration).await?;
        names.push(format!("{:04}_{}", migration.version, migration.description.replace(' ', "_")));
    }
    Ok(names)
}

async fn record(connection: &mut MySqlConnection, migration: &Migration) -> Result<(), MigrateError> {
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (?, ?, false, ?, -1)",
    )
    .bind(migration.version)
    .bind(&*migration.description)
    .bind(&*migration.checksum)
    .execute(connection)
    .await?;
    Ok(())
}

async fn run(connection: &mut MySqlConnection, migration: &Migration) -> Result<(), MigrateError> {
    let start = tokio::time::Instant::now();
    for statement in statements(migration.sql.as_str()) {
        let done = connection.execute(AssertSqlSafe(statement)).await;
        done.map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?;
    }
    let nanos = i64::try_from(start.elapsed().as_nanos()).unwrap_or(i64::MAX);
    sqlx::query("update _sqlx_migrations set success = true, execution_time = ? where version = ?")
        .bind(nanos)
        .bind(migration.version)
        .execute(connection)
        .await?;
    Ok(())
}

/// The statements of a file: each ends at the end of a line.
pub(super) fn statements(sql: &str) -> impl Iterator<Item = String> {
    let code = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    let code = code.collect::<Vec<_>>().join("\n");
    let parts: Vec<String> =
        code.split(";\n").map(|part| part.trim().trim_end_matches(';').to_owned()).collect();
    parts.into_iter().filter(|part| !part.is_empty())
}
