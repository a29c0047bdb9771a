//! Runs a schedule in virtual time. Each test sets the duration of its exchanges.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::super::{
    BatchId, BatchLimits, GateLimits, GcraRate, LaneLimits, PriorityLevel, RouteHealth, RouteKey,
    RouteObservation, Schedulable, Schedule, Slot, StartDecision, TenantId, Time,
};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * MS)
}

pub(super) fn concurrency(concurrency: usize) -> GateLimits {
    GateLimits {
        concurrency,
        ..GateLimits::UNLIMITED
    }
}

/// A rate limit of `burst` starts at once and `per_second` starts per second afterwards. Calculated
/// independently of `limits::Rate`.
pub(super) fn rate(per_second: u64, burst: u64) -> GateLimits {
    let emission_interval_nanos = SECOND.div_ceil(per_second);
    GateLimits {
        rate: Some(GcraRate {
            emission_interval_nanos,
            burst_tolerance_nanos: (burst - 1) * emission_interval_nanos,
        }),
        ..GateLimits::UNLIMITED
    }
}

pub(super) const NO_LIMITS: BatchLimits = BatchLimits {
    overall_limits: GateLimits::UNLIMITED,
    per_lane_limits: GateLimits::UNLIMITED,
    deadline: None,
};

#[derive(Clone, Debug)]
pub(super) struct TestJob {
    pub(super) id: usize,
    pub(super) lane: Rc<str>,
    pub(super) proxy: Option<Rc<str>>,
    pub(super) abandoned: Rc<Cell<bool>>,
    pub(super) level: PriorityLevel,
}

impl Schedulable for TestJob {
    fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    fn priority_level(&self) -> PriorityLevel {
        self.level
    }
}

/// The start of one job.
#[derive(Clone, Debug)]
pub(super) struct RecordedStart {
    pub(super) at: Time,
    pub(super) batch: BatchId,
    pub(super) lane: Rc<str>,
    pub(super) id: usize,
}

/// The outcome of a simulated exchange, with its duration in nanoseconds.
pub(super) enum Outcome {
    Done(u64),
    /// The job is retried. The second number is its backoff in nanoseconds.
    Retry(u64, u64),
    /// No connection was established.
    Unreachable(u64),
}

struct InFlight {
    slot: Slot,
    job: TestJob,
    retry_at: Option<Time>,
    health: RouteHealth,
}

pub(super) struct Simulation {
    pub(super) schedule: Schedule<TestJob>,
    pub(super) now: Time,
    pub(super) starts: Vec<RecordedStart>,
    /// The rejected jobs, as pairs of the instant and the job id.
    pub(super) rejected: Vec<(Time, usize)>,
    /// The jobs that ended because their host was unreachable, as pairs of the instant and the job
    /// id.
    pub(super) unreachable: Vec<(Time, usize)>,
    pub(super) max_in_flight: usize,
    in_flight: BTreeMap<(Time, usize), InFlight>,
    lane_limits: HashMap<Rc<str>, LaneLimits>,
    pushed_count: usize,
}

