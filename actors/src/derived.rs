//! What is made of events, for whoever publishes it: as rows, in the form in which it is stored. Nearly free while nobody
//! listens, and nothing that a listener does can hold up a book or the writer.

use std::sync::Arc;

use fathom_delivery::live::{Live, LiveTick};
use fathom_market::{batch::Batch, table::Table};

use crate::{fanout::Fanout, kernel::Clock};

/// What the writer did with rows.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// They were accepted.
    Rows(Arc<Batch>),
    /// Rows of this table went into quarantine, from where they may be sent again at any time.
    SetAside(Table),
}

/// The sources.
pub struct Derived {
    /// Books, candles and statistics, before they go to the writer: they do not wait for a store.
    pub live: Fanout<Arc<Live>>,
    /// Best bids and asks.
    pub ticks: Fanout<Arc<LiveTick>>,
    /// Rows, after they were accepted.
    pub accepted: Fanout<Accepted>,
}

impl Default for Derived {
    fn default() -> Self {
        let clock = Clock::system();
        Self {
            live: Fanout::new(clock.clone()),
            ticks: Fanout::new(clock.clone()),
            accepted: Fanout::new(clock),
        }
    }
}
