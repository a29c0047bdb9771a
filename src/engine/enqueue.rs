//! How jobs enter the schedule: new jobs, and jobs that continue after an exchange.

use super::job::Job;
use super::state::{State, Transaction};
use crate::error::ErrorKind;
use crate::retry::{FinalRoundState, HopDecision, NextStep};
use crate::schedule::{BatchId, Slot, Time};

impl Transaction<'_> {
    /// Queues new jobs of a batch. If the batch's runtime has ended, the jobs are cancelled.
    pub(super) fn push_jobs(&mut self, batch: BatchId, jobs: impl IntoIterator<Item = Box<Job>>) {
        let now = self.now();
        let engine = self.engine();
        let has_runtime = self.state().runtime_of_batch(batch).is_some();
        for mut job in jobs {
            job.queued_at = now;
            match job.hop_lane() {
                Some(lane) if has_runtime => {
                    let token_cell = job.token_cell().cloned();
                    let limits = || engine.lane_limits_with_scout_timeout(&lane);
                    self.schedule_mut()
                        .push(batch, lane.route_key(), limits, job, now);
                    self.hold_lane_unless_token_valid(token_cell.as_ref(), lane.lane_key(), batch);
                }
                _ => self.deliver_job(job, ErrorKind::Cancelled),
            }
        }
    }

    /// Applies the decision after a hop: requeues or delivers the job, and settles (returns) its
    /// slot.
    #[inline]
    pub(super) fn apply_hop_decision_and_settle(
        &mut self,
        slot: Slot,
        job: Box<Job>,
        decision: HopDecision,
    ) {
        let now = self.now();
        if let Some(pause) = decision.host_pause {
            self.schedule_mut().pause_lane(&slot, now + pause);
        }
        if let Err(job) = self.requeue_for_next_step(&slot, job, decision.next_step, now) {
            // A job that ends between two hops has no result yet.
            self.deliver_job_with_reason_fn(job, State::error_kind_of_unstartable_job);
        }
        self.schedule_mut().settle(slot);
    }

    /// # Errors
    ///
    /// Returns the job if the job ends instead of being requeued.
    fn requeue_for_next_step(
        &mut self,
        slot: &Slot,
        mut job: Box<Job>,
        next: NextStep,
        now: Time,
    ) -> Result<(), Box<Job>> {
        // The batch's runtime may have ended while the job's worker was still running.
        if next == NextStep::Deliver || self.state().runtime_of_batch(slot.batch_id()).is_none() {
            return Err(job);
        }
        job.queued_at = now;
        match next {
            NextStep::Retry(backoff) => {
                self.schedule_mut().requeue(slot, job, now + backoff, now)?;
                self.increment_retry_count(slot.batch_id());
            }
            NextStep::FinalRound => {
                job.final_round_state = FinalRoundState::InFinalRound;
                self.schedule_mut()
                    .requeue_for_final_round(slot, job, now)?;
                self.increment_retry_count(slot.batch_id());
            }
            NextStep::NextHop => self.requeue_for_next_hop(slot, job, now)?,
            NextStep::RenewToken => self.requeue_after_401(slot, job, now)?,
            NextStep::Deliver => {}
        }
        Ok(())
    }

    /// Queues the next hop of a job. A hop to another host is queued under the limits of that host.
    ///
    /// # Errors
    ///
    /// Returns the job if its batch has ended.
    fn requeue_for_next_hop(
        &mut self,
        slot: &Slot,
        job: Box<Job>,
        now: Time,
    ) -> Result<(), Box<Job>> {
        let Some(lane) = job.hop_lane() else {
            return Err(job);
        };
        let engine = self.engine();
        let token_cell = job.token_cell().cloned();
        let limits = || engine.lane_limits_with_scout_timeout(&lane);
        self.schedule_mut()
            .requeue_on_route(slot, lane.route_key(), limits, job, now)?;
        self.hold_lane_unless_token_valid(token_cell.as_ref(), lane.lane_key(), slot.batch_id());
        Ok(())
    }

    fn increment_retry_count(&mut self, batch: BatchId) {
        if let Some(batch) = self.batch_mut(batch) {
            batch.result_counts.retries += 1;
        }
    }
}
