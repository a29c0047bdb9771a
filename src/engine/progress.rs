//! Progress of a batch and of the whole engine.

use std::sync::PoisonError;

use super::Engine;
use super::control::{BatchControl, ControlState};
use super::result_counts::ResultCounts;
use super::state::State;
use super::throughput::Throughput;
use crate::progress::{
    BudgetLevel, BudgetScope, HostProgress, Progress, Snapshot, WaitReason, Waiting,
};
use crate::schedule::{self, BatchId, BlockReason, LaneLoad, ScheduleStats, Time};

impl Engine {
    /// Progress of an open batch. `delivered` is the number of results that the consumer has taken.
    fn batch_progress(
        &self,
        batch: BatchId,
        throughput: &mut Throughput,
        delivered: usize,
    ) -> Progress {
        let (now, counts, inputs_pulled, stats, budgets) = self.read_state(|state| {
            let now = self.now();
            let (mut counts, inputs_pulled) = match state.batch(batch) {
                Some(batch) => (batch.result_counts, batch.pulled_input_count()),
                None => Default::default(),
            };
            counts.body_bytes += state.body_bytes_in_flight(Some(batch));
            let stats = state.schedule().batch_stats(batch, now);
            let budgets = state.budget_levels_for_batch(batch, now);
            (now, counts, inputs_pulled, stats, budgets)
        });
        let undelivered_results = counts.completed().saturating_sub(delivered);
        build_progress(
            throughput,
            now,
            counts,
            inputs_pulled,
            undelivered_results,
            stats,
        )
        .with_budgets(budgets)
    }

    /// Progress of all batches and single fetches.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut throughput = self
            .throughput
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (now, totals, stats, budgets) = self.read_state(|state| {
            let now = self.now();
            let schedule = state.schedule();
            let (stats, budgets) = (schedule.overall_stats(now), schedule.budget_levels(now));
            (now, state.totals(), stats, budgets)
        });
        let counts = totals.result_counts;
        let inputs_pulled = counts.completed() + stats.in_flight_count + stats.total_queued_count();
        let undelivered_results = totals.undelivered_count;
        let progress = build_progress(
            &mut throughput,
            now,
            counts,
            inputs_pulled,
            undelivered_results,
            stats,
        )
        .with_budgets(budgets.into_iter().map(budget_level).collect());
        let (open, idle) = self.transport.open_and_idle_connection_counts();
        Snapshot::new(progress, totals.open_batch_count, open, idle)
    }
}

/// Totals over all batches and single fetches.
struct Totals {
    result_counts: ResultCounts,
    /// Number of results that consumers have not taken.
    undelivered_count: usize,
    /// Number of open batches, not counting the batches of single fetches.
    open_batch_count: usize,
}

impl State {
    pub(super) fn batch_result_counts(&self, batch: BatchId) -> ResultCounts {
        self.batch(batch)
            .map_or_else(ResultCounts::default, |batch| batch.result_counts)
    }

    /// The budgets that apply to a batch: its own, those of the sibling and the Fetcher, and those
    /// of all hosts.
    pub(super) fn budget_levels_for_batch(&self, batch: BatchId, now: Time) -> Vec<BudgetLevel> {
        let tenant = self.schedule().tenant_of_batch(batch);
        let applies = |scope: &schedule::BudgetScope| match scope {
            schedule::BudgetScope::Tenant(other) => Some(*other) == tenant,
            schedule::BudgetScope::Batch(other) => *other == batch,
            schedule::BudgetScope::Overall | schedule::BudgetScope::Lane(_) => true,
        };
        let levels = self.schedule().budget_levels(now).into_iter();
        levels
            .filter(|level| applies(&level.scope))
            .map(budget_level)
            .collect()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            result_counts: self.ended_batch_result_counts(),
            undelivered_count: 0,
            open_batch_count: 0,
        };
        for batch in self.open_batches() {
            totals.result_counts += batch.result_counts;
            if let Some(delivered) = batch.delivered_result_count() {
                totals.undelivered_count +=
                    batch.result_counts.completed().saturating_sub(delivered);
                totals.open_batch_count += 1;
            }
        }
        totals.result_counts.body_bytes += self.body_bytes_in_flight(None);
        totals
    }
}

