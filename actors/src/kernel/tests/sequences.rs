//! Whatever happens to a slot, in whatever order: one instance is the current one, no item that was not in hand is lost
//! or handled twice, and every operation ends.

use proptest::prelude::*;

use super::*;
use crate::kernel::cell::Role;
use crate::kernel::lifeline::locked;

#[derive(Clone, Copy, Debug)]
enum Act {
    Note,
    Panic,
    Fail,
    TakeOver,
    Restart(RestartMode),
    Pause,
    Resume,
    Quarantine,
    Lift,
    KillSupervisor,
    Wait,
}

fn act() -> impl proptest::strategy::Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Note),
        2 => Just(Act::Panic),
        1 => Just(Act::Fail),
        3 => Just(Act::TakeOver),
        4 => Just(Act::Restart(RestartMode::Handover)),
        1 => Just(Act::Restart(RestartMode::Graceful)),
        1 => Just(Act::Restart(RestartMode::Kill)),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::Quarantine),
        2 => Just(Act::Lift),
        1 => Just(Act::KillSupervisor),
        4 => Just(Act::Wait),
    ]
}

struct Run {
    world: World,
    child: Child,
    notes: u32,
    crashes: u32,
    operations: Vec<OperationId>,
}

impl Run {
    async fn new() -> Self {
        let config = KernelConfig { manual_burst: 1000, ..KernelConfig::default() };
        let world = World::with(config);
        let child = world.child_made("a", Faulty::patient, |builder| builder.liveness(stall(60))).await;
        Self { world, child, notes: 0, crashes: 0, operations: Vec::new() }
    }

    async fn act(&mut self, act: Act) {
        let (control, id) = (&self.world.control, &self.child.id);
        let begun = match act {
            Act::Note => {
                self.notes += 1;
                self.child.tell([Item::Note(self.notes)]);
                None
            }
            Act::Panic => {
                self.notes += 1;
                self.child.tell([Item::Panic(u64::from(self.notes)), Item::Note(self.notes)]);
                None
            }
            Act::Fail => {
                self.child.tell([Item::Fail]);
                None
            }
            Act::TakeOver => {
                self.child.tell([Item::TakeOver]);
                None
            }
            Act::Restart(mode) => {
                let deadline = Some(Duration::from_millis(300));
                control.restart(id, RestartRequest { mode, deadline, ..asked() }).ok()
            }
            Act::Pause => control.pause(id, "t", "").ok(),
            Act::Resume => control.resume(id, "t", "").ok(),
            Act::Quarantine => control.quarantine(id, "t", "").ok(),
            Act::Lift => control.lift(id, "t", "").ok(),
            Act::KillSupervisor => {
                if self.crashes < 3 {
                    self.crashes += 1;
                    self.world.kernel.supervisor().0.crash.store(1, SeqCst);
                }
                None
            }
            Act::Wait => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        };
        self.operations.extend(begun);
        self.check();
    }

    /// One current instance, newer than the one that leaves and older than the one that is to take over.
    fn check(&self) {
        let slot = self.world.kernel.supervisor().0.slot(&self.child.id).unwrap();
        let cell = locked(&slot.core().cell);
        assert!(cell.generation <= cell.newest);
        let (Some(live), Some(beside)) = (&cell.live, &cell.beside) else { return };
        assert_eq!(live.generation(), cell.generation);
        assert_ne!(live.generation(), beside.instance.generation());
        match beside.role {
            Role::Next { .. } => assert!(beside.instance.generation() > live.generation()),
            Role::Leaving(_) => assert!(!live.life.is_succeeded(), "nothing takes its items"),
        }
    }

    async fn ends_well(self) {
        for operation in &self.operations {
            self.world.is_done(operation).await;
        }
        for lifting in [true, false] {
            let (control, id) = (&self.world.control, &self.child.id);
            let begun = if lifting { control.lift(id, "t", "") } else { control.resume(id, "t", "") };
            self.world.is_done(&begun.unwrap()).await;
        }
        self.child.noted_in_any_order(1..self.notes + 1).await;
        self.world.is_in(&self.child.id, State::Running).await;
        self.check();
        let history = self.world.control.history(&self.child.id).unwrap();
        assert!(history.is_sorted_by(|a, b| a.generation < b.generation), "{history:#?}");
        // One that was thrown away is ended after its operation is over.
        let living = || {
            let history = self.world.control.history(&self.child.id).unwrap();
            history.iter().filter(|record| record.exit.is_none()).count()
        };
        assert!(
            eventually(LONG, || living() == 1).await,
            "{:#?}",
            self.world.control.history(&self.child.id)
        );
        self.world.kernel.shutdown(LONG).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_ends_well(acts in proptest::collection::vec(act(), 1..25)) {
        actix::System::new().block_on(async {
            let mut run = Run::new().await;
            for act in acts {
                run.act(act).await;
            }
            run.ends_well().await;
        });
    }
}
