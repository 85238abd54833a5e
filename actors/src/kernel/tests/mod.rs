//! The kernel as its users see it, with an actor that fails on command.

mod handover;
mod sequences;
mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use super::testkit::{Doze, Faulty, Item, Notes, Seen, Which, eventually};
use super::*;

const LONG: Duration = Duration::from_secs(30);
const KIND: Kind = Kind("faulty");

struct World {
    kernel: Kernel,
    control: Control,
}

/// One child with its inbox.
struct Child {
    id: ActorId,
    out: Outlet<Item>,
    notes: Notes,
    actor: ActorRef<Faulty>,
}

impl World {
    fn new() -> Self {
        Self::with(KernelConfig::default())
    }

    fn with(config: KernelConfig) -> Self {
        let kernel = Kernel::start(config).unwrap();
        Self { control: kernel.control(), kernel }
    }

    fn clock(&self) -> Clock {
        self.kernel.supervisor().0.clock.clone()
    }

    async fn child(&self, id: &str) -> Child {
        self.child_with(id, |builder| builder).await
    }

    async fn child_with(
        &self,
        id: &str,
        set: impl FnOnce(ChildBuilder<Faulty>) -> ChildBuilder<Faulty>,
    ) -> Child {
        self.child_made(id, |faulty| faulty, set).await
    }

    async fn child_made(
        &self,
        id: &str,
        made: impl Fn(Faulty) -> Faulty + Send + Sync + 'static,
        set: impl FnOnce(ChildBuilder<Faulty>) -> ChildBuilder<Faulty>,
    ) -> Child {
        let (out, inbox) = inbox::bounded("items", 64, Overflow::Fault, &self.clock());
        let notes = Notes::default();
        let (for_factory, kept) = (inbox.clone(), Arc::clone(&notes));
        let factory = move |life| made(Faulty::new(life, Some(for_factory.clone()), Arc::clone(&kept)));
        let builder = ChildSpec::builder(id, KIND, factory).inbox(&inbox).backoff(quick()).limits(many());
        let actor = self.kernel.supervisor().spawn(set(builder).build()).await.unwrap();
        Child { id: id.into(), out, notes, actor }
    }

    fn state(&self, id: &ActorId) -> State {
        self.control.actor(id).unwrap().state
    }

    async fn reaches(&self, id: &ActorId, generation: u64) {
        let there = || {
            let actor = self.control.actor(id).unwrap();
            actor.generation >= generation && actor.state == State::Running
        };
        assert!(eventually(LONG, there).await, "{:#?}", self.control.actor(id));
    }

    async fn is_in(&self, id: &ActorId, state: State) {
        assert!(eventually(LONG, || self.state(id) == state).await, "{:#?}", self.control.actor(id));
    }

    async fn is_done(&self, operation: &OperationId) -> Operation {
        let over = || self.control.operation(operation).unwrap().finished_us.is_some();
        assert!(eventually(LONG, over).await, "{:#?}", self.control.operation(operation));
        self.control.operation(operation).unwrap()
    }

    fn last_reason(&self, id: &ActorId) -> String {
        self.control
            .actor(id)
            .unwrap()
            .last_exit
            .map(|exit| exit.reason.word().to_owned())
            .unwrap_or_default()
    }

    fn restart(&self, id: &ActorId) -> Result<OperationId, ControlError> {
        self.control.restart(id, asked())
    }
}

impl Child {
    fn tell(&self, items: impl IntoIterator<Item = Item>) {
        items.into_iter().for_each(|item| assert_eq!(self.out.offer(item), Ok(Sent::Queued)));
    }

    async fn noted(&self, numbers: &[u32]) {
        let seen = || *self.notes.lock().unwrap() == numbers;
        assert!(eventually(LONG, seen).await, "{:?}", self.notes.lock().unwrap());
    }
}

fn asked() -> RestartRequest {
    RestartRequest { reason: "test".into(), requested_by: "tester".into(), ..RestartRequest::default() }
}

