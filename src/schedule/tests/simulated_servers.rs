//! Simulates servers of a known capacity in virtual time, and counts the requests that succeed
//! under a schedule.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use fastrand::Rng;

use super::super::{
    BatchLimits, GateLimits, PriorityLevel, RouteHealth, RouteKey, RouteObservation, Schedule,
    Slot, StartDecision, Time,
};
use super::simulation::{MS, TestJob};

/// The behavior of a server for requests beyond its capacity.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum OverloadBehavior {
    /// The server queues the requests.
    Queues,
    /// The server responds with 503 at once.
    RespondsBusy,
    /// The server refuses connections for the requests.
    RefusesConnections,
}

/// A server that processes at most `capacity` requests at once, each for `service_time`.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) capacity: usize,
    pub(super) overload_behavior: OverloadBehavior,
    /// A duration in nanoseconds.
    pub(super) service_time: u64,
    /// The variation of the service time in both directions, in percent.
    pub(super) noise_percent: u64,
    /// The share of the requests that fail regardless of the load, in percent.
    pub(super) failure_percent: u64,
    /// The rate limit that the server enforces and announces.
    pub(super) rate_window: Option<RateWindow>,
    /// The instants at which the requests in progress will be done.
    busy_until: BinaryHeap<Reverse<Time>>,
    pub(super) in_flight: usize,
    pub(super) max_in_flight: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
}

/// A rate limit over fixed windows of time.
#[derive(Copy, Clone, Debug)]
pub(super) struct RateWindow {
    /// The number of requests allowed per window.
    pub(super) quota: u64,
    /// A duration in nanoseconds.
    pub(super) length: u64,
    /// The unit in which the time until the reset is announced, in nanoseconds.
    unit: u64,
    /// Whether the time until the reset is rounded up to a multiple of `unit`. Otherwise it is
    /// rounded down.
    pub(super) rounds_up: bool,
    /// The number of the current window.
    index: u64,
    used: u64,
}

impl RateWindow {
    pub(super) fn new(quota: u64, ms: u64) -> Self {
        Self {
            quota,
            length: ms * MS,
            unit: 1,
            rounds_up: true,
            index: 0,
            used: 0,
        }
    }

    pub(super) fn rounded(self, unit: u64, rounds_up: bool) -> Self {
        Self {
            unit,
            rounds_up,
            ..self
        }
    }

    /// Counts a request. Returns whether the request is allowed, and the announcement of its
    /// response: the remaining requests and the time until the reset.
    fn count(&mut self, now: Time) -> (bool, u64, u64) {
        let index = now.as_nanos() / self.length;
        if index > self.index {
            (self.index, self.used) = (index, 0);
        }
        let is_allowed = self.used < self.quota;
        self.used += u64::from(is_allowed);
        let until_reset = (index + 1) * self.length - now.as_nanos();
        let units = if self.rounds_up {
            until_reset.div_ceil(self.unit)
        } else {
            until_reset / self.unit
        };
        (is_allowed, self.quota - self.used, units * self.unit)
    }
}

impl Server {
    pub(super) fn new(capacity: usize, overload: OverloadBehavior) -> Self {
        Self {
            capacity,
            overload_behavior: overload,
            service_time: 50 * MS,
            noise_percent: 0,
            failure_percent: 0,
            rate_window: None,
            busy_until: BinaryHeap::new(),
            in_flight: 0,
            max_in_flight: 0,
            done: 0,
            failed: 0,
        }
    }

    pub(super) fn with_noise(self, percent: u64) -> Self {
        Self {
            noise_percent: percent,
            ..self
        }
    }

    pub(super) fn with_failures(self, percent: u64) -> Self {
        Self {
            failure_percent: percent,
            ..self
        }
    }

    pub(super) fn with_service_time(self, ms: u64) -> Self {
        Self {
            service_time: ms * MS,
            ..self
        }
    }

    pub(super) fn with_rate_window(self, window: RateWindow) -> Self {
        Self {
            rate_window: Some(window),
            ..self
        }
    }

    /// Serves a request that arrives now. Returns the duration and the outcome. A refusal takes one
    /// millisecond.
    fn serve(&mut self, now: Time, random: &mut Rng) -> (u64, RouteHealth) {
        while self
            .busy_until
            .peek()
            .is_some_and(|&Reverse(end)| end <= now)
        {
            self.busy_until.pop();
        }
        let mut start = now;
        if self.busy_until.len() >= self.capacity {
            match self.overload_behavior {
                OverloadBehavior::RespondsBusy => return (MS, RouteHealth::Overloaded),
                OverloadBehavior::RefusesConnections => return (MS, RouteHealth::Unreachable),
                OverloadBehavior::Queues => {}
            }
            while self.busy_until.len() >= self.capacity.max(1) {
                start = self.busy_until.pop().map_or(now, |Reverse(end)| end);
            }
        }
        let spread = self.service_time / 100 * self.noise_percent;
        if random.u64(..100) < self.failure_percent {
            return (self.service_time, RouteHealth::Overloaded);
        }
        let took = self.service_time - spread + random.u64(..=2 * spread);
        let end = start.plus_nanos(took);
        self.busy_until.push(Reverse(end));
        (end.nanos_since(now), RouteHealth::Healthy)
    }
}

