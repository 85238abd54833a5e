//! Roll-ups of category snapshots: see [`crate::rollup`] for what is done and why. The marks are set in the transaction that
//! writes the snapshots.
//!
//! Writers, roll-ups and retention work beside each other here. Who rolls up holds the row of the floor, so that retention cannot
//! raise it and take snapshots away in between; a writer that marks an hour which is just being rolled up waits and marks it anew.

use std::collections::BTreeSet;

use fathom_market::{batch::Batch, table::Table};
use rust_decimal::Decimal;
use sqlx::{
    Arguments as _, AssertSqlSafe, Connection as _, MySql, MySqlConnection, MySqlPool, Transaction,
    mysql::MySqlArguments, mysql::MySqlRow,
};

use super::{
    MysqlStore,
    classify::store_error,
    connect::{Opener, Reader, within},
    history::unbound,
    row::value,
    value::{Value, positions, values},
};
use crate::{
    error::StoreError,
    read::{CategoryRollup, MAX_ROWS, RollupQuery, RollupWidth},
    rollup::{Exact, Extent, Fold, Series, bucket_ms, keeps},
};

/// Hours of one transaction; writers that mark one of them wait no longer than they take.
const STEP: u64 = 128;
/// What a mark is.
const MARK: &str = "bucket_ms, scope, market_type, category, depth";
/// The columns of a series, for a statement whose first arguments name one.
const OF_SERIES: &str = "scope = ? and market_type = ? and category = ? and depth = ?";
/// What a row holds beside its key, as it is read: sums have more digits than the driver's decimal.
const FIGURES: &str = "cast(bid_sum as char) as bid_sum, cast(bid_max as char) as bid_max, cast(bid_min as char) as bid_min, \
                       cast(ask_sum as char) as ask_sum, cast(ask_max as char) as ask_max, cast(ask_min as char) as ask_min, \
                       cast(price_sum as char) as price_sum, priced, symbols, count";

/// The table of a width.
const fn table(width: RollupWidth) -> &'static str {
    match width {
        RollupWidth::Hour => "category_snapshots_1h",
        RollupWidth::Day => "category_snapshots_1d",
    }
}

/// The statement that marks the hours of written snapshots as dirty, with its arguments.
pub(super) fn marks(batch: &Batch, rows: &[usize]) -> Result<Option<(String, MySqlArguments)>, sqlx::Error> {
    if batch.table() != Table::CategorySnapshots || rows.is_empty() {
        return Ok(None);
    }
    let columns = positions(batch, &["timestamp_ms", "scope", "market_type", "category", "depth"]);
    let mark = |row: &usize| {
        let mut mark = values(batch, &columns, *row);
        if let Some(Value::Int(time)) = mark.first_mut() {
            *time = bucket_ms(RollupWidth::Hour, *time);
        }
        mark
    };
    // In the order of their key, in which roll-ups lock them too.
    let marks: BTreeSet<Vec<Value>> = rows.iter().map(mark).collect();
    let sql = format!(
        "insert into category_snapshots_dirty ({MARK}) values {} on duplicate key update bucket_ms = bucket_ms",
        vec!["(?,?,?,?,?)"; marks.len()].join(",")
    );
    let mut arguments = MySqlArguments::default();
    for value in marks.iter().flatten() {
        value.bind(&mut arguments).map_err(sqlx::Error::Encode)?;
    }
    Ok(Some((sql, arguments)))
}

/// Rolls up at most `limit` dirty hours, those that begin before `before_ms`, and their days. Gives the hours.
pub(super) async fn roll_up(
    pool: &MySqlPool,
    opener: &Opener,
    before_ms: i64,
    limit: u64,
) -> Result<u64, StoreError> {
    let mut done = 0;
    while done < limit {
        let step = STEP.min(limit - done);
        let mut reader = Reader::of(pool).await.map_err(|error| failed(&error))?;
        let connection = reader.connection().map_err(|error| failed(&error))?;
        let rolled = roll_step(connection, opener, before_ms, step).await?;
        reader.give_back();
        done += rolled;
        if rolled < step {
            break;
        }
    }
    Ok(done)
}

async fn roll_step(
    connection: &mut MySqlConnection,
    opener: &Opener,
    before_ms: i64,
    limit: u64,
) -> Result<u64, StoreError> {
    let patience = opener.patience();
    let transaction = within(patience, connection.begin()).await.map_err(|error| failed(&error))?;
    let mut rolling = Rolling { transaction, opener };
    let rolled = rolling.step(before_ms, limit).await?;
    within(patience, rolling.transaction.commit()).await.map_err(|error| failed(&error))?;
    Ok(rolled)
}

