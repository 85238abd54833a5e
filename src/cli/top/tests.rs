//! Frames as they are drawn, of answers as the service gives them.

use std::{collections::BTreeMap, time::Duration};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    fetch::Answers,
    model::{Model, Tab},
    plain,
    screen::{Link, View, draw},
    ui::{Turn, Ui},
};

const URL: &str = "http://127.0.0.1:8000";
const SIZE: (u16, u16) = (80, 24);

fn actor(id: &str, parent: Option<&str>, state: &str, restarts: u64) -> Value {
    json!({"id": id, "parent": parent, "state": state, "generation": restarts + 1, "restarts": restarts, "panics": 0,
        "inbox_len": 1, "inbox_capacity": 64, "beat_age_us": 12_000})
}

fn answers(at: Instant, events: u64) -> Answers {
    let actors = [
        actor("venue/binance", None, "running", 0),
        actor("shard/binance-spot-high-0", Some("venue/binance"), "running", 2),
        actor("book/binance/spot/BTCUSDT", Some("shard/binance-spot-high-0"), "backoff", 10),
        actor("writer", None, "running", 0),
    ];
    let line = json!({"state": "connected", "breaker": "half_open", "streams": 4, "streams_live": 3, "reconnects": 2});
    let shard = json!({"id": "binance-spot-high-0", "venue": "binance", "state": "connected", "generation": 3,
        "events": events, "restarts": 2, "lines": [line], "observed_us": 2_000_000, "last_frame_us": 1_750_000});
    let sink = json!({"id": "store", "reachable": true, "retries": 0, "last_error": null,
        "tables": {"trades": {"offered": 7, "accepted": 7, "stored": 7, "waiting": 0, "balanced": true}},
        "offered": {"offered": 7, "accepted": 6, "refused": 1, "waiting": 0, "balanced": true},
        "accepted": {"accepted": 6, "stored": 6, "spooled": 0, "balanced": true}, "balanced": true});
    let gap = json!({"venue": "binance", "market": "spot", "symbol": "BTCUSDT", "channel": "trade",
        "cause": "disconnect", "status": "open", "duration_ms": 1500, "missing": 3});
    let budget = json!({"host": "api.binance.com", "group": "weight", "used": 250, "capacity": 3000, "in_flight": 1,
        "waiting": {"repair": 2}, "refused_429": 1, "banned_418": 0, "requests_ok": 9, "requests_failed": 0,
        "penalized_until_us": null});
    let by_name = [
        (
            "health",
            json!({"verdict": "degraded", "why": ["book/binance/spot/BTCUSDT: backoff"],
            "totals": {"running": 3, "backoff": 1},
            "process": {"version": "0.1.0", "pid": 42, "uptime_ms": 3_725_000}}),
        ),
        ("actors", json!({"actors": actors, "next": null})),
        ("shards", json!({"shards": [shard]})),
        ("sinks", json!({"sinks": [sink]})),
        (
            "status",
            json!({"shards": {"connected": 1}, "books": {"binance/spot": {"live": 99, "syncing": 1}}}),
        ),
        ("gaps", json!({"gaps": [gap], "next": null})),
        ("budgets", json!({"budgets": [budget]})),
    ];
    Answers { by_name: by_name.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(), at }
}

fn model() -> Model {
    let now = Instant::now();
    Model::read(&answers(now + Duration::from_secs(2), 5000), Some(&answers(now, 1000)))
}

fn frame(model: Option<&Model>, link: &Link, ui: &Ui) -> String {
    plain(&View { url: URL, model, link, ui }, SIZE)
}

fn shown(tab: Tab) -> String {
    frame(Some(&model()), &Link::Up, &Ui::new(tab))
}

fn press(ui: &mut Ui, keys: &str) {
    for key in keys.chars() {
        assert_eq!(ui.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE)), Turn::Stay);
    }
}

fn line_of<'a>(frame: &'a str, word: &str) -> &'a str {
    frame.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word} in\n{frame}"))
}

#[test]
fn the_overview_tells_what_is_wrong_first() {
    let frame = shown(Tab::Overview);
    let lines: Vec<&str> = frame.lines().collect();
    assert_eq!(lines[0], format!("fathom degraded 0.1.0, pid 42, up 1 h 2 m {URL}"));
    assert!(lines[1].starts_with("[1 overview] 2 actors"), "{}", lines[1]);
    assert!(lines[4].contains("book/binance/spot/BTCUSDT: backoff"), "{frame}");
    assert!(line_of(&frame, "books binance/spot").contains("live 99, syncing 1"));
    assert!(
        line_of(&frame, "sink store").contains("offered 7 = accepted 6 + refused 1; accepted 6 = stored 6")
    );
    assert!(line_of(&frame, "open gaps").ends_with(" 1"));
    assert!(line_of(&frame, "REST api.binance.com").ends_with("250 of 3000"));
    assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80));
}

