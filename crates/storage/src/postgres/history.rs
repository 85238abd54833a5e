//! The reading side.

use async_trait::async_trait;
use fathom_market::table::{
    CandleRow, CategorySnapshotRow, CollectorStateRow, GapRow, InstrumentRow, Schema, SymbolSnapshotRow,
    Table,
};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, AssertSqlSafe, postgres::PgArguments, postgres::PgRow};
use tokio::time::Instant;

use super::{
    PostgresStore,
    classify::store_error,
    newest,
    row::{FromStored, value},
    statements::column_list,
};
use crate::{
    error::StoreError,
    read::{
        CandleQuery, CategoryQuery, CategoryRollup, CategoryStat, GapQuery, History, MAX_ROWS, RollupQuery,
        SnapshotQuery,
    },
};

/// A part of a key that a question names.
enum Key<'a> {
    Id(i64),
    Name(&'a str),
    Depth(Decimal),
}

/// Which part of a series is asked for; both ends belong to it.
struct Range {
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    limit: u32,
}

#[async_trait]
impl History for PostgresStore {
    async fn category_range(&self, query: &CategoryQuery) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        let key = [
            Key::Name(&query.scope),
            Key::Name(&query.market_type),
            Key::Name(&query.category),
            Key::Depth(query.depth),
        ];
        self.range(&key, Range { from_ms: query.from_ms, to_ms: query.to_ms, limit: query.limit }).await
    }

    async fn latest_categories(
        &self,
        scope: &str,
        market_type: &str,
        depth: Decimal,
    ) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        let schema = Table::CategorySnapshots.schema();
        let mut asked = arguments(&[Key::Name(scope), Key::Name(market_type), Key::Depth(depth)])?;
        let series = (scope.to_owned(), market_type.to_owned(), depth);
        let (searched, rows) = match self.newest.found(&series) {
            Some((searched, known)) => {
                let names: Vec<&str> = known.iter().map(|row| row.category.as_str()).collect();
                asked.add(names).map_err(unbound)?;
                asked.add(known.iter().map(|row| row.timestamp_ms).max()).map_err(unbound)?;
                let later = self.rows(newest::after(schema), asked).await?;
                (searched, newest::merged(known, later))
            }
            None => (Instant::now(), self.rows(newest::search(schema), asked).await?),
        };
        self.newest.keep(series, searched, &rows);
        Ok(rows)
    }

    async fn category_stats(&self, scope: &str) -> Result<Vec<CategoryStat>, StoreError> {
        let sql = format!(
            "select category, market_type, count(*) as rows, min(timestamp_ms) as first_ms, max(timestamp_ms) as last_ms \
             from {} where scope = $1 group by category, market_type order by category, market_type desc",
            Table::CategorySnapshots.schema().name
        );
        let rows = self.fetch(sql, arguments(&[Key::Name(scope)])?).await?;
        rows.iter().map(category_stat).collect()
    }

    async fn category_rollup(&self, query: &RollupQuery) -> Result<Vec<CategoryRollup>, StoreError> {
        self.rollup_range(query).await
    }

    async fn symbol_range(&self, query: &SnapshotQuery) -> Result<Vec<SymbolSnapshotRow>, StoreError> {
        let key = [Key::Id(query.instrument_id), Key::Depth(query.depth)];
        self.range(&key, Range { from_ms: query.from_ms, to_ms: query.to_ms, limit: query.limit }).await
    }

    async fn candles(&self, query: &CandleQuery) -> Result<Vec<CandleRow>, StoreError> {
        let key = [Key::Id(query.instrument_id), Key::Name(&query.timeframe)];
        self.range(&key, Range { from_ms: query.from_ms, to_ms: query.to_ms, limit: query.limit }).await
    }

    async fn last_candle(
        &self,
        instrument_id: i64,
        timeframe: &str,
    ) -> Result<Option<(i64, bool)>, StoreError> {
        let sql = format!(
            "select open_ms, closed from {} where instrument_id = $1 and timeframe = $2 order by open_ms desc limit 1",
            Table::Candles.schema().name
        );
        let rows = self.fetch(sql, arguments(&[Key::Id(instrument_id), Key::Name(timeframe)])?).await?;
        rows.first().map(|row| Ok((value(row, "open_ms")?, value(row, "closed")?))).transpose()
    }

    async fn collector_state(&self) -> Result<Vec<CollectorStateRow>, StoreError> {
        let table = Table::CollectorState.schema();
        let sql =
            format!("select {} from {} order by {}", column_list(table), table.name, table.key.join(", "));
        self.rows(sql, PgArguments::default()).await
    }

    async fn instruments(&self) -> Result<Vec<InstrumentRow>, StoreError> {
        let table = Table::Instruments.schema();
        let sql = format!(
            "select {} from {} where valid_to_us is null order by venue, market desc, native",
            column_list(table),
            table.name
        );
        self.rows(sql, PgArguments::default()).await
    }

    async fn gaps(&self, query: &GapQuery) -> Result<Vec<GapRow>, StoreError> {
        let (sql, arguments) = super::gaps::question(query)?;
        self.rows(sql, arguments).await
    }

    async fn ends(
        &self,
        table: Table,
        instrument_id: i64,
        timeframe: Option<&str>,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let (sql, arguments) = super::gaps::ends_question(table, instrument_id, timeframe)?;
        let rows = self.fetch(sql, arguments).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (first, last): (Option<i64>, Option<i64>) = (value(row, "first_ms")?, value(row, "last_ms")?);
        Ok(first.zip(last))
    }

    async fn count(&self, table: Table) -> Result<u64, StoreError> {
        let sql = format!("select count(*) as rows from {}", table.schema().name);
        let rows = self.fetch(sql, PgArguments::default()).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| value(row, "rows"))?;
        Ok(count.unsigned_abs())
    }
}