/// Before snapshots older than `oldest_ms` go: rolls up what is dirty of their hours, and remembers that they may be gone.
pub(super) async fn before_expiry(
    pool: &MySqlPool,
    opener: &Opener,
    oldest_ms: i64,
) -> Result<(), StoreError> {
    roll_up(pool, opener, oldest_ms, u64::MAX).await?;
    let raised = async {
        let mut reader = Reader::of(pool).await?;
        let raise = sqlx::query("update rollup_floor set floor_ms = greatest(floor_ms, ?)").bind(oldest_ms);
        within(opener.patience(), raise.execute(reader.connection()?)).await?;
        reader.give_back();
        Ok(())
    };
    raised.await.map_err(|error| failed(&error))
}

fn failed(error: &sqlx::Error) -> StoreError {
    store_error(error).while_doing("roll-up")
}

struct Rolling<'a> {
    transaction: Transaction<'a, MySql>,
    opener: &'a Opener,
}

impl Rolling<'_> {
    async fn step(&mut self, before_ms: i64, limit: u64) -> Result<u64, StoreError> {
        // Locked first: roll-ups of several processes follow each other.
        let floor =
            self.rows("select floor_ms from rollup_floor for update".to_owned(), Asked::default()).await?;
        let floor_ms: i64 = floor.first().map_or(Ok(i64::MIN), |row| value(row, "floor_ms"))?;
        let marks = self.take_marks(before_ms, limit).await?;
        let mut days = BTreeSet::new();
        for (series, hour_ms) in &marks {
            if hour_ms < &floor_ms && keeps(*hour_ms, floor_ms, self.is_rolled_up(series, *hour_ms).await?) {
                tracing::debug!(
                    ?series,
                    hour_ms,
                    "late snapshots of an hour whose rows expire: its roll-up stays"
                );
                continue;
            }
            let Some(fold) = self.fold_snapshots(series, *hour_ms).await? else { continue };
            self.put(RollupWidth::Hour, series, *hour_ms, &fold).await?;
            days.insert((series, bucket_ms(RollupWidth::Day, *hour_ms)));
        }
        for (series, day_ms) in days {
            if let Some(fold) = self.fold_hours(series, day_ms).await? {
                self.put(RollupWidth::Day, series, day_ms, &fold).await?;
            }
        }
        Ok(marks.len() as u64)
    }

    /// The oldest marks, which are removed.
    async fn take_marks(&mut self, before_ms: i64, limit: u64) -> Result<Vec<(Series, i64)>, StoreError> {
        let sql = format!(
            "select {MARK} from category_snapshots_dirty where bucket_ms < ? order by {MARK} limit ? for update"
        );
        let asked = Asked::default().int(before_ms)?.int(i64::try_from(limit).unwrap_or(i64::MAX))?;
        let rows = self.rows(sql, asked).await?;
        let mut marks = Vec::with_capacity(rows.len());
        let mut taken = Asked::default();
        for row in &rows {
            let series = Series {
                scope: value(row, "scope")?,
                market_type: value(row, "market_type")?,
                category: value(row, "category")?,
                depth: value(row, "depth")?,
            };
            let hour_ms = value(row, "bucket_ms")?;
            taken = taken.int(hour_ms)?.series(&series)?;
            marks.push((series, hour_ms));
        }
        if !marks.is_empty() {
            let marks = vec!["(?,?,?,?,?)"; marks.len()].join(",");
            let sql = format!("delete from category_snapshots_dirty where ({MARK}) in ({marks})");
            self.execute(sql, taken).await?;
        }
        Ok(marks)
    }

    async fn is_rolled_up(&mut self, series: &Series, hour_ms: i64) -> Result<bool, StoreError> {
        let sql = format!("select 1 from category_snapshots_1h where {OF_SERIES} and bucket_ms = ?");
        let asked = Asked::default().series(series)?.int(hour_ms)?;
        Ok(!self.rows(sql, asked).await?.is_empty())
    }

    async fn fold_snapshots(&mut self, series: &Series, hour_ms: i64) -> Result<Option<Fold>, StoreError> {
        let sql = format!(
            "select total_bid_volume_usd, total_ask_volume_usd, avg_price, symbol_count from category_snapshots_raw \
             where {OF_SERIES} and timestamp_ms >= ? and timestamp_ms < ?"
        );
        let rows = self.rows(sql, span(series, hour_ms, RollupWidth::Hour)?).await?;
        let folds = rows.iter().map(|row| {
            let (bid, ask): (Decimal, Decimal) =
                (value(row, "total_bid_volume_usd")?, value(row, "total_ask_volume_usd")?);
            Fold::one(bid, ask, value(row, "avg_price")?, value(row, "symbol_count")?)
        });
        Ok(Fold::all(folds.collect::<Result<Vec<_>, _>>()?))
    }

    async fn fold_hours(&mut self, series: &Series, day_ms: i64) -> Result<Option<Fold>, StoreError> {
        let sql = format!(
            "select {FIGURES} from category_snapshots_1h where {OF_SERIES} and bucket_ms >= ? and bucket_ms < ?"
        );
        let rows = self.rows(sql, span(series, day_ms, RollupWidth::Day)?).await?;
        Ok(Fold::all(rows.iter().map(fold_of).collect::<Result<Vec<_>, _>>()?))
    }

    async fn put(
        &mut self,
        width: RollupWidth,
        series: &Series,
        bucket_ms: i64,
        fold: &Fold,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "replace into {} (scope, market_type, category, depth, bucket_ms, bid_sum, bid_max, bid_min, ask_sum, ask_max, \
             ask_min, price_sum, priced, symbols, count) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            table(width)
        );
        let (bid, ask) = (fold.bid, fold.ask);
        let mut asked = Asked::default().series(series)?.int(bucket_ms)?;
        for figure in [bid.sum, bid.max, bid.min, ask.sum, ask.max, ask.min, fold.price_sum] {
            asked = asked.text(&figure.to_string())?;
        }
        self.execute(sql, asked.int(fold.priced)?.int(fold.symbols)?.int(fold.count)?).await
    }

    async fn rows(&mut self, sql: String, asked: Asked) -> Result<Vec<MySqlRow>, StoreError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), asked.0);
        let rows = within(self.opener.patience(), query.fetch_all(&mut *self.transaction)).await;
        rows.map_err(|error| failed(&error))
    }

    async fn execute(&mut self, sql: String, asked: Asked) -> Result<(), StoreError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), asked.0);
        let done = within(self.opener.patience(), query.execute(&mut *self.transaction)).await;
        done.map(|_| ()).map_err(|error| failed(&error))
    }
}

