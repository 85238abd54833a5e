//! Asks the service what is shown, all paths at once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

/// An answer later than this is as good as none.
const TIMEOUT: Duration = Duration::from_secs(3);
const HEALTH: &str = "/api/v1/health";
/// What is shown beside the health, by the name under which the model finds it.
const PATHS: [(&str, &str); 5] = [
    ("actors", "/api/v1/actors?limit=1000"),
    ("shards", "/api/v1/shards"),
    ("sinks", "/api/v1/sinks"),
    ("status", "/api/v1/admin/status"),
    ("gaps", "/api/v1/gaps?status=open&limit=200"),
];

/// What the service answered, by name; what it could not answer is missing.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) by_name: BTreeMap<String, Value>,
    pub(super) at: Instant,
}

impl Answers {
    pub(super) fn get(&self, name: &str) -> &Value {
        self.by_name.get(name).unwrap_or(&Value::Null)
    }

    /// The elements of a list.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.get(name)[name].as_array().map_or(&[], Vec::as_slice)
    }
}

pub(super) struct Fetcher {
    client: reqwest::Client,
    url: String,
}

impl Fetcher {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("HTTP client")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// Asks for everything. Without an answer about its health the service counts as away.
    pub(super) async fn ask(&self) -> anyhow::Result<Answers> {
        let at = Instant::now();
        let health = self.get(HEALTH, true).await?;
        let answers =
            join_all(PATHS.map(|(name, path)| async move { (name, self.get(path, false).await) })).await;
        let found = answers.into_iter().filter_map(|(name, answer)| Some((name.to_owned(), answer.ok()?)));
        let mut by_name: BTreeMap<String, Value> = found.collect();
        let budgets = self.budgets(by_name.get("shards").unwrap_or(&Value::Null)).await;
        by_name.insert("budgets".to_owned(), serde_json::json!({ "budgets": budgets }));
        by_name.insert("health".to_owned(), health);
        Ok(Answers { by_name, at })
    }

    /// The REST budgets of every venue that has a shard.
    async fn budgets(&self, shards: &Value) -> Vec<Value> {
        let shards = shards["shards"].as_array().into_iter().flatten();
        let mut venues: Vec<&str> = shards.filter_map(|shard| shard["venue"].as_str()).collect();
        venues.sort_unstable();
        venues.dedup();
        let asked = venues.into_iter().map(|venue| async move {
            self.get(&format!("/api/v1/venues/{venue}/budget"), false).await.ok()
        });
        let answers = join_all(asked).await.into_iter().flatten();
        answers
            .flat_map(|mut answer| answer["budgets"].as_array_mut().map(std::mem::take).unwrap_or_default())
            .collect()
    }

    async fn get(&self, path: &str, any_status: bool) -> anyhow::Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await;
        let answer = answer.with_context(|| format!("no answer from {}", self.url))?;
        let status = answer.status();
        let body = answer.bytes().await.context("read the answer")?;
        // A service that is not well says so with 503 and the same body.
        if !(status.is_success() || any_status && status.as_u16() == 503) {
            bail!("{path}: status {status}");
        }
        serde_json::from_slice(&body).with_context(|| format!("{path}: no JSON"))
    }
}