fn quick() -> Backoff {
    Backoff::try_new(Duration::from_millis(1), Duration::from_millis(5), 2, Duration::from_secs(60)).unwrap()
}

fn many() -> RestartLimits {
    RestartLimits::try_new(100, Duration::from_secs(60)).unwrap()
}

fn none() -> RestartLimits {
    RestartLimits::try_new(0, Duration::from_secs(60)).unwrap()
}

fn stall(seconds: u64) -> LivenessSpec {
    LivenessSpec::try_new(Duration::from_secs(seconds), None).unwrap()
}

#[actix_rt::test]
async fn a_panic_starts_the_next_generation_and_keeps_the_queue_in_order() {
    let world = World::new();
    let child = world.child("a").await;
    child.tell([
        Item::Note(1),
        Item::Panic(7),
        Item::Note(2),
        Item::PanicTwice,
        Item::Note(3),
        Item::Fail,
        Item::Note(4),
    ]);
    child.noted(&[1, 2, 3, 4]).await;
    world.reaches(&child.id, 4).await;
    assert_eq!(child.actor.ask(Seen, LONG).await, Ok(vec![1, 2, 3, 4]));
    assert_eq!(child.actor.generation(), 4);

    let history = world.control.history(&child.id).unwrap();
    let exits: Vec<_> =
        history.iter().filter_map(|g| g.exit.as_ref()).map(|exit| exit.reason.word()).collect();
    assert_eq!(exits, ["panicked", "panicked", "failed"]);
    let first = history[0].exit.as_ref().unwrap();
    assert_eq!(first.phase, Phase::Handling { op: "item", tag: Some(ItemTag(7)) });
    assert!(first.reason.to_string().contains("panic on 7 at "), "{}", first.reason);
    let actor = world.control.actor(&child.id).unwrap();
    assert_eq!((actor.exits.panics, actor.exits.errors, actor.exits.restarts), (2, 1, 3));
    assert_eq!(world.control.detail::<usize>(&child.id).map(|(_, seen)| *seen), Some(4));
}

#[actix_rt::test]
async fn an_item_that_panics_twice_is_refused_the_third_time() {
    let world = World::new();
    let child = world.child("a").await;
    child.tell([Item::Panic(9), Item::Panic(9), Item::Panic(9), Item::Note(1)]);
    child.noted(&[1]).await;
    assert_eq!(child.actor.generation(), 3);
    assert_eq!(world.control.actor(&child.id).unwrap().progress.refused_total, 1);
}

#[actix_rt::test]
async fn hangs_are_stalls_and_the_queue_goes_on() {
    let world = World::new();
    for (id, item) in [("await", Item::Hang), ("inside", Item::HangInside)] {
        let child = world.child_with(id, |builder| builder.liveness(stall(2))).await;
        child.tell([item]);
        world.reaches(&child.id, 2).await;
        assert_eq!(world.last_reason(&child.id), "stalled");
        child.tell([Item::Note(1)]);
        child.noted(&[1]).await;
    }
}

#[actix_rt::test]
async fn a_blocked_thread_is_replaced_and_takes_nothing_when_it_returns() {
    let world = World::new();
    let child = world.child_with("a", |builder| builder.liveness(stall(2))).await;
    let before = world.control.actor(&child.id).unwrap().arbiter;
    child.tell([Item::Block(Duration::from_secs(6)), Item::Note(1)]);
    child.noted(&[1]).await;
    world.reaches(&child.id, 2).await;
    assert_ne!(world.control.actor(&child.id).unwrap().arbiter, before);
    let stuck = || world.control.health().arbiters.iter().filter(|arbiter| arbiter.stuck).count();
    assert_eq!(stuck(), 1);
    assert!(eventually(LONG, || stuck() == 0).await, "the thread is used again when it answers");
    child.tell((2..20).map(Item::Note));
    child.noted(&(1..20).collect::<Vec<_>>()).await;
    assert_eq!(child.actor.generation(), 2);
}

