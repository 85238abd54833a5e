//! Actors that are restarted, given up and let up again together.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;
use crate::kernel::cell::Call;
use crate::kernel::lifeline::locked;

/// An actor whose factory panics while it is told to.
struct Breakable {
    id: ActorId,
    broken: Arc<AtomicBool>,
}

impl Breakable {
    fn mend(&self) {
        self.broken.store(false, SeqCst);
    }
}

impl World {
    async fn breakable(
        &self,
        id: &str,
        set: impl FnOnce(ChildBuilder<Faulty>) -> ChildBuilder<Faulty>,
    ) -> Breakable {
        let broken = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&broken);
        let factory = move |life| {
            assert!(!told.load(SeqCst), "the factory is broken");
            Faulty::new(life, None, Notes::default())
        };
        let short = Duration::from_millis(20);
        let builder = ChildSpec::builder(id, KIND, factory)
            .limits(none())
            .breaker(BreakerSpec::try_new(short, short * 2).unwrap())
            .backoff(Backoff::try_new(short, short, 1, short * 5).unwrap());
        self.kernel.supervisor().spawn(set(builder).build()).await.unwrap();
        Breakable { id: id.into(), broken }
    }

    fn break_down(&self, actor: &Breakable) {
        actor.broken.store(true, SeqCst);
        self.control.inject(&actor.id, Inject::Panic).unwrap();
    }

    async fn members(&self, group: &'static str, strategy: Strategy) -> Vec<Child> {
        let mut members = Vec::new();
        for name in ["a", "b", "c"] {
            let id = format!("{group}/{name}");
            members.push(self.child_with(&id, |builder| builder.group(group, strategy)).await);
        }
        members
    }

    async fn generations(&self, members: &[Child], wanted: [u64; 3]) {
        for (child, generation) in members.iter().zip(wanted) {
            self.reaches(&child.id, generation).await;
        }
        let now: Vec<_> = members.iter().map(|child| child.actor.generation()).collect();
        assert_eq!(now, wanted);
    }

    fn started(&self, child: &Child) -> Micros {
        self.control.history(&child.id).unwrap().last().unwrap().started_us
    }
}

#[actix_rt::test]
async fn a_restart_by_policy_takes_the_members_of_the_group_with_it() {
    let world = World::new();
    for (group, strategy, wanted) in [
        ("one", Strategy::OneForOne, [1, 2, 1]),
        ("rest", Strategy::RestForOne, [1, 2, 2]),
        ("all", Strategy::OneForAll, [2, 2, 2]),
    ] {
        let members = world.members(group, strategy).await;
        members[1].tell([Item::Panic(1)]);
        world.generations(&members, wanted).await;
        assert_eq!(world.last_reason(&members[1].id), "panicked");
        let again: Vec<_> = members.iter().filter(|child| child.actor.generation() == 2).collect();
        assert!(again.is_sorted_by_key(|child| world.started(child)), "in the order of their first start");
        for child in again.iter().filter(|child| child.id != members[1].id) {
            let actor = world.control.actor(&child.id).unwrap();
            assert_eq!((actor.supervisor.used, actor.exits.restarts, actor.exits.manual), (0, 1, 0));
            assert_eq!(world.control.history(&child.id).unwrap()[1].cause, "its group");
        }
        for child in &members {
            child.tell([Item::Note(1)]);
            child.noted(&[1]).await;
        }
    }
}

#[actix_rt::test]
async fn an_operator_says_who_is_restarted_with_an_actor() {
    let world = World::new();
    let cascade = |cascade| RestartRequest { cascade, ..asked() };
    let members = world.members("all", Strategy::OneForAll).await;
    for (request, wanted) in [
        (cascade(Cascade::Self_), [1, 2, 1]),
        (cascade(Cascade::Rest), [1, 3, 2]),
        (cascade(Cascade::All), [2, 4, 3]),
    ] {
        let operation = world.control.restart(&members[1].id, request).unwrap();
        assert_eq!(world.is_done(&operation).await.state, OperationState::Done);
        world.generations(&members, wanted).await;
    }
    let alone = world.child("alone").await;
    let operation = world.control.restart(&alone.id, cascade(Cascade::All)).unwrap();
    assert_eq!(world.is_done(&operation).await.to_generation, Some(2));
}

