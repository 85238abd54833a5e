//! REST calls: one GET, bounded in time and size, paid for from a [`RestBudget`].
//!
//! It neither retries nor judges an answer: every status is a [`RestAnswer`]. Only 429 and 418 matter here, to the budget.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use chrono::DateTime;
use fathom_market::plan::{Priority, RequestSpec, RestAnswer};
use reqwest::{Client, Response, Url, header::RETRY_AFTER, redirect::Policy};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::{Outcome, Permit, RestBudget, TransportError, UtcClock, install_provider};

/// Bounds of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestConfig {
    /// Bound on DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Bound on one request once it has its turn, from connecting to the last byte.
    pub request_timeout: Duration,
    /// Largest body accepted, bytes after decompression.
    pub max_body_bytes: usize,
    /// Idle connections kept for each host.
    pub idle_per_host: usize,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            max_body_bytes: 64 << 20,
            idle_per_host: 4,
        }
    }
}

/// A client with its own pool of connections. Clones share the pool.
///
/// A pooled connection is served by the runtime that opened it: where actors live on runtimes of their own, give each its
/// [`RestClient::with_own_pool`], or a runtime that hangs takes the connections of others with it. The budget is shared by
/// all.
#[derive(Clone)]
pub struct RestClient {
    client: Client,
    budget: RestBudget,
    tls: Arc<ClientConfig>,
    clock: UtcClock,
    config: RestConfig,
}

impl RestClient {
    /// A client with the default bounds.
    ///
    /// # Errors
    /// [`TransportError::Tls`] when the HTTP client cannot be made.
    pub fn new(budget: RestBudget, tls: Arc<ClientConfig>, clock: UtcClock) -> Result<Self, TransportError> {
        Self::with_config(budget, tls, clock, RestConfig::default())
    }

    /// A client with other bounds.
    ///
    /// # Errors
    /// As [`RestClient::new`].
    pub fn with_config(
        budget: RestBudget,
        tls: Arc<ClientConfig>,
        clock: UtcClock,
        config: RestConfig,
    ) -> Result<Self, TransportError> {
        install_provider();
        let mut http_tls = ClientConfig::clone(&tls);
        http_tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(http_tls)
            .user_agent(concat!("fathom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.idle_per_host)
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            // A redirect would be a second request that nobody paid for.
            .redirect(Policy::none())
            // So would one that the library repeats.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(|error| TransportError::Tls(describe(&error)))?;
        Ok(Self { client, budget, tls, clock, config })
    }

    /// The same budget and bounds with a pool of its own, for another runtime.
    ///
    /// # Errors
    /// As [`RestClient::new`].
    pub fn with_own_pool(&self) -> Result<Self, TransportError> {
        Self::with_config(self.budget.clone(), Arc::clone(&self.tls), Arc::clone(&self.clock), self.config)
    }

    /// The budget it draws on.
    pub fn budget(&self) -> &RestBudget {
        &self.budget
    }

    /// Waits for its turn, then asks. `deadline` bounds both together; dropping the future gives everything back.
    ///
    /// # Errors
    /// [`TransportError::Budget`] when it had no turn, [`TransportError::RequestDeadline`], [`TransportError::Request`] when
    /// no complete answer came, [`TransportError::BodyTooLarge`], [`TransportError::Address`].
    pub async fn get(
        &self,
        base: &str,
        spec: &RequestSpec,
        priority: Priority,
        deadline: Duration,
    ) -> Result<RestAnswer, TransportError> {
        let url = request_url(base, spec)?;
        let ends = Instant::now() + deadline;
        let permit = self.budget.acquire(&key_of(&url), spec.group, spec.weight, priority, deadline).await?;
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            permit.finish(Outcome::Unsent);
            return Err(TransportError::RequestDeadline { url: shown(&url), after: left });
        }
        let after = left.min(self.config.request_timeout);
        match tokio::time::timeout(after, self.send(url.clone(), permit)).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::RequestDeadline { url: shown(&url), after }),
        }
    }

    /// The permit goes back failed when this future is dropped before the headers have come, and with what they say as soon
    /// as the body has.
    async fn send(&self, url: Url, permit: Permit) -> Result<RestAnswer, TransportError> {
        let failed = |url: &Url, error: reqwest::Error| TransportError::Request {
            url: shown(url),
            reason: describe(&error.without_url()),
        };
        let response = self.client.get(url.clone()).send().await.map_err(|error| failed(&url, error))?;

        let status = response.status().as_u16();
        let retry_after = header(&response, RETRY_AFTER.as_str())
            .and_then(|value| parse_retry_after(value, (self.clock)()));
        let used = permit.used_header().and_then(|name| header(&response, name)?.trim().parse().ok());
        let mut slot =
            Slot { permit: Some(permit), outcome: Outcome::Answered { status, used, retry_after } };
        if matches!(status, 418 | 429) {
            // The others must stop now, and not when a slow body has arrived.
            slot.settle();
        }
        let body = self.body(response, &url).await?;
        Ok(RestAnswer { status, retry_after, body })
    }

    async fn body(&self, mut response: Response, url: &Url) -> Result<Vec<u8>, TransportError> {
        let limit = self.config.max_body_bytes;
        let too_large = || TransportError::BodyTooLarge { url: shown(url), limit };
        let announced = response.content_length().unwrap_or(0);
        if announced > limit as u64 {
            return Err(too_large());
        }
        // The announcement is the server's word: memory follows the bytes that come.
        let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).min(1 << 20));
        while let Some(chunk) = response.chunk().await.map_err(|error| TransportError::Request {
            url: shown(url),
            reason: describe(&error.without_url()),
        })? {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl std::fmt::Debug for RestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestClient").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Reports an answered request's outcome even when its body never ends.
struct Slot {
    permit: Option<Permit>,
    outcome: Outcome,
}

impl Slot {
    fn settle(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.finish(self.outcome);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.settle();
    }
}

/// The name under which a REST base's budget is kept: its host, with the port where the address names one.
///
/// # Errors
/// [`TransportError::Address`] when `base` is no URL with a host.
pub fn host_key(base: &str) -> Result<String, TransportError> {
    parse_url(base).map(|url| key_of(&url))
}

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3), as a time from `now_us`, rounded up to whole seconds.
pub fn parse_retry_after(value: &str, now_us: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(value).ok()?.timestamp_micros();
    let left = u64::try_from(at.saturating_sub(now_us)).unwrap_or(0);
    Some(Duration::from_secs(left.div_ceil(1_000_000)))
}

