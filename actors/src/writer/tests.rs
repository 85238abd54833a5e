//! The writer under a real kernel, with a store that fails on command.

use std::collections::{BTreeSet, VecDeque};

use async_trait::async_trait;
use fathom_market::{
    batch::Column,
    table::{CandleRow, CategorySnapshotRow, CollectorStateRow, InstrumentRow, SymbolSnapshotRow, Table},
};
use fathom_storage::{
    CandleQuery, CategoryQuery, History, Retention, SnapshotQuery, StoreError, StoreStatus,
    read::CategoryStat,
};
use rust_decimal::Decimal;

use super::{pending::FlushRules, *};
use crate::{
    fixtures::{LONG, MINUTE_US, World, patient},
    kernel::{
        ActorId, ChildBuilder, ChildSpec, Inject, Kind, Outlet, Overflow, Placement, SendError, State,
        inbox::bounded, testkit::eventually,
    },
    limits,
};

/// How the next write ends.
#[derive(Clone, Copy, Debug)]
enum Next {
    Transient,
    Unknown { stored: bool },
    PoisonSomewhere,
    Hang,
    Slow,
}

#[derive(Default)]
struct Inner {
    script: VecDeque<Next>,
    down: bool,
    poison: BTreeSet<i64>,
    stored: BTreeSet<(Table, i64)>,
    calls: Vec<Vec<i64>>,
}

#[derive(Default)]
pub(crate) struct FakeStore(Mutex<Inner>);

impl FakeStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn ids(&self) -> Vec<i64> {
        self.inner().stored.iter().map(|(_, id)| *id).collect()
    }
}

fn ids(batch: &Batch) -> Vec<i64> {
    let Column::Int(ids) = &batch.columns()[0] else { panic!("the first column is an id") };
    ids.clone()
}

fn commit(inner: &mut Inner, batch: &Batch) -> WriteOutcome {
    let new = ids(batch).iter().filter(|id| inner.stored.insert((batch.table(), **id))).count() as u64;
    WriteOutcome::Committed { inserted: new, duplicate: batch.len() as u64 - new }
}

fn transient() -> WriteOutcome {
    WriteOutcome::Transient { retry_after: Duration::from_millis(1), error: "busy".into() }
}

#[async_trait]
impl Store for FakeStore {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        let next = {
            let mut inner = self.inner();
            inner.calls.push(ids(batch));
            if inner.down { Some(Next::Transient) } else { inner.script.pop_front() }
        };
        match next {
            Some(Next::Transient) => return transient(),
            Some(Next::PoisonSomewhere) => return WriteOutcome::Poison { rows: Vec::new() },
            Some(Next::Hang) => std::future::pending().await,
            Some(Next::Unknown { stored }) => {
                if stored {
                    commit(&mut self.inner(), batch);
                }
                return WriteOutcome::UnknownOutcome { error: "lost".into() };
            }
            // Longer than several ticks of the writer.
            Some(Next::Slow) => tokio::time::sleep(TICK * 4).await,
            None => {}
        }
        let mut inner = self.inner();
        let refused = ids(batch).into_iter().enumerate().filter(|(_, id)| inner.poison.contains(id));
        let rows: Vec<_> = refused.map(|(row, id)| PoisonRow { row, error: format!("row {id}") }).collect();
        if rows.is_empty() { commit(&mut inner, batch) } else { WriteOutcome::Poison { rows } }
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn expire(&self, kept: &[Retention], _: i64, limit: u64) -> Result<Vec<(Table, u64)>, StoreError> {
        if self.inner().down {
            return Err(StoreError::fatal("away"));
        }
        Ok(kept.iter().map(|kept| (kept.table, limit)).collect())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn status(&self) -> StoreStatus {
        StoreStatus { kind: "fake", ..StoreStatus::default() }
    }

    fn history(&self) -> &dyn History {
        self
    }

    async fn close(&self) {}
}

const UNREAD: &str = "nobody reads here";

#[async_trait]
impl History for FakeStore {
    async fn category_range(&self, _: &CategoryQuery) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn latest_categories(
        &self,
        _: &str,
        _: &str,
        _: Decimal,
    ) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn category_stats(&self, _: &str) -> Result<Vec<CategoryStat>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn symbol_range(&self, _: &SnapshotQuery) -> Result<Vec<SymbolSnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn candles(&self, _: &CandleQuery) -> Result<Vec<CandleRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn last_candle(&self, _: i64, _: &str) -> Result<Option<(i64, bool)>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn collector_state(&self) -> Result<Vec<CollectorStateRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn instruments(&self) -> Result<Vec<InstrumentRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn count(&self, _: Table) -> Result<u64, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }
}

