//! Compares what the service holds at the end with everything that the simulator made.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rust_decimal::Decimal;
use serde_json::Value;

use super::{
    ledger::{self, Gap, Stored},
    stand::{MARKETS, Stand, Target},
    tail::Made,
};
use crate::harness::{KlineEntry, Service, eventually_or, some};

const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// What was sent so shortly before a kill may not have been committed.
const COMMITTED_WITHIN_MS: i64 = 10_000;

/// The figure of depth messages that nobody received, each accounted for.
pub const UNRECEIVED: &str = "depth messages not received";

/// A kill, and what was stored when it struck.
pub struct Killed {
    /// When, by the simulator's clock.
    pub at_ms: i64,
    /// Number of the newest connection then.
    pub connection: u64,
    /// How far everything was stored then.
    pub stored: Stored,
}

/// A row that is missing or doubled, and when it was sent.
type Sent = i64;

/// What the audit found.
#[derive(Default)]
pub struct Audit {
    /// When each row was sent that is not there and should be.
    pub missing: Vec<Sent>,
    /// When each row was sent that is there twice.
    pub doubled: Vec<Sent>,
    /// Everything that is not as promised.
    pub failures: Vec<String>,
    /// Figures for the report.
    pub figures: BTreeMap<&'static str, u64>,
}

/// Between which times of the simulator's clock everything has to be there.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From.
    pub from_ms: i64,
    /// To.
    pub to_ms: i64,
}

impl Span {
    const fn holds(self, ms: i64) -> bool {
        ms >= self.from_ms && ms <= self.to_ms
    }
}

/// What is compared, and what excuses.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Between which times.
    pub span: Span,
    /// The kills.
    pub killed: &'a [Killed],
    /// When the venue did not list a symbol.
    pub unlisted: &'a [(Target, Span)],
    /// Whether the service keeps a gap ledger: then nothing may be missing that is not in it.
    pub strict: bool,
}

impl Rules<'_> {
    fn asks_for(&self, target: &Target, ms: i64) -> bool {
        let unlisted = |(symbol, span): &(Target, Span)| symbol == target && span.holds(ms);
        self.span.holds(ms) && !self.unlisted.iter().any(unlisted)
    }
}

struct Auditor<'a> {
    stand: &'a Stand,
    made: &'a Made,
    rules: &'a Rules<'a>,
    gaps: BTreeMap<Target, Vec<Gap>>,
    audit: Audit,
}

/// The whole comparison.
pub fn audit(stand: &Stand, made: &Made, rules: &Rules<'_>) -> Audit {
    let audit = Audit { failures: made.lost.clone(), ..Audit::default() };
    let mut auditor = Auditor { stand, made, rules, gaps: BTreeMap::new(), audit };
    if rules.strict {
        auditor.no_gap_stays_open();
        auditor.gaps = ledger::gaps(&stand.service.db);
    }
    auditor.trades();
    auditor.depth();
    auditor.candles();
    auditor.kills();
    auditor.state_of_the_service();
    auditor.figures();
    auditor.audit
}