fn parse_url(url: &str) -> Result<Url, TransportError> {
    let failed = |reason: String| TransportError::Address { url: url.to_owned(), reason };
    let parsed = Url::parse(url).map_err(|error| failed(error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" if parsed.has_host() => Ok(parsed),
        _ => Err(failed("not an http or https address with a host".into())),
    }
}

fn request_url(base: &str, spec: &RequestSpec) -> Result<Url, TransportError> {
    let mut url = format!("{}{}", base.trim_end_matches('/'), spec.path);
    for (i, (name, value)) in spec.query.iter().enumerate() {
        url.push(if i == 0 { '?' } else { '&' });
        encode(name, &mut url);
        url.push('=');
        encode(value, &mut url);
    }
    parse_url(&url)
}

/// Percent-encodes the UTF-8 bytes of all but the unreserved characters (RFC 3986, 2.3), so that no venue has to agree on
/// what a plus sign means.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => write!(out, "%{byte:02X}").unwrap_or(()),
        }
    }
}

fn key_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The address without its query, which may be long.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// The error with its causes: reqwest's own words rarely say what happened.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_never_shorter_than_asked() {
        let now_us = 784_111_777_400_000; // 1994-11-06 08:49:37.4
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(parse_retry_after(" 17 ", now_us), seconds(17));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now_us), seconds(60));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:36 GMT", now_us), seconds(0));
        assert_eq!(parse_retry_after("soon", now_us), None);
        assert_eq!(parse_retry_after("-1", now_us), None);
    }

    #[test]
    fn queries_are_encoded_by_their_utf8_bytes() {
        let spec = RequestSpec {
            path: "/api/v3/ticker".into(),
            query: vec![("symbols", r#"["BTCUSDT","币安人生USDT"]"#.into()), ("a", "x y+z&=/".into())],
            weight: 1,
            group: "weight",
        };
        let url = request_url("http://localhost:80/", &spec).unwrap();
        assert_eq!(
            url.as_str(),
            "http://localhost/api/v3/ticker?symbols=%5B%22BTCUSDT%22%2C%22%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT%22%5D\
             &a=x%20y%2Bz%26%3D%2F"
        );
    }

    #[test]
    fn a_budget_is_kept_by_host_and_explicit_port() {
        assert_eq!(host_key("https://api.example.com/base").unwrap(), "api.example.com");
        assert_eq!(host_key("http://127.0.0.1:8080").unwrap(), "127.0.0.1:8080");
        for wrong in ["api.example.com", "ftp://x", ""] {
            assert_eq!(host_key(wrong).unwrap_err().class(), crate::ErrorClass::Fatal, "{wrong}");
        }
    }
}
