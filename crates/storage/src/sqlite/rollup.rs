//! Roll-ups of category snapshots: see [`crate::rollup`] for what is done and why. The marks are set by a trigger.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{
    SqliteStore, bind,
    classify::store_error,
    row::value,
    writer::{BEGIN, Writer},
};
use crate::{
    error::StoreError,
    read::{CategoryRollup, MAX_ROWS, RollupQuery, RollupWidth},
    rollup::{Exact, Extent, Fold, Series, bucket_ms, keeps},
};

/// Hours of one transaction; the writer waits no longer than they take.
const STEP: u64 = 128;
/// What a row holds beside its key.
const FIGURES: &str =
    "bid_sum, bid_max, bid_min, ask_sum, ask_max, ask_min, price_sum, priced, symbols, count";

/// A statement whose first arguments name a series.
macro_rules! of_series {
    ($sql:expr, $series:expr) => {
        sqlx::query($sql)
            .bind($series.scope.as_str())
            .bind($series.market_type.as_str())
            .bind($series.category.as_str())
            .bind(bind::text($series.depth))
    };
}

/// The table of a width.
const fn table(width: RollupWidth) -> &'static str {
    match width {
        RollupWidth::Hour => "category_snapshots_1h",
        RollupWidth::Day => "category_snapshots_1d",
    }
}

/// Rolls up at most `limit` dirty hours, those that begin before `before_ms`, and their days. Gives the hours.
pub(super) async fn roll_up(writer: &Writer, before_ms: i64, limit: u64) -> Result<u64, StoreError> {
    let mut done = 0;
    while done < limit {
        let step = STEP.min(limit - done);
        let mut lease = writer.lease().await?;
        let rolled = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await.map_err(|error| failed(&error))?;
            let rolled = roll_step(&mut transaction, before_ms, step).await?;
            transaction.commit().await.map_err(|error| failed(&error))?;
            Ok::<_, StoreError>(rolled)
        };
        let rolled = rolled.await?;
        lease.give_back();
        done += rolled;
        if rolled < step {
            break;
        }
    }
    Ok(done)
}

/// Before snapshots older than `oldest_ms` go: rolls up what is dirty of their hours, and remembers that they may be gone.
pub(super) async fn before_expiry(writer: &Writer, oldest_ms: i64) -> Result<(), StoreError> {
    roll_up(writer, oldest_ms, u64::MAX).await?;
    let mut lease = writer.lease().await?;
    sqlx::query("update rollup_floor set floor_ms = ?1 where floor_ms < ?1")
        .bind(oldest_ms)
        .execute(&mut lease.connection)
        .await
        .map_err(|error| failed(&error))?;
    lease.give_back();
    Ok(())
}

fn failed(error: &sqlx::Error) -> StoreError {
    store_error(error).while_doing("roll-up")
}

type Within<'a> = Transaction<'a, Sqlite>;

async fn roll_step(within: &mut Within<'_>, before_ms: i64, limit: u64) -> Result<u64, StoreError> {
    let marks = take_marks(within, before_ms, limit).await?;
    let floor_ms: i64 = sqlx::query_scalar("select floor_ms from rollup_floor")
        .fetch_one(&mut **within)
        .await
        .map_err(|error| failed(&error))?;
    let mut days = BTreeSet::new();
    for (series, hour_ms) in &marks {
        if hour_ms < &floor_ms && keeps(*hour_ms, floor_ms, is_rolled_up(within, series, *hour_ms).await?) {
            tracing::debug!(
                ?series,
                hour_ms,
                "late snapshots of an hour whose rows expire: its roll-up stays"
            );
            continue;
        }
        let Some(fold) = fold_snapshots(within, series, *hour_ms).await? else { continue };
        put(within, RollupWidth::Hour, series, *hour_ms, &fold).await?;
        days.insert((series, bucket_ms(RollupWidth::Day, *hour_ms)));
    }
    for (series, day_ms) in days {
        if let Some(fold) = fold_hours(within, series, day_ms).await? {
            put(within, RollupWidth::Day, series, day_ms, &fold).await?;
        }
    }
    Ok(marks.len() as u64)
}

/// The oldest marks, which are removed.
async fn take_marks(
    within: &mut Within<'_>,
    before_ms: i64,
    limit: u64,
) -> Result<Vec<(Series, i64)>, StoreError> {
    let key = "bucket_ms, scope, market_type, category, depth";
    let sql = format!(
        "delete from category_snapshots_dirty where ({key}) in ( \
             select {key} from category_snapshots_dirty where bucket_ms < ? order by {key} limit ?) returning {key}"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(before_ms)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **within)
        .await
        .map_err(|error| failed(&error))?;
    rows.iter()
        .map(|row| {
            let series = Series {
                scope: value(row, "scope")?,
                market_type: value(row, "market_type")?,
                category: value(row, "category")?,
                depth: value(row, "depth")?,
            };
            Ok((series, value(row, "bucket_ms")?))
        })
        .collect()
}

