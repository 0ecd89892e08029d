//! The CPU pool, and the only bridge between it and the async runtime.

use std::sync::Arc;

use crate::ConvertError;

/// Threads for decoding, hashing and local I/O. Cheap to clone; the threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Workers {
    pool: Arc<rayon::ThreadPool>,
}

impl Workers {
    /// A pool of `jobs` threads; of as many as this process may use where `None`.
    ///
    /// # Errors
    ///
    /// If the system refuses to start the threads.
    pub fn new(jobs: Option<usize>) -> std::io::Result<Self> {
        // Affinity and the cgroup's CPU quota are respected by available_parallelism, the host's count is not asked for.
        let jobs = match jobs {
            Some(jobs) => jobs.max(1),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(jobs)
            .thread_name(|i| format!("worker-{i}"))
            // A panic is reported to whoever waits for the job (its answer is dropped), so it need not end the process.
            .panic_handler(|_| {})
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// How many jobs run at a time.
    pub fn jobs(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs a job on a worker. Dropping the future does not stop a job that has begun.
    ///
    /// # Errors
    ///
    /// [`ConvertError::Panicked`] if the job panics.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ConvertError> {
        let (answer, result) = tokio::sync::oneshot::channel();
        self.pool.spawn(move || {
            // Nobody waits any more if the future was dropped.
            let _ = answer.send(job());
        });
        result.await.map_err(|_| ConvertError::Panicked)
    }
}

impl Default for Workers {
    /// As many workers as this process may use.
    ///
    /// # Panics
    ///
    /// If the system refuses to start threads; [`Workers::new`] reports that instead.
    fn default() -> Self {
        match Self::new(None) {
            Ok(workers) => workers,
            Err(error) => panic!("cannot start worker threads: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_reaches_whoever_waits() {
        let workers = Workers::new(Some(1)).unwrap();
        let failed: Result<(), _> = workers.run(|| panic!("for the test")).await;
        assert!(matches!(failed, Err(ConvertError::Panicked)));
        assert_eq!(workers.run(|| 7).await.unwrap(), 7);
    }
}
