//! What is shown, worked out of the service's answers. Pure; a field that the service does not tell is shown as `-`.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use serde_json::Value;

use super::fetch::Answers;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tab {
    Overview,
    Actors,
    Shards,
    Sinks,
    Gaps,
    Budgets,
}

impl Tab {
    pub(super) const ALL: [Self; 6] =
        [Self::Overview, Self::Actors, Self::Shards, Self::Sinks, Self::Gaps, Self::Budgets];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Actors => "actors",
            Self::Shards => "shards",
            Self::Sinks => "sinks",
            Self::Gaps => "gaps",
            Self::Budgets => "budgets",
        }
    }
}

/// How a line is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Plain,
    Good,
    Doubtful,
    Bad,
}

/// One line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    pub(super) mood: Mood,
}

/// A page: columns and lines in their natural order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) headers: &'static [&'static str],
    pub(super) lines: Vec<Line>,
}

/// Everything that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) verdict: String,
    pub(super) mood: Mood,
    pub(super) process: String,
    pages: [Page; Tab::ALL.len()],
}

/// A scalar as it is shown.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(mood: Mood, cells: impl IntoIterator<Item = String>) -> Line {
    Line { cells: cells.into_iter().collect(), mood }
}

/// `live 100, syncing 1`.
fn counts(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, count)| format!("{name} {}", text(count))).collect::<Vec<_>>().join(", ")
}

fn mood_of(state: &str) -> Mood {
    match state {
        "running" | "connected" | "healthy" | "closed" | "live" | "ok" => Mood::Good,
        "failed" | "down" | "disconnected" | "open" | "quarantined" => Mood::Bad,
        "stopped" | "paused" => Mood::Plain,
        _ => Mood::Doubtful,
    }
}

/// `3 d 4 h`, `5 m 6 s`.
fn span(ms: i64) -> String {
    let seconds = ms / 1000;
    match seconds {
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
        3600.. => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        60.. => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{seconds} s"),
    }
}

/// A counter's growth a second between two looks.
struct Growth<'a> {
    before: Option<&'a Answers>,
    passed_ms: u64,
}

impl<'a> Growth<'a> {
    fn new(now: &Answers, before: Option<&'a Answers>) -> Self {
        let passed = before.map(|before| now.at.saturating_duration_since(before.at));
        Self { before, passed_ms: passed.map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(0)) }
    }

    /// Of an element of a list, found again by its id. A counter that went back began anew.
    fn of(&self, list: &str, id: &Value, now: u64, read: impl Fn(&Value) -> u64) -> String {
        let earlier = self.before.and_then(|before| before.list(list).iter().find(|one| one["id"] == *id));
        let grown = earlier.and_then(|earlier| now.checked_sub(read(earlier)));
        let per_s = grown.and_then(|grown| (grown * 1000).checked_div(self.passed_ms));
        per_s.map_or_else(|| "-".to_owned(), |per_s| per_s.to_string())
    }
}

impl Model {
    /// Reads the answers; rates come from those of a moment before.
    pub(super) fn read(now: &Answers, before: Option<&Answers>) -> Self {
        let (health, growth) = (now.get("health"), Growth::new(now, before));
        let verdict = text(&health["verdict"]);
        let process = &health["process"];
        let up = process["uptime_ms"].as_i64().map_or_else(|| "-".to_owned(), span);
        Self {
            mood: mood_of(&verdict),
            process: format!("{}, pid {}, up {up}", text(&process["version"]), text(&process["pid"])),
            pages: [
                overview(now),
                actors(now),
                shards(now, &growth),
                sinks(now, &growth),
                gaps(now),
                budgets(now),
            ],
            verdict,
        }
    }

    pub(super) const fn page(&self, tab: Tab) -> &Page {
        let [overview, actors, shards, sinks, gaps, budgets] = &self.pages;
        match tab {
            Tab::Overview => overview,
            Tab::Actors => actors,
            Tab::Shards => shards,
            Tab::Sinks => sinks,
            Tab::Gaps => gaps,
            Tab::Budgets => budgets,
        }
    }
}

