//! Puts a fault in. Targets, spans and amounts come from the fault's own seed.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    dice::Dice,
    kind::Kind,
    ledger::{self, Stored},
    schedule::Planned,
    stand::{Stand, Target},
};
use crate::harness::{Db, check, eventually_or, pause};

/// What a slow network lets through of a connection; a busy shard is sent more.
const SLOW_BYTES: u64 = 30_000;
/// A stream is on its next connection by then.
const CARRIED_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may live that is near the end of its life.
const LIFE_MS: u64 = 2_000;
/// How far the venue's clock jumps.
const JUMP_MS: i64 = 30_000;

/// A fault that is in.
pub struct Injected {
    /// The symbol that it hit, where it hit one.
    pub target: Target,
    /// When it ends by itself.
    pub over: Instant,
    /// Work that goes on beside; it is waited for.
    pub beside: Option<std::thread::JoinHandle<Result<(), String>>>,
    /// What has to be done once it has been noticed.
    pub undo: Option<Undo>,
    /// After a kill: how far everything was stored.
    pub stored: Stored,
}

/// How a fault that lasts is taken back.
pub enum Undo {
    /// `PUT` of this path.
    Put(String),
    /// This fault of the simulator.
    Fault(Value),
}

/// Puts it in.
///
/// # Errors
/// Why it could not be.
pub fn inject(stand: &mut Stand, planned: Planned) -> Result<Injected, String> {
    let mut dice = Dice::new(planned.seed);
    let target = stand.target(&mut dice);
    let mut act =
        Act { stand, dice, target, span_ms: 0, beside: None, undo: None, stored: Stored::default() };
    act.put(planned.kind)?;
    let over = Instant::now() + Duration::from_millis(act.span_ms);
    Ok(Injected { target: act.target, over, beside: act.beside, undo: act.undo, stored: act.stored })
}

struct Act<'a> {
    stand: &'a mut Stand,
    dice: Dice,
    target: Target,
    /// How long the fault lasts.
    span_ms: u64,
    beside: Option<std::thread::JoinHandle<Result<(), String>>>,
    undo: Option<Undo>,
    stored: Stored,
}

