//! What operators may tell an actor or a shard, the same for both: read the body, act once, write the audit line,
//! answer 202 with the operation.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::Bytes,
};
use fathom_actors::kernel::{ActorId, Control, ControlError, OperationId, RestartMode, RestartRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    AppState,
    auth::Caller,
    error::{Answer, ApiError, answer},
};

const MAX_REASON: usize = 500;

/// A request's body as it came, or why it did not.
pub(super) type Body = Result<Bytes, actix_web::Error>;

/// The body of a restart.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestartBody {
    mode: Option<String>,
    reason: Option<String>,
    if_generation: Option<u64>,
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
fn reason(text: Option<String>) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    if text.chars().count() > MAX_REASON {
        return Err(ApiError::body(format_args!("reason has more than {MAX_REASON} characters")));
    }
    Ok(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}

/// Restarts.
pub(super) fn restart(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let RestartBody { mode, reason: why, if_generation } = parse(body)?;
    let mode = match mode.as_deref() {
        None | Some("graceful") => RestartMode::Graceful,
        Some("kill") => RestartMode::Kill,
        Some(other) => return Err(no_such_mode(other)),
    };
    let reason = reason(why)?;
    let call = format!("restart {id} {mode:?} {if_generation:?} {reason}");
    let request =
        RestartRequest { mode, reason: reason.clone(), if_generation, requested_by: caller.by.clone() };
    run(state, caller, &Call { what: &call, action: "restart", id: &id, reason: &reason }, |control| {
        control.restart(&id, request)
    })
}

fn no_such_mode(mode: &str) -> ApiError {
    let (code, message) = match mode {
        "handover" => ("MODE_NOT_AVAILABLE", "mode handover is not available".to_owned()),
        other => ("INVALID_MODE", format!("mode {other:?} is not known")),
    };
    ApiError::new(StatusCode::BAD_REQUEST, code, message).with("validModes", ["graceful", "kill"])
}

/// Pauses.
pub(super) fn pause(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason(parse::<ReasonBody>(body)?.reason)?;
    let what = format!("pause {id}");
    run(state, caller, &Call { what: &what, action: "pause", id: &id, reason: &reason }, |control| {
        control.pause(&id, &caller.by, &reason)
    })
}

/// Resumes.
pub(super) fn resume(state: &AppState, caller: &Caller, id: ActorId, body: Body) -> Answer {
    let reason = reason(parse::<ReasonBody>(body)?.reason)?;
    let what = format!("resume {id}");
    run(state, caller, &Call { what: &what, action: "resume", id: &id, reason: &reason }, |control| {
        control.resume(&id, &caller.by, &reason)
    })
}

struct Call<'a> {
    what: &'a str,
    action: &'static str,
    id: &'a ActorId,
    reason: &'a str,
}

fn run(
    state: &AppState,
    caller: &Caller,
    call: &Call<'_>,
    act: impl FnOnce(&Control) -> Result<OperationId, ControlError>,
) -> Answer {
    let control = state.system.control();
    let done = state.replays.once(caller.key.as_deref(), call.what, || act(&control).map_err(ApiError::from));
    let Call { action, id, reason, .. } = call;
    match &done {
        Ok(operation) => {
            tracing::info!(target: "audit", by = caller.by, action, %id, reason, %operation, "accepted");
        }
        Err(error) => tracing::warn!(target: "audit", by = caller.by, action, %id, reason, %error, "refused"),
    }
    accepted(&control, &done?)
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
