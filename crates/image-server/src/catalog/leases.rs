//! Who works on what: claims, renewals, returns.
//!
//! All of it by the database's clock, and all of it through [`transition`], like every other change of an operation. A claim locks
//! the row that it takes and passes over those that others are taking (`FOR UPDATE SKIP LOCKED`; in SQLite there is one
//! writer anyway), so that servers that look for work at the same moment find different work.

use std::{collections::HashMap, time::Duration};

use sqlx::Row;

use super::{Catalog, CatalogError, Job, Tx, commit, read_job, rows, sql::Sql};
use crate::operation::{Epoch, Event, Lease, Standing, State, transition};

/// The right to work on an operation, for as long as no other epoch has begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The operation.
    pub(crate) id: String,
    /// Which of its leases.
    pub(crate) epoch: Epoch,
}

/// Which work a server has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// All.
    Any,
    /// What moves no content: deletions, and creations to be taken back.
    Light,
}

/// An operation and the right to work on it.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) ticket: Ticket,
    pub(crate) job: Job,
}

impl Claimed {
    /// Whether somebody may have worked on it before.
    pub(crate) fn is_repeated(&self) -> bool {
        self.ticket.epoch > 1
    }
}

impl Catalog {
    /// Claims the oldest operation that nobody works on, for as long as `lease` from now.
    pub(crate) async fn claim(
        &self,
        owner: &str,
        lease: Duration,
        want: Want,
    ) -> Result<Option<Claimed>, CatalogError> {
        let failed = CatalogError::database("look for work");
        // Mostly there is none, and to learn that needs no lock.
        if self.claimable(want, "").fetch_optional(&self.pool).await.map_err(&failed)?.is_none() {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let found = self.claimable(want, self.dialect.skip_locked());
        let Some(row) = found.fetch_optional(&mut *tx).await.map_err(&failed)? else { return Ok(None) };
        let id: String = row.get("id");
        let standing = self.advance(&mut tx, &id, Event::Claim).await?.standing;
        self.hold_until(&mut tx, &id, lease, Some(owner)).await?;
        let job = read_job(&mut tx, &id).await?;
        commit(tx).await?;
        Ok(Some(Claimed { ticket: Ticket { id, epoch: standing.epoch }, job }))
    }

    fn claimable(&self, want: Want, lock: &str) -> Sql {
        let mut sql =
            Sql::new("SELECT id FROM operations WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING')");
        sql.push(" AND (lease_until IS NULL OR lease_until <= ").push(self.dialect.now()).push(")");
        if want == Want::Light {
            sql.push(" AND (kind = 'DELETE' OR state = 'CANCELLING')");
        }
        sql.push(" ORDER BY created_at, id LIMIT 1").push(lock);
        sql
    }

    /// Prolongs a lease to `lease` from now. Refused when another worker has the operation, or it has ended.
    pub(crate) async fn renew(&self, ticket: &Ticket, lease: Duration) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        self.advance(&mut tx, &ticket.id, Event::Renew(ticket.epoch)).await?;
        self.hold_until(&mut tx, &ticket.id, lease, None).await?;
        commit(tx).await
    }

    /// Hands an operation back, for others to go on with at once.
    pub(crate) async fn release(&self, ticket: &Ticket) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        self.advance(&mut tx, &ticket.id, Event::Release(ticket.epoch)).await?;
        commit(tx).await
    }

    /// Ends all leases. Only for whoever knows that nobody else works on this catalog; nothing goes wrong if they err, but what the
    /// others were doing is done again.
    pub(crate) async fn free_leases(&self) -> Result<(), CatalogError> {
        let freed = sqlx::query("UPDATE operations SET lease_until = NULL WHERE lease_until IS NOT NULL");
        let freed = freed.execute(&self.pool).await;
        freed.map(drop).map_err(CatalogError::database("end the leases of a server that is no more"))
    }

    /// The epochs and states of operations, to see which were taken away or are to be cancelled.
    pub(crate) async fn watch(
        &self,
        ids: impl IntoIterator<Item = String>,
    ) -> Result<HashMap<String, (Epoch, State)>, CatalogError> {
        let mut sql = Sql::new("SELECT id, kind, state, epoch FROM operations WHERE id IN (");
        sql.push_list(ids).push(")");
        let rows = sql.fetch_all(&self.pool).await.map_err(CatalogError::database("watch operations"))?;
        let watched = rows.iter().map(|row| {
            let (_, state) = rows::kind_and_state(row)?;
            Ok((row.get("id"), (row.get("epoch"), state)))
        });
        watched.collect()
    }

    /// Whether a worker may still write beside the operation's state. The operation stays as it is until the transaction ends.
    pub(super) async fn fence(&self, tx: &mut Tx, ticket: &Ticket) -> Result<(), CatalogError> {
        let (standing, _) = self.standing(tx, &ticket.id).await?;
        transition(standing, Event::Renew(ticket.epoch))?;
        Ok(())
    }

    /// What decides about the next event of an operation, and its image. Locks the operation.
    pub(super) async fn standing(&self, tx: &mut Tx, id: &str) -> Result<(Standing, String), CatalogError> {
        let mut sql = Sql::new("SELECT id, kind, state, image_id, epoch, lease_until, ");
        sql.push(self.dialect.now()).push(" AS now FROM operations WHERE id = ").push_bind(id.to_owned());
        sql.push(self.dialect.for_update());
        let row = sql.fetch_optional(&mut **tx).await.map_err(CatalogError::database("read an operation"))?;
        let row = row.ok_or_else(|| CatalogError::NoOperation { id: id.to_owned() })?;
        let (kind, state) = rows::kind_and_state(&row)?;
        let now: i64 = row.get("now");
        let lease = match row.get::<Option<i64>, _>("lease_until") {
            None => Lease::Free,
            Some(until) if until <= now => Lease::RunOut,
            Some(_) => Lease::Held,
        };
        Ok((Standing { kind, state, epoch: row.get("epoch"), lease }, row.get("image_id")))
    }

    async fn hold_until(
        &self,
        tx: &mut Tx,
        id: &str,
        lease: Duration,
        owner: Option<&str>,
    ) -> Result<(), CatalogError> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 2);
        let mut sql = Sql::new("UPDATE operations SET lease_until = ");
        sql.push(self.dialect.now()).push(" + ").push_bind(lease);
        if let Some(owner) = owner {
            sql.push(", owner = ").push_bind(owner.to_owned());
        }
        sql.push(" WHERE id = ").push_bind(id.to_owned());
        let held = sql.execute(&mut **tx).await;
        held.map(drop).map_err(CatalogError::database("note a lease"))
    }
}

#[cfg(test)]
impl Catalog {
    /// The database's clock, microseconds since 1970.
    pub(super) async fn clock(&self) -> i64 {
        let mut sql = Sql::new("SELECT ");
        sql.push(self.dialect.now()).push(" AS now");
        sql.fetch_all(&self.pool).await.unwrap()[0].get("now")
    }

    pub(super) fn is_postgres(&self) -> bool {
        self.dialect == super::database::Dialect::Postgres
    }
}
