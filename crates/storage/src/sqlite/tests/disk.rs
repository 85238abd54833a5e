//! A file system that is really full, and one that may really not be written. Needs the right to mount; says so where it is
//! missing.

use std::{path::PathBuf, process::Command};

use super::*;
use crate::account::{Accounts as _, Offered};

/// A small file system in memory, for as long as this lives.
struct Mounted {
    at: PathBuf,
    _directory: TempDir,
}

impl Mounted {
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Self { at: directory.path().to_owned(), _directory: directory };
        if mounted.mount(&format!("size={size}")) {
            return Some(mounted);
        }
        eprintln!("left out: this machine lets the test mount no file system");
        None
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.at);
        mount.output().is_ok_and(|done| done.status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

/// Accepts batches until one is not; gives the number of those that were, and the one that was not.
async fn fill(store: &SqliteStore, from: u64) -> (u64, Batch, WriteOutcome) {
    for seq in from.. {
        let first = seq.cast_signed() * 500;
        let mut batch = rows::batch(Table::DepthEvents, first..first + 500);
        (batch.epoch, batch.seq) = (1, seq);
        let offered = Offered::of(seq * 500);
        match store.accept(&batch, &[(Table::DepthEvents, offered)]).await {
            WriteOutcome::Committed { .. } => {}
            other => return (seq - 1, batch, other),
        }
    }
    unreachable!("a file system of some megabytes is full at last")
}

async fn holds(store: &SqliteStore, batches: u64) {
    let side = store.accepted()[&Table::DepthEvents];
    assert!(side.is_balanced() && side.accepted == batches * 500, "{side:?}");
    assert_eq!(store.history().count(Table::DepthEvents).await.unwrap(), batches * 500);
}

#[tokio::test]
async fn a_full_file_system_passes_by_itself_and_nothing_is_counted_twice() {
    let Some(disk) = Mounted::new("6m") else { return };
    let filler = disk.at.join("filler");
    std::fs::write(&filler, vec![0; 2 * 1024 * 1024]).unwrap();
    let store = open(&disk.at).await;
    store.migrate().await.unwrap();
    let (accepted, refused, outcome) = fill(&store, 1).await;
    assert!(matches!(outcome, WriteOutcome::Transient { .. }), "{outcome:?}");
    assert!(!store.status().reachable);
    holds(&store, accepted).await;
    for _ in 0..3 {
        assert!(matches!(store.accept(&refused, &[]).await, WriteOutcome::Transient { .. }));
    }
    std::fs::remove_file(filler).unwrap();
    assert_eq!(store.accept(&refused, &[]).await, committed(500, 0));
    holds(&store, accepted + 1).await;
    assert!(store.status().reachable);
    let opening = store.accounts().open().await.unwrap();
    assert_eq!(opening.accepted[&Table::DepthEvents].accepted, (accepted + 1) * 500);
}

#[tokio::test]
async fn a_read_only_file_system_is_said_and_passes_when_it_is_over() {
    let Some(disk) = Mounted::new("20m") else { return };
    let store = open(&disk.at).await;
    store.migrate().await.unwrap();
    let mut batch = rows::batch(Table::Candles, 0..100);
    (batch.epoch, batch.seq) = (1, 1);
    store.close().await;
    drop(store);
    assert!(disk.mount("remount,ro"));
    let refused = SqliteStore::open(&config(&disk.at)).await;
    assert!(refused.is_err(), "a store that cannot be written does not open");
    assert!(disk.mount("remount,rw"));
    let store = open(&disk.at).await;
    assert_eq!(store.accept(&batch, &[]).await, committed(100, 0));
}

#[tokio::test]
async fn a_connection_that_may_not_write_loses_nothing() {
    let (directory, store) = store().await;
    store.close().await;
    let mut batch = rows::batch(Table::Candles, 0..100);
    (batch.epoch, batch.seq) = (1, 1);
    let read_only = SqliteStore::open_with(&config(directory.path()), &[("query_only", "on")]).await.unwrap();
    let outcome = read_only.accept(&batch, &[]).await;
    assert!(matches!(outcome, WriteOutcome::Fatal { .. }), "{outcome:?}");
    assert!(read_only.accepted().is_empty());
    read_only.close().await;
    assert_eq!(open(directory.path()).await.accept(&batch, &[]).await, committed(100, 0));
}