async fn is_rolled_up(within: &mut Within<'_>, series: &Series, hour_ms: i64) -> Result<bool, StoreError> {
    let sql = "select 1 from category_snapshots_1h \
               where scope = ? and market_type = ? and category = ? and depth = ? and bucket_ms = ?";
    let found = of_series!(sql, series).bind(hour_ms).fetch_optional(&mut **within).await;
    found.map(|row| row.is_some()).map_err(|error| failed(&error))
}

async fn fold_snapshots(
    within: &mut Within<'_>,
    series: &Series,
    hour_ms: i64,
) -> Result<Option<Fold>, StoreError> {
    let sql = "select total_bid_volume_usd, total_ask_volume_usd, avg_price, symbol_count from category_snapshots_raw \
               where scope = ? and market_type = ? and category = ? and depth = ? and timestamp_ms >= ? and timestamp_ms < ?";
    let rows = of_series!(sql, series)
        .bind(hour_ms)
        .bind(hour_ms.saturating_add(RollupWidth::Hour.ms()))
        .fetch_all(&mut **within)
        .await
        .map_err(|error| failed(&error))?;
    let folds = rows.iter().map(|row| {
        let (bid, ask): (Decimal, Decimal) =
            (value(row, "total_bid_volume_usd")?, value(row, "total_ask_volume_usd")?);
        Fold::one(bid, ask, value(row, "avg_price")?, value(row, "symbol_count")?)
    });
    Ok(Fold::all(folds.collect::<Result<Vec<_>, _>>()?))
}

async fn fold_hours(
    within: &mut Within<'_>,
    series: &Series,
    day_ms: i64,
) -> Result<Option<Fold>, StoreError> {
    let sql = format!(
        "select {FIGURES} from category_snapshots_1h \
         where scope = ? and market_type = ? and category = ? and depth = ? and bucket_ms >= ? and bucket_ms < ?"
    );
    let rows = of_series!(AssertSqlSafe(sql), series)
        .bind(day_ms)
        .bind(day_ms.saturating_add(RollupWidth::Day.ms()))
        .fetch_all(&mut **within)
        .await
        .map_err(|error| failed(&error))?;
    Ok(Fold::all(rows.iter().map(fold_of).collect::<Result<Vec<_>, _>>()?))
}

async fn put(
    within: &mut Within<'_>,
    width: RollupWidth,
    series: &Series,
    bucket_ms: i64,
    fold: &Fold,
) -> Result<(), StoreError> {
    let sql = format!(
        "insert or replace into {} (scope, market_type, category, depth, bucket_ms, {FIGURES}) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        table(width)
    );
    let mut insert = of_series!(AssertSqlSafe(sql), series).bind(bucket_ms);
    for extent in [&fold.bid, &fold.ask] {
        insert =
            insert.bind(extent.sum.to_string()).bind(extent.max.to_string()).bind(extent.min.to_string());
    }
    insert
        .bind(fold.price_sum.to_string())
        .bind(fold.priced)
        .bind(fold.symbols)
        .bind(fold.count)
        .execute(&mut **within)
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

fn fold_of(row: &SqliteRow) -> Result<Fold, StoreError> {
    let exact = |name: &str| Exact::parse(row.try_get(name).map_err(|error| failed(&error))?);
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

impl SqliteStore {
    /// The roll-ups of a category.
    pub(super) async fn rollup_range(&self, query: &RollupQuery) -> Result<Vec<CategoryRollup>, StoreError> {
        let direction = if query.from_ms.is_some() { "asc" } else { "desc" };
        let sql = format!(
            "select bucket_ms, {FIGURES} from {} where scope = ? and market_type = ? and category = ? and depth = ? \
             and bucket_ms >= ? and bucket_ms <= ? order by bucket_ms {direction} limit ?",
            table(query.width)
        );
        let rows = of_series!(AssertSqlSafe(sql), query)
            .bind(query.from_ms.unwrap_or(i64::MIN))
            .bind(query.to_ms.unwrap_or(i64::MAX))
            .bind(i64::from(query.limit.min(MAX_ROWS)))
            .fetch_all(&self.readers)
            .await;
        let rows = self.health.note(rows.map_err(|error| store_error(&error)))?;
        let read = rows.iter().map(|row| fold_of(row)?.read(value(row, "bucket_ms")?));
        let mut read = read.collect::<Result<Vec<_>, _>>()?;
        if query.from_ms.is_none() {
            read.reverse();
        }
        Ok(read)
    }
}
