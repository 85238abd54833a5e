//! Names of venues, markets and instruments.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A venue by its stable lower-case id, such as `binance`. The list of venues is the registry of the `venues` crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VenueId(&'static str);

impl VenueId {
    /// Names a venue; `id` is lower-case ASCII and used in paths, configuration and tables.
    pub const fn new(id: &'static str) -> Self {
        Self(id)
    }

    /// The id as written in configuration, paths and tables.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for VenueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for VenueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The market type: spot, or linear perpetual and dated futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Market {
    /// Immediate exchange of base for quote.
    Spot,
    /// Linear futures, margined in the quote or another asset.
    Futures,
}

impl Market {
    /// Both markets, spot first.
    pub const ALL: [Self; 2] = [Self::Spot, Self::Futures];

    /// `spot` or `futures`: configuration, paths, tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::Futures => "futures",
        }
    }

    /// `SPOT` or `FUTURES`: the `marketType` of the category interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Spot => "SPOT",
            Self::Futures => "FUTURES",
        }
    }

    /// Reads `spot` or `futures` in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|market| market.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A deterministic instrument id: the same venue, market and native symbol give the same id in every process, so no
/// store has to be asked for one. It is the 64-bit FNV-1a hash of `venue|market|native` without its sign bit.
/// A clash of two instruments is refused when the second is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstrumentId(pub i64);

impl InstrumentId {
    /// Derives the id of an instrument.
    pub fn derive(venue: VenueId, market: Market, native: &str) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes =
            venue.0.bytes().chain([b'|']).chain(market.as_str().bytes()).chain([b'|']).chain(native.bytes());
        let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        Self((hash & (u64::MAX >> 1)).cast_signed())
    }
}

impl fmt::Display for InstrumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an aggregate covers: one venue, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every collected venue.
    All,
    /// One venue.
    Venue(VenueId),
}

impl Scope {
    /// `ALL`, or the venue's id.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "ALL",
            Self::Venue(venue) => venue.as_str(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_tell_markets_apart() {
        let venue = VenueId::new("binance");
        let spot = InstrumentId::derive(venue, Market::Spot, "BTCUSDT");
        assert_eq!(spot, InstrumentId::derive(venue, Market::Spot, "BTCUSDT"));
        assert_ne!(spot, InstrumentId::derive(venue, Market::Futures, "BTCUSDT"));
        // A literal, because stored rows refer to it: a change of the derivation breaks every existing database.
        assert_eq!(spot.0, 5_780_370_834_313_375_144);
    }

    #[test]
    fn markets_are_read_in_any_case() {
        assert_eq!(Market::parse("FUTURES"), Some(Market::Futures));
        assert_eq!(Market::parse("swap"), None);
    }
}
