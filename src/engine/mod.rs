//! The async shell around the schedule: workers, one timer a runtime, delivery.
//!
//! All shared state is under one lock. Whoever changes it (a push, a settle, a timer) also decides, before letting go of
//! the lock, everything that may start now: so no wake-up is lost, and nobody waits to be told that a slot is free. What
//! was decided is carried out after the lock is gone ([`Effects`]): tasks are spawned, readers woken, and what is to
//! be dropped is dropped. No code of the user's runs under the lock.

mod control;
mod hop;
mod host_health;
mod job;
mod limits;
mod open_batch;
mod policy;
mod progress;
mod runtimes;
mod single_fetch;
mod timeouts;
mod timer;
mod tokens;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

pub(crate) use crate::exchange::{BodyBudget, BodyHandler, Reservation, boxed_handler};
pub(crate) use control::{BatchControl, Command, ControlOwner};
pub(crate) use job::{Job, JobOptions};
pub(crate) use limits::{
    EngineLimits, LimitByFn, adaptive_gate_limits, breaker_config, budget_config, gate_limits,
};
pub(crate) use open_batch::{OpenBatch, WakeInterest};
pub(crate) use policy::RequestPolicy;
pub(crate) use single_fetch::SingleFetch;

use crate::ErrorKind;
use crate::exchange::Transport;
use crate::schedule::{BatchId, LaneId, LaneLimits, Schedule, Slot, StartDecision, Time};
use job::{JobLane, ResultSlot};
use limits::SCOUT_TIMEOUT;
use open_batch::BatchState;
use progress::{ResultCounts, Throughput};
use runtimes::Runtimes;
use timer::Timer;
pub(crate) use tokens::TokenCells;
use tokens::{BearerToken, Refresh};
use worker::{CancelFlag, Worker};

pub(crate) struct Engine {
    transport: Transport,
    pub(crate) limits: EngineLimits,
    epoch: Instant,
    state: Mutex<State>,
    /// How many jobs waited in the schedule when it was looked at last, for a look without the lock.
    queued_jobs: AtomicUsize,
    /// How much it did lately, for those who ask.
    throughput: Mutex<Throughput>,
}

struct State {
    schedule: Schedule<Box<Job>>,
    /// By the number of the batch.
    batches: Vec<Option<BatchState>>,
    /// What came of the batches that are over.
    finished_counts: ResultCounts,
    runtimes: Runtimes,
    active: Slab<ActiveJob>,
    /// The batches whose readers have more inputs, should a slot be idle for want of a host that may start.
    host_limit_waiters: Vec<BatchId>,
}

/// What a worker has in hand, so that it can be cancelled.
struct ActiveJob {
    cancel_flag: Arc<CancelFlag>,
    batch: BatchId,
    lane: LaneId,
    result_slot: Option<Arc<ResultSlot>>,
}

impl ActiveJob {
    fn set_job(&mut self, slot: &Slot, job: &Job, active_key: usize) {
        self.batch = slot.batch();
        self.lane = slot.lane_id();
        self.result_slot.clone_from(&job.result_slot);
        if let Some(result_slot) = &self.result_slot {
            result_slot.set_active_key(active_key);
        }
    }
}

/// What is carried out once the lock is gone.
#[derive(Default)]
struct Effects {
    workers: Vec<(Handle, Worker)>,
    timers: Vec<(Handle, Timer)>,
    refreshes: Vec<(Handle, Refresh)>,
    wakers: Vec<Waker>,
    /// Jobs nobody reads any more. Dropping one may close a connection or run a user's destructor.
    dropped_jobs: Vec<Box<Job>>,
}

/// When this long has passed since `start`. A time too long for the clock is as good as never.
pub(crate) fn instant_after(start: Instant, wait: Duration) -> Instant {
    const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    start + wait.min(FAR_FUTURE)
}

