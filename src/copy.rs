//! One store's rows into another: table by table in the order of their keys, a page at a time. After each page it is written
//! down how far the copy came, so that one that is ended in the middle goes on there; what was written and not written down
//! is written again, and the store knows its rows.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use fathom_market::{batch::Batch, table::Table};
use fathom_storage::{Key, Page, PoisonRow, Span, Store, write_in_parts};
use serde_json::{Value, json};

/// A write that takes longer is tried again.
const WRITE_WITHIN: Duration = Duration::from_secs(300);
/// Attempts at a page, and the longest wait between two: a store may be restarted while it is copied.
const ATTEMPTS: u32 = 30;
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Rows of a table by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows read.
    pub read: u64,
    /// Rows that the target added or updated.
    pub inserted: u64,
    /// Rows that the target had.
    pub duplicate: u64,
    /// Rows that the target refuses.
    pub refused: u64,
}

/// How far a table is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last key that is copied.
    pub after: Option<Key>,
    /// Nothing is left.
    pub done: bool,
    /// Rows so far.
    pub tally: Tally,
}

/// What a table came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The table.
    pub table: Table,
    /// Rows of the span in the source when the table was done.
    pub source: u64,
    /// The same in the target.
    pub target: u64,
    /// Rows by what became of them.
    pub tally: Tally,
}

impl Line {
    /// Whether every row read is in the target, and none of the source is missing there. A target that held rows of its own
    /// has more.
    pub const fn matches(&self) -> bool {
        let Tally { read, inserted, duplicate, refused } = self.tally;
        refused == 0 && read == inserted + duplicate && self.target >= self.source && self.target >= inserted
    }
}

/// Told what goes on.
pub trait Watch {
    /// A table begins, or goes on, with so many rows in the source.
    fn begins(&mut self, table: Table, rows: u64, tally: &Tally);
    /// A page is copied.
    fn moved(&mut self, table: Table, tally: &Tally);
    /// Rows were refused.
    fn refused(&mut self, table: Table, rows: &[PoisonRow]);
    /// A page is tried again.
    fn waits(&mut self, table: Table, error: &str, wait: Duration);
}

/// What is copied from where to where.
pub struct Copy {
    /// Where rows are read.
    pub from: Arc<dyn Store>,
    /// Where they are written.
    pub to: Arc<dyn Store>,
    /// The tables, in their order.
    pub tables: Vec<Table>,
    /// Rows of a page.
    pub page: u32,
}

impl Copy {
    /// Copies what is left according to the state, and keeps that.
    ///
    /// # Errors
    /// When a store is away for too long, or the state cannot be kept. It is good to go on from then.
    pub async fn run(&self, state: &mut State, watch: &mut dyn Watch) -> anyhow::Result<Vec<Line>> {
        let mut lines = Vec::with_capacity(self.tables.len());
        for table in self.tables.iter().copied() {
            self.table(table, state, watch).await?;
            let span = state.span;
            lines.push(Line {
                table,
                source: self.from.count_in(table, span).await?,
                target: self.to.count_in(table, span).await?,
                tally: state.of(table).tally,
            });
        }
        Ok(lines)
    }

    async fn table(&self, table: Table, state: &mut State, watch: &mut dyn Watch) -> anyhow::Result<()> {
        let name = table.schema().name;
        let rows = self.from.count_in(table, state.span).await.with_context(|| format!("count {name}"))?;
        let mut progress = state.of(table);
        watch.begins(table, rows, &progress.tally);
        while !progress.done {
            let page = Page { table, after: progress.after.clone(), span: state.span, limit: self.page };
            let batch = self.read(&page, watch).await.with_context(|| format!("read {name}"))?;
            if !batch.is_empty() {
                let refused = self.write(&batch, &mut progress.tally, watch).await;
                let refused = refused.with_context(|| format!("write {name}"))?;
                if !refused.is_empty() {
                    watch.refused(table, &refused);
                }
            }
            // A short page is the last one: what is added behind it meanwhile belongs to the next copy.
            progress.done = (batch.len() as u64) < u64::from(self.page);
            progress.after = Key::last(&batch).or(progress.after);
            state.keep(table, &progress)?;
            watch.moved(table, &progress.tally);
        }
        Ok(())
    }

    async fn read(&self, page: &Page, watch: &mut dyn Watch) -> anyhow::Result<Batch> {
        let mut attempt = 0;
        loop {
            let error = match self.from.export(page).await {
                Ok(batch) => return Ok(batch),
                Err(error) => error,
            };
            attempt += 1;
            if !error.is_transient() || attempt == ATTEMPTS {
                return Err(error.into());
            }
            rest(attempt, Duration::ZERO, page.table, error.message(), watch).await;
        }
    }

