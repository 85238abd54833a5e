//! Native range partitions: made before their rows come, dropped when all of their rows are too old.
//!
//! A partition is named by its number, which is the age of its rows divided by the width. A row of a time that has no partition
//! goes to the default one, and moves when its partition is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fathom_market::{
    batch::{Batch, Column},
    table::Table,
};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::Instant;

use super::{classify::is_missing, connect::Lease, layout::Aged, statements::column_list};

/// Partitions made ahead of the present one.
pub(super) const AHEAD: i64 = 3;
/// Partitions made for one batch, or out of the default one at once; rows of other times wait in the default one.
const AT_ONCE: usize = 8;
/// How long the makers wait for readers and writers, who then wait behind them.
const LOCK_TIMEOUT: &str = "2s";
/// Wait after a partition could not be made.
const PAUSE: Duration = Duration::from_secs(30);
/// Times outside of these years are a mistake somewhere and get no partition.
const YEARS_MS: std::ops::Range<i64> = 946_684_800_000..7_258_118_400_000;

/// The partitions that are known to be there. One that another process dropped is missing without being missed: its rows go
/// to the default one.
#[derive(Debug, Default)]
pub(super) struct Partitions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Table, BTreeSet<i64>>,
    not_before: Option<Instant>,
}

impl Partitions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the partitions that a batch needs, so far as that is possible at once. Whatever goes wrong is left to a later
    /// time: the rows have a place without them.
    pub(super) async fn prepare(&self, pool: &PgPool, batch: &Batch) {
        let Some(aged) = Aged::of(batch.table()) else { return };
        let missing: Vec<i64> = {
            let state = self.state();
            if state.not_before.is_some_and(|time| Instant::now() < time) {
                return;
            }
            let known = state.known.get(&aged.table);
            let missing = numbers(&aged, batch).into_iter();
            missing.filter(|number| known.is_none_or(|known| !known.contains(number))).collect()
        };
        for number in missing.into_iter().rev().take(AT_ONCE) {
            if let Err(error) = self.make(pool, &aged, number).await {
                tracing::warn!(table = aged.table.schema().name, number, %error, "a partition could not be made");
                self.state().not_before = Some(Instant::now() + PAUSE);
                return;
            }
        }
    }

    /// Makes the partitions of the present and those ahead of it.
    pub(super) async fn make_ahead(&self, pool: &PgPool, now_ms: i64) -> Result<(), sqlx::Error> {
        for aged in Aged::all() {
            let Some(present) = number(&aged, now_ms.saturating_mul(aged.per_ms)) else { continue };
            for number in present..=present + AHEAD {
                let known = self.state().known.get(&aged.table).is_some_and(|known| known.contains(&number));
                if !known {
                    self.make(pool, &aged, number).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves rows out of the default partition into ones of their own.
    pub(super) async fn sweep(&self, pool: &PgPool, aged: &Aged) -> Result<(), sqlx::Error> {
        let Aged { age, width, .. } = aged;
        let name = aged.table.schema().name;
        // An empty default partition, the usual one, has no blocks to read.
        let sql = format!(
            "select distinct div({age}::numeric, {width})::bigint as number from {name}_default \
             where {age} between $1 and $2 order by number desc limit {AT_ONCE}"
        );
        let numbers: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(YEARS_MS.start * aged.per_ms)
            .bind(YEARS_MS.end * aged.per_ms - 1)
            .fetch_all(pool)
            .await?;
        for number in numbers {
            self.make(pool, aged, number).await?;
        }
        Ok(())
    }

    /// Makes one partition where it is missing, and moves the rows there that waited for it.
    async fn make(&self, pool: &PgPool, aged: &Aged, number: i64) -> Result<(), sqlx::Error> {
        let mut lease = Lease::take(pool).await?;
        let name = aged.table.schema().name;
        let (from, to) = (number * aged.width, (number + 1) * aged.width);
        // One maker at a time for a table; the others find the partition made.
        lease
            .run_text(format!(
                "begin; set local lock_timeout = '{LOCK_TIMEOUT}'; \
                 select pg_advisory_xact_lock(hashtext('fathom partition'), '{name}'::regclass::oid::int)"
            ))
            .await?;
        let there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(partition(name, number))
            .fetch_one(lease.connection())
            .await?;
        if there {
            lease.run("rollback").await?;
        } else {
            // Attached rather than made in place: that would lock out the readers and writers of the whole table.
            let (part, columns) = (partition(name, number), column_list(aged.table.schema()));
            let age = aged.age;
            lease
                .run_text(format!(
                    "create table {part} (like {name} including all); \
                     lock table {name}_default in access exclusive mode; \
                     with moved as (delete from {name}_default where {age} >= {from} and {age} < {to} returning {columns}) \
                     insert into {part} ({columns}) select {columns} from moved; \
                     alter table {name} attach partition {part} for values from ({from}) to ({to}); \
                     commit"
                ))
                .await?;
        }
        lease.give_back();
        self.state().known.entry(aged.table).or_default().insert(number);
        Ok(())
    }

    /// Drops the partitions whose rows are all older than `oldest`, and gives how many rows went.
    pub(super) async fn drop_older(
        &self,
        pool: &PgPool,
        aged: &Aged,
        oldest: i64,
    ) -> Result<u64, sqlx::Error> {
        let mut rows = 0;
        for number in self.list(pool, aged.table).await? {
            if (number + 1).saturating_mul(aged.width) > oldest {
                continue;
            }
            rows += self.drop_one(pool, aged, number).await?;
        }
        Ok(rows)
    }

    async fn drop_one(&self, pool: &PgPool, aged: &Aged, number: i64) -> Result<u64, sqlx::Error> {
        let name = aged.table.schema().name;
        let part = partition(name, number);
        // From now on rows of that time are made a place for again.
        self.state().known.entry(aged.table).or_default().remove(&number);
        let mut lease = Lease::take(pool).await?;
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {part}")))
            .persistent(false)
            .fetch_one(lease.connection())
            .await
            .or_else(|error| if is_missing(&error) { Ok(0) } else { Err(error) })?;
        lease
            .run_text(format!(
                "begin; set local lock_timeout = '{LOCK_TIMEOUT}'; drop table if exists {part}; commit"
            ))
            .await?;
        lease.give_back();
        Ok(rows.unsigned_abs())
    }

    /// The partitions of a table, oldest first.
    pub(super) async fn list(&self, pool: &PgPool, table: Table) -> Result<Vec<i64>, sqlx::Error> {
        let name = table.schema().name;
        let names: Vec<String> = sqlx::query_scalar(
            "select c.relname::text from pg_inherits h join pg_class c on c.oid = h.inhrelid \
             where h.inhparent = to_regclass($1)",
        )
        .bind(name)
        .fetch_all(pool)
        .await?;
        let prefix = partition(name, 0);
        let prefix = prefix.trim_end_matches('0');
        let known: BTreeSet<i64> =
            names.iter().filter_map(|part| part.strip_prefix(prefix)?.parse().ok()).collect();
        self.state().known.insert(table, known.clone());
        Ok(known.into_iter().collect())
    }
}

/// The name of a partition.
pub(super) fn partition(name: &str, number: i64) -> String {
    format!("{name}_p{number}")
}

/// The number of the partition of an age; `None` where the age is out of all bounds.
pub(super) fn number(aged: &Aged, age: i64) -> Option<i64> {
    YEARS_MS.contains(&age.div_euclid(aged.per_ms)).then(|| age.div_euclid(aged.width))
}

fn numbers(aged: &Aged, batch: &Batch) -> BTreeSet<i64> {
    let at = batch.schema().columns.iter().position(|column| column.name == aged.age);
    let Some(Column::Int(ages)) = at.and_then(|at| batch.columns().get(at)) else { return BTreeSet::new() };
    let mut numbers = BTreeSet::new();
    let mut last = None;
    for age in ages {
        let this = number(aged, *age);
        if this != last {
            numbers.extend(this);
            last = this;
        }
    }
    numbers
}
