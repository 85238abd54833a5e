//! The bars of one kind: which second an item belongs to, when a bar is finished, whether it is whole.

use std::{collections::VecDeque, mem};

use super::{BarCounts, PENDING_BARS, SECOND_US};

#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) instrument_id: i64,
    pub(super) price_scale: u8,
    pub(super) qty_scale: u8,
}

pub(super) trait Bar: Sized {
    type Item;
    type Row;

    fn start(item: &Self::Item) -> Self;

    /// False, and nothing changed, when the sums cannot hold the item.
    fn add(&mut self, item: &Self::Item) -> bool;

    /// `None` when a value does not fit its column.
    fn row(&self, facts: &Facts, second_ms: i64, partial: bool, rounded: &mut u64) -> Option<Self::Row>;
}

#[derive(Clone, Debug)]
struct OpenBar<B> {
    second: i64,
    partial: bool,
    bar: B,
}

/// The bars of one kind.
#[derive(Clone, Debug)]
pub(super) struct Lane<B: Bar> {
    open: Option<OpenBar<B>>,
    /// The first second that may still have a bar.
    floor: i64,
    interrupted: bool,
    pending: VecDeque<B::Row>,
}

impl<B: Bar> Default for Lane<B> {
    fn default() -> Self {
        Self { open: None, floor: i64::MIN, interrupted: true, pending: VecDeque::new() }
    }
}

impl<B: Bar> Lane<B> {
    pub(super) fn take(
        &mut self,
        item: Option<B::Item>,
        time_us: i64,
        facts: &Facts,
        counts: &mut BarCounts,
    ) -> bool {
        let Some(item) = item else {
            counts.rejected += 1;
            return false;
        };
        let own_second = time_us.div_euclid(SECOND_US);
        let second = own_second.max(self.floor);
        counts.late += u64::from(own_second < second);
        if let Some(open) = self.open.as_mut().filter(|open| open.second == second) {
            let added = open.bar.add(&item);
            counts.rejected += u64::from(!added);
            open.partial |= mem::take(&mut self.interrupted) || !added;
            return added;
        }
        self.close(facts, counts);
        self.floor = second;
        self.open = Some(OpenBar { second, partial: mem::take(&mut self.interrupted), bar: B::start(&item) });
        true
    }

    pub(super) fn roll(&mut self, second: i64, facts: &Facts, counts: &mut BarCounts) -> Vec<B::Row> {
        if self.open.as_ref().is_some_and(|open| open.second < second) {
            self.close(facts, counts);
        }
        self.floor = self.floor.max(second);
        self.pending.drain(..).collect()
    }

    pub(super) fn finish(&mut self, facts: &Facts, counts: &mut BarCounts) -> Vec<B::Row> {
        if let Some(open) = &self.open {
            self.floor = open.second.saturating_add(1);
        }
        self.close(facts, counts);
        self.pending.drain(..).collect()
    }

    fn close(&mut self, facts: &Facts, counts: &mut BarCounts) {
        let Some(open) = self.open.take() else { return };
        let second_ms = open.second.saturating_mul(1000);
        let Some(row) = open.bar.row(facts, second_ms, open.partial, &mut counts.rounded) else {
            counts.unfit += 1;
            return;
        };
        if self.pending.len() == PENDING_BARS {
            self.pending.pop_front();
            counts.overflowed += 1;
        }
        self.pending.push_back(row);
    }

    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
        if let Some(open) = &mut self.open {
            open.partial = true;
        }
    }
}
