//! The condition of [`Batch::stop_when`](crate::Batch::stop_when), which drains a batch.

use std::sync::{Arc, Weak};

use super::control::{BatchCommand, BatchControl};
use super::job::Job;
use crate::error::{Error, ErrorKind, Result, catch_user_panic, replace_outcome_by_panic};
use crate::response::Response;

type StopWhenFn = dyn Fn(&Result<Response>) -> bool + Send + Sync;

/// Decides after each result of a batch whether the batch is drained.
#[derive(Clone)]
pub(crate) struct StopCondition {
    stop_when_fn: Arc<StopWhenFn>,
    /// The control of the batch to drain; dangling until the batch starts.
    batch_control: Weak<BatchControl>,
}

impl StopCondition {
    pub(crate) fn new(
        stop_when: impl Fn(&Result<Response>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            stop_when_fn: Arc::new(stop_when),
            batch_control: Weak::new(),
        }
    }

    pub(crate) fn with_batch_control(&self, control: &Arc<BatchControl>) -> Self {
        Self {
            stop_when_fn: Arc::clone(&self.stop_when_fn),
            batch_control: Arc::downgrade(control),
        }
    }
}

impl Job {
    /// Drains the job's batch if the stop condition of the batch is true for the result of this
    /// job, which has ended. The caller must hold no lock, because the user's function runs. A
    /// panic of that function becomes the result.
    ///
    /// The function is called once per result, but not for a request that ended because its batch
    /// was cancelled, drained or past its deadline.
    pub(crate) fn drain_batch_if_stop_condition_met(&mut self) {
        let Some(condition) = self.options.stop_condition.clone() else {
            return;
        };
        if std::mem::replace(&mut self.is_stop_condition_applied, true) {
            return;
        }
        self.complete_result_with_history(|_| ErrorKind::Cancelled);
        let Some(result) = &self.result else {
            return;
        };
        let kind = result.as_ref().err().map(Error::kind);
        if matches!(kind, Some(ErrorKind::Cancelled | ErrorKind::Deadline)) {
            return;
        }
        match catch_user_panic("in `stop_when`", || (condition.stop_when_fn)(result)) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(control) = condition.batch_control.upgrade() {
                    control.apply_or_keep_command(BatchCommand::Drain);
                }
            }
            Err(mut panicked) => {
                panicked.set_url(self.hop_request().url_or_invalid_text().clone());
                panicked.set_maybe_sent(self.maybe_sent);
                if let Some(result) = &mut self.result {
                    replace_outcome_by_panic(result, panicked);
                }
            }
        }
    }
}
