//! What operators asked for and what came of it: a bounded memory, so that HTTP can answer 202 and a name.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Serialize, Serializer};

use super::clock::{Clock, Micros};
use super::lifeline::locked;

/// Operations remembered; the oldest finished ones are forgotten first.
const MEMORY: usize = 256;
/// Steps remembered of one operation.
const MAX_STEPS: usize = 32;

/// The name of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperationId(Arc<str>);

impl OperationId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for OperationId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Noted, not begun.
    Accepted,
    /// Under way.
    Running,
    /// Ended as wished.
    Done,
    /// Ended otherwise; `error` says why.
    Failed,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// How long it took, milliseconds.
    pub ms: u64,
    /// Whether it went well.
    pub ok: bool,
}

/// One operation, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// What is done, such as `actor.restart`.
    pub kind: &'static str,
    /// To whom.
    pub target: String,
    /// How far it is.
    pub state: OperationState,
    /// Who asked.
    pub requested_by: String,
    /// Why, in the words of who asked.
    pub reason: String,
    /// What has been done.
    pub steps: Vec<Step>,
    /// The generation before, where that makes sense.
    pub from_generation: Option<u64>,
    /// The generation after.
    pub to_generation: Option<u64>,
    /// When it was accepted, microseconds UTC.
    pub created_us: Micros,
    /// When it ended.
    pub finished_us: Option<Micros>,
    /// Why it failed.
    pub error: Option<String>,
    /// What it cost, in the words of its kind.
    pub effect: Option<serde_json::Value>,
    #[serde(skip)]
    step_since: Micros,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// What is to be done.
    pub kind: &'static str,
    /// To whom.
    pub target: String,
    /// Who asks.
    pub requested_by: String,
    /// Why.
    pub reason: String,
    /// The generation before.
    pub from_generation: Option<u64>,
}

/// The memory; cheap to clone.
#[derive(Clone)]
pub struct Operations {
    clock: Clock,
    all: Arc<Mutex<VecDeque<Operation>>>,
}

impl Operations {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, all: Arc::default() }
    }

    /// Notes a new operation; `None` when as many as can be remembered are under way.
    #[must_use]
    pub fn begin(&self, new: NewOperation) -> Option<OperationId> {
        let now = self.clock.now_us();
        let mut all = locked(&self.all);
        if all.len() >= MEMORY {
            let oldest = all.iter().position(|operation| operation.finished_us.is_some())?;
            all.remove(oldest);
        }
        let id = OperationId(format!("op-{}", uuid::Uuid::now_v7()).into());
        let NewOperation { kind, target, requested_by, reason, from_generation } = new;
        tracing::info!(operation = %id, kind, %target, %requested_by, %reason, "operation accepted");
        all.push_back(Operation {
            id: id.clone(),
            kind,
            target,
            state: OperationState::Accepted,
            requested_by,
            reason,
            steps: Vec::new(),
            from_generation,
            to_generation: None,
            created_us: now,
            finished_us: None,
            error: None,
            effect: None,
            step_since: now,
        });
        Some(id)
    }

    /// Notes that a step is over; its time counts from the one before.
    pub fn step(&self, id: &OperationId, name: &str, ok: bool) {
        let now = self.clock.now_us();
        self.change(id, |operation| {
            let ms = u64::try_from((now - operation.step_since) / 1000).unwrap_or(0);
            operation.step_since = now;
            operation.state = OperationState::Running;
            if operation.steps.len() < MAX_STEPS {
                operation.steps.push(Step { name: name.to_owned(), ms, ok });
            }
        });
    }

    /// Notes the generation that the operation leads to.
    pub fn leads_to(&self, id: &OperationId, generation: u64) {
        self.change(id, |operation| operation.to_generation = Some(generation));
    }

    /// Notes what the operation cost; of two objects the later adds its fields to the earlier.
    pub fn effect(&self, id: &OperationId, effect: serde_json::Value) {
        use serde_json::Value::Object;
        self.change(id, |operation| match (&mut operation.effect, effect) {
            (Some(Object(known)), Object(more)) => known.extend(more),
            (known, effect) => *known = Some(effect),
        });
    }

    /// Notes the end.
    pub fn finish(&self, id: &OperationId, outcome: Result<(), String>) {
        let now = self.clock.now_us();
        self.change(id, |operation| {
            operation.state = if outcome.is_ok() { OperationState::Done } else { OperationState::Failed };
            operation.error = outcome.err();
            operation.finished_us = Some(now);
            tracing::info!(operation = %operation.id, state = ?operation.state, error = operation.error, "operation over");
        });
    }

    /// One operation, while it is remembered.
    #[must_use]
    pub fn get(&self, id: &OperationId) -> Option<Operation> {
        locked(&self.all).iter().find(|operation| operation.id == *id).cloned()
    }

    /// All that are remembered, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Operation> {
        locked(&self.all).iter().rev().cloned().collect()
    }

    fn change(&self, id: &OperationId, change: impl FnOnce(&mut Operation)) {
        let mut all = locked(&self.all);
        let found = all.iter_mut().find(|operation| operation.id == *id && operation.finished_us.is_none());
        if let Some(operation) = found {
            change(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(target: &str) -> NewOperation {
        NewOperation {
            kind: "actor.restart",
            target: target.into(),
            requested_by: "test".into(),
            reason: "why".into(),
            from_generation: Some(1),
        }
    }

    #[test]
    fn the_memory_is_bounded_and_never_forgets_what_is_under_way() {
        let operations = Operations::new(Clock::system());
        let first = operations.begin(new("first")).unwrap();
        for n in 0..1000 {
            let id = operations.begin(new(&n.to_string())).unwrap();
            operations.finish(&id, Ok(()));
        }
        assert_eq!(operations.list().len(), MEMORY);
        assert_eq!(operations.get(&first).unwrap().state, OperationState::Accepted);
        while operations.begin(new("running")).is_some() {}
        assert_eq!(operations.list().len(), MEMORY);
    }

    #[test]
    fn an_ended_operation_no_longer_changes() {
        let operations = Operations::new(Clock::system());
        let id = operations.begin(new("x")).unwrap();
        operations.step(&id, "stop", true);
        operations.finish(&id, Err("no".into()));
        operations.finish(&id, Ok(()));
        operations.step(&id, "late", true);
        let operation = operations.get(&id).unwrap();
        assert_eq!((operation.state, operation.steps.len()), (OperationState::Failed, 1));
        assert_eq!(operation.error.as_deref(), Some("no"));
    }
}
