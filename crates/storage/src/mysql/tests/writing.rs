//! What a write changes: round trips, replays, and the conflict policies against naive models.

use std::collections::BTreeMap;

use fathom_market::table::{CollectorStateRow, FundingRow, InstrumentRow};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::mysql::statements::chunks;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn chunks_cover_every_row_once_and_fit_the_limits() {
    let bytes = rows::batch(Table::Bt1s, 0..1).row_bytes(0);
    for (room, most) in [(u64::MAX, 512), (bytes * 100, 64), (bytes, 1), (1, 1)] {
        for n in [0_usize, 1, 2, 3, 511, 1030] {
            let batch = rows::batch(Table::Bt1s, 0..n as i64);
            let all: Vec<usize> = (0..n).rev().collect();
            let max_packet = room.saturating_add(64 * 1024);
            let cut: Vec<&[usize]> = chunks(&batch, &all, max_packet).collect();
            assert_eq!(cut.concat(), all, "{n} rows in {room}");
            assert!(
                cut.iter().all(|chunk| chunk.len().is_power_of_two() && chunk.len() <= most),
                "{n}, {room}"
            );
        }
    }
}

#[tokio::test]
async fn every_table_holds_what_was_written_and_a_replay_changes_nothing() {
    let Some((_database, store)) = store().await else { return };
    for table in kept() {
        let batch = rows::batch(table, 0..1500);
        assert_eq!(store.write(&batch).await, committed(1500, 0), "{table:?}");
        let stored = dump(&store, table).await;
        let mut wanted = expected(&batch);
        // Sorted as text on both sides: keys order differently as text and as numbers.
        let mut sorted = stored.clone();
        sorted.sort();
        wanted.sort();
        assert_eq!(sorted, wanted, "{table:?}");
        assert_eq!(store.write(&batch).await, committed(0, 1500), "{table:?}");
        assert_eq!(dump(&store, table).await, stored, "{table:?}");
        assert_eq!(store.history().count(table).await.unwrap(), 1500, "{table:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_partly_known_adds_the_rest_and_counts_both() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::CategorySnapshots, 100..200)).await;
    // Known ones in the middle and each row twice.
    let mut batch = rows::batch(Table::CategorySnapshots, 0..300);
    batch.append(rows::batch(Table::CategorySnapshots, 0..300)).unwrap();
    assert_eq!(store.write(&batch).await, committed(200, 400));
    assert_eq!(dump(&store, Table::CategorySnapshots).await.len(), 300);
}

#[tokio::test]
async fn ticks_are_refused_in_so_many_words_and_counted_as_none() {
    let Some((_database, store)) = store().await else { return };
    for table in unsupported_tables() {
        let WriteOutcome::Fatal { error } = store.write(&rows::batch(*table, 0..3)).await else {
            panic!("{table:?} was taken");
        };
        assert!(
            error.contains(table.schema().name) && error.contains("is not kept in MySQL or MariaDB"),
            "{error}"
        );
        assert_eq!(store.history().count(*table).await.unwrap(), 0);
    }
    assert!(store.status().reachable);
}

#[tokio::test]
async fn the_migrations_are_what_the_schemas_declare() {
    let Some((_database, store)) = store().await else { return };
    for table in kept() {
        let schema = table.schema();
        let sql = format!(
            "select column_name, data_type, is_nullable = 'YES' from information_schema.columns \
             where table_schema = database() and table_name = '{}' and generation_expression is null \
             order by ordinal_position",
            schema.name
        );
        let columns = query(&store, &sql).await;
        let columns: Vec<(String, String, bool)> =
            columns.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(columns.len(), schema.columns.len(), "{}: {columns:?}", schema.name);
        for (spec, (name, kind, nullable)) in schema.columns.iter().zip(&columns) {
            let (kinds, optional): (&[&str], bool) = match spec.kind {
                ColumnKind::Int => (&["bigint", "smallint"], false),
                ColumnKind::OptInt => (&["bigint"], true),
                ColumnKind::Text => (&["varchar", "mediumtext"], false),
                ColumnKind::OptText => (&["varchar", "text"], true),
                ColumnKind::Dec => (&["decimal"], false),
                ColumnKind::OptDec => (&["decimal"], true),
                ColumnKind::Flag => (&["tinyint"], false),
            };
            assert_eq!((spec.name, optional), (name.as_str(), *nullable), "{}", schema.name);
            assert!(kinds.contains(&kind.as_str()), "{}.{name} is {kind}", schema.name);
        }
        let sql = format!(
            "select column_name from information_schema.statistics where table_schema = database() \
             and table_name = '{}' and index_name = 'PRIMARY' order by seq_in_index",
            schema.name
        );
        let key: Vec<String> = query(&store, &sql).await.iter().map(|row| row.get(0)).collect();
        assert_eq!(key, schema.key, "{}", schema.name);
    }
    let loose = query(
        &store,
        "select table_name from information_schema.tables where table_schema = database() and table_type = 'BASE TABLE' \
         and table_name <> '_sqlx_migrations' and (engine <> 'InnoDB' or table_collation <> 'utf8mb4_bin')",
    )
    .await;
    assert!(loose.is_empty(), "{:?}", loose[0].get::<String, _>(0));
}

#[tokio::test]
async fn names_that_differ_in_case_are_different_names() {
    let Some((_database, store)) = store().await else { return };
    let gap = |id: &str| fathom_market::table::GapRow { gap_id: id.into(), ..rows::gap(1) };
    let all = Batch::of(["a", "A", "ä", "a\u{308}"].map(gap));
    assert_eq!(store.write(&all).await, committed(4, 0));
    assert_eq!(store.write(&all).await, committed(0, 4));
}

#[tokio::test]
async fn a_tie_replaces_and_an_older_row_does_not() {
    let Some((_database, store)) = store().await else { return };
    let mut row = rows::candle(1);
    store.write(&Batch::of([row.clone()])).await;
    row.close = rows::dec("3.5");
    assert_eq!(store.write(&Batch::of([row.clone()])).await, committed(1, 0));
    // The same number in another writing is the same.
    row.close = rows::dec("3.50");
    assert_eq!(store.write(&Batch::of([row.clone()])).await, committed(0, 1));
    row.updated_us -= 1;
    row.close = rows::dec("9");
    assert_eq!(store.write(&Batch::of([row.clone()])).await, committed(0, 1));
    let stored = dump(&store, Table::Candles).await;
    assert_eq!(stored[0][7].as_deref(), Some("3.5"));
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

/// Writes the rows in batches of the given sizes, around and around, and gives the rows inserted.
async fn write_split<R: fathom_market::table::Row + Clone>(
    store: &MysqlStore,
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

fn funding(instrument_id: i64, event_us: i64, price: i64) -> FundingRow {
    FundingRow {
        instrument_id,
        event_us,
        mark_price: price.into(),
        index_price: None,
        funding_rate: None,
        next_funding_ms: None,
    }
}

fn progress(instrument_id: i64, updated: i64, content: i64) -> CollectorStateRow {
    CollectorStateRow {
        instrument_id,
        last_timestamp_ms: updated,
        last_updated_us: content,
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

/// Many cases on one store, whose table is emptied for each.
fn against_the_model<S: Strategy>(table: Table, cases: S, check: impl AsyncFn(&MysqlStore, S::Value)) {
    let runtime = runtime();
    let Some((_database, store)) = runtime.block_on(store()) else { return };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(32) });
    let done = runner.run(&cases, |case| {
        runtime.block_on(async {
            execute(&store, &format!("delete from {}", table.schema().name)).await;
            check(&store, case).await;
        });
        Ok(())
    });
    done.unwrap();
}

#[test]
fn keep_first_is_the_naive_model() {
    let all = prop::collection::vec((0..4_i64, 0..4_i64, any::<i32>()), 1..60);
    against_the_model(Table::FundingRates, (all, sizes(), sizes()), async |store, (all, first, second)| {
        let all: Vec<_> = all.into_iter().map(|(id, at, price)| funding(id, at, price.into())).collect();
        let mut model = BTreeMap::new();
        for row in &all {
            model.entry((row.instrument_id, row.event_us)).or_insert_with(|| row.clone());
        }
        assert_eq!(write_split(store, &all, &first).await, model.len() as u64);
        let wanted = expected(&Batch::of(model.into_values()));
        assert_eq!(dump(store, Table::FundingRates).await, wanted);
        assert_eq!(write_split(store, &all, &second).await, 0);
        assert_eq!(dump(store, Table::FundingRates).await, wanted);
    });
}

#[test]
fn newest_is_the_naive_model() {
    let all = prop::collection::vec((0..4_i64, 0..9_i64, 0..3_i64), 1..60);
    against_the_model(Table::CollectorState, (all, sizes()), async |store, (all, first)| {
        let all: Vec<_> =
            all.into_iter().map(|(id, updated, content)| progress(id, updated, content)).collect();
        let mut model: BTreeMap<i64, CollectorStateRow> = BTreeMap::new();
        let mut changes = 0;
        for row in &all {
            let known = model.get(&row.instrument_id);
            if known.is_none_or(|known| row.last_timestamp_ms >= known.last_timestamp_ms && row != known) {
                model.insert(row.instrument_id, row.clone());
                changes += 1;
            }
        }
        assert_eq!(write_split(store, &all, &first).await, changes);
        let last: Vec<_> = model.into_values().collect();
        assert_eq!(dump(store, Table::CollectorState).await, expected(&Batch::of(last.clone())));
        assert_eq!(store.write(&Batch::of(last.clone())).await, committed(0, last.len() as u64));
    });
}

#[test]
fn versions_are_the_naive_model() {
    let all = prop::collection::vec((0..3_i64, 0..12_i64, 0..3_u8), 1..40);
    against_the_model(
        Table::Instruments,
        (all, sizes(), sizes()),
        async |store, (mut all, first, second)| {
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
