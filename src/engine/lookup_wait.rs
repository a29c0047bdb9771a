//! Requeues a job whose name lookup has to wait for a permit, so that the job holds no slot while
//! it waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Engine;
use super::job::Job;
use super::state::{EngineTask, Transaction};
use crate::schedule::{CostOutcome, Slot};
use crate::wire::PendingLookup;

/// A task that waits for a lookup permit, since the number of concurrent DNS lookups is limited.
///
/// Until the permit is granted, no job of the lane may start. Dropping the task lets the jobs
/// start.
pub(super) struct LookupPermitWait {
    engine: Arc<Engine>,
    lane_key: Box<str>,
    permit_future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl LookupPermitWait {
    pub(super) async fn run(mut self) {
        self.permit_future.as_mut().await;
    }
}

/// Lets the jobs of the lane start again. `drop` does this, so that it also happens if the runtime
/// shuts down and drops the task.
impl Drop for LookupPermitWait {
    fn drop(&mut self) {
        let lane_key = &self.lane_key;
        self.engine
            .update(|tx| tx.schedule_mut().release_lane_for_name_lookup(lane_key));
    }
}

impl Transaction<'_> {
    /// Requeues a started job whose name lookup has to wait for a permit, and settles (returns) the
    /// job's slot. This start of the job counts against no rate, and costs nothing of any budget.
    pub(super) fn requeue_until_lookup_permit(
        &mut self,
        mut slot: Slot,
        mut job: Box<Job>,
        lookup: PendingLookup,
    ) {
        let now = self.now();
        let lane_key: Box<str> = job.lane_key().unwrap_or_default().into();
        let permit_future = Box::pin(lookup.wait_for_permit_or_end());
        job.pending_lookup = Some(Box::new(lookup));
        let runtime = self.state().runtime_of_batch(slot.batch_id());
        let handle = runtime.map(|(_, handle)| handle.clone());
        let schedule = self.schedule_mut();
        schedule.undo_unsent_start(&mut slot);
        schedule.settle_costs(&slot, &CostOutcome::Unsent, now);
        let requeued = match handle {
            Some(handle) => schedule.requeue(&slot, job, now, now).map(|()| handle),
            None => Err(job),
        };
        match requeued {
            Ok(handle) => {
                if schedule.hold_lane_for_name_lookup(&lane_key) {
                    let wait = LookupPermitWait {
                        engine: Arc::clone(self.engine()),
                        lane_key,
                        permit_future,
                    };
                    self.defer_spawn(handle, EngineTask::LookupPermitWait(wait));
                }
            }
            Err(job) => {
                let reason = self.state().error_kind_of_unstartable_job(&job);
                self.deliver_job(job, reason);
            }
        }
        self.schedule_mut().settle(slot);
    }
}
