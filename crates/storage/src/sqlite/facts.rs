//! What this store says of itself.

use sqlx::sqlite::SqliteArguments;

use super::{SqliteStore, row::value};
use crate::{error::StoreError, store::Fact};

impl SqliteStore {
    pub(super) async fn tell(&self) -> Result<Vec<Fact>, StoreError> {
        let version = self.number("select sqlite_version() as fact").await?;
        let made = "select count(*) || '' as fact from sqlite_schema where name = '_sqlx_migrations'";
        let schema = match self.number(made).await?.as_str() {
            "0" => "not made yet".to_owned(),
            _ => {
                let last =
                    "select coalesce(max(version), 0) || '' as fact from _sqlx_migrations where success";
                format!("migration {}", self.number(last).await?)
            }
        };
        Ok(vec![("version", version), ("schema", schema)])
    }

    async fn number(&self, sql: &str) -> Result<String, StoreError> {
        let rows = self.fetch(sql.to_owned(), SqliteArguments::default()).await?;
        rows.first().map_or(Ok(String::new()), |row| value(row, "fact"))
    }
}