#[actix_rt::test]
async fn a_start_on_a_stuck_thread_is_made_elsewhere() {
    let config = KernelConfig { pool: 1, ..KernelConfig::default() };
    let world = World::with(config);
    let blocker = world.child_with("blocker", |builder| builder.liveness(stall(60))).await;
    blocker.tell([Item::Block(Duration::from_secs(8))]);
    assert!(eventually(LONG, || world.control.actor(&blocker.id).unwrap().progress.busy.is_some()).await);
    let child = world.child("a").await;
    world.reaches(&child.id, 2).await;
    assert_eq!(child.actor.ask(Seen, LONG).await, Ok(vec![]));
    assert_eq!(world.control.health().supervisor.quarantined_total, 1);
}

#[actix_rt::test]
async fn the_death_of_a_thread_is_seen_and_its_actors_move() {
    let world = World::new();
    let beside = Placement::Beside("place".into());
    let (one, two) = (beside.clone(), beside);
    let children = [
        world.child_with("a", |b| b.placement(one)).await,
        world.child_with("b", |b| b.placement(two)).await,
    ];
    let places: Vec<_> =
        children.iter().map(|child| world.control.actor(&child.id).unwrap().arbiter).collect();
    assert_eq!(places[0], places[1], "placed beside each other");
    let arbiter = ArbiterId(places[0].unwrap());
    lifeline::locked(&world.kernel.supervisor().0.arbiters).handle(arbiter).unwrap().stop();
    for child in &children {
        world.reaches(&child.id, 2).await;
        assert_eq!(world.last_reason(&child.id), "arbiter_lost");
        child.tell([Item::Note(1)]);
        child.noted(&[1]).await;
    }
}

#[actix_rt::test]
async fn a_storm_of_a_thousand_children() {
    let world = World::new();
    let supervisor = world.kernel.supervisor();
    let starts = Arc::new(AtomicU32::new(0));
    for n in 0..1000 {
        let starts = Arc::clone(&starts);
        let factory = move |life: Lifeline| {
            starts.fetch_add(1, SeqCst);
            Faulty::new(life, None, Notes::default())
        };
        let spec =
            ChildSpec::builder(format!("storm/{n}"), KIND, factory).backoff(quick()).liveness(stall(60));
        supervisor.spawn_detached(spec.build()).unwrap();
    }
    let running = |generation| {
        let health = world.control.health();
        health.actors.iter().filter(|a| a.state == State::Running && a.generation >= generation).count()
    };
    assert!(eventually(LONG, || running(1) == 1000).await, "{:?}", world.control.health().totals);
    for n in 0..1000 {
        world.control.inject(&format!("storm/{n}").into(), Inject::Panic).unwrap();
    }
    assert!(eventually(LONG, || running(2) == 1000).await, "{:?}", world.control.health().totals);
    assert!(starts.load(SeqCst) >= 2000);
    let report = world.kernel.shutdown(LONG).await;
    assert_eq!((report.stopped.len(), report.culprits.len()), (1000, 0));
}

