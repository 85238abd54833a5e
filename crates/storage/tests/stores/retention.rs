//! Rows go when they are too old, whether row by row or a partition at once.

use std::time::Duration;

use fathom_market::table::Table;
use fathom_storage::{Retention, Store};

use crate::{
    rows,
    stand::{Stand, committed, expected},
};

const ROWS: i64 = 300;
/// Calls until nothing is left to remove.
const CALLS: usize = 50;

/// The clock at which the rows from number `first` on are just young enough for the retention, microseconds.
fn when(table: Table, first: i64, keep: Duration) -> Option<i64> {
    let (column, per_ms) = table.schema().age?;
    let batch = rows::batch(table, first..first + 1);
    let at = table.schema().columns.iter().position(|spec| spec.name == column)?;
    let fathom_market::batch::Column::Int(values) = &batch.columns()[at] else { return None };
    Some(values[0] * (1000 / per_ms) + keep.as_micros() as i64)
}

/// Expires until nothing more goes; gives the rows removed.
async fn expired(store: &dyn Store, table: Table, keep: Duration, now_us: i64) -> u64 {
    let mut removed = 0;
    for _ in 0..CALLS {
        let done = store.expire(&[Retention { table, keep }], now_us, 70).await.unwrap();
        let gone: u64 = done.iter().filter(|(gone, _)| *gone == table).map(|(_, rows)| rows).sum();
        if gone == 0 {
            return removed;
        }
        removed += gone;
    }
    panic!("{table:?} never ends to expire")
}

pub(crate) async fn rows_beyond_their_age_go_and_no_others(stand: &Stand) {
    let keep = Duration::from_secs(3 * 3600);
    for table in stand.tables() {
        stand.write(&rows::batch(table, 0..ROWS)).await;
        let Some(now_us) = when(table, 200, keep) else {
            // What does not age is kept, however old.
            assert_eq!(expired(&*stand.store, table, Duration::ZERO, i64::MAX).await, 0, "{table:?}");
            assert_eq!(stand.count(table).await, ROWS as u64, "{table:?}");
            continue;
        };
        assert_eq!(expired(&*stand.store, table, keep, now_us).await, 200, "{table:?}");
        assert_eq!(stand.dump(table).await, expected(&rows::batch(table, 200..ROWS)), "{table:?}");
        // Later all of it goes.
        let later = now_us + Duration::from_secs(90 * 86_400).as_micros() as i64;
        assert_eq!(expired(&*stand.store, table, keep, later).await, 100, "{table:?}");
        assert_eq!(stand.count(table).await, 0, "{table:?}");
    }
}

pub(crate) async fn a_replay_of_expired_rows_is_stored_and_expires_again(stand: &Stand) {
    // A spool may hold what the store has removed meanwhile; its place may be gone with it.
    for table in [Table::CategorySnapshots, Table::Trade1s, Table::OrderbookData] {
        let keep = Duration::from_secs(3600);
        let later = when(table, ROWS, keep).unwrap() + Duration::from_secs(40 * 86_400).as_micros() as i64;
        stand.write(&rows::batch(table, 0..ROWS)).await;
        assert_eq!(expired(&*stand.store, table, keep, later).await, ROWS as u64, "{table:?}");
        assert_eq!(
            stand.store.write(&rows::batch(table, 0..ROWS)).await,
            committed(ROWS as u64, 0),
            "{table:?}"
        );
        assert_eq!(
            stand.store.write(&rows::batch(table, 0..ROWS)).await,
            committed(0, ROWS as u64),
            "{table:?}"
        );
        assert_eq!(expired(&*stand.store, table, keep, later).await, ROWS as u64, "{table:?}");
    }
}
