//! The fault suite: the program and the simulated exchanges run as processes of their own, faults come from a seeded
//! schedule, and at the end everything that the simulator made is looked for in what the service holds.
//!
//! What a fault needs and this program or simulator does not have is left out and said so. Times are taken from the
//! service's published state, looked at ten times a second, so that they are what an operator would see.

pub mod act;
pub mod audit;
pub mod dice;
pub mod kind;
pub mod ledger;
pub mod memory;
pub mod report;
pub mod schedule;
pub mod stand;
pub mod tail;
pub mod watch;

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use self::{
    act::Injected,
    audit::{Killed, Span},
    kind::{KINDS, Kind},
    memory::Memory,
    report::{Outcome, Report, command},
    schedule::Planned,
    stand::{MARKETS, Stand, Target},
    tail::Tail,
    watch::{Sight, Watch},
};
use crate::harness::pause;

const POLL: Duration = Duration::from_millis(100);
/// A fault that has to show and is not seen by then is not found.
const SHOWS_WITHIN: Duration = Duration::from_secs(40);
/// What need not show is given this long to show after all.
const MAY_SHOW: Duration = Duration::from_secs(3);
/// A REST ban, a breaker and a wait for the next minute's weight, one after the other.
const HEALS_WITHIN: Duration = Duration::from_secs(150);
/// Quiet time before the comparison.
const QUIET: Duration = Duration::from_secs(15);
/// What was made in the last seconds may still be on its way.
const ON_ITS_WAY_MS: i64 = 5_000;
/// Runs of this length are judged by their memory.
const LONG: Duration = Duration::from_secs(15 * 60);
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Resident memory at the end against that at ten minutes, percent.
const GROWTH_ALLOWED: u64 = 10;

/// A run to have.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// The seed of the schedule and of the market.
    pub seed: u64,
    /// For how long faults are put in.
    pub span: Duration,
    /// One fault each.
    pub every: Duration,
    /// How many faults; by default as many as the span has room for.
    pub faults: Option<usize>,
    /// Market steps a second on each market.
    pub rate: f64,
    /// Base assets on each market.
    pub symbols: usize,
    /// Only these kinds; empty means all.
    pub only: Vec<Kind>,
    /// Further settings of the service, `key=value`.
    pub set: Vec<String>,
}

impl Options {
    /// How often each book is compared with the venue's: one of each market a second.
    pub fn verify_every(&self) -> Duration {
        Duration::from_secs(self.symbols.max(15) as u64)
    }

    /// How long a fault of this kind may stay unseen.
    fn shows_within(&self, kind: Kind) -> Duration {
        match kind {
            Kind::CorruptBook => SHOWS_WITHIN + 2 * self.verify_every(),
            kind if kind.facts().shows => SHOWS_WITHIN,
            _ => MAY_SHOW,
        }
    }
}

/// Runs the suite.
///
/// # Panics
/// When a process does not start or end as it should.
pub fn run(options: &Options) -> Report {
    Run::new(options).run()
}

