//! The servers that tests need: one that is there already, or the installed one, started on a free port in a folder of its
//! own. Where neither is to be had, tests that need it say so and are left out; with `FATHOM_TEST_REQUIRE_SERVICES=1` they fail.
//!
//! What is started listens on loopback only, does not run as root, and ends with the process of the tests, however that ends.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "made for tests, which wait for other processes on threads of their own and fail with what is wrong"
)]

mod database;
mod launch;
mod private;
mod programs;

use std::{
    net::TcpStream,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

pub use self::{database::Database, private::Private};
use launch::{Launched, Sync};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// PostgreSQL: `postgres://` of a role that may create databases.
    Postgres,
    /// PostgreSQL with TimescaleDB. Never started here and never required: only `FATHOM_TEST_TIMESCALE_URL` names one.
    Timescale,
    /// MariaDB or MySQL: `mysql://` of a user that may create databases.
    Mariadb,
    /// Redis: `redis://`.
    Redis,
}

/// What is known of a kind.
pub(crate) struct Facts {
    pub(crate) variable: &'static str,
    /// Where one listens usually; `None` for a kind that is only found by its variable.
    pub(crate) port: Option<u16>,
    pub(crate) package: &'static str,
    url: fn(u16) -> String,
}

fn postgres_url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

impl Server {
    pub(crate) const fn facts(self) -> Facts {
        match self {
            Self::Postgres => Facts {
                variable: "FATHOM_TEST_POSTGRES_URL",
                port: Some(5432),
                package: "postgresql",
                url: postgres_url,
            },
            Self::Timescale => Facts {
                variable: "FATHOM_TEST_TIMESCALE_URL",
                port: None,
                package: "timescaledb",
                url: postgres_url,
            },
            Self::Mariadb => Facts {
                variable: "FATHOM_TEST_MARIADB_URL",
                port: Some(3306),
                package: "mariadb-server",
                url: |port| format!("mysql://root@127.0.0.1:{port}/mysql"),
            },
            Self::Redis => Facts {
                variable: "FATHOM_TEST_REDIS_URL",
                port: Some(6379),
                package: "redis-server",
                url: |port| format!("redis://127.0.0.1:{port}/"),
            },
        }
    }

    pub(crate) fn url_at(self, port: u16) -> String {
        (self.facts().url)(port)
    }

    /// Where one is to be had: what its variable names, else what listens on its usual port, else the installed one,
    /// started for this process. `None`, said on standard error, leaves the test out.
    ///
    /// # Panics
    /// Where none is to be had although `FATHOM_TEST_REQUIRE_SERVICES=1`.
    pub fn url(self) -> Option<String> {
        let facts = self.facts();
        if let Ok(url) = std::env::var(facts.variable) {
            return Some(url);
        }
        let Some(port) = facts.port else {
            eprintln!("left out: {}: {self:?}: no {} names one", test(), facts.variable);
            return None;
        };
        if listens(port) {
            return Some(self.url_at(port));
        }
        match shared(self) {
            Ok(url) => Some(url),
            Err(why) => self.left_out(&why),
        }
    }

    /// Says that the test that runs on this thread is left out; fails it where services are required.
    pub(crate) fn left_out<T>(self, why: &str) -> Option<T> {
        let Facts { variable, package, .. } = self.facts();
        let missing = format!(
            "{}: {self:?}: {why}; install the package {package}, start one, or set {variable}",
            test()
        );
        assert!(!required(), "{missing}");
        eprintln!("left out: {missing}");
        None
    }
}

/// The test that runs on this thread.
fn test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

fn required() -> bool {
    std::env::var("FATHOM_TEST_REQUIRE_SERVICES").is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2)).is_ok()
}

/// The servers that this process has started for all its tests, and those that it could not.
type Started = Vec<(Server, Result<Launched, String>)>;

/// The one of this process; its watcher ends it with the process, since nothing drops a static.
fn shared(server: Server) -> Result<String, String> {
    static STARTED: LazyLock<Mutex<Started>> = LazyLock::new(Mutex::default);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !started.iter().any(|(kind, _)| *kind == server) {
        started.push((server, Launched::new(server, Sync::Off)));
    }
    let found = started.iter().find(|(kind, _)| *kind == server);
    let (_, launched) = found.ok_or("it was put in above")?;
    launched.as_ref().map(|launched| server.url_at(launched.port())).map_err(Clone::clone)
}

#[cfg(test)]
mod tests;
