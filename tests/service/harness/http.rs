//! A blocking HTTP client, one for each thread.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Http {
    base: String,
    token: Option<String>,
    client: reqwest::Client,
    runtime: Runtime,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON, or the text as a JSON string.
    pub(crate) body: Value,
}

impl Http {
    pub(crate) fn new(base: &str, token: Option<&str>) -> Self {
        fathom_transport::install_provider();
        // No connection is kept: an idle one that the server closes would fail a later request.
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().pool_max_idle_per_host(0);
        Self {
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            client: client.build().expect("client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime"),
        }
    }

    /// Another client to the same place.
    pub(crate) fn again(&self) -> Self {
        Self::new(&self.base, self.token.as_deref())
    }

    /// The same place with another token.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self::new(&self.base, token)
    }

    pub(crate) fn base(&self) -> &str {
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

    /// Asks; `Err` when nothing answers.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.client.get(format!("{}{path}", self.base)))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let request = self.client.post(format!("{}{path}", self.base));
        self.send(request.header("content-type", "application/json").body(body.to_string()))
    }

    /// Asks for what has to be there.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(answer.status, 200, "GET {path}: {:#}", answer.body);
        answer.body
    }
}