fn overview(now: &Answers) -> Page {
    let (health, status) = (now.get("health"), now.get("status"));
    let mut lines = Vec::new();
    let mut say = |mood, what: &str, how: String| lines.push(line(mood, [what.to_owned(), how]));
    for why in health["why"].as_array().into_iter().flatten() {
        say(Mood::Doubtful, "why", text(why));
    }
    say(Mood::Plain, "actors", counts(&health["totals"]));
    say(Mood::Plain, "shards", counts(&status["shards"]));
    for (market, states) in status["books"].as_object().into_iter().flatten() {
        let all_live = states.as_object().is_some_and(|states| states.keys().all(|state| state == "live"));
        let mood = if all_live { Mood::Good } else { Mood::Doubtful };
        say(mood, &format!("books {market}"), counts(states));
    }
    for sink in now.list("sinks") {
        let mood = sink_mood(sink);
        say(
            mood,
            &format!("sink {}", text(&sink["id"])),
            equations(sink).map(|(name, sum)| format!("{name} {sum}")).join("; "),
        );
    }
    let open = match now.get("gaps") {
        Value::Null => "-".to_owned(),
        answer if answer["next"].is_null() => now.list("gaps").len().to_string(),
        _ => format!("more than {}", now.list("gaps").len()),
    };
    say(Mood::Plain, "open gaps", open);
    for budget in now.list("budgets") {
        let (name, used) =
            (&budget["host"], format!("{} of {}", text(&budget["used"]), text(&budget["capacity"])));
        say(Mood::Plain, &format!("REST {}", text(name)), used);
    }
    Page { headers: &["what", "how"], lines }
}

