//! `fathom ctl`: asks and commands a running service over its HTTP interface.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CliError, block_on};

const SYMBOLS: &str = "/api/v1/symbols";
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restart is followed.
const FOLLOW: Duration = Duration::from_secs(180);

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
    /// The wanted symbols, and what became of each.
    #[command(name = "get_symbols")]
    GetSymbols(Where),
    /// Collect a symbol too, and follow it until its books are live.
    #[command(name = "add_symbol")]
    AddSymbol {
        /// Native or unified name, such as `BTCUSDT` or `BTC/USDT`.
        symbol: String,
        /// `high`, `medium` or `low`; found without it.
        #[arg(long)]
        tier: Option<String>,
        #[command(flatten)]
        reach: Where,
    },
    /// Collect a symbol no more.
    #[command(name = "remove_symbol")]
    RemoveSymbol {
        /// Native or unified name.
        symbol: String,
        #[command(flatten)]
        reach: Where,
    },
    /// Collect these symbols and no others.
    #[command(name = "set_symbols")]
    SetSymbols {
        /// Names with commas between them, the most important first.
        #[arg(value_delimiter = ',', required = true)]
        symbols: Vec<String>,
        #[command(flatten)]
        reach: Where,
    },
    /// Restart a shard or any actor, and follow it to its end.
    Restart {
        /// Shard id, or actor id.
        id: String,
        /// `handover`, `graceful` or `kill`; by default handover for a shard, graceful for others.
        #[arg(long)]
        mode: Option<String>,
        /// Why, for the log.
        #[arg(long, default_value = "")]
        reason: String,
        /// Only if it is at this generation.
        #[arg(long)]
        if_generation: Option<u64>,
        /// How long a handover may take, milliseconds.
        #[arg(long)]
        deadline_ms: Option<u64>,
        /// Even if it is quarantined.
        #[arg(long)]
        force: bool,
    },
    /// Restart the shards that a selector takes, some at a time, and follow it to its end.
    RestartShards(RestartShards),
    /// Load one symbol's book anew without touching its socket, and follow it to its end.
    Resync {
        /// Such as `binance/spot/BTCUSDT`.
        stream: String,
        /// Why, for the log.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Close a shard's sockets, or stop any actor, until it is resumed; followed to its end.
    Pause(Named),
    /// Let a paused shard or actor go on, and follow it to its end.
    Resume(Named),
    /// Keep an actor down until it is lifted, and follow it to its end.
    Quarantine(Named),
    /// Let an actor up that is quarantined, with those who were kept down because of it.
    Lift(Named),
    /// The gap ledger, the newest first.
    Gaps(GapFilter),
    /// The stores and what became of every row, or one of them.
    Sinks {
        /// Sink id, such as `store`.
        id: Option<String>,
    },
    /// The rows that a store refused, with its words.
    Quarantined {
        /// Sink id.
        #[arg(default_value = "store")]
        sink: String,
        /// Only those of this table.
        #[arg(long)]
        table: Option<String>,
        /// So many at most.
        #[arg(long)]
        limit: Option<u32>,
    },
    /// Offer refused rows to the store again, once the cause is gone.
    Resend {
        /// Only this row; all of them without it.
        row: Option<u64>,
        /// Sink id.
        #[arg(long, default_value = "store")]
        sink: String,
    },
    /// The last writing calls.
    Audit {
        /// So many at most.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
}

/// A shard or an actor that something is done with.
#[derive(Debug, Args)]
struct Named {
    /// Shard id, or actor id.
    id: String,
    /// Why, for the log.
    #[arg(long, default_value = "")]
    reason: String,
}

impl Named {
    /// Actors have paths, shards have not; a bare name such as `writer` is tried as a shard first.
    fn kinds(&self) -> &'static [&'static str] {
        if self.id.contains('/') { &["actors"] } else { &["shards", "actors"] }
    }
}

/// Which gaps are meant; all of them without it.
#[derive(Debug, Default, Args)]
struct GapFilter {
    /// `open`, `none_missed`, `resynced`, `repaired` or `lost`.
    #[arg(long)]
    status: Option<String>,
    /// Only this venue.
    #[arg(long)]
    venue: Option<String>,
    /// Only this market: `spot` or `futures`.
    #[arg(long)]
    market: Option<String>,
    /// Only this symbol.
    #[arg(long)]
    symbol: Option<String>,
    /// Such as `trade`, `depth` or `candle:1m`.
    #[arg(long)]
    channel: Option<String>,
    /// Such as `disconnect` or `restart`.
    #[arg(long)]
    cause: Option<String>,
    /// From this time on, milliseconds UTC.
    #[arg(long)]
    from: Option<i64>,
    /// Up to this time, milliseconds UTC.
    #[arg(long)]
    to: Option<i64>,
    /// So many at most.
    #[arg(long)]
    limit: Option<u32>,
}

