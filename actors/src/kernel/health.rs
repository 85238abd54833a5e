//! The health of everything, read from what is published. Nothing here asks an actor, so it answers when all hang.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use serde::Serialize;

use super::arbiters::ArbiterHealth;
use super::breaker::BreakerState;
use super::cell::{Cell, Exits, Instance, Stage, State};
use super::clock::{Micros, micros};
use super::exit::{ActorId, ExitReason, ExitReport};
use super::inbox::InboxHealth;
use super::lifeline::locked;
use super::operations::OperationId;
use super::quarantine::HoldKind;
use super::registry::Registry;
use super::slot::SlotCore;
use super::spec::{Kind, RestartPolicy};

/// Reasons listed at most in a report.
const MAX_WHY: usize = 20;

/// The sum of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Healthy,
    /// Works below its promise.
    Degraded,
    /// Does not work.
    Down,
}

/// Everything at a moment. Counters only grow; `seq` and `started_us` show a new process.
#[derive(Clone, Debug, Serialize)]
pub struct HealthReport {
    /// Grows with each report.
    pub seq: u64,
    /// When it was taken, microseconds UTC.
    pub captured_at_us: Micros,
    /// When the kernel was started, microseconds UTC.
    pub started_us: Micros,
    /// How long it has been up, microseconds.
    pub uptime_us: Micros,
    /// The worst of the required actors; an actor that is not required can only degrade it.
    pub verdict: Verdict,
    /// Why it is not healthy; at most 20 lines.
    pub why: Vec<String>,
    /// The actors, in the order of their start.
    pub actors: Vec<ActorHealth>,
    /// The threads.
    pub arbiters: Vec<ArbiterHealth>,
    /// Actors by state.
    pub totals: BTreeMap<&'static str, usize>,
    /// The supervisor itself.
    pub supervisor: SupervisorHealth,
}

/// The supervisor's own state.
#[derive(Clone, Debug, Serialize)]
pub struct SupervisorHealth {
    /// How often it was started again.
    pub restarts: u64,
    /// How long ago it swept, microseconds.
    pub sweep_age_us: Micros,
    /// Threads that were ever given up.
    pub quarantined_total: u64,
    /// Whether the kernel is being shut down.
    pub shutting_down: bool,
}

/// One actor at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct ActorHealth {
    /// Its path.
    pub id: ActorId,
    /// Its sort.
    pub kind: Kind,
    /// Under whom it is shown.
    pub parent: Option<ActorId>,
    /// Whether the process is ready only with it.
    pub required: bool,
    /// Its state.
    pub state: State,
    /// The sum of it.
    pub verdict: Verdict,
    /// Why it is not running well.
    pub why: Vec<String>,
    /// Since when it is in this stage, microseconds UTC.
    pub since_us: Micros,
    /// The newest instance, counted from 1.
    pub generation: u64,
    /// When this was read, microseconds UTC.
    pub observed_at_us: Micros,
    /// `live`, `stale` (it makes no progress) or `post_mortem` (of an instance that is over).
    pub observation: &'static str,
    /// How it is supervised.
    pub supervisor: SupervisionHealth,
    /// Its progress.
    pub progress: ProgressHealth,
    /// Its inboxes.
    pub inboxes: Vec<InboxHealth>,
    /// Its ends, counted.
    pub exits: Exits,
    /// Its last end.
    pub last_exit: Option<ExitReport>,
    /// The operation under way.
    pub operation: Option<OperationId>,
    /// The thread it runs on.
    pub arbiter: Option<u32>,
    /// What it published last.
    pub detail: Option<serde_json::Value>,
    /// When it published that, microseconds UTC.
    pub detail_at_us: Option<Micros>,
}

/// How an actor is supervised, and where it stands in that.
#[derive(Clone, Debug, Serialize)]
pub struct SupervisionHealth {
    /// After which ends it is restarted.
    pub restart: RestartPolicy,
    /// Restarts that are normal inside the window.
    pub max_restarts: u32,
    /// The window, milliseconds.
    pub window_ms: u64,
    /// Restarts inside it.
    pub used: u32,
    /// Restarts since it was last healthy.
    pub attempt: u32,
    /// When the next instance is due, microseconds UTC.
    pub next_at_us: Option<Micros>,
    /// The breaker.
    pub breaker: BreakerState,
    /// The grace when it is stopped, milliseconds.
    pub shutdown_ms: u64,
}