struct Run<'a> {
    options: &'a Options,
    stand: Stand,
    watch: Watch,
    memory: Memory,
    begun: Instant,
    told: Instant,
    killed: Vec<Killed>,
    unlisted: Vec<(Target, Span)>,
    report: Report,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> Self {
        let stand = Stand::start(options);
        let (watch, begun) = (Watch::new(&stand), Instant::now());
        let memory = Memory::new(begun);
        Self {
            options,
            stand,
            watch,
            memory,
            begun,
            told: begun,
            killed: Vec::new(),
            unlisted: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(mut self) -> Report {
        let available = self.stand.available();
        let is_missing = |kind: &Kind| !available.contains(kind);
        self.report.unavailable = KINDS.iter().map(|facts| facts.kind).filter(is_missing).collect();
        let wanted = |kind: &Kind| self.options.only.is_empty() || self.options.only.contains(kind);
        let kinds: Vec<Kind> = available.into_iter().filter(wanted).collect();
        let strict = self.stand.has_gap_ledger();
        let (from_ms, frames) = (self.stand.simulator.now_ms(), self.frames());
        let tail = Tail::start(self.stand.simulator.control());

        let Options { span, every, seed, faults, .. } = *self.options;
        let room = (span.as_secs_f64() / every.as_secs_f64()) as usize;
        let mixed = kinds.iter().any(|kind| !kind.ends_the_process());
        let planned = schedule::plan(seed, &kinds, faults.unwrap_or(room), span >= LONG && mixed);
        for (at, planned) in planned.into_iter().enumerate() {
            self.wait_until(self.options.every * at as u32);
            if self.begun.elapsed() > self.options.span {
                break;
            }
            self.fault(planned);
        }
        if faults.is_none() {
            self.wait_until(span);
        }
        let seconds = self.begun.elapsed().as_secs().max(1);
        let rate = self.frames().saturating_sub(frames) / seconds;
        self.settle();
        let to_ms = self.stand.simulator.now_ms() - ON_ITS_WAY_MS;
        let made = tail.end(to_ms);
        let all = Span { from_ms, to_ms };
        let rules = audit::Rules { span: all, killed: &self.killed, unlisted: &self.unlisted, strict };
        let audit = audit::audit(&self.stand, &made, &rules);
        self.report.unreceived = audit.figures.get(audit::UNRECEIVED).copied().unwrap_or(0);
        self.report.missing = audit.missing;
        self.report.doubled = audit.doubled;
        self.report.failures.extend(audit.failures);
        for (name, figure) in audit.figures {
            self.total(name, figure);
        }
        self.total("messages a second", rate);
        self.total("gap ledger", if strict { "there" } else { "not available" });
        self.finish(seconds)
    }

    fn total(&mut self, name: &str, value: impl ToString) {
        self.report.totals.insert(name.to_owned(), value.to_string());
    }

    /// Data frames that the simulator has written out so far.
    fn frames(&self) -> u64 {
        let of = |market: &str| {
            let connections = self.stand.simulator.entries("connections", market);
            connections.iter().filter_map(|connection| connection["flushed"].as_u64()).sum::<u64>()
        };
        MARKETS.iter().map(|market| of(market)).sum()
    }

    fn wait_until(&mut self, due: Duration) {
        while self.begun.elapsed() < due {
            self.memory.look(self.stand.service.process.pid());
            self.tell();
            pause(POLL);
        }
    }

    /// A line each minute.
    fn tell(&mut self) {
        if self.told.elapsed() < Duration::from_secs(60) {
            return;
        }
        self.told = Instant::now();
        let (minutes, faults) = (self.begun.elapsed().as_secs() / 60, self.report.outcomes.len());
        let failed = self.report.failures.len();
        let mib = self.memory.greatest() >> 20;
        eprintln!("{minutes} min: {faults} faults, {failed} failures, at most {mib} MiB resident");
    }

    fn fault(&mut self, planned: Planned) {
        let facts = planned.kind.facts();
        let before = self.watch.look().unwrap_or_default();
        let at_ms = self.stand.simulator.now_ms();
        let begun = Instant::now();
        let connection = self.newest_connection();
        let mut injected = match act::inject(&mut self.stand, planned) {
            Ok(injected) => injected,
            Err(error) => return self.fail(planned, &format!("could not be put in: {error}")),
        };
        if planned.kind.ends_the_process() {
            self.watch = Watch::new(&self.stand);
        }
        if planned.kind == Kind::Kill {
            let stored = std::mem::take(&mut injected.stored);
            self.killed.push(Killed { at_ms, connection, stored });
        }
        let detected = self.detect(planned.kind, &before, begun);
        if facts.shows && detected.is_none() {
            self.fail(planned, &format!("did not show in time ({:?})", injected.target));
        }
        let target = injected.target.clone();
        let healed = self.heal(planned, injected, begun);
        if planned.kind == Kind::Delist {
            // Nobody collects a symbol while the venue does not list it.
            let to_ms = self.stand.simulator.now_ms() + ON_ITS_WAY_MS;
            self.unlisted.push((target, Span { from_ms: at_ms, to_ms }));
        }
        self.report.outcomes.push(Outcome { kind: planned.kind, at_ms, detected, healed });
    }

    fn fail(&mut self, planned: Planned, what: &str) {
        let at = self.begun.elapsed().as_secs();
        self.report.failures.push(format!("{} at {at} s: {what}", planned.kind.facts().name));
    }

    /// Number of the newest connection to the simulator.
    fn newest_connection(&self) -> u64 {
        let connections = |market: &str| self.stand.simulator.entries("connections", market);
        let all = MARKETS.iter().flat_map(|market| connections(market));
        all.filter_map(|connection| connection["id"].as_u64()).max().unwrap_or(0)
    }

    /// How long it took until the service showed something.
    fn detect(&mut self, kind: Kind, before: &Sight, begun: Instant) -> Option<Duration> {
        if kind.ends_the_process() {
            // Whoever looks sees that it is gone; it shows itself again when it serves.
            return Some(begun.elapsed());
        }
        let deadline = self.options.shows_within(kind);
        while begun.elapsed() < deadline {
            match self.watch.look() {
                Err(_) => return Some(begun.elapsed()),
                Ok(sight) if sight.sign_since(before).is_some() => return Some(begun.elapsed()),
                Ok(_) => pause(POLL),
            }
            self.memory.look(self.stand.service.process.pid());
        }
        None
    }

    fn heal(&mut self, planned: Planned, injected: Injected, begun: Instant) -> Option<Duration> {
        let Injected { target, over, beside, undo, .. } = injected;
        while Instant::now() < over {
            pause(POLL);
        }
        if let Some(Err(error)) = undo.map(|undo| undo.run(&self.stand)) {
            self.fail(planned, &format!("could not be taken back: {error}"));
        }
        if let Some(Ok(Err(error))) = beside.map(|thread| thread.join()) {
            self.fail(planned, &error);
        }
        let mut instead = String::new();
        while begun.elapsed() < HEALS_WITHIN {
            match self.watch.all_is_well(Some(&target)) {
                Ok(()) => return Some(begun.elapsed()),
                Err(error) => instead = error,
            }
            pause(POLL);
            self.memory.look(self.stand.service.process.pid());
        }
        self.fail(planned, &format!("not healed within {HEALS_WITHIN:?}: {instead}"));
        None
    }

    /// A quiet time, after which all has to be well and every book true.
    fn settle(&mut self) {
        pause(QUIET);
        for market in MARKETS {
            for symbol in self.stand.symbols[market].clone() {
                let target = Target { market, symbol };
                let well = crate::harness::eventually_or(QUIET, || self.watch.all_is_well(Some(&target)));
                if let Err(error) = well {
                    self.report.failures.push(format!("after the end: {error}"));
                }
            }
        }
        self.memory.look(self.stand.service.process.pid());
    }

    fn finish(mut self, seconds: u64) -> Report {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        self.total("resident memory, greatest", mib(self.memory.greatest()));
        // The last processes of a long run are young: the end of its middle is what is compared.
        let late = self.options.span.mul_f64(0.93);
        let ends = (self.memory.around(TEN_MINUTES), self.memory.around(late));
        if let (Some((first, early_bytes)), Some((second, late_bytes))) = ends
            && self.options.span >= LONG
            && self.options.faults.is_none()
        {
            self.total("resident memory at ten minutes", mib(early_bytes));
            self.total("resident memory before the last processes", mib(late_bytes));
            let grown = late_bytes > early_bytes + early_bytes * GROWTH_ALLOWED / 100;
            if grown || first != second {
                let what =
                    format!("memory: {} then {} (pids {first}, {second})", mib(early_bytes), mib(late_bytes));
                self.report.failures.push(what);
            }
        }
        let faults = self.report.outcomes.len();
        self.total("faults", faults);
        self.total("seconds", seconds);
        self.total("seed", self.options.seed);
        self.total("symbols on each market", self.stand.symbols["spot"].len());
        self.total("repeated by", format!("`{}`", command(self.options)));
        if !self.report.failures.is_empty() {
            self.stand.keep();
            eprintln!("the database and the logs are left in {}", self.stand.folder().display());
        }
        self.report
    }
}