impl Engine {
    pub(crate) fn new(transport: Transport, limits: EngineLimits) -> Self {
        let schedule = Schedule::new(limits.total);
        let state = State {
            schedule,
            batches: Vec::new(),
            finished_counts: ResultCounts::default(),
            runtimes: Runtimes::default(),
            active: Slab::new(),
            host_limit_waiters: Vec::new(),
        };
        Self {
            transport,
            limits,
            epoch: Instant::now(),
            state: Mutex::new(state),
            queued_jobs: AtomicUsize::new(0),
            throughput: Mutex::new(Throughput::starting_at(Time::default())),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    pub(crate) fn time(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.epoch)
    }

    fn instant(&self, time: Time) -> Instant {
        instant_after(self.epoch, Duration::from_nanos(time.as_nanos()))
    }

    /// The lock is held for a few hundred instructions, never across an await. Nothing that panics runs under it, so a
    /// poisoned lock can be no worse than an unpoisoned one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues jobs of a batch that have not started yet; if its runtime has ended, so have they.
    fn push(
        self: &Arc<Self>,
        state: &mut State,
        batch: BatchId,
        jobs: impl IntoIterator<Item = Box<Job>>,
        now: Time,
        effects: &mut Effects,
    ) {
        let runtime_ended = state.runtime_of(batch).is_none();
        for mut job in jobs {
            job.queued_at = now;
            // The request is valid: it has a URL, so it has a lane.
            match job.lane() {
                Some(lane) if !runtime_ended => {
                    let limits = || self.lane_limits(&lane);
                    let key = lane.key();
                    let token_cell = job.token_cell().cloned();
                    state.schedule.push(batch, key, limits, job, now);
                    self.ensure_token(state, token_cell.as_ref(), key, batch, effects);
                }
                _ => state.deliver(job, ErrorKind::Cancelled, effects),
            }
        }
    }

    /// A lane begins with a scout if nothing is known yet of its origin.
    fn lane_limits(&self, lane: &JobLane) -> LaneLimits {
        let mut limits = self.limits.lane_limits(lane);
        if self.transport.is_protocol_unknown(&lane.url) {
            limits.gate.scout_timeout = SCOUT_TIMEOUT.as_nanos() as u64;
        }
        limits
    }

    /// A scout or probe knows what it was sent for, though its exchange is still under way.
    fn finish_scout_or_probe(self: &Arc<Self>, slot: &mut Slot) {
        let mut effects = Effects::default();
        {
            let mut state = self.lock();
            let now = self.now();
            state.schedule.finish_scout_or_probe(slot);
            self.start_ready(&mut state, now, None, &mut effects);
        }
        effects.run();
    }

    /// Starts everything that may start now. A worker of runtime `mine` gets the first job of that runtime itself; each
    /// other job gets a new worker.
    fn start_ready(
        self: &Arc<Self>,
        state: &mut State,
        now: Time,
        worker_runtime: Option<Id>,
        effects: &mut Effects,
    ) -> Option<(Slot, Box<Job>)> {
        let mut own_job = None;
        let wait = loop {
            match state.schedule.next_start(now) {
                StartDecision::Start(slot, job) => match state.runtime_of(slot.batch()) {
                    Some((runtime, _)) if worker_runtime == Some(runtime) && own_job.is_none() => {
                        own_job = Some((slot, job));
                    }
                    Some((runtime, handle)) => {
                        let handle = handle.clone();
                        let worker = Worker::new(self, state, runtime, slot, job, now);
                        effects.workers.push((handle, worker));
                    }
                    None => state.settle(slot, Some((job, ErrorKind::Cancelled)), effects),
                },
                StartDecision::WaitUntil(at) => break Some(at),
                StartDecision::Idle => break None,
            }
        };
        for job in state.schedule.take_rejected() {
            let reason = state.end_reason(&job);
            state.deliver(job, reason, effects);
        }
        for job in state.schedule.take_unreachable() {
            state.deliver(job, ErrorKind::HostDown, effects);
        }
        state.wake_host_limit_waiters(now, effects);
        self.queued_jobs
            .store(state.schedule.queued_count(), Relaxed);
        if let Some(at) = wait {
            state
                .runtimes
                .schedule_wakeup(self, at, &mut effects.timers);
        }
        own_job
    }
}

impl State {
    fn batch_state(&self, batch: BatchId) -> Option<&BatchState> {
        let batch_state = self.batches.get(batch.index())?.as_ref();
        batch_state.filter(|batch_state| batch_state.has_id(batch))
    }

    fn batch_state_mut(&mut self, batch: BatchId) -> Option<&mut BatchState> {
        let batch_state = self.batches.get_mut(batch.index())?.as_mut();
        batch_state.filter(|batch_state| batch_state.has_id(batch))
    }

    /// Where the jobs of a batch run; none if that runtime has ended.
    fn runtime_of(&self, batch: BatchId) -> Option<(Id, &Handle)> {
        let runtime = self.batch_state(batch)?.runtime();
        let handle = self.runtimes.handle(runtime)?;
        Some((runtime, handle))
    }

    /// A runtime has ended, and with it what its batches have waiting. What was in flight there settles by itself.
    fn end_runtime(&mut self, runtime: Id, effects: &mut Effects) {
        self.runtimes.mark_ended(runtime);
        let batches: Vec<BatchId> = self
            .batches
            .iter()
            .flatten()
            .filter(|batch_state| batch_state.runtime() == runtime)
            .map(BatchState::batch)
            .collect();
        for batch in batches {
            for job in self.schedule.take_queued(batch) {
                self.deliver(job, ErrorKind::Cancelled, effects);
            }
        }
    }

    /// Gives the slot back, and the job to its reader if it has come to its end.
    fn settle(&mut self, slot: Slot, ended: Option<(Box<Job>, ErrorKind)>, effects: &mut Effects) {
        if let Some((job, reason)) = ended {
            self.deliver(job, reason, effects);
        }
        self.schedule.settle(slot);
    }

    /// Why a job ends that may not start, or start again.
    fn end_reason(&self, job: &Job) -> ErrorKind {
        let is_cancelled = self.runtime_of(job.batch).is_none()
            || self.schedule.is_closed(job.batch, job.lane_key());
        match is_cancelled {
            true => ErrorKind::Cancelled,
            false => ErrorKind::Deadline,
        }
    }

    /// Hands a job to whoever reads its result; without a result yet, `reason` is it.
    fn deliver(&mut self, mut job: Box<Job>, reason: ErrorKind, effects: &mut Effects) {
        job.finish(reason);
        match job.result_slot.take() {
            Some(result_slot) if result_slot.is_abandoned() => effects.dropped_jobs.push(job),
            Some(result_slot) => {
                if let Some(batch_state) = self.batch_state_mut(job.batch) {
                    batch_state.counts.record(&job);
                }
                effects.wakers.extend(result_slot.complete(job));
            }
            None => match self.batch_state_mut(job.batch) {
                Some(batch_state) => effects.wakers.extend(batch_state.push_result(job)),
                None => effects.dropped_jobs.push(job),
            },
        }
    }
}

impl Effects {
    /// SingleFetch this without the lock: a task that its runtime refuses is dropped here, and takes the lock to say so.
    fn run(self) {
        for waker in self.wakers {
            waker.wake();
        }
        for (handle, worker) in self.workers {
            handle.spawn(worker.run());
        }
        for (handle, refresh) in self.refreshes {
            handle.spawn(refresh.run());
        }
        for (handle, timer) in self.timers {
            handle.spawn(timer.run());
        }
    }
}
