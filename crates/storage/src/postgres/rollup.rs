//! Roll-ups of category snapshots: see [`crate::rollup`] for what is done and why. The marks are set by a trigger; sums of
//! numerics are exact, so the server folds.

use rust_decimal::Decimal;
use sqlx::{Arguments as _, AssertSqlSafe, PgPool, Row as _, postgres::PgArguments, postgres::PgRow};

use super::{
    PostgresStore,
    classify::store_error,
    connect::{Lease, lease},
    history::unbound,
    row::value,
};
use crate::{
    error::StoreError,
    read::{CategoryRollup, MAX_ROWS, RollupQuery, RollupWidth},
    rollup::{Exact, Extent, Fold, bucket_ms},
};

/// Hours of one transaction: those who write snapshots wait until it ends.
const STEP: u64 = 512;
const KEY: &str = "scope, market_type, category, depth, bucket_ms";
/// What a row holds beside its key.
const FIGURES: &str =
    "bid_sum, bid_max, bid_min, ask_sum, ask_max, ask_min, price_sum, priced, symbols, count";
/// The marks as a table.
const MARKED: &str = "unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $5::bigint[]) as m (scope, market_type, category, depth, bucket_ms)";
const SAME_SERIES: &str =
    "r.scope = m.scope and r.market_type = m.market_type and r.category = m.category and r.depth = m.depth";
/// Nobody adds snapshots to a marked hour meanwhile: the trigger takes this lock shared.
const BEGIN: &str = "begin; select pg_advisory_xact_lock(hashtext('fathom roll-up'))";

/// Marks column by column, as the server takes them.
#[derive(Default)]
struct Marks {
    scopes: Vec<String>,
    market_types: Vec<String>,
    categories: Vec<String>,
    depths: Vec<Decimal>,
    buckets: Vec<i64>,
}

impl Marks {
    fn push(&mut self, row: &PgRow, bucket_ms: i64) -> Result<(), StoreError> {
        self.scopes.push(value(row, "scope")?);
        self.market_types.push(value(row, "market_type")?);
        self.categories.push(value(row, "category")?);
        self.depths.push(value(row, "depth")?);
        self.buckets.push(bucket_ms);
        Ok(())
    }
}

const fn table(width: RollupWidth) -> &'static str {
    match width {
        RollupWidth::Hour => "category_snapshots_1h",
        RollupWidth::Day => "category_snapshots_1d",
    }
}

fn failed(error: &sqlx::Error) -> StoreError {
    store_error(error).while_doing("roll-up")
}

/// Rolls up at most `limit` dirty hours, those that begin before `before_ms`, and their days. Gives the hours.
pub(super) async fn roll_up(pool: &PgPool, before_ms: i64, limit: u64) -> Result<u64, StoreError> {
    let mut done = 0;
    while done < limit {
        let step = STEP.min(limit - done);
        let rolled = roll_step(pool, before_ms, step).await?;
        done += rolled;
        if rolled < step {
            break;
        }
    }
    Ok(done)
}

