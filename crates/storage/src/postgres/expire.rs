//! Retention: partitions beyond their age go whole, single rows where that would keep them for long; and the partitions of
//! the next hours and days are made.

use fathom_market::table::Table;
use sqlx::{AssertSqlSafe, PgPool};

use super::{
    classify::{is_missing, store_error},
    layout::{Aged, key},
    partitions::{Partitions, number, partition},
    rollup, trade_bars,
};
use crate::{error::StoreError, store::Retention};

/// Rows of one step.
const STEP: u64 = 5000;
/// A partition of at most this part of what is kept goes whole, when its last row is too old: to delete rows one by one that
/// a drop will take soon is work twice.
const WHOLE_PART: i64 = 10;

/// Removes what is too old. Rows that go one by one are at most `limit` of each table; a partition that is dropped takes its
/// rows at once, however many.
pub(super) async fn expire(
    pool: &PgPool,
    partitions: &Partitions,
    retention: &[Retention],
    now_us: i64,
    limit: u64,
) -> Result<Vec<(Table, u64)>, StoreError> {
    let mut removed = Vec::with_capacity(retention.len());
    for rule in retention {
        let keep_us = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
        let oldest_ms = now_us.saturating_sub(keep_us).div_euclid(1000);
        match rule.table {
            Table::CategorySnapshots => rollup::before_expiry(pool, oldest_ms).await?,
            Table::Trade1s => trade_bars::before_expiry(pool, oldest_ms).await?,
            _ => {}
        }
        let rows = expire_table(pool, partitions, rule, now_us, limit).await;
        let rows = rows.map_err(|error| store_error(&error).while_doing(rule.table.schema().name))?;
        removed.push((rule.table, rows));
    }
    upkeep(pool, partitions, now_us).await.map_err(|error| store_error(&error).while_doing("partitions"))?;
    Ok(removed)
}

/// Partitions for what comes next, and for what came before its own was made.
async fn upkeep(pool: &PgPool, partitions: &Partitions, now_us: i64) -> Result<(), sqlx::Error> {
    partitions.make_ahead(pool, now_us.div_euclid(1000)).await?;
    for aged in Aged::all() {
        partitions.sweep(pool, &aged).await?;
    }
    Ok(())
}

async fn expire_table(
    pool: &PgPool,
    partitions: &Partitions,
    rule: &Retention,
    now_us: i64,
    limit: u64,
) -> Result<u64, sqlx::Error> {
    let schema = rule.table.schema();
    let Some((age, per_ms)) = schema.age else { return Ok(0) };
    let keep_us = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
    // The column counts `per_ms` a millisecond, the clock 1000.
    let unit_us = 1000 / per_ms.clamp(1, 1000);
    let oldest = now_us.saturating_sub(keep_us).div_euclid(unit_us);
    let Some(aged) = Aged::of(rule.table) else {
        return delete(pool, schema.name, &key(schema).join(", "), age, oldest, limit).await;
    };
    let mut removed = partitions.drop_older(pool, &aged, oldest).await?;
    let mut partly = vec![format!("{}_default", schema.name)];
    if aged.width.saturating_mul(WHOLE_PART) > keep_us / unit_us {
        partly.extend(number(&aged, oldest).map(|number| partition(schema.name, number)));
    }
    for part in partly {
        removed += match delete(pool, &part, "ctid", age, oldest, limit.saturating_sub(removed)).await {
            Err(error) if is_missing(&error) => 0,
            ended => ended?,
        };
    }
    Ok(removed)
}

/// Deletes old rows of one table in steps, and gives how many.
async fn delete(
    pool: &PgPool,
    table: &str,
    key: &str,
    age: &str,
    oldest: i64,
    limit: u64,
) -> Result<u64, sqlx::Error> {
    let sql = format!(
        "delete from {table} where ({key}) in (select {key} from {table} where {age} < $1 order by {age} limit $2)"
    );
    let mut removed = 0;
    while removed < limit {
        let step = STEP.min(limit - removed);
        let done = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(oldest)
            .bind(step.cast_signed())
            .persistent(false)
            .execute(pool)
            .await?;
        removed += done.rows_affected();
        if done.rows_affected() < step {
            break;
        }
    }
    Ok(removed)
}
