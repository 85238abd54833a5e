//! What operators asked for that takes several steps: a restart of many shards, the resync of one book. Each is an
//! operation of the kernel with its own end.
//!
//! What is under way belongs to the slot: the next instance goes on with it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{ActorFutureExt, ActorStreamExt, AsyncContext, Context, fut::wrap_future, fut::wrap_stream};
use fathom_market::ids::InstrumentId;
use serde::Serialize;
use serde_json::json;

use crate::{
    book::{BookActor, BookDetail, Resync},
    directory::Directory,
    kernel::clock::micros,
    kernel::{
        ActorId, ActorRef, Control, ControlError, Fault, Inbox, Lifeline, OperationId, OperationState,
        RestartRequest, Service,
    },
    service_actor,
};

const TICK: Duration = Duration::from_millis(100);
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// A resync that has not come to its end after this long has failed.
const RESYNC_DEADLINE_US: i64 = 120_000_000;

/// A restart of many actors.
#[derive(Clone, Debug)]
pub struct RestartMany {
    /// The operation that lists the others.
    pub operation: OperationId,
    /// Who is restarted, in order.
    pub actors: Vec<ActorId>,
    /// How.
    pub request: RestartRequest,
    /// So many at a time.
    pub max_parallel: usize,
    /// Time between the beginnings of two.
    pub stagger: Duration,
    /// Goes on after one that failed.
    pub keep_going: bool,
}

/// The resync of one book.
#[derive(Clone)]
pub struct ResyncBook {
    /// The operation.
    pub operation: OperationId,
    /// The book.
    pub book: ActorRef<BookActor>,
    /// Its actor's id.
    pub actor: ActorId,
    /// Its instrument.
    pub instrument: InstrumentId,
}

/// Something to do.
pub enum Errand {
    /// A restart of many.
    Restart(RestartMany),
    /// A resync.
    Resync(ResyncBook),
}

/// What has become of one of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Child {
    target: ActorId,
    operation: Option<OperationId>,
    state: &'static str,
    error: Option<String>,
}

/// A restart of many on its way.
struct Batch {
    order: RestartMany,
    waiting: VecDeque<ActorId>,
    children: Vec<Child>,
    next_us: i64,
}

struct Resyncing {
    order: ResyncBook,
    since_us: i64,
}

enum UnderWay {
    Batch(Batch),
    Resync(Resyncing),
}

/// What every instance is made from.
#[derive(Clone)]
pub struct OperatorSpec {
    /// Errands.
    pub inbox: Inbox<Errand>,
    /// The kernel's commands.
    pub control: Control,
    /// Gaps that a resync opened.
    pub directory: Arc<Directory>,
    under_way: Arc<Mutex<Vec<UnderWay>>>,
}

