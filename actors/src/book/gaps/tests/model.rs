//! Random histories of a trade stream against a model that simply remembers which trades were stored: whatever no gap
//! covers has to be there, each gap ends at trades that were there, and counts exactly what lies between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// This many trades are received.
    Receive(u8),
    /// This many happen and are not received; nobody says so.
    Drop(u8),
    /// This many are repeated, as by a second line.
    Repeat(u8),
    /// The line is lost and this many trades with it.
    Reset(u8),
    /// The inbox was full.
    Overflow(u8),
    /// Rows leave the book.
    Send,
    /// The actor dies with what had not left it.
    Panic(u8),
    /// The actor ends in order.
    Stop,
    /// The process dies; what had left the book is stored.
    Kill(u8),
    /// A page of a repair arrives, at most this long.
    Page(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..9_u8).prop_map(Step::Receive),
        2 => (1..5_u8).prop_map(Step::Drop),
        1 => (1..5_u8).prop_map(Step::Repeat),
        2 => (0..5_u8).prop_map(Step::Reset),
        1 => (0..5_u8).prop_map(Step::Overflow),
        4 => Just(Step::Send),
        1 => (0..3_u8).prop_map(Step::Panic),
        1 => Just(Step::Stop),
        1 => (0..5_u8).prop_map(Step::Kill),
        3 => (1..6_u8).prop_map(Step::Page),
    ]
}

struct Model {
    tracker: GapTracker,
    now: i64,
    /// The last trade that happened.
    last: u64,
    /// Received, in the book.
    held: BTreeSet<u64>,
    /// Rows that left it.
    stored: BTreeSet<u64>,
    /// Trades that the venue's history lacks.
    absent: BTreeSet<u64>,
    ledger: BTreeMap<String, Gap>,
}

impl Model {
    fn new(absent: BTreeSet<u64>) -> Self {
        let ledger = BTreeMap::new();
        Self { tracker: tracker(), now: 0, last: 100, held: [].into(), stored: [].into(), absent, ledger }
    }

    fn receive(&mut self, id: u64) {
        self.now += 1;
        self.tracker.record(T, self.now, trade(id));
        self.held.insert(id);
    }

    /// The stored side of the ledger: later versions win, and rows that had not left the book are lost with it.
    fn send(&mut self) {
        for gap in self.tracker.take() {
            let known = self.ledger.get(&gap.id);
            assert!(known.is_none_or(|known| known.updated_us <= gap.updated_us));
            self.ledger.insert(gap.id.clone(), gap);
        }
        self.stored.append(&mut self.held);
        self.tracker.commit();
    }

    fn begin_process(&mut self) {
        self.now += 10;
        let of_last = self.stored.last().map(ToString::to_string);
        let marks: Vec<_> = of_last.map(|id| mark("trade", self.now - 10, Some(&id))).into_iter().collect();
        let open: Vec<Gap> =
            self.ledger.values().filter(|gap| gap.status == GapStatus::Open).cloned().collect();
        self.tracker = tracker_with(rules());
        self.held.clear();
        self.tracker.recall(&marks, &open, self.now);
    }

    fn page(&mut self, most: u8) {
        let Some(TradePage { from_id, .. }) = self.tracker.next_page() else { return };
        let there = (from_id..=self.last).filter(|id| !self.absent.contains(id));
        let ids: Vec<u64> = there.take(most.into()).collect();
        let page = Page { from_id, ids: &ids, kind: None };
        let Some(wanted) = self.tracker.wanted(&page, self.now) else { return };
        self.tracker.page_read(&page, self.now);
        self.held.extend(ids.into_iter().filter(|id| wanted.contains(id)));
    }

    fn step(&mut self, step: &Step) {
        self.now += 1;
        match *step {
            Step::Receive(count) => {
                for _ in 0..count {
                    self.last += 1;
                    self.receive(self.last);
                }
            }
            Step::Drop(count) => self.last += u64::from(count),
            Step::Repeat(count) => {
                let had: Vec<u64> = self.held.iter().rev().take(count.into()).copied().collect();
                for id in had {
                    self.now += 1;
                    self.tracker.record(T, self.now, trade(id));
                }
            }
            Step::Reset(count) => {
                self.tracker.lost(T, GapCause::Disconnect, self.now);
                self.last += u64::from(count);
            }
            Step::Overflow(count) => {
                self.last += u64::from(count);
                self.tracker.lost_all(GapCause::Overflow, self.now);
            }
            Step::Send => self.send(),
            Step::Panic(count) => {
                self.last += u64::from(count);
                self.held.clear();
                self.tracker.resume(self.now);
            }
            Step::Stop => {
                self.send();
                self.tracker.finish();
                self.tracker.resume(self.now);
            }
            Step::Kill(count) => {
                self.last += u64::from(count);
                self.begin_process();
            }
            Step::Page(most) => self.page(most),
        }
    }

    fn check(&self) {
        let covers = |gap: &Gap, id: u64| {
            let at = |word: &Option<String>| word.as_deref().map(|word| word.parse::<u64>().unwrap());
            at(&gap.from_id).is_some_and(|from| from < id) && at(&gap.to_id).is_none_or(|to| id < to)
        };
        let (Some(first), Some(last)) = (self.stored.first(), self.stored.last()) else { return };
        for id in *first..=*last {
            let holes = self.ledger.values().filter(|gap| gap.is_hole() && covers(gap, id));
            let missing = !self.stored.contains(&id);
            assert!(!missing || holes.count() > 0, "{id} is missing and no gap says so: {:#?}", self.ledger);
        }
        for gap in self.ledger.values() {
            let from: u64 = gap.from_id.as_deref().unwrap().parse().unwrap();
            // Its first edge may have been lost with its instance; then another gap holds it.
            let held = self.ledger.values().any(|gap| gap.is_hole() && covers(gap, from));
            assert!(self.stored.contains(&from) || held, "{gap:?} begins at a trade that is not there");
            let Some(to) = gap.to_id.as_deref().map(|to| to.parse::<u64>().unwrap()) else { continue };
            let between = from + 1..to;
            match gap.status {
                GapStatus::NoneMissed => assert_eq!((gap.missing, between.count()), (Some(0), 0)),
                GapStatus::Repaired => {
                    assert!(between.clone().all(|id| self.stored.contains(&id)), "{gap:?}");
                }
                GapStatus::Lost => {
                    let absent = between.filter(|id| self.absent.contains(id)).count() as u64;
                    assert_eq!(gap.missing, Some(absent), "{gap:?}");
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_missing_outside_the_ledger(
        steps in prop::collection::vec(step(), 1..80),
        absent in prop::collection::btree_set(110..300_u64, 0..6),
    ) {
        let mut model = Model::new(absent);
        model.step(&Step::Receive(3));
        model.step(&Step::Send);
        for step in &steps {
            model.step(step);
        }
        // What happens last is seen by the first trade after it.
        model.step(&Step::Receive(1));
        model.send();
        model.check();
        for _ in 0..5000 {
            if model.tracker.next_page().is_none() {
                break;
            }
            model.page(50);
        }
        model.send();
        model.send();
        model.check();
        prop_assert!(model.ledger.values().all(|gap| gap.status != GapStatus::Open), "{:#?}", model.ledger);
    }
}
