//! What a request is told when it cannot be answered: a status, a stable code, and details that name the input.
//! Causes inside the service are logged, never told.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, Responder, ResponseError,
    http::{StatusCode, header},
};
use fathom_actors::kernel::{AskError, ControlError};
use fathom_storage::StoreError;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::{RawValue, to_raw_value};

/// The outcome of a handler.
pub(super) type Answer = Result<HttpResponse, ApiError>;

/// 200 with this body.
pub(super) fn ok(body: &impl Serialize) -> Answer {
    answer(StatusCode::OK, body)
}

/// This status with this body.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_string(body).map_err(ApiError::internal)?;
    Ok(HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text))
}

/// An error, as JSON: `{error, message?, ...details}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Option<String>,
    details: Vec<(&'static str, Box<RawValue>)>,
    headers: Vec<(header::HeaderName, String)>,
}

impl ApiError {
    /// A code alone, as the older paths answer.
    pub(super) const fn bare(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, message: None, details: Vec::new(), headers: Vec::new() }
    }

    /// A code and a sentence that names the input.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::bare(status, code) }
    }

    /// 400 with a code alone.
    pub(super) const fn bad(code: &'static str) -> Self {
        Self::bare(StatusCode::BAD_REQUEST, code)
    }

    /// 400: this query parameter is unusable.
    pub(super) fn parameter(name: &str, given: &str, expected: &str) -> Self {
        let shown: String = given.chars().take(64).collect();
        let message = format!("{name}={shown} is not {expected}");
        Self::new(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", message).with("parameter", name)
    }

    /// 400: the body is unusable.
    pub(super) fn body(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_BODY", format!("body: {message}"))
    }

    /// 404.
    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 405.
    pub(super) fn method(allowed: &'static str) -> Self {
        let message = format!("this path takes {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
            .header(header::ALLOW, allowed)
    }

    /// 503, to be tried again.
    pub(super) fn unavailable(code: &'static str, message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after)
    }

    /// 500; the cause goes to the log.
    pub(super) fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::bare(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
    }

    /// Adds a detail.
    pub(super) fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        match to_raw_value(&value) {
            Ok(value) => self.details.push((name, value)),
            Err(error) => tracing::error!(%error, name, "a detail of an error cannot be told"),
        }
        self
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says when to try again, in whole seconds, at least one.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        self.header(header::RETRY_AFTER, seconds.to_string())
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("error", self.code)?;
        if let Some(message) = &self.message {
            map.serialize_entry("message", message)?;
        }
        for (name, value) in &self.details {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message.as_deref().unwrap_or_default())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let body = serde_json::to_string(self).unwrap_or_else(|_| r#"{"error":"INTERNAL_ERROR"}"#.to_owned());
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, "application/json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.as_str()));
        }
        response.body(body)
    }
}

impl Responder for ApiError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &actix_web::HttpRequest) -> HttpResponse {
        self.error_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(format_args!("store: {error}"))
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        let code = match error {
            AskError::Restarting { .. } => "ACTOR_RESTARTING",
            AskError::Unavailable { .. } | AskError::Stopped => "ACTOR_UNAVAILABLE",
            AskError::Overloaded => "ACTOR_OVERLOADED",
            AskError::Deadline => "ACTOR_TIMEOUT",
        };
        let wait = error.retry_after().unwrap_or(Duration::from_secs(5));
        Self::unavailable(code, error.to_string(), wait)
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::NotFound(_) => Self::not_found("ACTOR_NOT_FOUND", message),
            ControlError::OperationRunning { operation } => {
                Self::new(StatusCode::CONFLICT, "OPERATION_RUNNING", message).with("operation", operation)
            }
            ControlError::GenerationMismatch { current } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "GENERATION_MISMATCH", message)
                    .with("generation", current)
            }
            ControlError::Quarantined { why } => {
                Self::new(StatusCode::LOCKED, "QUARANTINED", message).with("why", why)
            }
            ControlError::TooMany { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_RESTARTS", message)
                    .retry_after(retry_after)
            }
            ControlError::Unavailable(_) => {
                Self::unavailable("NOT_POSSIBLE_NOW", message, Duration::from_secs(1))
            }
        }
    }
}
