//! Make before break: two instances of one slot, and every way in which that can end.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::*;

fn handover() -> RestartRequest {
    RestartRequest { mode: RestartMode::Handover, ..asked() }
}

fn names(operation: &Operation) -> Vec<&str> {
    operation.steps.iter().map(|step| step.name.as_str()).collect()
}

impl World {
    /// A child whose next instance takes over when it is told to.
    async fn patient(&self, id: &str) -> Child {
        self.child_made(id, Faulty::patient, |builder| builder.liveness(stall(60))).await
    }

    /// A handover under way: the next instance answers.
    async fn warming(&self, child: &Child) -> OperationId {
        let operation = self.control.restart(&child.id, handover()).unwrap();
        child.answers(self, 2).await;
        operation
    }

    /// As [`World::warming`], undone: the first instance answers and the operation failed.
    async fn is_rolled_back(&self, child: &Child, operation: &OperationId, why: &str) {
        let done = self.is_done(operation).await;
        assert_eq!((done.state, done.to_generation), (OperationState::Failed, Some(2)), "{done:#?}");
        assert!(done.error.as_ref().unwrap().contains(why), "{:?}", done.error);
        assert_eq!(names(&done).last(), Some(&"rollback"));
        child.answers(self, 1).await;
        assert_eq!((self.state(&child.id), child.actor.generation()), (State::Running, 1));
    }
}