impl Auditor<'_> {
    fn fail(&mut self, what: String) {
        self.audit.failures.push(what);
    }

    fn no_gap_stays_open(&mut self) {
        let db = &self.stand.service.db;
        let open = eventually_or(SETTLES_WITHIN, || {
            let open = db.try_rows("select gap_id from data_gaps_raw where status = 'open'")?;
            let ids: Vec<String> = open.iter().map(|row| sqlx::Row::get(row, 0)).collect();
            if ids.is_empty() { Ok(()) } else { Err(format!("gaps are open: {}", some(&ids))) }
        });
        if let Err(open) = open {
            self.fail(open);
        }
    }

    fn hasty(&self, sent_ms: i64) -> bool {
        self.rules.killed.iter().any(|kill| (0..COMMITTED_WITHIN_MS).contains(&(kill.at_ms - sent_ms)))
    }

    /// Whether the ledger says of a record that it may be missing.
    fn is_declared(
        &self,
        target: &Target,
        channel: &str,
        id: i64,
        sent_ms: i64,
        final_only: &[&str],
    ) -> bool {
        let gaps = self.gaps.get(target).map_or(&[][..], Vec::as_slice);
        gaps.iter().any(|gap| {
            gap.channel == channel && !final_only.contains(&gap.status.as_str()) && gap.holds(id, sent_ms)
        })
    }

    fn trades(&mut self) {
        let (mut compared, mut unexplained) = (0, Vec::new());
        for (target, made) in &self.made.trades {
            let known: BTreeSet<i64> = made.iter().map(|trade| trade.id).collect();
            let stored = ledger::trades(&self.stand.service.db, target);
            for trade in made.iter().filter(|trade| self.rules.asks_for(target, trade.sent_ms)) {
                compared += 1;
                if stored.contains(&trade.id) {
                    continue;
                }
                // REST can give it: only a gap that says why it is lost excuses it.
                let excused = if self.rules.strict {
                    self.is_declared(
                        target,
                        "trade",
                        trade.id,
                        trade.sent_ms,
                        &["repaired", "none_missed", "open"],
                    )
                } else {
                    !trade.delivered || self.hasty(trade.sent_ms)
                };
                self.audit.missing.push(trade.sent_ms);
                if !excused {
                    unexplained.push(format!(
                        "{} {} {} of {}",
                        target.market, target.symbol, trade.id, trade.sent_ms
                    ));
                }
            }
            let (first, last) = (known.first().copied().unwrap_or(0), known.last().copied().unwrap_or(0));
            let invented: Vec<&i64> =
                stored.iter().filter(|id| (first..=last).contains(*id) && !known.contains(*id)).collect();
            if !invented.is_empty() {
                self.audit
                    .failures
                    .push(format!("{target:?}: trades that were never made: {}", some(&invented)));
            }
        }
        self.audit.figures.insert("trades compared", compared);
        if !unexplained.is_empty() {
            self.fail(format!("trades missing without a reason: {}", some(&unexplained)));
        }
    }

    fn depth(&mut self) {
        let (mut compared, mut declared, mut unexplained) = (0, 0, Vec::new());
        for (target, made) in &self.made.depth {
            let stored = ledger::depth(&self.stand.service.db, target);
            for message in made.iter().filter(|message| self.rules.asks_for(target, message.sent_ms)) {
                compared += 1;
                if stored.contains(&message.last) {
                    continue;
                }
                let excused = if self.rules.strict {
                    self.is_declared(target, "depth", message.last, message.sent_ms, &[])
                } else {
                    !message.delivered || self.hasty(message.sent_ms)
                };
                declared += u64::from(excused);
                if !excused {
                    unexplained.push(format!(
                        "{} {} {} of {}",
                        target.market, target.symbol, message.last, message.sent_ms
                    ));
                }
            }
        }
        self.audit.figures.insert("depth messages compared", compared);
        self.audit.figures.insert(UNRECEIVED, declared);
        if !unexplained.is_empty() {
            self.fail(format!("depth messages missing that no gap holds: {}", some(&unexplained)));
        }
    }

    /// Each closed candle is stored, closed, with its volume and its number of trades.
    fn candles(&mut self) {
        let asked = |market: &'static str, kline: &KlineEntry| {
            let target = Target { market, symbol: kline.symbol.clone() };
            self.rules.asks_for(&target, kline.sent_ms)
        };
        let due: Vec<_> = self.made.klines.iter().filter(|(market, kline)| asked(market, kline)).collect();
        let excused =
            |sent_ms: i64, delivered: bool| !self.rules.strict && (!delivered || self.hasty(sent_ms));
        let db = &self.stand.service.db;
        let compared = eventually_or(SETTLES_WITHIN, || {
            let stored = ledger::candles(db);
            let is_there = |market: &str, kline: &KlineEntry| {
                let key = (market.to_owned(), kline.symbol.clone(), kline.interval.clone(), kline.open_ms);
                let equal = |(volume, trades): &(String, i64)| {
                    volume.parse::<Decimal>() == Ok(kline.volume) && *trades == kline.trades
                };
                stored.get(&key).is_some_and(equal)
            };
            let missing: Vec<(i64, String)> = due
                .iter()
                .filter(|(market, kline)| {
                    !is_there(market, kline) && !excused(kline.sent_ms, kline.delivered)
                })
                .map(|(market, kline)| {
                    let key =
                        ((*market).to_owned(), kline.symbol.clone(), kline.interval.clone(), kline.open_ms);
                    let held = stored.get(&key);
                    let (sent, volume, trades) = (kline.sent_ms, kline.volume, kline.trades);
                    (sent, format!("{key:?}: volume {volume} of {trades} trades, stored {held:?}"))
                })
                .collect();
            if missing.is_empty() { Ok(()) } else { Err(missing) }
        });
        let due = due.len() as u64;
        self.audit.figures.insert("candles compared", due);
        if let Err(missing) = compared {
            self.fail(format!("closed candles missing or different: {}", some(&missing)));
            self.audit.missing.extend(missing.into_iter().map(|(sent_ms, _)| sent_ms));
        }
        let doubled = ledger::doubled(&self.stand.service.db);
        if doubled > 0 {
            self.fail(format!("{doubled} rows are shown twice"));
            self.audit
                .doubled
                .extend(std::iter::repeat_n(self.rules.span.to_ms, doubled.unsigned_abs() as usize));
        }
    }

    /// The hole of each kill is in the ledger, from the last stored record to the first new one.
    fn kills(&mut self) {
        if !self.rules.strict {
            return;
        }
        let (mut compared, mut wrong) = (0, Vec::new());
        for (at, kill) in self.rules.killed.iter().enumerate() {
            let until = self.rules.killed.get(at + 1).map_or(u64::MAX, |next| next.connection);
            let is_new = |connection: u64| connection > kill.connection && connection <= until;
            for (target, last) in &kill.stored.trades {
                let made = self.made.trades.get(target).map_or(&[][..], Vec::as_slice);
                let Some(first) = made.iter().find(|trade| is_new(trade.connection) && trade.delivered)
                else {
                    continue;
                };
                compared += 1;
                wrong.extend(self.hole(target, "trade", *last, first.id));
            }
            for (target, last) in &kill.stored.depth {
                let made = self.made.depth.get(target).map_or(&[][..], Vec::as_slice);
                let Some(first) = made.iter().find(|depth| is_new(depth.connection) && depth.delivered)
                else {
                    continue;
                };
                compared += 1;
                wrong.extend(self.hole(target, "depth", *last, first.first));
            }
        }
        self.audit.figures.insert("holes of kills compared", compared);
        if !wrong.is_empty() {
            self.fail(format!("holes of kills are not in the ledger as they were: {}", some(&wrong)));
        }
    }

    /// What is wrong with the ledger's account of a hole between two ids.
    fn hole(&self, target: &Target, channel: &str, last: i64, first: i64) -> Option<String> {
        let gaps = self.gaps.get(target).map_or(&[][..], Vec::as_slice);
        let of_channel: Vec<&Gap> = gaps.iter().filter(|gap| gap.channel == channel).collect();
        let found = of_channel.iter().find(|gap| gap.from_id == Some(last));
        let Target { market, symbol } = target;
        (!is_accounted(&of_channel, last, first))
            .then(|| format!("{market} {symbol} {channel}: {last} to {first}, in the ledger {found:?}"))
    }

    fn state_of_the_service(&mut self) {
        let service = &self.stand.service;
        let mut failures = Vec::new();
        if let Err(uneven) = eventually_or(SETTLES_WITHIN, || accounts_are_even(service)) {
            failures.push(uneven);
        }
        let status = service.http.json("/api/v1/admin/status");
        if status["actors"]["failed"].as_u64().unwrap_or(0) > 0 {
            failures.push(format!("actors have failed: {}", status["actors"]));
        }
        for market in MARKETS {
            let broken = self.stand.simulator.entries("violations", market);
            let broken: Vec<_> = broken.iter().filter(|violation| violation["market"] == market).collect();
            if !broken.is_empty() {
                failures.push(format!("rules of the venue were broken: {}", some(&broken)));
            }
        }
        let sound: String = sqlx::Row::get(&service.db.rows("pragma integrity_check")[0], 0);
        if sound != "ok" {
            failures.push(format!("the store is damaged: {sound}"));
        }
        self.audit.failures.extend(failures);
    }

    fn figures(&mut self) {
        let gaps = self.gaps.values().flatten();
        let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
        gaps.for_each(|gap| *by_status.entry(gap.status.as_str()).or_default() += 1);
        for (name, status) in [
            ("gaps with nothing missed", "none_missed"),
            ("gaps resynchronized", "resynced"),
            ("gaps repaired", "repaired"),
            ("gaps lost", "lost"),
        ] {
            if let Some(count) = by_status.get(status) {
                self.audit.figures.insert(name, *count);
            }
        }
    }
}

