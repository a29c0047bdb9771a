//! A world for the schedule to run in: a virtual clock, and exchanges that take as long as they are told to.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::super::{
    BatchId, BatchLimits, GateLimits, GcraRate, Health, HostObservation, LaneLimits, PriorityLevel,
    Schedulable, Schedule, Slot, StartDecision, Time,
};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn at_ms(ms: u64) -> Time {
    Time::default().plus_nanos(ms * MS)
}

pub(super) fn at_most(concurrency: usize) -> GateLimits {
    GateLimits {
        concurrency,
        rate: None,
        ..GateLimits::UNLIMITED
    }
}

/// A rate by its own arithmetic: `burst` at once, and `per_second` after that.
pub(super) fn rate(per_second: u64, burst: u64) -> GateLimits {
    let emission_interval = SECOND.div_ceil(per_second);
    GateLimits {
        concurrency: usize::MAX,
        rate: Some(GcraRate {
            emission_interval,
            burst_tolerance: (burst - 1) * emission_interval,
        }),
        ..GateLimits::UNLIMITED
    }
}

pub(super) const NO_LIMITS: BatchLimits = BatchLimits {
    overall: GateLimits::UNLIMITED,
    per_lane: GateLimits::UNLIMITED,
    deadline: None,
};

#[derive(Clone, Debug)]
pub(super) struct TestJob {
    pub(super) id: usize,
    pub(super) lane: Rc<str>,
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

#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) at: Time,
    pub(super) batch: BatchId,
    pub(super) lane: Rc<str>,
    pub(super) id: usize,
}

/// What an exchange came to, in the time it took.
pub(super) enum End {
    Done(u64),
    /// To be tried again this long after it ended.
    Again(u64, u64),
    /// No connection came about.
    Unreachable(u64),
}

/// When it comes again, and what is learned of its host.
type OnWire = (Slot, TestJob, Option<Time>, Health);

pub(super) struct Sim {
    pub(super) schedule: Schedule<TestJob>,
    pub(super) now: Time,
    pub(super) starts: Vec<Start>,
    pub(super) refused: Vec<(Time, usize)>,
    pub(super) unreachable: Vec<(Time, usize)>,
    pub(super) most_in_flight: usize,
    in_flight: BTreeMap<(Time, usize), OnWire>,
    lane_limits: HashMap<Rc<str>, LaneLimits>,
    pushed: usize,
}

