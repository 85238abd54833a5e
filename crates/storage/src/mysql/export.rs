//! Whole tables out of this store.

use fathom_market::{batch::Batch, table::Table};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, Row as _, mysql::MySqlArguments, mysql::MySqlRow};

use super::{MysqlStore, row::value, supports};
use crate::{
    error::StoreError,
    export::{self, Cells, Compare, Page, Part, Question, Span},
};

impl MysqlStore {
    /// A table that is not kept has no rows.
    pub(super) async fn page(&self, page: &Page) -> Result<Batch, StoreError> {
        if !supports(page.table) {
            return Ok(Batch::new(page.table));
        }
        let rows = self.ask(export::rows(page, Compare::Spelled, page.table.schema().key)).await?;
        export::batch(page.table, &rows)
    }

    pub(super) async fn rows_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        if !supports(table) {
            return Ok(0);
        }
        let rows = self.ask(export::count(table, span)).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| value(row, "rows_in_span"))?;
        Ok(count.unsigned_abs())
    }

    async fn ask(&self, question: Question) -> Result<Vec<MySqlRow>, StoreError> {
        let mut arguments = MySqlArguments::default();
        for part in question.values {
            let added = match part {
                Part::Int(value) => arguments.add(value),
                Part::Text(value) => arguments.add(value),
                Part::Dec(value) => arguments.add(value),
            };
            added.map_err(|error| StoreError::fatal(format!("a value cannot be bound: {error}")))?;
        }
        self.fetch(question.sql, arguments).await
    }
}

impl Cells for MySqlRow {
    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<Option<String>, sqlx::Error> {
        self.try_get(at)
    }

    fn dec(&self, at: usize) -> Result<Option<Decimal>, sqlx::Error> {
        // The column's scale is no part of the number: every store gives it alike.
        Ok(self.try_get::<Option<Decimal>, _>(at)?.map(|value| value.normalize()))
    }

    fn flag(&self, at: usize) -> Result<Option<bool>, sqlx::Error> {
        self.try_get(at)
    }
}
