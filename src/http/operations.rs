//! `/api/v1/operations`: what operators asked for and what came of it.

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::kernel::{Operation, OperationId};
use serde::Serialize;

use super::{
    Shared,
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

async fn one(state: Shared, id: Path<String>) -> Answer {
    let operation = state.system.control().operation(&OperationId::from(id.as_str()));
    let unknown =
        || ApiError::not_found("OPERATION_NOT_FOUND", format!("no operation {id}")).with("id", &*id);
    ok(&operation.ok_or_else(unknown)?)
}
