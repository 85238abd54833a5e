//! Which fault when: a pure function of the seed, the kinds that can be put in and the number of faults.

use super::{dice::Dice, kind::Kind};

/// One fault of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// The seed of everything that it draws: targets, amounts, spans.
    pub seed: u64,
}

/// Draws from a full bag until it is empty, then fills it again: every kind comes before one comes twice.
struct Bag {
    all: Vec<Kind>,
    left: Vec<Kind>,
}

impl Bag {
    const fn new(all: Vec<Kind>) -> Self {
        Self { all, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut Dice) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            dice.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

/// The faults of a run. In a long run what ends the process comes only in its first eighth and its last twentieth, so that
/// the memory of one process can be followed in between.
pub fn plan(seed: u64, kinds: &[Kind], count: usize, long: bool) -> Vec<Planned> {
    let mut dice = Dice::new(seed);
    let (ending, others): (Vec<Kind>, Vec<Kind>) = kinds.iter().partition(|kind| kind.ends_the_process());
    let (mut all, mut ending, mut others) = (Bag::new(kinds.to_vec()), Bag::new(ending), Bag::new(others));
    let mut planned = Vec::with_capacity(count);
    for at in 0..count {
        let kind = if !long {
            all.draw(&mut dice)
        } else if is_edge(at, count) && at % 3 == 1 {
            ending.draw(&mut dice)
        } else {
            others.draw(&mut dice)
        };
        let Some(kind) = kind else { continue };
        planned.push(Planned { kind, seed: dice.roll() });
    }
    planned
}

/// Where in a long run processes may end.
pub const fn is_edge(at: usize, count: usize) -> bool {
    at < count / 8 || at >= count - count / 20
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SOME: [Kind; 5] = [Kind::Kill, Kind::Terminate, Kind::Skip, Kind::DropCut, Kind::Silence];

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        assert_eq!(plan(7, &SOME, 40, false), plan(7, &SOME, 40, false));
        assert_ne!(plan(7, &SOME, 40, false), plan(8, &SOME, 40, false));
    }

    #[test]
    fn every_kind_comes_before_one_comes_twice() {
        let planned = plan(1, &SOME, SOME.len(), false);
        let kinds: BTreeSet<Kind> = planned.iter().map(|planned| planned.kind).collect();
        assert_eq!(kinds.len(), SOME.len());
    }

    #[test]
    fn one_process_lives_through_the_middle_of_a_long_run() {
        let planned = plan(5, &SOME, 180, true);
        let ends: Vec<usize> = (0..180).filter(|at| planned[*at].kind.ends_the_process()).collect();
        assert!(ends.iter().all(|at| is_edge(*at, 180)), "{ends:?}");
        assert!(ends.iter().any(|at| *at < 30) && ends.iter().any(|at| *at > 150), "{ends:?}");
    }
}
