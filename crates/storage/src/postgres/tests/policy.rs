//! What a write changes: round trips, replays, and the conflict policies against naive models.

use std::collections::BTreeMap;

use fathom_market::{
    batch::Batch,
    table::{BookTickerRow, CollectorStateRow, ColumnKind, InstrumentRow, Table},
};
use proptest::{prelude::*, test_runner::TestRunner};
use sqlx::Row as _;

use super::*;
use crate::postgres::layout;

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[tokio::test]
async fn every_table_holds_what_was_written_and_a_replay_changes_nothing() {
    let Some((_database, store)) = store().await else { return };
    for table in Table::ALL {
        let batch = rows::batch(*table, 0..1500);
        assert_eq!(store.write(&batch).await, committed(1500, 0), "{table:?}");
        let stored = dump(&store, *table).await;
        let mut wanted = expected(&batch);
        // Sorted as text on both sides: keys order differently as text and as numbers.
        let mut sorted = stored.clone();
        sorted.sort();
        wanted.sort();
        assert_eq!(sorted, wanted, "{table:?}");
        assert_eq!(store.write(&batch).await, committed(0, 1500), "{table:?}");
        assert_eq!(dump(&store, *table).await, stored, "{table:?}");
        assert_eq!(store.history().count(*table).await.unwrap(), 1500, "{table:?}");
    }
}

#[tokio::test]
async fn the_tables_are_what_the_schemas_declare() {
    let Some((_database, store)) = store().await else { return };
    for table in Table::ALL {
        let schema = table.schema();
        let sql = format!(
            "select attname::text, format_type(atttypid, atttypmod), attnotnull from pg_attribute \
             where attrelid = '{}'::regclass and attnum > 0 and not attisdropped order by attnum",
            schema.name
        );
        let columns = query(&store, &sql).await;
        let columns: Vec<(String, String, bool)> =
            columns.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let wanted = schema.columns.iter().map(|column| {
            let (kind, required) = match column.kind {
                ColumnKind::Int => ("bigint", true),
                ColumnKind::OptInt => ("bigint", false),
                ColumnKind::Text => ("text", true),
                ColumnKind::OptText => ("text", false),
                ColumnKind::Dec => ("numeric(28,12)", true),
                ColumnKind::OptDec => ("numeric(28,12)", false),
                ColumnKind::Flag => ("boolean", true),
            };
            (column.name.to_owned(), kind.to_owned(), required)
        });
        assert_eq!(columns, wanted.collect::<Vec<_>>(), "{}", schema.name);
        let sql = format!(
            "select a.attname::text from pg_index i, unnest(i.indkey) with ordinality k (attnum, at), pg_attribute a \
             where i.indrelid = '{}'::regclass and i.indisprimary and a.attrelid = i.indrelid and a.attnum = k.attnum \
             order by k.at",
            schema.name
        );
        let key: Vec<String> = query(&store, &sql).await.iter().map(|row| row.get(0)).collect();
        assert_eq!(key, layout::key(schema), "{}", schema.name);
    }
}

#[tokio::test]
async fn a_tie_replaces_and_an_older_row_does_not() {
    let Some((_database, store)) = store().await else { return };
    let mut row = rows::candle(1);
    store.write(&Batch::of([row.clone()])).await;
    row.close = rows::dec("3.5");
    assert_eq!(store.write(&Batch::of([row.clone()])).await, committed(1, 0));
    row.updated_us -= 1;
    row.close = rows::dec("9");
    assert_eq!(store.write(&Batch::of([row.clone()])).await, committed(0, 1));
    let stored = query(&store, "select close from candles_raw").await;
    assert_eq!(stored[0].get::<rust_decimal::Decimal, _>(0), rows::dec("3.5"));
}

/// Writes the rows in batches of the given sizes, around and around, and gives the rows inserted.
async fn write_split<R: fathom_market::table::Row + Clone>(
    store: &PostgresStore,
    all: &[R],
    sizes: &[usize],
) -> u64 {
    let (mut inserted, mut rest, mut sizes) = (0, all, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*sizes.next().unwrap_or(&1)).clamp(1, rest.len()));
        rest = later;
        match store.write(&Batch::of(now.iter().cloned())).await {
            WriteOutcome::Committed { inserted: added, duplicate } => {
                assert_eq!(added + duplicate, now.len() as u64);
                inserted += added;
            }
            other => panic!("{other:?}"),
        }
    }
    inserted
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..9_usize, 1..6)
}

fn tick(update: i64, ordinal: i64, price: i64) -> BookTickerRow {
    BookTickerRow { update_id: update, event_us: update, ordinal, bid_price_m: price, ..rows::tick(0) }
}

fn progress(instrument_id: i64, updated: i64) -> CollectorStateRow {
    // What was known at a time is one thing: the content follows from the key and the version.
    CollectorStateRow {
        instrument_id,
        last_timestamp_ms: updated,
        last_updated_us: updated * 31 % 7,
        ..rows::collector_state(0)
    }
}

fn version(instrument_id: i64, from: i64, facts: u8) -> InstrumentRow {
    InstrumentRow {
        valid_from_us: from,
        facts: format!("{facts}"),
        native: format!("N{instrument_id}"),
        ..rows::instrument(instrument_id)
    }
}

