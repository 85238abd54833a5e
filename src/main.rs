//! The `fathom` program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use fathom::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            ExitCode::from(error.code())
        }
    }
}