/// Before snapshots older than `oldest_ms` go: rolls up what is dirty of their hours, and remembers that they may be gone.
pub(super) async fn before_expiry(pool: &PgPool, oldest_ms: i64) -> Result<(), StoreError> {
    roll_up(pool, oldest_ms, u64::MAX).await?;
    sqlx::query("update rollup_floor set floor_ms = $1 where floor_ms < $1")
        .bind(oldest_ms)
        .execute(pool)
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

async fn roll_step(pool: &PgPool, before_ms: i64, limit: u64) -> Result<u64, StoreError> {
    let mut lease = lease(pool).await?;
    lease.run(BEGIN).await.map_err(|error| failed(&error))?;
    let (hours, days) = take_marks(&mut lease, before_ms, limit).await?;
    fold(&mut lease, hours_sql(), &hours).await?;
    fold(&mut lease, days_sql(), &days).await?;
    lease.run("commit").await.map_err(|error| failed(&error))?;
    lease.give_back();
    Ok(hours.buckets.len() as u64)
}

/// The oldest marks, which are removed, and their days.
async fn take_marks(lease: &mut Lease, before_ms: i64, limit: u64) -> Result<(Marks, Marks), StoreError> {
    let sql = format!(
        "delete from category_snapshots_dirty where (bucket_ms, scope, market_type, category, depth) in ( \
             select bucket_ms, scope, market_type, category, depth from category_snapshots_dirty where bucket_ms < $1 \
             order by bucket_ms, scope, market_type, category, depth limit $2) returning {KEY}"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(before_ms)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(lease.connection())
        .await
        .map_err(|error| failed(&error))?;
    let (mut hours, mut days) = (Marks::default(), Marks::default());
    for row in &rows {
        let hour_ms = value(row, "bucket_ms")?;
        hours.push(row, hour_ms)?;
        days.push(row, bucket_ms(RollupWidth::Day, hour_ms))?;
    }
    Ok((hours, days))
}

async fn fold(lease: &mut Lease, sql: String, marks: &Marks) -> Result<(), StoreError> {
    if marks.buckets.is_empty() {
        return Ok(());
    }
    sqlx::query(AssertSqlSafe(sql))
        .bind(&marks.scopes)
        .bind(&marks.market_types)
        .bind(&marks.categories)
        .bind(&marks.depths)
        .bind(&marks.buckets)
        .execute(lease.connection())
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

/// Hours from snapshots. One that is rolled up and whose snapshots may have expired stays as it is.
fn hours_sql() -> String {
    let source = format!(
        "select m.scope, m.market_type, m.category, m.depth, m.bucket_ms, \
             sum(r.total_bid_volume_usd), max(r.total_bid_volume_usd), min(r.total_bid_volume_usd), \
             sum(r.total_ask_volume_usd), max(r.total_ask_volume_usd), min(r.total_ask_volume_usd), \
             coalesce(sum(r.avg_price), 0), count(r.avg_price), sum(r.symbol_count)::bigint, count(*) \
         from {MARKED} join category_snapshots_raw r on {SAME_SERIES} \
             and r.timestamp_ms >= m.bucket_ms and r.timestamp_ms < m.bucket_ms + {} \
         where m.bucket_ms >= (select floor_ms from rollup_floor) or not exists ( \
             select 1 from category_snapshots_1h r where {SAME_SERIES} and r.bucket_ms = m.bucket_ms)",
        RollupWidth::Hour.ms()
    );
    upsert(RollupWidth::Hour, &source)
}

/// Days from hours.
fn days_sql() -> String {
    let source = format!(
        "select m.scope, m.market_type, m.category, m.depth, m.bucket_ms, \
             sum(r.bid_sum), max(r.bid_max), min(r.bid_min), sum(r.ask_sum), max(r.ask_max), min(r.ask_min), \
             sum(r.price_sum), sum(r.priced)::bigint, sum(r.symbols)::bigint, sum(r.count)::bigint \
         from (select distinct * from {MARKED}) m join category_snapshots_1h r on {SAME_SERIES} \
             and r.bucket_ms >= m.bucket_ms and r.bucket_ms < m.bucket_ms + {}",
        RollupWidth::Day.ms()
    );
    upsert(RollupWidth::Day, &source)
}

fn upsert(width: RollupWidth, source: &str) -> String {
    let set: Vec<String> = FIGURES.split(", ").map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "insert into {} ({KEY}, {FIGURES}) {source} group by 1, 2, 3, 4, 5 on conflict ({KEY}) do update set {}",
        table(width),
        set.join(", ")
    )
}

/// Sums have more digits than a decimal holds: they are read as text.
fn fold_of(row: &PgRow) -> Result<Fold, StoreError> {
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

impl PostgresStore {
    /// The roll-ups of a category.
    pub(super) async fn rollup_range(&self, query: &RollupQuery) -> Result<Vec<CategoryRollup>, StoreError> {
        let direction = if query.from_ms.is_some() { "asc" } else { "desc" };
        let texts: Vec<String> =
            FIGURES.split(", ").take(7).map(|name| format!("{name}::text as {name}")).collect();
        let sql = format!(
            "select bucket_ms, {}, priced, symbols, count from {} \
             where scope = $1 and market_type = $2 and category = $3 and depth = $4 \
             and bucket_ms >= $5 and bucket_ms <= $6 order by {}.bucket_ms {direction} limit $7",
            texts.join(", "),
            table(query.width),
            table(query.width)
        );
        let mut arguments = PgArguments::default();
        for name in [&query.scope, &query.market_type, &query.category] {
            arguments.add(name.as_str()).map_err(unbound)?;
        }
        arguments.add(query.depth).map_err(unbound)?;
        let (from_ms, to_ms) = (query.from_ms.unwrap_or(i64::MIN), query.to_ms.unwrap_or(i64::MAX));
        for bound in [from_ms, to_ms, i64::from(query.limit.min(MAX_ROWS))] {
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
