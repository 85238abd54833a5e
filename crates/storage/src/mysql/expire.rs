//! Retention: rows beyond their age go, oldest first by the index of their age, in small steps between which batches are written.
//! Each step is a transaction of its own, short enough that a copy of the server keeps up.

use fathom_market::table::Table;
use sqlx::{AssertSqlSafe, MySqlPool};

use super::{
    classify::store_error,
    connect::{Opener, Reader, within},
    statements, supports,
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
        let table = expire_table(pool, opener, rule, now_us, limit).await;
        let rows = table.map_err(|error| store_error(&error).while_doing(rule.table.schema().name))?;
        removed.push((rule.table, rows));
    }
    Ok(removed)
}

async fn expire_table(
    pool: &MySqlPool,
    opener: &Opener,
    rule: &Retention,
    now_us: i64,
    limit: u64,
) -> Result<u64, sqlx::Error> {
    let schema = rule.table.schema();
    let Some((age, per_ms)) = schema.age.filter(|_| supports(rule.table)) else {
        return Ok(0);
    };
    let keep_us = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
    // The column counts `per_ms` a millisecond, the clock 1000.
    let oldest = now_us.saturating_sub(keep_us).div_euclid(1000 / per_ms.clamp(1, 1000));
    let sql = statements::expire(schema, age);
    let mut removed = 0;
    while removed < limit {
        let step = STEP.min(limit - removed);
        let mut reader = Reader::of(pool).await?;
        let delete = sqlx::query(AssertSqlSafe(sql.clone())).bind(oldest).bind(step);
        let done = within(opener.patience(), delete.execute(reader.connection()?)).await?;
        reader.give_back();
        removed += done.rows_affected();
        if done.rows_affected() < step {
            break;
        }
    }
    Ok(removed)
}
