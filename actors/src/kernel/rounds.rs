//! Restarts of several children as a whole: of a group by its strategy, of a subtree by escalation, by an operator's
//! cascade. All members are ended, then started again one after the other in the order of their first start.
//!
//! A round stands in the registry, so a new supervisor goes on in the middle. It is stepped and never waits. What one
//! child needs of others is a [`Call`] in its cell, answered once its lock is free.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Call, Cell, Stage as Standing, State, Wanted};
use super::clock::{Micros, between};
use super::exit::ActorId;
use super::lifeline::locked;
use super::quarantine::{Hold, HoldKind, Probes};
use super::registry::Registry;
use super::slot::{AnySlot, SlotCore};
use super::spec::{Cascade, Escalation, Strategy};

/// How long the members have to end before the first is started all the same.
const ALL_DOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long a member has to be up before the next is started all the same.
const UP_WITHIN: Duration = Duration::from_secs(5);

/// Some children that are restarted as a whole.
pub(crate) struct Round {
    name: String,
    /// Who is still down, in the order of their start.
    waiting: VecDeque<ActorId>,
    stage: Stage,
    since: Micros,
}

enum Stage {
    Ending,
    /// The one whose turn it is.
    Starting(ActorId),
}

/// Answers what the child asks of others, if it asks.
pub(super) fn answer(slot: &Arc<dyn AnySlot>, env: &Registry, call: Call) {
    let core = slot.core();
    match call {
        Call::Group => begin(env, group(slot, env, None), "its group"),
        Call::Cascade(cascade) => begin(env, group(slot, env, Some(cascade)), "a cascade"),
        Call::Escalate => escalate(slot, env),
        Call::Lift => lift_members(env, core.id()),
    }
    locked(&core.cell).calls.retain(|pending| *pending != call);
}

/// The members that are restarted with this one, itself included.
fn group(slot: &Arc<dyn AnySlot>, env: &Registry, cascade: Option<Cascade>) -> Vec<Arc<dyn AnySlot>> {
    let facts = &slot.core().facts;
    let Some((name, strategy)) = &facts.group else { return vec![Arc::clone(slot)] };
    let first = match (cascade, strategy) {
        (Some(Cascade::All), _) | (None, Strategy::OneForAll) => 0,
        _ => slot.core().ordinal,
    };
    let is_member = |other: &Arc<dyn AnySlot>| {
        let core = other.core();
        core.ordinal >= first && core.facts.group.as_ref().is_some_and(|(group, _)| group == name)
    };
    env.ordered().into_iter().filter(is_member).collect()
}

/// An actor and everything shown under it, in the order of their start.
fn subtree(env: &Registry, root: &ActorId) -> Vec<Arc<dyn AnySlot>> {
    let all = env.ordered();
    let mut inside: HashSet<ActorId> = HashSet::from([root.clone()]);
    loop {
        let before = inside.len();
        let below = |slot: &&Arc<dyn AnySlot>| {
            slot.core().facts.parent.as_ref().is_some_and(|parent| inside.contains(parent))
        };
        let found: Vec<_> = all.iter().filter(below).map(|slot| slot.core().id().clone()).collect();
        inside.extend(found);
        if inside.len() == before {
            break;
        }
    }
    all.into_iter().filter(|slot| inside.contains(slot.core().id())).collect()
}

/// A child exceeded its intensity: its parent, or itself, is restarted with everything under it, once; when that did not
/// help, or the parent is restarted too often itself, the child or all of it is quarantined.
fn escalate(slot: &Arc<dyn AnySlot>, env: &Registry) {
    let core = slot.core();
    let Some(escalation) = core.facts.escalation else { return };
    let root = match escalation {
        Escalation::Below => Some(Arc::clone(slot)),
        Escalation::Family | Escalation::Parent => core.facts.parent.as_ref().and_then(|id| env.slot(id)),
    };
    // A parent that is gone cannot help.
    let now = env.clock.now_us();
    let again = std::mem::replace(&mut locked(&core.cell).escalated, true);
    let root_id = root.as_ref().map_or_else(|| core.id().clone(), |root| root.core().id().clone());
    if let Some(root) = root.filter(|root| !again && may_restart(core, root, now)) {
        tracing::error!(actor = %core.id(), root = %root_id, "too many restarts, everything under the root is restarted");
        locked(&core.cell).policy.reset();
        return begin(env, subtree(env, root.core().id()), "escalation");
    }
    tracing::error!(actor = %core.id(), root = %root_id, "a restart of more than itself did not help, quarantined");
    let members = match escalation {
        Escalation::Family => subtree(env, &root_id),
        Escalation::Parent | Escalation::Below => vec![Arc::clone(slot)],
    };
    for member in members {
        let mut cell = locked(&member.core().cell);
        let is_culprit = member.core().id() == core.id();
        if cell.wanted == Wanted::Up {
            let hold = hold(core.id(), is_culprit, core.facts.breaker.longest(), now);
            cell.quarantine(hold);
        }
        drop(cell);
        member.core().wake();
    }
}

