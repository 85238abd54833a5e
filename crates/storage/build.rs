//! Builds again when a migration is added: the macro that embeds them only watches files that it has seen.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

fn main() {
    println!("cargo:rerun-if-changed=../../migrations/sqlite");
    println!("cargo:rerun-if-changed=../../migrations/postgres");
    println!("cargo:rerun-if-changed=../../migrations/spool");
    println!("cargo:rerun-if-changed=../../migrations/mysql");
}