/// The two equations of a sink, with what they are of: the terms that are not zero.
fn equations(sink: &Value) -> [(&'static str, String); 2] {
    const SIDES: [(&str, &[&str]); 2] = [
        ("offered", &["accepted", "refused", "waiting"]),
        ("accepted", &["stored", "duplicate", "spooled", "quarantined", "discarded", "expired"]),
    ];
    SIDES.map(|(name, parts)| {
        let side = &sink[name];
        let uneven = if side["balanced"] == false { ", NOT EVEN" } else { "" };
        (name, format!("{} = {}{uneven}", text(&side[name]), terms(side, parts).join(" + ")))
    })
}

/// A sink that cannot be reached, or whose account is not even, is bad.
fn sink_mood(sink: &Value) -> Mood {
    if sink["reachable"] == true && sink["balanced"] != false { Mood::Good } else { Mood::Bad }
}

/// Counts by their names; zeros are left out.
fn terms(value: &Value, names: &[&str]) -> Vec<String> {
    let told = names.iter().filter(|name| value[**name].as_u64().is_some_and(|count| count > 0));
    told.map(|name| format!("{name} {}", text(&value[*name]))).collect()
}

/// What is told of a table, the most telling first.
const OF_TABLE: [&str; 6] = ["offered", "accepted", "stored", "waiting", "spooled", "quarantined"];

/// Parents first, children below them, indented.
fn actors(now: &Answers) -> Page {
    let all = now.list("actors");
    let known: BTreeSet<&str> = all.iter().filter_map(|actor| actor["id"].as_str()).collect();
    let mut children: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for actor in all {
        let parent = actor["parent"].as_str().filter(|parent| known.contains(parent)).unwrap_or_default();
        children.entry(parent).or_default().push(actor);
    }
    let mut lines = Vec::new();
    below("", 0, &children, &mut lines);
    Page { headers: &["actor", "state", "gen", "restarts", "panics", "inbox", "beat ms"], lines }
}

/// Deeper than any tree that is built; a cycle of names ends here.
const MAX_DEPTH: usize = 8;

fn below(parent: &str, depth: usize, children: &BTreeMap<&str, Vec<&Value>>, lines: &mut Vec<Line>) {
    for actor in children.get(parent).into_iter().flatten() {
        let (id, state) = (text(&actor["id"]), text(&actor["state"]));
        let beat = actor["beat_age_us"].as_i64().map_or_else(|| "-".to_owned(), |us| (us / 1000).to_string());
        let inbox = format!("{}/{}", text(&actor["inbox_len"]), text(&actor["inbox_capacity"]));
        let (generation, restarts, panics) = (&actor["generation"], &actor["restarts"], &actor["panics"]);
        let cells = [
            format!("{}{id}", "  ".repeat(depth)),
            state.clone(),
            text(generation),
            text(restarts),
            text(panics),
            inbox,
            beat,
        ];
        lines.push(line(mood_of(&state), cells));
        if depth < MAX_DEPTH && !id.is_empty() {
            below(&id, depth + 1, children, lines);
        }
    }
}

fn shards(now: &Answers, growth: &Growth<'_>) -> Page {
    let of = |shard: &Value| {
        let state = text(&shard["state"]);
        let lines = shard["lines"].as_array().map_or(&[][..], Vec::as_slice);
        let open = lines.iter().filter(|line| line["state"] == "connected").count();
        let sum = |key: &str| lines.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
        // The worst of the lines: open before half open before closed.
        let breaker =
            ["open", "half_open"].into_iter().find(|word| lines.iter().any(|line| line["breaker"] == *word));
        let lag = match (shard["observed_us"].as_i64(), shard["last_frame_us"].as_i64()) {
            (Some(observed), Some(last)) => ((observed - last) / 1000).max(0).to_string(),
            _ => "-".to_owned(),
        };
        let rate = growth.of("shards", &shard["id"], shard["events"].as_u64().unwrap_or(0), |shard| {
            shard["events"].as_u64().unwrap_or(0)
        });
        let cells = [
            text(&shard["id"]),
            state.clone(),
            text(&shard["generation"]),
            format!("{open}/{}", lines.len()),
            breaker.unwrap_or("closed").to_owned(),
            format!("{}/{}", sum("streams_live"), sum("streams")),
            rate,
            lag,
            sum("reconnects").to_string(),
            text(&shard["restarts"]),
        ];
        line(mood_of(&state), cells)
    };
    let headers = &["shard", "state", "gen", "lines", "breaker", "streams", "ev/s", "lag ms", "rec", "rst"];
    Page { headers, lines: now.list("shards").iter().map(of).collect() }
}

fn stored(sink: &Value) -> u64 {
    let tables = sink["tables"].as_object().into_iter().flatten();
    tables.filter_map(|(_, table)| table["stored"].as_u64()).sum()
}

fn sinks(now: &Answers, growth: &Growth<'_>) -> Page {
    let mut lines = Vec::new();
    for sink in now.list("sinks") {
        let mood = sink_mood(sink);
        let name = text(&sink["id"]);
        let mut say = |what: &str, how: String| lines.push(line(mood, [name.clone(), what.to_owned(), how]));
        say("reachable", text(&sink["reachable"]));
        say("stored/s", growth.of("sinks", &sink["id"], stored(sink), stored));
        for (name, sum) in equations(sink) {
            say(name, sum);
        }
        if sink["spool"].is_object() {
            say("spool", counts(&sink["spool"]));
        }
        say("retries", text(&sink["retries"]));
        say("last error", text(&sink["last_error"]));
        for (table, figures) in sink["tables"].as_object().into_iter().flatten() {
            say(table, terms(figures, &OF_TABLE).join(", "));
        }
    }
    Page { headers: &["sink", "what", "how"], lines }
}

fn gaps(now: &Answers) -> Page {
    let of = |gap: &Value| {
        let duration = gap["duration_ms"].as_i64().map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        let keys = ["venue", "market", "symbol", "channel", "cause", "status"];
        let named = keys.map(|key| text(&gap[key]));
        line(Mood::Doubtful, named.into_iter().chain([duration, text(&gap["missing"])]))
    };
    let headers = &["venue", "market", "symbol", "channel", "cause", "status", "ms", "missing"];
    Page { headers, lines: now.list("gaps").iter().map(of).collect() }
}

fn budgets(now: &Answers) -> Page {
    let of = |budget: &Value| {
        let refused = [&budget["refused_429"], &budget["banned_418"]].map(text).join("/");
        let waits = budget["waiting"].as_object().into_iter().flatten();
        let waiting: u64 = waits.filter_map(|(_, count)| count.as_u64()).sum();
        let penalized = !budget["penalized_until_us"].is_null();
        let cells = [
            text(&budget["host"]),
            text(&budget["group"]),
            text(&budget["used"]),
            text(&budget["capacity"]),
            text(&budget["in_flight"]),
            waiting.to_string(),
            refused,
            text(&budget["requests_ok"]),
            text(&budget["requests_failed"]),
        ];
        line(if penalized { Mood::Bad } else { Mood::Good }, cells)
    };
    let headers = &["host", "group", "used", "of", "flying", "waiting", "429/418", "ok", "failed"];
    Page { headers, lines: now.list("budgets").iter().map(of).collect() }
}
