//! Weight used within a sliding window, in bounded memory.
//!
//! A venue may count in windows aligned to its own clock. What never exceeds the capacity in any window of that length
//! does not exceed it in those either, wherever they begin.

use std::collections::VecDeque;

/// A window is kept in at most this many slices, plus the one being filled.
const SLICES: i64 = 64;

/// Sliding sum of weights. Times are UTC microseconds.
#[derive(Clone, Debug)]
pub(super) struct Window {
    length_us: i64,
    slice_us: i64,
    /// End of the slice and its weight, oldest first. A weight counts as if it came at the end of its slice, so it is
    /// never forgotten too early.
    slices: VecDeque<(i64, u64)>,
    sum: u64,
}

impl Window {
    pub(super) fn new(length_us: i64) -> Self {
        let length_us = length_us.max(1);
        Self { length_us, slice_us: (length_us / SLICES).max(1), slices: VecDeque::new(), sum: 0 }
    }

    pub(super) fn length_us(&self) -> i64 {
        self.length_us
    }

    /// Changes the length; what is in it stays, and leaves by the new length.
    pub(super) fn set_length(&mut self, length_us: i64) {
        self.length_us = length_us.max(1);
        self.slice_us = (self.length_us / SLICES).max(1);
    }

    pub(super) fn add(&mut self, now_us: i64, weight: u32) {
        if weight == 0 {
            return;
        }
        let end = (now_us.div_euclid(self.slice_us) + 1) * self.slice_us;
        self.sum += u64::from(weight);
        match self.slices.back_mut() {
            // A clock that steps back must not make an older slice follow a newer one.
            Some((last, sum)) if *last >= end => *sum += u64::from(weight),
            _ => self.slices.push_back((end, u64::from(weight))),
        }
    }

    pub(super) fn expire(&mut self, now_us: i64) {
        while let Some((end, weight)) = self.slices.front().copied() {
            if end + self.length_us > now_us {
                return;
            }
            self.sum -= weight;
            self.slices.pop_front();
        }
    }

    /// Weight still counted, after [`Window::expire`].
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// When the oldest slice will be forgotten.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.slices.front().map(|(end, _)| end + self.length_us)
    }
}
