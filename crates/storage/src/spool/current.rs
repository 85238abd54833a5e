//! The file that is in use: opened when it is asked for, and replaced when it is found damaged. A fresh one goes on with the
//! accounts of the lost one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use fathom_market::mark::StreamMark;
use sqlx::Connection as _;

use super::{
    AFTER_FULL, Spool,
    file::{self, File},
    records,
};
use crate::{
    account::{Opening, SpoolStatus},
    error::StoreError,
    sqlite::{
        SqliteConfig,
        classify::store_error,
        connect, ledger,
        writer::{BEGIN, Lease},
    },
};

/// Where the file is kept.
#[derive(Default)]
pub(super) struct Slot {
    /// None until it is opened, and after it was found damaged.
    file: Option<Arc<File>>,
    /// The file that was set aside last.
    aside: Option<PathBuf>,
}

impl Spool {
    /// The file, opened where none is open.
    pub(super) async fn file(&self) -> Result<Arc<File>, StoreError> {
        if let Some(file) = &self.slot.read().await.file {
            return Ok(Arc::clone(file));
        }
        let mut slot = self.slot.write().await;
        match &slot.file {
            Some(file) => Ok(Arc::clone(file)),
            None => self.open_into(&mut slot).await,
        }
    }

    /// What an error of a file means. One found damaged is set aside, unless another caller has done so, so that the next
    /// attempt finds a fresh one.
    pub(super) async fn failed(&self, failed: &Arc<File>, error: sqlx::Error) -> StoreError {
        if !file::is_corrupt(&error) {
            return store_error(&error);
        }
        let words = StoreError::transient(AFTER_FULL, error.to_string());
        let mut slot = self.slot.write().await;
        if !slot.file.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            return words;
        }
        slot.file = None;
        failed.writer.close().await;
        match file::set_aside(&self.config.path, (self.now)(), &words) {
            Ok(aside) => slot.aside = Some(aside),
            Err(error) => return error,
        }
        self.open_into(&mut slot).await.err().unwrap_or(words)
    }

    async fn open_into(&self, slot: &mut Slot) -> Result<Arc<File>, StoreError> {
        let opened = match File::open(&self.config).await {
            Err(error) if error.is_corrupt => {
                slot.aside = Some(file::set_aside(&self.config.path, (self.now)(), &error.error)?);
                File::open(&self.config).await
            }
            opened => opened,
        };
        let file = Arc::new(opened.map_err(|error| error.error)?);
        let begun = self.begin(&file, slot.aside.as_deref()).await;
        begun.map_err(|error| store_error(&error))?;
        slot.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Puts the accounts into a file that is fresh, and reads what it holds.
    async fn begin(&self, file: &File, aside: Option<&Path>) -> Result<(), sqlx::Error> {
        let mut lease =
            file.writer.lease().await.map_err(|error| sqlx::Error::Configuration(error.into()))?;
        if ledger::is_fresh(&mut lease.connection).await? {
            let (opening, marks) = match aside {
                Some(aside) => salvage(aside).await,
                None => (None, Vec::new()),
            };
            // Where the process had begun, it knows the accounts better.
            if let Some(opening) = opening
                && self.books.ledger.accepted().is_empty()
            {
                self.books.ledger.opened(&opening);
            }
            let mut carried = self.books.ledger.carried();
            carried.marks = marks;
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            ledger::carry(&mut transaction, &carried).await?;
            transaction.commit().await?;
            self.books.ledger.carried_over(carried);
        }
        let (records, rows, bytes, oldest_us) = records::held(&mut lease.connection).await?;
        lease.give_back();
        let (limit, set_aside) = (self.config.max_bytes, aside.map(file::name));
        *self.state() =
            SpoolStatus { records, rows, bytes, limit, oldest_us, set_aside, ..SpoolStatus::default() };
        Ok(())
    }

    /// Waits for the writing connection. Until it is given back, the figures are in doubt.
    pub(super) async fn lease<'a>(&self, file: &'a Arc<File>) -> Result<Lease<'a>, StoreError> {
        let mut lease = file.writer.lease().await?;
        if self.in_doubt.load(Relaxed)
            && let Err(error) = self.recount(&mut lease).await
        {
            drop(lease);
            return Err(self.failed(file, error).await);
        }
        self.in_doubt.store(true, Relaxed);
        Ok(lease)
    }

    /// To be called when the figures are those of the file.
    pub(super) fn give_back(&self, lease: Lease<'_>) {
        self.in_doubt.store(false, Relaxed);
        lease.give_back();
    }

    /// The outcome of a transaction is not known.
    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Relaxed);
    }

    async fn recount(&self, lease: &mut Lease<'_>) -> Result<(), sqlx::Error> {
        let held = records::held(&mut lease.connection).await?;
        let last = ledger::last(&mut lease.connection).await?;
        let accepted = ledger::opening(&mut lease.connection).await?.accepted;
        self.books.ledger.reread(last, accepted);
        let mut state = self.state();
        (state.records, state.rows, state.bytes, state.oldest_us) = held;
        Ok(())
    }
}

/// What can still be read of a file that was set aside.
async fn salvage(aside: &Path) -> (Option<Opening>, Vec<StreamMark>) {
    let readers = connect::readers(&SqliteConfig { readers: 1, ..SqliteConfig::new(aside) });
    let Ok(mut connection) = readers.acquire().await else { return (None, Vec::new()) };
    let opening = ledger::opening(&mut connection).await;
    let marks = ledger::marks(&mut connection).await;
    drop(connection);
    readers.close().await;
    if let Some(error) = opening.as_ref().err().or(marks.as_ref().err()) {
        tracing::warn!(%error, "not all accounts of the damaged spool can be read");
    }
    (opening.ok(), marks.unwrap_or_default())
}
