//! A panic in an actor of each kind, and a hang: it is healed, it can be seen, and meanwhile the service answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::{Http, Service, Simulator, check, eventually, pause, program};

const SYMBOLS: [&str; 6] = ["BTCUSDT", "ETHUSDT", "XRPUSDT", "BNBUSDT", "SOLUSDT", "TRXUSDT"];
/// One of each kind, the writer among them.
const ACTORS: [&str; 7] = [
    "shard/binance-spot-high-0",
    "book/binance/futures/BTCUSDT",
    "aggregator/spot/TOTAL",
    "writer",
    "venue/binance/spot",
    "history/binance/spot",
    "retention",
];
const HANGS: &str = "book/binance/spot/ETHUSDT";
const BLOCKS: &str = "aggregator/futures/TOTAL";
/// How long a thread is blocked: longer than it is waited for.
const BLOCKED_MS: u64 = 20_000;
const HEALS_WITHIN: Duration = Duration::from_secs(45);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Asks all the while what has to be answered whatever happens.
struct Patient {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Patient {
    fn start(http: Http) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut asked, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Acquire) {
                slowest = slowest.max(ask_all(&http));
                asked += 4;
                pause(Duration::from_millis(50));
            }
            (asked, slowest)
        });
        Self { over, thread }
    }

    /// Questions asked, and the longest wait.
    fn end(self) -> (usize, Duration) {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("every question was answered")
    }
}

fn ask_all(http: &Http) -> Duration {
    let ask = |path: &str| {
        let begun = Instant::now();
        let answer = http.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(answer.status, 200, "GET {path}: {:.500}", answer.body);
        let took = begun.elapsed();
        assert!(took < ANSWERS_WITHIN, "GET {path} took {took:?}");
        took
    };
    let paths = ["/api/v1/health", "/livez", "/metrics", "/api/categories/all?depth=5"];
    paths.into_iter().map(ask).max().unwrap_or_default()
}

/// Puts a fault into an actor and waits until its next instance runs; gives what is shown of it then.
fn healed(service: &Service, id: &str, fault: &str) -> Value {
    let before = service.actor(id);
    let generation = before["generation"].as_u64().expect("generation");
    let injected = service
        .http
        .post(&format!("/api/v1/actors/{id}/inject"), &json!({"fault": fault, "ms": BLOCKED_MS}))
        .expect("an answer");
    assert_eq!(injected.status, 202, "{id}: {}", injected.body);
    eventually(&format!("{id} is healed of a {fault}"), HEALS_WITHIN, || {
        let now = service.actor(id);
        let next = now["generation"].as_u64() == Some(generation + 1);
        check(next && now["state"] == "running", || {
            format!("generation {} is {}: {}", now["generation"], now["state"], now["why"])
        })?;
        Ok(now)
    })
}

fn is_seen(service: &Service, id: &str, shown: &Value, kind: &str) {
    assert_eq!(shown["last_exit"]["kind"], kind, "{id}: {shown:#}");
    let exceptions = service.http.json(&format!("/api/v1/actors/{id}/exceptions"));
    let newest = &exceptions["exceptions"][0];
    assert_eq!(newest["exit"]["kind"], kind, "{id}: {exceptions:#}");
    let generations = service.http.json(&format!("/api/v1/actors/{id}/history"));
    let count = generations["generations"].as_array().expect("generations").len();
    assert!(count >= 2, "{id}: {generations:#}");
}

#[test]
fn panics_and_hangs_are_healed_and_seen_while_the_service_answers() {
    let folder = TempDir::new().expect("folder");
    let names = SYMBOLS.join(",");
    let simulator = Simulator::start(&program(), folder.path(), &["--names", &names, "--rate", "150"]);
    let symbols = json!(SYMBOLS);
    let settings = ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}"));
    let service = Service::start(folder.path(), &simulator, &settings.each_ref().map(String::as_str));
    service.await_live(12, HEALS_WITHIN);
    let patient = Patient::start(service.http.again());

    for id in ACTORS {
        let shown = healed(&service, id, "panic");
        assert_eq!(shown["exits"]["panics"], 1, "{id}: {shown:#}");
        let said = shown["last_exit"]["reason"].as_str().expect("a reason");
        assert!(said.contains("injected panic"), "{id}: {said}");
        is_seen(&service, id, &shown, "panicked");
    }
    let shown = healed(&service, HANGS, "hang");
    is_seen(&service, HANGS, &shown, "stalled");
    let shown = healed(&service, BLOCKS, "block");
    is_seen(&service, BLOCKS, &shown, "stalled");
    service.await_live(12, HEALS_WITHIN);

    let health = service.http.json("/api/v1/health");
    assert_eq!(health["process"]["pid"], service.process.pid());
    assert_eq!(health["supervisor"]["restarts"], 0, "{:#}", health["supervisor"]);
    let stored = service.db.number("select count(*) from trades_raw");
    eventually("the writer goes on", HEALS_WITHIN, || {
        let now = service.db.number("select count(*) from trades_raw");
        check(now > stored, || format!("{now} trades after {stored}"))
    });
    let (asked, slowest) = patient.end();
    eprintln!("{} panics and a hang healed; {asked} questions, the slowest took {slowest:?}", ACTORS.len());
    service.stop("TERM");
}
