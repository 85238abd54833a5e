//! The fault suite in its short form: faults of every kind from a seeded schedule, and then everything that the simulator
//! made is looked for. `cargo xtask soak` is the long form, with a table for docs/reliability.md.

use std::time::Duration;

use xtask::suite::{self, Options, report::command};

const SEED: u64 = 20_261_121;
const SECONDS: u64 = 200;
const EVERY: Duration = Duration::from_secs(6);

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Runs the suite; whatever is not as promised fails with what repeats it.
pub(crate) fn holds(options: &Options) -> suite::report::Report {
    let report = suite::run(options);
    eprintln!("{}", report.text());
    let Options { seed, .. } = options;
    assert!(
        report.failures.is_empty(),
        "FATHOM_TEST_SEED={seed} repeats it, and so does: {}\n{:#?}",
        command(options),
        report.failures
    );
    report
}

/// A small market under the given load.
pub(crate) fn options(seconds: u64, rate: f64) -> Options {
    Options {
        program: env!("CARGO_BIN_EXE_fathom").into(),
        seed: number("FATHOM_TEST_SEED", SEED),
        span: Duration::from_secs(seconds),
        every: EVERY,
        faults: None,
        rate,
        symbols: 16,
        only: Vec::new(),
        // A breaker that stays open for a minute would be most of the test.
        set: vec!["stream.breaker_open_ms=5000".to_owned()],
    }
}

#[test]
fn faults_of_every_kind_are_found_and_healed_and_nothing_is_lost() {
    let seconds = number("FATHOM_TEST_SUITE_SECONDS", SECONDS);
    let report = holds(&options(seconds, 300.0));
    assert!(!report.outcomes.is_empty(), "no fault was put in");
}
