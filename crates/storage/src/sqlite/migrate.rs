//! The schema: the embedded migrations, applied in order.

use std::collections::HashSet;

use sqlx::{
    Connection as _,
    migrate::{Migrate as _, Migrator},
};

use super::{
    classify::{migrate_error, store_error},
    writer::Writer,
};
use crate::error::StoreError;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");
const RECORD: &str = "_sqlx_migrations";

/// Applies what is missing of the store's own schema and gives the names.
pub(super) async fn migrate(writer: &Writer) -> Result<Vec<String>, StoreError> {
    apply(writer, &MIGRATIONS).await
}

/// Applies what is missing and gives the names.
pub(crate) async fn apply(writer: &Writer, migrations: &Migrator) -> Result<Vec<String>, StoreError> {
    let mut lease = writer.lease().await?;
    // All of it under one lock: of two processes that start together one waits, and finds the work done.
    let begun = lease.connection.begin_with("begin immediate").await;
    let mut transaction = begun.map_err(|error| store_error(&error))?;
    let connection = &mut *transaction;
    connection.ensure_migrations_table(RECORD).await.map_err(|error| migrate_error(&error))?;
    let applied = connection.list_applied_migrations(RECORD).await.map_err(|error| migrate_error(&error))?;
    let applied: HashSet<i64> = applied.into_iter().map(|migration| migration.version).collect();
    migrations.run_direct(None, connection, false).await.map_err(|error| migrate_error(&error))?;
    transaction.commit().await.map_err(|error| store_error(&error))?;
    lease.give_back();
    let added = migrations.iter().filter(|migration| !applied.contains(&migration.version));
    Ok(added
        .map(|migration| format!("{:04}_{}", migration.version, migration.description.replace(' ', "_")))
        .collect())
}