#[tokio::test]
async fn a_version_older_than_the_newest_changes_nothing() {
    let Some((_database, store)) = store().await else { return };
    let first = Batch::of([version(1, 10, 1)]);
    assert_eq!(store.write(&first).await, committed(1, 0));
    assert_eq!(store.write(&Batch::of([version(1, 20, 2)])).await, committed(1, 0));
    let before = dump(&store, Table::Instruments).await;
    assert_eq!(store.write(&first).await, committed(0, 1));
    assert_eq!(store.write(&Batch::of([version(1, 15, 3), version(1, 20, 4)])).await, committed(0, 2));
    assert_eq!(dump(&store, Table::Instruments).await, before);
    let periods = query(&store, "select valid_from_us, valid_to_us from instruments order by 1").await;
    let periods: Vec<(i64, Option<i64>)> = periods.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(periods, vec![(10, Some(20)), (20, None)]);
}

/// Runs cases against one database, emptied before each.
fn cases<S: Strategy>(table: Table, strategy: S, case: impl AsyncFn(&PostgresStore, S::Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some((_database, store)) = runtime.block_on(store()) else { return };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(12));
    let ran = runner.run(&strategy, |value| {
        runtime.block_on(async {
            query(&store, &format!("truncate {}", table.schema().name)).await;
            case(&store, value).await;
        });
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn keep_first_is_the_naive_model() {
    let strategy = (prop::collection::vec((0..8_i64, 0..2_i64, any::<i32>()), 1..60), sizes(), sizes());
    cases(
        Table::BookTicker,
        strategy,
        async |store: &PostgresStore, (all, first, second): (Vec<_>, Vec<_>, Vec<_>)| {
            let all: Vec<_> =
                all.into_iter().map(|(update, ordinal, price)| tick(update, ordinal, price.into())).collect();
            let mut model = BTreeMap::new();
            for row in &all {
                model.entry((row.update_id, row.ordinal)).or_insert_with(|| row.clone());
            }
            assert_eq!(write_split(store, &all, &first).await, model.len() as u64);
            let wanted = expected(&Batch::of(model.into_values()));
            assert_eq!(dump(store, Table::BookTicker).await, wanted);
            assert_eq!(write_split(store, &all, &second).await, 0);
            assert_eq!(dump(store, Table::BookTicker).await, wanted);
        },
    );
}

#[test]
fn newest_is_the_naive_model() {
    let strategy = (prop::collection::vec((0..4_i64, 0..9_i64), 1..60), sizes(), sizes());
    cases(
        Table::CollectorState,
        strategy,
        async |store: &PostgresStore, (all, first, second): (Vec<_>, Vec<_>, Vec<_>)| {
            let all: Vec<_> = all.into_iter().map(|(id, updated)| progress(id, updated)).collect();
            let mut model: BTreeMap<i64, CollectorStateRow> = BTreeMap::new();
            let mut changes = 0;
            for row in &all {
                let known = model.get(&row.instrument_id);
                if known.is_none_or(|known| row.last_timestamp_ms > known.last_timestamp_ms) {
                    model.insert(row.instrument_id, row.clone());
                    changes += 1;
                }
            }
            assert_eq!(write_split(store, &all, &first).await, changes);
            let wanted = expected(&Batch::of(model.into_values()));
            assert_eq!(dump(store, Table::CollectorState).await, wanted);
            assert_eq!(write_split(store, &all, &second).await, 0);
            assert_eq!(dump(store, Table::CollectorState).await, wanted);
        },
    );
}

#[test]
fn versions_are_the_naive_model() {
    let strategy = (prop::collection::vec((0..3_i64, 0..12_i64, 0..3_u8), 1..40), sizes(), sizes());
    cases(
        Table::Instruments,
        strategy,
        async |store: &PostgresStore, (mut all, first, second): (Vec<_>, Vec<_>, Vec<_>)| {
            // One writer sees an instrument's facts in the order of time.
            all.sort_by_key(|(_, from, _)| *from);
            let all: Vec<_> = all.into_iter().map(|(id, from, facts)| version(id, from, facts)).collect();
            let mut model: BTreeMap<i64, Vec<InstrumentRow>> = BTreeMap::new();
            for row in &all {
                let versions = model.entry(row.instrument_id).or_default();
                match versions.last_mut() {
                    Some(last) if last.valid_from_us >= row.valid_from_us || last.facts == row.facts => {
                        continue;
                    }
                    Some(last) => last.valid_to_us = Some(row.valid_from_us),
                    None => {}
                }
                versions.push(row.clone());
            }
            let stored: usize = model.values().map(Vec::len).sum();
            assert_eq!(write_split(store, &all, &first).await, stored as u64);
            let in_force: Vec<_> = model.values().filter_map(|versions| versions.last().cloned()).collect();
            let wanted = expected(&Batch::of(model.into_values().flatten()));
            assert_eq!(dump(store, Table::Instruments).await, wanted);
            assert_eq!(write_split(store, &all, &second).await, 0);
            assert_eq!(dump(store, Table::Instruments).await, wanted);
            let mut read = store.history().instruments().await.unwrap();
            read.sort_by_key(|row| row.instrument_id);
            assert_eq!(read, in_force);
        },
    );
}
