//! The service on a server as its store: killed under load and brought back, and the same recorded session on each.

mod db;
mod kills;
mod recorded;
