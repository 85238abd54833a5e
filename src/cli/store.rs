//! `fathom store copy`: what one store holds into another, with progress, and counts at the end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};
use fathom_actors::kernel::Clock;
use fathom_market::table::Table;
use fathom_storage::{PoisonRow, Span, mysql::unsupported_tables};
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, block_on};
use crate::{
    address::{Address, Family},
    config::time_ms,
    copy::{Copy, Line, State, Tally, Watch},
    stores,
};

/// Refused rows that are shown of each page.
const SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Copy every table from one store into another; run again, it goes on where it was.
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
struct CopyArgs {
    /// Where rows are read: sqlite://PATH, postgres://... or mysql://...
    #[arg(long, value_name = "URL", env = "FATHOM_COPY_FROM", hide_env_values = true)]
    from: String,
    /// Where they are written; its schema is brought up to date.
    #[arg(long, value_name = "URL", env = "FATHOM_COPY_TO", hide_env_values = true)]
    to: String,
    /// Only rows from this time on: a date, a date and time (UTC), or milliseconds. What has no time is copied in any case.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only rows before this time; without it before the start of the copy.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Where it is written down how far the copy came; removed when it is done.
    #[arg(long, value_name = "FILE", default_value = "fathom-store-copy.json")]
    state: PathBuf,
    /// Rows read and written at once.
    #[arg(long, value_name = "ROWS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    page: u32,
}

pub(super) fn run(args: &StoreArgs) -> Result<(), CliError> {
    let StoreCommand::Copy(args) = &args.command;
    let (from, to) = (address("--from", &args.from)?, address("--to", &args.to)?);
    if from == to {
        return Err(CliError::Usage("--from and --to are the same store".to_owned()));
    }
    if let Some(path) = from.path().filter(|path| !path.exists()) {
        return Err(CliError::Usage(format!("--from: there is no file {}", path.display())));
    }
    let span = Span {
        since_ms: time("--since", args.since.as_deref())?,
        until_ms: time("--until", args.until.as_deref())?.or(Some(Clock::system().now_us() / 1000)),
    };
    fathom_transport::install_provider();
    let state = State::open(&args.state, &from.shown(), &to.shown(), span);
    let state = state.map_err(|error| CliError::Usage(format!("{error:#}")))?;
    if args.until.is_some() && state.span != span {
        return Err(CliError::Usage(format!(
            "{} is the state of a copy of another span; name another file with --state",
            args.state.display()
        )));
    }
    Ok(block_on(copied(&from, &to, state, args.page))?)
}

fn address(name: &str, text: &str) -> Result<Address, CliError> {
    let expected = "expected sqlite://PATH, postgres://user:password@host/database or mysql://...";
    Address::parse(text).ok_or_else(|| CliError::Usage(format!("{name}: {expected}")))
}

fn time(name: &str, text: Option<&str>) -> Result<Option<i64>, CliError> {
    let Some(text) = text else { return Ok(None) };
    let expected = "a date such as 2024-01-01 or 2024-01-01T00:00:00Z, or milliseconds since the epoch";
    time_ms(text).map(Some).ok_or_else(|| CliError::Usage(format!("{name} {text}: expected {expected}")))
}

async fn copied(from: &Address, to: &Address, mut state: State, page: u32) -> anyhow::Result<()> {
    let source = stores::open_address(from).await.with_context(|| from.shown())?;
    let target = stores::open_address(to).await.with_context(|| to.shown())?;
    source.probe().await.with_context(|| from.shown())?;
    stores::migrated(&*target, &to.shown()).await?;
    let (kept, left_out) = tables(to.family());
    for table in left_out {
        let rows = source.count_in(table, state.span).await?;
        println!("{}: left out with {rows} rows: MySQL and MariaDB keep no raw ticks", table.schema().name);
    }
    let copy = Copy { from: Arc::clone(&source), to: Arc::clone(&target), tables: kept, page };
    let lines = copy.run(&mut state, &mut Bar(ProgressBar::hidden())).await;
    source.close().await;
    target.close().await;
    let lines = lines?;
    print!("{}", report(&lines));
    let wrong: Vec<&str> =
        lines.iter().filter(|line| !line.matches()).map(|line| line.table.schema().name).collect();
    if wrong.is_empty() {
        return state.finish();
    }
    anyhow::bail!("counts do not match: {}", wrong.join(", "))
}

/// The tables that a store of this kind keeps, and those that it does not.
fn tables(family: Family) -> (Vec<Table>, Vec<Table>) {
    let is_kept = |table: &Table| family != Family::Mysql || !unsupported_tables().contains(table);
    Table::ALL.iter().copied().partition(is_kept)
}

/// One line a table.
fn report(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<24}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}\n",
        "table", "source", "read", "inserted", "duplicate", "refused", "target"
    );
    for Line { table, source, target, tally } in lines {
        let Tally { read, inserted, duplicate, refused } = tally;
        text.push_str(&format!(
            "{:<24}{source:>12}{read:>12}{inserted:>12}{duplicate:>12}{refused:>12}{target:>12}\n",
            table.schema().name
        ));
    }
    text
}

/// A bar of the table that is being copied; nothing where there is no terminal.
struct Bar(ProgressBar);

impl Watch for Bar {
    fn begins(&mut self, table: Table, rows: u64, tally: &Tally) {
        const LOOK: &str = "{msg:24} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        self.0 = ProgressBar::new(rows);
        if let Ok(style) = ProgressStyle::with_template(LOOK) {
            self.0.set_style(style);
        }
        self.0.set_message(table.schema().name);
        self.0.set_position(tally.read);
    }

    fn moved(&mut self, _: Table, tally: &Tally) {
        self.0.set_position(tally.read);
    }

    fn refused(&mut self, table: Table, rows: &[PoisonRow]) {
        for row in rows.iter().take(SHOWN) {
            self.0.suspend(|| eprintln!("{}: a row is refused: {}", table.schema().name, row.error));
        }
    }

    fn waits(&mut self, table: Table, error: &str, wait: Duration) {
        self.0.suspend(|| eprintln!("{}: {error}; tried again in {wait:?}", table.schema().name));
    }
}
