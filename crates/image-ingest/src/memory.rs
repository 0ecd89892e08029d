//! The memory of all ingests of a process.
//!
//! An ingest takes all that it may need before it reads its first byte, so that no two wait for each other with half of it in
//! hand; what its image turned out not to need it gives back as soon as that is known. First come, first served.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{IngestError, limits::BUDGET_UNIT};

/// Memory that ingests share. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u32,
}

impl MemoryBudget {
    /// A budget of so many bytes, at least 1 MiB.
    pub fn new(bytes: u64) -> Self {
        let units = units(bytes).clamp(1, u32::MAX >> 4);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        u64::from(self.units) * BUDGET_UNIT
    }

    /// Bytes that no ingest holds at the moment.
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64 * BUDGET_UNIT
    }

    /// Waits for `bytes`. What asks for more than there is in all gets all of it, and runs alone.
    ///
    /// # Errors
    ///
    /// Only if it is cancelled meanwhile.
    pub async fn hold(&self, bytes: u64, cancel: &CancellationToken) -> Result<Held, IngestError> {
        let units = units(bytes).min(self.units);
        match cancel.run_until_cancelled(self.free.clone().acquire_many_owned(units)).await {
            Some(Ok(permit)) => Ok(Held(permit)),
            // Nobody closes it.
            Some(Err(_)) | None => Err(IngestError::Cancelled),
        }
    }
}

/// What an ingest holds of a budget, until it is dropped.
#[derive(Debug)]
pub struct Held(OwnedSemaphorePermit);

impl Held {
    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(surplus));
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn what_is_not_needed_goes_to_the_next() {
        let (budget, never) = (MemoryBudget::new(100 * MIB), CancellationToken::new());
        let mut first = budget.hold(80 * MIB, &never).await.unwrap();
        assert_eq!(budget.free(), 20 * MIB);
        let shared = budget.clone();
        let second = tokio::spawn(async move { shared.hold(50 * MIB, &CancellationToken::new()).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        first.shrink_to(10 * MIB + 1);
        let second = second.await.unwrap().unwrap();
        assert_eq!(budget.free(), 39 * MIB);
        first.shrink_to(90 * MIB);
        assert_eq!(budget.free(), 39 * MIB, "more than it holds it does not get");
        drop((first, second));
        assert_eq!(budget.free(), budget.total());
    }

    #[tokio::test]
    async fn the_largest_runs_alone_and_who_waits_can_be_cancelled() {
        let (budget, cancel) = (MemoryBudget::new(10 * MIB), CancellationToken::new());
        let all = budget.hold(u64::MAX, &cancel).await.unwrap();
        assert_eq!(budget.free(), 0);
        cancel.cancel();
        assert!(matches!(budget.hold(1, &cancel).await, Err(IngestError::Cancelled)));
        drop(all);
        assert_eq!(budget.free(), 10 * MIB);
    }
}
