//! A blocking HTTP client, one for each thread.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A client of one base address.
pub struct Http {
    base: String,
    token: Option<String>,
    timeout: Duration,
    authority: Option<PathBuf>,
    client: reqwest::Client,
    runtime: Runtime,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, or the text as a JSON string.
    pub body: Value,
}

impl Http {
    /// A client that waits for an answer for 20 s.
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self::patient(base, token, TIMEOUT, None)
    }

    fn patient(base: &str, token: Option<&str>, timeout: Duration, authority: Option<&Path>) -> Self {
        // The second call finds it installed, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No connection is kept: an idle one that the server closes would fail a later request.
        let client = reqwest::Client::builder().timeout(timeout).no_proxy().pool_max_idle_per_host(0);
        let client = match authority {
            Some(file) => client.tls_certs_merge([certificate(file)]),
            None => client,
        };
        Self {
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            timeout,
            authority: authority.map(Path::to_owned),
            client: client.build().expect("client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime"),
        }
    }

    /// A client that also trusts the authority in this file (PEM).
    pub fn trusting(base: &str, authority: &Path) -> Self {
        Self::patient(base, None, TIMEOUT, Some(authority))
    }

    /// Another client to the same place.
    pub fn again(&self) -> Self {
        Self::patient(&self.base, self.token.as_deref(), self.timeout, self.authority.as_deref())
    }

    /// Another client to the same place that waits for an answer only so long.
    #[must_use]
    pub fn hasty(&self, timeout: Duration) -> Self {
        Self::patient(&self.base, self.token.as_deref(), timeout, self.authority.as_deref())
    }

    /// The same place with another token.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self::new(&self.base, token)
    }

    /// Its base address.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let asking = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let (status, bytes) = self.runtime.block_on(asking).map_err(|error| format!("{error:?}"))?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Ok(Answer { status, body })
    }

    /// Asks.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.client.get(format!("{}{path}", self.base)))
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let request = self.client.post(format!("{}{path}", self.base));
        self.send(request.header("content-type", "application/json").body(body.to_string()))
    }

    /// Sends JSON by PUT.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn put(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let request = self.client.put(format!("{}{path}", self.base));
        self.send(request.header("content-type", "application/json").body(body.to_string()))
    }

    /// Asks for what has to be there.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(answer.status, 200, "GET {path}: {:#}", answer.body);
        answer.body
    }
}

fn certificate(file: &Path) -> reqwest::Certificate {
    let pem = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    reqwest::Certificate::from_pem(&pem).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
