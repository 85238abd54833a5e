//! The store's upkeep: what is made of other rows follows them, also where these come late.

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
/// Buckets brought up to date at once, so that the writer never waits long for its turn.
pub(super) const BUCKETS: u64 = 256;
/// The writer's turn between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What the roll-up publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RollupStatus {
    /// Rounds done.
    pub rounds: u64,
    /// Buckets brought up to date: hours of category snapshots, and repaired gaps whose bars were made anew.
    pub buckets: u64,
    /// When the store was last found up to date, microseconds.
    pub up_to_date_us: Option<i64>,
    /// The last error.
    pub last_error: Option<String>,
}

/// Brings roll-ups and repaired bars up to date.
pub struct RollupActor {
    life: Lifeline,
    store: Arc<dyn Sink>,
    settings: WriterSettings,
    status: RollupStatus,
    running: bool,
}

service_actor!(RollupActor);

impl RollupActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, store: Arc<dyn Sink>, settings: WriterSettings) -> Self {
        Self { life, store, settings, status: RollupStatus::default(), running: false }
    }

    /// Brings a bounded number of buckets up to date, again and again until none is left.
    fn round(&mut self, ctx: &mut Context<Self>) {
        if self.running {
            return;
        }
        self.running = true;
        let store = self.store.clone();
        let began_us = self.life.clock().now_us();
        let zone = self.life.protect(ROUND_LIMIT);
        let rolling = async move {
            let rolled = store.roll_up(BUCKETS).await;
            drop(zone);
            rolled
        };
        let done = wrap_future::<_, Self>(rolling).map(move |rolled, actor, ctx| {
            actor.status.rounds += 1;
            actor.running = false;
            match rolled {
                Ok(buckets) => {
                    actor.status.buckets += buckets;
                    actor.status.last_error = None;
                    if buckets >= BUCKETS {
                        ctx.run_later(ROUND_PAUSE, Self::round);
                    } else {
                        actor.status.up_to_date_us = Some(began_us);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "roll-ups could not be brought up to date");
                    actor.status.last_error = Some(error.to_string());
                }
            }
            Service::publish(actor, actor.status.clone());
        });
        ctx.spawn(done);
    }
}

impl Service for RollupActor {
    type Detail = RollupStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        ctx.run_interval(self.settings.rollup_every, Self::round);
        Service::publish(self, self.status.clone());
        Ok(())
    }
}