#[actix_rt::test]
async fn a_crash_loop_ends_in_quarantine_and_a_probe_that_lives_lifts_it() {
    let world = World::new();
    let (actor, other) = (world.breakable("a", |b| b).await, world.child("other").await);
    world.break_down(&actor);
    world.is_in(&actor.id, State::Quarantined).await;
    let probed =
        || world.control.actor(&actor.id).unwrap().why.iter().any(|why| why.contains("2 have failed"));
    assert!(eventually(LONG, probed).await, "{:?}", world.control.actor(&actor.id).unwrap().why);
    let health = world.control.actor(&actor.id).unwrap();
    assert!(health.why[0].contains("openings of the breaker in a row"), "{:?}", health.why);
    assert_eq!(health.verdict, Verdict::Down);
    assert!(matches!(world.restart(&actor.id), Err(ControlError::Quarantined { .. })));
    assert!(matches!(world.control.resume(&actor.id, "t", ""), Err(ControlError::Quarantined { .. })));
    assert!(world.control.is_live());
    actor.mend();
    world.is_in(&actor.id, State::Running).await;
    let health = world.control.actor(&actor.id).unwrap();
    assert_eq!((health.supervisor.breaker, health.supervisor.used), (BreakerState::Closed, 0));
    assert_eq!(other.actor.generation(), 1);
}

#[actix_rt::test]
async fn a_parent_is_restarted_once_and_then_all_under_it_is_quarantined_until_a_probe_lives() {
    let world = World::new();
    let outside = world.child("outside").await;
    let parent = world.child("p").await;
    let sibling = world.child_with("p/s", |builder| builder.parent("p")).await;
    let below = world.child_with("p/s/b", |builder| builder.parent("p/s")).await;
    let culprit = world.breakable("p/c", |builder| builder.parent("p").escalate(Escalation::Family)).await;

    world.control.inject(&culprit.id, Inject::Panic).unwrap();
    for child in [&parent, &sibling, &below] {
        world.reaches(&child.id, 2).await;
        assert_eq!(world.control.history(&child.id).unwrap()[1].cause, "escalation");
    }
    world.reaches(&culprit.id, 2).await;
    // It lives for long enough to be called healthy, so that the next escalation is a first one again.
    let started = world.control.history(&culprit.id).unwrap()[1].started_us;
    let healthy = || world.clock().now_us() - started > 300_000;
    assert!(eventually(LONG, healthy).await);

    world.break_down(&culprit);
    for child in [&parent, &sibling, &below] {
        world.is_in(&child.id, State::Quarantined).await;
        assert_eq!(child.actor.generation(), 3, "restarted once more before");
        let why = &world.control.actor(&child.id).unwrap().why[0];
        assert!(why.contains("kept down together with p/c"), "{why}");
    }
    world.is_in(&culprit.id, State::Quarantined).await;
    assert_eq!((world.state(&outside.id), outside.actor.generation()), (State::Running, 1));
    assert!(world.control.is_live());
    culprit.mend();
    for id in [&culprit.id, &parent.id, &sibling.id, &below.id] {
        world.is_in(id, State::Running).await;
    }
}

#[actix_rt::test]
async fn a_child_that_is_given_up_alone_leaves_the_others_working() {
    let world = World::new();
    let parent = world.child("p").await;
    let sibling = world.child_with("p/s", |builder| builder.parent("p")).await;
    let culprit = world.breakable("p/c", |builder| builder.parent("p").escalate(Escalation::Parent)).await;
    world.break_down(&culprit);
    world.is_in(&culprit.id, State::Quarantined).await;
    for child in [&parent, &sibling] {
        world.reaches(&child.id, 2).await;
        assert_eq!(world.control.history(&child.id).unwrap()[1].cause, "escalation");
    }
    assert_eq!((parent.actor.generation(), sibling.actor.generation()), (2, 2), "once");
    culprit.mend();
    world.is_in(&culprit.id, State::Running).await;

    let top = world.breakable("top", |builder| builder.escalate(Escalation::Below)).await;
    let below = world.child_with("top/b", |builder| builder.parent("top")).await;
    world.break_down(&top);
    world.is_in(&top.id, State::Quarantined).await;
    world.reaches(&below.id, 2).await;
    assert_eq!(world.control.history(&below.id).unwrap()[1].cause, "escalation");
    assert_eq!(below.actor.generation(), 2, "what is below goes on");
}

