//! Symbols that operators add and remove while everything runs: the core behind every way to say so. It decides, remembers
//! on disk, and follows what the market supervisors make of it; it asks no actor.

pub mod file;
pub mod pending;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wishes;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fathom_market::ids::{Market, VenueId};
use fathom_venues::planner::Tier;
use thiserror::Error;

use self::{
    file::{Changes, FileError},
    pending::{Part, Pending, Want},
    wishes::{Change, Wish, compact, is_same},
};
use crate::{
    directory::Directory,
    instruments::Catalogue,
    kernel::{Clock, NewOperation, OperationId, Operations, clock::micros},
    settings::MarketSettings,
};

/// Symbols of one command.
pub const MAX_SYMBOLS: usize = 1000;
/// How long a change may take until its books are live.
const DONE_WITHIN: Duration = Duration::from_secs(180);

/// What one market's supervisor is told.
pub struct Desk {
    /// Venue.
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// Set when the venue says that its list of instruments changed.
    pub listings: Arc<AtomicBool>,
    configured: Vec<String>,
    tiers: Vec<Tier>,
    wishes: ArcSwap<Vec<Wish>>,
    version: AtomicU64,
    settled: AtomicU64,
}

impl Desk {
    /// The desk of a market with what operators changed of it.
    pub fn new(market: &MarketSettings, change: &Change) -> Self {
        Self {
            venue: market.venue.id(),
            market: market.market,
            listings: Arc::default(),
            wishes: ArcSwap::from_pointee(change.wanted(&market.symbols)),
            configured: market.symbols.clone(),
            tiers: market.tiers.iter().map(|tier| tier.tier).collect(),
            version: AtomicU64::new(1),
            settled: AtomicU64::new(0),
        }
    }

    /// What is wanted, and the number of this version.
    pub fn wanted(&self) -> (u64, Arc<Vec<Wish>>) {
        // The version first: a later change is then seen as one.
        let version = self.version.load(SeqCst);
        (version, self.wishes.load_full())
    }

    /// A version of what is wanted has been brought about, as far as it can be.
    pub fn settle(&self, version: u64) {
        self.settled.fetch_max(version, SeqCst);
    }

    /// True when a newer version waits to be brought about.
    pub fn is_due(&self) -> bool {
        self.settled.load(SeqCst) < self.version.load(SeqCst)
    }

    fn want(&self, change: &Change) -> u64 {
        self.wishes.store(Arc::new(change.wanted(&self.configured)));
        self.version.fetch_add(1, SeqCst) + 1
    }

    fn key(&self) -> String {
        format!("{}/{}", self.venue, self.market)
    }
}

/// Which markets a command reaches; every one where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Only this venue.
    pub venue: Option<VenueId>,
    /// Only this market.
    pub market: Option<Market>,
}

impl Reach {
    fn holds(self, venue: VenueId, market: Market) -> bool {
        self.venue.is_none_or(|one| one == venue) && self.market.is_none_or(|one| one == market)
    }
}

/// A change that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// These are wanted too.
    Add {
        /// Native or unified names.
        symbols: Vec<String>,
        /// The tier; found without one.
        tier: Option<Tier>,
    },
    /// These are not wanted any more.
    Remove {
        /// Native or unified names.
        symbols: Vec<String>,
    },
    /// These, and no others, are wanted.
    Set {
        /// Native or unified names, the most important first.
        symbols: Vec<String>,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SymbolError {
    /// It is wanted everywhere already.
    #[error("Symbol {0} already exists")]
    Duplicate(String),
    /// No venue in reach lists it.
    #[error("Symbol {0} is listed by no venue in reach")]
    NotListed(String),
    /// It is not collected.
    #[error("Symbol {0} is not collected")]
    NotCollected(String),
    /// What was said makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A venue has not told yet what it lists.
    #[error("what {venue} {market} lists is not known yet")]
    NotReady {
        /// Venue.
        venue: VenueId,
        /// Market.
        market: Market,
    },
    /// As many operations as can be remembered are under way.
    #[error("too many operations are under way")]
    Busy,
}

impl SymbolError {
    /// The code by which programs know it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Duplicate(_) => "duplicate_symbol",
            Self::NotListed(_) | Self::NotCollected(_) => "symbol_not_found",
            Self::Invalid(_) => "invalid_command",
            Self::NotReady { .. } | Self::Busy => "not_ready",
        }
    }
}

