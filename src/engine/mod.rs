//! The async shell around the schedule: workers, one timer a runtime, delivery.
//!
//! All shared state is under one lock. Whoever changes it (a push, a settle, a timer) also decides, before letting go of
//! the lock, everything that may start now: so no wake-up is lost, and nobody waits to be told that a slot is free. What
//! was decided is carried out after the lock is gone ([`Afterwards`]): tasks are spawned, readers woken, and what is to
//! be dropped is dropped. No code of the user's runs under the lock.

mod census;
mod clocks;
mod evidence;
mod feed;
mod fetch;
mod helm;
mod job;
mod manners;
mod rules;
mod runtimes;
mod timer;
mod tokens;
mod trail;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

pub(crate) use crate::exchange::{Buffer, Charge, ReadBody, handler};
pub(crate) use feed::{Feed, Wish};
pub(crate) use fetch::Call;
pub(crate) use helm::{Helm, Order, Steered};
pub(crate) use job::{Job, Terms};
pub(crate) use manners::Manners;
pub(crate) use rules::{LimitBy, Rules, income, limits, per_host, trip};

use crate::ErrorKind;
use crate::exchange::Transport;
use crate::schedule::{BatchId, LaneLimits, Next, Schedule, Slot, Time};
use census::{Counts, Recent};
use feed::Outlet;
use job::{Lane, Reply};
use rules::SCOUT;
use runtimes::Runtimes;
use timer::Timer;
pub(crate) use tokens::Tokens;
use tokens::{Refresh, Token};
use worker::{Signal, Worker};

pub(crate) struct Engine {
    transport: Transport,
    pub(crate) rules: Rules,
    epoch: Instant,
    state: Mutex<State>,
    /// How many jobs waited in the schedule when it was looked at last, for a look without the lock.
    waiting: AtomicUsize,
    /// How much it did lately, for those who ask.
    recent: Mutex<Recent>,
}

struct State {
    schedule: Schedule<Box<Job>>,
    /// By the number of the batch.
    outlets: Vec<Option<Outlet>>,
    /// What came of the batches that are over.
    past: Counts,
    runtimes: Runtimes,
    running: Slab<Running>,
    /// The batches whose readers have more inputs, should a slot be idle for want of a host that may start.
    wishing: Vec<BatchId>,
}

/// What a worker has in hand, so that it can be cancelled.
struct Running {
    signal: Arc<Signal>,
    batch: BatchId,
    lane: usize,
    reply: Option<Arc<Reply>>,
}

impl Running {
    fn takes(&mut self, slot: &Slot, job: &Job, place: usize) {
        self.batch = slot.batch();
        self.lane = slot.lane();
        self.reply.clone_from(&job.reply);
        if let Some(reply) = &self.reply {
            reply.started_at(place);
        }
    }
}

/// What is carried out once the lock is gone.
#[derive(Default)]
struct Afterwards {
    workers: Vec<(Handle, Worker)>,
    timers: Vec<(Handle, Timer)>,
    refreshes: Vec<(Handle, Refresh)>,
    wakers: Vec<Waker>,
    /// Jobs nobody reads any more. Dropping one may close a connection or run a user's destructor.
    drops: Vec<Box<Job>>,
}

/// When this long has passed since `start`. A time too long for the clock is as good as never.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    start + wait.min(NEVER)
}

