//! Sending a request again after a 401, with a new token.

use std::sync::Arc;

use http::StatusCode;

use crate::engine::job::Job;
use crate::engine::state::Transaction;
use crate::response::Response;
use crate::schedule::{Slot, Time};
use crate::timings::Timings;

impl Job {
    /// Whether a 401 would lead to another hop, provided that the request body can be sent again.
    pub(in crate::engine) fn can_reauthorize(&self) -> bool {
        let hop = self.hop_state.as_ref();
        hop.is_some_and(|hop| hop.token.is_some() && !hop.is_reauthorized)
    }

    /// Moves the job to another hop of the same attempt if `response` is the first 401 to its
    /// token.
    pub(in crate::engine) fn try_reauthorize(
        &mut self,
        response: &Response,
        timings: Timings,
    ) -> bool {
        let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
        if !is_unauthorized || !self.can_reauthorize() || self.hop_request().body().is_consumed() {
            return false;
        }
        if let Some(hop) = &mut self.hop_state {
            hop.is_reauthorized = true;
            hop.timings += timings;
        }
        true
    }
}

impl Transaction<'_> {
    /// Queues a job whose token was refused, and starts a refresh unless the token was replaced
    /// since.
    ///
    /// # Errors
    ///
    /// The job, if its batch has ended.
    pub(in crate::engine) fn requeue_after_401(
        &mut self,
        slot: &Slot,
        job: Box<Job>,
        now: Time,
    ) -> Result<(), Box<Job>> {
        let cell = job.token_cell().cloned();
        if let (Some(cell), Some(refused)) = (&cell, job.token()) {
            let mut state = cell.lock();
            let is_current = |token: &Arc<_>| Arc::ptr_eq(token, refused);
            if state.token.as_ref().is_some_and(is_current) {
                state.is_valid = false;
            }
        }
        let lane = job.lane();
        self.schedule_mut().requeue(slot, job, now, now)?;
        if let Some(lane) = lane {
            self.ensure_token(cell.as_ref(), lane.key(), slot.batch());
        }
        Ok(())
    }
}