/// The core; cheap to clone.
#[derive(Clone)]
pub struct Symbols(Arc<Inner>);

struct Inner {
    desks: Vec<Arc<Desk>>,
    file: Option<PathBuf>,
    changes: Mutex<Changes>,
    saving: Mutex<()>,
    pending: Mutex<Vec<Pending>>,
    directory: Arc<Directory>,
    operations: Operations,
    clock: Clock,
}

impl Symbols {
    /// For these markets; `file` keeps what operators change, and has been read.
    pub fn new(
        markets: &[MarketSettings],
        file: Option<PathBuf>,
        directory: Arc<Directory>,
        operations: Operations,
        clock: Clock,
    ) -> Self {
        let changes = file.as_deref().map(file::load_or_set_aside).unwrap_or_default();
        let none = Change::default();
        let desk = |market: &MarketSettings| {
            let key = format!("{}/{}", market.venue.id(), market.market);
            Arc::new(Desk::new(market, changes.get(&key).unwrap_or(&none)))
        };
        Self(Arc::new(Inner {
            desks: markets.iter().map(desk).collect(),
            file,
            changes: Mutex::new(changes),
            saving: Mutex::default(),
            pending: Mutex::default(),
            directory,
            operations,
            clock,
        }))
    }

    /// The desk of a market.
    pub fn desk(&self, venue: VenueId, market: Market) -> Option<&Arc<Desk>> {
        self.0.desks.iter().find(|desk| desk.venue == venue && desk.market == market)
    }

    /// Takes a command: what it changes is wanted from now on, and the operation is done once it is so. What was taken is
    /// kept over a restart once [`Symbols::save`] has returned.
    ///
    /// # Errors
    /// See [`SymbolError`]; nothing is changed then.
    pub fn begin(&self, command: &Command, reach: Reach, by: &str) -> Result<OperationId, SymbolError> {
        let mut changes = locked(&self.0.changes);
        let mut next = changes.clone();
        let (kind, symbols, touched) = self.decide(command, reach, &mut next)?;
        let new = NewOperation {
            kind,
            target: shown(&symbols),
            requested_by: by.to_owned(),
            reason: String::new(),
            from_generation: None,
        };
        let operation = self.0.operations.begin(new).ok_or(SymbolError::Busy)?;
        *changes = next;
        let none = Change::default();
        let versions: Vec<(Arc<Desk>, u64)> = touched
            .iter()
            .map(|(desk, _)| (desk.clone(), desk.want(changes.get(&desk.key()).unwrap_or(&none))))
            .collect();
        drop(changes);
        let version = |desk: &Arc<Desk>| {
            versions.iter().find(|(one, _)| Arc::ptr_eq(one, desk)).map_or(0, |(_, version)| *version)
        };
        let parts = touched.iter().flat_map(|(desk, wants)| {
            let (desk, version) = (desk.clone(), version(desk));
            wants.iter().map(move |(symbol, want)| Part {
                desk: desk.clone(),
                version,
                symbol: symbol.clone(),
                want: *want,
            })
        });
        let within_us = micros(DONE_WITHIN);
        let pending = Pending {
            operation: operation.clone(),
            parts: parts.collect(),
            deadline_us: self.0.clock.now_us() + within_us,
        };
        locked(&self.0.pending).push(pending);
        Ok(operation)
    }

