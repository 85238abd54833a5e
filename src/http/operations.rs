//! `/api/v1/operations`: what operators asked for and what came of it.

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::kernel::{Operation, OperationId};
use fathom_market::ids::InstrumentId;
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, ok},
    read,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/operations", list));
    config.service(read("/api/v1/operations/{id}", one));
}

#[derive(Serialize)]
struct Listed {
    operations: Vec<Operation>,
}

async fn list(state: Shared) -> Answer {
    ok(&Listed { operations: state.system.control().operations() })
}

/// Adds to a restarted shard's operation the gaps that opened meanwhile, where its effect does not tell them itself.
fn with_gaps(state: &AppState, mut operation: Operation) -> Operation {
    let told = operation.effect.as_ref().is_some_and(|effect| effect.get("gaps_opened").is_some());
    let Some(shard) = operation.target.strip_prefix("shard/").filter(|_| !told) else { return operation };
    let Some(status) = state.system.directory().shard(shard) else { return operation };
    let until_us = operation.finished_us.unwrap_or(i64::MAX);
    let instrument = |native: &String| InstrumentId::derive(status.venue, status.market, native);
    let instruments: Vec<InstrumentId> = status.symbols.iter().map(instrument).collect();
    let gaps = state.system.directory().gaps().since(operation.created_us, &instruments);
    let gaps: Vec<String> =
        gaps.into_iter().filter(|gap| gap.opened_us <= until_us).map(|gap| gap.id).collect();
    let effect = operation.effect.get_or_insert_with(|| serde_json::json!({}));
    if let Some(effect) = effect.as_object_mut() {
        effect.insert("gaps_opened".to_owned(), serde_json::json!(gaps));
    }
    operation
}

async fn one(state: Shared, id: Path<String>) -> Answer {
    let operation = state.system.control().operation(&OperationId::from(id.as_str()));
    let unknown =
        || ApiError::not_found("OPERATION_NOT_FOUND", format!("no operation {id}")).with("id", &*id);
    ok(&with_gaps(&state, operation.ok_or_else(unknown)?))
}
