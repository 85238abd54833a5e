//! What the tests stand on is `xtask::harness`, which the fault suite shares; here is only which program is tested.

use std::{path::Path, process::Output};

pub(crate) use xtask::harness::*;

/// The program that this package builds.
pub(crate) fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_fathom"))
}

/// Runs it to its end.
pub(crate) fn fathom(folder: &Path, args: &[&str]) -> Output {
    program().output(folder, args)
}
