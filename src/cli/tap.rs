//! `fathom tap`: live events of a running service, filtered and at a bearable rate.

use std::io::{BufRead as _, Write};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use serde_json::Value;

use super::{CliError, block_on};

#[derive(Debug, Args)]
pub(super) struct TapArgs {
    /// Address of the service.
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "FATHOM_URL")]
    url: String,
    /// Only this venue.
    #[arg(long)]
    venue: Option<String>,
    /// Only this market: `spot` or `futures`.
    #[arg(long)]
    market: Option<String>,
    /// Only this symbol, native or unified.
    #[arg(long)]
    symbol: Option<String>,
    /// Only this channel: `quote`, `trade`, `depth`, `candle`, `ticker` or `funding`.
    #[arg(long)]
    channel: Option<String>,
    /// Events a second at most; how many were left out is said.
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Ends after so many events.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Lines of JSON, as `fathom replay` prints them.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TapArgs) -> Result<(), CliError> {
    fathom_transport::install_provider();
    Ok(block_on(listen(args))?)
}

impl TapArgs {
    fn address(&self) -> anyhow::Result<reqwest::Url> {
        let base = format!("{}/api/v1/tap", self.url.trim_end_matches('/'));
        let mut url = reqwest::Url::parse(&base).with_context(|| format!("--url {}", self.url))?;
        let given = [
            ("venue", self.venue.clone()),
            ("market", self.market.clone()),
            ("symbol", self.symbol.clone()),
            ("channel", self.channel.clone()),
            ("rate", Some(self.rate.to_string())),
            ("limit", self.count.map(|count| count.to_string())),
        ];
        let mut query = url.query_pairs_mut();
        for (name, value) in given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            query.append_pair(name, value);
        }
        drop(query);
        Ok(url)
    }
}

async fn listen(args: &TapArgs) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build().context("HTTP client")?;
    let asked = client.get(args.address()?).send().await;
    let mut answer = asked.with_context(|| format!("no answer from {}", args.url))?;
    if !answer.status().is_success() {
        let (status, body) = (answer.status(), answer.text().await.unwrap_or_default());
        bail!("{status}: {body}");
    }
    let mut show = Show { json: args.json, missing: 0, ended: false };
    let mut pending = Vec::new();
    while let Some(piece) = answer.chunk().await.context("the service is gone")? {
        pending.extend_from_slice(&piece);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = pending.drain(..=end).collect();
        if !show.lines(&lines, &mut std::io::stdout().lock()).context("write the output")? {
            return Ok(());
        }
    }
    if show.ended { Ok(()) } else { bail!("the service ended the answer") }
}

/// What was shown so far.
struct Show {
    json: bool,
    /// Events that were not shown, as last told.
    missing: u64,
    ended: bool,
}

impl Show {
    /// Prints whole lines; false when nobody reads them any more.
    fn lines(&mut self, lines: &[u8], out: &mut impl Write) -> std::io::Result<bool> {
        for line in lines.lines() {
            let line = line?;
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            let text = if value["type"] == "tap" {
                self.account(&value, line)
            } else {
                Some(self.event(&value, line))
            };
            let Some(text) = text else { continue };
            match writeln!(out, "{text}") {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
                outcome => outcome?,
            }
        }
        out.flush()?;
        Ok(true)
    }

    /// What is said of events that are not shown: only when there are more of them.
    fn account(&mut self, value: &Value, line: String) -> Option<String> {
        self.ended |= value["state"] == "end";
        let count = |key: &str| value[key].as_u64().unwrap_or(0);
        let (left_out, dropped) = (count("left_out"), count("dropped"));
        let more = left_out + dropped > self.missing;
        self.missing = left_out + dropped;
        if !more {
            return None;
        }
        if self.json {
            return Some(line);
        }
        Some(format!("--- {} shown, {left_out} left out by the rate, {dropped} dropped", count("sent")))
    }

    fn event(&self, value: &Value, line: String) -> String {
        if self.json {
            return line;
        }
        let text = |key: &str| value[key].as_str().unwrap_or("-");
        let what = match text("type") {
            "quote" => {
                format!("{} x {}  {} x {}", text("bid_qty"), text("bid"), text("ask"), text("ask_qty"))
            }
            "trade" => format!("{} {} @ {}", text("side"), text("qty"), text("price")),
            "book" => {
                let levels = |side: &str| value[side].as_array().map_or(0, Vec::len);
                format!("{} {} bids, {} asks", text("kind"), levels("bids"), levels("asks"))
            }
            "candle" => {
                let state = if value["closed"] == true { "closed" } else { "open" };
                format!("{} {state} {} volume {}", text("timeframe"), text("close"), text("volume"))
            }
            "ticker" => format!("last {} volume {}", text("last"), text("volume")),
            "funding" => format!("mark {} rate {}", text("mark_price"), text("rate")),
            _ => String::new(),
        };
        let place = format!("{}/{}", text("venue"), text("market"));
        format!("{} {place:<16} {:<18} {:<7} {what}", time(&value["recv_us"]), text("symbol"), text("type"))
    }
}

/// `12:34:56.789` UTC.
fn time(us: &Value) -> String {
    let at = us.as_i64().and_then(chrono::DateTime::from_timestamp_micros);
    at.map_or_else(|| "-".to_owned(), |at| at.format("%H:%M:%S%.3f").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: bool, lines: &str) -> (String, Show) {
        let mut show = Show { json, missing: 0, ended: false };
        let mut out = Vec::new();
        assert!(show.lines(lines.as_bytes(), &mut out).unwrap());
        (String::from_utf8(out).unwrap(), show)
    }

    const TRADE: &str = r#"{"type":"trade","venue":"binance","market":"spot","symbol":"BTC/USDT","recv_us":1000000,"side":"buy","qty":"0.5","price":"91250.1"}"#;

    #[test]
    fn events_are_shown_and_what_is_not_is_counted_once() {
        let account = |left_out: u64, state: &str| {
            format!(r#"{{"type":"tap","state":"{state}","sent":1,"left_out":{left_out},"dropped":2}}"#)
        };
        let lines = [account(0, "open"), TRADE.to_owned(), account(0, "open"), account(3, "end")].join("\n");
        let (text, show) = shown(false, &lines);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "--- 1 shown, 0 left out by the rate, 2 dropped",
                "00:00:01.000 binance/spot     BTC/USDT           trade   buy 0.5 @ 91250.1",
                "--- 1 shown, 3 left out by the rate, 2 dropped",
            ]
        );
        assert!(show.ended);
        let (json, _) = shown(true, TRADE);
        assert_eq!(json, format!("{TRADE}\n"));
    }

    #[test]
    fn what_was_asked_for_is_spelled_in_the_address() {
        let args = TapArgs {
            url: "http://x:1/".into(),
            venue: None,
            market: Some("spot".into()),
            symbol: Some("BTC/USDT".into()),
            channel: None,
            rate: 7,
            count: Some(3),
            json: false,
        };
        let expected = "http://x:1/api/v1/tap?market=spot&symbol=BTC%2FUSDT&rate=7&limit=3";
        assert_eq!(args.address().unwrap().as_str(), expected);
    }
}
