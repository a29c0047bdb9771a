//! How far things have come: what is counted as it happens, and what is counted when somebody asks.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Engine, Job, State};
use crate::progress::{HostProgress, Progress, Snapshot, WaitReason, Waiting};
use crate::schedule::{BatchId, BlockReason, LaneLoad, ScheduleStats, Time};

/// What has come of a batch so far.
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

    pub(super) fn record(&mut self, job: &Job) {
        match job.bytes() {
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

/// How much was done at some instants in the recent past, taken down when somebody asks.
#[derive(Debug)]
pub(super) struct Throughput {
    started_at: Time,
    /// The first is at least as old as the window, or the beginning.
    samples: VecDeque<(Time, usize)>,
}

impl Throughput {
    const WINDOW: u64 = 10_000_000_000;
    /// No two are closer than this.
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

    /// How many a second were done lately.
    fn per_second(&mut self, now: Time, done: usize) -> f64 {
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.nanos_since(*at) >= Self::WINDOW)
        {
            self.samples.pop_front();
        }
        let (from, previous) = self
            .samples
            .front()
            .copied()
            .unwrap_or((self.started_at, 0));
        let is_due = |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::SAMPLE_INTERVAL;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back((now, done));
        }
        match now.nanos_since(from) {
            0 => 0.0,
            nanos => done.saturating_sub(previous) as f64 * 1e9 / nanos as f64,
        }
    }
}

impl Engine {
    /// How far a batch has come whose reader has let go of so many results.
    pub(super) fn progress_of(
        &self,
        batch: BatchId,
        throughput: &mut Throughput,
        delivered: usize,
    ) -> Progress {
        let (now, counts, inputs_pulled, stats) = {
            let state = self.lock();
            let now = self.now();
            let (counts, inputs_pulled) = state.batch_counts(batch);
            (
                now,
                counts,
                inputs_pulled,
                state.schedule.batch_stats(batch, now),
            )
        };
        let undelivered = counts.completed().saturating_sub(delivered);
        build_progress(throughput, now, counts, inputs_pulled, undelivered, stats)
    }

    /// How far everything has come.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut throughput = self
            .throughput
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (now, counts, undelivered, batches, stats) = {
            let state = self.lock();
            let now = self.now();
            let (counts, undelivered, batches) = state.total_counts();
            (now, counts, undelivered, batches, state.schedule.stats(now))
        };
        let inputs_pulled = counts.completed() + stats.in_flight + stats.total_queued();
        let work = build_progress(
            &mut throughput,
            now,
            counts,
            inputs_pulled,
            undelivered,
            stats,
        );
        let (open, idle) = self.transport.connection_counts();
        Snapshot::new(work, batches, open, idle)
    }
}

impl State {
    /// What has come of a batch, and how many inputs it has taken.
    pub(super) fn batch_counts(&self, batch: BatchId) -> (ResultCounts, usize) {
        let counts_and_pulled = |batch_state: &super::BatchState| {
            (
                batch_state.counts,
                batch_state.counts.completed() + batch_state.unfinished(),
            )
        };
        self.batch_state(batch)
            .map_or_else(Default::default, counts_and_pulled)
    }

    /// What has come of everything, how many results wait for their readers, and how many batches are open.
    fn total_counts(&self) -> (ResultCounts, usize, usize) {
        let mut counts = self.finished_counts;
        let (mut undelivered, mut batches) = (0, 0);
        for batch_state in self.batches.iter().flatten() {
            counts += batch_state.counts;
            if let Some(delivered) = batch_state.delivered() {
                undelivered += batch_state.counts.completed().saturating_sub(delivered);
                batches += 1;
            }
        }
        (counts, undelivered, batches)
    }
}

/// What a batch came to that is over.
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
        completed_per_second: throughput.per_second(now, counts.completed()),
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