#[actix_rt::test]
async fn asks_have_a_deadline_and_a_bound_that_outlives_it() {
    let world = World::new();
    let child = world.child_with("a", |builder| builder.asks(2).liveness(stall(60))).await;
    let short = Duration::from_millis(50);
    assert_eq!(child.actor.ask(Doze(Duration::from_secs(3)), short).await, Err(AskError::Deadline));
    assert_eq!(child.actor.ask(Seen, short).await, Err(AskError::Deadline));
    assert_eq!(child.actor.ask(Seen, short).await, Err(AskError::Overloaded));
    let end = tokio::time::Instant::now() + LONG;
    while child.actor.ask(Seen, LONG).await != Ok(vec![]) {
        assert!(tokio::time::Instant::now() < end, "the permits come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn an_ask_says_why_there_is_no_answer() {
    let world = World::new();
    let slow = Backoff::try_new(LONG, LONG, 1, LONG).unwrap();
    let waiting = world.child_with("waiting", |builder| builder.backoff(slow)).await;
    let open = world.child_with("open", |builder| builder.limits(none())).await;
    let over = world.child_with("over", |builder| builder.restart(RestartPolicy::Temporary)).await;
    let done = world.child_with("done", |builder| builder.restart(RestartPolicy::Transient)).await;
    // The first restart after a healthy life is immediate, the second waits.
    waiting.tell([Item::Panic(1), Item::Panic(2)]);
    for child in [&open, &over] {
        child.tell([Item::Panic(1)]);
    }
    done.tell([Item::Finish]);
    world.is_in(&waiting.id, State::Backoff).await;
    world.is_in(&open.id, State::Failed).await;
    world.is_in(&over.id, State::Stopped).await;
    world.is_in(&done.id, State::Stopped).await;
    let answer = waiting.actor.ask(Seen, LONG).await;
    assert!(
        matches!(answer, Err(AskError::Restarting { retry_after }) if retry_after > Duration::from_secs(5))
    );
    assert!(matches!(open.actor.ask(Seen, LONG).await, Err(AskError::Unavailable { .. })));
    assert_eq!(over.actor.ask(Seen, LONG).await, Err(AskError::Stopped));
    let health = world.control.health();
    assert_eq!(health.verdict, Verdict::Down);
    assert_eq!(world.control.actor(&over.id).unwrap().verdict, Verdict::Down, "it died and stays dead");
    assert_eq!(world.control.actor(&done.id).unwrap().verdict, Verdict::Healthy, "it had finished");
    assert!(
        health.why.iter().any(|why| why.starts_with("open is failed: panicked: panic on 1")),
        "{:?}",
        health.why
    );

    world.control.reset_breaker(&open.id, "tester", "try").unwrap();
    world.reaches(&open.id, 2).await;
    assert_eq!(world.control.actor(&open.id).unwrap().supervisor.breaker, BreakerState::Closed);
    assert_eq!(world.is_done(&world.restart(&waiting.id).unwrap()).await.state, OperationState::Done);
    assert_eq!(world.is_done(&world.restart(&over.id).unwrap()).await.to_generation, Some(2));
}

#[actix_rt::test]
async fn an_open_breaker_probes_for_ever_and_closes_when_the_probe_lives() {
    let world = World::new();
    let broken = Arc::new(AtomicU32::new(4));
    let left = Arc::clone(&broken);
    let factory = move |life| {
        assert!(left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_err(), "factory is told to panic");
        Faulty::new(life, None, Notes::default())
    };
    let breaker = BreakerSpec::try_new(Duration::from_millis(20), Duration::from_millis(50)).unwrap();
    let healthy = Duration::from_millis(50);
    let backoff = Backoff::try_new(healthy, healthy, 1, healthy).unwrap();
    let spec =
        ChildSpec::builder("a", KIND, factory).limits(none()).breaker(breaker).backoff(backoff).build();
    world.kernel.supervisor().spawn(spec).await.unwrap();
    let id = ActorId::from("a");
    world.reaches(&id, 5).await;
    assert!(
        world.control.actor(&id).unwrap().last_exit.unwrap().reason.to_string().contains("told to panic")
    );
    let closed = || world.control.actor(&id).unwrap().supervisor.breaker == BreakerState::Closed;
    assert!(eventually(LONG, closed).await);
}

#[actix_rt::test]
async fn an_operator_restarts_one_actor_in_this_process() {
    let config = KernelConfig { manual_burst: 3, manual_every: LONG * 100, ..KernelConfig::default() };
    let world = World::with(config);
    let (child, other) = (world.child("a").await, world.child("b").await);
    let stubborn = |life: Lifeline| Faulty::new(life, None, Notes::default()).stubborn();
    let spec = ChildSpec::builder("slow", KIND, stubborn).stop_grace(LONG * 10).build();
    world.kernel.supervisor().spawn(spec).await.unwrap();
    child.tell([Item::Note(1)]);
    child.noted(&[1]).await;
    let pid = std::process::id();

    let operation =
        world.control.restart(&child.id, RestartRequest { if_generation: Some(1), ..asked() }).unwrap();
    let done = world.is_done(&operation).await;
    assert_eq!(
        (done.state, done.from_generation, done.to_generation),
        (OperationState::Done, Some(1), Some(2))
    );
    assert_eq!(done.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["stop", "start"]);
    assert!(done.effect.unwrap()["downtime_ms"].is_u64());
    assert_eq!((std::process::id(), child.actor.generation(), other.actor.generation()), (pid, 2, 1));
    child.tell([Item::Note(2)]);
    child.noted(&[1, 2]).await;
    let actor = world.control.actor(&child.id).unwrap();
    assert_eq!(
        (actor.exits.manual, actor.exits.normal, actor.supervisor.used, actor.supervisor.attempt),
        (1, 1, 0, 0)
    );
    assert_eq!(world.control.history(&child.id).unwrap()[1].by, "tester");

    let stale = world.control.restart(&child.id, RestartRequest { if_generation: Some(1), ..asked() });
    assert_eq!(stale, Err(ControlError::GenerationMismatch { current: 2 }));
    assert_eq!(world.restart(&"nobody".into()), Err(ControlError::NotFound("nobody".into())));
    let slow = ActorId::from("slow");
    let waiting = world.restart(&slow).unwrap();
    assert_eq!(world.restart(&slow), Err(ControlError::OperationRunning { operation: Some(waiting) }));
    let killed =
        world.control.restart(&other.id, RestartRequest { mode: RestartMode::Kill, ..asked() }).unwrap();
    assert_eq!(world.is_done(&killed).await.state, OperationState::Done);
    assert_eq!(world.last_reason(&other.id), "killed");
    assert!(
        matches!(world.restart(&child.id), Err(ControlError::TooMany { retry_after }) if !retry_after.is_zero())
    );
}

#[actix_rt::test]
async fn pause_keeps_the_queue_and_resume_goes_on_and_stop_frees_the_name() {
    let world = World::new();
    let child = world.child("a").await;
    world.is_done(&world.control.pause(&child.id, "tester", "hold").unwrap()).await;
    assert_eq!(world.state(&child.id), State::Paused);
    child.tell([Item::Note(1), Item::Note(2)]);
    assert_eq!(world.control.inboxes(&child.id).unwrap()[0].len, 2);
    assert!(matches!(child.actor.ask(Seen, LONG).await, Err(AskError::Unavailable { .. })));
    world.is_done(&world.control.resume(&child.id, "tester", "go").unwrap()).await;
    child.noted(&[1, 2]).await;
    world.is_done(&world.control.stop(&child.id, "tester", "over").unwrap()).await;
    assert_eq!(world.state(&child.id), State::Stopped);
    let again = world.child("a").await;
    assert_eq!(again.actor.generation(), 3, "generations go on");
    let spec = ChildSpec::builder("a", KIND, |life| Faulty::new(life, None, Notes::default())).build();
    assert_eq!(world.kernel.supervisor().spawn(spec).await.err(), Some(SpawnError::Exists("a".into())));
}

#[actix_rt::test]
async fn shutdown_stops_in_reverse_order_and_names_who_blocks_it() {
    let world = World::new();
    let supervisor = world.kernel.supervisor();
    for (id, kind, stubborn) in
        [("last", "x", false), ("stuck", "y", true), ("second", "x", false), ("first", "z", false)]
    {
        let factory = move |life: Lifeline| {
            let actor = Faulty::new(life, None, Notes::default());
            if stubborn { actor.stubborn() } else { actor }
        };
        let spec = ChildSpec::builder(id, Kind(kind), factory).stop_grace(Duration::from_secs(2)).build();
        supervisor.spawn(spec).await.unwrap();
    }
    let report = world.kernel.shutdown(LONG).await;
    assert_eq!(report.stopped.iter().map(ActorId::as_str).collect::<Vec<_>>(), ["first", "second", "last"]);
    assert_eq!(report.culprits.iter().map(|culprit| culprit.id.as_str()).collect::<Vec<_>>(), ["stuck"]);
    assert_eq!(report.culprits[0].phase, "stopping");
    assert!(report.elapsed_ms < 30_000, "{report:?}");
    let spec = ChildSpec::builder("late", KIND, |life| Faulty::new(life, None, Notes::default())).build();
    assert_eq!(supervisor.spawn(spec).await.err(), Some(SpawnError::ShuttingDown));
    assert!(tokio::time::timeout(LONG, world.kernel.lost()).await.is_ok(), "the guardian ends with its work");
}

#[actix_rt::test]
async fn health_answers_while_every_actor_hangs() {
    let world = World::new();
    let mut children = Vec::new();
    for n in 0..20 {
        let child = world.child_with(&n.to_string(), |builder| builder.liveness(stall(60))).await;
        let item = if n < 2 { Item::Block(Duration::from_secs(5)) } else { Item::Hang };
        children.push((child, item));
    }
    children.iter().rev().for_each(|(child, item)| child.tell([*item]));
    let (first, _) = &children[0];
    let blocked = || world.control.actor(&first.id).unwrap().progress.busy == Some("item");
    assert!(eventually(LONG, blocked).await);
    let begin = tokio::time::Instant::now();
    for _ in 0..100 {
        let report = world.control.health();
        assert_eq!(report.actors.len(), 20);
        assert!(serde_json::to_string(&report).unwrap().contains("\"state\":\"running\""));
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(world.control.is_live());
}

#[actix_rt::test]
async fn a_supervisor_that_dies_is_replaced_and_adopts_what_runs() {
    let world = World::new();
    let child = world.child("a").await;
    world.kernel.supervisor().0.crash.store(1, SeqCst);
    assert!(eventually(LONG, || world.control.health().supervisor.restarts == 1).await);
    assert_eq!(child.actor.ask(Seen, LONG).await, Ok(vec![]));
    assert_eq!(child.actor.generation(), 1, "the child lives on");
    child.tell([Item::Panic(1), Item::Note(1)]);
    child.noted(&[1]).await;
    world.reaches(&child.id, 2).await;
}

#[actix_rt::test]
async fn the_guardian_gives_up_in_the_end() {
    let world = World::new();
    world.kernel.supervisor().0.crash.store(u32::MAX, SeqCst);
    assert!(tokio::time::timeout(LONG, world.kernel.lost()).await.is_ok());
    assert_eq!(world.control.health().supervisor.restarts, 5);
}

#[actix_rt::test]
async fn every_injected_fault_is_recovered_from() {
    let world = World::new();
    let child = world.child_with("a", |builder| builder.liveness(stall(2))).await;
    let block = Inject::BlockThread { ms: 5_000 };
    let faults = [
        (Inject::Panic, "panicked"),
        (Inject::Fail, "failed"),
        (Inject::Hang, "stalled"),
        (block, "stalled"),
    ];
    for (generation, (fault, reason)) in (2..).zip(faults) {
        world.control.inject(&child.id, fault).unwrap();
        world.reaches(&child.id, generation).await;
        assert_eq!(world.last_reason(&child.id), reason);
        assert_eq!(child.actor.ask(Seen, LONG).await, Ok(vec![]));
    }
}

#[actix_rt::test]
async fn degraded_and_out_of_date_are_shown_and_never_kill() {
    let world = World::new();
    let fresh = LivenessSpec::try_new(LONG * 10, Some(Duration::from_millis(1))).unwrap();
    let child = world.child_with("a", |builder| builder.liveness(fresh).required(false).parent("root")).await;
    world.is_in(&child.id, State::Degraded).await;
    let health = world.control.health();
    assert_eq!((health.verdict, health.actors[0].generation), (Verdict::Degraded, 1));
    assert!(health.actors[0].why[0].starts_with("nothing useful for"), "{:?}", health.actors[0].why);
    assert_eq!(health.actors[0].parent, Some("root".into()));
}

#[test]
fn the_handles_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Control>();
    shared::<Supervisor>();
    shared::<ActorRef<Faulty>>();
    shared::<Lifeline>();
    assert_eq!(Kernel::start(KernelConfig::default()).err(), Some(NoSystem));
}
