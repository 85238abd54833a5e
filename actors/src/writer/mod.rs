//! The one writer: rows in, batches to the store. What waits is kept outside the actor, so a panic loses none of it.
//!
//! While a batch is being written, or more waits than [`Pending::is_full`] allows, nothing is read from the inbox: it
//! fills, and whoever offers rows is told so.

pub mod pending;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use actix::{
    ActorContext, ActorFutureExt, ActorStreamExt, AsyncContext, Context, ContextFutureSpawner,
    fut::{wrap_future, wrap_stream},
};
use fathom_market::batch::Batch;
use fathom_storage::{PoisonRow, Store, WriteOutcome};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use self::pending::{Pending, TableCounts, Ticket};
use crate::{
    kernel::{Fault, Inbox, Lifeline, Service},
    service_actor,
    settings::WriterSettings,
};

const TICK: Duration = Duration::from_millis(100);
/// A single write that takes longer than this is a stall.
const WRITE_LIMIT: Duration = Duration::from_secs(120);
/// The longest wait between two attempts.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
const INBOX_BATCHES: usize = 64;

/// What outlives the writer's instances.
pub type WaitingRows = Arc<Mutex<Pending>>;

/// What every instance is made from.
#[derive(Clone)]
pub struct WriterSpec {
    /// Rows offered.
    pub inbox: Inbox<Batch>,
    /// Rows that wait.
    pub waiting: WaitingRows,
    /// Where they go.
    pub store: Arc<dyn Store>,
    /// Settings.
    pub settings: WriterSettings,
}

/// What the writer publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WriterStatus {
    /// `sqlite`, ...
    pub store: &'static str,
    /// Whether the last write went through.
    pub reachable: bool,
    /// Rows that wait.
    pub waiting: usize,
    /// Age of the oldest of them, milliseconds.
    pub oldest_ms: i64,
    /// Batches written.
    pub batches: u64,
    /// Duration of the last write, microseconds.
    pub last_write_us: i64,
    /// Writes that failed and were tried again.
    pub retries: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// What became of the rows, by table.
    pub tables: BTreeMap<&'static str, TableCounts>,
}

/// The writer's actor.
pub struct WriterActor {
    life: Lifeline,
    spec: WriterSpec,
    status: WriterStatus,
    draining: bool,
    /// A write is under way or about to begin. Ticks that were missed meanwhile come all at once, before the context
    /// waits again, and must not begin another one.
    writing: bool,
}

service_actor!(WriterActor);

impl WriterActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: WriterSpec) -> Self {
        let status =
            WriterStatus { store: spec.store.status().kind, reachable: true, ..WriterStatus::default() };
        Self { life, spec, status, draining: false, writing: false }
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
                due |= waiting.add(batch, now_us);
            }
        }
        if due {
            self.write_next(ctx);
        }
    }

    /// Writes the next batch that is due; the context waits for it, and then looks for another.
    fn write_next(&mut self, ctx: &mut Context<Self>) {
        if self.writing {
            return;
        }
        let now_us = self.now_us();
        let Some(batch) = self.waiting().next(now_us, self.draining) else {
            if self.draining {
                ctx.stop();
            }
            return;
        };
        // Nothing is published while the context waits: what is said now has to hold for a store that hangs.
        self.publish();
        self.writing = true;
        let ticket = Ticket::of(&batch);
        let (store, zone) = (self.spec.store.clone(), self.life.protect(WRITE_LIMIT));
        let busy = self.life.enter("write");
        let writing = async move {
            let outcome = store.write(&batch).await;
            if let Some(pause) = pause(&outcome) {
                tokio::time::sleep(pause).await;
            }
            drop((zone, busy));
            outcome
        };
        wrap_future::<_, Self>(writing)
            .map(move |outcome, actor, ctx| actor.written(outcome, ticket, now_us, ctx))
            .wait(ctx);
    }

    fn written(&mut self, outcome: WriteOutcome, ticket: Ticket, started_us: i64, ctx: &mut Context<Self>) {
        self.writing = false;
        self.status.last_write_us = self.now_us() - started_us;
        match outcome {
            WriteOutcome::Committed { inserted, duplicate } => {
                self.waiting().settle(ticket, inserted, duplicate);
                self.status.batches += 1;
                self.status.reachable = true;
                self.status.last_error = None;
                self.write_next(ctx);
            }
            WriteOutcome::Poison { rows } => {
                self.drop_poison(ticket, &rows);
                self.write_next(ctx);
            }
            WriteOutcome::Transient { error, .. } | WriteOutcome::UnknownOutcome { error } => {
                self.failed(error, ctx)
            }
            WriteOutcome::Fatal { error } => {
                tracing::error!(error, "the store needs an operator; rows wait");
                self.failed(error, ctx);
            }
        }
        self.publish();
    }

    fn failed(&mut self, error: String, ctx: &mut Context<Self>) {
        tracing::warn!(error, waiting = self.waiting().rows(), "write failed and is tried again");
        self.status.retries += 1;
        self.status.reachable = false;
        self.status.last_error = Some(error);
        if self.draining {
            self.write_next(ctx);
        }
    }

    /// Takes the rows out that the store will never hold; with culprits unknown, the whole batch.
    fn drop_poison(&mut self, ticket: Ticket, rows: &[PoisonRow]) {
        let positions: Vec<usize> = rows.iter().map(|row| row.row).collect();
        let Some(poisoned) = self.waiting().poison(ticket, &positions) else { return };
        for (at, row) in rows.iter().enumerate().take(10) {
            let values: Vec<String> =
                poisoned.select(&[at]).columns().iter().map(|column| format!("{column:?}")).collect();
            tracing::error!(
                table = poisoned.schema().name,
                error = row.error,
                row = values.join(" "),
                "the store refuses a row"
            );
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.write_next(ctx);
        self.publish();
    }

    fn publish(&mut self) {
        let now_us = self.now_us();
        let (waiting, oldest_ms, tables) = {
            let pending = self.waiting();
            let tables =
                pending.counts().iter().map(|(table, counts)| (table.schema().name, *counts)).collect();
            (pending.rows(), pending.oldest_age_us(now_us) / 1000, tables)
        };
        self.status = WriterStatus { waiting, oldest_ms, tables, ..self.status.clone() };
        self.life.degraded(self.status.last_error.iter().map(|error| format!("store: {error}")).collect());
        Service::publish(self, self.status.clone());
    }
}

