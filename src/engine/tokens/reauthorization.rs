//! Sends a request again with a new bearer token after a 401.

use std::sync::Arc;

use crate::engine::job::Job;
use crate::engine::state::Transaction;
use crate::schedule::{Slot, Time};

impl Job {
    /// Whether a 401 leads to another hop with a new token, provided that the request body can be
    /// sent again.
    pub(in crate::engine) fn can_reauthorize(&self) -> bool {
        let hop = self.hop_state.as_ref();
        hop.is_some_and(|hop| hop.token.is_some() && !hop.is_reauthorized)
    }
}

impl Transaction<'_> {
    /// Queues a job whose token was refused. The charge on its budgets pays for the repetition,
    /// too. Starts a token refresh unless the token was replaced after the request was sent.
    ///
    /// # Errors
    ///
    /// Returns the job if its batch has ended.
    pub(in crate::engine) fn requeue_after_401(
        &mut self,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
    ) -> Result<(), Box<Job>> {
        let cell = job.token_cell().cloned();
        if let (Some(cell), Some(refused)) = (&cell, job.hop_token()) {
            let mut state = cell.lock();
            let is_current = |token: &Arc<_>| Arc::ptr_eq(token, refused);
            if state.token.as_ref().is_some_and(is_current) {
                state.is_token_valid = false;
            }
        }
        let lane = job.hop_lane();
        job.carry_charge(self.schedule_mut().take_charge(slot));
        self.schedule_mut().requeue(slot, job, now, now)?;
        if let Some(lane) = lane {
            self.hold_lane_unless_token_valid(cell.as_ref(), lane.lane_key(), slot.batch_id());
        }
        Ok(())
    }
}
