//! A server of one test, which may kill it.

use std::path::Path;

use crate::{
    Server,
    launch::{Launched, Sync, family, signal},
};

/// A server that belongs to one test. It ends, and its folder goes, when this is dropped, and with the process at the latest.
pub struct Private {
    server: Server,
    launched: Launched,
}

impl Private {
    /// Starts the installed server on a free port in a folder of its own. `None`, said on standard error, leaves the test
    /// out.
    ///
    /// # Panics
    /// Where it is not installed although `FATHOM_TEST_REQUIRE_SERVICES=1`.
    pub fn start(server: Server) -> Option<Self> {
        match Launched::new(server, Sync::On) {
            Ok(launched) => Some(Self { server, launched }),
            Err(why) => server.left_out(&why),
        }
    }

    /// Where it listens; the same after every restart.
    pub fn url(&self) -> String {
        self.server.url_at(self.launched.port())
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.launched.port()
    }

    /// Where its data are.
    pub fn folder(&self) -> &Path {
        self.launched.folder()
    }

    /// Ends it at once, as a crash does (PostgreSQL as `pg_ctl stop -m immediate`, the others by SIGKILL), and waits until it
    /// is gone. Killing one that is gone does nothing.
    pub fn kill(&mut self) {
        self.stop_cont(false);
        self.launched.end();
    }

    /// Starts it again on its data and waits until it answers.
    ///
    /// # Panics
    /// When it runs, or does not start.
    pub fn restart(&mut self) {
        self.launched.start().unwrap_or_else(|why| panic!("{:?} does not start again: {why}", self.server));
    }

    /// Stops every process of it (`true`), so that connections stay open and nothing answers, or lets them go on (`false`).
    pub fn stop_cont(&self, stop: bool) {
        if let Some(pid) = self.launched.pid() {
            signal(if stop { "STOP" } else { "CONT" }, &family(pid));
        }
    }
}
