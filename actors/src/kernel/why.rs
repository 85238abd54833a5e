//! Why a child is not running well: what happened, since when, and what happens next. Pure; texts for people.

use std::time::Duration;

use super::cell::{Cell, Stage, State, Wanted};
use super::clock::{Micros, between};
use super::quarantine::{Hold, HoldKind};
use super::spec::ChildFacts;

/// The reasons of a child in that state; none while it runs, and none when it was stopped as wished.
pub(super) fn why(state: State, cell: &Cell, facts: &ChildFacts, now: Micros) -> Vec<String> {
    let here = span(between(cell.since, now));
    match state {
        State::Running | State::Degraded => Vec::new(),
        State::Starting | State::Restarting if cell.gate => {
            vec![last(cell, now), format!("for {here} it waits for its turn in a restart of several actors")]
        }
        State::Starting => vec![format!("its first instance is being started for {here}")],
        State::Restarting => vec![last(cell, now), restarting(cell, facts, &here)],
        State::Warming => vec![warming(cell, now, &here)],
        State::Backoff => vec![last(cell, now), format!("the next start is {}", until(cell, now))],
        State::Draining => vec![draining(facts, &here)],
        State::Paused => vec![format!("paused for {here}{}, until it is resumed", told(cell))],
        State::Failed => {
            let (used, window) = (cell.policy.recent(now), span(facts.limits.window));
            let next = until(cell, now);
            vec![
                last(cell, now),
                format!("restarted too often ({used} ends in {window}), a probe starts {next}"),
            ]
        }
        State::Quarantined => cell.hold.iter().map(|hold| quarantined(cell, hold, now)).collect(),
        State::Stopped if is_as_wished(cell) => Vec::new(),
        State::Stopped => vec![last(cell, now), "its restart policy does not start it again".into()],
    }
    .into_iter()
    .filter(|line| !line.is_empty())
    .collect()
}

/// How it ended last, and when.
fn last(cell: &Cell, now: Micros) -> String {
    cell.last_exit
        .as_ref()
        .map_or_else(String::new, |exit| format!("{}, {} ago", exit.reason, span(between(exit.at_us, now))))
}

fn restarting(cell: &Cell, facts: &ChildFacts, here: &str) -> String {
    match cell.stage {
        Stage::Dying(_) => {
            format!("for {here} its instance is being ended, by force after {}", span(facts.stop_grace))
        }
        _ => format!("its next instance is being started for {here}"),
    }
}

fn warming(cell: &Cell, now: Micros, here: &str) -> String {
    match cell.handover_until() {
        Some(at) => format!(
            "the next instance warms up beside the present one; thrown away unless it takes over in {}",
            span(between(now, at))
        ),
        None => format!("its instance is up for {here} and not ready yet"),
    }
}

fn draining(facts: &ChildFacts, here: &str) -> String {
    format!("asked to stop {here} ago, ended by force after {}", span(facts.stop_grace))
}

fn quarantined(cell: &Cell, hold: &Hold, now: Micros) -> String {
    let (why, by, since) = (&hold.why, &hold.by, span(between(hold.since, now)));
    let next = match &hold.kind {
        HoldKind::Operator => "until it is lifted".to_owned(),
        HoldKind::Member { culprit } => format!("until a probe of {culprit} stays healthy"),
        HoldKind::Culprit(probes) if probes.running => {
            let healthy = span(cell.policy.healthy_after());
            format!("a probe runs, lifted when it has lived for {healthy}")
        }
        HoldKind::Culprit(probes) => {
            let (next, failed) = (span(between(now, probes.next)), probes.failed);
            format!("the next probe starts in {next}, {failed} have failed")
        }
    };
    format!("{why}; quarantined by {by} for {since}, {next}")
}

fn told(cell: &Cell) -> String {
    cell.paused_by.as_ref().map_or_else(String::new, |(by, reason)| match reason.as_str() {
        "" => format!(" by {by}"),
        reason => format!(" by {by} ({reason})"),
    })
}

fn until(cell: &Cell, now: Micros) -> String {
    match cell.stage {
        Stage::Waiting { until, .. } => format!("in {}", span(between(now, until))),
        _ => "now".to_owned(),
    }
}

fn is_as_wished(cell: &Cell) -> bool {
    use super::exit::ExitReason::{Asked, Finished};
    cell.wanted == Wanted::Stopped
        && cell.last_exit.as_ref().is_none_or(|exit| matches!(exit.reason, Asked | Finished))
}

/// A duration as it is read: milliseconds up to ten seconds, then seconds, then minutes.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{} ms", duration.as_millis()),
        seconds @ 10..600 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}