struct Bench {
    world: World,
    store: Arc<FakeStore>,
    out: Outlet<Batch>,
    waiting: WaitingRows,
    id: ActorId,
}

/// Written at three rows, or soon.
const SOON: FlushRules = FlushRules { rows: 3, age: Duration::from_millis(20) };
const NEVER: FlushRules = FlushRules { rows: 100_000, age: Duration::from_secs(100_000) };
const INBOX: usize = 4;

impl Bench {
    async fn new(flush: FlushRules) -> Self {
        Self::with(World::real(), flush, Inner::default(), patient).await
    }

    async fn scripted(script: &[Next]) -> Self {
        let inner = Inner { script: script.iter().copied().collect(), ..Inner::default() };
        Self::with(World::real(), SOON, inner, patient).await
    }

    async fn with(
        world: World,
        flush: FlushRules,
        inner: Inner,
        rules: fn(ChildBuilder<WriterActor>) -> ChildBuilder<WriterActor>,
    ) -> Self {
        let (out, inbox) = bounded("rows", INBOX, Overflow::Fault, &world.clock);
        let waiting = Arc::new(Mutex::new(Pending::new(flush)));
        let store = Arc::new(FakeStore(Mutex::new(inner)));
        let (inbox_of, store_of) = (inbox.clone(), store.clone());
        let spec =
            WriterSpec { inbox: inbox_of, waiting: waiting.clone(), store: store_of, settings: settings() };
        let child =
            ChildSpec::builder("writer", Kind("writer"), move |life| WriterActor::new(life, spec.clone()))
                .placement(Placement::Dedicated)
                .stop_grace(LONG)
                .inbox(&inbox);
        world.kernel.supervisor().spawn(rules(child).build()).await.unwrap();
        Self { world, store, out, waiting, id: "writer".into() }
    }

    /// Offers rows until they are taken.
    async fn offer(&self, ids: std::ops::Range<i64>) {
        let mut batch = Some(rows(ids));
        let taken = eventually(LONG, || {
            let Err(SendError::Full(back)) = self.out.offer(batch.take().unwrap()) else { return true };
            batch = Some(back);
            false
        });
        assert!(taken.await);
    }

    async fn stores(&self, ids: impl IntoIterator<Item = i64>) {
        let ids: Vec<i64> = ids.into_iter().collect();
        let all = || self.store.ids() == ids && self.waiting.lock().unwrap().rows() == 0;
        assert!(eventually(LONG, all).await, "{:?} of {ids:?}", self.store.ids());
    }

    fn counts(&self) -> TableCounts {
        self.waiting.lock().unwrap().counts()[&Table::CollectorState]
    }

    async fn publishes(&self, what: impl Fn(&WriterStatus) -> bool) {
        let status = || self.world.control.detail::<WriterStatus>(&self.id).map(|(_, status)| status);
        assert!(eventually(LONG, || status().is_some_and(|status| what(&status))).await, "{:?}", status());
    }

    async fn reaches(&self, generation: u64) {
        let actor = || self.world.control.actor(&self.id).unwrap();
        let up =
            || actor().generation >= generation && matches!(actor().state, State::Running | State::Degraded);
        assert!(eventually(LONG, up).await, "{:#?}", actor());
    }

    fn down(&self, down: bool) {
        self.store.inner().down = down;
    }
}

fn settings() -> WriterSettings {
    let retention = vec![Retention { table: Table::Trades, keep: Duration::from_secs(1) }];
    WriterSettings { inbox: INBOX, flush: SOON, retention, retention_every: Duration::from_millis(1) }
}

fn rows(ids: std::ops::Range<i64>) -> Batch {
    Batch::of(ids.map(|instrument_id| CollectorStateRow {
        instrument_id,
        timeframe: "1m".into(),
        last_timestamp_ms: 0,
        last_updated_us: 0,
        is_realtime: false,
    }))
}

#[actix_rt::test]
async fn every_row_is_written_once() {
    let bench = Bench::new(SOON).await;
    for from in [0, 2, 4, 6, 8, 10, 12, 14] {
        bench.offer(from..from + 2).await;
    }
    bench.stores(0..16).await;
    assert_eq!(bench.store.inner().calls.concat(), (0..16).collect::<Vec<_>>(), "in order, none twice");
    assert_eq!(bench.counts(), TableCounts { offered: 16, stored: 16, duplicate: 0, poisoned: 0 });
    bench
        .publishes(|status| {
            status.waiting == 0
                && (status.store, status.reachable) == ("fake", true)
                && status.tables["collector_state_raw"].stored == 16
        })
        .await;
}

