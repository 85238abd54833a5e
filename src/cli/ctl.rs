//! `fathom ctl`: asks and commands a running service over its HTTP interface.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, block_on};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restart is followed.
const FOLLOW: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct CtlArgs {
    /// Address of the service.
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "FATHOM_URL", global = true)]
    url: String,
    /// Token of writing calls.
    #[arg(long, env = "FATHOM_API_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// The health of the whole tree.
    Health,
    /// The actors, or one of them.
    Actors {
        /// Actor id, such as `book/binance/spot/BTCUSDT`.
        id: Option<String>,
        /// Only those of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Only those in this state.
        #[arg(long)]
        state: Option<String>,
    },
    /// The shards, or one of them.
    Shards {
        /// Shard id, such as `binance-spot-high-0`.
        id: Option<String>,
    },
    /// Restart a shard or any actor, and follow it to its end.
    Restart {
        /// Shard id, or actor id.
        id: String,
        /// `graceful` or `kill`.
        #[arg(long, default_value = "graceful")]
        mode: String,
        /// Why, for the log.
        #[arg(long, default_value = "")]
        reason: String,
        /// Only if it is at this generation.
        #[arg(long)]
        if_generation: Option<u64>,
    },
}

pub(super) fn run(args: &CtlArgs) -> Result<(), CliError> {
    fathom_transport::install_provider();
    let answer = block_on(Client::new(args)?.obey(&args.command))?;
    println!("{answer:#}");
    Ok(())
}

struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    fn new(args: &CtlArgs) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("HTTP client")?;
        Ok(Self { http, url: args.url.trim_end_matches('/').to_owned(), token: args.token.clone() })
    }

    async fn obey(&self, command: &CtlCommand) -> anyhow::Result<Value> {
        match command {
            CtlCommand::Health => self.get("/api/v1/health").await,
            CtlCommand::Actors { id: Some(id), .. } => self.get(&format!("/api/v1/actors/{id}")).await,
            CtlCommand::Actors { id: None, kind, state } => {
                let mut query = Vec::new();
                query.extend(kind.as_ref().map(|kind| format!("kind={kind}")));
                query.extend(state.as_ref().map(|state| format!("state={state}")));
                self.get(&format!("/api/v1/actors?{}", query.join("&"))).await
            }
            CtlCommand::Shards { id: Some(id) } => self.get(&format!("/api/v1/shards/{id}")).await,
            CtlCommand::Shards { id: None } => self.get("/api/v1/shards").await,
            CtlCommand::Restart { id, mode, reason, if_generation } => {
                let mut body = json!({ "mode": mode, "reason": reason });
                if let Some(generation) = if_generation {
                    body["if_generation"] = json!(generation);
                }
                // Actors have paths, shards have not; a bare name such as `writer` is tried as a shard first.
                let kinds: &[&str] = if id.contains('/') { &["actors"] } else { &["shards", "actors"] };
                self.restart(kinds, id, &body).await
            }
        }
    }

    async fn restart(&self, kinds: &[&str], id: &str, body: &Value) -> anyhow::Result<Value> {
        let mut outcome = Err(anyhow::anyhow!("{id} is neither a shard nor an actor"));
        for kind in kinds {
            outcome = self.post(&format!("/api/v1/{kind}/{id}/restart"), body).await;
            if !outcome.as_ref().is_err_and(is_not_found) {
                break;
            }
        }
        self.follow(outcome?).await
    }

    async fn follow(&self, accepted: Value) -> anyhow::Result<Value> {
        let id = accepted["operation"]["id"].as_str().context("the answer names no operation")?.to_owned();
        let deadline = tokio::time::Instant::now() + FOLLOW;
        loop {
            let operation = self.get(&format!("/api/v1/operations/{id}")).await?;
            match operation["state"].as_str() {
                Some("done") => return Ok(operation),
                Some("failed") => anyhow::bail!("operation {id} failed: {operation:#}"),
                _ if tokio::time::Instant::now() > deadline => {
                    anyhow::bail!("operation {id} is still running: {operation:#}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url));
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().await.with_context(|| format!("no answer from {}", self.url))?;
        let status = answer.status();
        let body = answer.bytes().await.context("read the answer")?;
        let value = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        if status.is_success() {
            return Ok(value);
        }
        Err(Refused { status: status.as_u16(), body: value }.into())
    }
}

/// The service said no.
#[derive(Debug, thiserror::Error)]
#[error("status {status}: {body:#}")]
struct Refused {
    status: u16,
    body: Value,
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404)
}
