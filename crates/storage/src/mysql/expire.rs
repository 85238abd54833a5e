//! Retention: rows beyond their age go, oldest first by the index of their age, in small steps between which batches are written.
//! Each step is a transaction of its own, short enough that a copy of the server keeps up.

use fathom_market::table::Table;
use sqlx::{AssertSqlSafe, MySqlPool};

use super::{
    classify::store_error,
    connect::{Opener, Reader, within},
    rollup, statements, supports,
};
use crate::{error::StoreError, store::Retention};

/// Rows of one step.
const STEP: u64 = 2000;

/// Removes what is too old, at most `limit` rows of each table.
pub(super) async fn expire(
    pool: &MySqlPool,
    opener: &Opener,
    retention: &[Retention],
    now_us: i64,
    limit: u64,
) -> Result<Vec<(Table, u64)>, StoreError> {
    let mut removed = Vec::with_capacity(retention.len());
    for rule in retention {
        removed.push((rule.table, expire_table(pool, opener, rule, now_us, limit).await?));
    }
    Ok(removed)
}

async fn expire_table(
    pool: &MySqlPool,
    opener: &Opener,
    rule: &Retention,
    now_us: i64,
    limit: u64,
) -> Result<u64, StoreError> {
    let schema = rule.table.schema();
    let Some((age, per_ms)) = schema.age.filter(|_| supports(rule.table)) else {
        return Ok(0);
    };
    let keep_us = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
    // The column counts `per_ms` a millisecond, the clock 1000.
    let oldest = now_us.saturating_sub(keep_us).div_euclid(1000 / per_ms.clamp(1, 1000));
    if rule.table == Table::CategorySnapshots {
        rollup::before_expiry(pool, opener, oldest).await?;
    }
    let sql = statements::expire(schema, age);
    let mut removed = 0;
    while removed < limit {
        let step = STEP.min(limit - removed);
        let done = delete(pool, opener, &sql, oldest, step).await;
        let done = done.map_err(|error| store_error(&error).while_doing(schema.name))?;
        removed += done;
        if done < step {
            break;
        }
    }
    Ok(removed)
}

async fn delete(
    pool: &MySqlPool,
    opener: &Opener,
    sql: &str,
    oldest: i64,
    step: u64,
) -> Result<u64, sqlx::Error> {
    let mut reader = Reader::of(pool).await?;
    let delete = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(oldest).bind(step);
    let done = within(opener.patience(), delete.execute(reader.connection()?)).await?;
    reader.give_back();
    Ok(done.rows_affected())
}
