//! What this store says of itself.

use sqlx::postgres::PgArguments;

use super::{PostgresStore, row::value};
use crate::{error::StoreError, store::Fact};

impl PostgresStore {
    pub(super) async fn tell(&self) -> Result<Vec<Fact>, StoreError> {
        let version = self.word("select current_setting('server_version') as fact").await?;
        let made = "select (to_regclass('_sqlx_migrations') is not null)::text as fact";
        let schema = match self.word(made).await?.as_str() {
            "true" => {
                let last =
                    "select coalesce(max(version), 0)::text as fact from _sqlx_migrations where success";
                format!("migration {}", self.word(last).await?)
            }
            _ => "not made yet".to_owned(),
        };
        Ok(vec![("version", version), ("schema", schema), ("timescale", self.timescale_word().await?)])
    }

    /// Installed with which version and license, available, or neither.
    async fn timescale_word(&self) -> Result<String, StoreError> {
        let installed =
            "select coalesce(max(extversion), '') as fact from pg_extension where extname = 'timescaledb'";
        let installed = self.word(installed).await?;
        if !installed.is_empty() {
            let license = "select coalesce(current_setting('timescaledb.license', true), 'unknown') as fact";
            return Ok(format!("yes, {installed}, license {}", self.word(license).await?));
        }
        let available = "select coalesce(max(default_version), '') as fact \
                         from pg_available_extensions where name = 'timescaledb'";
        Ok(match self.word(available).await? {
            version if version.is_empty() => "no".to_owned(),
            version => format!("no, {version} is available"),
        })
    }

    async fn word(&self, sql: &str) -> Result<String, StoreError> {
        let rows = self.fetch(sql.to_owned(), PgArguments::default()).await?;
        rows.first().map_or(Ok(String::new()), |row| value(row, "fact"))
    }
}
