//! Whether a database holds what this program makes: tables, partitions ahead, indexes, views, functions, triggers.

use std::collections::BTreeMap;

use fathom_market::table::Table;
use sqlx::{postgres::PgArguments, postgres::PgRow};

use super::{
    PostgresStore,
    layout::Aged,
    migrate::MIGRATIONS,
    partitions::{AHEAD, number, partition},
    row::value,
};
use crate::{
    check::{Check, compare, made_by},
    error::StoreError,
};

type Objects = BTreeMap<(String, String), String>;

/// Everything there by kind and name; of a partition its bounds too.
const FOUND: &str = "select case when c.relispartition then 'partition' when c.relkind in ('r', 'p') then 'table' \
        when c.relkind = 'v' then 'view' else 'index' end as kind, \
        c.relname::text as name, coalesce(pg_get_expr(c.relpartbound, c.oid), '') as detail \
    from pg_class c where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p', 'v', 'i', 'I') \
    union all \
    select 'function', proname::text, '' from pg_proc where pronamespace = current_schema()::regnamespace \
    union all \
    select 'trigger', t.tgname::text, '' from pg_trigger t join pg_class c on c.oid = t.tgrelid \
    where c.relnamespace = current_schema()::regnamespace and not t.tgisinternal and not c.relispartition and t.tgenabled <> 'D'";

impl PostgresStore {
    /// Everything that should be there.
    pub(super) async fn checks(&self) -> Result<Vec<Check>, StoreError> {
        let clock = "select (extract(epoch from now()) * 1000)::bigint as now_ms".to_owned();
        let clock = self.fetch(clock, PgArguments::default()).await?;
        let now_ms: i64 = clock.first().map_or(Ok(0), |row| value(row, "now_ms"))?;
        let rows = self.fetch(FOUND.to_owned(), PgArguments::default()).await?;
        let object = |row: &PgRow| Ok(((value(row, "kind")?, value(row, "name")?), value(row, "detail")?));
        let found = rows.iter().map(object).collect::<Result<Objects, StoreError>>()?;
        Ok(compare(expected(now_ms), &found))
    }
}

/// What should be there at a time.
fn expected(now_ms: i64) -> Vec<((String, String), String)> {
    let thing = |kind: &str, name: String| ((kind.to_owned(), name), String::new());
    let mut all = Vec::new();
    for aged in Aged::all() {
        let name = aged.table.schema().name;
        all.push(thing("table", name.to_owned()));
        all.push((("partition".to_owned(), format!("{name}_default")), "DEFAULT".to_owned()));
        let present = number(&aged, now_ms.saturating_mul(aged.per_ms));
        for number in present.into_iter().flat_map(|present| present..=present + AHEAD) {
            let (from, to) = (number * aged.width, (number + 1) * aged.width);
            let bounds = format!("FOR VALUES FROM ('{from}') TO ('{to}')");
            all.push((("partition".to_owned(), partition(name, number)), bounds));
        }
        all.push(thing("index", format!("{name}_by_time")));
    }
    let made = made_by(MIGRATIONS.iter().map(|migration| migration.sql.as_str()));
    all.extend(made.into_iter().map(|(kind, name)| thing(&kind, name)));
    all.extend(Table::ALL.iter().map(|table| thing("index", format!("{}_pkey", table.schema().name))));
    all.sort();
    all
}
