//! One side of a book: levels sorted from the best, in chunks that carry their own sums, so that an update touches few
//! chunks and a depth sum reads few levels. It trusts its input: prices and quantities were checked by the book.

use std::ops::{Add, AddAssign, Sub, SubAssign};

use crate::event::Level;

/// Levels of a freshly made chunk.
const CHUNK: usize = 64;
/// A chunk with more levels is divided.
const CHUNK_MAX: usize = 96;
/// A chunk with fewer levels is joined with the next one where both fit into [`CHUNK`].
const CHUNK_MIN: usize = 16;
/// Levels looked at one by one before a binary search: the next change is mostly close to the one before.
const NEAR: usize = 8;
/// From this many changes on a chunk is merged in one pass; fewer are put in one by one.
const WEAVE_MIN: usize = 6;

/// Sums over levels: quantity on the quantity scale, price times quantity on the sum of both scales.
///
/// The operators wrap, because `overflow-checks` would cost a branch each: the book bounds the notional of a level and
/// the number of levels so that no sum can reach the limits of `i128`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) qty: i128,
    pub(crate) notional: i128,
}

impl Sums {
    #[inline]
    fn of_change(price: i64, qty: i64) -> Self {
        Self { qty: i128::from(qty), notional: i128::from(price).wrapping_mul(i128::from(qty)) }
    }

    #[inline]
    fn of(levels: &[Level]) -> Self {
        levels.iter().fold(Self::default(), |sums, level| sums + Self::of_change(level.price, level.qty))
    }
}

impl Add for Sums {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self { qty: self.qty.wrapping_add(other.qty), notional: self.notional.wrapping_add(other.notional) }
    }
}

impl Sub for Sums {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self { qty: self.qty.wrapping_sub(other.qty), notional: self.notional.wrapping_sub(other.notional) }
    }
}

impl AddAssign for Sums {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Sums {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// True when `a` stands strictly before `b`, counted from the best price of the side.
#[inline]
pub(crate) const fn before<const BIDS: bool>(a: i64, b: i64) -> bool {
    if BIDS { a > b } else { a < b }
}

/// Number of leading levels that stand before `price`.
#[inline]
fn levels_before<const BIDS: bool>(levels: &[Level], price: i64) -> usize {
    let near = &levels[..levels.len().min(NEAR)];
    if let Some(found) = near.iter().position(|level| !before::<BIDS>(level.price, price)) {
        return found;
    }
    near.len() + levels[near.len()..].partition_point(|level| before::<BIDS>(level.price, price))
}

/// Changes in the order of the side, one a price: the last one of a price wins. Input already in order is not copied.
pub(crate) fn ordered<'a, const BIDS: bool>(
    changes: &'a [Level],
    scratch: &'a mut Vec<Level>,
) -> &'a [Level] {
    if changes.is_sorted_by(|a, b| before::<BIDS>(a.price, b.price)) {
        return changes;
    }
    scratch.clear();
    // Reversed, so that a stable sort puts the last change of a price first, where `dedup` keeps it.
    scratch.extend(changes.iter().rev());
    scratch.sort_by(|a, b| if BIDS { b.price.cmp(&a.price) } else { a.price.cmp(&b.price) });
    scratch.dedup_by_key(|level| level.price);
    scratch
}

/// Working memory of an update, and what the update added and took away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    tail: Vec<Level>,
    pub(crate) added: i128,
    pub(crate) removed: i128,
}

impl Work {
    /// Forgets the last update.
    pub(crate) fn begin(&mut self) {
        (self.added, self.removed) = (0, 0);
    }

    #[inline]
    fn note(&mut self, change: i64) {
        self.added = self.added.wrapping_add(i128::from(change.max(0)));
        self.removed = self.removed.wrapping_add(i128::from(change.min(0)).wrapping_neg());
    }
}

/// A run of neighbouring levels, never empty.
#[derive(Clone, Debug)]
struct Chunk {
    levels: Vec<Level>,
    /// Price of the last level, kept here so that the search for a chunk stays in one array.
    worst: i64,
    sums: Sums,
}

impl Chunk {
    fn new(levels: &[Level]) -> Self {
        let mut own = Vec::with_capacity(CHUNK_MAX.max(levels.len()));
        own.extend_from_slice(levels);
        let mut chunk = Self { levels: own, worst: 0, sums: Sums::of(levels) };
        chunk.note_worst();
        chunk
    }

    #[inline]
    fn note_worst(&mut self) {
        self.worst = self.levels.last().map_or(0, |level| level.price);
    }

