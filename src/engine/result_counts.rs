//! The number of results of a batch.

use std::ops::AddAssign;

use super::job::Job;

/// Numbers of results by outcome, with the retries and body bytes of one or more batches.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct ResultCounts {
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) retries: usize,
    pub(super) body_bytes: u64,
}

impl ResultCounts {
    pub(super) fn completed(&self) -> usize {
        self.succeeded + self.failed
    }

    pub(super) fn record_result(&mut self, job: &Job) {
        match job.response_body_len() {
            Some(bytes) => {
                self.succeeded += 1;
                self.body_bytes += bytes;
            }
            None => self.failed += 1,
        }
    }
}

impl AddAssign for ResultCounts {
    fn add_assign(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.retries += other.retries;
        self.body_bytes += other.body_bytes;
    }
}
