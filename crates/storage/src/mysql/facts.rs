//! What this store says of itself.

use sqlx::mysql::MySqlArguments;

use super::{MysqlStore, row::value, unsupported_tables};
use crate::{error::StoreError, store::Fact};

impl MysqlStore {
    pub(super) async fn tell(&self) -> Result<Vec<Fact>, StoreError> {
        let version = self.word("select cast(version() as char) as fact").await?;
        let made = "select cast(count(*) as char) as fact from information_schema.tables \
                    where table_schema = database() and table_name = '_sqlx_migrations'";
        let schema = match self.word(made).await?.as_str() {
            "0" => "not made yet".to_owned(),
            _ => {
                let last = "select cast(coalesce(max(version), 0) as char) as fact from _sqlx_migrations where success";
                format!("migration {}", self.word(last).await?)
            }
        };
        let refused: Vec<&str> = unsupported_tables().iter().map(|table| table.schema().name).collect();
        Ok(vec![("version", version), ("schema", schema), ("refuses", refused.join(", "))])
    }

    async fn word(&self, sql: &str) -> Result<String, StoreError> {
        let rows = self.fetch(sql.to_owned(), MySqlArguments::default()).await?;
        rows.first().map_or(Ok(String::new()), |row| value(row, "fact"))
    }
}
