//! The spool against real files, before a real store that fails on command.

mod damage;

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use async_trait::async_trait;
use fathom_market::{batch::Column, table::CollectorStateRow};
use proptest::prelude::*;
use sqlx::Connection as _;
use tempfile::TempDir;

use super::*;
use crate::{
    account::{Accepted, Accounts as _, QuarantineQuery, Resent},
    read::History,
    sqlite::{SqliteConfig, SqliteStore, connect::WriterOptions},
    store::{PoisonRow, Retention, Sink as _, Store, StoreStatus},
};

const TABLE: Table = Table::CollectorState;
const ALL: QuarantineQuery = QuarantineQuery { table: None, after: 0, limit: 1000 };

/// How the next write ends.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused,
    LostBefore,
    LostAfter,
    Hang,
    Fatal,
}

#[tokio::test]
async fn what_waits_of_a_table_is_told_in_its_order_until_it_is_moved() {
    let bench = Bench::new().await;
    let batches = [rows(0..3, 1, 1), rows(3..5, 1, 2)];
    for batch in &batches {
        bench.accept(batch).await;
    }
    assert_eq!(bench.sink.spooled(TABLE).await.unwrap(), batches);
    assert_eq!(bench.sink.spooled(Table::DataGaps).await.unwrap(), []);
    bench.sink.step().await;
    assert_eq!(bench.sink.spooled(TABLE).await.unwrap(), batches[1..]);
}

#[tokio::test]
async fn a_store_without_its_schema_gets_it_before_the_first_write() {
    let bench = Bench::new().await;
    let path = bench.directory.path().join("later.db");
    let config = SqliteConfig::new(&path);
    let prepared = crate::Prepared::new(Arc::new(SqliteStore::open(&config).await.unwrap()));
    let retention = [Retention { table: TABLE, keep: Duration::from_secs(1) }];
    let mut beside = WriterOptions::new(&config, &[]).connect().await.unwrap();
    sqlx::query("create table instruments (other integer)").execute(&mut beside).await.unwrap();
    assert!(matches!(prepared.write(&rows(0..3, 1, 1)).await, WriteOutcome::Transient { .. }));
    assert!(prepared.expire(&retention, 0, 1).await.is_err());
    sqlx::query("drop table instruments").execute(&mut beside).await.unwrap();
    let committed = WriteOutcome::Committed { inserted: 3, duplicate: 0 };
    assert_eq!(prepared.write(&rows(0..3, 1, 1)).await, committed);
    assert_eq!(prepared.migrate().await.unwrap(), Vec::<String>::new());
}

/// A SQLite store with faults; rows of these instruments are poison, named or not.
struct Faulty {
    store: SqliteStore,
    script: Mutex<VecDeque<Fault>>,
    poison: BTreeSet<i64>,
    names_poison: bool,
}

