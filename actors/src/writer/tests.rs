//! The writer under a real kernel, with a store that fails on command.

use std::collections::{BTreeMap, BTreeSet};

use fathom_market::table::{CollectorStateRow, TickerRow};
use fathom_storage::{Accounts as _, Retention};

pub(crate) use super::fake::FakeStore;
use super::fake::{Inner, Next};
use super::{pending::FlushRules, retention::EXPIRE_ROWS, rollup::BUCKETS, *};
use crate::{
    fixtures::{LONG, World, patient},
    kernel::{
        ActorId, ChildBuilder, ChildSpec, Inject, Kind, Overflow, Placement, State, inbox::bounded,
        testkit::eventually,
    },
    limits,
};

struct Bench {
    world: World,
    store: Arc<FakeStore>,
    out: RowSink,
    waiting: WaitingRows,
    directory: Arc<Directory>,
    id: ActorId,
}

/// Written at three rows, or soon.
const SOON: FlushRules = FlushRules { rows: 3, age: Duration::from_millis(20) };
const NEVER: FlushRules = FlushRules { rows: 100_000, age: Duration::from_secs(100_000) };
const INBOX: usize = 4;
const LIMITS: account::Limits = account::Limits { rows: 100, bytes: u64::MAX, policy: Policy::DEFAULT };
/// Long enough for several ticks, in which a hung write shows.
const DEADLINE: Duration = Duration::from_secs(2);

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
        let waiting = Arc::new(Mutex::new(Pending::new(flush, 1)));
        let account = Arc::new(Account::new(LIMITS));
        let directory: Arc<Directory> = Arc::default();
        let store = Arc::new(FakeStore(Mutex::new(inner)));
        let (inbox_of, store_of) = (inbox.clone(), store.clone());
        let spec = WriterSpec {
            inbox: inbox_of,
            waiting: waiting.clone(),
            account: account.clone(),
            store: store_of,
            directory: directory.clone(),
            settings: settings(),
        };
        let child =
            ChildSpec::builder("writer", Kind("writer"), move |life| WriterActor::new(life, spec.clone()))
                .placement(Placement::Dedicated)
                .stop_grace(LONG)
                .inbox(&inbox);
        world.kernel.supervisor().spawn(rules(child).build()).await.unwrap();
        let out = RowSink::new(out, account);
        Self { world, store, out, waiting, directory, id: "writer".into() }
    }

    /// Offers rows until they are taken.
    async fn offer(&self, ids: std::ops::Range<i64>) {
        let batch = rows(ids);
        self.out.account().made(batch.table(), batch.len() as u64, batch.bytes());
        let mut batch = Some(batch);
        let taken = eventually(LONG, || {
            let Err(back) = self.out.hand(batch.take().unwrap()) else { return true };
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

    /// Rows offered, stored, duplicate and in quarantine; both equations hold.
    fn counts(&self) -> [u64; 4] {
        let pending = self.waiting.lock().unwrap();
        let figures = status::figures(self.out.account(), &pending.by_table(), &self.store.accepted());
        let figures = &figures["collector_state_raw"];
        assert!(figures.offered_is_balanced() && figures.accepted_is_balanced(), "{figures:?}");
        [figures.offered, figures.stored, figures.duplicate, figures.quarantined]
    }

    /// Waits for the counts to be so.
    async fn counts_are(&self, wanted: [u64; 4]) {
        assert!(eventually(LONG, || self.counts() == wanted).await, "{:?} of {wanted:?}", self.counts());
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
    WriterSettings {
        inbox: INBOX,
        flush: SOON,
        limits: LIMITS,
        write_deadline: DEADLINE,
        hung_after: DEADLINE / 4,
        retention,
        retention_every: Duration::from_millis(1),
        rollup_every: Duration::from_millis(1),
    }
}

fn state(instrument_id: i64) -> CollectorStateRow {
    CollectorStateRow {
        instrument_id,
        timeframe: "1m".into(),
        last_timestamp_ms: 0,
        last_updated_us: 0,
        is_realtime: false,
    }
}

/// Of one instrument; the store tells them apart by nothing.
fn tick(event_us: i64) -> TickerRow {
    TickerRow {
        instrument_id: 1,
        event_us,
        last: None,
        bid: None,
        ask: None,
        open: None,
        high: None,
        low: None,
        volume: None,
        quote_volume: None,
        trades: None,
    }
}

fn rows(ids: std::ops::Range<i64>) -> Batch {
    Batch::of(ids.map(state))
}

#[actix_rt::test]
async fn every_row_is_written_once() {
    let bench = Bench::new(SOON).await;
    for from in [0, 2, 4, 6, 8, 10, 12, 14] {
        bench.offer(from..from + 2).await;
    }
    bench.stores(0..16).await;
    assert_eq!(bench.store.inner().calls.concat(), (0..16).collect::<Vec<_>>(), "in order, none twice");
    bench.counts_are([16, 16, 0, 0]).await;
    bench
        .publishes(|status| {
            status.waiting == 0
                && (status.store, status.reachable) == ("fake", true)
                && status.tables.get("collector_state_raw").is_some_and(|table| table.stored == 16)
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
    bench.counts_are([3, 3, 0, 0]).await;
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
    bench.counts_are([9, 9, 0, 0]).await;
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
    let shown = bench.directory.derived().accepted.subscribe("accepted", 100, Overflow::Fault).unwrap();
    bench.offer(0..6).await;
    bench.stores([0, 2, 3, 5]).await;
    bench.counts_are([6, 4, 0, 2]).await;
    let wanted = BTreeMap::from([(1, "row 1".to_owned()), (4, "row 4".to_owned())]);
    assert_eq!(bench.store.inner().quarantined, wanted);

    let (mut rows, mut aside) = (Vec::new(), Vec::new());
    while let Some(accepted) = shown.try_recv() {
        match accepted {
            derived::Accepted::Rows(batch) => rows.push(batch.len()),
            derived::Accepted::SetAside(table) => aside.push(table),
        }
    }
    assert_eq!(rows.iter().sum::<usize>(), 4, "{rows:?}");
    assert!(!aside.is_empty() && aside.iter().all(|table| *table == Table::CollectorState), "{aside:?}");

    // Which rows are to blame is not said: half by half they are found.
    bench.store.inner().script.extend([Next::PoisonSomewhere, Next::PoisonSomewhere]);
    bench.offer(10..13).await;
    bench.counts_are([9, 6, 0, 3]).await;

    bench.store.inner().no_room = true;
    bench.store.inner().poison = BTreeSet::from([21]);
    bench.offer(20..23).await;
    bench.stores([0, 2, 3, 5, 11, 12, 20, 22]).await;
    bench.counts_are([12, 8, 0, 3]).await;
    let side = bench.out.account().tables()[&Table::CollectorState];
    assert_eq!(side.offered.refused_for(Refusal::QuarantineFull), 1);
    let told = || bench.directory.gaps().open().len() == 1;
    assert!(eventually(LONG, told).await, "a refused row is a gap");
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
    bench.counts_are([60, 60, 0, 0]).await;
    assert_eq!(bench.world.control.actor(&bench.id).unwrap().exits.panics, 6);
}

#[actix_rt::test]
async fn a_shutdown_writes_everything_first() {
    let inner = Inner { script: [Next::Transient, Next::Fatal].into(), ..Inner::default() };
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
async fn a_store_that_hangs_shows_and_the_write_is_given_up_and_tried_again() {
    let inner = Inner { script: [Next::Hang].into(), ..Inner::default() };
    let bench = Bench::with(World::real(), SOON, inner, limits::writer).await;
    bench.offer(0..3).await;
    bench.publishes(|status| !status.reachable && status.writing_us.is_some() && status.waiting == 3).await;
    let why = bench.world.control.actor(&bench.id).unwrap().why;
    assert!(why.iter().any(|why| why.starts_with("store: no answer for")), "{why:?}");
    bench.offer(3..4).await;
    bench.stores(0..4).await;
    assert_eq!(bench.store.inner().calls[1], [0, 1, 2]);
    bench.counts_are([4, 4, 0, 0]).await;
    bench.publishes(|status| status.reachable && status.retries == 1 && status.last_error.is_none()).await;
    assert_eq!(bench.world.control.actor(&bench.id).unwrap().generation, 1, "no restart was needed");
}

#[actix_rt::test]
async fn overload_is_refused_by_the_policy_counted_and_in_the_ledger_and_passes() {
    let bench = Bench::new(SOON).await;
    bench.down(true);
    let account = bench.out.account().clone();
    let mut outbox = crate::book::outbox::Outbox::new(account.clone());
    let (mut ticks, mut states) = (0, 0);
    let full = || {
        for _ in 0..50 {
            outbox.push(tick(ticks));
            outbox.push(state(states));
            (ticks, states) = (ticks + 1, states + 1);
            outbox.send(|batch| bench.out.hand(batch));
        }
        let refused = account.tables()[&Table::CollectorState].offered.refused();
        refused > 0 && bench.store.inner().calls.len() > 3
    };
    assert!(eventually(LONG, full).await);
    let (load, tables) = (account.load(), account.tables());
    assert!(load.rows <= LIMITS.rows + 100, "{load:?}");
    let (tick_side, state_side) = (tables[&Table::Tickers], tables[&Table::CollectorState]);
    assert!(tick_side.offered.refused() > state_side.offered.refused(), "ticks go first");
    bench.publishes(|status| status.overload.refusing.contains(&"final") && !status.reachable).await;
    assert!(eventually(LONG, || !bench.directory.gaps().open().is_empty()).await);

    bench.down(false);
    let drained = || {
        outbox.send(|batch| bench.out.hand(batch));
        account.load().rows == 0
    };
    assert!(eventually(LONG, drained).await);
    drop(outbox);
    let refused = |gap: &Gap| gap.channel == "ticker" && gap.status == GapStatus::Lost;
    let closed = || bench.directory.gaps().closed().into_iter().find(refused);
    assert!(eventually(LONG, || closed().is_some()).await, "the gap ends with the overload");
    let (gap, lost) = (closed().unwrap(), tick_side.offered.refused());
    // Nothing was taken between the first and the last refused tick: ids tell how many there were.
    assert_eq!((gap.missing, gap.to_us), (Some(lost), Some(ticks - 1)));
    let ledger = || account.tables()[&Table::DataGaps].accepted >= 1;
    assert!(eventually(LONG, ledger).await, "the ledger is stored");
    let tables = account.tables();
    for table in [Table::Tickers, Table::CollectorState] {
        let side = tables[&table];
        assert_eq!(side.offered.offered, side.accepted + side.offered.refused(), "{table:?}");
    }
    bench.publishes(|status| status.reachable && status.overload.refusing.is_empty()).await;
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

#[actix_rt::test]
async fn buckets_are_rolled_up_until_none_is_left_and_a_failure_shows() {
    let world = World::real();
    let store = Arc::new(FakeStore::default());
    store.inner().dirty = 2 * BUCKETS + 7;
    let of_actor = store.clone();
    let child = ChildSpec::builder("rollup", Kind("rollup"), move |life| {
        RollupActor::new(life, of_actor.clone(), WriterSettings { rollup_every: LONG / 100, ..settings() })
    });
    world.kernel.supervisor().spawn(patient(child).build()).await.unwrap();
    let status = || world.control.detail::<RollupStatus>(&"rollup".into()).map(|(_, status)| status);
    let is = |what: fn(&RollupStatus) -> bool| eventually(LONG, move || status().is_some_and(|s| what(&s)));
    assert!(is(|s| s.buckets == 2 * BUCKETS + 7 && s.up_to_date_us.is_some()).await, "{:?}", status());
    store.inner().down = true;
    assert!(is(|s| s.last_error.as_deref() == Some("away")).await, "{:?}", status());
    store.inner().dirty = 1;
    store.inner().down = false;
    assert!(is(|s| s.last_error.is_none() && s.buckets == 2 * BUCKETS + 8).await, "{:?}", status());
}
