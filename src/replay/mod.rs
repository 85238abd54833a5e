//! `fathom replay`: recorded frames through the real decode and book path, without sockets.
//!
//! Standard output gets one JSON object an event, in the order of the recording; standard error one JSON object with
//! counts at the end. Every event has `type`, `venue`, `market`, `symbol` (unified), `native`, `seq`, `event_us` (null
//! where the venue gives no time) and `recv_us` (null where the recording has none). Prices and amounts are strings:
//! exact, without trailing zeros, never in scientific notation. By type there are also:
//!
//! | type | `seq` | fields |
//! |---|---|---|
//! | `quote` | `u` | `bid`, `bid_qty`, `ask`, `ask_qty` |
//! | `trade` | the id | `id`, `kind` (`trade`, `aggregate`), `price`, `qty`, `side` of the taker (`buy`, `sell`); an aggregate has `first_id`, `last_id` |
//! | `book` | `u` | `kind`: `delta`; `first_id`, `last_id`, `prev_id` where the venue gives it, `bids`, `asks` as in the frame: `[[price, qty]]`, a quantity of `"0"` removes |
//! | `book` | `lastUpdateId` | `kind`: `snapshot`, of REST or of partial depth; `bids`, `asks` |
//! | `candle` | `open_ms` | `timeframe`, `open_ms`, `close_ms`, `open`, `high`, `low`, `close`, `volume`, `quote_volume`, `trades`, `taker_buy_volume`, `taker_buy_quote_volume`, `closed` |
//! | `ticker` | event time, ms | `last`, `bid`, `ask`, `open`, `high`, `low`, `volume`, `quote_volume`, `trades`; null where the venue has it not |
//! | `funding` | null | `mark_price`, `index_price`, `rate`, `next_funding_ms` |
//!
//! With `--books` there is instead one `book` a symbol that had depth: `state`, `seq`, `bids` and `asks` from the best,
//! both empty unless the state is `live`.
//!
//! The files are read twice: the first pass finds the symbols, the decimals that their numbers use and the listed
//! instruments, the second decodes. Memory does not grow with the length of a recording. This module opens no socket
//! and keeps no rule of a book: those are the venue's.

mod content;
mod feed;
mod names;
pub(crate) mod print;
mod session;
mod source;
mod survey;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use fathom_market::ids::Market;
use fathom_venues::{Venue, registry};

use self::{
    feed::{Feed, Line},
    session::Session,
    survey::Survey,
};

const OUTPUT_BUFFER: usize = 256 * 1024;
const NO_OUTPUT: &str = "cannot write the output";

/// What to replay.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ReplayArgs {
    /// Recordings, plain or compressed with gzip or zstd. Several are one session: `hb` and `raw` in the given order,
    /// `cf` merged by time. They are read twice, so they have to be regular files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The venue that sent the frames.
    #[arg(long)]
    pub venue: String,
    /// `spot` or `futures`.
    #[arg(long, value_parser = parse_market)]
    pub market: Market,
    /// How the files are written.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Print the final book of every symbol instead of the events.
    #[arg(long)]
    pub books: bool,
}

/// How a recording is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// hftbacktest: `<receive time, ns> <frame>`; a depth answer of REST stands in line.
    Hb,
    /// cryptofeed: `<seconds>: <frame>` and `<url> -> <seconds>: <answer of REST>`.
    Cf,
    /// One frame a line, also as `{"case":...,"raw":"<frame>"}`.
    Raw,
}

const AFTER_HELP: &str = "\
Output: one JSON object an event, with type, venue, market, symbol, native, seq, event_us, recv_us; amounts are strings.
  quote    bid bid_qty ask ask_qty; seq is u
  trade    id kind(trade|aggregate) price qty side(buy|sell, of the taker) [first_id last_id]; seq is the id
  book     kind(delta) first_id last_id [prev_id] bids asks; seq is u
  book     kind(snapshot) bids asks; seq is lastUpdateId
  candle   timeframe open_ms close_ms open high low close volume quote_volume trades taker_buy_volume
           taker_buy_quote_volume closed; seq is open_ms
  ticker   last bid ask open high low volume quote_volume trades; seq is the event time in ms
  funding  mark_price index_price rate next_funding_ms; seq is null
With --books: one book a symbol with state, seq, bids, asks from the best; empty unless the state is live.
Counts, gaps, rejects and ignored records go to standard error as one JSON object.";

fn parse_market(text: &str) -> Result<Market, String> {
    Market::parse(text).ok_or_else(|| "expected spot or futures".to_owned())
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read, or the output not be written.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Replays to standard output, and writes the counts to standard error. A reader that goes away ends it quietly.
///
/// # Errors
/// [`ReplayError::Usage`] for a venue that does not exist, [`ReplayError::Failed`] for files and output.
pub fn run(args: &ReplayArgs) -> Result<(), ReplayError> {
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER, io::stdout().lock());
    match replay(args, &mut out) {
        Ok(summary) => {
            // Nothing is left to be said where standard error is gone as well.
            let _ = writeln!(io::stderr().lock(), "{summary}");
            Ok(())
        }
        Err(ReplayError::Failed(error)) if is_broken_pipe(&error) => {
            // What is buffered can no longer be written, and dropping the writer would try it again.
            let _ = out.into_parts();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(broken)
}

/// Replays to `out` and gives the counts as a JSON object.
///
/// # Errors
/// As [`run`].
pub fn replay(args: &ReplayArgs, out: &mut dyn Write) -> Result<serde_json::Value, ReplayError> {
    let venue = registry::venue(&args.venue).ok_or_else(|| unknown_venue(&args.venue))?;
    let survey = survey(args, venue)?;
    let mut session = Session::new(venue, args.market, &survey, !args.books)?;
    let mut feed = Feed::new(&args.files, args.format)?;
    while let Some(item) = feed.next()? {
        out.write_all(session.line(&item)).context(NO_OUTPUT)?;
    }
    for book in session.books().filter(|_| args.books) {
        out.write_all(&book).context(NO_OUTPUT)?;
    }
    out.flush().context(NO_OUTPUT)?;
    Ok(session.summary())
}

fn unknown_venue(name: &str) -> ReplayError {
    let known: Vec<_> = registry::ids().map(|id| id.as_str()).collect();
    ReplayError::Usage(format!("unknown venue {name}, known: {}", known.join(", ")))
}

fn survey(args: &ReplayArgs, venue: &'static dyn Venue) -> Result<Survey, ReplayError> {
    let mut survey = Survey::new(venue, args.market);
    let mut feed = Feed::new(&args.files, args.format)?;
    while let Some(item) = feed.next()? {
        match item.line {
            Line::Frame(frame) => survey.frame(item.file, frame),
            Line::Answer { url, body } => survey.answer(item.file, url, body),
            Line::Recorder | Line::Malformed => {}
        }
    }
    Ok(survey)
}
