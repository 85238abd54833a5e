//! Whole tables out of this store.

use fathom_market::{batch::Batch, table::Table};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, Row as _, postgres::PgArguments, postgres::PgRow};

use super::{PostgresStore, layout::key, row::value};
use crate::{
    error::StoreError,
    export::{self, Cells, Compare, Page, Part, Question, Span},
};

impl PostgresStore {
    pub(super) async fn page(&self, page: &Page) -> Result<Batch, StoreError> {
        let rows = self.ask(export::rows(page, Compare::Rows, &key(page.table.schema())).numbered()).await?;
        export::batch(page.table, &rows)
    }

    pub(super) async fn rows_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        let rows = self.ask(export::count(table, span).numbered()).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| value(row, "rows_in_span"))?;
        Ok(count.unsigned_abs())
    }

    async fn ask(&self, question: Question) -> Result<Vec<PgRow>, StoreError> {
        let mut arguments = PgArguments::default();
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

impl Cells for PgRow {
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
