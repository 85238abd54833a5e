//! Binance against recorded traffic: every frame and body is decoded and compared with golden text, and books are
//! rebuilt from it. The recordings are found by `FATHOM_CAPTURES`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod books;
mod captures;
mod frames;
mod rest;
