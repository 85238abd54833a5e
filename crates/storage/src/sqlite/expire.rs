//! Retention: rows beyond their age go, in small steps between which batches are written.

use fathom_market::table::Table;
use sqlx::AssertSqlSafe;

use super::{classify::store_error, rollup, statements, trade_bars, writer::Writer};
use crate::{error::StoreError, store::Retention};

/// Rows of one step; the writer waits no longer than they take.
const STEP: u64 = 2000;
/// Pages given back to the file system by one call.
const PAGES: i64 = 4096;
/// One part in this many of the file may stay free, for the rows that come next.
const SLACK: i64 = 8;

/// Removes what is too old, at most `limit` rows of each table.
pub(super) async fn expire(
    writer: &Writer,
    retention: &[Retention],
    now_us: i64,
    limit: u64,
) -> Result<Vec<(Table, u64)>, StoreError> {
    let mut removed = Vec::with_capacity(retention.len());
    for rule in retention {
        removed.push((rule.table, expire_table(writer, rule, now_us, limit).await?));
    }
    if removed.iter().any(|(_, rows)| *rows > 0) {
        give_back_pages(writer).await?;
    }
    Ok(removed)
}

async fn expire_table(writer: &Writer, rule: &Retention, now_us: i64, limit: u64) -> Result<u64, StoreError> {
    let schema = rule.table.schema();
    let Some((age, per_ms)) = schema.age else {
        return Ok(0);
    };
    let keep_us = i64::try_from(rule.keep.as_micros()).unwrap_or(i64::MAX);
    // The column counts `per_ms` a millisecond, the clock 1000.
    let oldest = now_us.saturating_sub(keep_us).div_euclid(1000 / per_ms.clamp(1, 1000));
    match rule.table {
        Table::CategorySnapshots => rollup::before_expiry(writer, oldest).await?,
        Table::Trade1s => trade_bars::before_expiry(writer, oldest).await?,
        _ => {}
    }
    let sql = statements::expire(schema, age);
    let mut removed = 0;
    while removed < limit {
        let step = STEP.min(limit - removed);
        let mut lease = writer.lease().await?;
        let done = sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(oldest)
            .bind(step.cast_signed())
            .execute(&mut lease.connection)
            .await
            .map_err(|error| store_error(&error).while_doing(schema.name))?;
        lease.give_back();
        removed += done.rows_affected();
        if done.rows_affected() < step {
            break;
        }
    }
    Ok(removed)
}

async fn give_back_pages(writer: &Writer) -> Result<(), StoreError> {
    let mut lease = writer.lease().await?;
    let (free, all): (i64, i64) =
        sqlx::query_as("select freelist_count, page_count from pragma_freelist_count, pragma_page_count")
            .fetch_one(&mut lease.connection)
            .await
            .map_err(|error| store_error(&error))?;
    let surplus = (free - all / SLACK).clamp(0, PAGES);
    if surplus > 0 {
        sqlx::query(AssertSqlSafe(format!("pragma incremental_vacuum({surplus})")))
            .execute(&mut lease.connection)
            .await
            .map_err(|error| store_error(&error))?;
    }
    lease.give_back();
    Ok(())
}
