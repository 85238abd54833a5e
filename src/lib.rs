//! fathom: one long-lived service that collects crypto market data, keeps true order books, measures how deep the
//! market is by category, stores it all and serves it.
//!
//! This package wires the parts together and speaks HTTP; it holds no market logic. [`app::run`] is the service,
//! [`cli`] the program around it, [`config`] what a user may say, [`http`] what a user may ask.

pub mod address;
pub mod app;
pub mod cli;
pub mod config;
pub mod copy;
pub mod http;
pub mod replay;
pub mod settings;
pub mod statistics;
pub mod stores;
pub mod telemetry;
