//! The servers that tests need: one that is there already, or the installed one, started on a free port in a folder of its
//! own. Where neither is to be had, tests that need it say so and are left out; with `FATHOM_TEST_REQUIRE_SERVICES=1` they fail.

#![allow(clippy::panic, clippy::print_stderr, reason = "made for tests")]

use std::{net::TcpStream, time::Duration};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL: `postgres://` of a role that may create databases.
    Postgres,
    /// MariaDB or MySQL: `mysql://` of a user that may create databases.
    Mariadb,
    /// Redis: `redis://`.
    Redis,
}

impl Server {
    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Postgres => {
                ("FATHOM_TEST_POSTGRES_URL", 5432, "postgres://postgres@127.0.0.1:5432/postgres")
            }
            Self::Mariadb => ("FATHOM_TEST_MARIADB_URL", 3306, "mysql://root@127.0.0.1:3306/mysql"),
            Self::Redis => ("FATHOM_TEST_REDIS_URL", 6379, "redis://127.0.0.1:6379/"),
        }
    }

    /// Where one is to be had; `None`, said on standard error, leaves the test out.
    ///
    /// # Panics
    /// Where none is to be had although `FATHOM_TEST_REQUIRE_SERVICES=1`.
    pub fn url(self) -> Option<String> {
        let (name, port, usual) = self.facts();
        if let Ok(url) = std::env::var(name) {
            return Some(url);
        }
        if TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2)).is_ok() {
            return Some(usual.to_owned());
        }
        let missing = format!("{self:?}: nothing listens on port {port}; set {name} or start it");
        assert!(std::env::var_os("FATHOM_TEST_REQUIRE_SERVICES").is_none(), "{missing}");
        eprintln!("left out: {missing}");
        None
    }
}
