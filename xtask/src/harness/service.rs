//! The service as a process, with its HTTP interface and its database.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;

use super::{Book, Db, Http, Process, Program, Simulator, check, eventually};

/// The token of writing calls in tests.
pub const TOKEN: &str = "only-for-tests";
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// A running service.
pub struct Service {
    /// Its process.
    pub process: Process,
    /// Its HTTP interface.
    pub http: Http,
    /// Its store.
    pub db: Db,
}

/// What `fathom run` and `fathom demo` print once they serve.
fn address(line: &str) -> Option<String> {
    line.split_once("serving on ").map(|(_, address)| address.trim().to_owned())
}

impl Service {
    /// `fathom run` on the simulator with further settings; its data are in the folder.
    pub fn start(folder: &Path, simulator: &Simulator, settings: &[&str]) -> Self {
        Self::start_as("service", folder, simulator, settings)
    }

    /// The same with a name for its output, where there are several in a row.
    pub fn start_as(name: &str, folder: &Path, simulator: &Simulator, settings: &[&str]) -> Self {
        let own = ["http.port=0", "data_dir=data"];
        let all = simulator.set.iter().map(String::as_str).chain(own).chain(settings.iter().copied());
        let mut args = vec!["run".to_owned()];
        args.extend(all.flat_map(|setting| ["--set".to_owned(), setting.to_owned()]));
        Self::run(&simulator.program, name, folder, &args, "data")
    }

    /// Any command that serves.
    pub fn run(program: &Program, name: &str, folder: &Path, args: &[String], data: &str) -> Self {
        let mut process = Process::start(program, name, folder, args, &[("FATHOM_API_TOKEN", TOKEN)]);
        let base = process.line(STARTS_WITHIN, address);
        let db = Db::new(folder.join(data).join("fathom.sqlite"));
        Self { process, http: Http::new(&base, Some(TOKEN)), db }
    }

    /// Books by state, both markets together.
    pub fn books(&self) -> BTreeMap<String, u64> {
        let status = self.http.json("/api/v1/admin/status");
        let mut books = BTreeMap::new();
        for states in status["books"].as_object().expect("books").values() {
            for (state, count) in states.as_object().expect("states") {
                *books.entry(state.clone()).or_default() += count.as_u64().expect("a count");
            }
        }
        books
    }

    /// Waits until there are so many books and all are live.
    pub fn await_live(&self, count: u64, deadline: Duration) {
        eventually(&format!("{count} live books"), deadline, || {
            let books = self.books();
            let all = books.len() == 1 && books.get("live") == Some(&count);
            check(all, || format!("{books:?}"))
        });
    }

    /// A book.
    ///
    /// # Errors
    /// The state because of which it is not served.
    pub fn book(&self, market: &str, symbol: &str, levels: &str) -> Result<Book, String> {
        served_book(&self.http, market, symbol, levels)
    }

    /// An actor's record.
    pub fn actor(&self, id: &str) -> Value {
        self.http.json(&format!("/api/v1/actors/{id}"))
    }

    /// Follows an operation to its good end.
    pub fn done(&self, operation: &str, deadline: Duration) -> Value {
        eventually(&format!("operation {operation} is done"), deadline, || {
            let seen = self.http.json(&format!("/api/v1/operations/{operation}"));
            assert_ne!(seen["state"], "failed", "{seen:#}");
            if seen["state"] == "done" { Ok(seen) } else { Err(seen.to_string()) }
        })
    }

    /// Asks it to stop and waits; it has to end well, with its statistics printed.
    pub fn stop(mut self, signal: &str) {
        self.process.signal(signal);
        let status = self.process.ended(STOPS_WITHIN);
        assert_eq!(status.code(), Some(0), "{signal}");
        let printed = self.process.printed();
        assert!(printed.contains("=== Statistics (since the start) ==="), "no statistics at the end");
    }
}

/// As [`Service::book`], for any thread.
///
/// # Errors
/// The state because of which it is not served.
pub fn served_book(http: &Http, market: &str, symbol: &str, levels: &str) -> Result<Book, String> {
    let market = market.to_uppercase();
    let path = format!("/api/v1/exchanges/binance/orderbook/{symbol}?marketType={market}&levels={levels}");
    let answer = http.get(&path)?;
    match answer.status {
        200 => {
            assert_eq!(answer.body["state"], "live", "{path}: {:.300}", answer.body);
            Ok(Book::read(&answer.body, "lastUpdateId"))
        }
        503 => Err(answer.body.to_string()),
        status => panic!("{path}: {status} {}", answer.body),
    }
}

/// The simulator's book as it was at an id, for any thread.
///
/// # Errors
/// When it is no longer known.
pub fn true_book(control: &Http, market: &str, symbol: &str, id: u64) -> Result<Book, String> {
    let path = format!("/sim/book/{market}/{symbol}?id={id}");
    let answer = control.get(&path)?;
    if answer.status != 200 {
        return Err(format!("{path}: {}", answer.body));
    }
    Ok(Book::read(&answer.body, "id"))
}
