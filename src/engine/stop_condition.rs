//! The condition of [`Batch::stop_when`](crate::Batch::stop_when), which drains a batch.

use std::sync::{Arc, Weak};

use super::control::{BatchCommand, BatchControl};
use super::job::Job;
use crate::error::{Error, ErrorKind, Result, catch_user_panic};
use crate::response::Response;

type StopWhenFn = dyn Fn(&Result<Response>) -> bool + Send + Sync;

/// Decides after each result of a batch whether the batch is drained.
#[derive(Clone)]
pub(crate) struct StopCondition {
    stop_when: Arc<StopWhenFn>,
    /// Dangling until the batch starts.
    control: Weak<BatchControl>,
}

impl StopCondition {
    pub(crate) fn new(
        stop_when: impl Fn(&Result<Response>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            stop_when: Arc::new(stop_when),
            control: Weak::new(),
        }
    }

    pub(crate) fn for_batch(&self, control: &Arc<BatchControl>) -> Self {
        Self {
            stop_when: Arc::clone(&self.stop_when),
            control: Arc::downgrade(control),
        }
    }
}

impl Job {
    /// Drains the job's batch if the stop condition of the batch is true for the result of this
    /// job, which has ended. The caller must hold no lock, because the user's function runs. A
    /// panic of that function becomes the result.
    ///
    /// The function is called once per result, and not for requests that were ended by the end of
    /// their batch.
    pub(crate) fn apply_stop_condition(&mut self) {
        let Some(condition) = self.options.stop_condition.clone() else {
            return;
        };
        if std::mem::replace(&mut self.is_stop_condition_applied, true) {
            return;
        }
        self.complete_result_with_history(|_| ErrorKind::Cancelled);
        let Some(result) = &mut self.result else {
            return;
        };
        let kind = result.as_ref().err().map(Error::kind);
        if matches!(kind, Some(ErrorKind::Cancelled | ErrorKind::Deadline)) {
            return;
        }
        match catch_user_panic("in `stop_when`", || (condition.stop_when)(result)) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(control) = condition.control.upgrade() {
                    control.apply_or_keep_command(BatchCommand::Drain);
                }
            }
            Err(mut panicked) => {
                panicked.set_url(self.hop_request().url_or_text().clone());
                panicked.set_maybe_sent(self.maybe_sent);
                if let Some(Ok(response)) = self.result.take() {
                    panicked.set_response(response);
                }
                self.result = Some(Err(panicked));
            }
        }
    }
}
