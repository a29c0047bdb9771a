//! Servers of a known capacity, in virtual time, and what a schedule gets out of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use fastrand::Rng;

use super::super::{
    BatchLimits, GateLimits, Health, HostObservation, PriorityLevel, Schedule, Slot, StartDecision,
    Time,
};
use super::simulation::{MS, TestJob};

/// What a server does with more than it can work on at once.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Over {
    /// They stand in line.
    Queues,
    /// They get a 503 at once.
    Busy,
    /// Their connections are refused.
    Refuses,
}

/// So many at once, each for so long.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) capacity: usize,
    pub(super) over: Over,
    pub(super) service: u64,
    /// The service takes up to so many percent more or less.
    pub(super) noise: u64,
    /// Of a hundred requests so many fail, however few there are.
    pub(super) errors: u64,
    /// What it allows in a time, and announces.
    pub(super) window: Option<Window>,
    /// When those that work will be free.
    busy: BinaryHeap<Reverse<Time>>,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
}

/// So many in each window of so long.
#[derive(Copy, Clone, Debug)]
pub(super) struct Window {
    pub(super) quota: u64,
    pub(super) length: u64,
    /// How it says when the window ends: in units of so many nanoseconds, rounded up or down.
    pub(super) unit: u64,
    pub(super) up: bool,
    pub(super) number: u64,
    pub(super) used: u64,
}

impl Window {
    pub(super) fn new(quota: u64, ms: u64) -> Self {
        Self {
            quota,
            length: ms * MS,
            unit: 1,
            up: true,
            number: 0,
            used: 0,
        }
    }

    pub(super) fn rounded(self, unit: u64, up: bool) -> Self {
        Self { unit, up, ..self }
    }

    /// Whether it allows a request that comes now, and what it announces with the answer.
    fn take(&mut self, now: Time) -> (bool, u64, u64) {
        let number = now.as_nanos() / self.length;
        if number > self.number {
            (self.number, self.used) = (number, 0);
        }
        let may = self.used < self.quota;
        self.used += u64::from(may);
        let left = (number + 1) * self.length - now.as_nanos();
        let units = match self.up {
            true => left.div_ceil(self.unit),
            false => left / self.unit,
        };
        (may, self.quota - self.used, units * self.unit)
    }
}

impl Server {
    pub(super) fn new(capacity: usize, over: Over) -> Self {
        Self {
            capacity,
            over,
            service: 50 * MS,
            noise: 0,
            errors: 0,
            window: None,
            busy: BinaryHeap::new(),
            in_flight: 0,
            most_in_flight: 0,
            done: 0,
            failed: 0,
        }
    }

    pub(super) fn noisy(self, percent: u64) -> Self {
        Self {
            noise: percent,
            ..self
        }
    }

    pub(super) fn failing(self, percent: u64) -> Self {
        Self {
            errors: percent,
            ..self
        }
    }

    pub(super) fn taking(self, ms: u64) -> Self {
        Self {
            service: ms * MS,
            ..self
        }
    }

    pub(super) fn allowing(self, window: Window) -> Self {
        Self {
            window: Some(window),
            ..self
        }
    }

    /// How long it takes over a request that comes now, and how that ends. To say no takes a millisecond.
    fn serve(&mut self, now: Time, random: &mut Rng) -> (u64, Health) {
        while self.busy.peek().is_some_and(|&Reverse(free)| free <= now) {
            self.busy.pop();
        }
        let mut begins = now;
        if self.busy.len() >= self.capacity {
            match self.over {
                Over::Busy => return (MS, Health::Overloaded),
                Over::Refuses => return (MS, Health::Unreachable),
                Over::Queues => {}
            }
            while self.busy.len() >= self.capacity.max(1) {
                begins = self.busy.pop().map_or(now, |Reverse(free)| free);
            }
        }
        let spread = self.service / 100 * self.noise;
        if random.u64(..100) < self.errors {
            return (self.service, Health::Overloaded);
        }
        let took = self.service - spread + random.u64(..=2 * spread);
        let ends = begins.plus_nanos(took);
        self.busy.push(Reverse(ends));
        (ends.nanos_since(now), Health::Healthy)
    }
}