    /// Applies ordered changes.
    fn merge<const BIDS: bool>(&mut self, run: &[Level], work: &mut Work) {
        if run.len() >= WEAVE_MIN {
            self.weave::<BIDS>(run, work);
        } else {
            run.iter().fold(0, |at, change| self.put::<BIDS>(at, *change, work));
        }
        self.note_worst();
    }

    /// Applies one change at or after a position, and gives the position after it.
    fn put<const BIDS: bool>(&mut self, mut at: usize, change: Level, work: &mut Work) -> usize {
        at += levels_before::<BIDS>(&self.levels[at..], change.price);
        match self.levels.get_mut(at).filter(|level| level.price == change.price) {
            Some(level) => {
                self.sums += Sums::of_change(change.price, change.qty - level.qty);
                work.note(change.qty - level.qty);
                level.qty = change.qty;
                if change.qty == 0 {
                    self.levels.remove(at);
                }
            }
            None if change.qty > 0 => {
                self.sums += Sums::of_change(change.price, change.qty);
                work.note(change.qty);
                self.levels.insert(at, change);
            }
            None => {}
        }
        at
    }

    /// Merges many changes in one pass. Near the best price nothing predicts whether a level stays, changes, goes or
    /// appears, so the inner step computes instead of branching.
    fn weave<const BIDS: bool>(&mut self, run: &[Level], work: &mut Work) {
        let Some(first) = run.first() else { return };
        let mut tail = std::mem::take(&mut work.tail);
        let from = levels_before::<BIDS>(&self.levels, first.price);
        tail.clear();
        tail.extend_from_slice(&self.levels[from..]);
        self.levels.resize(from + tail.len() + run.len(), Level::default());
        let out = &mut self.levels[from..];
        let (mut n_old, mut n_changes, mut n_out) = (0, 0, 0);
        let mut sums = Sums::default();
        while let (Some(&old), Some(&change)) = (tail.get(n_old), run.get(n_changes)) {
            if tail.get(n_old + NEAR).is_some_and(|far| before::<BIDS>(far.price, change.price)) {
                let n_kept = levels_before::<BIDS>(&tail[n_old..], change.price);
                out[n_out..n_out + n_kept].copy_from_slice(&tail[n_old..n_old + n_kept]);
                n_old += n_kept;
                n_out += n_kept;
                continue;
            }
            let is_same = old.price == change.price;
            let is_change = !before::<BIDS>(old.price, change.price);
            let level = if is_change { change } else { old };
            out[n_out] = level;
            n_out += usize::from(level.qty > 0);
            n_old += usize::from(is_same | !is_change);
            n_changes += usize::from(is_change);
            let was = if is_same { old.qty } else { 0 };
            let difference = if is_change { change.qty - was } else { 0 };
            sums += Sums::of_change(change.price, difference);
            work.note(difference);
        }
        for change in run[n_changes..].iter().filter(|change| change.qty > 0) {
            sums += Sums::of_change(change.price, change.qty);
            work.note(change.qty);
            out[n_out] = *change;
            n_out += 1;
        }
        let rest = &tail[n_old..];
        out[n_out..n_out + rest.len()].copy_from_slice(rest);
        self.levels.truncate(from + n_out + rest.len());
        self.sums += sums;
        work.tail = tail;
    }
}

/// One side of a book: `BIDS` orders it from the highest price, otherwise from the lowest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side<const BIDS: bool> {
    chunks: Vec<Chunk>,
    len: usize,
}

