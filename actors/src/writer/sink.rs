//! Where rows are offered: the way to the writer, and the account that says whose rows are taken.

use std::sync::Arc;

use fathom_market::batch::Batch;
use fathom_storage::Refusal;

use super::account::Account;
use crate::kernel::{Outlet, SendError, Sent};

/// The way to the writer.
#[derive(Clone)]
pub struct RowSink {
    outlet: Outlet<Batch>,
    account: Arc<Account>,
}

impl RowSink {
    /// A way with its account.
    pub const fn new(outlet: Outlet<Batch>, account: Arc<Account>) -> Self {
        Self { outlet, account }
    }

    /// The account.
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Offers rows that nobody has counted yet.
    ///
    /// # Errors
    /// Gives them back when the writer's inbox is full; they are counted as refused, and as new when they are offered again.
    pub fn offer(&self, batch: Batch) -> Result<Sent, SendError<Batch>> {
        self.account.made(batch.table(), batch.len() as u64, batch.bytes());
        let sent = self.outlet.offer(batch);
        if let Err(SendError::Full(batch) | SendError::Closed(batch)) = &sent {
            self.account.refuse_outside(batch, Refusal::SenderFull);
        }
        sent
    }

    /// Hands over rows that an outbox has counted.
    ///
    /// # Errors
    /// Gives them back when the writer's inbox is full; they still wait.
    pub fn hand(&self, batch: Batch) -> Result<(), Batch> {
        match self.outlet.offer(batch) {
            Ok(_) => Ok(()),
            Err(SendError::Full(batch) | SendError::Closed(batch)) => Err(batch),
        }
    }
}

#[cfg(test)]
impl From<Outlet<Batch>> for RowSink {
    fn from(outlet: Outlet<Batch>) -> Self {
        Self::new(outlet, Arc::default())
    }
}
