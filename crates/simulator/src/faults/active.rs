//! A fault that was put in, shared by the ledger and by whatever it hits: what it has done so far, and whether it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Fault;
use crate::ledger::entries::{FaultEntry, TouchedStream};

/// Streams, connections and details kept of one fault.
const KEPT: usize = 2000;

#[derive(Default)]
struct Progress {
    first_effect_ms: Option<i64>,
    last_effect_ms: Option<i64>,
    ended_ms: Option<i64>,
    /// Uses left, for faults of a whole market.
    left: Option<u32>,
    /// Streams on which it still waits, for faults of streams.
    waiting: usize,
    effects: u64,
    connections: BTreeSet<u64>,
    streams: BTreeMap<String, TouchedStream>,
    details: Vec<String>,
}

/// A fault that was put in.
pub(crate) struct Active {
    pub id: u64,
    pub fault: Fault,
    pub injected_ms: i64,
    until_ms: Option<i64>,
    progress: Mutex<Progress>,
}

impl Active {
    pub(crate) fn new(id: u64, fault: Fault, now_ms: i64) -> Self {
        let progress = Progress { left: fault.count, ..Progress::default() };
        Self { id, injected_ms: now_ms, until_ms: fault.ends(now_ms), fault, progress: Mutex::new(progress) }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the clock ends it.
    pub(crate) const fn until_ms(&self) -> Option<i64> {
        self.until_ms
    }

    pub(crate) fn in_force(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until) && self.lock().ended_ms.is_none()
    }

    pub(crate) fn end(&self, now_ms: i64) {
        self.lock().ended_ms.get_or_insert(now_ms);
    }

    /// It did something to something that is no stream.
    pub(crate) fn acted(&self, now_ms: i64, connection: Option<u64>) {
        let mut progress = self.lock();
        progress.first_effect_ms.get_or_insert(now_ms);
        progress.last_effect_ms = Some(now_ms);
        progress.effects += 1;
        if progress.connections.len() < KEPT {
            progress.connections.extend(connection);
        }
    }

    /// Uses it once, where it counts its uses; false when it is over.
    pub(crate) fn take(&self, now_ms: i64, connection: Option<u64>) -> bool {
        if !self.in_force(now_ms) {
            return false;
        }
        self.acted(now_ms, connection);
        let mut progress = self.lock();
        if let Some(left) = &mut progress.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                progress.ended_ms = Some(now_ms);
            }
        }
        true
    }

    /// It hit a message of a stream on its way to some connections.
    pub(crate) fn hit(
        &self,
        now_ms: i64,
        stream: &str,
        ids: (u64, u64),
        connections: impl IntoIterator<Item = u64>,
    ) {
        let mut progress = self.lock();
        progress.first_effect_ms.get_or_insert(now_ms);
        progress.last_effect_ms = Some(now_ms);
        progress.effects += 1;
        if progress.connections.len() < KEPT {
            progress.connections.extend(connections);
        }
        if let Some(touched) = progress.streams.get_mut(stream) {
            touched.messages += 1;
            (touched.last_ms, touched.last_id) = (now_ms, ids.1);
        } else if progress.streams.len() < KEPT {
            let touched = TouchedStream {
                stream: stream.to_owned(),
                messages: 1,
                first_ms: now_ms,
                last_ms: now_ms,
                first_id: ids.0,
                last_id: ids.1,
            };
            progress.streams.insert(stream.to_owned(), touched);
        }
    }

    /// What a reader of the ledger wants to know beyond figures.
    pub(crate) fn detail(&self, text: String) {
        let mut progress = self.lock();
        if progress.details.len() < KEPT {
            progress.details.push(text);
        }
    }

    /// It waits for a message on one more stream.
    pub(crate) fn wait(&self) {
        self.lock().waiting += 1;
    }

    /// It is done on one stream; over with the last.
    pub(crate) fn done(&self, now_ms: i64) {
        let mut progress = self.lock();
        progress.waiting = progress.waiting.saturating_sub(1);
        if progress.waiting == 0 {
            progress.ended_ms.get_or_insert(now_ms);
        }
    }

    pub(crate) fn entry(&self, now_ms: i64) -> FaultEntry {
        let progress = self.lock();
        let by_clock = self.until_ms.filter(|until| *until <= now_ms);
        FaultEntry {
            id: self.id,
            fault: self.fault.clone(),
            injected_ms: self.injected_ms,
            until_ms: self.until_ms,
            first_effect_ms: progress.first_effect_ms,
            last_effect_ms: progress.last_effect_ms,
            ended_ms: progress
                .ended_ms
                .map_or(by_clock, |ended| Some(by_clock.map_or(ended, |at| at.min(ended)))),
            effects: progress.effects,
            connections: progress.connections.iter().copied().collect(),
            streams: progress.streams.values().cloned().collect(),
            details: progress.details.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::ids::Market;

    use super::*;
    use crate::faults::Effect;

    #[test]
    fn uses_and_ends_are_counted() {
        let active = Active::new(1, Fault::new(Market::Spot, Effect::RefuseConnections).times(2), 10);
        assert!(active.take(11, None) && active.take(12, Some(7)) && !active.take(13, None));
        let entry = active.entry(20);
        assert_eq!((entry.first_effect_ms, entry.ended_ms, entry.effects), (Some(11), Some(12), 2));
        assert_eq!(entry.connections, [7]);
        let timed = Active::new(2, Fault::new(Market::Spot, Effect::Skip).lasting(5), 10);
        assert!(timed.in_force(14) && !timed.in_force(15));
        assert_eq!((timed.entry(14).ended_ms, timed.entry(15).ended_ms), (None, Some(15)));
    }

    #[test]
    fn a_fault_of_streams_ends_with_its_last_stream() {
        let active = Active::new(1, Fault::new(Market::Spot, Effect::Skip), 0);
        active.wait();
        active.wait();
        active.hit(5, "a", (1, 3), [4]);
        active.done(5);
        assert!(active.in_force(6));
        active.hit(6, "b", (9, 9), [4]);
        active.done(6);
        let entry = active.entry(9);
        assert_eq!((entry.ended_ms, entry.effects, entry.streams.len()), (Some(6), 2, 2));
        assert_eq!((entry.streams[0].first_id, entry.streams[0].last_id), (1, 3));
    }
}