/// The arguments of a question.
#[derive(Default)]
struct Asked(MySqlArguments);

impl Asked {
    fn int(mut self, value: i64) -> Result<Self, StoreError> {
        self.0.add(value).map_err(unbound)?;
        Ok(self)
    }

    fn text(mut self, value: &str) -> Result<Self, StoreError> {
        self.0.add(value).map_err(unbound)?;
        Ok(self)
    }

    fn series(self, series: &Series) -> Result<Self, StoreError> {
        let mut asked = self.text(&series.scope)?.text(&series.market_type)?.text(&series.category)?;
        asked.0.add(series.depth).map_err(unbound)?;
        Ok(asked)
    }
}

fn span(series: &Series, from_ms: i64, width: RollupWidth) -> Result<Asked, StoreError> {
    Asked::default().series(series)?.int(from_ms)?.int(from_ms.saturating_add(width.ms()))
}

fn fold_of(row: &MySqlRow) -> Result<Fold, StoreError> {
    let exact = |name: &str| Exact::parse(&value::<String>(row, name)?);
    let extent = |sum, max, min| Ok(Extent { sum: exact(sum)?, max: exact(max)?, min: exact(min)? });
    Ok(Fold {
        bid: extent("bid_sum", "bid_max", "bid_min")?,
        ask: extent("ask_sum", "ask_max", "ask_min")?,
        price_sum: exact("price_sum")?,
        priced: value(row, "priced")?,
        symbols: value(row, "symbols")?,
        count: value(row, "count")?,
    })
}

impl MysqlStore {
    /// The roll-ups of a category.
    pub(super) async fn rollup_range(&self, query: &RollupQuery) -> Result<Vec<CategoryRollup>, StoreError> {
        let direction = if query.from_ms.is_some() { "asc" } else { "desc" };
        let sql = format!(
            "select bucket_ms, {FIGURES} from {} where {OF_SERIES} and bucket_ms >= ? and bucket_ms <= ? \
             order by bucket_ms {direction} limit ?",
            table(query.width)
        );
        let asked = Asked::default().text(&query.scope)?.text(&query.market_type)?.text(&query.category)?;
        let mut arguments = asked.0;
        arguments.add(query.depth).map_err(unbound)?;
        let bounds = [
            query.from_ms.unwrap_or(i64::MIN),
            query.to_ms.unwrap_or(i64::MAX),
            i64::from(query.limit.min(MAX_ROWS)),
        ];
        for bound in bounds {
            arguments.add(bound).map_err(unbound)?;
        }
        let rows = self.fetch(sql, arguments).await?;
        let read = rows.iter().map(|row| fold_of(row)?.read(value(row, "bucket_ms")?));
        let mut read = read.collect::<Result<Vec<_>, _>>()?;
        if query.from_ms.is_none() {
            read.reverse();
        }
        Ok(read)
    }
}