    async fn write(
        &self,
        batch: &Batch,
        tally: &mut Tally,
        watch: &mut dyn Watch,
    ) -> anyhow::Result<Vec<PoisonRow>> {
        let mut attempt = 0;
        loop {
            let (at_least, error) = match write_in_parts(&*self.to, batch, WRITE_WITHIN).await {
                Ok(settled) => {
                    tally.read += batch.len() as u64;
                    tally.inserted += settled.stored;
                    tally.duplicate += settled.duplicate;
                    tally.refused += settled.poison.len() as u64;
                    return Ok(settled.poison);
                }
                Err(failed) => failed,
            };
            attempt += 1;
            if attempt == ATTEMPTS {
                bail!(error);
            }
            rest(attempt, at_least, batch.table(), &error, watch).await;
        }
    }
}

async fn rest(attempt: u32, at_least: Duration, table: Table, error: &str, watch: &mut dyn Watch) {
    let growing = Duration::from_millis(200).saturating_mul(1 << attempt.min(10));
    let wait = growing.max(at_least).min(LONGEST_WAIT);
    watch.waits(table, error, wait);
    tokio::time::sleep(wait).await;
}

/// How far a copy came, in a file.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    /// Which stores, without passwords.
    stores: (String, String),
    /// Which rows.
    pub span: Span,
    tables: BTreeMap<Table, Progress>,
}