impl Engine {
    pub(crate) fn new(transport: Transport, rules: Rules) -> Self {
        let schedule = Schedule::new(rules.whole);
        let state = State {
            schedule,
            outlets: Vec::new(),
            past: Counts::default(),
            runtimes: Runtimes::default(),
            running: Slab::new(),
            wishing: Vec::new(),
        };
        Self {
            transport,
            rules,
            epoch: Instant::now(),
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            recent: Mutex::new(Recent::since(Time::default())),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    pub(crate) fn time(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.epoch)
    }

    fn instant(&self, time: Time) -> Instant {
        after(self.epoch, Duration::from_nanos(time.as_nanos()))
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
        afterwards: &mut Afterwards,
    ) {
        let has_ended = state.runtime_of(batch).is_none();
        for mut job in jobs {
            job.since = now;
            // The request is valid: it has a URL, so it has a lane.
            match job.lane() {
                Some(lane) if !has_ended => {
                    let limits = || self.limits_of(&lane);
                    let key = lane.as_str();
                    let keeper = job.keeper().cloned();
                    state.schedule.push(batch, key, limits, job, now);
                    self.heed_token(state, keeper.as_ref(), key, batch, afterwards);
                }
                _ => state.deliver(job, ErrorKind::Cancelled, afterwards),
            }
        }
    }

    /// A lane begins with a scout if nothing is known yet of its origin.
    fn limits_of(&self, lane: &Lane) -> LaneLimits {
        let mut limits = self.rules.limits_of(lane);
        if self.transport.is_unknown(&lane.url) {
            limits.gate.scout = SCOUT.as_nanos() as u64;
        }
        limits
    }

    /// A scout or probe knows what it was sent for, though its exchange is still under way.
    fn report(self: &Arc<Self>, slot: &mut Slot) {
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.lock();
            let now = self.now();
            state.schedule.report(slot);
            self.start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }

    /// Starts everything that may start now. A worker of runtime `mine` gets the first job of that runtime itself; each
    /// other job gets a new worker.
    fn start_ready(
        self: &Arc<Self>,
        state: &mut State,
        now: Time,
        mine: Option<Id>,
        afterwards: &mut Afterwards,
    ) -> Option<(Slot, Box<Job>)> {
        let mut own = None;
        let wait = loop {
            match state.schedule.next(now) {
                Next::Start(slot, job) => match state.runtime_of(slot.batch()) {
                    Some((runtime, _)) if mine == Some(runtime) && own.is_none() => {
                        own = Some((slot, job));
                    }
                    Some((runtime, handle)) => {
                        let handle = handle.clone();
                        let worker = Worker::new(self, state, runtime, slot, job, now);
                        afterwards.workers.push((handle, worker));
                    }
                    None => state.settle(slot, Some((job, ErrorKind::Cancelled)), afterwards),
                },
                Next::Wait(at) => break Some(at),
                Next::Idle => break None,
            }
        };
        for job in state.schedule.take_refused() {
            let reason = state.reason(&job);
            state.deliver(job, reason, afterwards);
        }
        for job in state.schedule.take_unreachable() {
            state.deliver(job, ErrorKind::HostDown, afterwards);
        }
        state.ask_for_other_hosts(now, afterwards);
        self.waiting.store(state.schedule.queued(), Relaxed);
        if let Some(at) = wait {
            state.runtimes.set_timers(self, at, &mut afterwards.timers);
        }
        own
    }
}

impl State {
    fn outlet(&self, batch: BatchId) -> Option<&Outlet> {
        let outlet = self.outlets.get(batch.index())?.as_ref();
        outlet.filter(|outlet| outlet.is_of(batch))
    }

    fn outlet_mut(&mut self, batch: BatchId) -> Option<&mut Outlet> {
        let outlet = self.outlets.get_mut(batch.index())?.as_mut();
        outlet.filter(|outlet| outlet.is_of(batch))
    }

    /// Where the jobs of a batch run; none if that runtime has ended.
    fn runtime_of(&self, batch: BatchId) -> Option<(Id, &Handle)> {
        let runtime = self.outlet(batch)?.runtime();
        let handle = self.runtimes.handle(runtime)?;
        Some((runtime, handle))
    }

    /// A runtime has ended, and with it what its batches have waiting. What was in flight there settles by itself.
    fn end_runtime(&mut self, runtime: Id, afterwards: &mut Afterwards) {
        self.runtimes.end(runtime);
        let batches: Vec<BatchId> = self
            .outlets
            .iter()
            .flatten()
            .filter(|outlet| outlet.runtime() == runtime)
            .map(Outlet::batch)
            .collect();
        for batch in batches {
            for job in self.schedule.empty_batch(batch) {
                self.deliver(job, ErrorKind::Cancelled, afterwards);
            }
        }
    }

    /// Gives the slot back, and the job to its reader if it has come to its end.
    fn settle(
        &mut self,
        slot: Slot,
        ended: Option<(Box<Job>, ErrorKind)>,
        afterwards: &mut Afterwards,
    ) {
        if let Some((job, reason)) = ended {
            self.deliver(job, reason, afterwards);
        }
        self.schedule.settle(slot);
    }

    /// Why a job ends that may not start, or start again.
    fn reason(&self, job: &Job) -> ErrorKind {
        let is_cancelled = self.runtime_of(job.batch).is_none()
            || self.schedule.is_closed(job.batch, job.lane_key());
        match is_cancelled {
            true => ErrorKind::Cancelled,
            false => ErrorKind::Deadline,
        }
    }

    /// Hands a job to whoever reads its result; without a result yet, `reason` is it.
    fn deliver(&mut self, mut job: Box<Job>, reason: ErrorKind, afterwards: &mut Afterwards) {
        job.finish(reason);
        match job.reply.take() {
            Some(reply) if reply.is_abandoned() => afterwards.drops.push(job),
            Some(reply) => {
                if let Some(outlet) = self.outlet_mut(job.batch) {
                    outlet.counts.add(&job);
                }
                afterwards.wakers.extend(reply.fill(job));
            }
            None => match self.outlet_mut(job.batch) {
                Some(outlet) => afterwards.wakers.extend(outlet.put(job)),
                None => afterwards.drops.push(job),
            },
        }
    }
}

impl Afterwards {
    /// Call this without the lock: a task that its runtime refuses is dropped here, and takes the lock to say so.
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
