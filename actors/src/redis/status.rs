//! What the publisher shows of itself.

use std::collections::BTreeMap;

use fathom_delivery::{CacheFigures, Failure};
use serde::Serialize;

use crate::kernel::BreakerState;

/// What is published. Counts are of this instance.
#[derive(Clone, Debug, Serialize)]
pub struct RedisStatus {
    /// The server, without credentials.
    pub server: String,
    /// `connecting`, `connected` or `away`.
    pub state: &'static str,
    /// The breaker.
    pub breaker: BreakerState,
    /// Failures since something last went through.
    pub failures_in_a_row: u32,
    /// Milliseconds to the next attempt, while there is no connection.
    pub retry_in_ms: Option<i64>,
    /// The last failure, while it lasts.
    pub last_error: Option<String>,
    /// Failures by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// Pipelines that went through.
    pub flushes: u64,
    /// Commands of them.
    pub commands: u64,
    /// Messages to channels among those.
    pub messages: u64,
    /// Duration of the last pipeline, microseconds.
    pub last_flush_us: i64,
    /// What came while there was no connection.
    pub discarded: u64,
    /// Reads.
    pub cache: CacheFigures,
}

impl RedisStatus {
    pub(super) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            state: "connecting",
            breaker: BreakerState::Closed,
            failures_in_a_row: 0,
            retry_in_ms: None,
            last_error: None,
            failures: BTreeMap::new(),
            flushes: 0,
            commands: 0,
            messages: 0,
            last_flush_us: 0,
            discarded: 0,
            cache: CacheFigures::default(),
        }
    }

    /// True while commands go through.
    pub fn is_connected(&self) -> bool {
        self.state == "connected"
    }

    /// `closed`, `open` or `half_open`.
    pub const fn breaker_word(&self) -> &'static str {
        match self.breaker {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }

    /// Why it is not well.
    pub(super) fn why(&self) -> Vec<String> {
        let Some(error) = &self.last_error else { return Vec::new() };
        let next = match self.retry_in_ms {
            Some(ms) => format!("the next attempt is in {ms} ms"),
            None => "an attempt is under way".to_owned(),
        };
        vec![format!("redis: {error}; breaker {}, {next}", self.breaker_word())]
    }

    pub(super) fn settled(&mut self) {
        self.state = "connected";
        self.failures_in_a_row = 0;
        self.last_error = None;
    }

    pub(super) fn sent(&mut self, commands: usize, messages: u64, took_us: i64) {
        self.flushes += 1;
        self.commands += commands as u64;
        self.messages += messages;
        self.last_flush_us = took_us;
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.state = "away";
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        *self.failures.entry(failure.kind.as_str()).or_default() += 1;
        self.last_error = Some(failure.to_string());
    }
}
