//! What a book asks of the REST service besides its snapshots: polls while its stream is away, and the venue's own book
//! to compare with. One of each is under way at most; the venue's budget decides when it leaves.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, SpawnHandle, fut::wrap_future};
#[cfg(any(test, feature = "fault-injection"))]
use actix::{Handler, Message};
use fathom_market::{event::BookSnapshot, plan::Priority};
use fathom_venues::MergeRule;
use serde::Serialize;

use super::{
    BookActor, BookSpec,
    core::BookCore,
    verify::{Look, Verifier},
};

/// Bound on waiting for the budget and asking.
const POLL_DEADLINE: Duration = Duration::from_secs(120);
/// What the book applies meanwhile is kept, so a comparison does not wait for long.
const VERIFY_DEADLINE: Duration = Duration::from_secs(60);

/// Requests under way.
#[derive(Default)]
pub(super) struct Probes {
    poll: Option<SpawnHandle>,
    verification: Option<SpawnHandle>,
}

/// How a book was compared with the venue's own.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// When it was last found to be the same.
    pub verified_us: Option<i64>,
    /// The same in milliseconds UTC.
    pub verified_at: Option<i64>,
    /// How: `rest_diff`, a REST snapshot aligned by its sequence.
    pub verified_by: Option<&'static str>,
    /// Why it is never compared.
    pub verify_skipped: Option<&'static str>,
    /// Comparisons made.
    pub verifications: u64,
    /// Comparisons that found a level that differs.
    pub divergences: u64,
    /// Levels that differed in the newest comparison.
    pub divergent_levels: u32,
    /// Comparisons that found the streams silent while the venue's book moved on.
    pub behind: u64,
    /// Snapshots that could not be aligned.
    pub unaligned: u64,
    /// Snapshots that could not be had.
    pub verify_failed: u64,
}

pub(super) fn verification(verifier: &Verifier) -> Verification {
    let counts = verifier.counts();
    Verification {
        verified_us: verifier.verified_us(),
        verified_at: verifier.verified_us().map(|us| us / 1000),
        verified_by: verifier.verified_us().map(|_| "rest_diff"),
        verify_skipped: verifier.skipped(),
        verifications: counts.verifications,
        divergences: counts.divergences,
        divergent_levels: counts.divergent_levels,
        behind: counts.behind,
        unaligned: counts.unaligned,
        verify_failed: counts.failed,
    }
}

/// Switches verification off where ids mean nothing outside of a connection.
pub(super) fn verifiable(core: BookCore, spec: &BookSpec) -> BookCore {
    match spec.venue.merge_rule(spec.instrument.market) {
        MergeRule::GlobalId => core,
        MergeRule::PerConnection => core.without_verification("ids_per_connection"),
    }
}

impl BookActor {
    /// Sends what is due, and gives up what is of no use any more.
    pub(super) fn tend_probes(&mut self, now_us: i64, ctx: &mut Context<Self>) {
        if let Some(levels) = self.core.wants_poll(now_us) {
            self.poll(levels, now_us, ctx);
        } else if !self.core.is_polling()
            && let Some(task) = self.probes.poll.take()
        {
            ctx.cancel_future(task);
        }
        if let Some(look) = self.core.wants_verification(now_us) {
            self.verify(look, now_us, ctx);
        } else if !self.core.verifier().is_recording()
            && let Some(task) = self.probes.verification.take()
        {
            ctx.cancel_future(task);
        }
    }

    fn poll(&mut self, levels: usize, now_us: i64, ctx: &mut Context<Self>) {
        self.core.poll_asked(now_us);
        let task = self.ask_book(levels, Priority::Live, POLL_DEADLINE, ctx, |actor, answer, now_us| {
            actor.probes.poll = None;
            match answer {
                Ok(snapshot) if actor.core.on_poll(&snapshot, now_us) => actor.publish(now_us),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(symbol = %actor.spec.instrument.native, error, "poll failed");
                    actor.core.poll_failed(now_us);
                }
            }
        });
        self.probes.poll = Some(task);
    }

    fn verify(&mut self, look: Look, now_us: i64, ctx: &mut Context<Self>) {
        self.core.verification_asked(look, now_us);
        let levels = match look {
            Look::Whole => self.spec.snapshot_levels,
            Look::Glance => 1,
        };
        let task = self.ask_book(levels, Priority::History, VERIFY_DEADLINE, ctx, |actor, answer, now_us| {
            actor.probes.verification = None;
            match answer {
                Ok(snapshot) => {
                    let mut actions = Vec::new();
                    actor.core.on_verification(snapshot, now_us, &mut actions);
                    actor.perform(&mut actions, now_us);
                }
                Err(error) => {
                    tracing::debug!(symbol = %actor.spec.instrument.native, error, "no snapshot to compare with");
                    actor.core.verification_failed(now_us);
                }
            }
        });
        self.probes.verification = Some(task);
    }

    fn ask_book(
        &self,
        levels: usize,
        priority: Priority,
        deadline: Duration,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Result<BookSnapshot, String>, i64) + 'static,
    ) -> SpawnHandle {
        let (request, limit) = self.spec.venue.snapshot_request(&self.spec.instrument, levels);
        let asking = self.ask_venue(Duration::ZERO, request, priority, deadline);
        ctx.spawn(wrap_future::<_, Self>(asking).map(move |answer, actor, _| {
            let _busy = actor.life.enter("probe");
            let now_us = actor.now_us();
            let snapshot = actor.read_snapshot(limit, answer);
            then(actor, snapshot, now_us);
        }))
    }
}

/// Changes one level of the book in memory, for tests of what finds it. True when there was one.
#[cfg(any(test, feature = "fault-injection"))]
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct CorruptLevel;

#[cfg(any(test, feature = "fault-injection"))]
impl Handler<CorruptLevel> for BookActor {
    type Result = bool;

    fn handle(&mut self, _: CorruptLevel, _: &mut Context<Self>) -> bool {
        self.core.corrupt_level().is_some()
    }
}
