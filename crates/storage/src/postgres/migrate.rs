//! The schema: the tables whose rows age, then the embedded migrations, by one process at a time.

use std::collections::HashSet;

use sqlx::{
    PgPool,
    migrate::{Migrate as _, Migrator},
};

use super::{
    classify::{migrate_error, newer, store_error},
    connect::{Lease, Timescale, lease},
    layout::{self, Shape},
    partitions::Partitions,
};
use crate::error::StoreError;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");
const RECORD: &str = "_sqlx_migrations";
/// A migration takes as long as it takes; waiting for another process's does not. The lock is the session's and goes with it.
const BEGIN: &str = "set statement_timeout = 0; set lock_timeout = '60s'; select pg_advisory_lock(hashtext('fathom migrate'))";

/// Brings the schema to this program's version and gives the names of what was added, and the tables' shape.
pub(super) async fn migrate(
    pool: &PgPool,
    partitions: &Partitions,
    timescale: Timescale,
) -> Result<(Vec<String>, Shape), StoreError> {
    let shape = Shape::choose(timescale)?;
    let failed = |error| store_error(&error).while_doing("migration");
    let mut lease = lease(pool).await?;
    lease.run(BEGIN).await.map_err(failed)?;
    let added = apply(&mut lease, &MIGRATIONS, shape).await?;
    let now_ms: i64 = sqlx::query_scalar("select (extract(epoch from now()) * 1000)::bigint")
        .fetch_one(lease.connection())
        .await
        .map_err(failed)?;
    // Not given back: the connection has settings of its own, and the lock ends with it.
    drop(lease);
    partitions.make_ahead(pool, now_ms).await.map_err(failed)?;
    Ok((added, shape))
}

/// The views speak of the aged tables, so these come first; but nothing is touched in a database that a newer program made.
async fn apply(lease: &mut Lease, migrations: &Migrator, shape: Shape) -> Result<Vec<String>, StoreError> {
    let connection = lease.connection();
    connection.ensure_migrations_table(RECORD).await.map_err(|error| migrate_error(&error))?;
    let applied = connection.list_applied_migrations(RECORD).await.map_err(|error| migrate_error(&error))?;
    let applied: HashSet<i64> = applied.into_iter().map(|migration| migration.version).collect();
    let known: HashSet<i64> = migrations.iter().map(|migration| migration.version).collect();
    if let Some(unknown) = applied.difference(&known).max() {
        return Err(newer(*unknown));
    }
    let mut added = Vec::new();
    if layout::ensure(connection, shape).await? {
        added.push(format!("layout_{:04}", layout::VERSION));
    }
    migrations.run_direct(None, connection, false).await.map_err(|error| migrate_error(&error))?;
    let missing = migrations.iter().filter(|migration| !applied.contains(&migration.version));
    added
        .extend(missing.map(|migration| {
            format!("{:04}_{}", migration.version, migration.description.replace(' ', "_"))
        }));
    Ok(added)
}
