//! The actors of fathom.
//!
//! ```text
//! guardian
//! └─ supervisor
//!    ├─ writer, retention, rollup, operator, drain    the drain only where rows are accepted into a spool
//!    ├─ aggregator/{market}/{category}, aggregator/{market}/COIN
//!    ├─ venue/{venue}/{market}          reads instruments now and then, plans, spawns and ends what follows
//!    ├─ delivery/redis                  cache and channels; only where a server is configured
//!    ├─ history/{venue}/{market}        REST: snapshots for the books, candles
//!    ├─ book/{venue}/{market}/{symbol}  on the thread of the shard that feeds it
//!    └─ shard/{shard}                   lines of one shard
//! ```
//!
//! | from | to | what | capacity | full |
//! |---|---|---|---|---|
//! | shard | book | [`feed::FeedItem`], one a socket read | `stream.book_inbox` | told in its place, book resyncs |
//! | book | shard | [`feed::RenewStream`] | 1024 | dropped, said again |
//! | book | history | [`history::HistoryJob`] | 4096 | the book tries again |
//! | history | book | [`feed::FeedItem::Candles`] | `stream.book_inbox` | fetched again |
//! | book, aggregator | writer | batches of rows | `store.inbox_rows` / 64 batches | they wait in the sender; beyond `store.inbox_rows` in all refused by policy, counted, in the ledger |
//! | book | aggregator | samples, on the [`board::MinuteBoard`] | 3 boundaries | late ones refused and counted |
//! | book | redis, whoever else listens | [`derived::Derived`]: candles, books, statistics | 16384 keys | the newest of each key |
//! | writer | redis | rows of snapshots, once accepted | 256 batches | the oldest goes, and the cache is believed only from there on |
//! | line | whoever listens | [`fanout::LiveEvent`] | the listener's | the listener's |
//!
//! **Architecture invariant.** `kernel` knows nothing of markets. An actor's file holds no parsing, no SQL and no
//! arithmetic worth a test of its own: those are pure modules beside it.

pub mod aggregator;
pub mod board;
pub mod book;
pub mod derived;
pub mod directory;
pub mod fanout;
pub mod feed;
#[cfg(test)]
mod fixtures;
pub mod gaps;
pub mod history;
pub mod instruments;
pub mod kernel;
pub mod latency;
pub mod limits;
pub mod market_supervisor;
pub mod operator;
pub mod redis;
pub mod runtime;
pub mod settings;
pub mod spawn;
pub mod stream;
pub mod symbols;
pub mod system;
pub mod writer;