impl<const BIDS: bool> Side<BIDS> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn best(&self) -> Option<Level> {
        self.chunks.first().and_then(|chunk| chunk.levels.first()).copied()
    }

    /// Levels from the best.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Level> {
        self.chunks.iter().flat_map(|chunk| chunk.levels.iter().copied())
    }

    /// The level at a position counted from the best.
    pub(crate) fn nth(&self, mut position: usize) -> Option<Level> {
        for chunk in &self.chunks {
            if let Some(level) = chunk.levels.get(position) {
                return Some(*level);
            }
            position -= chunk.levels.len();
        }
        None
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// Replaces all levels; `levels` are ordered and have one entry a price.
    pub(crate) fn load(&mut self, levels: &[Level]) {
        let present: Vec<Level> = levels.iter().filter(|level| level.qty > 0).copied().collect();
        self.len = present.len();
        self.chunks = present.chunks(CHUNK).map(Chunk::new).collect();
    }

    /// Number of levels after ordered changes, without applying them.
    pub(crate) fn len_after(&self, changes: &[Level]) -> usize {
        changes.iter().fold(self.len, |len, change| match (self.contains(change.price), change.qty > 0) {
            (false, true) => len + 1,
            (true, false) => len - 1,
            _ => len,
        })
    }

    fn contains(&self, price: i64) -> bool {
        let at = self.chunks.partition_point(|chunk| before::<BIDS>(chunk.worst, price));
        let Some(chunk) = self.chunks.get(at) else { return false };
        let found = levels_before::<BIDS>(&chunk.levels, price);
        chunk.levels.get(found).is_some_and(|level| level.price == price)
    }

    /// Applies ordered changes and adds what they did to `work`.
    pub(crate) fn apply(&mut self, changes: &[Level], work: &mut Work) {
        let mut rest = changes;
        let mut at = 0;
        while let Some(first) = rest.first() {
            let Some(last_chunk) = self.chunks.len().checked_sub(1) else {
                rest.iter().for_each(|change| work.note(change.qty));
                return self.load(rest);
            };
            at += self.chunks[at..].partition_point(|chunk| before::<BIDS>(chunk.worst, first.price));
            // What lies beyond the worst level belongs to the last chunk.
            at = at.min(last_chunk);
            let chunk = &mut self.chunks[at];
            let n_run = if at == last_chunk {
                rest.len()
            } else {
                rest.partition_point(|change| !before::<BIDS>(chunk.worst, change.price))
            };
            let (run, after) = rest.split_at(n_run);
            let n_before = chunk.levels.len();
            chunk.merge::<BIDS>(run, work);
            let n_now = chunk.levels.len();
            self.len = self.len - n_before + n_now;
            rest = after;
            if !(CHUNK_MIN..=CHUNK_MAX).contains(&n_now) {
                self.settle(at);
            }
        }
    }

    /// Brings a chunk back to a fair size.
    fn settle(&mut self, at: usize) {
        let n_levels = self.chunks[at].levels.len();
        if n_levels == 0 {
            self.chunks.remove(at);
        } else if n_levels > CHUNK_MAX {
            let n_parts = n_levels.div_ceil(CHUNK);
            let whole = self.chunks.remove(at);
            let parts = whole.levels.chunks(n_levels.div_ceil(n_parts)).map(Chunk::new);
            self.chunks.splice(at..at, parts);
        } else if let Some(next) = self.chunks.get(at + 1)
            && n_levels + next.levels.len() <= CHUNK
        {
            let next = self.chunks.remove(at + 1);
            let chunk = &mut self.chunks[at];
            chunk.levels.extend_from_slice(&next.levels);
            chunk.worst = next.worst;
            chunk.sums += next.sums;
        }
    }

    /// Sums of the levels not beyond each bound; bounds go outwards from the best.
    pub(crate) fn sums_within(&self, bounds: &[i64], mut each: impl FnMut(usize, Sums)) {
        let mut chunks = self.chunks.iter();
        let mut chunk = chunks.next();
        // `total` covers the chunks before `chunk` and its first `n_taken` levels, `base` the chunks alone.
        let (mut base, mut total, mut n_taken) = (Sums::default(), Sums::default(), 0);
        for (band, &bound) in bounds.iter().enumerate() {
            while let Some(whole) = chunk
                && !before::<BIDS>(bound, whole.worst)
            {
                base += whole.sums;
                (total, n_taken) = (base, 0);
                chunk = chunks.next();
            }
            if let Some(cut) = chunk {
                let levels = &cut.levels;
                let end =
                    n_taken + levels[n_taken..].partition_point(|level| !before::<BIDS>(bound, level.price));
                // The shorter way: add what comes in, or take what stays out off the chunk's sum.
                total = if end - n_taken <= levels.len() - end {
                    total + Sums::of(&levels[n_taken..end])
                } else {
                    base + cut.sums - Sums::of(&levels[end..])
                };
                n_taken = end;
            }
            each(band, total);
        }
    }

    #[cfg(test)]
    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.len, self.iter().count());
        let prices: Vec<i64> = self.iter().map(|level| level.price).collect();
        assert!(prices.is_sorted_by(|a, b| before::<BIDS>(*a, *b)), "out of order: {prices:?}");
        for chunk in &self.chunks {
            assert!(!chunk.levels.is_empty() && chunk.levels.len() <= CHUNK_MAX);
            assert!(chunk.levels.iter().all(|level| level.qty > 0));
            assert_eq!(chunk.worst, chunk.levels.last().unwrap().price);
            assert_eq!(chunk.sums, Sums::of(&chunk.levels));
        }
    }
}
