//! The list of venues.

use fathom_market::ids::VenueId;

use crate::{binance::Binance, venue::Venue};

/// Every venue.
pub static VENUES: &[&dyn Venue] = &[&Binance];

/// Finds a venue by its id, in any case.
pub fn venue(id: &str) -> Option<&'static dyn Venue> {
    VENUES.iter().copied().find(|venue| venue.id().as_str().eq_ignore_ascii_case(id))
}

/// The ids of every venue.
pub fn ids() -> impl Iterator<Item = VenueId> {
    VENUES.iter().map(|venue| venue.id())
}