impl State {
    /// Reads the file, or begins a copy of this span.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another copy.
    pub fn open(path: &Path, from: &str, to: &str, span: Span) -> anyhow::Result<Self> {
        let stores = (from.to_owned(), to.to_owned());
        let fresh = Self { path: path.to_owned(), stores, span, tables: BTreeMap::new() };
        match fs::read_to_string(path) {
            Ok(text) => fresh.resumed(&text).with_context(|| format!("state {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fresh),
            Err(error) => Err(error).with_context(|| format!("state {}", path.display())),
        }
    }

    fn resumed(mut self, text: &str) -> anyhow::Result<Self> {
        let kept: Value = serde_json::from_str(text).context("not the state of a copy")?;
        if (kept["from"].as_str(), kept["to"].as_str()) != (Some(&self.stores.0), Some(&self.stores.1)) {
            bail!("it is of a copy from {} to {}; name another file with --state", kept["from"], kept["to"]);
        }
        let span = Span { since_ms: kept["since_ms"].as_i64(), until_ms: kept["until_ms"].as_i64() };
        if span.since_ms != self.span.since_ms {
            bail!("it is of a copy of another span; name another file with --state");
        }
        self.span = span;
        for (name, kept) in kept["tables"].as_object().into_iter().flatten() {
            let table = Table::by_name(name).with_context(|| format!("unknown table {name}"))?;
            let after = match &kept["after"] {
                Value::Null => None,
                key => Some(Key::read(table, key).with_context(|| format!("{name}: no key: {key}"))?),
            };
            let count = |figure: &str| kept[figure].as_u64().unwrap_or_default();
            let tally = Tally {
                read: count("read"),
                inserted: count("inserted"),
                duplicate: count("duplicate"),
                refused: count("refused"),
            };
            self.tables.insert(table, Progress { after, done: kept["done"] == true, tally });
        }
        Ok(self)
    }

    /// How far a table is.
    pub fn of(&self, table: Table) -> Progress {
        self.tables.get(&table).cloned().unwrap_or_default()
    }

    fn keep(&mut self, table: Table, progress: &Progress) -> anyhow::Result<()> {
        self.tables.insert(table, progress.clone());
        let tables = self.tables.iter().map(|(table, progress)| {
            let Tally { read, inserted, duplicate, refused } = progress.tally;
            let kept = json!({
                "after": progress.after.as_ref().map(Key::to_json),
                "done": progress.done,
                "read": read,
                "inserted": inserted,
                "duplicate": duplicate,
                "refused": refused,
            });
            (table.schema().name.to_owned(), kept)
        });
        let kept = json!({
            "from": self.stores.0,
            "to": self.stores.1,
            "since_ms": self.span.since_ms,
            "until_ms": self.span.until_ms,
            "tables": tables.collect::<serde_json::Map<_, _>>(),
        });
        // Renamed into its place, so that whoever is ended here finds the old state or the new one.
        let beside = self.path.with_extension("part");
        fs::write(&beside, kept.to_string())
            .and_then(|()| fs::rename(&beside, &self.path))
            .with_context(|| format!("state {}", self.path.display()))
    }

    /// Removes the file: the copy is done.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn finish(self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("state {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::table::{CollectorStateRow, FundingRow};
    use fathom_storage::{SqliteConfig, SqliteStore, WriteOutcome};
    use rust_decimal::Decimal;
    use tempfile::TempDir;

    use super::*;

    /// Watches nothing, and gives up after some pages.
    #[derive(Default)]
    struct Pages(usize);

    impl Watch for Pages {
        fn begins(&mut self, _: Table, _: u64, _: &Tally) {}
        fn moved(&mut self, _: Table, _: &Tally) {
            self.0 += 1;
        }
        fn refused(&mut self, _: Table, _: &[PoisonRow]) {}
        fn waits(&mut self, _: Table, _: &str, _: Duration) {}
    }

    async fn store(folder: &TempDir, name: &str) -> Arc<SqliteStore> {
        let store = SqliteStore::open(&SqliteConfig::new(folder.path().join(name))).await.expect("store");
        store.migrate().await.expect("schema");
        Arc::new(store)
    }

    fn funding(event_us: i64) -> FundingRow {
        FundingRow {
            instrument_id: event_us % 3,
            event_us,
            mark_price: Decimal::new(event_us, 4),
            index_price: None,
            funding_rate: None,
            next_funding_ms: None,
        }
    }

    async fn filled(folder: &TempDir) -> Arc<SqliteStore> {
        let from = store(folder, "from.db").await;
        let written = from.write(&Batch::of((1_000..1_050).map(|ms| funding(ms * 1000)))).await;
        assert_eq!(written, WriteOutcome::Committed { inserted: 50, duplicate: 0 });
        from.write(&Batch::of([CollectorStateRow {
            instrument_id: 1,
            timeframe: "1m".into(),
            last_timestamp_ms: 5,
            last_updated_us: 6,
            is_realtime: true,
        }]))
        .await;
        from
    }

    fn copy(from: &Arc<SqliteStore>, to: &Arc<SqliteStore>) -> Copy {
        Copy { from: from.clone(), to: to.clone(), tables: Table::ALL.to_vec(), page: 7 }
    }

    #[actix_web::test]
    async fn every_row_is_copied_once_and_the_counts_match() {
        let folder = tempfile::tempdir().expect("folder");
        let (from, to) = (filled(&folder).await, store(&folder, "to.db").await);
        to.write(&Batch::of([funding(1_010_000)])).await;
        let path = folder.path().join("state.json");
        let mut state = State::open(&path, "a", "b", Span::default()).expect("state");
        let lines = copy(&from, &to).run(&mut state, &mut Pages::default()).await.expect("copied");
        assert!(lines.iter().all(Line::matches), "{lines:?}");
        let line = lines.iter().find(|line| line.table == Table::FundingRates).expect("funding");
        let tally = Tally { read: 50, inserted: 49, duplicate: 1, refused: 0 };
        assert_eq!((line.source, line.target, line.tally), (50, 50, tally));
        state.finish().expect("removed");
        assert!(!path.exists());
    }

    /// Ends the copy after so many pages of a table.
    struct Ends(usize);

    impl Watch for Ends {
        fn begins(&mut self, _: Table, _: u64, _: &Tally) {}
        fn moved(&mut self, table: Table, _: &Tally) {
            if table == Table::FundingRates {
                self.0 -= 1;
                assert!(self.0 > 0, "ended");
            }
        }
        fn refused(&mut self, _: Table, _: &[PoisonRow]) {}
        fn waits(&mut self, _: Table, _: &str, _: Duration) {}
    }

    #[actix_web::test]
    async fn a_copy_that_was_ended_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let (from, to) = (filled(&folder).await, store(&folder, "to.db").await);
        let path = folder.path().join("state.json");
        let first = copy(&from, &to);
        let opened = || State::open(&path, "a", "b", Span::default()).expect("state");
        let mut state = opened();
        let mut ends = Ends(3);
        let ended = std::panic::AssertUnwindSafe(first.run(&mut state, &mut ends));
        assert!(futures_util::FutureExt::catch_unwind(ended).await.is_err(), "it ends in the middle");
        let kept = opened().of(Table::FundingRates);
        assert_eq!((kept.done, kept.tally.read), (false, 21));
        // The page that was written and not written down.
        let page = Page { table: Table::FundingRates, after: kept.after, span: Span::default(), limit: 7 };
        to.write(&from.export(&page).await.expect("page")).await;
        let mut pages = Pages::default();
        let lines = copy(&from, &to).run(&mut opened(), &mut pages).await.expect("copied");
        assert!(lines.iter().all(Line::matches), "{lines:?}");
        let line = lines.iter().find(|line| line.table == Table::FundingRates).expect("funding");
        let tally = Tally { read: 50, inserted: 43, duplicate: 7, refused: 0 };
        assert_eq!((line.target, line.tally), (50, tally));
        assert!(State::open(&path, "a", "elsewhere", Span::default()).is_err());
    }

    #[actix_web::test]
    async fn only_the_span_is_copied_and_a_missing_row_is_no_match() {
        let folder = tempfile::tempdir().expect("folder");
        let (from, to) = (filled(&folder).await, store(&folder, "to.db").await);
        let span = Span { since_ms: Some(1_010), until_ms: Some(1_020) };
        let mut state = State::open(&folder.path().join("state"), "a", "b", span).expect("state");
        let lines = copy(&from, &to).run(&mut state, &mut Pages::default()).await.expect("copied");
        let line = lines.iter().find(|line| line.table == Table::FundingRates).expect("funding");
        assert_eq!((line.source, line.target, line.tally.read, line.matches()), (10, 10, 10, true));
        assert!(!Line { target: 9, ..line.clone() }.matches());
        let refused = Tally { refused: 1, inserted: 9, ..line.tally };
        assert!(!Line { tally: refused, ..line.clone() }.matches());
    }
}
