//! A server of the test's own, killed in the middle and brought back.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::*;

/// A server in a temporary directory. It refuses to run as root, and then runs as `postgres`.
struct Private {
    directory: tempfile::TempDir,
    port: u16,
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = (13..20).rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    known.chain(std::env::split_paths(&path)).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// Runs one of the server's programs; gives whether it went well.
fn call(name: &str, arguments: &[&str]) -> bool {
    let Some(program) = program(name) else { return false };
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    let quiet = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

impl Private {
    /// `None` leaves the test out.
    fn start() -> Option<Self> {
        program("initdb")?;
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            let given = Command::new("chown").arg("postgres").arg(directory.path()).status();
            given.ok().filter(std::process::ExitStatus::success)?;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let this = Self { directory, port };
        let made = call("initdb", &["-D", text(&this.data()), "-U", "postgres", "-A", "trust", "--no-sync"]);
        assert!(made, "initdb failed");
        this.up();
        Some(this)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn up(&self) {
        let (log, socket) = (self.directory.path().join("log"), self.directory.path());
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -k {}", self.port, text(socket));
        let started =
            call("pg_ctl", &["-D", text(&self.data()), "-l", text(&log), "-o", &options, "-w", "start"]);
        assert!(started, "the server did not start: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// Without a checkpoint and without a word to its clients.
    fn kill(&self) {
        assert!(call("pg_ctl", &["-D", text(&self.data()), "-m", "immediate", "-w", "stop"]));
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        call("pg_ctl", &["-D", text(&self.data()), "-m", "immediate", "-w", "stop"]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_server_killed_in_the_middle_loses_and_doubles_nothing() {
    const BATCHES: i64 = 60;
    const ROWS: i64 = 500;
    let Some(server) = Private::start() else { return };
    let config = PostgresConfig {
        connect_timeout: Duration::from_millis(500),
        pool: 3,
        ..PostgresConfig::new(server.url())
    };
    let store = PostgresStore::open(&config).await.unwrap();
    store.migrate().await.unwrap();
    let (mut troubles, mut kills) = (0, 0);
    let killed = std::sync::Arc::new(AtomicU64::new(0));
    for batch in 0..BATCHES {
        let rows = rows::batch(Table::Trades, batch * ROWS..(batch + 1) * ROWS);
        // Twice: in the middle of a write, and between two.
        if batch == 20 {
            kills += 1;
            let (data, flag) = (server.data(), killed.clone());
            let killer = std::thread::spawn(move || {
                let done = call("pg_ctl", &["-D", text(&data), "-m", "immediate", "-w", "stop"]);
                flag.store(u64::from(done), Ordering::Release);
            });
            while killed.load(Ordering::Acquire) == 0 {
                // The same rows again and again are the caller's right.
                if !matches!(store.write(&rows).await, WriteOutcome::Committed { .. }) {
                    troubles += 1;
                }
            }
            killer.join().unwrap();
            assert!(!matches!(store.write(&rows).await, WriteOutcome::Committed { .. }));
            assert!(!store.status().reachable);
            server.up();
        }
        if batch == 40 {
            kills += 1;
            server.kill();
            server.up();
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match store.write(&rows).await {
                WriteOutcome::Committed { .. } => break,
                WriteOutcome::Transient { .. } | WriteOutcome::UnknownOutcome { .. } => troubles += 1,
                other => panic!("{other:?}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "the store did not come back");
        }
    }
    assert!(troubles > 0 && kills == 2);
    assert!(store.status().reachable);
    let all = rows::batch(Table::Trades, 0..BATCHES * ROWS);
    let mut wanted = expected(&all);
    wanted.sort();
    let mut stored = dump(&store, Table::Trades).await;
    stored.sort();
    assert_eq!(stored.len(), wanted.len());
    assert_eq!(stored, wanted);
}

#[tokio::test]
async fn a_server_that_starts_after_the_store_is_found() {
    let Some(server) = Private::start() else { return };
    server.kill();
    let config =
        PostgresConfig { connect_timeout: Duration::from_millis(300), ..PostgresConfig::new(server.url()) };
    let store = PostgresStore::open(&config).await.unwrap();
    assert!(store.migrate().await.unwrap_err().is_transient());
    server.up();
    eventually("the schema is there", || async { store.migrate().await.is_ok() }).await;
    assert_eq!(store.write(&rows::batch(Table::Candles, 0..5)).await, committed(5, 0));
}
