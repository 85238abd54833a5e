//! What operators may tell the service: read the body, act once, note who did it, answer 202 with the operation.

use std::{fmt::Display, time::Duration};

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::Bytes,
};
use fathom_actors::{
    kernel::{ActorId, Cascade, Control, OperationId, RestartMode, RestartRequest},
    operator::Errand,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) use super::audit::Deed;
use super::{
    AppState,
    auth::Caller,
    error::{Answer, ApiError, answer},
};

const MAX_REASON: usize = 500;
/// When a full memory or queue is worth trying again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A request's body as it came, or why it did not.
pub(super) type Body = Result<Bytes, actix_web::Error>;

/// The body of a restart.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartBody {
    mode: Option<String>,
    reason: Option<String>,
    if_generation: Option<u64>,
    deadline_ms: Option<u64>,
    cascade: Option<String>,
    #[serde(default)]
    force: bool,
}

/// The body of a pause or resume.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: Option<String>,
}

/// Reads a JSON body; an empty one is the default.
pub(super) fn parse<T: Default + DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = body.map_err(|error| unreadable(&error))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(ApiError::body)
}

fn unreadable(error: &actix_web::Error) -> ApiError {
    if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", "the body is too large");
    }
    ApiError::body(error)
}

/// Text of an operator that goes into logs: bounded, one line.
pub(super) fn reason(text: Option<String>) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    if text.chars().count() > MAX_REASON {
        return Err(ApiError::body(format_args!("reason has more than {MAX_REASON} characters")));
    }
    Ok(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}

/// The reason in a body that holds nothing else.
pub(super) fn reason_of(body: Body) -> Result<String, ApiError> {
    reason(parse::<ReasonBody>(body)?.reason)
}

/// Restarts; `default` is the mode where none is given.
pub(super) fn restart(
    state: &AppState,
    caller: &Caller,
    id: ActorId,
    body: Body,
    default: RestartMode,
) -> Answer {
    let RestartBody { mode, reason: why, if_generation, deadline_ms, cascade, force } = parse(body)?;
    let mode = mode_of(mode.as_deref(), default)?;
    let cascade = cascade_of(cascade.as_deref())?;
    let reason = reason(why)?;
    let call =
        format!("restart {id} {mode:?} {if_generation:?} {deadline_ms:?} {cascade:?} {force} {reason}");
    let request = RestartRequest {
        mode,
        reason: reason.clone(),
        if_generation,
        requested_by: caller.by.clone(),
        deadline: deadline_ms.map(Duration::from_millis),
        cascade,
        force,
    };
    let deed = Deed { action: "restart", target: id.as_str(), reason: &reason };
    run(state, caller, &call, &deed, |control| Ok(control.restart(&id, request)?))
}

/// Reads a mode.
pub(super) fn mode_of(mode: Option<&str>, default: RestartMode) -> Result<RestartMode, ApiError> {
    match mode {
        None => Ok(default),
        Some("handover") => Ok(RestartMode::Handover),
        Some("graceful") => Ok(RestartMode::Graceful),
        Some("kill") => Ok(RestartMode::Kill),
        Some(other) => {
            let message = format!("mode {other:?} is not known");
            Err(ApiError::new(StatusCode::BAD_REQUEST, "INVALID_MODE", message)
                .with("validModes", ["handover", "graceful", "kill"]))
        }
    }
}

fn cascade_of(cascade: Option<&str>) -> Result<Cascade, ApiError> {
    match cascade {
        None | Some("self") => Ok(Cascade::Self_),
        Some("rest") => Ok(Cascade::Rest),
        Some("all") => Ok(Cascade::All),
        Some(other) => {
            let message = format!("cascade {other:?} is not known");
            Err(ApiError::new(StatusCode::BAD_REQUEST, "INVALID_CASCADE", message)
                .with("validCascades", ["self", "rest", "all"]))
        }
    }
}

/// Pauses.
pub(super) fn pause(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason_of(body)?;
    let deed = Deed { action: "pause", target: id.as_str(), reason: &reason };
    run(state, caller, &format!("pause {id}"), &deed, |control| Ok(control.pause(&id, &caller.by, &reason)?))
}

/// Resumes.
pub(super) fn resume(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason_of(body)?;
    let deed = Deed { action: "resume", target: id.as_str(), reason: &reason };
    run(
        state,
        caller,
        &format!("resume {id}"),
        &deed,
        |control| Ok(control.resume(&id, &caller.by, &reason)?),
    )
}

/// Keeps an actor down.
pub(super) fn quarantine(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason_of(body)?;
    let deed = Deed { action: "quarantine", target: id.as_str(), reason: &reason };
    let call = format!("quarantine {id}");
    run(state, caller, &call, &deed, |control| Ok(control.quarantine(&id, &caller.by, &reason)?))
}

/// Lifts a quarantine.
pub(super) fn lift(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason_of(body)?;
    let deed = Deed { action: "lift", target: id.as_str(), reason: &reason };
    run(state, caller, &format!("lift {id}"), &deed, |control| Ok(control.lift(&id, &caller.by, &reason)?))
}

/// Acts once for an `Idempotency-Key`, notes it, and answers 202 with the operation. `call` is what the key stands for.
pub(super) fn run(
    state: &AppState,
    caller: &Caller,
    call: &str,
    deed: &Deed<'_>,
    act: impl FnOnce(&Control) -> Result<OperationId, ApiError>,
) -> Answer {
    let control = state.system.control();
    let done = state.replays.once(caller.key.as_deref(), call, || act(&control));
    state.audit.note(state, caller, deed, done.as_ref().map(Some).map_err(|error| error as &dyn Display));
    accepted(&control, &done?)
}

/// Hands an operation that has begun to the actor that carries it out.
pub(super) fn send(
    state: &AppState,
    control: &Control,
    operation: OperationId,
    errand: Errand,
) -> Result<OperationId, ApiError> {
    if state.system.errands().offer(errand).is_err() {
        control.operation_log().finish(&operation, Err("too much waits to be done".to_owned()));
        return Err(too_many());
    }
    Ok(operation)
}

/// 429: the memory of operations, or the queue of errands, is full.
pub(super) fn too_many() -> ApiError {
    let message = "too many operations are under way";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_OPERATIONS", message).retry_after(TRY_AGAIN)
}

fn accepted(control: &Control, id: &OperationId) -> Answer {
    #[derive(Serialize)]
    struct Accepted<T> {
        operation: T,
    }
    #[derive(Serialize)]
    struct Name<'a> {
        id: &'a OperationId,
    }
    let mut response: HttpResponse = match control.operation(id) {
        Some(operation) => answer(StatusCode::ACCEPTED, &Accepted { operation })?,
        None => answer(StatusCode::ACCEPTED, &Accepted { operation: Name { id } })?,
    };
    let location = header::HeaderValue::from_str(&format!("/api/v1/operations/{id}"));
    response.headers_mut().insert(header::LOCATION, location.map_err(ApiError::internal)?);
    Ok(response)
}
