//! The one writing connection, shared by batches in turn.
//!
//! It is taken out while it is used and put back only when its state is known to be clean. Whatever goes wrong, a lost answer, an
//! error within a transaction or a caller that goes away in the middle, ends with a new connection: the server rolls back what the
//! old one had begun.

use std::time::Duration;

use fathom_market::batch::Batch;
use sqlx::Connection as _;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    bind,
    classify::{CLOSED, Verdict, commit_is_unknown, store_error, verdict},
    connect::{Opener, Session, within},
    insert::Inserting,
    statements::Statements,
};
use crate::{
    error::{ErrorClass, StoreError},
    store::{PoisonRow, WriteOutcome},
};

/// How often a transaction that was in another's way is begun again at once.
const ATTEMPTS: u32 = 4;
/// What the store waits after that.
const AFTER_ATTEMPTS: Duration = Duration::from_millis(250);

/// The writing side.
#[derive(Debug)]
pub(super) struct Writer {
    opener: Opener,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Session>,
    statements: Statements,
    closed: bool,
}

/// The connection, for as long as it is used. Dropped without [`Lease::give_back`], it is closed.
struct Lease<'a> {
    state: MutexGuard<'a, State>,
    session: Session,
    patience: Duration,
}

/// Why a transaction did not go through.
enum Failure {
    /// Anything else before the commit.
    Before(sqlx::Error),
    /// The commit itself failed.
    Commit(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

/// What became of a transaction that ended cleanly.
enum Ended {
    Committed {
        inserted: u64,
    },
    /// A row was refused; nothing is stored.
    Refused,
    /// Another transaction was in the way; nothing is stored.
    InTheWay(sqlx::Error),
}

impl Writer {
    /// A writer that connects when it is first used.
    pub(super) fn new(opener: Opener) -> Self {
        Self { opener, state: Mutex::new(State::default()) }
    }

    async fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(StoreError::fatal(CLOSED));
        }
        let session = match state.session.take() {
            Some(session) => session,
            None => self.opener.session().await.map_err(|error| store_error(&error))?,
        };
        Ok(Lease { state, session, patience: self.opener.patience() })
    }

    /// Writes a batch in one transaction.
    pub(super) async fn write(&self, batch: &Batch) -> WriteOutcome {
        let mut attempt = 1;
        loop {
            let mut lease = match self.lease().await {
                Ok(lease) => lease,
                Err(error) => return refused(&error),
            };
            let misfits = bind::misfits(batch, lease.session.max_packet);
            if !misfits.is_empty() {
                lease.give_back();
                return WriteOutcome::Poison { rows: misfits };
            }
            match lease.commit(batch).await {
                Ok(Ended::Committed { inserted }) => {
                    lease.give_back();
                    let duplicate = (batch.len() as u64).saturating_sub(inserted);
                    return WriteOutcome::Committed { inserted, duplicate };
                }
                Ok(Ended::Refused) => return lease.find_poison(batch).await,
                Ok(Ended::InTheWay(error)) if attempt == ATTEMPTS => {
                    lease.give_back();
                    return WriteOutcome::Transient { retry_after: AFTER_ATTEMPTS, error: error.to_string() };
                }
                Ok(Ended::InTheWay(_)) => lease.give_back(),
                Err(failure) => return outcome(&failure),
            }
            attempt += 1;
        }
    }

    /// Closes the connection; later leases fail.
    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        let Some(session) = state.session.take() else { return };
        if let Err(error) = within(self.opener.patience(), session.connection.close()).await {
            tracing::debug!(%error, "the connection to the database was not closed cleanly");
        }
    }
}

impl Lease<'_> {
    /// Puts a connection back that has no transaction open.
    fn give_back(self) {
        let Self { mut state, session, .. } = self;
        state.session = Some(session);
    }

    /// Writes the batch. With `Ok` the connection is clean.
    async fn commit(&mut self, batch: &Batch) -> Result<Ended, Failure> {
        let patience = self.patience;
        let mut transaction = within(patience, self.session.connection.begin()).await?;
        let mut inserting = Inserting {
            transaction: &mut transaction,
            statements: &mut self.state.statements,
            batch,
            max_packet: self.session.max_packet,
            patience,
        };
        let inserted = match inserting.all().await {
            Ok(inserted) => inserted,
            Err(error) => {
                let ended = match verdict(&error) {
                    Verdict::Row => Ended::Refused,
                    Verdict::Conflict => Ended::InTheWay(error),
                    Verdict::Transient(_) | Verdict::Fatal => return Err(Failure::Before(error)),
                };
                within(patience, transaction.rollback()).await?;
                return Ok(ended);
            }
        };
        within(patience, transaction.commit()).await.map_err(Failure::Commit)?;
        Ok(Ended::Committed { inserted })
    }

    async fn find_poison(mut self, batch: &Batch) -> WriteOutcome {
        match self.culprits(batch).await {
            Ok(rows) => {
                self.give_back();
                WriteOutcome::Poison { rows }
            }
            Err(failure) => outcome(&failure),
        }
    }

    /// Halves what is refused until single rows are left, and takes everything back. A refused statement undoes itself alone; rows
    /// that are met again are duplicates then, which are not refused.
    async fn culprits(&mut self, batch: &Batch) -> Result<Vec<PoisonRow>, Failure> {
        let patience = self.patience;
        let mut transaction = within(patience, self.session.connection.begin()).await?;
        let mut rows = Vec::new();
        let whole = 0..batch.len();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            let positions: Vec<usize> = part.clone().collect();
            let selected = batch.select(&positions);
            let mut inserting = Inserting {
                transaction: &mut transaction,
                statements: &mut self.state.statements,
                batch: &selected,
                max_packet: self.session.max_packet,
                patience,
            };
            match inserting.all().await {
                Ok(_) => {}
                Err(error) if verdict(&error) != Verdict::Row => return Err(Failure::Before(error)),
                Err(error) if part.len() == 1 => {
                    rows.push(PoisonRow { row: part.start, error: error.to_string() })
                }
                Err(_) => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
            }
        }
        within(patience, transaction.rollback()).await?;
        Ok(rows)
    }
}

/// The outcome of a write that could not begin.
fn refused(error: &StoreError) -> WriteOutcome {
    let words = error.message().to_owned();
    match error.class() {
        ErrorClass::Transient { retry_after } => WriteOutcome::Transient { retry_after, error: words },
        ErrorClass::Fatal => WriteOutcome::Fatal { error: words },
    }
}

fn outcome(failure: &Failure) -> WriteOutcome {
    match failure {
        Failure::Commit(error) if commit_is_unknown(error) => {
            WriteOutcome::UnknownOutcome { error: error.to_string() }
        }
        // A commit checks no row by itself: the culprits are not known.
        Failure::Commit(error) if verdict(error) == Verdict::Row => WriteOutcome::Poison { rows: Vec::new() },
        Failure::Before(error) | Failure::Commit(error) => refused(&store_error(error)),
    }
}
