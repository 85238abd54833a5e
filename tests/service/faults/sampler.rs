//! Looks at random books all the while: whatever the service calls live equals the simulator's book at the same id, and
//! is not older than a silent stream may go unnoticed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::time::Instant;

use super::Symbols;
use crate::harness::{Http, pause, served_book, some, true_book};

const LEVELS: usize = 100;
/// After this long a book that is called live holds what was true before.
const FRESH_WITHIN: Duration = Duration::from_secs(25);
const BETWEEN: Duration = Duration::from_millis(40);

/// What a sampler has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Books compared, all equal.
    pub(super) compared: usize,
    /// Books that were not served because they were in doubt.
    pub(super) refused: usize,
    wrong: Vec<String>,
    marks: HashMap<(String, String), (Instant, u64)>,
}

pub(super) struct Sampler {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    pub(super) fn start(service: &Http, control: Http, symbols: &Symbols) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, http) = (over.clone(), service.again());
        let books: Vec<(String, String)> = symbols
            .iter()
            .flat_map(|(market, list)| list.iter().map(|symbol| ((*market).to_owned(), symbol.clone())))
            .collect();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut dice: u64 = 7;
            while !stop.load(Ordering::Acquire) {
                // Knuth's MMIX constants; its high bits are random enough to pick a book.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (market, symbol) = &books[(dice >> 33) as usize % books.len()];
                seen.look(&http, &control, market, symbol);
                pause(BETWEEN);
            }
            seen
        });
        Self { over, thread }
    }

    /// Ends it; nothing that it saw may have been wrong.
    pub(super) fn end(self) -> Seen {
        self.over.store(true, Ordering::Release);
        let seen = self.thread.join().expect("the sampler ran to its end");
        assert!(seen.wrong.is_empty(), "books served as live were not true: {}", some(&seen.wrong));
        seen
    }
}

impl Seen {
    fn look(&mut self, http: &Http, control: &Http, market: &str, symbol: &str) {
        let served = match served_book(http, market, symbol, &LEVELS.to_string()) {
            Ok(served) => served,
            Err(_) => {
                self.refused += 1;
                return;
            }
        };
        let key = (market.to_owned(), symbol.to_owned());
        if let Some((since, id)) = self.marks.get(&key)
            && since.elapsed() > FRESH_WITHIN
        {
            if served.id < *id {
                self.wrong.push(format!("{market} {symbol} is at {} and was past {id} long ago", served.id));
            }
            self.marks.remove(&key);
        }
        match true_book(control, market, symbol, served.id) {
            Ok(truth) => match served.difference(&truth.top(LEVELS)) {
                None => self.compared += 1,
                Some(difference) => self.wrong.push(format!("{market} {symbol}: {difference}")),
            },
            Err(unknown) => self.wrong.push(format!("{market} {symbol}: no such book: {unknown}")),
        }
        if !self.marks.contains_key(&key)
            && let Ok(id) = true_id(control, market, symbol)
        {
            self.marks.insert(key, (Instant::now(), id));
        }
    }
}

fn true_id(control: &Http, market: &str, symbol: &str) -> Result<u64, String> {
    let answer = control.get(&format!("/sim/book/{market}/{symbol}"))?;
    answer.body["id"].as_u64().ok_or_else(|| answer.body.to_string())
}
