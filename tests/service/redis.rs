//! A Redis server is killed, hangs and comes back while the service runs: nothing shows it but the breaker.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Service, Simulator, check, eventually, program, true_book};

const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
const SOON: Duration = Duration::from_secs(60);

/// A private server; it is killed when it is dropped.
struct Server {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Server {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let folder = TempDir::new().expect("folder");
        let Ok(child) = launch(port, &folder) else {
            assert!(std::env::var_os("FATHOM_TEST_REQUIRE_SERVICES").is_none(), "no redis-server");
            eprintln!("left out: redis-server is not installed");
            return None;
        };
        let server = Self { port, folder, child };
        server.listens();
        Some(server)
    }

    fn listens(&self) {
        eventually("the Redis server listens", SOON, || {
            TcpStream::connect(("127.0.0.1", self.port)).map(|_| ()).map_err(|error| error.to_string())
        });
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it ends");
    }

    fn again(&mut self) {
        self.child = launch(self.port, &self.folder).expect("it starts again");
        self.listens();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
}

fn delivery(service: &Service) -> Value {
    service.http.json("/api/v1/delivery")["delivery"][0].clone()
}

fn redis_is(service: &Service, word: &str, breaker: &str) {
    eventually(&format!("Redis is {word}, its breaker {breaker}"), SOON, || {
        let (health, shown) = (service.http.json("/api/health"), delivery(service));
        let so = health["redis"] == word && shown["breaker"]["state"] == breaker;
        check(so, || format!("{}: {shown:#}", health["redis"]))
    });
}

/// Books are live and true, candles and rows are stored, both equations hold, and no actor was ever restarted.
fn is_well(service: &Service, simulator: &Simulator) {
    service.await_live(6, Duration::from_secs(5));
    for market in ["spot", "futures"] {
        let difference = eventually("a book is served", SOON, || {
            let served = service.book(market, "BTCUSDT", "50")?;
            let truth = true_book(&simulator.control(), market, "BTCUSDT", served.id)?;
            Ok(served.difference(&truth.top(50)))
        });
        assert_eq!(difference, None, "{market}");
    }
    let sinks = service.http.json("/api/v1/sinks");
    assert_eq!(sinks["sinks"][0]["balanced"], true, "{sinks:#}");
    let before = stored(service);
    eventually("more is stored", SOON, || check(stored(service) > before, || before.to_string()));
    let health = service.http.json("/api/v1/health");
    let why = health["why"].as_array().expect("reasons").iter();
    let others: Vec<&Value> =
        why.filter(|why| !why.as_str().expect("text").contains("delivery/redis")).collect();
    assert_eq!(others, Vec::<&Value>::new(), "{health:#}");
    let actors = service.http.json("/api/v1/actors?limit=1000")["actors"].clone();
    for actor in actors.as_array().expect("actors") {
        assert_eq!(actor["generation"], 1, "{actor:#}");
    }
}

fn stored(service: &Service) -> u64 {
    service.http.json("/api/v1/sinks")["sinks"][0]["accepted"]["stored"].as_u64().expect("a count")
}

fn reconnects(service: &Service) -> Value {
    service.http.json("/api/v1/admin/websocket/stats")["reconnects"].clone()
}

#[test]
fn a_redis_that_is_killed_or_hangs_shows_in_its_breaker_alone() {
    let Some(mut server) = Server::start() else { return };
    let folder = TempDir::new().expect("folder");
    let simulator =
        Simulator::start(&program(), folder.path(), &["--names", &SYMBOLS.join(","), "--rate", "200"]);
    let symbols = json!(SYMBOLS);
    let mut settings =
        ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}")).to_vec();
    settings.push(format!("redis.url=redis://127.0.0.1:{}/", server.port));
    settings.push("redis.ticks_ttl_ms=60000".to_owned());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let service = Service::start(folder.path(), &simulator, &settings);
    service.await_live(6, SOON);
    redis_is(&service, "connected", "closed");
    eventually("messages are published", SOON, || {
        let shown = delivery(&service);
        check(shown["messages"].as_u64() > Some(100), || shown.to_string())
    });
    is_well(&service, &simulator);
    let lines = reconnects(&service);

    server.kill();
    redis_is(&service, "disconnected", "open");
    is_well(&service, &simulator);
    server.again();
    redis_is(&service, "connected", "closed");
    is_well(&service, &simulator);

    server.signal("-STOP");
    redis_is(&service, "disconnected", "open");
    is_well(&service, &simulator);
    server.signal("-CONT");
    redis_is(&service, "connected", "closed");
    is_well(&service, &simulator);
    assert_eq!(reconnects(&service), lines, "no socket was touched");
    let shown = delivery(&service);
    let failures = shown["failures"].as_object().expect("by kind");
    assert!(failures.contains_key("unreachable") && failures.contains_key("timeout"), "{shown:#}");
    service.stop("TERM");
}