impl BatchControl {
    pub(crate) fn progress(&self) -> Progress {
        let engine = self.engine();
        let mut state = self.lock();
        let progress = match (&mut *state, &engine) {
            (ControlState::Ended(progress), _) => progress.clone(),
            (ControlState::Open { batch, throughput }, Some(engine)) => {
                engine.batch_progress(*batch, throughput, self.delivered_result_count())
            }
            (ControlState::BeforeOpen(_) | ControlState::Open { .. }, _) => Progress::default(),
        };
        progress.with_total_inputs(self.total_request_count())
    }
}

impl ControlState {
    /// Ends the batch, and keeps its final progress.
    pub(super) fn end_batch_and_keep_progress(
        &mut self,
        counts: ResultCounts,
        budgets: Vec<BudgetLevel>,
        now: Time,
    ) {
        if let Self::Open { throughput, .. } = self {
            let progress = final_progress(throughput, now, counts).with_budgets(budgets);
            *self = Self::Ended(progress);
        }
    }
}

/// Progress of a batch that has ended.
fn final_progress(throughput: &Throughput, now: Time, counts: ResultCounts) -> Progress {
    let mut whole_run = Throughput::starting_at(throughput.started_at());
    let stats = ScheduleStats::default();
    build_progress(&mut whole_run, now, counts, counts.completed(), 0, stats).into_ended()
}

fn build_progress(
    throughput: &mut Throughput,
    now: Time,
    counts: ResultCounts,
    inputs_pulled: usize,
    undelivered_results: usize,
    stats: ScheduleStats,
) -> Progress {
    Progress {
        total_inputs: None,
        inputs_pulled,
        succeeded: counts.succeeded,
        failed: counts.failed,
        in_flight: stats.in_flight_count,
        waiting_counts: Waiting {
            waiting_for_concurrency: stats.queued_count_for_reason(BlockReason::Concurrency),
            waiting_for_rate: stats.queued_count_for_reason(BlockReason::Rate),
            waiting_for_budget: stats.queued_count_for_reason(BlockReason::Budget),
            waiting_for_backoff: stats.queued_count_for_reason(BlockReason::Backoff),
            waiting_for_breaker: stats.queued_count_for_reason(BlockReason::Breaker),
            waiting_for_token: stats.queued_count_for_reason(BlockReason::LaneHeld),
            waiting_while_paused: stats.queued_count_for_reason(BlockReason::BatchPaused),
            undelivered_results,
        },
        retries: counts.retries,
        body_bytes: counts.body_bytes,
        elapsed: throughput.elapsed(now),
        completed_per_second: throughput.completed_per_second(now, counts.completed()),
        busiest_hosts: stats.busiest_lanes.into_iter().map(host_progress).collect(),
        budgets: Vec::new(),
        has_ended: false,
    }
}

fn host_progress(load: LaneLoad) -> HostProgress {
    HostProgress {
        host: load.lane_key,
        waiting: load.queued_count,
        in_flight: load.in_flight_count,
        blocking_budget: load.blocking_budget,
        wait_reason: match load.block_reason {
            BlockReason::Concurrency => WaitReason::Concurrency,
            BlockReason::Rate => WaitReason::Rate,
            BlockReason::Backoff => WaitReason::Backoff,
            BlockReason::Breaker => WaitReason::Breaker,
            BlockReason::LaneHeld => WaitReason::Token,
            BlockReason::BatchPaused => WaitReason::Paused,
            BlockReason::Budget => WaitReason::Budget,
        },
    }
}

fn budget_level(level: schedule::BudgetLevel) -> BudgetLevel {
    let (scope, host) = match level.scope {
        schedule::BudgetScope::Overall => (BudgetScope::Fetcher, None),
        schedule::BudgetScope::Tenant(_) => (BudgetScope::Sibling, None),
        schedule::BudgetScope::Batch(_) => (BudgetScope::Batch, None),
        schedule::BudgetScope::Lane(host) => (BudgetScope::Host, Some(host)),
    };
    BudgetLevel {
        name: level.name,
        scope,
        host,
        level: level.level,
        capacity: level.capacity,
        waiting: level.waiting_job_count,
    }
}