#[actix_rt::test]
async fn a_write_that_fails_is_tried_again_without_loss_or_doubling() {
    let script =
        [Next::Transient, Next::Unknown { stored: false }, Next::Unknown { stored: true }, Next::Transient];
    let bench = Bench::scripted(&script).await;
    bench.offer(0..3).await;
    bench.stores(0..3).await;
    assert_eq!(bench.store.inner().calls, vec![vec![0, 1, 2]; 5], "the same batch each time");
    assert_eq!(bench.counts(), TableCounts { offered: 3, stored: 0, duplicate: 3, poisoned: 0 });
    bench.publishes(|status| status.retries == 4 && status.reachable && status.last_error.is_none()).await;
}

#[actix_rt::test]
async fn ticks_that_were_missed_during_a_slow_write_begin_no_second_one() {
    let bench = Bench::scripted(&[Next::Slow, Next::Slow, Next::Slow]).await;
    for from in [0, 3, 6] {
        bench.offer(from..from + 3).await;
    }
    bench.stores(0..9).await;
    assert_eq!(bench.store.inner().calls.concat(), (0..9).collect::<Vec<_>>(), "none twice");
    assert_eq!(bench.counts(), TableCounts { offered: 9, stored: 9, duplicate: 0, poisoned: 0 });
}

#[actix_rt::test]
async fn a_store_that_is_away_shows_and_its_rows_wait() {
    let bench = Bench::new(SOON).await;
    bench.down(true);
    bench.offer(0..5).await;
    bench
        .publishes(|status| {
            !status.reachable
                && status.waiting == 5
                && status.oldest_ms > 0
                && status.last_error.as_deref() == Some("busy")
        })
        .await;
    let why = bench.world.control.actor(&bench.id).unwrap().why;
    assert_eq!(why, ["store: busy"]);
    bench.down(false);
    bench.stores(0..5).await;
    bench.publishes(|status| status.reachable && status.waiting == 0 && status.oldest_ms == 0).await;
}

#[actix_rt::test]
async fn poison_is_taken_out_and_the_rest_is_stored() {
    let poison = BTreeSet::from([1, 4]);
    let inner = Inner { poison, ..Inner::default() };
    let bench = Bench::with(World::real(), SOON, inner, patient).await;
    bench.offer(0..6).await;
    bench.stores([0, 2, 3, 5]).await;
    assert_eq!(bench.counts(), TableCounts { offered: 6, stored: 4, duplicate: 0, poisoned: 2 });

    bench.store.inner().script.push_back(Next::PoisonSomewhere);
    bench.offer(10..13).await;
    bench.offer(13..16).await;
    let over = || bench.counts().poisoned + bench.counts().stored == 12;
    assert!(eventually(LONG, over).await);
    assert!(bench.counts().stored >= 4 && bench.counts().poisoned >= 5, "{:?}", bench.counts());
    bench.offer(20..23).await;
    assert!(eventually(LONG, || bench.store.ids().contains(&22)).await, "it goes on");
}

#[actix_rt::test]
async fn a_writer_that_panics_again_and_again_loses_no_row() {
    let bench = Bench::new(SOON).await;
    for round in 0..6 {
        let from = round * 10;
        bench.down(true);
        bench.offer(from..from + 4).await;
        let tried = || bench.store.inner().calls.last().is_some_and(|ids| ids.contains(&from));
        assert!(eventually(LONG, tried).await, "a batch is under way");
        bench.offer(from + 4..from + 5).await;
        bench.world.control.inject(&bench.id, Inject::Panic).unwrap();
        bench.offer(from + 5..from + 10).await;
        bench.reaches(u64::try_from(round).unwrap() + 2).await;
        bench.down(false);
        bench.stores(0..from + 10).await;
    }
    assert_eq!(bench.counts(), TableCounts { offered: 60, stored: 60, duplicate: 0, poisoned: 0 });
    assert_eq!(bench.world.control.actor(&bench.id).unwrap().exits.panics, 6);
}