impl World {
    /// A family that is kept down because of the last of it.
    async fn family_down(&self) -> (Child, Child, Breakable) {
        let parent = self.child("p").await;
        let group = |builder: ChildBuilder<Faulty>| builder.parent("p").group("g", Strategy::OneForOne);
        let sibling = self.child_with("p/s", group).await;
        let culprit = |builder: ChildBuilder<Faulty>| {
            let slow = Duration::from_secs(100);
            let breaker = BreakerSpec::try_new(Duration::from_millis(1), slow).unwrap();
            builder.parent("p").group("g", Strategy::OneForOne).escalate(Escalation::Family).breaker(breaker)
        };
        let culprit = self.breakable("p/c", culprit).await;
        self.break_down(&culprit);
        for id in [&culprit.id, &parent.id, &sibling.id] {
            self.is_in(id, State::Quarantined).await;
        }
        (parent, sibling, culprit)
    }
}

#[actix_rt::test]
async fn a_culprit_that_is_stopped_for_good_lets_up_those_who_were_kept_down() {
    let world = World::new();
    let (parent, sibling, culprit) = world.family_down().await;
    world.is_done(&world.control.stop(&culprit.id, "tester", "").unwrap()).await;
    for id in [&parent.id, &sibling.id] {
        world.is_in(id, State::Running).await;
    }
    assert_eq!(world.state(&culprit.id), State::Stopped);
}

#[actix_rt::test]
async fn a_forced_restart_with_others_lets_up_those_who_were_kept_down_too() {
    let world = World::new();
    let (parent, sibling, culprit) = world.family_down().await;
    culprit.mend();
    let forced = RestartRequest { force: true, cascade: Cascade::All, ..asked() };
    world.is_done(&world.control.restart(&culprit.id, forced).unwrap()).await;
    for id in [&culprit.id, &parent.id, &sibling.id] {
        world.is_in(id, State::Running).await;
    }
}

#[actix_rt::test]
async fn one_that_is_paused_before_its_group_is_called_can_be_resumed() {
    let world = World::new();
    let child = world.child_with("a", |builder| builder.group("g", Strategy::RestForOne)).await;
    world.is_done(&world.control.pause(&child.id, "tester", "").unwrap()).await;
    // As its end by policy leaves it when the pause comes before the group is called.
    let cell = || locked(&child.actor.core.cell);
    cell().gate = true;
    cell().call(Call::Group);
    child.actor.core.wake();
    assert!(eventually(LONG, || cell().calls.is_empty()).await);
    world.is_done(&world.control.resume(&child.id, "tester", "").unwrap()).await;
    world.reaches(&child.id, 2).await;
}

#[actix_rt::test]
async fn an_operator_quarantines_and_lifts_and_may_force_a_restart() {
    let world = World::new();
    let child = world.child("a").await;
    let hold = || world.control.quarantine(&child.id, "tester", "looks ill").unwrap();
    assert_eq!(world.is_done(&hold()).await.state, OperationState::Done);
    assert_eq!(world.state(&child.id), State::Quarantined);
    assert!(matches!(child.actor.ask(Seen, LONG).await, Err(AskError::Unavailable { .. })));
    let why = &world.control.actor(&child.id).unwrap().why[0];
    assert!(
        why.starts_with("looks ill; quarantined by tester for") && why.ends_with("until it is lifted"),
        "{why}"
    );
    assert_eq!(world.restart(&child.id), Err(ControlError::Quarantined { why: "looks ill".into() }));
    child.tell([Item::Note(1)]);
    world.is_done(&world.control.lift(&child.id, "tester", "well again").unwrap()).await;
    child.noted(&[1]).await;
    assert_eq!((world.state(&child.id), child.actor.generation()), (State::Running, 2));
    let nothing = world.control.lift(&child.id, "tester", "").unwrap();
    assert_eq!(world.is_done(&nothing).await.state, OperationState::Done);

    world.is_done(&hold()).await;
    let forced = RestartRequest { force: true, ..asked() };
    let operation = world.control.restart(&child.id, forced).unwrap();
    assert_eq!(world.is_done(&operation).await.to_generation, Some(3));
    assert_eq!(world.state(&child.id), State::Running);
}