impl GapFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let words = [
            ("status", &self.status),
            ("venue", &self.venue),
            ("market", &self.market),
            ("symbol", &self.symbol),
            ("channel", &self.channel),
            ("cause", &self.cause),
        ];
        let words = words.into_iter().filter_map(|(name, word)| Some((name, word.clone()?)));
        let times = [("from", self.from), ("to", self.to), ("limit", self.limit.map(i64::from))];
        words.chain(times.into_iter().filter_map(|(name, at)| Some((name, at?.to_string())))).collect()
    }
}

#[derive(Debug, Args)]
struct RestartShards {
    /// Such as `venue=binance,market=spot,tier=high,state=failed`; empty means all.
    #[arg(default_value = "")]
    selector: String,
    /// Only those that have failed.
    #[arg(long)]
    only_failed: bool,
    /// So many at a time.
    #[arg(long, default_value_t = 1)]
    max_parallel: u32,
    /// Time between the beginnings of two, milliseconds.
    #[arg(long, default_value_t = 0)]
    stagger_ms: u64,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Go on with the others when one has failed.
    #[arg(long)]
    keep_going: bool,
    /// `handover`, `graceful` or `kill`.
    #[arg(long, default_value = "handover")]
    mode: String,
    /// Why, for the log.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Which markets are meant; all of them without it.
#[derive(Debug, Args)]
struct Where {
    /// Only this venue.
    #[arg(long)]
    venue: Option<String>,
    /// Only this market: `spot` or `futures`.
    #[arg(long)]
    market: Option<String>,
}

impl Where {
    fn query(&self) -> Vec<(&'static str, &str)> {
        let venue = self.venue.as_deref().map(|venue| ("venue", venue));
        venue.into_iter().chain(self.market.as_deref().map(|market| ("market", market))).collect()
    }

