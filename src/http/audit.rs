//! `/api/v1/audit`: the last writing calls, who made them and what they were told. Each is a log line too; this memory is
//! bounded and ends with the process.

use std::{
    collections::VecDeque,
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use actix_web::web::ServiceConfig;
use fathom_actors::kernel::OperationId;
use serde::Serialize;

use super::{
    AppState, Shared,
    auth::Caller,
    error::{Answer, ok},
    params::Params,
    read,
};

/// Calls that are remembered.
const MEMORY: usize = 1000;
const MAX_LIMIT: i64 = 1000;
const DEFAULT_LIMIT: usize = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/audit", list));
}

/// One call.
#[derive(Clone, Serialize)]
struct Entry {
    at_us: i64,
    by: String,
    action: &'static str,
    target: String,
    reason: String,
    /// `accepted` or `refused`.
    outcome: &'static str,
    operation: Option<OperationId>,
    error: Option<String>,
}

/// The memory of calls.
#[derive(Default)]
pub(super) struct Audit(Mutex<VecDeque<Entry>>);

/// What is done to what.
pub(super) struct Deed<'a> {
    pub(super) action: &'static str,
    pub(super) target: &'a str,
    pub(super) reason: &'a str,
}

impl Audit {
    /// Notes a call and what came of it.
    pub(super) fn note(
        &self,
        state: &AppState,
        caller: &Caller,
        deed: &Deed<'_>,
        done: Result<Option<&OperationId>, &dyn Display>,
    ) {
        let Deed { action, target, reason } = *deed;
        match done {
            Ok(operation) => {
                let operation = operation.map(OperationId::as_str);
                tracing::info!(target: "audit", by = caller.by, action, id = target, reason, operation, "accepted");
            }
            Err(error) => {
                tracing::warn!(target: "audit", by = caller.by, action, id = target, reason, %error, "refused");
            }
        }
        let entry = Entry {
            at_us: state.now_us(),
            by: caller.by.clone(),
            action,
            target: target.to_owned(),
            reason: reason.to_owned(),
            outcome: if done.is_ok() { "accepted" } else { "refused" },
            operation: done.ok().flatten().cloned(),
            error: done.err().map(ToString::to_string),
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == MEMORY {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn last(&self, limit: usize) -> Vec<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().take(limit).cloned().collect()
    }
}

#[derive(Serialize)]
struct Listed {
    /// The newest first.
    audit: Vec<Entry>,
}

async fn list(state: Shared, params: Params) -> Answer {
    let limit = params.int("limit", 1..=MAX_LIMIT)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    ok(&Listed { audit: state.audit.last(limit) })
}
