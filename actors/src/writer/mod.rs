//! The one writer: rows in, batches to where they are accepted. What waits is kept outside the actor, so a panic loses none
//! of it.
//!
//! While more waits than [`Pending::is_full`] allows, nothing is read from the inbox: it fills, whoever offers rows is told
//! so, and beyond the account's bounds the declared policy says whose rows are refused.

pub mod account;
pub mod drain;
#[cfg(test)]
mod fake;
pub mod pending;
pub mod refusals;
mod retention;
mod rollup;
pub mod sink;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use actix::{
    ActorContext, ActorFutureExt, ActorStreamExt, AsyncContext, Context,
    fut::{wrap_future, wrap_stream},
};
use fathom_market::{
    batch::Batch,
    gap::{Gap, GapStatus},
    table::Table,
};
use fathom_storage::{Offered, PoisonRow, Policy, Refusal, Sink, WriteOutcome, policy::fill};
use futures_util::{StreamExt, stream};

use self::{
    account::Account,
    pending::{Pending, Ticket, Work},
    status::{Overload, SpoolView},
};
pub use self::{
    retention::{RetentionActor, RetentionStatus},
    rollup::{RollupActor, RollupStatus},
    sink::RowSink,
    status::{TableFigures, WriterStatus},
};
use crate::{
    derived,
    directory::Directory,
    kernel::{Fault, Inbox, Lifeline, Service, clock::micros},
    service_actor,
    settings::WriterSettings,
};

const TICK: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
const AFTER_LOSS: Duration = Duration::from_millis(200);
const INBOX_BATCHES: usize = 64;
/// What the kernel grants beyond the deadline of a write before it takes the instance for stuck.
const GRACE: Duration = Duration::from_secs(10);
/// How often the gaps of refused rows are looked at, in ticks.
const GAP_TICKS: u32 = 10;
/// Rows of the gap ledger that may wait; beyond it gaps are on the board alone.
const MAX_GAP_ROWS: u64 = 50_000;
/// Ticks for which less is refused before that is said.
const CALM_TICKS: u32 = 50;

/// What outlives the writer's instances.
pub type WaitingRows = Arc<Mutex<Pending>>;

/// What every instance is made from.
#[derive(Clone)]
pub struct WriterSpec {
    /// Rows offered.
    pub inbox: Inbox<Batch>,
    /// Rows that wait.
    pub waiting: WaitingRows,
    /// What becomes of them.
    pub account: Arc<Account>,
    /// Where they go.
    pub store: Arc<dyn Sink>,
    /// Where the gaps of refused rows are shown.
    pub directory: Arc<Directory>,
    /// Settings.
    pub settings: WriterSettings,
}

/// The writer's actor.
pub struct WriterActor {
    life: Lifeline,
    spec: WriterSpec,
    status: WriterStatus,
    draining: bool,
    /// Since when a write is under way.
    writing: Option<i64>,
    /// The wait before the next attempt is not over.
    resting: bool,
    ticks: u32,
    /// The step of the policy that was said last, and for how many ticks less has been refused.
    said: (u8, u32),
}

service_actor!(WriterActor);

/// How a piece of work ended.
enum Done {
    Accepted,
    /// Accepted into the quarantine.
    SetAside,
    /// The quarantine has no room.
    NoRoom,
    Poison(Vec<PoisonRow>),
    Failed(Duration, String),
}