/// Whether gaps lead from one id exactly to the other. A hole that was open when the process was killed is one gap, what the
/// kill added to it the next.
fn is_accounted(gaps: &[&Gap], last: i64, first: i64) -> bool {
    let (mut reached, mut looked) = (vec![last], 0);
    while let Some(&from) = reached.get(looked) {
        looked += 1;
        // Nothing lies between.
        if from == first || from == last && first == last + 1 {
            return true;
        }
        let next = gaps.iter().filter(|gap| gap.from_id == Some(from)).filter_map(|gap| gap.to_id);
        for to in next.filter(|to| *to > from && *to <= first).collect::<Vec<_>>() {
            if !reached.contains(&to) {
                reached.push(to);
            }
        }
    }
    false
}

/// Every equation of `/api/v1/sinks` adds up.
fn accounts_are_even(service: &Service) -> Result<(), String> {
    let sinks = service.http.get("/api/v1/sinks")?.body;
    let mut verdicts = Vec::new();
    balances(&sinks, &mut verdicts);
    if !verdicts.is_empty() && verdicts.iter().all(|balanced| *balanced) {
        return Ok(());
    }
    Err(format!("the accounts are not even: {sinks:.600}"))
}

fn balances(value: &Value, verdicts: &mut Vec<bool>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_bool() {
                    Some(balanced) if name == "balanced" => verdicts.push(balanced),
                    _ => balances(field, verdicts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| balances(item, verdicts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_held_by_ids_or_by_time() {
        let gap = Gap {
            channel: "trade".to_owned(),
            cause: "restart".to_owned(),
            status: "lost".to_owned(),
            from_us: 1_000_000,
            to_us: Some(3_000_000),
            from_id: Some(10),
            to_id: Some(14),
            missing: Some(3),
        };
        assert_eq!([10, 11, 13, 14].map(|id| gap.holds(id, 2_000)), [false, true, true, false]);
        let by_time = Gap { from_id: None, to_id: None, ..gap };
        assert_eq!([500, 2_000, 4_000].map(|ms| by_time.holds(12, ms)), [false, true, false]);
    }

    #[test]
    fn a_hole_is_one_gap_or_gaps_that_follow_each_other_without_a_record_between() {
        let gap = |from: i64, to: i64| Gap {
            channel: "trade".to_owned(),
            cause: "restart".to_owned(),
            status: "repaired".to_owned(),
            from_us: 0,
            to_us: None,
            from_id: Some(from),
            to_id: Some(to),
            missing: None,
        };
        let gaps = [gap(10, 14), gap(10, 13), gap(13, 20), gap(21, 30)];
        let gaps: Vec<&Gap> = gaps.iter().collect();
        let accounted = [(10, 14), (10, 13), (10, 20), (5, 6), (21, 30)];
        assert!(accounted.iter().all(|(last, first)| is_accounted(&gaps, *last, *first)));
        let wrong = [(10, 15), (10, 30), (11, 14), (20, 30), (5, 7)];
        assert!(!wrong.iter().any(|(last, first)| is_accounted(&gaps, *last, *first)));
    }

    #[test]
    fn every_equation_is_found_wherever_it_stands() {
        let sinks =
            json!({"sinks": [{"equation": {"balanced": true}, "spool": {"accepted": {"balanced": false}}}]});
        let mut verdicts = Vec::new();
        balances(&sinks, &mut verdicts);
        verdicts.sort_unstable();
        assert_eq!(verdicts, [false, true]);
    }
}
