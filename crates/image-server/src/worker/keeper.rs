//! Keeps the leases of this process, and learns what happened to its operations elsewhere.
//!
//! One read for all of them each [`limits::LEASE_WATCH`]: a cancel that another server took stops the download, and an operation that
//! another worker has is left alone at once. A renewal, which is a write, only each [`limits::LEASE_RENEWAL`]. A lease
//! that could not be renewed in time is given up by our own clock, before the database's says that it has run out: the two need
//! not agree on the time, only on its pace.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{Held, Shared, Ticket};
use crate::{
    catalog::CatalogError,
    limits,
    operation::{Refused, State},
};

/// A database that answers later than this does not answer.
const ANSWER: Duration = Duration::from_secs(2);

impl Shared {
    /// Until the worker has stopped and handed back what it held.
    pub(super) async fn keep_leases(&self) {
        loop {
            sleep(limits::LEASE_WATCH).await;
            if self.held().is_empty() {
                if self.shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            self.watch().await;
            self.renew().await;
            self.give_up();
        }
    }

    /// Looks what happened to the operations elsewhere.
    async fn watch(&self) {
        let ids: Vec<String> = self.held().keys().cloned().collect();
        let seen = match timeout(ANSWER, self.catalog.watch(ids)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                return warn!(error = &error as &dyn std::error::Error, "operations cannot be watched");
            }
            Err(_) => return warn!("operations cannot be watched: the catalog does not answer"),
        };
        for held in self.held().values() {
            match seen.get(&held.ticket.id) {
                Some((epoch, _)) if *epoch != held.ticket.epoch => held.lose("another worker has it"),
                Some((_, State::Cancelling)) => held.tokens.cancel.cancel(),
                _ => {}
            }
        }
    }

    async fn renew(&self) {
        let due = |held: &&Held| {
            held.renewed.elapsed() >= limits::LEASE_RENEWAL && !held.tokens.lost.is_cancelled()
        };
        let due: Vec<Ticket> = self.held().values().filter(due).map(|held| held.ticket.clone()).collect();
        for ticket in due {
            let asked = Instant::now();
            let renewed = timeout(ANSWER, self.catalog.renew(&ticket, limits::LEASE)).await;
            let mut all = self.held();
            let Some(held) = all.get_mut(&ticket.id).filter(|held| held.ticket == ticket) else { continue };
            match renewed {
                Ok(Ok(())) => held.renewed = asked,
                Ok(Err(CatalogError::Refused(Refused::LeaseLost { .. }))) => {
                    held.lose("another worker has it")
                }
                // It has just ended.
                Ok(Err(CatalogError::Refused(Refused::State { .. }))) => {}
                Ok(Err(error)) => {
                    warn!(id = %ticket.id, error = &error as &dyn std::error::Error, "lease not renewed");
                }
                Err(_) => warn!(id = %ticket.id, "lease not renewed: the catalog does not answer"),
            }
        }
    }

    fn give_up(&self) {
        for held in self.held().values() {
            if held.renewed.elapsed() >= limits::LEASE - limits::LEASE_MARGIN {
                held.lose("it could not be renewed");
            }
        }
    }
}

impl Held {
    pub(super) fn lose(&self, why: &'static str) {
        if !self.tokens.lost.is_cancelled() {
            warn!(id = %self.ticket.id, epoch = self.ticket.epoch, why, "lease lost");
            self.tokens.lost.cancel();
            self.tokens.cancel.cancel();
        }
    }
}
