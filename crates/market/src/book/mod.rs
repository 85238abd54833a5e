//! Order books: the levels of one instrument ([`OrderBook`]), the venue's rule for joining snapshot and updates
//! ([`SyncRule`]), and the state machine that keeps a book true to it ([`BookKeeper`]).
//!
//! **Architecture invariant.** A book in doubt is never `Live`, and nothing here guesses a level that it was not told.

pub mod keeper;
pub mod order_book;
mod side;
pub mod sync;

pub use keeper::{BookKeeper, BookState, Cause, IgnoreReason, KeeperCounters, KeeperLimits, Step};
pub use order_book::{BookError, Flow, MAX_LEVELS_LIMIT, OrderBook};
pub use sync::{Align, BookPosition, LineChain, Link, SyncRule};
