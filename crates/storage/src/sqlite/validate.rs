//! Whether a file holds what the migrations make: compared with an empty database in memory that they were applied to.

use std::collections::BTreeMap;

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    SqliteStore,
    classify::{migrate_error, store_error},
    migrate::MIGRATIONS,
    row::value,
};
use crate::{
    check::{Check, compare},
    error::StoreError,
};

const OBJECTS: &str = "select type, name, coalesce(sql, '') as sql from sqlite_schema \
                       where name not like 'sqlite\\_%' escape '\\' and name not like '\\_sqlx%' escape '\\' order by type, name";

impl SqliteStore {
    /// Every table, index, view and trigger that should be there.
    pub(super) async fn checks(&self) -> Result<Vec<Check>, StoreError> {
        let failed = |error: sqlx::Error| store_error(&error).while_doing("validate");
        let mut wanted = SqliteConnection::connect("sqlite::memory:").await.map_err(failed)?;
        MIGRATIONS.run_direct(None, &mut wanted, false).await.map_err(|error| migrate_error(&error))?;
        let expected = sqlx::query(OBJECTS).fetch_all(&mut wanted).await.map_err(failed)?;
        let found = sqlx::query(OBJECTS).fetch_all(&self.readers).await.map_err(failed)?;
        Ok(compare(objects(&expected)?, &objects(&found)?))
    }
}

fn objects(rows: &[SqliteRow]) -> Result<BTreeMap<(String, String), String>, StoreError> {
    let object = |row: &SqliteRow| Ok(((value(row, "type")?, value(row, "name")?), value(row, "sql")?));
    rows.iter().map(object).collect()
}
