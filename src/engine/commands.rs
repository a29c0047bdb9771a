//! Applies the commands that a batch receives through its handles. A command takes effect under the
//! engine's lock, or when the batch opens (at its first poll) if the command came earlier.

use super::batch_state::BatchState;
use super::control::{BatchCommand, BatchControl, ControlState};
use super::state::Transaction;
use super::throughput::Throughput;
use crate::error::ErrorKind;
use crate::schedule::{BatchId, GcraRate};

impl BatchControl {
    /// Applies a command, or keeps the command until the batch opens. After the end of the batch, a
    /// command does nothing.
    pub(crate) fn apply_or_keep_command(&self, command: BatchCommand) {
        let Some(engine) = self.engine() else {
            return;
        };
        let _effects = {
            let mut state = self.lock();
            self.record_command_for_consumer(&command);
            match &mut *state {
                ControlState::BeforeOpen(commands) => {
                    commands.push(command);
                    None
                }
                ControlState::Open { batch, .. } => {
                    let apply = |tx: &mut Transaction<'_>| tx.apply_command(*batch, &command);
                    let ((), effects) = engine.update_deferring_effects(apply);
                    Some(effects)
                }
                ControlState::Ended(_) => None,
            }
        };
    }
}

impl ControlState {
    /// Opens the batch, and applies the commands that were kept until then.
    pub(super) fn open_and_apply_kept_commands(
        &mut self,
        tx: &mut Transaction<'_>,
        batch: BatchId,
    ) {
        let throughput = Throughput::starting_at(tx.now());
        if let Self::BeforeOpen(commands) =
            std::mem::replace(self, Self::Open { batch, throughput })
        {
            for command in &commands {
                tx.apply_command(batch, command);
            }
        }
    }
}

impl Transaction<'_> {
    fn apply_command(&mut self, batch: BatchId, command: &BatchCommand) {
        match command {
            BatchCommand::Pause => self.schedule_mut().hold_batch(batch),
            BatchCommand::Resume => self.schedule_mut().release_batch(batch),
            BatchCommand::SetConcurrency(limit) => {
                self.schedule_mut().set_batch_concurrency(batch, *limit);
            }
            BatchCommand::SetRate(rate) => {
                let rate = rate.map(GcraRate::from);
                self.schedule_mut().set_batch_rate(batch, rate);
            }
            BatchCommand::Drain => self.close_batch_and_cancel_queued(batch),
            BatchCommand::Cancel => {
                self.close_batch_and_cancel_queued(batch);
                self.cancel_jobs_in_flight(batch, None);
            }
            BatchCommand::CancelHost(lane) => {
                for job in self
                    .schedule_mut()
                    .close_lane_of_batch_and_take_queued_jobs(batch, lane)
                {
                    self.deliver_job(job, ErrorKind::Cancelled);
                }
                if let Some(lane) = self.state().schedule().find_lane_id(lane) {
                    self.cancel_jobs_in_flight(batch, Some(lane));
                }
            }
        }
        // A command may change whether the consumer pulls inputs, so the consumer is woken.
        let waker = self
            .batch_mut(batch)
            .and_then(BatchState::take_consumer_waker);
        self.defer_wake(waker);
    }

    /// Cancels all queued jobs of a batch. The batch accepts no more jobs.
    fn close_batch_and_cancel_queued(&mut self, batch: BatchId) {
        for job in self.schedule_mut().close_batch_and_take_queued_jobs(batch) {
            self.deliver_job(job, ErrorKind::Cancelled);
        }
    }
}