impl PostgresStore {
    /// A part of a series: the key's last column is its time, the others are given in their order.
    async fn range<R: FromStored>(&self, key: &[Key<'_>], range: Range) -> Result<Vec<R>, StoreError> {
        let schema = R::TABLE.schema();
        let (Some((time, names)), Ok(mut arguments)) = (schema.key.split_last(), arguments(key)) else {
            return Err(StoreError::fatal(format!("{} has no key", schema.name)));
        };
        let sql = range_sql(schema, time, names, range.from_ms.is_some());
        let bounds = [
            range.from_ms.unwrap_or(i64::MIN),
            range.to_ms.unwrap_or(i64::MAX),
            i64::from(range.limit.min(MAX_ROWS)),
        ];
        for bound in bounds {
            arguments.add(bound).map_err(unbound)?;
        }
        let mut rows = self.rows(sql, arguments).await?;
        if range.from_ms.is_none() {
            rows.reverse();
        }
        Ok(rows)
    }

    async fn rows<R: FromStored>(&self, sql: String, arguments: PgArguments) -> Result<Vec<R>, StoreError> {
        self.fetch(sql, arguments).await?.iter().map(R::from_stored).collect()
    }

    /// The text is made of declared names; what the caller says is bound.
    pub(super) async fn fetch(&self, sql: String, arguments: PgArguments) -> Result<Vec<PgRow>, StoreError> {
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&self.pool).await;
        self.health.note(rows.map_err(|error| store_error(&error)))
    }
}

/// A part of a series: the key, the first and the last time, the number of rows.
pub(super) fn range_sql(schema: &Schema, time: &str, names: &[&str], ascends: bool) -> String {
    let equal: String = (1..).zip(names).map(|(at, name)| format!("{name} = ${at} and ")).collect();
    let [from, to, limit] = [1, 2, 3].map(|more| names.len() + more);
    let direction = if ascends { "asc" } else { "desc" };
    format!(
        "select {} from {} where {equal}{time} >= ${from} and {time} <= ${to} order by {time} {direction} limit ${limit}",
        column_list(schema),
        schema.name
    )
}

fn arguments(key: &[Key<'_>]) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for part in key {
        let added = match part {
            Key::Id(id) => arguments.add(*id),
            Key::Name(name) => arguments.add(*name),
            Key::Depth(depth) => arguments.add(*depth),
        };
        added.map_err(unbound)?;
    }
    Ok(arguments)
}

#[allow(clippy::needless_pass_by_value, reason = "handed to map_err")]
pub(super) fn unbound(error: sqlx::error::BoxDynError) -> StoreError {
    StoreError::fatal(format!("a value cannot be bound: {error}"))
}

fn category_stat(row: &PgRow) -> Result<CategoryStat, StoreError> {
    Ok(CategoryStat {
        category: value(row, "category")?,
        market_type: value(row, "market_type")?,
        count: value::<i64>(row, "rows")?.unsigned_abs(),
        first_ms: value(row, "first_ms")?,
        last_ms: value(row, "last_ms")?,
    })
}
