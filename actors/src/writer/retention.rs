//! The store's upkeep: rows that are older than their retention go.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_storage::Sink;
use serde::Serialize;

use crate::{
    kernel::{Fault, Lifeline, Service},
    service_actor,
    settings::WriterSettings,
};

/// A round that takes longer than this is a stall.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

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
    store: Arc<dyn Sink>,
    settings: WriterSettings,
    status: RetentionStatus,
    running: bool,
}

service_actor!(RetentionActor);

/// Rows of one table removed at once, so that the writer never waits long for its turn.
pub(super) const EXPIRE_ROWS: u64 = 20_000;
/// The writer's turn between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

impl RetentionActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, store: Arc<dyn Sink>, settings: WriterSettings) -> Self {
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
        let zone = self.life.protect(ROUND_LIMIT);
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