impl WriterActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: WriterSpec) -> Self {
        let status =
            WriterStatus { store: spec.store.status().kind, reachable: true, ..WriterStatus::default() };
        Self { life, spec, status, draining: false, writing: None, resting: false, ticks: 0, said: (0, 0) }
    }

    fn waiting(&self) -> MutexGuard<'_, Pending> {
        locked(&self.spec.waiting)
    }

    fn now_us(&self) -> i64 {
        self.life.clock().now_us()
    }

    fn take(&mut self, batches: Vec<Batch>, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let mut due = false;
        {
            let mut waiting = self.waiting();
            for batch in batches {
                self.spec.account.taken(&batch);
                due |= waiting.add(batch, now_us);
            }
        }
        if due {
            self.write_next(ctx);
        }
    }

    /// Writes what is due next. One write at a time; its outcome looks for another.
    fn write_next(&mut self, ctx: &mut Context<Self>) {
        if self.writing.is_some() || self.resting {
            return;
        }
        let now_us = self.now_us();
        let work = self.waiting().next(now_us, self.draining);
        let Some(work) = work else {
            if self.draining {
                self.finish(ctx);
            }
            return;
        };
        self.writing = Some(now_us);
        let (ticket, store, offered) = (work.ticket(), self.spec.store.clone(), self.spec.account.unsaved());
        let deadline = self.spec.settings.write_deadline;
        let zone = (self.life.protect(deadline + GRACE), self.life.enter("write"));
        let writing = async move {
            let done = tokio::time::timeout(deadline, perform(&*store, &work, &offered, now_us)).await;
            drop(zone);
            let overdue = || Done::Failed(AFTER_LOSS, format!("no answer within {deadline:?}"));
            (done.unwrap_or_else(|_| overdue()), offered)
        };
        let written = wrap_future::<_, Self>(writing)
            .map(move |(done, offered), actor, ctx| actor.written(done, ticket, &offered, ctx));
        ctx.spawn(written);
    }

    fn written(&mut self, done: Done, ticket: Ticket, offered: &[(Table, Offered)], ctx: &mut Context<Self>) {
        if let Some(since_us) = self.writing.take() {
            self.status.last_write_us = self.now_us() - since_us;
        }
        match done {
            Done::Accepted | Done::SetAside => {
                self.accepted(ticket, matches!(done, Done::SetAside));
                self.spec.account.saved(offered);
            }
            Done::NoRoom => self.no_room(ticket),
            Done::Poison(rows) => {
                tracing::warn!(named = rows.len(), "the store refuses rows; they are taken out");
                self.waiting().poison(ticket, &rows);
            }
            Done::Failed(after, error) => return self.failed(after, error, ctx),
        }
        self.status.failures_in_a_row = 0;
        self.status.last_error = None;
        self.status.reachable = true;
        self.write_next(ctx);
    }

    fn accepted(&mut self, ticket: Ticket, aside: bool) {
        // Both under the lock of what waits, so that a reader finds no row twice or nowhere.
        let mut waiting = self.waiting();
        let settled = waiting.settle(ticket);
        if let Some(batch) = &settled {
            self.spec.account.accepted(batch);
        }
        drop(waiting);
        self.status.batches += 1;
        let Some(batch) = settled else { return };
        self.spec.directory.derived().accepted.publish(|| match aside {
            true => derived::Accepted::SetAside(batch.table()),
            false => derived::Accepted::Rows(batch),
        });
    }

    fn no_room(&mut self, ticket: Ticket) {
        let mut waiting = self.waiting();
        let Some(batch) = waiting.settle(ticket) else { return };
        self.spec.account.refuse_taken(&batch, Refusal::QuarantineFull);
        tracing::error!(
            table = batch.schema().name,
            rows = batch.len(),
            "poison is refused: the quarantine is full"
        );
    }

    fn failed(&mut self, after: Duration, error: String, ctx: &mut Context<Self>) {
        tracing::warn!(error, waiting = self.waiting().rows(), "write failed and is tried again");
        self.status.retries += 1;
        self.status.failures_in_a_row += 1;
        self.status.reachable = false;
        self.status.last_error = Some(error);
        self.resting = true;
        ctx.run_later(after.min(RETRY_LIMIT), |actor, ctx| {
            actor.resting = false;
            actor.write_next(ctx);
        });
        self.publish();
    }

    /// Nothing waits any more: what was refused since is persisted, then the actor stops.
    fn finish(&mut self, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        if self.tell_gaps(now_us, true) {
            return self.write_next(ctx);
        }
        let (offered, store) = (self.spec.account.unsaved(), self.spec.store.clone());
        if offered.is_empty() {
            return ctx.stop();
        }
        self.writing = Some(now_us);
        let deadline = self.spec.settings.write_deadline;
        let recording = async move {
            let recorded = tokio::time::timeout(deadline, store.accounts().record(&offered)).await;
            if !matches!(recorded, Ok(Ok(()))) {
                tracing::warn!("the last figures could not be persisted");
            }
        };
        ctx.spawn(wrap_future::<_, Self>(recording).map(|(), _, ctx| ctx.stop()));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.ticks = self.ticks.wrapping_add(1);
        let now_us = self.now_us();
        if let Some(spool) = self.spec.store.accounts().spool() {
            self.spec.account.spool_is(fill(spool.bytes, spool.limit));
        }
        if self.ticks.is_multiple_of(GAP_TICKS) {
            self.tell_gaps(now_us, false);
        }
        self.say_step();
        self.write_next(ctx);
        self.publish();
    }

    /// Enters the gaps of refused rows. True when rows of the ledger wait for it.
    fn tell_gaps(&mut self, now_us: i64, all: bool) -> bool {
        let gaps = self.spec.account.refusals(|refusals| refusals.collect(now_us, all));
        if gaps.is_empty() {
            return false;
        }
        // A row that is written while the refusing lasts says already what will be so for ever.
        let rows = Batch::of(gaps.iter().map(|gap| Gap { status: GapStatus::Lost, ..gap.clone() }.row()));
        gaps.into_iter().for_each(|gap| self.spec.directory.gaps().put(gap));
        let mut waiting = self.waiting();
        if waiting.by_table().get(&Table::DataGaps).copied().unwrap_or(0) >= MAX_GAP_ROWS {
            return false;
        }
        self.spec.account.made(rows.table(), rows.len() as u64, rows.bytes());
        self.spec.account.taken(&rows);
        waiting.add(rows, now_us);
        true
    }

    /// Says when more is refused than before, and when that is over.
    fn say_step(&mut self) {
        let load = self.spec.account.load();
        let (said, calm) = self.said;
        if load.step > said {
            let refusing = Policy::refused(load.step).join(", ");
            let policy = &self.spec.account.limits().policy;
            let next = fathom_storage::Class::REFUSABLE.get(usize::from(load.step));
            let next =
                next.and_then(|class| Some(format!("{} from {}", class.as_str(), policy.threshold(*class)?)));
            tracing::warn!(
                refusing,
                memory_permille = load.memory,
                spool_permille = load.spool,
                next = next.unwrap_or_else(|| "nothing is left".to_owned()),
                "too much waits for the store: rows are refused, counted and entered in the gap ledger"
            );
            self.said = (load.step, 0);
        } else if load.step == said {
            self.said.1 = 0;
        } else if calm < CALM_TICKS {
            self.said.1 += 1;
        } else {
            tracing::info!(refusing = Policy::refused(load.step).join(", "), "less waits for the store");
            self.said = (load.step, 0);
        }
    }

    fn publish(&mut self) {
        let now_us = self.now_us();
        let accounts = self.spec.store.accounts();
        let (waiting, oldest_ms, tables) = {
            let pending = self.waiting();
            let tables = status::figures(&self.spec.account, &pending.by_table(), &accounts.accepted());
            (pending.rows(), pending.oldest_age_us(now_us) / 1000, tables)
        };
        let streams = self.spec.account.refusals(|refusals| refusals.streams());
        let writing_us = self.writing.map(|since_us| now_us - since_us);
        let hung = writing_us.is_some_and(|us| us >= micros(self.spec.settings.hung_after));
        let status = WriterStatus {
            waiting,
            oldest_ms,
            tables,
            writing_us,
            reachable: self.status.failures_in_a_row == 0 && !hung,
            overload: Overload::new(&self.spec.account.load(), streams),
            spool: accounts.spool().map(|spool| SpoolView::new(spool, now_us)),
            ..self.status.clone()
        };
        self.status = status;
        self.life.degraded(why(&self.status, hung));
        Service::publish(self, self.status.clone());
    }
}