/// The progress of the live instance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProgressHealth {
    /// Since its last beat, microseconds.
    pub beat_age_us: Option<Micros>,
    /// The oldest operation under way.
    pub busy: Option<&'static str>,
    /// For how long, microseconds.
    pub busy_us: Option<Micros>,
    /// Since it last got something useful, microseconds; only with a budget.
    pub freshness_us: Option<Micros>,
    /// That budget, microseconds.
    pub freshness_budget_us: Option<Micros>,
    /// After how long it counts as stalled, microseconds.
    pub stall_after_us: Micros,
    /// Operations done, all instances together.
    pub handled_total: u64,
    /// Items refused because they made instances panic.
    pub refused_total: u64,
    /// The tags of those items, hexadecimal.
    pub poison: Vec<String>,
}

pub(crate) fn report(env: &Registry) -> HealthReport {
    let now = env.clock.now_us();
    let actors: Vec<_> = env.ordered().iter().map(|slot| actor_health(env, slot.core())).collect();
    let mut totals = BTreeMap::new();
    let mut verdict = Verdict::Healthy;
    let mut why = Vec::new();
    for actor in &actors {
        *totals.entry(word(actor.state)).or_insert(0) += 1;
        let worst = if actor.required { Verdict::Down } else { Verdict::Degraded };
        verdict = verdict.max(actor.verdict.min(worst));
        if actor.verdict != Verdict::Healthy && why.len() < MAX_WHY {
            let detail =
                if actor.why.is_empty() { String::new() } else { format!(": {}", actor.why.join(", ")) };
            why.push(format!("{} is {}{detail}", actor.id, word(actor.state)));
        }
    }
    let (arbiters, quarantined_total) = {
        let arbiters = locked(&env.arbiters);
        (arbiters.health(), arbiters.quarantined_total)
    };
    let supervisor = SupervisorHealth {
        restarts: env.supervisor_starts.load(SeqCst).saturating_sub(1),
        sweep_age_us: now - env.last_sweep.load(Relaxed),
        quarantined_total,
        shutting_down: env.is_shutting_down(),
    };
    let seq = env.reports.fetch_add(1, Relaxed) + 1;
    let (captured_at_us, started_us, uptime_us) = (now, env.started_us, now - env.started_us);
    HealthReport {
        seq,
        captured_at_us,
        started_us,
        uptime_us,
        verdict,
        why,
        actors,
        arbiters,
        totals,
        supervisor,
    }
}

pub(crate) fn actor_health(env: &Registry, core: &SlotCore) -> ActorHealth {
    let now = env.clock.now_us();
    let facts = &core.facts;
    let detail = core.board.detail.load_full();
    let cell = locked(&core.cell);
    let progress = progress(core, &cell, now);
    let (state, why) = state_and_why(core, &cell, &progress, now);
    // The present instance goes on working until the next one has taken over.
    let handed_over = cell.handover_until().is_some() && cell.stage == Stage::Up;
    let observation = match (&cell.live, is_silent(&progress)) {
        (None, _) => "post_mortem",
        (Some(_), true) => "stale",
        (Some(_), false) => "live",
    };
    ActorHealth {
        id: facts.id.clone(),
        kind: facts.kind,
        parent: facts.parent.clone(),
        required: facts.required,
        state,
        verdict: if handed_over { Verdict::Healthy } else { verdict(state, cell.last_exit.as_ref()) },
        why,
        since_us: cell.since,
        generation: cell.generation,
        observed_at_us: now,
        observation,
        supervisor: supervision(core, &cell, now),
        progress,
        inboxes: facts.inboxes.iter().map(|inbox| inbox.health()).collect(),
        exits: cell.exits,
        last_exit: cell.last_exit.clone(),
        operation: cell.operation.clone(),
        arbiter: cell.live.as_ref().map(|instance: &Instance| instance.arbiter.0),
        detail_at_us: detail.as_ref().map(|detail| detail.0),
        detail: {
            drop(cell);
            detail.map(|detail| detail.1.json())
        },
    }
}