impl Act<'_> {
    fn put(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::DropCut => self.on_stream("depth", json!({"kind": "drop", "how": "cut"})),
            Kind::DropClose => self.on_stream("depth", json!({"kind": "drop", "how": "close"})),
            Kind::HalfOpen => self.on_stream("depth", json!({"kind": "half_open"})),
            Kind::Refuse => {
                let for_ms = self.span(2_000, 6_000);
                self.fault(json!({"kind": "refuse_connections", "for_ms": for_ms}))?;
                self.on_stream("depth", json!({"kind": "drop", "how": "cut"}))
            }
            Kind::Silence => self.on_stream("depth", json!({"kind": "silence"})),
            Kind::StubbornSilence => {
                let for_ms = self.span(8_000, 12_000);
                self.on_stream("depth", json!({"kind": "silence", "stubborn": true, "for_ms": for_ms}))
            }
            Kind::Skip => self.skip(),
            Kind::Duplicate => self.counted("duplicate"),
            Kind::Garbage => self.counted("garbage"),
            Kind::Reorder => self.on_stream("depth", json!({"kind": "reorder"})),
            Kind::CrossedBook | Kind::CorruptLevel => self.on_book(kind),
            Kind::Rest429 => self.rest(429),
            Kind::Rest418 => self.rest(418),
            Kind::Rest5xx => self.rest(503),
            Kind::StaleSnapshot => {
                let for_ms = self.span(2_000, 4_000);
                self.fault(json!({"kind": "stale_snapshot", "age_ms": 3_000, "for_ms": for_ms}))?;
                self.skip()
            }
            Kind::SlowRest => {
                let for_ms = self.span(3_000, 6_000);
                self.fault(json!({"kind": "slow_rest", "ms": 1_500, "for_ms": for_ms}))?;
                self.skip()
            }
            Kind::SlowNetwork => {
                let for_ms = self.span(3_000, 6_000);
                self.on_stream(
                    "depth",
                    json!({"kind": "slow_network", "bytes_per_s": SLOW_BYTES, "for_ms": for_ms}),
                )
            }
            Kind::LifeLimit => {
                // It ends once the connection has, so that its successor lives.
                self.span_ms = LIFE_MS + LIFE_MS / 4;
                let for_ms = self.span_ms;
                eventually_or(CARRIED_WITHIN, || {
                    let (connection, _) = self.stand.subscribed(&self.target, "depth")?;
                    let fault = json!({"kind": "life_limit", "connection": connection, "life_ms": LIFE_MS, "for_ms": for_ms});
                    self.fault(fault)
                })
            }
            Kind::TimeJump => {
                let for_ms = self.span(3_000, 6_000);
                self.fault(json!({"kind": "time_jump", "offset_ms": JUMP_MS, "for_ms": for_ms}))
            }
            Kind::Delist => self.delist(),
            Kind::WrongCertificate => {
                let for_ms = self.span(2_000, 6_000);
                let problem = *self.dice.pick(&["other_authority", "expired", "other_host"]);
                let fault =
                    json!({"kind": "wrong_certificate", "on": "ws", "problem": problem, "for_ms": for_ms});
                self.fault(fault)?;
                self.on_stream("depth", json!({"kind": "drop", "how": "cut"}))
            }
            Kind::Kill => self.end("KILL"),
            Kind::Terminate => self.end("TERM"),
            Kind::Frozen => self.freeze(),
            Kind::StoreLocked => self.lock_store(),
            Kind::PanicActor => self.actor(&["panic"]),
            Kind::HangActor => self.actor(&["hang"]),
            Kind::CorruptBook => self.inject_into(&self.target.book_actor(), "corrupt_level"),
            Kind::Handover => self.restart("handover"),
            Kind::Graceful => self.restart("graceful"),
            Kind::KillShard => self.restart("kill"),
            Kind::Pause => self.pause(),
            Kind::Resync => self.resync(),
        }
    }

    /// A span within both ends, for which the fault then lasts.
    fn span(&mut self, low: u64, high: u64) -> u64 {
        self.span_ms = self.dice.between(low, high);
        self.span_ms
    }

    /// A fault of the target's market.
    fn fault(&self, mut fault: Value) -> Result<(), String> {
        fault["market"] = json!(self.target.market);
        self.stand.fault(&fault)
    }

    /// A fault of one of the target's streams, whose connection may just be replaced by another.
    fn on_stream(&self, channel: &str, fault: Value) -> Result<(), String> {
        eventually_or(CARRIED_WITHIN, || {
            let mut fault = fault.clone();
            fault["stream"] = json!(self.stand.stream(&self.target, channel)?);
            self.fault(fault)
        })
    }

    fn skip(&mut self) -> Result<(), String> {
        let count = self.dice.between(1, 3);
        self.on_stream("depth", json!({"kind": "skip", "count": count}))
    }

    fn counted(&mut self, kind: &str) -> Result<(), String> {
        let (count, channel) = (self.dice.between(1, 5), *self.dice.pick(&["depth", "aggTrade"]));
        self.on_stream(channel, json!({"kind": kind, "count": count}))
    }

    /// What makes the venue's own messages wrong for one book.
    fn on_book(&self, kind: Kind) -> Result<(), String> {
        let name = if kind == Kind::CrossedBook { "crossed_book" } else { "corrupt_level" };
        self.on_stream("depth", json!({"kind": name}))
    }

    /// REST refuses while a book needs it.
    fn rest(&mut self, status: u16) -> Result<(), String> {
        let for_ms = self.span(2_000, 3_000);
        let retry_after_s = (status != 503).then(|| for_ms.div_ceil(1_000) + 1);
        let fault =
            json!({"kind": "rest_error", "status": status, "retry_after_s": retry_after_s, "for_ms": for_ms});
        self.fault(fault)?;
        self.skip()
    }

    /// The least busy symbol goes, and comes back.
    fn delist(&mut self) -> Result<(), String> {
        let listed = &self.stand.symbols[self.target.market];
        self.target.symbol = listed.last().cloned().unwrap_or_default();
        let symbol = &self.target.symbol;
        self.fault(json!({"kind": "delist", "symbol": symbol}))?;
        let back = json!({"kind": "set_status", "status": "TRADING", "market": self.target.market, "symbol": symbol});
        self.undo = Some(Undo::Fault(back));
        Ok(())
    }

    /// The process ends, and is started again at once.
    fn end(&mut self, signal: &str) -> Result<(), String> {
        pause(Duration::from_millis(self.dice.below(2_000)));
        self.stand.end(signal)?;
        self.stored = ledger::stored(&self.stand.service.db);
        self.stand.begin_again();
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), String> {
        let span = self.dice.between(2_000, 5_000);
        self.stand.service.process.signal("STOP");
        pause(Duration::from_millis(span));
        self.stand.service.process.signal("CONT");
        Ok(())
    }

    fn lock_store(&mut self) -> Result<(), String> {
        let span = Duration::from_millis(self.span(3_000, 6_000));
        let path: PathBuf = self.stand.folder().join("data").join("fathom.sqlite");
        self.beside = Some(std::thread::spawn(move || Db::new(path).lock(span)));
        Ok(())
    }

    /// One of the actors of the target's market.
    fn actor(&mut self, faults: &[&str]) -> Result<(), String> {
        let market = self.target.market;
        let shard = format!("shard/{}", self.stand.shard(&self.target)?);
        let ids =
            [self.target.book_actor(), shard, format!("aggregator/{market}/TOTAL"), "writer".to_owned()];
        let (id, fault) = (self.dice.pick(&ids).clone(), *self.dice.pick(faults));
        self.inject_into(&id, fault)
    }

    fn inject_into(&self, id: &str, fault: &str) -> Result<(), String> {
        self.post(&format!("/api/v1/actors/{id}/inject"), &json!({"fault": fault}))
    }

    fn post(&self, path: &str, body: &Value) -> Result<(), String> {
        let answer = self.stand.service.http.post(path, body)?;
        check((200..300).contains(&answer.status), || format!("{path}: {} {}", answer.status, answer.body))
    }

    fn restart(&self, mode: &str) -> Result<(), String> {
        let shard = self.stand.shard(&self.target)?;
        let body = json!({"mode": mode, "reason": "the fault suite"});
        self.post(&format!("/api/v1/shards/{shard}/restart"), &body)
    }

    fn pause(&mut self) -> Result<(), String> {
        let path = format!("/api/v1/shards/{}", self.stand.shard(&self.target)?);
        let answer = self.stand.service.http.put(&format!("{path}/pause"), &json!({}))?;
        check(answer.status == 202, || format!("pause: {} {}", answer.status, answer.body))?;
        self.span(1_000, 3_000);
        self.undo = Some(Undo::Put(format!("{path}/resume")));
        Ok(())
    }

    fn resync(&self) -> Result<(), String> {
        let id = format!("binance/{}/{}", self.target.market, self.target.symbol);
        self.post(&format!("/api/v1/streams/{id}/resync"), &json!({"reason": "the fault suite"}))
    }
}

impl Undo {
    /// Takes the fault back.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn run(&self, stand: &Stand) -> Result<(), String> {
        match self {
            Self::Fault(fault) => stand.fault(fault),
            Self::Put(path) => {
                let answer = stand.service.http.put(path, &json!({}))?;
                check(answer.status == 202, || format!("{path}: {} {}", answer.status, answer.body))
            }
        }
    }
}
