//! Accounts, marks and quarantine beside the rows, across kills and lost answers.

use fathom_market::{mark::StreamMark, table::TradeRow};

use super::*;
use crate::account::{
    Accepted, Accounts, Offered, Opening, QuarantineLimits, QuarantineQuery, Refusal, Resent,
};

fn numbered(mut batch: Batch, epoch: u64, seq: u64) -> Batch {
    (batch.epoch, batch.seq) = (epoch, seq);
    batch
}

fn offered(rows: u64) -> Offered {
    Offered::of(rows)
}

const ALL: QuarantineQuery = QuarantineQuery { table: None, after: 0, limit: 100 };

#[tokio::test]
async fn a_batch_is_counted_once_however_often_it_is_accepted() {
    let (directory, store) = store().await;
    assert_eq!(store.accounts().open().await.unwrap(), Opening { epoch: 1, ..Opening::default() });
    let batch = numbered(rows::batch(Table::Trades, 0..100), 1, 1);
    let first_side = [(Table::Trades, offered(130))];
    for _ in 0..3 {
        assert_eq!(store.accept(&batch, &first_side).await, committed(100, 0), "as the first time");
    }
    let other = numbered(rows::batch(Table::Trades, 50..150), 1, 2);
    assert_eq!(store.accept(&other, &[]).await, committed(50, 50));
    // An attempt given up long ago comes back.
    store.accept(&batch, &first_side).await;
    let wanted = Accepted { accepted: 200, stored: 150, duplicate: 50, ..Accepted::default() };
    assert_eq!(store.accepted()[&Table::Trades], wanted);
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 150);

    // Killed: never closed. What was offered and is nowhere was lost.
    store.record(&[(Table::Trades, offered(230))]).await.unwrap();
    drop(store);
    let store = open(directory.path()).await;
    for _ in 0..2 {
        let opening = store.accounts().open().await.unwrap();
        assert_eq!((opening.epoch, opening.accepted[&Table::Trades]), (2, wanted));
        let side = opening.offered[&Table::Trades];
        assert_eq!((side.offered, side.refused_for(Refusal::ProcessKilled)), (230, 30));
    }
    assert_eq!(store.accept(&numbered(batch, 2, 1), &[]).await, committed(0, 100));
}

#[tokio::test]
async fn marks_move_forward_with_what_is_accepted() {
    let (_directory, store) = store().await;
    let trade = |n: i64, recv_us| TradeRow { instrument_id: 7, recv_us, ..rows::trade(n) };
    let mark = |last_us, n: i64| StreamMark {
        instrument_id: 7,
        channel: "trade".into(),
        last_us,
        last_id: Some(rows::trade(n).trade_id),
    };
    store.accept(&numbered(Batch::of([trade(1, 100), trade(2, 200)]), 1, 1), &[]).await;
    assert_eq!(store.marks().await.unwrap(), [mark(200, 2)]);
    // One that was fetched later.
    store.accept(&numbered(Batch::of([trade(1, 900)]), 1, 2), &[]).await;
    assert_eq!(store.marks().await.unwrap(), [mark(200, 2)]);
    store.accept(&numbered(Batch::of([trade(4, 300)]), 1, 3), &[]).await;
    assert_eq!(store.marks().await.unwrap(), [mark(300, 4)]);
}

#[tokio::test]
async fn poison_waits_in_quarantine_until_it_is_sent_again_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let quarantine = QuarantineLimits { rows: 3, bytes: u64::MAX };
    let store = SqliteStore::open(&SqliteConfig { quarantine, ..config(directory.path()) }).await.unwrap();
    store.migrate().await.unwrap();
    let bad = TradeRow { side: "sideways".into(), ..rows::trade(1) };
    let batch = numbered(Batch::of([bad, rows::trade(2), rows::trade(3)]), 1, 1);
    let errors = ["not a side".to_owned(), "once refused".to_owned(), "once refused".to_owned()];
    for _ in 0..2 {
        assert!(store.quarantine(&batch, &errors, &[], 5).await.unwrap(), "again changes nothing");
    }
    let more = numbered(Batch::of([rows::trade(4)]), 1, 2);
    assert!(!store.quarantine(&more, &errors, &[], 5).await.unwrap(), "it has no more room");
    let held = store.quarantined(&ALL).await.unwrap();
    assert_eq!(held.len(), 3);
    let row: serde_json::Value = serde_json::from_str(held[0].row.as_deref().unwrap()).unwrap();
    assert_eq!((row["side"].as_str(), held[0].error.as_str()), (Some("sideways"), "not a side"));
    let next = store.quarantined(&QuarantineQuery { after: held[0].id, limit: 1, ..ALL }).await.unwrap();
    assert_eq!(next, held[1..2]);

    let Resent::Refused(error) = store.resend(held[0].id).await.unwrap() else { panic!("not refused") };
    assert!(error.contains("CHECK"), "{error}");
    let again = store.quarantined(&QuarantineQuery { limit: 1, ..ALL }).await.unwrap();
    assert_eq!((again[0].attempts, again[0].status.as_str()), (2, "refused_again"));
    assert_eq!(store.resend(held[1].id).await.unwrap(), Resent::Stored);
    assert_eq!(store.resend(held[1].id).await.unwrap(), Resent::Unknown);
    assert!(store.discard(held[0].id).await.unwrap() && !store.discard(held[0].id).await.unwrap());
    let wanted = Accepted { accepted: 3, stored: 1, quarantined: 1, discarded: 1, ..Accepted::default() };
    assert_eq!(store.accepted()[&Table::Trades], wanted);
    assert_eq!(store.accounts().open().await.unwrap().accepted[&Table::Trades], wanted, "persisted alike");
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 1);
    assert!(store.marks().await.unwrap().is_empty(), "what is in quarantine is no mark");
}
