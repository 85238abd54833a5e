//! What is measured of the market, and how it is streamed.

use std::time::Duration;

use fathom_market::{
    category::{Categories, CategoryRule},
    depth::{DepthBands, DepthReference},
    plan::DepthSpeed,
};
use fathom_venues::planner::{Redundancy, Tier, TierSpec};
use rust_decimal::Decimal;

use crate::config::{
    error::ConfigError,
    read::{Reader, decimal},
};

/// Depth measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The bands.
    pub bands: DepthBands,
    /// Their percentages, in the order of the bands.
    pub levels: Vec<Decimal>,
    /// Where the bands start.
    pub reference: DepthReference,
    /// Assets that count as one dollar, upper case.
    pub stablecoins: Vec<String>,
    /// How long after a minute boundary a book's sample is waited for before it counts as stale.
    pub grace: Duration,
}

impl Depth {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let levels = reader.required_list("levels", "percentages such as [1.5, 3]", decimal)?;
        let reference = [DepthReference::Mid, DepthReference::Best].map(|value| (value.as_str(), value));
        let bands = DepthBands::new(&levels).map_err(|error| reader.invalid("levels", error))?;
        Ok(Self {
            levels: bands.percents().collect(),
            bands,
            reference: reader.choice("reference", &reference)?,
            stablecoins: reader.required_list("stablecoins", "a list of assets", asset)?,
            grace: reader.millis("grace_ms", 0..=30_000)?,
        })
    }
}

/// Reads the `[[category]]` list. A fault is blamed on the category at which it shows.
pub(super) fn read_categories(root: &mut Reader<'_>) -> Result<Categories, ConfigError> {
    let mut rules = Vec::new();
    let mut checked = Categories::from_rules(Vec::new()).map_err(|error| root.invalid("category", error))?;
    for mut reader in root.sections("category")? {
        rules.push(read_category(&mut reader)?);
        checked = Categories::from_rules(rules.clone()).map_err(|error| reader.invalid("name", error))?;
        reader.finish()?;
    }
    Ok(checked)
}

fn read_category(reader: &mut Reader<'_>) -> Result<CategoryRule, ConfigError> {
    let name = reader.required("name", "a name", |leaf| leaf.text().map(str::to_owned))?;
    let exclude = reader.list("exclude", "a list of base assets", asset)?;
    let include = reader.list("include", "a list of base assets", asset)?;
    match (exclude, include) {
        (Some(_), Some(_)) => Err(reader.invalid("include", "expected either exclude or include, not both")),
        (None, Some(included)) => Ok(CategoryRule::only(&name, &included)),
        (excluded, None) => Ok(CategoryRule::all_but(&name, &excluded.unwrap_or_default())),
    }
}

fn asset(text: &str) -> Option<String> {
    let text = text.trim();
    let usable = (1..=30).contains(&text.chars().count()) && text.chars().all(char::is_alphanumeric);
    usable.then(|| text.to_uppercase())
}

/// Tick rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Ticks of one instrument at most; beyond it the oldest goes and is counted.
    pub cap: usize,
}

impl Ticks {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self { cap: reader.int("cap", 16..=1_000_000)? })
    }
}

/// How symbols are ranked before the tiers are filled from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierOrder {
    /// As they are listed.
    Listed,
    /// By 24 hour quote volume, greatest first.
    Volume,
}

/// The tiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// How symbols are ranked.
    pub order: TierOrder,
    /// From the highest to the lowest.
    pub list: Vec<TierSpec>,
}

impl Tiers {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let order = [("listed", TierOrder::Listed), ("volume", TierOrder::Volume)];
        Ok(Self {
            order: reader.choice("order", &order)?,
            list: vec![
                read_tier(reader, "high", Tier::High)?,
                read_tier(reader, "medium", Tier::Medium)?,
                read_tier(reader, "low", Tier::Low)?,
            ],
        })
    }
}

fn read_tier(parent: &mut Reader<'_>, name: &str, tier: Tier) -> Result<TierSpec, ConfigError> {
    let speeds = [("fast", DepthSpeed::Fast), ("slow", DepthSpeed::Slow)];
    let mut reader = parent.section(name)?;
    let lines: u8 = reader.int("lines", 1..=2)?;
    let spec = TierSpec {
        tier,
        symbols: reader.int("symbols", 0..=5000)?,
        per_shard: reader.int("per_shard", 1..=500)?,
        depth: reader.choice("depth_speed", &speeds)?,
        snapshot_levels: reader.int("snapshot_levels", 5..=5000)?,
        redundancy: if lines == 2 { Redundancy::Pair } else { Redundancy::Single },
    };
    reader.finish()?;
    Ok(spec)
}

/// Streams and the books that they feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Failures in a row that open a line's breaker.
    pub breaker_failures: u32,
    /// How long it stays open.
    pub breaker_open: Duration,
    /// Wait before the second retry; the first is immediate.
    pub backoff_min: Duration,
    /// Wait between retries at most.
    pub backoff_max: Duration,
    /// A book whose quotes have moved past it for this long beyond its stream's rhythm is stale.
    pub stale_after: Duration,
    /// Events that may wait before a book.
    pub book_inbox: usize,
    /// Any stream may be silent for this long.
    pub silence_floor: Duration,
    /// None whose pace is known may be silent for longer without being subscribed again.
    pub silence_ceiling: Duration,
    /// Fetching books over REST while their stream is away; `None` never.
    pub poll: Option<Poll>,
    /// A connection is replaced at this age at the latest; `None` leaves it to the venue's limit.
    pub rotate_after: Option<Duration>,
}

impl Stream {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let backoff_min = reader.millis("backoff_min_ms", 1..=3_600_000)?;
        let backoff_max = reader.millis("backoff_max_ms", 1..=3_600_000)?;
        if backoff_min > backoff_max {
            return Err(reader.invalid("backoff_min_ms", "expected at most stream.backoff_max_ms"));
        }
        let silence_floor = reader.millis("silence_floor_ms", 1000..=600_000)?;
        let silence_ceiling = reader.millis("silence_ceiling_ms", 1000..=86_400_000)?;
        if silence_floor > silence_ceiling {
            return Err(reader.invalid("silence_floor_ms", "expected at most stream.silence_ceiling_ms"));
        }
        Ok(Self {
            silence_floor,
            silence_ceiling,
            poll: read_poll(reader)?,
            breaker_failures: reader.int("breaker_failures", 1..=100)?,
            breaker_open: reader.millis("breaker_open_ms", 100..=3_600_000)?,
            backoff_min,
            backoff_max,
            stale_after: reader.millis("stale_after_ms", 100..=600_000)?,
            book_inbox: reader.int("book_inbox", 16..=1_000_000)?,
            rotate_after: Some(reader.millis("rotate_after_ms", 0..=604_800_000)?)
                .filter(|after| !after.is_zero()),
        })
    }
}

/// Fetching books over REST while their stream is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// A stream may be away for this long.
    pub after: Duration,
    /// Interval of one book's polls.
    pub every: Duration,
    /// Levels a side.
    pub levels: usize,
}

/// An interval of zero turns polling off.
fn read_poll(reader: &mut Reader<'_>) -> Result<Option<Poll>, ConfigError> {
    let poll = Poll {
        after: reader.millis("poll_after_ms", 0..=3_600_000)?,
        every: reader.millis("poll_every_ms", 0..=3_600_000)?,
        levels: reader.int("poll_levels", 5..=5000)?,
    };
    Ok((!poll.every.is_zero()).then_some(poll))
}