/// A schedule with one batch that always has a queued job for each server. Each server is a lane.
pub(super) struct ServerSimulation {
    pub(super) schedule: Schedule<TestJob>,
    pub(super) servers: Vec<Server>,
    pub(super) now: Time,
    random: Rng,
    in_flight: BTreeMap<(Time, usize), Exchange>,
    start_count: usize,
}

struct Exchange {
    slot: Slot,
    job: TestJob,
    observation: RouteObservation,
    /// The remaining requests and the time until the reset.
    announced: Option<(u64, u64)>,
}

impl ServerSimulation {
    pub(super) fn new(
        servers: Vec<Server>,
        lane_limits: GateLimits,
        batch_limits: BatchLimits,
    ) -> Self {
        let mut schedule = Schedule::new(GateLimits::UNLIMITED);
        let batch = schedule.add_batch(batch_limits);
        for server in 0..servers.len() {
            let key: Rc<str> = server.to_string().into();
            for id in 0..2_000 {
                let job = TestJob {
                    level: PriorityLevel::Normal,
                    id,
                    lane: Rc::clone(&key),
                    proxy: None,
                    abandoned: Rc::default(),
                };
                schedule.push(
                    batch,
                    RouteKey::direct(&key),
                    || lane_limits,
                    job,
                    Time::default(),
                );
            }
        }
        Self {
            schedule,
            servers,
            now: Time::default(),
            random: Rng::with_seed(7),
            in_flight: BTreeMap::new(),
            start_count: 0,
        }
    }

    /// Runs until `end`. Each job is requeued when it is done, or 100 ms after a failure.
    pub(super) fn run_until(&mut self, end: Time) {
        loop {
            let wake_up = match self.schedule.start_next_job(self.now) {
                StartDecision::Start(slot, job) => {
                    self.start(slot, job);
                    continue;
                }
                StartDecision::WaitUntil(at) => at,
                StartDecision::WaitForChange => Time::MAX,
            };
            let settles_at = self.in_flight.first_key_value().map(|(&(at, _), _)| at);
            let next = settles_at.map_or(wake_up, |at| at.min(wake_up));
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if settles_at == Some(next) {
                self.settle_earliest();
            }
        }
    }

    fn start(&mut self, slot: Slot, job: TestJob) {
        let server = &mut self.servers[server_index(&job)];
        server.in_flight += 1;
        server.max_in_flight = server.max_in_flight.max(server.in_flight);
        let window = server.rate_window.as_mut();
        let counted = window.map(|window| window.count(self.now));
        let (took, health) = match counted {
            Some((false, ..)) => (MS, RouteHealth::Overloaded),
            _ => server.serve(self.now, &mut self.random),
        };
        let observation = RouteObservation {
            health,
            response_head_latency_nanos: (health != RouteHealth::Unreachable).then_some(took),
        };
        self.start_count += 1;
        let exchange = Exchange {
            slot,
            job,
            observation,
            announced: counted.map(|(_, remaining, reset_after)| (remaining, reset_after)),
        };
        self.in_flight
            .insert((self.now.plus_nanos(took), self.start_count), exchange);
    }

    fn settle_earliest(&mut self) {
        let Some((_, exchange)) = self.in_flight.pop_first() else {
            return;
        };
        let Exchange {
            slot,
            job,
            observation,
            announced,
        } = exchange;
        let server = &mut self.servers[server_index(&job)];
        server.in_flight -= 1;
        let is_done = observation.health == RouteHealth::Healthy;
        server.done += usize::from(is_done);
        server.failed += usize::from(!is_done);
        if let Some((remaining, reset_after)) = announced {
            self.schedule
                .apply_rate_limit_announcement(&slot, remaining, reset_after, self.now);
        }
        self.schedule
            .record_exchange_outcome(&slot, observation, self.now);
        let backoff = if is_done { 0 } else { 100 * MS };
        let _rejected = self
            .schedule
            .requeue(&slot, job, self.now.plus_nanos(backoff), self.now);
        self.schedule.settle(slot);
    }

    /// The current concurrency limit of a server's lane.
    pub(super) fn lane_limit(&self, server: usize) -> usize {
        let lane = self.schedule.lane_by_key[&*server.to_string()];
        let route = self.schedule.lanes[lane].routes.index_of(None);
        route.map_or(0, |route| {
            self.schedule.routes[route]
                .concurrency_limit
                .max_in_flight()
        })
    }
}

fn server_index(job: &TestJob) -> usize {
    job.lane.parse().unwrap_or_default()
}