impl Simulation {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            schedule: Schedule::new(limits),
            now: Time::default(),
            starts: Vec::new(),
            rejected: Vec::new(),
            unreachable: Vec::new(),
            max_in_flight: 0,
            in_flight: BTreeMap::new(),
            lane_limits: HashMap::new(),
            pushed_count: 0,
        }
    }

    /// Sets the limits of a lane. Call before the first push to the lane.
    pub(super) fn set_lane_limits(&mut self, lane: &str, limits: impl Into<LaneLimits>) {
        self.lane_limits.insert(lane.into(), limits.into());
    }

    pub(super) fn add_batch(&mut self, limits: BatchLimits) -> BatchId {
        self.schedule.add_batch(limits)
    }

    pub(super) fn add_tenant_batch(&mut self, tenant: TenantId, limits: BatchLimits) -> BatchId {
        let batch = self.schedule.add_batch(limits);
        self.schedule.add_batch_to_tenant(batch, tenant);
        batch
    }

    fn limits_of(&self, lane: &str) -> LaneLimits {
        let limits = self.lane_limits.get(lane).cloned();
        limits.unwrap_or(GateLimits::UNLIMITED.into())
    }

    /// Pushes a job and returns its id. Ids count from 0.
    pub(super) fn push(&mut self, batch: BatchId, lane: &str) -> usize {
        self.push_job(batch, lane).id
    }

    pub(super) fn push_job(&mut self, batch: BatchId, lane: &str) -> TestJob {
        self.push_with_level(batch, lane, PriorityLevel::Normal)
    }

    pub(super) fn push_with_level(
        &mut self,
        batch: BatchId,
        lane: &str,
        level: PriorityLevel,
    ) -> TestJob {
        self.push_on_route(batch, RouteKey::direct(lane), level)
    }

    /// Pushes jobs that use a proxy.
    pub(super) fn push_proxied(&mut self, batch: BatchId, lane: &str, proxy: &str, count: usize) {
        let route = RouteKey {
            lane_key: lane,
            proxy_key: Some(proxy),
        };
        for _ in 0..count {
            self.push_on_route(batch, route, PriorityLevel::Normal);
        }
    }

    pub(super) fn push_on_route(
        &mut self,
        batch: BatchId,
        route: RouteKey<'_>,
        level: PriorityLevel,
    ) -> TestJob {
        let id = self.pushed_count;
        self.pushed_count += 1;
        let job = TestJob {
            id,
            lane: route.lane_key.into(),
            proxy: route.proxy_key.map(Into::into),
            abandoned: Rc::default(),
            level,
        };
        let limits = self.limits_of(route.lane_key);
        self.schedule
            .push(batch, route, || limits, job.clone(), self.now);
        job
    }

    pub(super) fn push_many(&mut self, batch: BatchId, lane: &str, count: usize) {
        for _ in 0..count {
            self.push(batch, lane);
        }
    }

    /// Records the outcome of an exchange without a latency.
    pub(super) fn record_health(&mut self, slot: &Slot, health: RouteHealth) {
        let observation = RouteObservation {
            health,
            response_head_latency_nanos: None,
        };
        self.schedule
            .record_exchange_outcome(slot, observation, self.now);
    }

    /// Requeues a job that may start again at `at`, and settles its slot. Returns whether the
    /// schedule has accepted the job.
    pub(super) fn settle_and_requeue(&mut self, slot: Slot, job: TestJob, at: Time) -> bool {
        let result = self.schedule.requeue(&slot, job, at, self.now);
        self.schedule.settle(slot);
        result.is_ok()
    }

    /// Requeues a job for the final round, and settles its slot. Returns whether the schedule has
    /// accepted the job.
    pub(super) fn settle_for_final_round(&mut self, slot: Slot, job: TestJob) -> bool {
        let result = self.schedule.requeue_for_final_round(&slot, job, self.now);
        self.schedule.settle(slot);
        result.is_ok()
    }

    /// Returns the schedule's next decision, and records started, rejected and unreachable jobs.
    pub(super) fn next(&mut self) -> StartDecision<TestJob> {
        let decision = self.schedule.start_next_job(self.now);
        if let StartDecision::Start(slot, job) = &decision {
            let (batch, lane) = (slot.batch_id(), Rc::clone(&job.lane));
            self.starts.push(RecordedStart {
                at: self.now,
                batch,
                lane,
                id: job.id,
            });
        }
        let rejected = self.schedule.take_rejected_jobs();
        self.rejected
            .extend(rejected.into_iter().map(|job| (self.now, job.id)));
        self.take_unreachable();
        decision
    }

    /// Records the jobs that ended because their host is unreachable.
    pub(super) fn take_unreachable(&mut self) {
        let unreachable = self.schedule.take_unreachable_jobs();
        self.unreachable
            .extend(unreachable.into_iter().map(|job| (self.now, job.id)));
    }

    /// Starts the next job. Panics if none may start.
    #[track_caller]
    pub(super) fn start(&mut self) -> (Slot, TestJob) {
        match self.next() {
            StartDecision::Start(slot, job) => (slot, job),
            other => panic!("nothing starts at {:?}: {other:?}", self.now),
        }
    }

    /// Starts every job that may start now, and returns them with the decision after that.
    pub(super) fn start_all(&mut self) -> (Vec<(Slot, TestJob)>, StartDecision<TestJob>) {
        let mut started = Vec::new();
        loop {
            match self.next() {
                StartDecision::Start(slot, job) => started.push((slot, job)),
                other => return (started, other),
            }
        }
    }

    /// Runs until nothing is queued or in flight. `exchange` decides the outcome of each start.
    pub(super) fn run(&mut self, exchange: impl FnMut(&TestJob) -> Outcome) {
        self.run_with_late_timer(exchange, || 0);
    }

    /// Runs until nothing is queued or in flight, with a timer that fires `lateness()` nanoseconds
    /// late.
    pub(super) fn run_with_late_timer(
        &mut self,
        exchange: impl FnMut(&TestJob) -> Outcome,
        lateness: impl FnMut() -> u64,
    ) {
        self.run_while(|_| true, exchange, lateness);
    }

    /// Runs until `end`, or until nothing is queued or in flight.
    pub(super) fn run_until(&mut self, end: Time, exchange: impl FnMut(&TestJob) -> Outcome) {
        self.run_while(|now| now < end, exchange, || 0);
    }

    fn run_while(
        &mut self,
        is_running: impl Fn(Time) -> bool,
        mut exchange: impl FnMut(&TestJob) -> Outcome,
        mut lateness: impl FnMut() -> u64,
    ) {
        while is_running(self.now) {
            let wake_up = match self.next() {
                StartDecision::Start(slot, job) => {
                    let (took, backoff, health) = match exchange(&job) {
                        Outcome::Done(took) => (took, None, RouteHealth::Healthy),
                        Outcome::Retry(took, backoff) => {
                            (took, Some(backoff), RouteHealth::Overloaded)
                        }
                        Outcome::Unreachable(took) => (took, None, RouteHealth::Unreachable),
                    };
                    let end = self.now.plus_nanos(took);
                    let retry_at = backoff.map(|backoff| end.plus_nanos(backoff));
                    self.in_flight.insert(
                        (end, job.id),
                        InFlight {
                            slot,
                            job,
                            retry_at,
                            health,
                        },
                    );
                    self.max_in_flight = self.max_in_flight.max(self.in_flight.len());
                    continue;
                }
                StartDecision::WaitUntil(at) => {
                    assert!(at > self.now, "the wait is over already");
                    Some(at.plus_nanos(lateness()))
                }
                StartDecision::WaitForChange => None,
            };
            let end = self.in_flight.first_key_value().map(|(&(end, _), _)| end);
            match (wake_up, end) {
                (Some(wake_up), Some(end)) if end <= wake_up => self.settle_earliest(),
                (None, Some(_)) => self.settle_earliest(),
                (Some(wake_up), _) => self.now = wake_up,
                (None, None) => return,
            }
        }
    }

    fn settle_earliest(&mut self) {
        let Some(((end, id), ended)) = self.in_flight.pop_first() else {
            return;
        };
        self.now = end;
        self.record_health(&ended.slot, ended.health);
        let Some(at) = ended.retry_at else {
            return self.schedule.settle(ended.slot);
        };
        if !self.settle_and_requeue(ended.slot, ended.job, at) {
            self.rejected.push((self.now, id));
        }
    }

    /// The number of requests in flight in [`Self::run`].
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The ids of the started jobs, in the order of their starts.
    pub(super) fn started_ids(&self) -> Vec<usize> {
        self.starts.iter().map(|start| start.id).collect()
    }

    /// The instants of all starts.
    pub(super) fn start_times(&self) -> Vec<Time> {
        self.starts.iter().map(|start| start.at).collect()
    }

    pub(super) fn starts_of(&self, batch: BatchId) -> impl Iterator<Item = &RecordedStart> {
        self.starts.iter().filter(move |start| start.batch == batch)
    }
}

impl<J: Schedulable> Schedule<J> {
    /// The number of requests of a batch that are in flight.
    pub(super) fn in_flight(&self, batch: BatchId) -> usize {
        self.find_batch(batch)
            .map_or(0, |batch| batch.gate.in_flight())
    }
}