#[actix_rt::test]
async fn everything_that_does_not_run_says_why_and_what_comes_next() {
    let world = World::new();
    let slow = Backoff::try_new(LONG, LONG, 1, LONG * 10).unwrap();
    let waiting = world.child_with("waiting", |builder| builder.backoff(slow)).await;
    let open = world.child_with("open", |builder| builder.limits(none())).await;
    let over = world.child_with("over", |builder| builder.restart(RestartPolicy::Temporary)).await;
    let (paused, stopped) = (world.child("paused").await, world.child("stopped").await);
    waiting.tell([Item::Panic(1), Item::Panic(2)]);
    open.tell([Item::Panic(1)]);
    over.tell([Item::Panic(1)]);
    world.is_done(&world.control.pause(&paused.id, "tester", "a look").unwrap()).await;
    world.is_done(&world.control.stop(&stopped.id, "tester", "").unwrap()).await;
    for (child, state, next) in [
        (&waiting, State::Backoff, "the next start is in "),
        (&open, State::Failed, "a probe starts in "),
        (&over, State::Stopped, "does not start it again"),
        (&paused, State::Paused, "by tester (a look), until it is resumed"),
    ] {
        world.is_in(&child.id, state).await;
        let why = world.control.actor(&child.id).unwrap().why;
        assert!(why.last().is_some_and(|line| line.contains(next)), "{state:?} {why:?}");
        assert!(state == State::Paused || why[0].contains("panic on"), "{why:?}");
    }
    assert!(world.control.actor(&stopped.id).unwrap().why.is_empty());
}

#[actix_rt::test]
async fn all_actors_of_a_stuck_thread_move_and_it_is_used_again_when_it_answers() {
    let world = World::new();
    let beside = |builder: ChildBuilder<Faulty>| {
        builder.placement(Placement::Beside("place".into())).liveness(stall(2))
    };
    let mut children = Vec::new();
    for n in 0..4 {
        children.push(world.child_with(&format!("beside/{n}"), beside).await);
    }
    let thread = |child: &Child| world.control.actor(&child.id).unwrap().arbiter.unwrap();
    let stuck = thread(&children[0]);
    children[0].tell([Item::Block(Duration::from_secs(8)), Item::Note(1)]);
    for child in &children[1..] {
        child.tell([Item::Note(1)]);
    }
    for child in &children {
        world.reaches(&child.id, 2).await;
        child.noted(&[1]).await;
        assert_ne!(thread(child), stuck);
        assert_eq!(thread(child), thread(&children[0]), "beside each other again");
    }
    let health = world.control.health();
    let shown = health.arbiters.iter().find(|arbiter| arbiter.id.0 == stuck).unwrap();
    assert!(shown.stuck && health.supervisor.quarantined_total == 1, "{shown:?}");
    let late = world.child("late").await;
    assert_ne!(thread(&late), stuck, "nothing is placed there");
    let free = || world.control.health().arbiters.iter().all(|arbiter| !arbiter.stuck);
    assert!(eventually(LONG, free).await);
    let mut placed = Vec::new();
    for n in 0..8 {
        placed.push(thread(&world.child(&format!("again/{n}")).await));
    }
    assert!(placed.contains(&stuck), "it is used again");
    assert!(children.iter().all(|child| child.actor.generation() == 2));
}

#[actix_rt::test]
async fn panics_of_a_few_among_a_thousand_are_mended_at_once() {
    let world = World::new();
    let mut children = Vec::new();
    for n in 0..1000 {
        let rules = |builder| crate::limits::book(builder).liveness(stall(60));
        let (out, inbox) = inbox::bounded("items", 64, Overflow::Fault, &world.clock());
        let notes = Notes::default();
        let kept = Arc::clone(&notes);
        let factory = move |life| Faulty::new(life, Some(inbox.clone()), Arc::clone(&kept));
        let spec = rules(ChildSpec::builder(format!("crowd/{n}"), KIND, factory)).build();
        let actor = world.kernel.supervisor().spawn_detached(spec).unwrap();
        children.push(Child { id: actor.id().clone(), out, notes, actor });
    }
    let up = || world.control.health().totals.get("running") == Some(&1000);
    assert!(eventually(LONG, up).await);
    let mut taken = Vec::new();
    for n in 0..200u32 {
        let child = &children[(n as usize * 7919) % 1000];
        let since = tokio::time::Instant::now();
        child.tell([Item::Panic(u64::from(n) + 1), Item::Note(n)]);
        child.answers(&world, 2).await;
        child.noted(&[n]).await;
        taken.push(since.elapsed());
    }
    taken.sort_unstable();
    eprintln!(
        "from panic to taking messages: p50 {:?}, p99 {:?}, max {:?}",
        taken[99], taken[197], taken[199]
    );
    assert!(taken[197] < Duration::from_secs(5), "{taken:?}");
    assert!(children.iter().all(|child| child.actor.generation() <= 2));
}