impl Child {
    pub(super) async fn answers(&self, world: &World, generation: u64) {
        let end = tokio::time::Instant::now() + LONG;
        while self.actor.ask(Which, LONG).await != Ok(generation) {
            assert!(tokio::time::Instant::now() < end, "{:#?}", world.control.actor(&self.id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn noted_in_any_order(&self, numbers: std::ops::Range<u32>) {
        let wanted: Vec<_> = numbers.collect();
        let seen = || {
            let mut notes = self.notes.lock().unwrap().clone();
            notes.sort_unstable();
            notes == wanted
        };
        assert!(eventually(LONG, seen).await, "{:?}", self.notes.lock().unwrap());
    }
}

#[actix_rt::test]
async fn the_next_instance_takes_over_and_every_item_is_handled_once() {
    let world = World::new();
    let child = world.child("a").await;
    for round in 2..8 {
        let before = child.notes.lock().unwrap().len() as u32;
        let operation = world.control.restart(&child.id, handover()).unwrap();
        child.tell((before..before + 60).map(Item::Note));
        let done = world.is_done(&operation).await;
        child.noted_in_any_order(0..before + 60).await;
        assert_eq!((done.state, done.to_generation), (OperationState::Done, Some(round)), "{done:#?}");
        assert_eq!(names(&done), ["warm", "takeover", "drain"]);
        assert_eq!(done.effect, Some(json!({ "downtime_ms": 0 })));
    }
    let actor = world.control.actor(&child.id).unwrap();
    assert_eq!(
        (actor.generation, actor.exits.manual, actor.exits.restarts, actor.exits.normal),
        (7, 6, 6, 6)
    );
    let history = world.control.history(&child.id).unwrap();
    assert_eq!((history[1].cause.as_str(), history[1].by.as_str()), ("handover", "tester"));
    assert!(history[..6].iter().all(|record| record.exit.as_ref().unwrap().reason == ExitReason::Asked));
}

#[actix_rt::test]
async fn while_it_warms_the_next_one_is_asked_and_publishes_and_the_old_one_goes_on() {
    let world = World::new();
    let child = world.patient("a").await;
    child.tell([Item::Note(1)]);
    child.noted(&[1]).await;
    let operation = world.warming(&child).await;
    let actor = world.control.actor(&child.id).unwrap();
    assert_eq!((actor.state, actor.generation, actor.verdict), (State::Warming, 1, Verdict::Healthy));
    assert_eq!(
        world.restart(&child.id),
        Err(ControlError::OperationRunning { operation: Some(operation.clone()) })
    );
    child.tell([Item::Note(2)]);
    child.noted(&[1, 2]).await;
    assert_eq!(
        world.control.detail::<usize>(&child.id).map(|(_, seen)| *seen),
        Some(2),
        "the newest publishes"
    );
    child.tell([Item::TakeOver]);
    let done = world.is_done(&operation).await;
    assert_eq!(done.effect, Some(json!({ "downtime_ms": 0, "told": true })));
    assert_eq!((world.state(&child.id), child.actor.generation()), (State::Running, 2));
}

#[actix_rt::test]
async fn a_next_instance_that_dies_or_hangs_or_is_late_is_thrown_away() {
    let world = World::new();
    let late = RestartRequest { deadline: Some(Duration::from_millis(300)), ..handover() };
    let cases = [
        ("dies", Some(Item::Panic(3)), handover(), "ended before it took over: panicked"),
        ("hangs", Some(Item::HangInside), handover(), "no progress"),
        ("late", None, late, "not taken over within"),
    ];
    for (id, item, request, why) in cases {
        let child = world.child_made(id, Faulty::patient, |builder| builder.liveness(stall(2))).await;
        let operation = world.control.restart(&child.id, request).unwrap();
        if let Some(item) = item {
            child.answers(&world, 2).await;
            child.tell([item]);
        }
        world.is_rolled_back(&child, &operation, why).await;
        child.tell([Item::Note(1), Item::Note(2)]);
        child.noted(&[1, 2]).await;
        assert_eq!(
            world.control.detail::<usize>(&child.id).map(|(_, seen)| *seen),
            Some(2),
            "it publishes again"
        );
        let again = world.is_done(&world.restart(&child.id).unwrap()).await;
        assert_eq!(again.to_generation, Some(3), "numbers are never used again");
        assert_eq!((again.state, child.actor.generation()), (OperationState::Done, 3));
        child.answers(&world, 3).await;
    }
}

#[actix_rt::test]
async fn when_the_old_one_dies_the_next_one_is_current() {
    let world = World::new();
    let child = world.patient("a").await;
    let operation = world.warming(&child).await;
    world.control.inject(&child.id, Inject::Panic).unwrap();
    let done = world.is_done(&operation).await;
    assert_eq!((done.state, done.to_generation), (OperationState::Done, Some(2)));
    assert!(names(&done).contains(&"predecessor_ended"), "{done:#?}");
    world.reaches(&child.id, 2).await;
    child.tell([Item::Note(1)]);
    child.noted(&[1]).await;
    assert_eq!((child.actor.generation(), world.control.actor(&child.id).unwrap().exits.panics), (2, 1));
    child.tell([Item::TakeOver, Item::Note(2)]);
    child.noted(&[1, 2]).await;
}

#[actix_rt::test]
async fn when_both_die_the_policy_starts_another() {
    let world = World::new();
    let child = world.patient("a").await;
    let operation = world.warming(&child).await;
    world.control.inject(&child.id, Inject::Panic).unwrap();
    child.tell([Item::Panic(1), Item::Note(1)]);
    world.is_done(&operation).await;
    child.noted(&[1]).await;
    world.reaches(&child.id, 1).await;
    child.tell([Item::Note(2)]);
    child.noted(&[1, 2]).await;
    assert_eq!(world.control.actor(&child.id).unwrap().exits.panics, 2);
    assert_eq!(world.control.history(&child.id).unwrap().len(), 3);
}

#[actix_rt::test]
async fn a_supervisor_that_dies_in_the_middle_finds_the_handover() {
    let world = World::new();
    let child = world.patient("a").await;
    let operation = world.warming(&child).await;
    world.kernel.supervisor().0.crash.store(1, SeqCst);
    assert!(eventually(LONG, || world.control.health().supervisor.restarts == 1).await);
    assert_eq!((child.actor.ask(Which, LONG).await, world.state(&child.id)), (Ok(2), State::Warming));
    child.tell([Item::TakeOver]);
    let done = world.is_done(&operation).await;
    assert_eq!((done.state, names(&done)), (OperationState::Done, vec!["warm", "takeover", "drain"]));
    world.reaches(&child.id, 2).await;
}

#[actix_rt::test]
async fn a_solitary_actor_and_one_that_is_down_are_restarted_one_after_the_other() {
    let world = World::new();
    let alone = world.child_with("alone", ChildBuilder::solitary).await;
    let done = world.is_done(&world.control.restart(&alone.id, handover()).unwrap()).await;
    assert_eq!((done.state, names(&done)), (OperationState::Done, vec!["stop", "start"]));
    let paused = world.child("paused").await;
    world.is_done(&world.control.pause(&paused.id, "tester", "hold").unwrap()).await;
    let done = world.is_done(&world.control.restart(&paused.id, handover()).unwrap()).await;
    assert_eq!((done.state, names(&done)), (OperationState::Done, vec!["start"]));
    world.reaches(&paused.id, 2).await;
}

#[actix_rt::test]
async fn an_old_one_that_does_not_stop_is_ended_by_force() {
    let world = World::new();
    let grace = Duration::from_millis(200);
    let child = world.child_made("a", Faulty::stubborn, |builder| builder.stop_grace(grace)).await;
    let done = world.is_done(&world.control.restart(&child.id, handover()).unwrap()).await;
    assert_eq!((done.state, names(&done)), (OperationState::Done, vec!["warm", "takeover", "drain"]));
    assert!(!done.steps[2].ok, "it had to be killed");
    assert_eq!(world.last_reason(&child.id), "killed");
    child.answers(&world, 2).await;
}

#[actix_rt::test]
async fn a_shutdown_in_the_middle_ends_both() {
    let world = World::new();
    let child = world.patient("a").await;
    let operation = world.warming(&child).await;
    let report = world.kernel.shutdown(LONG).await;
    assert_eq!((report.stopped, report.culprits.len()), (vec![child.id.clone()], 0));
    let done = world.is_done(&operation).await;
    assert_eq!(done.error.as_deref(), Some("the actor is no longer wanted"));
    let history = world.control.history(&child.id).unwrap();
    assert!(history.iter().all(|record| record.exit.is_some()), "{history:#?}");
}