/// Whether the root can take another restart; that of a parent is charged to it.
fn may_restart(core: &SlotCore, root: &Arc<dyn AnySlot>, now: Micros) -> bool {
    root.core().id() == core.id() || locked(&root.core().cell).policy.charge(now)
}

fn hold(culprit: &ActorId, is_culprit: bool, wait: Duration, since: Micros) -> Hold {
    let (why, kind) = if is_culprit {
        let why = "too many restarts, and restarting more than itself did not help".to_owned();
        (why, HoldKind::Culprit(Probes::new(since, wait)))
    } else {
        (format!("kept down together with {culprit}"), HoldKind::Member { culprit: culprit.clone() })
    };
    Hold { why, by: "kernel".into(), since, kind }
}

/// Lets up those who were kept down because of that one.
pub(super) fn lift_members(env: &Registry, culprit: &ActorId) {
    for slot in env.ordered() {
        let mut cell = locked(&slot.core().cell);
        let is_member =
            matches!(&cell.hold, Some(Hold { kind: HoldKind::Member { culprit: of }, .. }) if of == culprit);
        if is_member {
            cell.lift();
            cell.next_cause = ("quarantine lifted".into(), "kernel".into());
            drop(cell);
            slot.core().wake();
        }
    }
}

/// Ends all members and starts a round for them; one of the same first member is begun again.
fn begin(env: &Registry, members: Vec<Arc<dyn AnySlot>>, name: &str) {
    let mut rounds = locked(&env.rounds);
    let mut waiting = VecDeque::new();
    for member in members {
        let core = member.core();
        let mut cell = locked(&core.cell);
        if !close_gate(&mut cell, name) {
            continue;
        }
        waiting.push_back(core.id().clone());
        drop(cell);
        core.wake();
    }
    // Whoever was still to be started by another round is started by this one.
    rounds.iter_mut().for_each(|round| round.waiting.retain(|id| !waiting.contains(id)));
    rounds.push(Round { name: name.into(), waiting, stage: Stage::Ending, since: env.clock.now_us() });
}

/// The child starts when its turn comes; false when it is not to run at all.
fn close_gate(cell: &mut Cell, cause: &str) -> bool {
    if cell.wanted != Wanted::Up || cell.hold.is_some() {
        // No round will open it: one that closed it for itself, and was paused since, could never be resumed.
        cell.gate = false;
        return false;
    }
    cell.gate = true;
    if cell.live.is_some() && !cell.renewing {
        cell.renew = Some((cause.to_owned(), "kernel".to_owned()));
    }
    true
}

/// One step of all rounds.
pub(super) fn step(env: &Registry) {
    locked(&env.rounds).retain_mut(|round| !step_one(env, round));
}

/// True when the round is over.
fn step_one(env: &Registry, round: &mut Round) -> bool {
    let now = env.clock.now_us();
    let waited = between(round.since, now);
    match &round.stage {
        Stage::Ending => {
            if waited < ALL_DOWN_WITHIN && round.waiting.iter().any(|id| is_alive(env, id)) {
                return false;
            }
        }
        Stage::Starting(id) if waited < UP_WITHIN && is_on_its_way(env, id) => return false,
        Stage::Starting(_) => {}
    }
    let Some(next) = round.waiting.pop_front() else { return true };
    if let Some(slot) = env.slot(&next) {
        open_gate(&slot, &round.name);
    }
    (round.stage, round.since) = (Stage::Starting(next), now);
    false
}

fn open_gate(slot: &Arc<dyn AnySlot>, cause: &str) {
    let mut cell = locked(&slot.core().cell);
    cell.gate = false;
    cell.renew = None;
    if matches!(cell.stage, Standing::Waiting { breaker: true, .. }) {
        cell.next_cause = (cause.to_owned(), "kernel".into());
        cell.stage = Standing::Due;
    }
    drop(cell);
    slot.core().wake();
}

fn is_alive(env: &Registry, id: &ActorId) -> bool {
    env.slot(id).is_some_and(|slot| {
        let cell = locked(&slot.core().cell);
        cell.gate && (cell.live.is_some() || cell.beside.is_some())
    })
}

fn is_on_its_way(env: &Registry, id: &ActorId) -> bool {
    env.slot(id).is_some_and(|slot| {
        let cell = locked(&slot.core().cell);
        !cell.gate
            && matches!(cell.state(), State::Starting | State::Restarting | State::Warming | State::Backoff)
    })
}