    fn body(&self, mut body: Value) -> Value {
        for (name, value) in self.query() {
            body[name] = json!(value);
        }
        body
    }
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
            CtlCommand::GetSymbols(reach) => self.send(self.http.get(self.symbols(None, reach)?)).await,
            CtlCommand::AddSymbol { symbol, tier, reach } => {
                let mut body = reach.body(json!({ "symbol": symbol }));
                if let Some(tier) = tier {
                    body["tier"] = json!(tier);
                }
                self.change_symbols(self.http.post(format!("{}{SYMBOLS}", self.url)), Some(&body)).await
            }
            CtlCommand::RemoveSymbol { symbol, reach } => {
                let url = self.symbols(Some(symbol), reach)?;
                self.change_symbols(self.http.delete(url), None).await
            }
            CtlCommand::SetSymbols { symbols, reach } => {
                let body = reach.body(json!({ "symbols": symbols }));
                self.change_symbols(self.http.put(format!("{}{SYMBOLS}", self.url)), Some(&body)).await
            }
            CtlCommand::Restart { id, mode, reason, if_generation, deadline_ms, force } => {
                let body = json!({ "mode": mode, "reason": reason, "if_generation": if_generation,
                    "deadline_ms": deadline_ms, "force": force });
                // Actors have paths, shards have not; a bare name such as `writer` is tried as a shard first.
                let kinds: &[&str] = if id.contains('/') { &["actors"] } else { &["shards", "actors"] };
                self.restart(kinds, id, &body).await
            }
            CtlCommand::RestartShards(order) => self.restart_shards(order).await,
            CtlCommand::Resync { stream, reason } => {
                let body = json!({ "reason": reason });
                self.follow(self.post(&format!("/api/v1/streams/{stream}/resync"), &body).await?).await
            }
            CtlCommand::Pause(named) => {
                self.change(reqwest::Method::PUT, named.kinds(), named, "pause").await
            }
            CtlCommand::Resume(named) => {
                self.change(reqwest::Method::PUT, named.kinds(), named, "resume").await
            }
            CtlCommand::Quarantine(named) => {
                self.change(reqwest::Method::PUT, &["actors"], named, "quarantine").await
            }
            CtlCommand::Lift(named) => {
                self.change(reqwest::Method::DELETE, &["actors"], named, "quarantine").await
            }
            CtlCommand::Gaps(filter) => self.query("/api/v1/gaps", &filter.query()).await,
            CtlCommand::Sinks { id: Some(id) } => self.get(&format!("/api/v1/sinks/{id}")).await,
            CtlCommand::Sinks { id: None } => self.get("/api/v1/sinks").await,
            CtlCommand::Quarantined { sink, table, limit } => {
                let limit = limit.map(|limit| ("limit", limit.to_string()));
                let query: Vec<_> = table.iter().map(|table| ("table", table.clone())).chain(limit).collect();
                self.query(&format!("/api/v1/sinks/{sink}/quarantine"), &query).await
            }
            CtlCommand::Resend { row, sink } => {
                let row = row.map(|row| format!("/{row}")).unwrap_or_default();
                self.post(&format!("/api/v1/sinks/{sink}/quarantine{row}/resend"), &json!({})).await
            }
            CtlCommand::Audit { limit } => self.get(&format!("/api/v1/audit?limit={limit}")).await,
        }
    }

    async fn restart_shards(&self, order: &RestartShards) -> anyhow::Result<Value> {
        let body = json!({ "selector": order.selector, "only_failed": order.only_failed,
            "max_parallel": order.max_parallel, "stagger_ms": order.stagger_ms, "dry_run": order.dry_run,
            "keep_going": order.keep_going, "mode": order.mode, "reason": order.reason });
        let answer = self.post("/api/v1/shards/restart", &body).await?;
        if order.dry_run { Ok(answer) } else { self.follow(answer).await }
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

    /// Does something with a shard or an actor and follows it.
    async fn change(
        &self,
        method: reqwest::Method,
        kinds: &[&str],
        named: &Named,
        verb: &str,
    ) -> anyhow::Result<Value> {
        let mut outcome = Err(anyhow::anyhow!("{} is neither a shard nor an actor", named.id));
        for kind in kinds {
            let url = format!("{}/api/v1/{kind}/{}/{verb}", self.url, named.id);
            let body = json!({ "reason": named.reason }).to_string();
            let request = self.http.request(method.clone(), url).header("content-type", "application/json");
            outcome = self.send(request.body(body)).await;
            if !outcome.as_ref().is_err_and(is_not_found) {
                break;
            }
        }
        self.follow(outcome?).await
    }

    async fn query(&self, path: &str, query: &[(&'static str, String)]) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url)).context("address")?;
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        self.send(self.http.get(url)).await
    }

    fn symbols(&self, symbol: Option<&str>, reach: &Where) -> anyhow::Result<reqwest::Url> {
        let mut url = reqwest::Url::parse(&format!("{}{SYMBOLS}", self.url)).context("address")?;
        if let (Some(symbol), Ok(mut path)) = (symbol, url.path_segments_mut()) {
            path.extend(symbol.split('/'));
        }
        for (name, value) in reach.query() {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// Sends a change and follows it; the answer is the service's own with the operation as it ended.
    async fn change_symbols(
        &self,
        request: reqwest::RequestBuilder,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let mut accepted = self.send(request).await?;
        accepted["operation"] = self.follow(accepted.clone()).await?;
        Ok(accepted)
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use clap::Parser;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CtlArgs,
    }

    /// Answers every call; shards are not known, operations are done. Gives the calls as they came.
    #[allow(clippy::disallowed_methods, reason = "the server of a test ends with its runtime")]
    async fn service() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let kept = calls.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut text = Vec::new();
                while !is_whole(&text) && socket.read_buf(&mut text).await.is_ok_and(|read| read > 0) {}
                let text = String::from_utf8(text).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let call = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
                let (status, answer) = match call.as_str() {
                    call if call.contains("/shards/writer") => (404, "{}"),
                    call if call.contains("/operations/") => (200, r#"{"id":"op-1","state":"done"}"#),
                    _ => (200, r#"{"operation":{"id":"op-1"}}"#),
                };
                kept.lock().unwrap().push(format!("{call} {body}").trim_end().to_owned());
                let length = answer.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, calls)
    }

    fn is_whole(text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    #[tokio::test]
    async fn verbs_call_what_they_name() {
        fathom_transport::install_provider();
        let (url, calls) = service().await;
        let done = "GET /api/v1/operations/op-1";
        let expected: [(&str, &[&str]); 10] = [
            (
                "pause binance-spot-high-0 --reason x",
                &[r#"PUT /api/v1/shards/binance-spot-high-0/pause {"reason":"x"}"#, done],
            ),
            (
                "resume writer",
                &[
                    r#"PUT /api/v1/shards/writer/resume {"reason":""}"#,
                    r#"PUT /api/v1/actors/writer/resume {"reason":""}"#,
                    done,
                ],
            ),
            (
                "quarantine book/a/spot/B",
                &[r#"PUT /api/v1/actors/book/a/spot/B/quarantine {"reason":""}"#, done],
            ),
            (
                "lift book/a/spot/B",
                &[r#"DELETE /api/v1/actors/book/a/spot/B/quarantine {"reason":""}"#, done],
            ),
            (
                "gaps --status open --channel candle:1m --limit 5",
                &["GET /api/v1/gaps?status=open&channel=candle%3A1m&limit=5"],
            ),
            ("sinks", &["GET /api/v1/sinks"]),
            ("sinks store", &["GET /api/v1/sinks/store"]),
            ("quarantined --table trades", &["GET /api/v1/sinks/store/quarantine?table=trades"]),
            ("resend 17", &["POST /api/v1/sinks/store/quarantine/17/resend {}"]),
            ("resend", &["POST /api/v1/sinks/store/quarantine/resend {}"]),
        ];
        for (line, expected) in expected {
            let words = ["ctl", "--url", &url].into_iter().chain(line.split(' '));
            let Line { args } = Line::try_parse_from(words).unwrap();
            Client::new(&args).unwrap().obey(&args.command).await.unwrap();
            assert_eq!(std::mem::take(&mut *calls.lock().unwrap()), expected, "{line}");
        }
    }
}
