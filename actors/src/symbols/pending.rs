//! Changes under way: when each of them is done.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use fathom_market::sample::SampleState;
use serde_json::json;

use super::{Desk, wishes::is_same};
use crate::{
    directory::Directory,
    kernel::{OperationId, Operations},
};

/// What is to become of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Its book is live.
    Live,
    /// Nothing of it is collected.
    Gone,
}

/// One symbol of one market.
pub struct Part {
    /// The market.
    pub desk: Arc<Desk>,
    /// The version of what is wanted there that holds it.
    pub version: u64,
    /// The symbol.
    pub symbol: String,
    /// What is to become of it.
    pub want: Want,
}

/// An operation under way.
pub struct Pending {
    /// Its name.
    pub operation: OperationId,
    /// What has to be so.
    pub parts: Vec<Part>,
    /// When it has failed, microseconds UTC.
    pub deadline_us: i64,
}

enum Step {
    Done,
    Waits(String),
    Never(String),
}

impl Pending {
    /// Ends the operation where it is over, and says whether it is.
    pub fn settle(&self, directory: &Directory, operations: &Operations, now_us: i64) -> bool {
        let (mut waiting, mut failed) = (Vec::new(), Vec::new());
        for part in &self.parts {
            match part.step(directory, now_us) {
                Step::Done => {}
                Step::Waits(why) => waiting.push(why),
                Step::Never(why) => failed.push(why),
            }
        }
        if waiting.is_empty() && failed.is_empty() {
            operations.step(&self.operation, "settled", true);
            operations.effect(&self.operation, json!({ "books": self.parts.len() }));
            operations.finish(&self.operation, Ok(()));
            return true;
        }
        if waiting.is_empty() || now_us > self.deadline_us {
            failed.extend(waiting);
            operations.finish(&self.operation, Err(failed.join("; ")));
            return true;
        }
        false
    }
}

impl Part {
    fn step(&self, directory: &Directory, now_us: i64) -> Step {
        let Desk { venue, market, settled, .. } = &*self.desk;
        let waits = |why: &str| Step::Waits(format!("{} on {venue} {market} {why}", self.symbol));
        if settled.load(SeqCst) < self.version {
            return waits("is not planned yet");
        }
        let Some(runtime) = directory.runtime(*venue, *market) else { return waits("is not planned yet") };
        let catalogue = runtime.catalogue.load();
        let native = catalogue.find(&self.symbol).map_or(self.symbol.as_str(), |found| &*found.native);
        let book = directory.book(*venue, *market, native);
        match (self.want, book) {
            (Want::Gone, None) => Step::Done,
            (Want::Gone, Some(_)) => waits("is still collected"),
            (Want::Live, Some(book)) => match book.cell.state(now_us) {
                SampleState::Live => Step::Done,
                state => waits(&format!("is {}", state.as_str())),
            },
            (Want::Live, None) => {
                let missing = runtime.missing.load();
                let reason = missing.iter().find(|one| is_same(&one.symbol, &self.symbol));
                let why = |reason| format!("{} on {venue} {market}: {reason}", self.symbol);
                reason.map_or_else(|| waits("has no book yet"), |missing| Step::Never(why(missing.reason)))
            }
        }
    }
}
