//! A market of recorded frames: they are sent as they were received, byte for byte, in order and at their pace. The book
//! that they describe is kept beside them, so that snapshots can be asked for and compared.

pub(crate) mod apply;
pub(crate) mod scan;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fathom_market::ids::Market;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::scan::{RecordedManifest, RecordedSymbol, ScanError};
use crate::config::{RecordedConfig, ReplayStart};
use crate::hub::Addressed;
use crate::hub::topic::Message;
use crate::ledger::entries::Delivery;
use crate::market::MarketState;
use crate::wire::streams::Kind;
use apply::Applied;
use scan::{Line, lines};

/// Frames between two yields to other tasks when nothing paces the replay.
const BURST: u64 = 64;

/// How far a replay is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplayStatus {
    /// The frames are running, or have run.
    pub started: bool,
    /// All frames have been sent.
    pub finished: bool,
    /// Lines played so far.
    pub lines: u64,
    /// The recording's clock, ms.
    pub clock_ms: i64,
}

/// The state of a replay.
pub(crate) struct Replay {
    pub config: RecordedConfig,
    pub manifest: RecordedManifest,
    begin: Notify,
    started: AtomicBool,
    finished: AtomicBool,
    played: AtomicU64,
    heard: Mutex<HashSet<(usize, Kind)>>,
    clock: Mutex<(i64, Option<Instant>)>,
    snapshots: Mutex<Vec<Snapshot>>,
    /// Told whenever a snapshot's moment passed.
    passed: Notify,
}

/// What REST may answer for a symbol.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    /// The recorded body, once its moment passed.
    body: Option<Arc<str>>,
    asked: bool,
}

/// An answer to a depth request in a replay.
pub(crate) enum DepthAnswer {
    /// The recorded snapshot.
    Recorded(Arc<str>),
    /// The first was given already: the book as it stands.
    Current,
    /// Its moment did not come in time.
    TooEarly,
}

fn channel(kind: Kind) -> Kind {
    match kind {
        Kind::Depth(_) => Kind::Depth(0),
        other => other,
    }
}

impl Replay {
    pub(crate) fn new(config: RecordedConfig, manifest: RecordedManifest) -> Self {
        let first_ms = manifest.first_ns / 1_000_000;
        Self {
            begin: Notify::new(),
            started: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            played: AtomicU64::new(0),
            heard: Mutex::default(),
            clock: Mutex::new((first_ms, None)),
            snapshots: Mutex::new(vec![Snapshot::default(); manifest.symbols.len()]),
            passed: Notify::new(),
            config,
            manifest,
        }
    }