#[actix_rt::test]
async fn a_shutdown_writes_everything_first() {
    let inner = Inner { script: [Next::Transient, Next::Transient].into(), ..Inner::default() };
    let bench = Bench::with(World::real(), NEVER, inner, patient).await;
    bench.offer(0..5).await;
    assert!(eventually(LONG, || bench.waiting.lock().unwrap().rows() == 5).await);
    assert!(bench.store.inner().calls.is_empty(), "nothing is due");
    bench.offer(5..9).await;
    let report = bench.world.kernel.shutdown(LONG).await;
    assert_eq!((report.stopped, report.culprits.len()), (vec![bench.id.clone()], 0));
    assert_eq!(bench.store.ids(), (0..9).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn a_store_that_hangs_shows_and_loses_nothing() {
    let inner = Inner { script: [Next::Hang].into(), ..Inner::default() };
    let bench = Bench::with(World::new(MINUTE_US), SOON, inner, limits::writer).await;
    bench.offer(0..3).await;
    assert!(eventually(LONG, || bench.store.inner().calls.len() == 1).await);
    bench.publishes(|status| status.waiting == 3).await;
    bench.offer(3..4).await;
    bench.world.time.advance(WRITE_LIMIT - Duration::from_secs(1));
    let swept = || bench.world.control.health().supervisor.sweep_age_us == 0;
    assert!(eventually(LONG, swept).await);
    let actor = bench.world.control.actor(&bench.id).unwrap();
    assert_eq!((actor.generation, actor.progress.busy), (1, Some("write")), "it has its time");
    assert!(actor.progress.busy_us.unwrap() >= 119_000_000 && actor.inboxes[0].len == 1);

    // Past its limit the write is given up, and the next instance writes the same batch. The clock is turned slowly
    // enough for a healthy instance to be seen alive.
    let done = || {
        bench.world.time.advance(Duration::from_millis(100));
        bench.store.ids() == [0, 1, 2, 3]
    };
    assert!(eventually(LONG * 2, done).await, "{:?}", bench.store.ids());
    assert_eq!(bench.store.inner().calls[1], [0, 1, 2]);
    assert_eq!(bench.counts().stored, 4);
    assert!(bench.world.control.actor(&bench.id).unwrap().generation >= 2);
}

#[actix_rt::test]
async fn a_full_inbox_gives_batches_back_and_memory_stays_bounded() {
    let bench = Bench::new(SOON).await;
    bench.down(true);
    let mut accepted = 0;
    let filled = || {
        loop {
            match bench.out.offer(rows(accepted..accepted + 1)) {
                Ok(_) => accepted += 1,
                Err(error) => {
                    assert_eq!(error, SendError::Full(rows(accepted..accepted + 1)));
                    break;
                }
            }
        }
        bench.waiting.lock().unwrap().is_full() && bench.store.inner().calls.len() > 20
    };
    assert!(eventually(LONG, filled).await);
    let most = SOON.rows * (Table::ALL.len() + 1) + 2 * INBOX;
    assert!((accepted as usize) <= most, "{accepted} rows were taken, {most} are room enough");
    bench.down(false);
    bench.stores(0..accepted).await;
    assert_eq!(bench.counts().stored, accepted as u64);
}

#[actix_rt::test]
async fn old_rows_are_removed_again_and_again_and_a_failure_shows() {
    let world = World::real();
    let store = Arc::new(FakeStore::default());
    let of_actor = store.clone();
    let child = ChildSpec::builder("retention", Kind("retention"), move |life| {
        RetentionActor::new(life, of_actor.clone(), settings())
    });
    world.kernel.supervisor().spawn(patient(child).build()).await.unwrap();
    let status = || world.control.detail::<RetentionStatus>(&"retention".into()).map(|(_, status)| status);
    let two_rounds = || status().is_some_and(|s| s.rounds >= 2 && s.removed == s.rounds * EXPIRE_ROWS);
    assert!(eventually(LONG, two_rounds).await, "{:?}", status());
    store.inner().down = true;
    assert!(eventually(LONG, || status().is_some_and(|s| s.last_error.as_deref() == Some("away"))).await);
    store.inner().down = false;
    assert!(eventually(LONG, || status().is_some_and(|s| s.last_error.is_none())).await);
}

#[test]
fn a_pause_fits_its_cause() {
    let after =
        |seconds| WriteOutcome::Transient { retry_after: Duration::from_secs(seconds), error: String::new() };
    assert_eq!(pause(&after(1)), Some(Duration::from_secs(1)));
    assert_eq!(pause(&after(100)), Some(RETRY_LIMIT));
    assert_eq!(pause(&WriteOutcome::Fatal { error: String::new() }), Some(RETRY_LIMIT));
    assert_eq!(pause(&WriteOutcome::Committed { inserted: 1, duplicate: 0 }), None);
    assert_eq!(pause(&WriteOutcome::Poison { rows: Vec::new() }), None);
}
