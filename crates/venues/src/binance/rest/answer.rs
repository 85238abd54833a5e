//! What the status of an answer means (sheet section 2, "Status semantics"; spot `errors.md`).

use fathom_market::plan::RestAnswer;

use crate::{
    binance::{field, wire},
    error::RestError,
};

/// "Too many requests", whatever the status around it.
const TOO_MANY_REQUESTS: i64 = -1003;

/// The body of a success.
///
/// # Errors
/// What the refusal means. Bodies of the firewall are often HTML: they are read tolerantly.
pub fn success(answer: &RestAnswer) -> Result<&[u8], RestError> {
    let retry_after = answer.retry_after;
    let (code, message) = match answer.status {
        200..=299 => return Ok(&answer.body),
        418 => return Err(RestError::Banned { retry_after }),
        // 403 is the firewall, which also counts requests: going on would end in a ban.
        403 | 429 => return Err(RestError::RateLimited { retry_after }),
        _ => error_body(&answer.body),
    };
    if code == Some(TOO_MANY_REQUESTS) {
        return Err(RestError::RateLimited { retry_after });
    }
    match answer.status {
        408 | 500..=599 => Err(RestError::Server { status: answer.status, message }),
        status => Err(RestError::Rejected { status, code, message }),
    }
}

fn error_body(body: &[u8]) -> (Option<i64>, String) {
    match serde_json::from_slice::<wire::ErrorBody<'_>>(body) {
        Ok(error) => {
            let code = error.code.as_ref().and_then(|code| code.as_str().parse().ok());
            (code, error.msg.map(|msg| msg.0.chars().take(200).collect()).unwrap_or_default())
        }
        Err(_) => (None, field::cut(&String::from_utf8_lossy(body.get(..256).unwrap_or(body)))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(status: u16, body: &str) -> Result<Vec<u8>, RestError> {
        let retry_after = Some(Duration::from_secs(7));
        success(&RestAnswer { status, retry_after, body: body.into() }).map(<[u8]>::to_vec)
    }

    #[test]
    fn statuses_say_what_to_do() {
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(of(200, "{}"), Ok(b"{}".to_vec()));
        assert_eq!(
            of(429, r#"{"code":-1003,"msg":"Too much request weight used"}"#),
            Err(RestError::RateLimited { retry_after })
        );
        assert_eq!(of(418, ""), Err(RestError::Banned { retry_after }));
        assert_eq!(of(403, "<html>"), Err(RestError::RateLimited { retry_after }));
        assert_eq!(of(400, r#"{"code":-1003,"msg":"x"}"#), Err(RestError::RateLimited { retry_after }));
        assert_eq!(
            of(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#),
            Err(RestError::Rejected {
                status: 400,
                code: Some(-1121),
                message: "Invalid symbol.".to_owned()
            })
        );
        assert_eq!(
            of(503, "<html>busy"),
            Err(RestError::Server { status: 503, message: "<html>busy".to_owned() })
        );
    }
}
