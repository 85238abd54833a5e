//! `cargo xtask`: chores of the workspace.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program on a terminal")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser};
use xtask::suite::{self, Options, report::Report};

#[derive(Parser)]
#[command(about = "Chores of the workspace")]
enum Task {
    /// Runs the program under faults from a seeded schedule and compares what it holds with what was made.
    Soak(Soak),
}

#[derive(Args)]
struct Soak {
    /// For how long faults are put in.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seed of the schedule and of the market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program; by default the one built beside this, which has to have the feature `fault-injection`.
    #[arg(long)]
    program: Option<PathBuf>,
    /// A document into which the table is put, between its marks.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Market steps a second on each market; each makes between one and two messages.
    #[arg(long, default_value_t = 900.0)]
    rate: f64,
    /// Base assets on each market.
    #[arg(long, default_value_t = 40)]
    symbols: usize,
    /// Seconds from one fault to the next.
    #[arg(long, default_value_t = 20)]
    every: u64,
    /// Only faults whose name contains this.
    #[arg(long)]
    only: Vec<String>,
    /// A further setting of the service, `key=value`.
    #[arg(long)]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let Task::Soak(soak) = Task::parse();
    match run(&soak) {
        Ok(report) if report.failures.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(soak: &Soak) -> Result<Report, String> {
    let options = options(soak)?;
    // A process that does not start, or does not end, fails by a panic.
    let ran = std::panic::catch_unwind(|| suite::run(&options));
    let mut report = ran.unwrap_or_else(|_| {
        let failures = vec!["the run broke off; what happened stands above".to_owned()];
        Report { failures, ..Report::default() }
    });
    report.totals.insert("date".to_owned(), today());
    report.totals.insert("machine".to_owned(), machine());
    println!("{}", report.text());
    for failure in &report.failures {
        eprintln!("failed: {failure}");
    }
    if !report.failures.is_empty() {
        eprintln!("seed {}; the same run again: {}", options.seed, suite::report::command(&options));
    }
    if let Some(out) = &soak.out {
        report.put_into(out)?;
    }
    Ok(report)
}

fn options(soak: &Soak) -> Result<Options, String> {
    let program = match &soak.program {
        Some(program) => program.clone(),
        None => beside_this()?,
    };
    let program = program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))?;
    let wanted = |name: &str| soak.only.iter().any(|part| name.contains(part.as_str()));
    let only = suite::kind::KINDS.iter().filter(|facts| wanted(facts.name)).map(|facts| facts.kind);
    Ok(Options {
        program,
        seed: soak.seed,
        span: Duration::try_from_secs_f64(soak.minutes * 60.0)
            .map_err(|error| format!("--minutes: {error}"))?,
        every: Duration::from_secs(soak.every.max(1)),
        faults: None,
        rate: soak.rate,
        symbols: soak.symbols,
        only: only.collect(),
        set: soak.set.clone(),
    })
}

fn beside_this() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.parent().unwrap_or_else(|| Path::new(".")).join("fathom");
    if program.is_file() {
        return Ok(program);
    }
    Err("there is no program: cargo build --locked --features fault-injection, or --program".to_owned())
}

#[allow(clippy::disallowed_methods, reason = "the date of a report")]
fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

/// Its size, not its name.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let gib = kib.unwrap_or(0_u64) >> 20;
    format!("{cores} cores, {gib} GiB")
}
