//! Damaged files and records, a full quarantine, and answers that were lost.

use super::*;
use crate::account::Offered;

/// What SQLite says of a file that is none of its own.
async fn not_a_database(directory: &Path) -> sqlx::Error {
    let letter = directory.join("letter.db");
    std::fs::write(&letter, "this is a letter, not a database\n".repeat(400)).unwrap();
    let error = WriterOptions::new(&SqliteConfig::new(letter), &[]).connect().await.unwrap_err();
    assert!(crate::spool::file::is_corrupt(&error), "{error}");
    error
}

impl Bench {
    async fn beside(&self, statements: &[&'static str]) {
        let options = WriterOptions::new(&SqliteConfig::new(&self.config.path), &[]);
        let mut beside = options.connect().await.unwrap();
        for statement in statements {
            sqlx::query(*statement).execute(&mut beside).await.unwrap();
        }
        beside.close().await.unwrap();
    }

    /// Ten rows are stored, one is in quarantine, ten wait, and a stream has a mark.
    async fn busy() -> Self {
        let bench = Self::with(BTreeSet::from([10]), true, |config| config).await;
        let first_side = [(TABLE, Offered::of(25))];
        bench.sink.accept(&rows(0..11, 1, 1), &first_side).await;
        assert!(matches!(bench.sink.step().await, Step::Moved { stored: 10, quarantined: 1, .. }));
        bench.accept(&rows(20..30, 1, 2)).await;
        bench.beside(&["insert into stream_marks values (7, 'trade', 5, '6')"]).await;
        bench
    }

    async fn assert_carried_to(&mut self, epoch: u64) {
        let wanted = Accepted { accepted: 21, stored: 10, discarded: 11, ..Accepted::default() };
        let marks = self.sink.marks().await.unwrap();
        assert_eq!((self.side(), marks.len(), marks[0].last_us), (wanted, 1, 5));
        assert_eq!(
            (self.sink.spool().unwrap().rows, self.sink.quarantined(&ALL).await.unwrap().len()),
            (0, 0)
        );
        self.accept(&rows(40..44, epoch, 3)).await;
        let wanted = Accepted { accepted: 25, spooled: 4, ..wanted };
        assert_eq!(self.side(), wanted);
        assert_eq!(self.reopen().await, epoch + 1);
        // What was offered and not accepted when a start came in between was lost with the process.
        let opening = self.sink.open().await.unwrap();
        assert_eq!(opening.accepted[&TABLE], wanted);
        assert_eq!(
            (opening.offered[&TABLE].offered, opening.offered[&TABLE].refused()),
            (25, (epoch - 1) * 4)
        );
        self.drain().await;
        assert_eq!(self.side().stored, 14);
    }
}

#[tokio::test]
async fn the_accounts_outlive_a_file_that_is_damaged_at_run_time_and_is_set_aside_once() {
    let mut bench = Bench::busy().await;
    let file = bench.sink.spool.file().await.unwrap();
    for _ in 0..2 {
        let error = not_a_database(bench.directory.path()).await;
        assert!(bench.sink.spool.failed(&file, error).await.is_transient());
    }
    let aside = bench.sink.spool().unwrap().set_aside.unwrap();
    assert!(bench.directory.path().join(&aside).exists(), "{aside}");
    bench.assert_carried_to(1).await;
}

#[tokio::test]
async fn the_accounts_outlive_a_file_that_is_found_damaged_at_the_start() {
    let mut bench = Bench::busy().await;
    let file = bench.sink.spool.file().await.unwrap();
    let root = "select rootpage from sqlite_schema where name = 'spool'";
    let root: i64 = sqlx::query_scalar(root).fetch_one(&file.readers).await.unwrap();
    file.close().await;
    let mut bytes = std::fs::read(&bench.config.path).unwrap();
    let page = usize::try_from(root - 1).unwrap() * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::fs::write(&bench.config.path, bytes).unwrap();
    bench.sink = open(&bench.config, &bench.now_us, &bench.store).await;
    assert!(bench.sink.spool().unwrap().set_aside.is_some());
    bench.assert_carried_to(2).await;
}

#[tokio::test]
async fn a_spool_that_could_not_be_set_aside_is_opened_again_when_it_is_asked() {
    let bench = Bench::busy().await;
    let file = bench.sink.spool.file().await.unwrap();
    std::fs::remove_file(&bench.config.path).unwrap();
    let error = bench.sink.spool.failed(&file, not_a_database(bench.directory.path()).await).await;
    assert!(error.message().contains("cannot be set aside"), "{error}");
    assert!(!error.message().contains('/'), "{error}");
    bench.accept(&rows(40..44, 1, 3)).await;
    let wanted = Accepted { accepted: 25, stored: 10, spooled: 4, discarded: 11, ..Accepted::default() };
    assert_eq!(bench.side(), wanted);
}

#[tokio::test]
async fn a_damaged_record_that_would_decode_is_never_sent_again() {
    let bench = Bench::new().await;
    bench.accept(&rows(0..10, 1, 1)).await;
    bench.beside(&["update spool set crc = crc + 1"]).await;
    bench.drain().await;
    let held = bench.sink.quarantined(&ALL).await.unwrap();
    let Resent::Refused(error) = bench.sink.resend(held[0].id).await.unwrap() else { panic!("sent") };
    assert_eq!(error, "the record is damaged: it can only be removed");
    let again = bench.sink.quarantined(&ALL).await.unwrap();
    assert_eq!((&again[0].error, bench.stored().await), (&held[0].error, 0));
    assert!(bench.sink.discard(held[0].id).await.unwrap());
    assert_eq!((bench.side().quarantined, bench.side().discarded), (0, 10));
}

#[tokio::test]
async fn poison_that_the_full_quarantine_does_not_take_is_given_back() {
    let bench = Bench::with(BTreeSet::from([3, 4]), true, |mut config| {
        config.quarantine.rows = 1;
        config
    })
    .await;
    bench.accept(&rows(0..10, 1, 1)).await;
    let Step::Moved { stored: 8, quarantined: 0, lost: Some(lost), .. } = bench.sink.step().await else {
        panic!("nothing is lost")
    };
    assert_eq!(ids(&lost), [3, 4]);
    let side = bench.side();
    assert_eq!((side.stored, side.expired, side.discarded), (8, 2, 0));
}

#[tokio::test]
async fn figures_in_doubt_are_read_from_the_file_again() {
    let bench = Bench::new().await;
    bench.accept(&rows(0..10, 1, 1)).await;
    // A transaction went through whose answer was lost.
    bench
        .beside(&[
            "delete from spool",
            "update sink_counts set rows = 0 where figure = 'spooled'",
            "insert into sink_counts values ('collector_state_raw', 'stored', 10)",
        ])
        .await;
    bench.sink.spool.doubt();
    bench.accept(&rows(10..20, 1, 2)).await;
    let wanted = Accepted { accepted: 20, stored: 10, spooled: 10, ..Accepted::default() };
    assert_eq!((bench.side(), bench.sink.spool().unwrap().records), (wanted, 1));
}
