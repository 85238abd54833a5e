//! What the tests stand on: processes that end with their test, HTTP, the database, the simulator's control.

mod book;
mod db;
mod http;
mod process;
mod service;
mod simulator;

use std::time::Duration;

use tokio::time::Instant;

pub use self::{
    book::Book,
    db::Db,
    http::{Answer, Http},
    process::{Process, Program},
    service::{Service, TOKEN, served_book, true_book},
    simulator::{KlineEntry, Simulator, TradeEntry},
};

const POLL: Duration = Duration::from_millis(100);

/// Waits a moment between two looks.
#[allow(clippy::disallowed_methods, reason = "the test's own thread; it waits for other processes")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Looks again and again until it is so; an `Err` of the look says how it is instead.
///
/// # Panics
/// When it is not so within the deadline.
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) if begun.elapsed() > deadline => {
                panic!("not within {deadline:?}: {what}; instead: {instead}")
            }
            Err(_) => pause(POLL),
        }
    }
}

/// As [`eventually`], but gives the last error instead of failing.
///
/// # Errors
/// What is instead when the deadline is over.
pub fn eventually_or<T, E>(deadline: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match look() {
            Err(_) if begun.elapsed() <= deadline => pause(POLL),
            outcome => return outcome,
        }
    }
}

/// `Ok` when it is so.
///
/// # Errors
/// What is instead.
pub fn check(is_so: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(instead()) }
}

/// The first few of a list, for messages.
pub fn some<T: std::fmt::Debug>(list: &[T]) -> String {
    let shown: Vec<_> = list.iter().take(5).collect();
    format!("{} such as {shown:?}", list.len())
}
