//! Whole tables out of this store.

use fathom_market::{batch::Batch, table::Table};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, Row as _, sqlite::SqliteArguments, sqlite::SqliteRow};

use super::{SqliteStore, bind, history::unbound, row::value};
use crate::{
    error::StoreError,
    export::{self, Cells, Compare, Page, Part, Question, Span},
};

impl SqliteStore {
    pub(super) async fn page(&self, page: &Page) -> Result<Batch, StoreError> {
        let rows = self.ask(export::rows(page, Compare::Rows, page.table.schema().key)).await?;
        export::batch(page.table, &rows)
    }

    pub(super) async fn rows_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        let rows = self.ask(export::count(table, span)).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| value(row, "rows_in_span"))?;
        Ok(count.unsigned_abs())
    }

    async fn ask(&self, question: Question) -> Result<Vec<SqliteRow>, StoreError> {
        let mut arguments = SqliteArguments::default();
        for part in question.values {
            let added = match part {
                Part::Int(value) => arguments.add(value),
                Part::Text(value) => arguments.add(value),
                Part::Dec(value) => arguments.add(bind::text(value)),
            };
            added.map_err(unbound)?;
        }
        self.fetch(question.sql, arguments).await
    }
}

impl Cells for SqliteRow {
    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<Option<String>, sqlx::Error> {
        self.try_get(at)
    }

    fn dec(&self, at: usize) -> Result<Option<Decimal>, sqlx::Error> {
        self.try_get::<Option<&str>, _>(at)?.map(super::row::decimal).transpose()
    }

    fn flag(&self, at: usize) -> Result<Option<bool>, sqlx::Error> {
        Ok(self.try_get::<Option<i64>, _>(at)?.map(|value| value != 0))
    }
}