    /// Puts what operators changed on disk. A failure fails the operation, and the change then lives until a restart.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn save(&self, operation: &OperationId) -> Result<(), FileError> {
        let this = self.clone();
        let saved = tokio::task::spawn_blocking(move || this.save_now()).await;
        let outcome = saved.unwrap_or_else(|gone| {
            Err(FileError::Content { path: self.0.file.clone().unwrap_or_default(), why: gone.to_string() })
        });
        match &outcome {
            Ok(()) => self.0.operations.step(operation, "saved", true),
            Err(error) => {
                self.0.operations.step(operation, "saved", false);
                let why = format!("in force, but it will not outlive a restart: {error}");
                self.0.operations.finish(operation, Err(why));
            }
        }
        outcome
    }

    fn save_now(&self) -> Result<(), FileError> {
        let Some(path) = &self.0.file else { return Ok(()) };
        // One at a time, each with what holds when its turn comes: the last one written is the newest.
        let _turn = locked(&self.0.saving);
        let changes = locked(&self.0.changes).clone();
        file::save(path, &changes)
    }

    /// Ends the operations that are done, or too late. Called now and then.
    pub fn settle(&self) {
        let now_us = self.0.clock.now_us();
        let mut pending = locked(&self.0.pending);
        pending.retain(|operation| !operation.settle(&self.0.directory, &self.0.operations, now_us));
    }

    /// The wanted symbols of all markets in reach, each once: native where its instrument is known, as typed otherwise.
    pub fn names(&self, reach: Reach) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        for desk in self.in_reach(reach) {
            let runtime = self.0.directory.runtime(desk.venue, desk.market);
            let catalogue = runtime.map(|runtime| runtime.catalogue.load_full()).unwrap_or_default();
            for wish in desk.wanted().1.iter() {
                let known = catalogue.find(&wish.symbol).map(|found| found.native.to_string());
                let name = known.unwrap_or_else(|| wish.symbol.clone());
                if seen.insert(compact(&name)) {
                    names.push(name);
                }
            }
        }
        names
    }

    fn in_reach(&self, reach: Reach) -> impl Iterator<Item = &Arc<Desk>> {
        self.0.desks.iter().filter(move |desk| reach.holds(desk.venue, desk.market))
    }

    fn decide(&self, command: &Command, reach: Reach, changes: &mut Changes) -> Result<Decided, SymbolError> {
        let (kind, typed) = match command {
            Command::Add { symbols, .. } => ("symbols.add", symbols),
            Command::Remove { symbols } => ("symbols.remove", symbols),
            Command::Set { symbols } => ("symbols.set", symbols),
        };
        let symbols = names_of(typed)?;
        let desks = self.known_desks(reach)?;
        let mut touched: Touched = Vec::new();
        if let Command::Add { tier: Some(tier), .. } = command
            && desks.iter().any(|(desk, _)| !desk.tiers.contains(tier))
        {
            return Err(SymbolError::Invalid(format!("tier {} is not configured", tier.as_str())));
        }
        if matches!(command, Command::Set { .. }) {
            if let Some(symbol) = symbols.iter().find(|symbol| listed_nowhere(&desks, symbol)) {
                return Err(SymbolError::NotListed(symbol.clone()));
            }
            for (desk, catalogue) in &desks {
                let wants = set(desk, catalogue, &symbols, changes.entry(desk.key()).or_default());
                touched.push((desk.clone(), wants));
            }
            return Ok((kind, symbols, touched));
        }
        for symbol in &symbols {
            let changed = match command {
                Command::Add { tier, .. } => add(&desks, symbol, *tier, changes)?,
                _ => remove(&desks, symbol, changes)?,
            };
            for (desk, want) in changed {
                match touched.iter_mut().find(|(one, _)| Arc::ptr_eq(one, &desk)) {
                    Some((_, wants)) => wants.push((symbol.clone(), want)),
                    None => touched.push((desk, vec![(symbol.clone(), want)])),
                }
            }
        }
        Ok((kind, symbols, touched))
    }

    /// The desks in reach with what their venues list.
    fn known_desks(&self, reach: Reach) -> Result<Vec<Known>, SymbolError> {
        let known = self.in_reach(reach).map(|desk| {
            let runtime = self.0.directory.runtime(desk.venue, desk.market);
            let missing = SymbolError::NotReady { venue: desk.venue, market: desk.market };
            Ok((desk.clone(), runtime.ok_or(missing)?.catalogue.load_full()))
        });
        let known: Vec<Known> = known.collect::<Result<_, _>>()?;
        if known.is_empty() {
            return Err(SymbolError::Invalid("no collected market is in reach".to_owned()));
        }
        Ok(known)
    }
}