impl OperatorSpec {
    /// Nothing is under way.
    pub fn new(inbox: Inbox<Errand>, control: Control, directory: Arc<Directory>) -> Self {
        Self { inbox, control, directory, under_way: Arc::default() }
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        // Each step leaves a consistent state, so a panic elsewhere leaves nothing half done.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The actor.
pub struct OperatorActor {
    life: Lifeline,
    spec: OperatorSpec,
}

service_actor!(OperatorActor);

impl OperatorActor {
    /// A fresh instance.
    pub const fn new(life: Lifeline, spec: OperatorSpec) -> Self {
        Self { life, spec }
    }

    fn begin(&mut self, errand: Errand, ctx: &mut Context<Self>) {
        let now_us = self.life.clock().now_us();
        match errand {
            Errand::Restart(order) => self.spec.under_way().push(UnderWay::Batch(Batch::new(order, now_us))),
            Errand::Resync(order) => {
                let (book, operation) = (order.book.clone(), order.operation.clone());
                self.spec.under_way().push(UnderWay::Resync(Resyncing { order, since_us: now_us }));
                let asking = async move { book.ask(Resync, ASK_DEADLINE).await };
                ctx.spawn(wrap_future::<_, Self>(asking).map(move |asked, actor, _| {
                    if let Err(error) = asked {
                        actor.spec.control.operation_log().finish(&operation, Err(error.to_string()));
                    }
                }));
            }
        }
    }

    fn tick(&mut self) {
        let now_us = self.life.clock().now_us();
        let spec = &self.spec;
        spec.under_way().retain_mut(|errand| match errand {
            UnderWay::Batch(batch) => batch.step(&spec.control, now_us),
            UnderWay::Resync(resync) => resync.step(&spec.control, &spec.directory, now_us),
        });
        Service::publish(self, self.spec.under_way().len());
    }
}

impl Batch {
    fn new(order: RestartMany, now_us: i64) -> Self {
        Self { waiting: order.actors.iter().cloned().collect(), children: Vec::new(), next_us: now_us, order }
    }

    /// Does what is due; false at the end.
    fn step(&mut self, control: &Control, now_us: i64) -> bool {
        for child in self.children.iter_mut().filter(|child| child.state == "running") {
            child.look(control);
        }
        while self.may_start(now_us) {
            let Some(target) = self.waiting.pop_front() else { break };
            self.start(target, control, now_us);
        }
        if self.is_given_up() {
            let skipped = self.waiting.drain(..);
            self.children.extend(skipped.map(|target| Child::new(target, None, "skipped")));
        }
        let operations = control.operation_log();
        let (id, waiting) = (&self.order.operation, self.waiting.len());
        operations.effect(id, json!({ "children": self.children, "waiting": waiting }));
        if waiting > 0 || self.count("running") > 0 {
            return true;
        }
        let failed = self.count("failed");
        let outcome = match failed {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} failed", self.order.actors.len())),
        };
        operations.finish(id, outcome);
        false
    }

    fn may_start(&self, now_us: i64) -> bool {
        !self.is_given_up()
            && self.count("running") < self.order.max_parallel.max(1)
            && now_us >= self.next_us
    }

    fn is_given_up(&self) -> bool {
        !self.order.keep_going && self.count("failed") > 0
    }

    fn start(&mut self, target: ActorId, control: &Control, now_us: i64) {
        match control.restart(&target, self.order.request.clone()) {
            Ok(operation) => {
                control.operation_log().step(&self.order.operation, target.as_str(), true);
                self.children.push(Child::new(target, Some(operation), "running"));
                self.next_us = now_us + micros(self.order.stagger);
            }
            Err(ControlError::TooMany { retry_after }) => {
                self.waiting.push_front(target);
                self.next_us = now_us + micros(retry_after);
            }
            Err(error) => {
                control.operation_log().step(&self.order.operation, target.as_str(), false);
                let child = Child::new(target, None, "failed");
                self.children.push(Child { error: Some(error.to_string()), ..child });
            }
        }
    }

    fn count(&self, state: &str) -> usize {
        self.children.iter().filter(|child| child.state == state).count()
    }
}

impl Child {
    const fn new(target: ActorId, operation: Option<OperationId>, state: &'static str) -> Self {
        Self { target, operation, state, error: None }
    }

    fn look(&mut self, control: &Control) {
        let operation = self.operation.as_ref().and_then(|id| control.operation(id));
        let (state, error) = match operation {
            None => ("failed", Some("the operation is no longer remembered".to_owned())),
            Some(operation) => match operation.state {
                OperationState::Done => ("done", None),
                OperationState::Failed => ("failed", operation.error),
                OperationState::Accepted | OperationState::Running => return,
            },
        };
        (self.state, self.error) = (state, error);
    }
}

impl Resyncing {
    /// Looks whether the book is live again; false at the end.
    fn step(&self, control: &Control, directory: &Directory, now_us: i64) -> bool {
        let operations = control.operation_log();
        let id = &self.order.operation;
        if operations.get(id).is_none_or(|operation| operation.finished_us.is_some()) {
            return false;
        }
        let detail = control.detail::<BookDetail>(&self.order.actor).map(|(_, detail)| detail);
        let live = detail
            .as_ref()
            .is_some_and(|detail| detail.book_state == "live" && detail.since_us >= self.since_us);
        let late = now_us - self.since_us > RESYNC_DEADLINE_US;
        if !live && !late {
            return true;
        }
        let gaps = directory.gaps().since(self.since_us, &[self.order.instrument]);
        operations.effect(
            id,
            json!({
                "gaps_opened": gaps.into_iter().map(|gap| gap.id).collect::<Vec<_>>(),
                "resynced_ms": (now_us - self.since_us) / 1000,
                "seq": detail.as_ref().and_then(|detail| detail.seq),
            }),
        );
        let state = detail.map_or("unknown", |detail| detail.book_state);
        operations.finish(id, if live { Ok(()) } else { Err(format!("the book is still {state}")) });
        false
    }
}

impl Service for OperatorActor {
    type Detail = usize;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let errands = self.spec.inbox.stream(&self.life);
        ctx.spawn(
            wrap_stream(errands).map(|errand, actor: &mut Self, ctx| actor.begin(errand, ctx)).finish(),
        );
        ctx.run_interval(TICK, |actor, _| actor.tick());
        Ok(())
    }
}