impl Sim {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            schedule: Schedule::new(limits),
            now: Time::default(),
            starts: Vec::new(),
            refused: Vec::new(),
            unreachable: Vec::new(),
            most_in_flight: 0,
            in_flight: BTreeMap::new(),
            lane_limits: HashMap::new(),
            pushed: 0,
        }
    }

    pub(super) fn limit_lane(&mut self, lane: &str, limits: impl Into<LaneLimits>) {
        self.lane_limits.insert(lane.into(), limits.into());
    }

    pub(super) fn batch(&mut self, limits: BatchLimits) -> BatchId {
        self.schedule.add_batch(limits)
    }

    fn limits_of(&self, lane: &str) -> LaneLimits {
        let limits = self.lane_limits.get(lane).copied();
        limits.unwrap_or(GateLimits::UNLIMITED.into())
    }

    /// Pushes a job and says its number.
    pub(super) fn push(&mut self, batch: BatchId, lane: &str) -> usize {
        self.push_job(batch, lane).id
    }

    pub(super) fn push_job(&mut self, batch: BatchId, lane: &str) -> TestJob {
        self.push_at(batch, lane, PriorityLevel::Normal)
    }

    pub(super) fn push_at(&mut self, batch: BatchId, lane: &str, level: PriorityLevel) -> TestJob {
        let id = self.pushed;
        self.pushed += 1;
        let job = TestJob {
            id,
            lane: lane.into(),
            abandoned: Rc::default(),
            level,
        };
        let limits = self.limits_of(lane);
        self.schedule
            .push(batch, lane, || limits, job.clone(), self.now);
        job
    }

    pub(super) fn push_many(&mut self, batch: BatchId, lane: &str, count: usize) {
        for _ in 0..count {
            self.push(batch, lane);
        }
    }

    /// Settles, and says whether the job was taken back for the last round.
    pub(super) fn settle_last(&mut self, slot: Slot, job: TestJob) -> bool {
        let given_back = self
            .schedule
            .requeue_for_final_round(&slot, job, self.now)
            .err();
        self.schedule.settle(slot);
        given_back.is_none()
    }

    pub(super) fn learn(&mut self, slot: &Slot, health: Health) {
        let evidence = HostObservation {
            health,
            latency: None,
        };
        self.schedule.record_observation(slot, evidence, self.now);
    }

    /// Settles, and says whether the job was taken back to start again at `at`.
    pub(super) fn settle_again(&mut self, slot: Slot, job: TestJob, at: Time) -> bool {
        let given_back = self.schedule.requeue(&slot, job, at, self.now).err();
        self.schedule.settle(slot);
        given_back.is_none()
    }

    /// One step of the schedule, its start written down.
    pub(super) fn next(&mut self) -> StartDecision<TestJob> {
        let next = self.schedule.next_start(self.now);
        if let StartDecision::Start(slot, job) = &next {
            let (batch, lane) = (slot.batch(), Rc::clone(&job.lane));
            self.starts.push(Start {
                at: self.now,
                batch,
                lane,
                id: job.id,
            });
        }
        let refused = self.schedule.take_rejected();
        self.refused
            .extend(refused.into_iter().map(|job| (self.now, job.id)));
        let unreachable = self.schedule.take_unreachable();
        self.unreachable
            .extend(unreachable.into_iter().map(|job| (self.now, job.id)));
        next
    }

    /// The slot and job that start now.
    #[track_caller]
    pub(super) fn start(&mut self) -> (Slot, TestJob) {
        match self.next() {
            StartDecision::Start(slot, job) => (slot, job),
            other => panic!("nothing starts at {:?}: {other:?}", self.now),
        }
    }

    /// Everything that may start now, and what is said after that.
    pub(super) fn start_all(&mut self) -> (Vec<(Slot, TestJob)>, StartDecision<TestJob>) {
        let mut started = Vec::new();
        loop {
            match self.next() {
                StartDecision::Start(slot, job) => started.push((slot, job)),
                other => return (started, other),
            }
        }
    }

    /// Runs until nothing is queued or on the wire; the exchanges take what `exchange` says.
    pub(super) fn run(&mut self, exchange: impl FnMut(&TestJob) -> End) {
        self.run_late(exchange, || 0);
    }

    /// The same with a timer that fires so many nanoseconds late.
    pub(super) fn run_late(
        &mut self,
        mut exchange: impl FnMut(&TestJob) -> End,
        mut late: impl FnMut() -> u64,
    ) {
        loop {
            let wake = match self.next() {
                StartDecision::Start(slot, job) => {
                    let (took, again, health) = match exchange(&job) {
                        End::Done(took) => (took, None, Health::Healthy),
                        End::Again(took, wait) => {
                            let at = self.now.plus_nanos(took).plus_nanos(wait);
                            (took, Some(at), Health::Overloaded)
                        }
                        End::Unreachable(took) => (took, None, Health::Unreachable),
                    };
                    self.in_flight.insert(
                        (self.now.plus_nanos(took), job.id),
                        (slot, job, again, health),
                    );
                    self.most_in_flight = self.most_in_flight.max(self.in_flight.len());
                    continue;
                }
                StartDecision::WaitUntil(at) => {
                    assert!(at > self.now, "told to wait for what has come");
                    Some(at.plus_nanos(late()))
                }
                StartDecision::Idle => None,
            };
            let end = self.in_flight.first_key_value().map(|(&(end, _), _)| end);
            match (wake, end) {
                (Some(wake), Some(end)) if end <= wake => self.settle_first(),
                (None, Some(_)) => self.settle_first(),
                (Some(wake), _) => self.now = wake,
                (None, None) => return,
            }
        }
    }

    fn settle_first(&mut self) {
        let Some(((end, _), (slot, job, again, health))) = self.in_flight.pop_first() else {
            return;
        };
        self.now = end;
        let id = job.id;
        self.learn(&slot, health);
        let Some(at) = again else {
            return self.schedule.settle(slot);
        };
        if !self.settle_again(slot, job, at) {
            self.refused.push((self.now, id));
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn ids(&self) -> Vec<usize> {
        self.starts.iter().map(|start| start.id).collect()
    }

    pub(super) fn times(&self) -> Vec<Time> {
        self.starts.iter().map(|start| start.at).collect()
    }

    pub(super) fn starts_of(&self, batch: BatchId) -> impl Iterator<Item = &Start> {
        self.starts.iter().filter(move |start| start.batch == batch)
    }
}

impl<J: Schedulable> Schedule<J> {
    /// How many of this batch are on the wire.
    pub(super) fn in_flight(&self, batch: BatchId) -> usize {
        self.find_batch(batch)
            .map_or(0, |batch| batch.gate.in_flight())
    }
}
