//! Roll-ups against a naive fold of the snapshots.

use std::{collections::BTreeMap, time::Duration};

use fathom_market::{
    batch::Batch,
    table::{CategorySnapshotRow, Table},
};
use fathom_storage::{CategoryRollup, Retention, RollupQuery, RollupWidth, Store};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::{rows, stand::Stand};

/// Buckets that are rolled up at once here, so that more than one call is needed.
const LIMIT: u64 = 3;

pub(crate) async fn rolled_up(store: &dyn Store) {
    for _ in 0..500 {
        if store.roll_up(LIMIT).await.unwrap() == 0 {
            return;
        }
    }
    panic!("roll-ups never end")
}

fn average(values: &[Decimal]) -> Option<Decimal> {
    let sum: Decimal = values.iter().sum();
    let count = Decimal::from(values.len());
    let rounded =
        |sum: Decimal| (sum / count).round_dp_with_strategy(12, RoundingStrategy::MidpointNearestEven);
    (!values.is_empty()).then(|| rounded(sum).normalize())
}

/// Average, greatest, least.
fn spread(values: &[Decimal]) -> [Decimal; 3] {
    let average = average(values).unwrap();
    [average, *values.iter().max().unwrap(), *values.iter().min().unwrap()].map(|value| value.normalize())
}

/// What the roll-up of one category's snapshots has to be.
pub(crate) fn folded(all: &[CategorySnapshotRow], width: RollupWidth) -> Vec<CategoryRollup> {
    let mut buckets: BTreeMap<i64, Vec<&CategorySnapshotRow>> = BTreeMap::new();
    for row in all {
        buckets.entry(row.timestamp_ms - row.timestamp_ms.rem_euclid(width.ms())).or_default().push(row);
    }
    let fold = |(bucket_ms, rows): (i64, Vec<&CategorySnapshotRow>)| {
        let of = |value: fn(&CategorySnapshotRow) -> Decimal| {
            rows.iter().map(|row| value(row)).collect::<Vec<_>>()
        };
        let prices: Vec<_> = rows.iter().filter_map(|row| row.avg_price).collect();
        CategoryRollup {
            bucket_ms,
            bid_volume_usd: spread(&of(|row| row.total_bid_volume_usd)),
            ask_volume_usd: spread(&of(|row| row.total_ask_volume_usd)),
            avg_price: average(&prices),
            avg_symbol_count: average(&of(|row| row.symbol_count.into())).unwrap(),
            count: rows.len() as u64,
        }
    };
    buckets.into_iter().map(fold).collect()
}

/// Decimals in one writing, so that 1.50 and 1.5 are equal in messages too.
pub(crate) fn plain(mut rollup: CategoryRollup) -> CategoryRollup {
    for value in
        rollup.bid_volume_usd.iter_mut().chain(&mut rollup.ask_volume_usd).chain(&mut rollup.avg_price)
    {
        *value = value.normalize();
    }
    rollup.avg_symbol_count = rollup.avg_symbol_count.normalize();
    rollup
}

fn all(width: RollupWidth) -> RollupQuery {
    RollupQuery {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: rows::dec("5"),
        width,
        from_ms: None,
        to_ms: None,
        limit: 100,
    }
}

async fn read(stand: &Stand, query: &RollupQuery) -> Vec<CategoryRollup> {
    stand.store.history().category_rollup(query).await.unwrap().into_iter().map(plain).collect()
}

async fn is_folded(stand: &Stand, rows: &[CategorySnapshotRow]) {
    rolled_up(&*stand.store).await;
    for width in [RollupWidth::Hour, RollupWidth::Day] {
        assert_eq!(read(stand, &all(width)).await, folded(rows, width), "{width:?}");
    }
}

/// Amounts whose average has no end.
fn snapshot(n: i64) -> CategorySnapshotRow {
    CategorySnapshotRow {
        total_bid_volume_usd: Decimal::new(n * n * 7_919 + 1, 9),
        total_ask_volume_usd: Decimal::new(10_000_000 - n * 31, 3),
        avg_price: (n % 3 > 0).then(|| Decimal::new(n * 104_729, 12)),
        symbol_count: n % 11,
        ..rows::category_snapshot(n)
    }
}

pub(crate) async fn hours_and_days_are_folded_and_late_rows_repair_them(stand: &Stand) {
    let every: Vec<_> = (0..1600).map(snapshot).collect();
    let is_late = |n: usize| n % 97 == 5 || (70..75).contains(&n) || (120..180).contains(&n);
    let early: Vec<_> = (0..1600).filter(|n| !is_late(*n)).map(|n| every[n].clone()).collect();
    let late: Vec<_> = (0..1600).filter(|n| is_late(*n)).map(|n| every[n].clone()).collect();
    stand.write(&Batch::of(early.clone())).await;
    is_folded(stand, &early).await;
    stand.write(&Batch::of(late)).await;
    is_folded(stand, &every).await;
    // A replay changes nothing and leaves nothing to do.
    stand.write(&Batch::of(every.clone())).await;
    is_folded(stand, &every).await;
    let hours = folded(&every, RollupWidth::Hour);
    let hour = RollupWidth::Hour.ms();
    let from = |n: i64| Some(rows::START_MS + n * hour);
    let asked = [
        (RollupQuery { limit: 2, ..all(RollupWidth::Hour) }, hours.len() - 2..hours.len()),
        (RollupQuery { from_ms: from(2), limit: 3, ..all(RollupWidth::Hour) }, 2..5),
        (RollupQuery { from_ms: from(2), to_ms: from(3), ..all(RollupWidth::Hour) }, 2..4),
        (RollupQuery { to_ms: from(3), limit: 2, ..all(RollupWidth::Hour) }, 2..4),
        (RollupQuery { category: "NONE".into(), ..all(RollupWidth::Hour) }, 0..0),
        (RollupQuery { market_type: "FUTURES".into(), ..all(RollupWidth::Hour) }, 0..0),
    ];
    for (query, range) in asked {
        assert_eq!(read(stand, &query).await, hours[range], "{query:?}");
    }
}

pub(crate) async fn what_has_expired_keeps_its_roll_up(stand: &Stand) {
    let every: Vec<_> = (0..300).map(snapshot).collect();
    stand.write(&Batch::of(every.clone())).await;
    is_folded(stand, &every).await;
    // Half of the third hour is gone afterwards.
    let keep = Duration::from_secs(3600);
    let now_us = (rows::START_MS + 150 * 60_000) * 1000 + keep.as_micros() as i64;
    let rules = [Retention { table: Table::CategorySnapshots, keep }];
    while stand.store.expire(&rules, now_us, 1000).await.unwrap().iter().any(|(_, rows)| *rows > 0) {}
    assert_eq!(stand.count(Table::CategorySnapshots).await, 150);
    is_folded(stand, &every).await;
    // Late rows of an hour that is cut, and of one that is gone, do not make it anew from what is left.
    stand
        .write(&Batch::of([170, 10].map(|n| CategorySnapshotRow {
            category: "TOTAL".into(),
            timestamp_ms: rows::START_MS + n * 60_000 + 1,
            ..snapshot(n)
        })))
        .await;
    rolled_up(&*stand.store).await;
    let hours = folded(&every, RollupWidth::Hour);
    let now = read(stand, &all(RollupWidth::Hour)).await;
    assert_eq!(now[0], hours[0]);
    assert_eq!(now[2], hours[2]);
    assert_eq!(now[3..], hours[3..]);
}
