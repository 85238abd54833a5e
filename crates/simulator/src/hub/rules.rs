//! What a fault does to the next messages of one stream. Pure: no sockets, time is an argument.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::faults::active::Active;
use crate::faults::{BookPart, Effect, LevelPart};

/// How a subscriber leaves a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It unsubscribed, or subscribes anew.
    Unsubscribed,
    /// Its connection is gone.
    Gone,
}

/// Wishes for a message that differs from the true one, for whoever can spell it.
pub(crate) enum Alteration<'a> {
    /// Bids above the best ask: one more in `phantoms`, or with `clean` all of them as they truly are.
    Cross { phantoms: &'a mut Vec<i64>, clean: bool },
    /// One wrong level.
    Corrupt { what: LevelPart, rank: usize, said: &'a mut String },
}

/// Spells an altered message; `None` when this stream has none.
pub(crate) type Alter<'a> = &'a mut dyn FnMut(Alteration<'_>) -> Option<String>;

#[derive(Debug)]
enum Act {
    Silence { stubborn: bool },
    Skip,
    Duplicate,
    Garbage,
    Reorder { held: Option<String> },
    Cross { phantoms: Vec<i64> },
    Corrupt { what: LevelPart, rank: usize },
}

/// A fault on one stream.
pub(crate) struct Rule {
    pub active: Arc<Active>,
    act: Act,
    /// Only this connection.
    only: Option<u64>,
    /// Only these, who listened when it began and have not healed yet.
    among: Option<BTreeSet<u64>>,
    left: Option<u32>,
}

impl Rule {
    /// The rule that a fault is on a stream with these listeners; `None` when it is none of streams.
    pub(crate) fn new(active: Arc<Active>, listeners: impl Iterator<Item = u64>) -> Option<Self> {
        let fault = &active.fault;
        let act = match fault.effect {
            Effect::Silence { stubborn } => Act::Silence { stubborn: stubborn == Some(true) },
            Effect::Skip => Act::Skip,
            Effect::Duplicate => Act::Duplicate,
            Effect::Garbage => Act::Garbage,
            Effect::Reorder => Act::Reorder { held: None },
            Effect::CrossedBook { on: BookPart::Stream } => Act::Cross { phantoms: Vec::new() },
            Effect::CorruptLevel { what, rank } => Act::Corrupt { what, rank },
            _ => return None,
        };
        let only = fault.target.connection;
        let heals = match fault.effect {
            Effect::Silence { stubborn: None } => active.until_ms().is_none() && fault.count.is_none(),
            Effect::Silence { .. } => true,
            _ => false,
        };
        let among = heals.then(|| listeners.filter(|id| only.is_none_or(|only| only == *id)).collect());
        let left = match act {
            Act::Silence { .. } => fault.count,
            _ => fault.count.or(if active.until_ms().is_some() { None } else { Some(1) }),
        };
        Some(Self { active, act, only, among, left })
    }

    /// Whether it hits what is sent to a connection.
    pub(crate) fn hits(&self, connection: u64) -> bool {
        match &self.among {
            Some(among) => among.contains(&connection),
            None => self.only.is_none_or(|only| only == connection),
        }
    }

    /// A subscriber left; true when nobody is left whom the rule could hit.
    pub(crate) fn left(&mut self, connection: u64, how: Leaving) -> bool {
        let gone = how == Leaving::Gone;
        if let Some(among) = &mut self.among {
            if gone || !matches!(self.act, Act::Silence { stubborn: true }) {
                among.remove(&connection);
            }
            return among.is_empty();
        }
        gone && self.only == Some(connection)
    }

    /// What a message becomes, and whether the rule is over with it.
    pub(crate) fn fire<'a>(&mut self, data: &'a str, alter: Alter<'_>) -> (Vec<Cow<'a, str>>, bool) {
        let Self { active, act, left, .. } = self;
        let whole = Cow::Borrowed(data);
        let becomes = match act {
            Act::Silence { .. } | Act::Skip => Vec::new(),
            Act::Duplicate => vec![whole.clone(), whole],
            Act::Garbage => vec![Cow::Borrowed(half(data))],
            Act::Reorder { held } => match held.take() {
                None => {
                    *held = Some(data.to_owned());
                    return (Vec::new(), false);
                }
                Some(earlier) => vec![whole, Cow::Owned(earlier)],
            },
            Act::Cross { phantoms } => {
                let clean = *left == Some(0);
                let altered = alter(Alteration::Cross { phantoms, clean });
                if clean {
                    return (vec![altered.map_or(whole, Cow::Owned)], true);
                }
                let Some(altered) = altered else { return (vec![whole], false) };
                *left = left.map(|left| left - 1);
                return (vec![Cow::Owned(altered)], false);
            }
            Act::Corrupt { what, rank } => {
                let mut said = String::new();
                let altered = alter(Alteration::Corrupt { what: *what, rank: *rank, said: &mut said });
                let Some(altered) = altered else { return (vec![whole], false) };
                active.detail(said);
                vec![Cow::Owned(altered)]
            }
        };
        *left = left.map(|left| left.saturating_sub(1));
        (becomes, *left == Some(0))
    }

    /// Whether it goes on. A crossed book whose time is over goes on until its phantoms are taken back.
    pub(crate) fn goes_on(&mut self, now_ms: i64) -> bool {
        if self.active.in_force(now_ms) {
            return true;
        }
        let owes = matches!(&self.act, Act::Cross { phantoms } if !phantoms.is_empty());
        if owes {
            self.left = Some(0);
        }
        owes
    }
}

fn half(data: &str) -> &str {
    let middle = (data.len() / 2..data.len()).find(|at| data.is_char_boundary(*at)).unwrap_or(data.len());
    &data[..middle]
}