#[test]
fn actors_stand_below_their_parents() {
    let frame = shown(Tab::Actors);
    let ids: Vec<&str> = frame.lines().filter(|line| line.ends_with(" 12")).collect();
    assert!(ids[0].starts_with("venue/binance"), "{frame}");
    assert!(ids[1].starts_with("  shard/binance-spot-high-0"), "{frame}");
    assert!(ids[2].starts_with("    book/binance/spot/BTCUSDT"), "{frame}");
    assert!(ids[3].starts_with("writer"), "{frame}");
}

#[test]
fn shards_show_their_rate_lag_and_worst_breaker() {
    let frame = shown(Tab::Shards);
    let words: Vec<&str> = line_of(&frame, "binance-spot-high-0").split_whitespace().collect();
    assert_eq!(words[1..], ["connected", "3", "1/1", "half_open", "3/4", "2000", "250", "2", "2"]);
}

#[test]
fn sinks_gaps_and_budgets_have_a_page_each() {
    assert!(line_of(&shown(Tab::Sinks), "trades").contains("offered 7, accepted 7, stored 7"));
    assert!(line_of(&shown(Tab::Gaps), "BTCUSDT").contains("disconnect"));
    let budgets = shown(Tab::Budgets);
    let words: Vec<&str> = line_of(&budgets, "api.binance.com").split_whitespace().collect();
    assert_eq!(words, ["api.binance.com", "weight", "250", "3000", "1", "2", "1/0", "9", "0"]);
}

#[test]
fn keys_turn_pages_sort_filter_and_end() {
    let model = model();
    let mut ui = Ui::new(Tab::Overview);
    press(&mut ui, "2ssss");
    assert_eq!(ui.tab, Tab::Actors);
    let restarts = |ui: &Ui| -> Vec<String> {
        ui.lines(model.page(Tab::Actors)).iter().map(|line| line.cells[3].clone()).collect()
    };
    assert_eq!(restarts(&ui), ["0", "0", "2", "10"], "by value, not by letters");
    press(&mut ui, "r");
    assert_eq!(restarts(&ui), ["10", "2", "0", "0"]);
    press(&mut ui, "/q");
    assert!(restarts(&ui).is_empty(), "q goes into the filter");
    ui.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    press(&mut ui, "BTC");
    ui.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
    assert_eq!(restarts(&ui), ["10"]);
    let foot = frame(Some(&model), &Link::Up, &ui);
    assert!(foot.lines().last().is_some_and(|foot| foot.starts_with("filter: BTC  esc clears it")), "{foot}");
    assert_eq!(ui.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Turn::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(Ui::new(Tab::Gaps).key(interrupt), Turn::Quit);
}

#[test]
fn a_service_that_is_away_is_said_to_be() {
    let away = Link::Away { for_s: 7, why: format!("no answer from {URL}") };
    let shown = frame(Some(&model()), &away, &Ui::new(Tab::Actors));
    assert!(shown.starts_with("fathom AWAY for 7 s"), "{shown}");
    assert!(shown.contains("writer") && shown.ends_with(&format!("no answer from {URL}")), "{shown}");
    assert!(frame(None, &Link::Starting, &Ui::new(Tab::Actors)).starts_with("fathom asking"));
}

#[test]
fn answers_of_another_version_are_shown_as_far_as_they_go() {
    let empty = Answers { by_name: BTreeMap::new(), at: Instant::now() };
    let model = Model::read(&empty, None);
    for tab in Tab::ALL {
        assert!(frame(Some(&model), &Link::Up, &Ui::new(tab)).contains("fathom - -, pid -"));
    }
}

#[test]
fn the_smallest_terminal_is_no_danger() {
    let model = model();
    for size in [(80, 24), (20, 5), (1, 1), (200, 3)] {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        for tab in Tab::ALL {
            let ui = Ui { offset: 1000, ..Ui::new(tab) };
            let view = View { url: URL, model: Some(&model), link: &Link::Up, ui: &ui };
            terminal.draw(|frame| draw(&view, frame.area(), frame.buffer_mut())).unwrap();
        }
    }
}