fn locked(waiting: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    // Pending is consistent between calls, so a panic elsewhere leaves nothing half done.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to wait before the next attempt.
fn pause(outcome: &WriteOutcome) -> Option<Duration> {
    match outcome {
        WriteOutcome::Transient { retry_after, .. } => Some((*retry_after).min(RETRY_LIMIT)),
        WriteOutcome::UnknownOutcome { .. } => Some(Duration::from_millis(200)),
        WriteOutcome::Fatal { .. } => Some(RETRY_LIMIT),
        WriteOutcome::Committed { .. } | WriteOutcome::Poison { .. } => None,
    }
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
            self.waiting().add(batch, now_us);
        }
        self.write_next(ctx);
    }
}

/// What the upkeep publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RetentionStatus {
    /// Rounds done.
    pub rounds: u64,
    /// Rows removed.
    pub removed: u64,
    /// The last error.
    pub last_error: Option<String>,
}

/// Removes rows that are older than their retention.
pub struct RetentionActor {
    life: Lifeline,
    store: Arc<dyn Store>,
    settings: WriterSettings,
    status: RetentionStatus,
    running: bool,
}

service_actor!(RetentionActor);

/// Rows of one table removed at once, so that the writer never waits long for its turn.
const EXPIRE_ROWS: u64 = 20_000;
/// The writer's turn between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

impl RetentionActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, store: Arc<dyn Store>, settings: WriterSettings) -> Self {
        Self { life, store, settings, status: RetentionStatus::default(), running: false }
    }

    /// Removes what is too old, a bounded number of rows at a time, until nothing is left to remove.
    fn round(&mut self, ctx: &mut Context<Self>) {
        if self.running {
            return;
        }
        self.running = true;
        let (store, retention) = (self.store.clone(), self.settings.retention.clone());
        let now_us = self.life.clock().now_us();
        let zone = self.life.protect(WRITE_LIMIT);
        let expiring = async move {
            let removed = store.expire(&retention, now_us, EXPIRE_ROWS).await;
            drop(zone);
            removed
        };
        let done = wrap_future::<_, Self>(expiring).map(|removed, actor, ctx| {
            actor.status.rounds += 1;
            actor.running = false;
            match removed {
                Ok(removed) => {
                    if removed.iter().any(|(_, rows)| *rows >= EXPIRE_ROWS) {
                        ctx.run_later(ROUND_PAUSE, Self::round);
                    }
                    actor.status.removed += removed.iter().map(|(_, rows)| rows).sum::<u64>();
                    actor.status.last_error = None;
                }
                Err(error) => {
                    tracing::warn!(%error, "old rows could not be removed");
                    actor.status.last_error = Some(error.to_string());
                }
            }
            Service::publish(actor, actor.status.clone());
        });
        ctx.spawn(done);
    }
}

impl Service for RetentionActor {
    type Detail = RetentionStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        ctx.run_interval(self.settings.retention_every, Self::round);
        Service::publish(self, self.status.clone());
        Ok(())
    }
}