fn progress(core: &SlotCore, cell: &Cell, now: Micros) -> ProgressHealth {
    let life = cell.life();
    let busy = life.and_then(|life| life.busy(now));
    let budget = core.facts.liveness.freshness;
    ProgressHealth {
        beat_age_us: life.map(|life| micros(life.beat_age(now))),
        busy: busy.map(|(op, _)| op),
        busy_us: busy.map(|(_, since)| micros(since)),
        freshness_us: life.filter(|_| budget.is_some()).map(|life| micros(life.fresh_age(now))),
        freshness_budget_us: budget.map(micros),
        stall_after_us: micros(core.facts.liveness.stall_after),
        handled_total: core.board.handled.load(Relaxed),
        refused_total: core.board.refused.load(Relaxed),
        poison: core.board.poison().iter().map(|tag| format!("{:x}", tag.0)).collect(),
    }
}

fn supervision(core: &SlotCore, cell: &Cell, now: Micros) -> SupervisionHealth {
    let facts = &core.facts;
    let probe = cell.hold.as_ref().and_then(|hold| match hold.kind {
        HoldKind::Culprit(probes) if !probes.running => Some(probes.next),
        _ => None,
    });
    let next_at_us = match cell.stage {
        Stage::Waiting { until, .. } => Some(until),
        _ => probe,
    };
    SupervisionHealth {
        restart: facts.restart,
        max_restarts: facts.limits.max,
        window_ms: micros(facts.limits.window).unsigned_abs() / 1000,
        used: cell.policy.recent(now),
        attempt: cell.policy.attempt(),
        next_at_us,
        breaker: cell.policy.breaker(now),
        shutdown_ms: micros(facts.stop_grace).unsigned_abs() / 1000,
    }
}

fn state_and_why(
    core: &SlotCore,
    cell: &Cell,
    progress: &ProgressHealth,
    now: Micros,
) -> (State, Vec<String>) {
    let state = cell.state();
    let mut why = locked(&core.board.degraded).clone();
    if state != State::Running {
        why.extend(super::why::why(state, cell, &core.facts, now));
        return (state, why);
    }
    if is_silent(progress) {
        let silent_ms = progress.beat_age_us.max(progress.busy_us).unwrap_or(0) / 1000;
        let allowed_ms = progress.stall_after_us / 1000;
        why.push(format!("no progress for {silent_ms} ms, restarted after {allowed_ms} ms"));
    }
    if let (Some(age), Some(budget)) = (progress.freshness_us, progress.freshness_budget_us)
        && age > budget
    {
        let (age_ms, budget_ms) = (age / 1000, budget / 1000);
        why.push(format!("nothing useful for {age_ms} ms, expected every {budget_ms} ms"));
    }
    (if why.is_empty() { state } else { State::Degraded }, why)
}

fn is_silent(progress: &ProgressHealth) -> bool {
    let silence = progress.beat_age_us.max(progress.busy_us).unwrap_or(0);
    silence > progress.stall_after_us / 2
}

fn verdict(state: State, last_exit: Option<&ExitReport>) -> Verdict {
    let rightly =
        last_exit.is_none_or(|exit| matches!(exit.reason, ExitReason::Asked | ExitReason::Finished));
    match state {
        State::Running => Verdict::Healthy,
        State::Degraded | State::Restarting | State::Starting | State::Draining => Verdict::Degraded,
        State::Warming => Verdict::Degraded,
        State::Paused => Verdict::Degraded,
        State::Stopped if rightly => Verdict::Healthy,
        State::Backoff | State::Failed | State::Quarantined | State::Stopped => Verdict::Down,
    }
}

/// The state as one word, as in JSON.
#[must_use]
pub fn word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Warming => "warming",
        State::Running => "running",
        State::Degraded => "degraded",
        State::Backoff => "backoff",
        State::Restarting => "restarting",
        State::Draining => "draining",
        State::Paused => "paused",
        State::Stopped => "stopped",
        State::Failed => "failed",
        State::Quarantined => "quarantined",
    }
}