    /// A client subscribed a stream: perhaps the one that was waited for.
    pub(crate) fn subscribed(&self, index: usize, kind: Kind) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert((index, channel(kind)));
        let ready = match self.config.start {
            ReplayStart::Command => false,
            ReplayStart::DepthSubscribed => matches!(kind, Kind::Depth(_)),
            ReplayStart::AllSubscribed => self.manifest.channels().all(|wanted| heard.contains(&wanted)),
        };
        if ready {
            self.start();
        }
    }

    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Release);
        self.begin.notify_one();
    }

    pub(crate) fn status(&self) -> ReplayStatus {
        ReplayStatus {
            started: self.started.load(Ordering::Acquire),
            finished: self.finished.load(Ordering::Acquire),
            lines: self.played.load(Ordering::Acquire),
            clock_ms: self.now_ms(),
        }
    }

    /// The recording's clock: it runs at the replay's speed, at most a second past the last frame.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most a second")]
    pub(crate) fn now_ms(&self) -> i64 {
        let (at, since) = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = since.map_or(0.0, |since| since.elapsed().as_millis() as f64 * self.config.speed);
        at + passed.clamp(0.0, 1000.0) as i64
    }

    /// The depth answer for a symbol, waiting for its moment.
    pub(crate) async fn depth(&self, index: usize) -> DepthAnswer {
        let deadline = Instant::now() + self.config.snapshot_wait;
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            // Registered before looking, so that a moment that passes in between is not missed.
            passed.as_mut().enable();
            if let Some(answer) = self.snapshot(index) {
                return answer;
            }
            if tokio::time::timeout_at(deadline, passed).await.is_err() {
                return DepthAnswer::TooEarly;
            }
        }
    }

    fn snapshot(&self, index: usize) -> Option<DepthAnswer> {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = snapshots.get_mut(index)?;
        let body = snapshot.body.clone()?;
        let again = std::mem::replace(&mut snapshot.asked, true);
        Some(if again { DepthAnswer::Current } else { DepthAnswer::Recorded(body) })
    }

    fn set_clock(&self, ns: i64) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = (ns / 1_000_000, Some(Instant::now()));
    }

    /// Plays the files once, from the start signal on.
    pub(crate) async fn run(self: Arc<Self>, state: Arc<MarketState>) {
        self.begin.notified().await;
        if let Err(error) = self.play(&state).await {
            tracing::error!(%error, "the replay ended early");
        }
        self.finished.store(true, Ordering::Release);
    }

    async fn play(&self, state: &MarketState) -> Result<(), ScanError> {
        let begun = Instant::now();
        let mut books = apply::Books::new(&self.manifest);
        for file in &self.config.files {
            for line in lines(file)? {
                let line = line?;
                self.pace(begun, line.ns()).await;
                self.set_clock(line.ns());
                match &line {
                    Line::Snapshot { body, .. } => self.pass(state, &mut books, file, body)?,
                    Line::Frame { stream, data, .. } => self.deliver(state, &mut books, stream, data).await?,
                }
                self.played.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "a pause")]
    async fn pace(&self, begun: Instant, ns: i64) {
        if self.config.speed <= 0.0 {
            if self.played.load(Ordering::Acquire).is_multiple_of(BURST) {
                tokio::task::yield_now().await;
            }
            return;
        }
        let offset = (ns - self.manifest.first_ns).max(0) as f64 / self.config.speed;
        let due = begun + Duration::from_nanos(offset as u64);
        if due > Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// The snapshot's moment: REST may answer it from now on.
    fn pass(
        &self,
        state: &MarketState,
        books: &mut apply::Books,
        file: &std::path::Path,
        body: &str,
    ) -> Result<(), ScanError> {
        let index = self.manifest.symbol_of_file(file)?;
        state.with_cell(index, self.now_ms(), |cell, _| books.load(index, cell, body))?;
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = snapshots.get_mut(index) {
            *snapshot = Snapshot { body: Some(Arc::from(body)), asked: false };
        }
        drop(snapshots);
        self.passed.notify_waiters();
        Ok(())
    }

    async fn deliver(
        &self,
        state: &MarketState,
        books: &mut apply::Books,
        stream: &str,
        data: &str,
    ) -> Result<(), ScanError> {
        let Some((index, kind)) = self.manifest.meaning(stream) else { return Ok(()) };
        let now = crate::number::now_ms();
        let (applied, frames) = state.with_cell(index, now, |cell, _| {
            let applied = books.apply(index, kind, cell, data)?;
            let heard = cell.topics.iter_mut().filter(|topic| channel(topic.kind) == channel(kind));
            let (first, id) = match &applied {
                Applied::Trade(row) => (row.id.unsigned_abs(), row.id.unsigned_abs()),
                Applied::Depth(row) => (row.first, row.last),
                Applied::Other => (0, 0),
            };
            let message = Message { data, first, id };
            let frames: Vec<Addressed> =
                heard.flat_map(|topic| topic.frames(&message, now, &mut |_| None)).collect();
            Ok::<_, ScanError>((applied, frames))
        })?;
        let mut to = Vec::with_capacity(frames.len());
        for (conn, frame) in frames {
            let number = conn.push(frame).await;
            to.extend(number.map(|number| Delivery { connection: conn.id, number }));
        }
        state.memory.count(to.len());
        match applied {
            Applied::Trade(row) => state.ledger.trade(state.market, index, now, to, row),
            Applied::Depth(row) => state.ledger.depth_sent(state.market, index, now, to, row),
            Applied::Other => {}
        }
        Ok(())
    }
}

/// Where a market without frames of its own has none of a kind: an empty list.
pub(crate) const NOTHING: &str = "[]";

/// Whether the market is the recorded one.
pub(crate) const fn is_spot(market: Market) -> bool {
    matches!(market, Market::Spot)
}