#[async_trait]
impl Store for Faulty {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        let fault = self.script.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Refused) => {
                return WriteOutcome::Transient { retry_after: Duration::ZERO, error: "busy".into() };
            }
            Some(Fault::LostBefore) => return WriteOutcome::UnknownOutcome { error: "lost".into() },
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Fatal) => return WriteOutcome::Fatal { error: "read-only".into() },
            Some(Fault::LostAfter) | None => {}
        }
        let bad = ids(batch).into_iter().enumerate().filter(|(_, id)| self.poison.contains(id));
        let rows: Vec<_> = bad.map(|(row, id)| PoisonRow { row, error: format!("row {id}") }).collect();
        if !rows.is_empty() {
            return WriteOutcome::Poison { rows: if self.names_poison { rows } else { Vec::new() } };
        }
        let outcome = self.store.write(batch).await;
        match fault {
            Some(Fault::LostAfter) => WriteOutcome::UnknownOutcome { error: "lost".into() },
            _ => outcome,
        }
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.store.migrate().await
    }

    async fn expire(
        &self,
        kept: &[Retention],
        now: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        self.store.expire(kept, now, limit).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    fn status(&self) -> StoreStatus {
        self.store.status()
    }

    fn history(&self) -> &dyn History {
        self.store.history()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

fn ids(batch: &Batch) -> Vec<i64> {
    let Column::Int(ids) = &batch.columns()[0] else { panic!("the first column is an id") };
    ids.clone()
}

fn rows(ids: std::ops::Range<i64>, epoch: u64, seq: u64) -> Batch {
    let mut batch = Batch::of(ids.map(|instrument_id| CollectorStateRow {
        instrument_id,
        timeframe: "1m".into(),
        last_timestamp_ms: 1,
        last_updated_us: 1,
        is_realtime: false,
    }));
    (batch.epoch, batch.seq) = (epoch, seq);
    batch
}

struct Bench {
    directory: TempDir,
    now_us: Arc<AtomicI64>,
    store: Arc<Faulty>,
    sink: Spooled,
    config: SpoolConfig,
}

impl Bench {
    async fn new() -> Self {
        Self::with(BTreeSet::new(), true, |config| config).await
    }

    async fn with(poison: BTreeSet<i64>, names_poison: bool, change: fn(SpoolConfig) -> SpoolConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&SqliteConfig::new(directory.path().join("store.db"))).await.unwrap();
        store.migrate().await.unwrap();
        let store = Arc::new(Faulty { store, script: Mutex::default(), poison, names_poison });
        let config = SpoolConfig {
            write_deadline: Duration::from_millis(100),
            ..change(SpoolConfig::new(directory.path().join("spool.db")))
        };
        let now_us = Arc::new(AtomicI64::new(1_000_000));
        let sink = open(&config, &now_us, &store).await;
        Self { directory, now_us, store, sink, config }
    }

    /// As after a kill: nothing is closed or flushed.
    async fn reopen(&mut self) -> u64 {
        self.sink = open(&self.config, &self.now_us, &self.store).await;
        self.sink.open().await.unwrap().epoch
    }

    async fn accept(&self, batch: &Batch) {
        let rows = batch.len() as u64;
        let outcome = self.sink.accept(batch, &[]).await;
        assert_eq!(outcome, WriteOutcome::Committed { inserted: rows, duplicate: 0 });
    }

    fn faults(&self, faults: &[Fault]) {
        self.store.script.lock().unwrap().extend(faults);
    }

    async fn drain(&self) {
        while self.sink.step().await != Step::Idle {}
    }

    async fn stored(&self) -> u64 {
        self.store.history().count(TABLE).await.unwrap()
    }

    fn side(&self) -> Accepted {
        let side = self.sink.accepted()[&TABLE];
        assert!(side.is_balanced(), "{side:?}");
        side
    }
}

async fn open(config: &SpoolConfig, now_us: &Arc<AtomicI64>, store: &Arc<Faulty>) -> Spooled {
    let now = Arc::clone(now_us);
    let spool = Spool::open(config.clone(), Arc::new(move || now.load(Relaxed))).await.unwrap();
    let sink = Spooled::new(store.clone(), spool);
    sink.open().await.unwrap();
    sink
}

#[tokio::test]
async fn what_is_accepted_outlives_a_kill_and_is_stored_once_in_order() {
    let mut bench = Bench::new().await;
    for seq in 1..=3 {
        let from = i64::try_from(seq).unwrap() * 10;
        let batch = rows(from..from + 10, 1, seq);
        bench.accept(&batch).await;
        bench.accept(&batch).await;
    }
    assert_eq!((bench.side().spooled, bench.sink.spool().unwrap().records), (30, 3));
    assert_eq!(bench.reopen().await, 2);
    assert_eq!((bench.side().spooled, bench.sink.spool().unwrap().rows), (30, 30));
    bench.faults(&[Fault::Refused, Fault::LostBefore, Fault::LostAfter, Fault::Hang, Fault::Fatal]);
    for _ in 0..4 {
        assert!(matches!(bench.sink.step().await, Step::Failed { .. }));
        assert_eq!(bench.sink.spool().unwrap().records, 3);
    }
    bench.drain().await;
    let side = bench.side();
    assert_eq!((side.stored, side.duplicate, side.spooled, bench.stored().await), (20, 10, 0, 30));
    let status = bench.sink.spool().unwrap();
    assert_eq!((status.records, status.bytes, status.oldest_us), (0, 0, None));
}

#[tokio::test]
async fn poison_is_found_whether_the_store_names_it_or_not() {
    for names in [true, false] {
        let bench = Bench::with(BTreeSet::from([3, 4, 77]), names, |config| config).await;
        bench.accept(&rows(0..100, 1, 1)).await;
        bench.drain().await;
        let side = bench.side();
        assert_eq!((side.stored, side.quarantined, bench.stored().await), (97, 3, 97), "named: {names}");
        let held = bench.sink.quarantined(&ALL).await.unwrap();
        assert_eq!(held.len(), 3);
        assert!(matches!(bench.sink.resend(held[0].id).await.unwrap(), Resent::Refused(_)));
        assert_eq!(bench.side().quarantined, 3);
    }
}

#[tokio::test]
async fn a_quarantined_row_that_the_store_takes_at_last_leaves_the_quarantine() {
    let bench = Bench::new().await;
    let refused = rows(5..6, 1, 1);
    assert!(bench.sink.quarantine(&refused, &["no".into()], &[], 1).await.unwrap());
    let held = bench.sink.quarantined(&ALL).await.unwrap();
    bench.faults(&[Fault::Refused]);
    assert!(bench.sink.resend(held[0].id).await.is_err(), "the store is away: it stays");
    assert_eq!(bench.sink.resend(held[0].id).await.unwrap(), Resent::Stored);
    let side = bench.side();
    assert_eq!((side.accepted, side.stored, side.quarantined, bench.stored().await), (1, 1, 0, 1));
}

#[tokio::test]
async fn a_damaged_record_is_moved_away_and_the_others_go_on() {
    let bench = Bench::new().await;
    for seq in 1..=3 {
        let from = i64::try_from(seq).unwrap() * 10;
        bench.accept(&rows(from..from + 10, 1, seq)).await;
    }
    let options = WriterOptions::new(&SqliteConfig::new(&bench.config.path), &[]);
    let mut beside = options.connect().await.unwrap();
    let damage = "update spool set body = zeroblob(length(body)) where seq = 2";
    sqlx::query(damage).execute(&mut beside).await.unwrap();
    beside.close().await.unwrap();
    bench.drain().await;
    let side = bench.side();
    assert_eq!((side.stored, side.quarantined, bench.stored().await), (20, 10, 20));
    assert_eq!(bench.sink.spool().unwrap().damaged, 1);
    let held = bench.sink.quarantined(&ALL).await.unwrap();
    assert_eq!((held[0].rows, held[0].status.as_str()), (10, "damaged"));
    assert!(held[0].error.starts_with("checksum "), "{}", held[0].error);
}

#[tokio::test]
async fn a_torn_last_record_was_never_accepted_and_the_rest_is_whole() {
    let bench = Bench::new().await;
    for seq in 1..=3 {
        let from = i64::try_from(seq).unwrap() * 10;
        bench.accept(&rows(from..from + 10, 1, seq)).await;
    }
    let torn = bench.directory.path().join("torn.db");
    let with = |path: &Path, suffix: &str| format!("{}{suffix}", path.display());
    std::fs::copy(&bench.config.path, &torn).unwrap();
    let log = std::fs::read(with(&bench.config.path, "-wal")).unwrap();
    std::fs::write(with(&torn, "-wal"), &log[..log.len() - 100]).unwrap();
    let config = SpoolConfig { path: torn, ..bench.config.clone() };
    let sink = open(&config, &bench.now_us, &bench.store).await;
    let side = sink.accepted()[&TABLE];
    assert_eq!((side.accepted, side.spooled, sink.spool().unwrap().rows), (20, 20, 20));
    while sink.step().await != Step::Idle {}
    assert_eq!(bench.stored().await, 20);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_fresh_one_begun() {
    let mut bench = Bench::new().await;
    bench.accept(&rows(0..10, 1, 1)).await;
    bench.sink.spool.file().await.unwrap().close().await;
    std::fs::write(&bench.config.path, "this is a letter, not a database\n".repeat(400)).unwrap();
    bench.reopen().await;
    let aside = bench.sink.spool().unwrap().set_aside.unwrap();
    assert!(!aside.contains('/') && bench.directory.path().join(&aside).exists(), "{aside}");
    bench.accept(&rows(20..30, 1, 1)).await;
    bench.drain().await;
    assert_eq!((bench.side().stored, bench.stored().await), (10, 10));
}

#[tokio::test]
async fn a_full_spool_takes_no_more_until_it_has_room_and_old_records_go() {
    let bench = Bench::with(BTreeSet::new(), true, |config| SpoolConfig {
        max_bytes: 4000,
        max_age: Duration::from_secs(10),
        ..config
    })
    .await;
    let mut seq = 0;
    let refused = loop {
        seq += 1;
        let from = i64::try_from(seq).unwrap() * 10;
        let batch = rows(from..from + 10, 1, seq);
        match bench.sink.accept(&batch, &[]).await {
            WriteOutcome::Committed { .. } => {}
            WriteOutcome::Transient { error, .. } => {
                assert!(error.starts_with("the spool is full"), "{error}");
                break batch;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(bench.sink.spool().unwrap().bytes <= 4000);
    assert!(matches!(bench.sink.step().await, Step::Moved { stored: 10, .. }));
    bench.accept(&refused).await;
    bench.now_us.fetch_add(20_000_000, Relaxed);
    let Step::Expired(Some(batch)) = bench.sink.step().await else { panic!("not expired") };
    assert_eq!(ids(&batch), (20..30).collect::<Vec<_>>());
    bench.drain().await;
    let side = bench.side();
    assert_eq!((side.stored, side.expired, side.accepted), (10, (seq - 1) * 10, seq * 10));
}

#[derive(Clone, Debug)]
enum Move {
    Accept(i64),
    AcceptAgain,
    Step,
    Fault(Fault),
    Kill,
    Quarantine,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let fault = prop_oneof![Just(Fault::Refused), Just(Fault::LostBefore), Just(Fault::LostAfter)];
    let one = prop_oneof![
        4 => (1i64..20).prop_map(Move::Accept),
        2 => Just(Move::AcceptAgain),
        3 => Just(Move::Step),
        3 => fault.prop_map(Move::Fault),
        1 => Just(Move::Kill),
        1 => Just(Move::Quarantine),
    ];
    proptest::collection::vec(one, 1..40)
}

async fn play(moves: Vec<Move>, names_poison: bool) {
    let poison: BTreeSet<i64> = (0..1000).filter(|id| id % 13 == 5).collect();
    let mut bench = Bench::with(poison.clone(), names_poison, |config| config).await;
    let (mut epoch, mut seq, mut next, mut last) = (1, 0, 0, None);
    let mut by_hand = 0;
    for one in moves {
        match one {
            Move::Accept(count) => {
                seq += 1;
                let batch = rows(next..next + count, epoch, seq);
                next += count;
                bench.accept(&batch).await;
                last = Some(batch);
            }
            // The answer was lost, by a kill too: the same batch under the same number.
            Move::AcceptAgain => {
                if let Some(batch) = &last {
                    bench.accept(batch).await;
                }
            }
            Move::Step => drop(bench.sink.step().await),
            Move::Fault(fault) => bench.faults(&[fault]),
            Move::Kill => {
                let opened = bench.reopen().await;
                assert!(opened >= epoch);
                (epoch, seq) = (opened, if opened == epoch { seq } else { 0 });
            }
            Move::Quarantine => {
                seq += 1;
                by_hand += 1;
                let batch = rows(10_000 + by_hand..10_001 + by_hand, epoch, seq);
                assert!(bench.sink.quarantine(&batch, &["by hand".into()], &[], 1).await.unwrap());
                last = None;
            }
        }
        if next + by_hand > 0 {
            bench.side();
        }
    }
    if next + by_hand == 0 {
        return;
    }
    bench.store.script.lock().unwrap().clear();
    bench.drain().await;
    let bad = u64::try_from(poison.range(..next).count()).unwrap();
    let (all, by_hand) = (next.unsigned_abs(), by_hand.unsigned_abs());
    let side = bench.side();
    assert_eq!((side.accepted, side.quarantined, side.spooled), (all + by_hand, bad + by_hand, 0));
    assert_eq!((side.stored + side.duplicate, bench.stored().await), (all - bad, all - bad));
    assert_eq!(bench.sink.quarantined(&ALL).await.unwrap().len() as u64, bad + by_hand);
    let persisted = bench.sink.open().await.unwrap().accepted[&TABLE];
    assert_eq!(persisted, side);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_accepted_row_is_stored_once_or_in_quarantine(moves in moves(), names in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(moves, names));
    }
}