type Known = (Arc<Desk>, Arc<Catalogue>);
/// What is to become of which symbols, by market.
type Touched = Vec<(Arc<Desk>, Vec<(String, Want)>)>;
type Decided = (&'static str, Vec<String>, Touched);

fn add(
    desks: &[Known],
    symbol: &str,
    tier: Option<Tier>,
    changes: &mut Changes,
) -> Result<Vec<(Arc<Desk>, Want)>, SymbolError> {
    if listed_nowhere(desks, symbol) {
        return Err(SymbolError::NotListed(symbol.to_owned()));
    }
    let mut changed = Vec::new();
    for (desk, catalogue) in desks {
        let change = changes.entry(desk.key()).or_default();
        let wanted = change.wanted(&desk.configured).iter().any(|wish| is_same(&wish.symbol, symbol));
        if !wanted && catalogue.find(symbol).is_some() {
            change.add(Wish { symbol: symbol.to_owned(), tier });
            changed.push((desk.clone(), Want::Live));
        }
    }
    if changed.is_empty() { Err(SymbolError::Duplicate(symbol.to_owned())) } else { Ok(changed) }
}

fn remove(
    desks: &[Known],
    symbol: &str,
    changes: &mut Changes,
) -> Result<Vec<(Arc<Desk>, Want)>, SymbolError> {
    let mut changed = Vec::new();
    for (desk, _) in desks {
        let change = changes.entry(desk.key()).or_default();
        if change.wanted(&desk.configured).iter().any(|wish| is_same(&wish.symbol, symbol)) {
            change.remove(symbol);
            changed.push((desk.clone(), Want::Gone));
        }
    }
    if changed.is_empty() { Err(SymbolError::NotCollected(symbol.to_owned())) } else { Ok(changed) }
}

fn set(desk: &Desk, catalogue: &Catalogue, symbols: &[String], change: &mut Change) -> Vec<(String, Want)> {
    let before = change.wanted(&desk.configured);
    let listed: Vec<String> =
        symbols.iter().filter(|symbol| catalogue.find(symbol).is_some()).cloned().collect();
    let gone = before.iter().filter(|wish| !listed.iter().any(|symbol| is_same(symbol, &wish.symbol)));
    let mut wants: Vec<_> = gone.map(|wish| (wish.symbol.clone(), Want::Gone)).collect();
    wants.extend(listed.iter().map(|symbol| (symbol.clone(), Want::Live)));
    change.set(listed);
    wants
}

fn listed_nowhere(desks: &[Known], symbol: &str) -> bool {
    desks.iter().all(|(_, catalogue)| catalogue.find(symbol).is_none())
}

fn names_of(typed: &[String]) -> Result<Vec<String>, SymbolError> {
    if typed.is_empty() || typed.len() > MAX_SYMBOLS {
        return Err(SymbolError::Invalid(format!("expected 1 to {MAX_SYMBOLS} symbols")));
    }
    let mut names: Vec<String> = Vec::with_capacity(typed.len());
    let mut seen = rustc_hash::FxHashSet::default();
    for text in typed {
        let name = wishes::symbol_name(text).map_err(SymbolError::Invalid)?;
        if seen.insert(compact(&name)) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Names for logs and operations: the first ones, and how many more.
fn shown(symbols: &[String]) -> String {
    const SHOWN: usize = 5;
    let first = symbols.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match symbols.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever is changed under these locks is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
