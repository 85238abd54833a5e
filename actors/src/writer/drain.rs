//! The actor between the spool and the store: record after record, and with growing waits while the store is away.

use std::{sync::Arc, time::Duration};

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_storage::{Sink, Step, policy::fill};
use serde::Serialize;

use super::account::Account;
use crate::{
    kernel::{Fault, Lifeline, Service},
    service_actor,
};

/// How often an empty spool is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// What the kernel grants a step before it takes the instance for stuck; the store's deadline is the spool's own.
const STEP_LIMIT: Duration = Duration::from_secs(600);

/// What every instance is made from.
#[derive(Clone)]
pub struct DrainSpec {
    /// The store behind its spool.
    pub store: Arc<dyn Sink>,
    /// Where the spool's fill counts.
    pub account: Arc<Account>,
}

/// What the drain publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DrainStatus {
    /// `idle`, `moving` or `retrying`.
    pub state: &'static str,
    /// Records moved by this instance.
    pub records: u64,
    /// Failures since the last record that went through.
    pub failures_in_a_row: u32,
    /// The wait before the next attempt, milliseconds.
    pub retry_in_ms: Option<u64>,
    /// The last error, while the store does not take records.
    pub last_error: Option<String>,
}

/// The drain's actor.
pub struct DrainActor {
    life: Lifeline,
    spec: DrainSpec,
    status: DrainStatus,
    draining: bool,
    moving: bool,
}

service_actor!(DrainActor);

impl DrainActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: DrainSpec) -> Self {
        let status = DrainStatus { state: "idle", ..DrainStatus::default() };
        Self { life, spec, status, draining: false, moving: false }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return ctx.stop();
        }
        self.moving = true;
        let (store, zone) =
            (self.spec.store.clone(), (self.life.protect(STEP_LIMIT), self.life.enter("move")));
        let moving = async move {
            let step = match store.drain() {
                Some(drain) => drain.step().await,
                None => Step::Idle,
            };
            drop(zone);
            step
        };
        ctx.spawn(wrap_future::<_, Self>(moving).map(|step, actor, ctx| actor.moved(step, ctx)));
    }

    fn moved(&mut self, step: Step, ctx: &mut Context<Self>) {
        self.moving = false;
        if let Some(spool) = self.spec.store.accounts().spool() {
            self.spec.account.spool_is(fill(spool.bytes, spool.limit));
        }
        let wait = match step {
            Step::Idle => {
                self.settled("idle");
                LOOK_AGAIN
            }
            Step::Moved { lost, .. } => {
                lost.iter().for_each(|batch| self.spec.account.found_no_room(batch));
                self.status.records += 1;
                self.settled("moving");
                Duration::ZERO
            }
            Step::Expired(batch) => {
                tracing::warn!("a record of the spool is older than it keeps any, and is dropped");
                batch.iter().for_each(|batch| self.spec.account.expired(batch));
                Duration::ZERO
            }
            Step::Failed { retry_after, error } => self.failed(retry_after, error),
        };
        self.publish();
        ctx.run_later(wait, Self::step);
    }

    fn settled(&mut self, state: &'static str) {
        let records = self.status.records;
        self.status = DrainStatus { state, records, ..DrainStatus::default() };
    }

    fn failed(&mut self, retry_after: Duration, error: String) -> Duration {
        self.status.failures_in_a_row += 1;
        let growing = RETRY_MIN.saturating_mul(1 << self.status.failures_in_a_row.min(16));
        let wait = growing.max(retry_after).min(RETRY_MAX);
        tracing::warn!(error, retry_in = ?wait, "the store does not take what is spooled");
        self.status.state = "retrying";
        self.status.retry_in_ms = u64::try_from(wait.as_millis()).ok();
        self.status.last_error = Some(error);
        wait
    }

    fn publish(&mut self) {
        self.life.degraded(self.status.last_error.iter().map(|error| format!("store: {error}")).collect());
        Service::publish(self, self.status.clone());
    }
}

impl Service for DrainActor {
    type Detail = DrainStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.publish();
        self.step(ctx);
        Ok(())
    }

    /// What is spooled stays for the next start.
    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        self.draining = true;
        if !self.moving {
            ctx.stop();
        }
    }
}
