//! The plans by which questions are answered, on a table with enough rows for a wrong one to be seen.

use std::collections::BTreeSet;

use super::*;
use crate::read::CategoryQuery;

/// Sixty series of 200 minutes each, by the server itself.
async fn fill(store: &MysqlStore) {
    store.write(&rows::batch(Table::CategorySnapshots, 0..200)).await;
    let columns = Table::CategorySnapshots.schema().columns.iter().map(|column| match column.name {
        "category" => "concat('C', n.n)",
        "market_type" => "m.m",
        "depth" => "d.d",
        name => name,
    });
    let numbers = (0..10).map(|n| format!("select {n} as n")).collect::<Vec<_>>().join(" union all ");
    let sql = format!(
        "insert into category_snapshots_raw select {} from category_snapshots_raw r, ({numbers}) n, \
         (select 'SPOT' as m union all select 'FUTURES') m, (select 1.5 as d union all select 5 union all select 15) d",
        columns.collect::<Vec<_>>().join(", ")
    );
    execute(store, &sql).await;
    query(store, "analyze table category_snapshots_raw").await;
}

/// What the server reads when it answers: rows by index, and rows without one.
async fn work(store: &MysqlStore) -> (i64, i64) {
    let rows = query(
        store,
        "select cast(sum(if(variable_name in ('Handler_read_key', 'Handler_read_next', 'Handler_read_prev'), \
         variable_value, 0)) as signed), cast(sum(if(variable_name in ('Handler_read_rnd_next'), variable_value, 0)) as signed) \
         from information_schema.session_status where variable_name like 'Handler_read%'",
    )
    .await;
    (rows[0].get(0), rows[0].get(1))
}

#[tokio::test]
async fn ranges_and_the_newest_of_each_category_jump_in_the_index() {
    let Some(database) = Database::fresh(Server::Mariadb) else { return };
    // One reading connection, whose work is counted.
    let store = MysqlStore::open(&MysqlConfig { pool: 2, ..MysqlConfig::new(database.url()) }).await.unwrap();
    store.migrate().await.unwrap();
    fill(&store).await;
    let range = |from_ms, to_ms| CategoryQuery {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "C3".into(),
        depth: rows::dec("5"),
        from_ms,
        to_ms,
        limit: 20,
    };
    let start = rows::START_MS;
    for query in [range(Some(start + 60_000), Some(start + 600_000)), range(None, None)] {
        let before = work(&store).await;
        let found = store.history().category_range(&query).await.unwrap().len();
        let after = work(&store).await;
        assert!((10..=20).contains(&found), "{found} rows");
        assert!(after.0 - before.0 <= 30, "{} rows were read for {found}", after.0 - before.0);
    }
    let before = work(&store).await;
    let latest = store.history().latest_categories("binance", "SPOT", rows::dec("5")).await.unwrap();
    let after = work(&store).await;
    let names: BTreeSet<_> = latest.iter().map(|row| row.category.clone()).collect();
    assert_eq!((latest.len(), names.len()), (11, 11));
    assert!(latest.iter().all(|row| row.timestamp_ms == start + 199 * 60_000));
    // Of 2200 rows of this depth, and 6600 of the market.
    assert!(after.0 - before.0 < 200, "{} rows were read for {}", after.0 - before.0, latest.len());
}

#[tokio::test]
async fn the_plans_name_the_indexes() {
    let Some((_database, store)) = store().await else { return };
    fill(&store).await;
    store.write(&rows::batch(Table::Instruments, 0..200)).await;
    let plans = [
        (
            "select * from category_snapshots_raw where scope = 'binance' and market_type = 'SPOT' and category = 'C3' \
             and depth = 5 and timestamp_ms >= 1 and timestamp_ms <= 1835689600000 order by timestamp_ms limit 1440",
            "range PRIMARY",
        ),
        (
            "select category, max(timestamp_ms) from category_snapshots_raw where scope = 'binance' \
             and market_type = 'SPOT' and depth = 5 group by scope, market_type, category",
            "Using index for group-by",
        ),
        (
            "delete from category_snapshots_raw where timestamp_ms < 5 order by timestamp_ms limit 2000",
            "_by_time",
        ),
        (
            "select * from candles where symbol = 'BTCUSDT' and timeframe = '1m' and timestamp > 1",
            "instruments_by_native",
        ),
        (
            "select * from market_data_1s where symbol = 'BTCUSDT' and timestamp between 1 and 2",
            "instruments_by_native",
        ),
        (
            "select * from symbol_snapshots where symbol = 'BTCUSDT' and timestamp > 1",
            "instruments_by_native",
        ),
        ("select * from category_snapshots where timestamp > 1835689600000", "_by_time"),
    ];
    for (question, wanted) in plans {
        let plan = query(&store, &format!("explain {question}")).await;
        let steps: Vec<String> = plan
            .iter()
            .map(|row| {
                let text = |name: &str| row.get::<Option<String>, _>(name).unwrap_or_default();
                format!("{} {} {} {}", text("table"), text("type"), text("key"), text("Extra"))
            })
            .collect();
        assert!(steps.iter().any(|step| step.contains(wanted)), "{question}: {steps:#?}");
        let whole = steps.iter().filter(|step| step.contains(" ALL ") && !step.starts_with('<'));
        assert_eq!(whole.count(), 0, "{question}: {steps:#?}");
    }
}
