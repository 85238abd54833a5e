//! What the tests stand on: processes that end with their test, HTTP, the database, the simulator's control.

mod book;
mod db;
mod http;
mod process;
mod service;
mod simulator;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::{
    book::Book,
    db::Db,
    http::Http,
    process::{Process, fathom},
    service::{Service, TOKEN, served_book, true_book},
    simulator::{KlineEntry, Simulator, TradeEntry},
};

const POLL: Duration = Duration::from_millis(100);

/// Waits a moment between two looks.
#[allow(clippy::disallowed_methods, reason = "the test's own thread; it waits for other processes")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Looks again and again until it is so; `Err` says how it is instead.
pub(crate) fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
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

/// `Ok` when it is so, else what is instead.
pub(crate) fn check(is_so: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(instead()) }
}

/// The first few of a list, for messages.
pub(crate) fn some<T: std::fmt::Debug>(list: &[T]) -> String {
    let shown: Vec<_> = list.iter().take(5).collect();
    format!("{} such as {shown:?}", list.len())
}