/// A schedule with one batch, and a lane for each server that always has work.
pub(super) struct World {
    pub(super) schedule: Schedule<TestJob>,
    pub(super) servers: Vec<Server>,
    pub(super) now: Time,
    random: Rng,
    in_flight: BTreeMap<(Time, usize), Outcome>,
    started: usize,
}

struct Outcome {
    slot: Slot,
    job: TestJob,
    evidence: HostObservation,
    announced: Option<(u64, u64)>,
}

impl World {
    pub(super) fn new(servers: Vec<Server>, per_lane: GateLimits, in_batch: BatchLimits) -> Self {
        let mut schedule = Schedule::new(GateLimits::UNLIMITED);
        let batch = schedule.add_batch(in_batch);
        for lane in 0..servers.len() {
            let name: Rc<str> = lane.to_string().into();
            for id in 0..2_000 {
                let job = TestJob {
                    level: PriorityLevel::Normal,
                    id,
                    lane: Rc::clone(&name),
                    abandoned: Rc::default(),
                };
                schedule.push(batch, &name, || per_lane, job, Time::default());
            }
        }
        Self {
            schedule,
            servers,
            now: Time::default(),
            random: Rng::with_seed(7),
            in_flight: BTreeMap::new(),
            started: 0,
        }
    }

    /// Each that ends goes again, at once if it went well and else after 100 ms, so the work never runs out.
    pub(super) fn run_until(&mut self, end: Time) {
        loop {
            let wake = match self.schedule.next_start(self.now) {
                StartDecision::Start(slot, job) => {
                    self.start(slot, job);
                    continue;
                }
                StartDecision::WaitUntil(at) => at,
                StartDecision::Idle => Time::default().plus_nanos(u64::MAX),
            };
            let settles = self.in_flight.first_key_value().map(|(&(at, _), _)| at);
            let next = settles.into_iter().chain([wake]).min().unwrap_or(wake);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if settles == Some(next) {
                self.settle_first();
            }
        }
    }

    fn start(&mut self, slot: Slot, job: TestJob) {
        let server = &mut self.servers[lane_of(&job)];
        server.in_flight += 1;
        server.most_in_flight = server.most_in_flight.max(server.in_flight);
        let allowed = server.window.as_mut().map(|window| window.take(self.now));
        let (took, health) = match allowed {
            Some((false, ..)) => (MS, Health::Overloaded),
            _ => server.serve(self.now, &mut self.random),
        };
        let evidence = HostObservation {
            health,
            latency: (health != Health::Unreachable).then_some(took),
        };
        self.started += 1;
        let outcome = Outcome {
            slot,
            job,
            evidence,
            announced: allowed.map(|(_, left, reset)| (left, reset)),
        };
        self.in_flight
            .insert((self.now.plus_nanos(took), self.started), outcome);
    }

    fn settle_first(&mut self) {
        let Some((_, outcome)) = self.in_flight.pop_first() else {
            return;
        };
        let Outcome {
            slot,
            job,
            evidence,
            announced,
        } = outcome;
        let server = &mut self.servers[lane_of(&job)];
        server.in_flight -= 1;
        let went_well = evidence.health == Health::Healthy;
        server.done += usize::from(went_well);
        server.failed += usize::from(!went_well);
        if let Some((left, reset)) = announced {
            self.schedule
                .observe_server_limit(&slot, left, reset, self.now);
        }
        self.schedule.record_observation(&slot, evidence, self.now);
        let wait = if went_well { 0 } else { 100 * MS };
        let _ended = self
            .schedule
            .requeue(&slot, job, self.now.plus_nanos(wait), self.now);
        self.schedule.settle(slot);
    }

    /// What the limit of a server's lane is now.
    pub(super) fn limit_of(&self, lane: usize) -> usize {
        let lane = self.schedule.lane_by_key[&*lane.to_string()];
        self.schedule.lanes[lane].gate.concurrency_limit()
    }
}

fn lane_of(job: &TestJob) -> usize {
    job.lane.parse().unwrap_or_default()
}
