//! Who may write. Reading is open.
//!
//! With a token, the caller has to know it. Without one writing is open on loopback, so a web page of somebody else
//! that the operator happens to visit must not be able to use it: requests from another origin are refused, and so are
//! names that somebody else could point at this machine.

use std::{
    future::{Ready, ready},
    net::IpAddr,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
};

use super::{Shared, error::ApiError};

const MAX_KEY: usize = 128;

/// Somebody who may write.
#[derive(Debug)]
pub(super) struct Caller {
    /// Who, for logs and operations.
    pub(super) by: String,
    /// The `Idempotency-Key`.
    pub(super) key: Option<String>,
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admit(request))
    }
}

fn admit(request: &HttpRequest) -> Result<Caller, ApiError> {
    let state = request.app_data::<Shared>().ok_or_else(|| ApiError::internal("no state"))?;
    let peer = request.peer_addr().map_or_else(|| "unknown peer".to_owned(), |peer| peer.to_string());
    let allowed = match &state.token {
        Some(token) if bearer(request).is_some_and(|given| token.matches(given)) => Ok(()),
        Some(_) => Err(unauthorized()),
        None => is_own_origin(request).then_some(()).ok_or_else(foreign),
    };
    if let Err(error) = allowed {
        tracing::warn!(peer, method = %request.method(), path = request.path(), %error, "writing call refused");
        return Err(error);
    }
    let key = header_text(request, "idempotency-key").map(str::to_owned);
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        let message = format!("Idempotency-Key has to have 1 to {MAX_KEY} characters");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "INVALID_HEADER", message));
    }
    Ok(Caller { by: peer, key })
}

fn header_text<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = header_text(request, "authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_own_origin(request: &HttpRequest) -> bool {
    let host = request.connection_info().host().to_owned();
    let from_here = header_text(request, "origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| authority == host));
    from_here && is_own_name(&host)
}

/// True for `localhost` and plain addresses, which nobody else can redirect.
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn unauthorized() -> ApiError {
    let message = "this call needs the header Authorization: Bearer <token>";
    ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        .header(header::WWW_AUTHENTICATE, "Bearer realm=\"fathom\"")
}

fn foreign() -> ApiError {
    let message = "writing without a token is open to this machine's own pages and programs only";
    ApiError::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_can_redirect_are_own() {
        for own in ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.5"] {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil.example"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
