//! Progress of a batch and of the whole engine.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::PoisonError;
use std::time::Duration;

use super::Engine;
use super::job::Job;
use super::state::State;
use crate::progress::{HostProgress, Progress, Snapshot, WaitReason, Waiting};
use crate::schedule::{BatchId, BlockReason, LaneLoad, ScheduleStats, Time};

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
        match job.body_bytes() {
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

/// Measures how many requests completed per second recently. Each measurement may add a sample.
#[derive(Debug)]
pub(super) struct Throughput {
    started_at: Time,
    /// The instant of each sample, and the number of requests completed by that instant. The first
    /// sample is at least as old as the window, or was taken at the start.
    samples: VecDeque<(Time, usize)>,
}

impl Throughput {
    /// Length of the window over which throughput is measured, in nanoseconds.
    const MEASUREMENT_WINDOW: u64 = 10_000_000_000;
    /// Least time between two samples, in nanoseconds.
    const SAMPLE_INTERVAL: u64 = 1_000_000_000;

    pub(super) fn starting_at(now: Time) -> Self {
        Self {
            started_at: now,
            samples: [(now, 0)].into(),
        }
    }

    fn elapsed(&self, now: Time) -> Duration {
        Duration::from_nanos(now.nanos_since(self.started_at))
    }

    fn completed_per_second(&mut self, now: Time, completed: usize) -> f64 {
        let is_old = |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::MEASUREMENT_WINDOW;
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
        let oldest = self.samples.front().copied();
        let (from, completed_before) = oldest.unwrap_or((self.started_at, 0));
        let is_due = |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::SAMPLE_INTERVAL;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back((now, completed));
        }
        match now.nanos_since(from) {
            0 => 0.0,
            nanos => completed.saturating_sub(completed_before) as f64 * 1e9 / nanos as f64,
        }
    }
}

impl Engine {
    /// Progress of an open batch. `delivered` is the number of results that the consumer has taken.
    pub(super) fn batch_progress(
        &self,
        batch: BatchId,
        throughput: &mut Throughput,
        delivered: usize,
    ) -> Progress {
        let (now, counts, inputs_pulled, stats) = self.read_state(|state| {
            let now = self.now();
            let (counts, inputs_pulled) = match state.batch(batch) {
                Some(batch) => (batch.result_counts, batch.inputs_pulled()),
                None => Default::default(),
            };
            let stats = state.schedule().batch_stats(batch, now);
            (now, counts, inputs_pulled, stats)
        });
        let undelivered = counts.completed().saturating_sub(delivered);
        build_progress(throughput, now, counts, inputs_pulled, undelivered, stats)
    }

    /// Progress of all batches and single fetches.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut throughput = self
            .throughput
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (now, totals, stats) = self.read_state(|state| {
            let now = self.now();
            (now, state.totals(), state.schedule().stats(now))
        });
        let counts = totals.result_counts;
        let inputs_pulled = counts.completed() + stats.in_flight + stats.total_queued();
        let undelivered = totals.undelivered;
        let progress = build_progress(
            &mut throughput,
            now,
            counts,
            inputs_pulled,
            undelivered,
            stats,
        );
        let (open, idle) = self.transport.connection_counts();
        Snapshot::new(progress, totals.open_batches, open, idle)
    }
}

/// Totals over all batches and single fetches.
struct Totals {
    result_counts: ResultCounts,
    /// Number of results that consumers have not taken.
    undelivered: usize,
    /// Number of open batches, not counting the batches of single fetches.
    open_batches: usize,
}

impl State {
    pub(super) fn batch_counts(&self, batch: BatchId) -> ResultCounts {
        self.batch(batch)
            .map_or_else(ResultCounts::default, |batch| batch.result_counts)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            result_counts: self.ended_counts(),
            undelivered: 0,
            open_batches: 0,
        };
        for batch in self.open_batches() {
            totals.result_counts += batch.result_counts;
            if let Some(delivered) = batch.delivered_results() {
                totals.undelivered += batch.result_counts.completed().saturating_sub(delivered);
                totals.open_batches += 1;
            }
        }
        totals
    }
}

/// Progress of a batch that has ended.
pub(super) fn final_progress(throughput: &Throughput, now: Time, counts: ResultCounts) -> Progress {
    let mut whole_run = Throughput::starting_at(throughput.started_at);
    let stats = ScheduleStats::default();
    build_progress(&mut whole_run, now, counts, counts.completed(), 0, stats).into_ended()
}

fn build_progress(
    throughput: &mut Throughput,
    now: Time,
    counts: ResultCounts,
    inputs_pulled: usize,
    undelivered: usize,
    stats: ScheduleStats,
) -> Progress {
    Progress {
        total: None,
        inputs_pulled,
        succeeded: counts.succeeded,
        failed: counts.failed,
        in_flight: stats.in_flight,
        waiting: Waiting {
            concurrency: stats.queued_for(BlockReason::Concurrency),
            rate: stats.queued_for(BlockReason::Rate),
            backoff: stats.queued_for(BlockReason::Backoff),
            breaker: stats.queued_for(BlockReason::Breaker),
            token: stats.queued_for(BlockReason::LaneHeld),
            paused: stats.queued_for(BlockReason::BatchPaused),
            undelivered,
        },
        retries: counts.retries,
        body_bytes: counts.body_bytes,
        elapsed: throughput.elapsed(now),
        completed_per_second: throughput.completed_per_second(now, counts.completed()),
        busiest_hosts: stats.busiest_lanes.into_iter().map(host_progress).collect(),
        has_ended: false,
    }
}

fn host_progress(load: LaneLoad) -> HostProgress {
    HostProgress {
        host: load.lane,
        waiting: load.queued,
        in_flight: load.in_flight,
        wait_reason: match load.block_reason {
            BlockReason::Concurrency => WaitReason::Concurrency,
            BlockReason::Rate => WaitReason::Rate,
            BlockReason::Backoff => WaitReason::Backoff,
            BlockReason::Breaker => WaitReason::Breaker,
            BlockReason::LaneHeld => WaitReason::Token,
            BlockReason::BatchPaused => WaitReason::Paused,
        },
    }
}
