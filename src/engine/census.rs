//! How far things have come: what is counted as it happens, and what is counted when somebody asks.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Engine, Job, State};
use crate::progress::{HostProgress, Progress, Snapshot, WaitReason, Waiting};
use crate::schedule::{BatchId, Census, Load, Time, Why};

/// What has come of a batch so far.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) ok: usize,
    pub(super) failed: usize,
    pub(super) retries: usize,
    pub(super) bytes: u64,
}

impl Counts {
    pub(super) fn done(&self) -> usize {
        self.ok + self.failed
    }

    pub(super) fn add(&mut self, job: &Job) {
        match job.bytes() {
            Some(bytes) => {
                self.ok += 1;
                self.bytes += bytes;
            }
            None => self.failed += 1,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.retries += other.retries;
        self.bytes += other.bytes;
    }
}

/// How much was done at some instants in the recent past, taken down when somebody asks.
#[derive(Debug)]
pub(super) struct Recent {
    since: Time,
    /// The first is at least as old as the window, or the beginning.
    seen: VecDeque<(Time, usize)>,
}

impl Recent {
    const WINDOW: u64 = 10_000_000_000;
    /// No two are closer than this.
    const APART: u64 = 1_000_000_000;

    pub(super) fn since(now: Time) -> Self {
        Self {
            since: now,
            seen: [(now, 0)].into(),
        }
    }

    fn elapsed(&self, now: Time) -> Duration {
        Duration::from_nanos(now.nanos_since(self.since))
    }

    /// How many a second were done lately.
    fn per_second(&mut self, now: Time, done: usize) -> f64 {
        while self
            .seen
            .get(1)
            .is_some_and(|(at, _)| now.nanos_since(*at) >= Self::WINDOW)
        {
            self.seen.pop_front();
        }
        let (from, before) = self.seen.front().copied().unwrap_or((self.since, 0));
        let is_apart = |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::APART;
        if self.seen.back().is_none_or(is_apart) {
            self.seen.push_back((now, done));
        }
        match now.nanos_since(from) {
            0 => 0.0,
            nanos => done.saturating_sub(before) as f64 * 1e9 / nanos as f64,
        }
    }
}

impl Engine {
    /// How far a batch has come whose reader has let go of so many results.
    pub(super) fn progress_of(
        &self,
        batch: BatchId,
        recent: &mut Recent,
        given: usize,
    ) -> Progress {
        let (now, counts, taken, census) = {
            let state = self.lock();
            let now = self.now();
            let (counts, taken) = state.counts_of(batch);
            (now, counts, taken, state.schedule.census_of(batch, now))
        };
        let consumer = counts.done().saturating_sub(given);
        progress(recent, now, counts, taken, consumer, census)
    }

    /// How far everything has come.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, counts, consumer, batches, census) = {
            let state = self.lock();
            let now = self.now();
            let (counts, consumer, batches) = state.counts();
            (now, counts, consumer, batches, state.schedule.census(now))
        };
        let taken = counts.done() + census.in_flight + census.waiting();
        let work = progress(&mut recent, now, counts, taken, consumer, census);
        let (open, idle) = self.transport.connections();
        Snapshot::new(work, batches, open, idle)
    }
}

impl State {
    /// What has come of a batch, and how many inputs it has taken.
    pub(super) fn counts_of(&self, batch: BatchId) -> (Counts, usize) {
        let of = |outlet: &super::Outlet| (outlet.counts, outlet.counts.done() + outlet.open());
        self.outlet(batch).map_or_else(Default::default, of)
    }

    /// What has come of everything, how many results wait for their readers, and how many batches are open.
    fn counts(&self) -> (Counts, usize, usize) {
        let mut counts = self.past;
        let (mut consumer, mut batches) = (0, 0);
        for outlet in self.outlets.iter().flatten() {
            counts += outlet.counts;
            if let Some(given) = outlet.given() {
                consumer += outlet.counts.done().saturating_sub(given);
                batches += 1;
            }
        }
        (counts, consumer, batches)
    }
}

/// What a batch came to that is over.
pub(super) fn ended(recent: &Recent, now: Time, counts: Counts) -> Progress {
    let mut whole = Recent::since(recent.since);
    let census = Census::default();
    progress(&mut whole, now, counts, counts.done(), 0, census).ended()
}

fn progress(
    recent: &mut Recent,
    now: Time,
    counts: Counts,
    taken: usize,
    consumer: usize,
    census: Census,
) -> Progress {
    Progress {
        total: None,
        taken,
        ok: counts.ok,
        failed: counts.failed,
        in_flight: census.in_flight,
        waiting: Waiting {
            limit: census.waiting_for(Why::Limit),
            rate: census.waiting_for(Why::Rate),
            back_off: census.waiting_for(Why::BackOff),
            breaker: census.waiting_for(Why::Breaker),
            token: census.waiting_for(Why::Held),
            paused: census.waiting_for(Why::Paused),
            consumer,
        },
        retries: counts.retries,
        bytes: counts.bytes,
        elapsed: recent.elapsed(now),
        per_second: recent.per_second(now, counts.done()),
        hosts: census.longest.into_iter().map(host).collect(),
        has_ended: false,
    }
}

fn host(load: Load) -> HostProgress {
    HostProgress {
        host: load.lane,
        waiting: load.waiting,
        in_flight: load.in_flight,
        reason: match load.why {
            Why::Limit => WaitReason::Limit,
            Why::Rate => WaitReason::Rate,
            Why::BackOff => WaitReason::BackOff,
            Why::Breaker => WaitReason::Breaker,
            Why::Held => WaitReason::Token,
            Why::Paused => WaitReason::Paused,
        },
    }
}
