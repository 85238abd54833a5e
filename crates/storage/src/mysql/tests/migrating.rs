//! The schema comes about from empty and from any break in the middle, once, however many processes start.

use std::borrow::Cow;

use sqlx::migrate::{Migration, Migrator};

use super::*;
use crate::{
    error::ErrorClass,
    mysql::{
        connect::Opener,
        migrate::{MIGRATIONS, apply, statements},
    },
};

/// Everything that a schema consists of, as text.
async fn schema(store: &MysqlStore) -> Vec<String> {
    let mut parts = Vec::new();
    let names = query(
        store,
        "select table_name, table_type from information_schema.tables where table_schema = database() order by 1",
    )
    .await;
    for row in names {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        let word = if kind == "VIEW" { "view" } else { "table" };
        let made = query(store, &format!("show create {word} `{name}`")).await;
        parts.push(made[0].get::<String, _>(1));
    }
    parts
}

async fn empty() -> Option<(Database, MysqlStore)> {
    let database = Database::fresh(Server::Mariadb)?;
    let store = open(&database).await;
    Some((database, store))
}

/// Definitions of views name their database.
fn without(name: &str, schema: Vec<String>) -> Vec<String> {
    schema.into_iter().map(|part| part.replace(name, "x")).collect()
}

#[tokio::test]
async fn migrations_are_applied_once_and_a_newer_database_is_refused() {
    let Some((_database, store)) = empty().await else { return };
    let names = store.migrate().await.unwrap();
    let wanted = ["0001_instruments", "0002_raw_tables", "0003_readable_views", "0004_gaps", "0005_rollups"];
    assert_eq!(names, wanted);
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
    execute(&store, "update _sqlx_migrations set checksum = x'00' where version = 2").await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.message(), "migration 2 was changed after it had been applied");
    execute(
        &store,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'tomorrow', true, x'00', 1)",
    )
    .await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert_eq!(
        error.message(),
        "the database was made by a newer program: migration 9999 is not known to this one"
    );
}

#[tokio::test]
async fn a_migration_that_broke_off_after_any_statement_is_finished_by_the_next_start() {
    let Some((whole, store)) = empty().await else { return };
    store.migrate().await.unwrap();
    let wanted = without(whole.name(), schema(&store).await);
    // The schema grows statement by statement; after each one a process dies, which leaves its migration marked as begun.
    let Some((broken, store)) = empty().await else { return };
    let opener = Opener::new(&MysqlConfig::new(broken.url())).unwrap();
    let mut breaks = 0;
    for (at, migration) in MIGRATIONS.iter().enumerate() {
        let all: Vec<String> = statements(migration.sql.as_str()).collect();
        assert!(!all.is_empty());
        for kept in 0..all.len() {
            let mut cut: Vec<Migration> = MIGRATIONS.iter().take(at).cloned().collect();
            let sql = format!("{};\nselect broken;\n", all[..kept].join(";\n"));
            let sql = sqlx::AssertSqlSafe(sql.trim_start_matches(";\n").to_owned());
            cut.push(Migration { sql: sqlx::SqlSafeStr::into_sql_str(sql), ..migration.clone() });
            let cut = Migrator { migrations: Cow::Owned(cut), ..Migrator::DEFAULT };
            assert!(apply(&opener, &cut).await.is_err());
            breaks += 1;
        }
    }
    assert!(breaks > 30, "{breaks} breaks");
    store.migrate().await.unwrap();
    assert_eq!(without(broken.name(), schema(&store).await), wanted);
    for table in kept() {
        assert_eq!(store.write(&rows::batch(table, 0..5)).await, committed(5, 0), "{table:?}");
    }
}

#[tokio::test]
async fn what_an_older_program_stored_is_there_after_the_migration_and_rolled_up() {
    let Some((database, store)) = empty().await else { return };
    let opener = Opener::new(&MysqlConfig::new(database.url())).unwrap();
    let all: Vec<Migration> = MIGRATIONS.iter().cloned().collect();
    let before = Migrator { migrations: Cow::Owned(all[..all.len() - 1].to_vec()), ..Migrator::DEFAULT };
    apply(&opener, &before).await.unwrap();
    // As the older program wrote, which knew of no roll-ups.
    execute(&store, "create table category_snapshots_dirty like category_snapshots_raw").await;
    execute(&store, "drop table category_snapshots_dirty").await;
    let columns = super::super::statements::column_list(Table::CategorySnapshots.schema());
    for minute in [0_i64, 1, 61] {
        let time = rows::START_MS + minute * 60_000;
        let sql = format!(
            "insert into category_snapshots_raw ({columns}) \
             values ('ALL', 'SPOT', 'TOTAL', 5, {time}, 1, 1, {minute}, 2, null, 1, 1, 1, 1, 0, 0, 7)"
        );
        execute(&store, &sql).await;
    }
    store.write(&rows::batch(Table::Candles, 0..7)).await;
    let candles = dump(&store, Table::Candles).await;
    assert_eq!(store.migrate().await.unwrap(), ["0005_rollups"]);
    assert_eq!(dump(&store, Table::Candles).await, candles);
    assert_eq!(store.history().count(Table::CategorySnapshots).await.unwrap(), 3);
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 2);
}

#[tokio::test]
async fn processes_that_start_at_once_do_not_collide() {
    let Some((database, store)) = empty().await else { return };
    let others = [open(&database).await, open(&database).await, open(&database).await];
    let (a, b, c, d) =
        tokio::join!(store.migrate(), others[0].migrate(), others[1].migrate(), others[2].migrate());
    let mut applied: Vec<usize> = [a, b, c, d].into_iter().map(|names| names.unwrap().len()).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 5], "one of them did it all");
}

#[test]
fn every_statement_ends_at_the_end_of_a_line() {
    for migration in MIGRATIONS.iter() {
        for statement in statements(migration.sql.as_str()) {
            assert!(!statement.contains(';'), "{}: {statement}", migration.version);
        }
    }
}
