//! The async shell around the schedule: workers, one timer a runtime, delivery.
//!
//! All shared state is under one lock. Whoever changes it (a push, a settle, a timer) also decides, before letting go of
//! the lock, everything that may start now: so no wake-up is lost, and nobody waits to be told that a slot is free. What
//! was decided is carried out after the lock is gone ([`Afterwards`]): tasks are spawned, readers woken, and what is to
//! be dropped is dropped. No code of the user's runs under the lock.

mod feed;
mod fetch;
mod job;
mod rules;
mod runtimes;
mod timer;
mod trail;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slab::Slab;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) use feed::{Feed, Wish};
pub(crate) use fetch::Call;
pub(crate) use job::{Job, Terms};
pub(crate) use rules::{LimitBy, Rules, limits};

use crate::ErrorKind;
use crate::exchange::Exchange;
use crate::schedule::{BatchId, Next, Schedule, Slot, Time};
use feed::Outlet;
use job::Reply;
use runtimes::Runtimes;
use worker::{Signal, Worker};

pub(crate) struct Engine {
    exchange: Exchange,
    pub(crate) rules: Rules,
    epoch: Instant,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule<Box<Job>>,
    /// By the number of the batch.
    outlets: Vec<Option<Outlet>>,
    runtimes: Runtimes,
    running: Slab<Running>,
}

/// What a worker has in hand, so that it can be cancelled.
struct Running {
    signal: Arc<Signal>,
    batch: BatchId,
    reply: Option<Arc<Reply>>,
}

impl Running {
    fn takes(&mut self, slot: &Slot, job: &Job) {
        self.batch = slot.batch();
        self.reply.clone_from(&job.reply);
    }
}

/// What is carried out once the lock is gone.
#[derive(Default)]
struct Afterwards {
    workers: Vec<(Handle, Worker)>,
    wakers: Vec<Waker>,
    /// Jobs nobody reads any more. Dropping one may close a connection or run a user's destructor.
    drops: Vec<Box<Job>>,
}

impl Engine {
    pub(crate) fn new(exchange: Exchange, rules: Rules) -> Self {
        let schedule = Schedule::new(rules.whole);
        let state = State {
            schedule,
            outlets: Vec::new(),
            runtimes: Runtimes::default(),
            running: Slab::new(),
        };
        Self {
            exchange,
            rules,
            epoch: Instant::now(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    pub(crate) fn time(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.epoch)
    }

    /// The instant of `time`; so far off that it never comes if there is none.
    fn instant(&self, time: Time) -> Instant {
        const FAR: u64 = 30 * 365 * 24 * 3600 * 1_000_000_000;
        self.epoch + std::time::Duration::from_nanos(time.as_nanos().min(FAR))
    }

    /// The lock is held for a few hundred instructions, never across an await. Nothing that panics runs under it, so a
    /// poisoned lock can be no worse than an unpoisoned one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job that has not started yet. Its request is valid: it has a URL, so it has a lane.
    fn push(&self, state: &mut State, mut job: Box<Job>, now: Time) {
        let Some(lane) = job.lane() else { return };
        job.since = now;
        let batch = job.batch;
        state.schedule.push(
            batch,
            lane.as_str(),
            || self.rules.limits_of(lane.as_str()),
            job,
            now,
        );
    }

    /// Starts everything that may start now. A worker of runtime `mine` gets the first job of that runtime itself; each
    /// other job gets a new worker.
    fn start_ready(
        self: &Arc<Self>,
        state: &mut State,
        now: Time,
        mine: Option<usize>,
        afterwards: &mut Afterwards,
    ) -> Option<(Slot, Box<Job>)> {
        let mut own = None;
        let wait = loop {
            match state.schedule.next(now) {
                Next::Start(slot, job) => {
                    let runtime = state.outlet(slot.batch()).map(Outlet::runtime);
                    match runtime.and_then(|runtime| {
                        state
                            .runtimes
                            .handle(runtime)
                            .map(|handle| (runtime, handle))
                    }) {
                        Some((runtime, _)) if mine == Some(runtime) && own.is_none() => {
                            own = Some((slot, job));
                        }
                        Some((runtime, handle)) => {
                            let handle = handle.clone();
                            let worker = Worker::new(self, state, runtime, slot, job, now);
                            afterwards.workers.push((handle, worker));
                        }
                        None => state.settle(slot, Some((job, ErrorKind::Cancelled)), afterwards),
                    }
                }
                Next::Wait(at) => break Some(at),
                Next::Idle => break None,
            }
        };
        for job in state.schedule.take_refused() {
            state.deliver(job, ErrorKind::Deadline, afterwards);
        }
        if let Some(at) = wait {
            state.runtimes.set_timers(self, at);
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

    /// Hands a job to whoever reads its result; without a result yet, `reason` is it.
    fn deliver(&mut self, mut job: Box<Job>, reason: ErrorKind, afterwards: &mut Afterwards) {
        job.finish(reason);
        match job.reply.take() {
            Some(reply) if reply.is_abandoned() => afterwards.drops.push(job),
            Some(reply) => afterwards.wakers.extend(reply.fill(job)),
            None => match self.outlet_mut(job.batch) {
                Some(outlet) => afterwards.wakers.extend(outlet.put(job)),
                None => afterwards.drops.push(job),
            },
        }
    }
}

impl Afterwards {
    /// Call this without the lock: a worker that its runtime refuses is dropped here, and takes the lock to say so.
    fn run(self) {
        for waker in self.wakers {
            waker.wake();
        }
        for (handle, worker) in self.workers {
            handle.spawn(worker.run());
        }
    }
}