/// Why the writer is not well.
fn why(status: &WriterStatus, hung: bool) -> Vec<String> {
    let error = status.last_error.iter().map(|error| format!("store: {error}"));
    let seconds = status.writing_us.unwrap_or_default() / 1_000_000;
    let hung = hung.then(|| format!("store: no answer for {seconds} s"));
    let refusing = &status.overload.refusing;
    let refusing = (!refusing.is_empty()).then(|| format!("rows are refused: {}", refusing.join(", ")));
    let aside = status.spool.as_ref().and_then(|spool| spool.set_aside.as_ref());
    let aside = aside.map(|name| format!("the spool was damaged and is set aside as {name}"));
    error.chain(hung).chain(refusing).chain(aside).collect()
}

async fn perform(store: &dyn Sink, work: &Work, offered: &[(Table, Offered)], now_us: i64) -> Done {
    let outcome = match work {
        Work::Write(batch) => store.accounts().accept(batch, offered).await,
        Work::Quarantine(batch, errors) => {
            let accounts = store.accounts();
            return match accounts.quarantine(batch, errors, offered, now_us).await {
                Ok(true) => Done::SetAside,
                Ok(false) => Done::NoRoom,
                Err(error) => Done::Failed(RETRY_LIMIT, error.to_string()),
            };
        }
    };
    match outcome {
        WriteOutcome::Committed { .. } => Done::Accepted,
        WriteOutcome::Poison { rows } => Done::Poison(rows),
        WriteOutcome::Transient { retry_after, error } => Done::Failed(retry_after, error),
        WriteOutcome::UnknownOutcome { error } => Done::Failed(AFTER_LOSS, error),
        WriteOutcome::Fatal { error } => {
            tracing::error!(error, "the store needs an operator; rows wait");
            Done::Failed(RETRY_LIMIT, error)
        }
    }
}

fn locked(waiting: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    // Pending is consistent between calls, so a panic elsewhere leaves nothing half done.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service for WriterActor {
    type Detail = WriterStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let mut batches = self.spec.inbox.batches(&self.life, INBOX_BATCHES);
        let waiting = self.spec.waiting.clone();
        // Whoever is kept waiting here is looked at again when the context next wakes, with the tick at the latest.
        let with_room = stream::poll_fn(move |cx| {
            if locked(&waiting).is_full() { Poll::Pending } else { batches.poll_next_unpin(cx) }
        });
        ctx.spawn(
            wrap_stream(with_room).map(|batches, actor: &mut Self, ctx| actor.take(batches, ctx)).finish(),
        );
        ctx.run_interval(TICK, Self::tick);
        self.publish();
        Ok(())
    }

    /// Writes everything that waits, then stops.
    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        self.draining = true;
        let now_us = self.now_us();
        while let Some(batch) = self.spec.inbox.try_recv() {
            self.spec.account.taken(&batch);
            self.waiting().add(batch, now_us);
        }
        self.write_next(ctx);
    }
}
