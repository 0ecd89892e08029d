//! Admission of parts to memory, in order.
//!
//! The budget for a part is acquired *before* its future exists, and parts are admitted one after the other: with permits taken
//! inside concurrent futures, a sink that wants parts in order could wait for one that waits for memory.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::ConvertError;

/// The budget is counted in pages of this size, so that 32 bits of permits cover any memory.
pub(crate) const PAGE: u64 = 4096;

/// Parts in flight within a budget.
pub(crate) struct Admission {
    budget: Arc<Semaphore>,
    pages: u32,
    in_flight: usize,
    cancel: CancellationToken,
    /// Cancelled with `cancel`, and when a part fails: tells the other parts to end.
    stop: CancellationToken,
    tasks: JoinSet<Result<(), ConvertError>>,
}

/// The right to hold a part in memory.
pub(crate) struct Admitted {
    permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Admits up to `in_flight` parts that together cost up to `memory` bytes.
    pub(crate) fn new(memory: u64, in_flight: usize, cancel: &CancellationToken) -> Self {
        let pages = u32::try_from(memory / PAGE).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        Self {
            budget: Arc::new(Semaphore::new(pages as usize)),
            pages,
            in_flight: in_flight.max(1),
            cancel: cancel.clone(),
            stop: cancel.child_token(),
            tasks: JoinSet::new(),
        }
    }

    /// Tells a part to end early.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until `cost` bytes are free and fewer parts than allowed are in flight. A part that costs more than the whole budget is
    /// admitted alone.
    pub(crate) async fn admit(&mut self, cost: u64) -> Result<Admitted, ConvertError> {
        let pages = u32::try_from(cost.div_ceil(PAGE)).unwrap_or(u32::MAX).min(self.pages);
        loop {
            let room = self.tasks.len() < self.in_flight;
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(ConvertError::Cancelled),
                Some(ended) = self.tasks.join_next() => flatten(ended)?,
                permit = self.budget.clone().acquire_many_owned(pages), if room => {
                    // Only a closed semaphore fails, and nobody closes it.
                    return permit.map(|permit| Admitted { permit }).map_err(|_| ConvertError::Cancelled);
                }
            }
        }
    }

    /// Starts an admitted part; its memory is free again when it ends.
    pub(crate) fn spawn(
        &mut self,
        Admitted { permit }: Admitted,
        part: impl Future<Output = Result<(), ConvertError>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            let result = part.await;
            drop(permit);
            result
        });
    }

    /// Starts an admitted part whose result goes on holding its memory, until whoever takes it drops both.
    ///
    /// No answer comes from a part that fails: [`Admission::finish`] has its error.
    pub(crate) fn hand_on<T: Send + 'static>(
        &mut self,
        admitted: Admitted,
        part: impl Future<Output = Result<T, ConvertError>> + Send + 'static,
    ) -> oneshot::Receiver<(T, Admitted)> {
        let (give, take) = oneshot::channel();
        self.tasks.spawn(async move {
            let result = part.await?;
            // Nobody waits any more if what comes after has failed.
            let _ = give.send((result, admitted));
            Ok(())
        });
        take
    }

    /// Waits for all parts, and tells them to end if `so_far` or one of them has failed. The first failure is the result.
    pub(crate) async fn finish(mut self, so_far: Result<(), ConvertError>) -> Result<(), ConvertError> {
        let mut result = so_far;
        loop {
            if result.is_err() {
                self.stop.cancel();
            }
            let Some(ended) = self.tasks.join_next().await else { break };
            result = result.and(flatten(ended));
        }
        result
    }
}

fn flatten(ended: Result<Result<(), ConvertError>, JoinError>) -> Result<(), ConvertError> {
    ended.unwrap_or(Err(ConvertError::Panicked))
}
