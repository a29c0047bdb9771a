//! A brute-force model of the schedule that checks each step of the schedule.
//!
//! The model holds a flat list of jobs and has no queues. To find the jobs that could start, the
//! model checks all jobs against the schedule's own gates. Meters check the gates themselves by
//! counting starts and ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use fastrand::Rng;

use super::super::{
    BatchId, BatchLimits, BreakerConfig, LaneLimits, PriorityLevel, RouteHealth, RouteKey,
    RouteObservation, Schedulable, Slot, StartDecision, TenantId, Time,
};
use super::gate_meter::{GateMeter, random_adaptive_limits, random_limits};
use super::outage_model::OutageModel;
use super::random_walks::{Action, Step};
use super::simulation::{MS, Simulation, TestJob};

pub(super) const BATCHES: usize = 4;
pub(super) const LANES: usize = 6;
/// The direct route and two proxies.
pub(super) const ROUTES: usize = 3;

pub(super) struct QueuedJob {
    pub(super) job: TestJob,
    pub(super) batch: BatchId,
    pub(super) lane: usize,
    pub(super) route: usize,
    pub(super) not_before: Time,
    pub(super) is_requeued: bool,
    /// Whether the job waits for the final round of its batch.
    pub(super) is_final_round: bool,
}

impl QueuedJob {
    pub(super) fn pair(&self) -> BatchLanePair {
        (self.batch, self.lane)
    }

    pub(super) fn queue_key(&self) -> QueueKey {
        (self.batch, self.lane, self.route)
    }
}

/// The route of a job: 0 without a proxy, or else the number in the proxy's key.
fn route_of(job: &TestJob) -> usize {
    let proxy = job.proxy.as_deref();
    proxy.map_or(0, |proxy| proxy.parse().unwrap_or_default())
}

/// The last rate limit that a host announced.
#[derive(Copy, Clone, Default)]
pub(super) struct AnnouncedLimit {
    /// The start number of the request whose response announced the limit or lifted it.
    pub(super) announcement_start_seq: u64,
    /// The number of the last start that the limit allows before `until`.
    pub(super) last_allowed: u64,
    pub(super) until: Time,
    /// The start number of the first request after `until`. A response to this or a later request
    /// that announces no limit lifts the limit.
    pub(super) recheck_seq: Option<u64>,
    pub(super) is_lifted: bool,
}

impl AnnouncedLimit {
    /// Records a start. Fails if the limit does not allow the start.
    pub(super) fn record_start(&mut self, start_seq: u64, now: Time) -> Result<(), String> {
        if now >= self.until && self.announcement_start_seq > 0 && !self.is_lifted {
            self.recheck_seq.get_or_insert(start_seq);
        }
        if now < self.until && start_seq > self.last_allowed {
            return Err(format!("start {start_seq} exceeds the host's limit"));
        }
        Ok(())
    }

    /// Records a response without an announcement.
    fn record_silence(&mut self, start_seq: u64) {
        if self.recheck_seq.is_some_and(|seq| start_seq >= seq) {
            *self = Self {
                announcement_start_seq: start_seq,
                is_lifted: true,
                ..Self::default()
            };
        }
    }
}

/// A batch and a lane. The model's counterpart of a share.
pub(super) type BatchLanePair = (BatchId, usize);
/// A batch, a lane and a route. The model's counterpart of a queue.
pub(super) type QueueKey = (BatchId, usize, usize);

pub(super) struct Model {
    pub(super) sim: Simulation,
    pub(super) random: Rng,
    pub(super) queued: BTreeMap<usize, QueuedJob>,
    /// The slot, the job and the lane of each request in flight.
    pub(super) in_flight: Vec<(Slot, TestJob, usize)>,
    pub(super) batches: Vec<(BatchId, BatchLimits)>,
    /// The tenants that are not removed.
    tenants: Vec<TenantId>,
    /// The tenant of each batch that has one, including removed batches and tenants.
    pub(super) tenant_by_batch: HashMap<BatchId, TenantId>,
    pub(super) schedule_meter: GateMeter,
    pub(super) tenant_meters: HashMap<TenantId, GateMeter>,
    pub(super) lane_meters: Vec<GateMeter>,
    pub(super) batch_meters: HashMap<BatchId, GateMeter>,
    pub(super) pair_meters: HashMap<BatchLanePair, GateMeter>,
    /// By lane and route. They check the adaptive limits.
    pub(super) route_meters: Vec<Vec<GateMeter>>,
    /// They check the adaptive limits.
    pub(super) queue_meters: HashMap<QueueKey, GateMeter>,
    /// The queues that were parked before the last check for a start.
    pub(super) parked: HashSet<QueueKey>,
    /// How often another queue started a job while this one could have.
    pub(super) passed_over: HashMap<QueueKey, usize>,
    /// By lane.
    pub(super) paused_until: Vec<Time>,
    /// By lane and route.
    pub(super) outages: Vec<Vec<OutageModel>>,
    pub(super) held: HashSet<BatchId>,
    pub(super) closed: HashSet<BatchId>,
    pub(super) closed_pairs: HashSet<BatchLanePair>,
    /// The instant of the schedule's last [`StartDecision::WaitUntil`].
    pub(super) announced_wait: Option<Time>,
    pub(super) lane_keys: [Rc<str>; LANES],
    /// The number of starts in each lane.
    pub(super) start_counts: Vec<u64>,
    /// The start number of each job's last start, by job id.
    pub(super) start_seqs: HashMap<usize, u64>,
    /// By lane.
    pub(super) announced_limits: Vec<AnnouncedLimit>,
    /// One of this many responses announces a limit, if the host announces limits.
    responses_per_announcement: u64,
    /// The number of lanes that the walk uses. With few lanes, a walk has many steps in each.
    used_lane_count: usize,
    /// The number of routes that the walk uses in each lane.
    used_route_count: usize,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let limits = random_limits(&mut random);
        let lanes = [1, 2, LANES, LANES][random.usize(..4)];
        let routes = [1, 1, 2, ROUTES][random.usize(..4)];
        let responses_per_announcement = [5, 2][random.usize(..2)];
        let mut sim = Simulation::new(limits);
        let lane_keys: [Rc<str>; LANES] =
            std::array::from_fn(|lane| format!("https://host-{lane}.example").into());
        let lane_limits: Vec<LaneLimits> = (0..LANES)
            .map(|_| LaneLimits {
                scout_timeout_nanos: [0, 0, 30 * MS][random.usize(..3)],
                ..random_adaptive_limits(&mut random).into()
            })
            .collect();
        let breakers: Vec<BreakerConfig> = (0..LANES)
            .map(|_| OutageModel::random_config(&mut random))
            .collect();
        for (key, (limits, &breaker)) in lane_keys.iter().zip(lane_limits.iter().zip(&breakers)) {
            let limits = limits.clone();
            sim.set_lane_limits(key, LaneLimits { breaker, ..limits });
        }
        let tenant_count = [0, 1, 2][random.usize(..3)];
        let mut model = Self {
            sim,
            random,
            queued: BTreeMap::new(),
            in_flight: Vec::new(),
            batches: Vec::new(),
            tenants: Vec::new(),
            tenant_by_batch: HashMap::new(),
            schedule_meter: GateMeter::new(limits),
            tenant_meters: HashMap::new(),
            lane_meters: lane_limits
                .iter()
                .map(|limits| GateMeter::new(limits.gate_limits))
                .collect(),
            batch_meters: HashMap::new(),
            pair_meters: HashMap::new(),
            route_meters: lane_limits
                .into_iter()
                .map(|limits| {
                    (0..ROUTES)
                        .map(|_| GateMeter::new(limits.gate_limits))
                        .collect()
                })
                .collect(),
            queue_meters: HashMap::new(),
            parked: HashSet::new(),
            passed_over: HashMap::new(),
            paused_until: vec![Time::default(); LANES],
            outages: breakers
                .into_iter()
                .map(|config| (0..ROUTES).map(|_| OutageModel::new(config)).collect())
                .collect(),
            held: HashSet::new(),
            closed: HashSet::new(),
            closed_pairs: HashSet::new(),
            announced_wait: None,
            start_counts: vec![0; LANES],
            start_seqs: HashMap::new(),
            announced_limits: vec![AnnouncedLimit::default(); LANES],
            lane_keys,
            responses_per_announcement,
            used_lane_count: lanes,
            used_route_count: routes,
        };
        for _ in 0..tenant_count {
            model.add_tenant();
        }
        model
    }

    fn add_tenant(&mut self) -> Option<GateMeter> {
        let limits = random_limits(&mut self.random);
        let tenant = self.sim.schedule.add_tenant(limits);
        self.tenants.push(tenant);
        // The id of a removed tenant is reused after the last batch of the tenant has ended.
        self.tenant_meters.insert(tenant, GateMeter::new(limits))
    }

    fn replace_tenant(&mut self, selector: usize) -> Result<(), String> {
        if self.tenants.is_empty() {
            return Ok(());
        }
        let removed = self.tenants.swap_remove(selector % self.tenants.len());
        self.sim.schedule.remove_tenant(removed);
        self.add_tenant()
            .map_or(Ok(()), |ended| ended.check_ended())
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), String> {
        let Step {
            action,
            selector,
            amount,
        } = step;
        self.act(action, selector, amount)?;
        // The statistics are not checked after each step, because computing them visits all queues.
        if amount.is_multiple_of(32) {
            self.check_stats()
        } else {
            Ok(())
        }
    }

    fn act(&mut self, action: Action, selector: usize, amount: u64) -> Result<(), String> {
        match action {
            Action::Push => {
                let (lane, route) = (amount as usize, amount as usize / LANES);
                self.push(
                    selector,
                    lane % self.used_lane_count,
                    route % self.used_route_count,
                )
            }
            Action::NextStart => self.start_next_job(),
            Action::Settle => self.settle(selector, amount),
            Action::Requeue => self.requeue(selector, amount),
            Action::PauseLane => self.pause_lane(selector, amount),
            Action::FinishScoutOrProbe => {
                let count = self.in_flight.len().max(1);
                if let Some((slot, job, lane)) = self.in_flight.get_mut(selector % count) {
                    self.sim.schedule.end_wait_for_scout_or_probe(slot);
                    self.outages[*lane][route_of(job)].record_response_head(job.id);
                }
                Ok(())
            }
            Action::Abandon => {
                let count = self.queued.len().max(1);
                self.queued
                    .values()
                    .nth(selector % count)
                    .inspect(|queued| queued.job.abandoned.set(true));
                Ok(())
            }
            Action::AddBatch => self.add_batch(amount),
            Action::RemoveBatch => self.remove_batch(selector),
            Action::ReplaceTenant => self.replace_tenant(selector),
            Action::ToggleHold => self.toggle_hold(selector),
            Action::SetLimits => self.set_limits(selector),
            Action::CloseLane => {
                self.close_lane_of_batch_and_take_queued_jobs(selector, amount as usize % LANES)
            }
            Action::CloseBatch => self.close_batch_and_take_queued_jobs(selector),
            Action::WakeUp => {
                let wake_up = self.announced_wait.unwrap_or(self.sim.now);
                self.sim.now = wake_up.max(self.sim.now);
                Ok(())
            }
            Action::Oversleep => {
                self.sim.now = self.sim.now.plus_nanos(amount % (20 * MS));
                Ok(())
            }
        }
    }

    pub(super) fn add_batch(&mut self, amount: u64) -> Result<(), String> {
        if self.batches.len() < BATCHES.min(self.used_lane_count) {
            let (overall_limits, per_lane_limits) = (
                random_limits(&mut self.random),
                random_adaptive_limits(&mut self.random),
            );
            let deadline = amount
                .is_multiple_of(3)
                .then(|| self.sim.now.plus_nanos(amount % (100 * MS)));
            let limits = BatchLimits {
                overall_limits,
                per_lane_limits,
                deadline,
            };
            let tenant = amount as usize / 3 % (self.tenants.len() + 1);
            let batch = match self.tenants.get(tenant) {
                Some(&tenant) => {
                    let batch = self.sim.add_tenant_batch(tenant, limits);
                    self.tenant_by_batch.insert(batch, tenant);
                    batch
                }
                None => self.sim.add_batch(limits),
            };
            self.batch_meters
                .insert(batch, GateMeter::new(overall_limits));
            self.batches.push((batch, limits));
        }
        Ok(())
    }

    fn remove_batch(&mut self, selector: usize) -> Result<(), String> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let (batch, _) = self.batches.swap_remove(selector % self.batches.len());
        let returned = self.sim.schedule.remove_batch(batch);
        self.remove_returned(returned, |queued| queued.batch == batch)
    }

    /// Removes the jobs that the schedule has returned, which must be exactly the jobs for
    /// which `matches` is true.
    pub(super) fn remove_returned(
        &mut self,
        jobs: Vec<TestJob>,
        matches: impl Fn(&QueuedJob) -> bool,
    ) -> Result<(), String> {
        for job in jobs {
            let removed = self
                .queued
                .remove(&job.id)
                .ok_or(format!("{} was returned but not queued", job.id))?;
            if !matches(&removed) {
                return Err(format!("{} should not have been returned", job.id));
            }
        }
        self.take_rejected_jobs()?;
        match self.queued.values().find(|queued| matches(queued)) {
            Some(lost) => Err(format!("{} was not returned", lost.job.id)),
            None => Ok(()),
        }
    }

    fn push(&mut self, selector: usize, lane: usize, route: usize) -> Result<(), String> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let (batch, limits) = self.batches[selector % self.batches.len()];
        let level = [
            PriorityLevel::High,
            PriorityLevel::Normal,
            PriorityLevel::Normal,
            PriorityLevel::Low,
        ][selector / 7 % 4];
        let proxy = (route > 0).then(|| route.to_string());
        let key = RouteKey {
            lane_key: &self.lane_keys[lane],
            proxy_key: proxy.as_deref(),
        };
        let job = self.sim.push_on_route(batch, key, level);
        self.queued.insert(
            job.id,
            QueuedJob {
                job,
                batch,
                lane,
                route,
                not_before: Time::default(),
                is_requeued: false,
                is_final_round: false,
            },
        );
        self.pair_meters
            .entry((batch, lane))
            .or_insert_with(|| GateMeter::new(limits.per_lane_limits));
        self.queue_meters
            .entry((batch, lane, route))
            .or_insert_with(|| GateMeter::new(limits.per_lane_limits));
        let schedule = &self.sim.schedule;
        let known = schedule.lane_by_key.get(&*self.lane_keys[lane]);
        let known = known.and_then(|&lane| schedule.lanes[lane].routes.index_of(key.proxy_key));
        let is_closed_without_failures =
            known.is_some_and(|route| schedule.routes[route].breaker.is_closed_without_failures());
        let outage = &mut self.outages[lane][route];
        if is_closed_without_failures && !outage.is_closed_without_failures() {
            outage.record_eviction(self.sim.now)?;
        }
        self.take_rejected_jobs()
    }

    fn start_next_job(&mut self) -> Result<(), String> {
        self.begin_due_final_rounds()?;
        let mut could_start: Vec<QueueKey> = self.queues_that_could_start();
        self.note_parked(&could_start);
        let decision = self.sim.next();
        self.announced_wait = match &decision {
            StartDecision::WaitUntil(at) => Some(*at),
            StartDecision::Start(..) | StartDecision::WaitForChange => None,
        };
        self.take_rejected_jobs()?;
        let has_begun = self.note_begun_final_rounds()?;
        match decision {
            StartDecision::Start(slot, job) => {
                if has_begun && let Some(queued) = self.queued.get(&job.id) {
                    could_start.push(queued.queue_key());
                }
                self.check_start(slot, job, &could_start)
            }
            StartDecision::WaitUntil(at) => self.check_wait(Some(at)),
            StartDecision::WaitForChange => self.check_wait(None),
        }
    }

    fn settle(&mut self, selector: usize, amount: u64) -> Result<(), String> {
        if let Some((slot, job, lane)) = self.record_end(selector) {
            self.maybe_announce_limit(&slot, &job, lane, amount);
            self.maybe_record_health(&slot, &job, lane, amount);
            self.check_lifted_limit(lane)?;
            self.sim.schedule.settle(slot);
            self.sim.take_unreachable();
            self.take_rejected_jobs()?;
        }
        Ok(())
    }

    /// Checks that a host without a limit is not limited.
    fn check_lifted_limit(&self, lane: usize) -> Result<(), String> {
        let schedule = &self.sim.schedule;
        let is_limited = schedule
            .lane_by_key
            .get(&*self.lane_keys[lane])
            .is_some_and(|&lane| {
                schedule.lanes[lane]
                    .gate
                    .is_refused_by_server_limit(self.sim.now)
            });
        if self.announced_limits[lane].is_lifted && is_limited {
            return Err(format!("lane {lane} is limited, but its limit was lifted"));
        }
        Ok(())
    }

    /// Announces a rate limit in some responses of every third host.
    fn maybe_announce_limit(&mut self, slot: &Slot, job: &TestJob, lane: usize, amount: u64) {
        if !lane.is_multiple_of(3) || !amount.is_multiple_of(self.responses_per_announcement) {
            return;
        }
        let (remaining, reset_after) = (amount / 5 % 6, 1 + amount / 30 % (60 * MS));
        let (now, start_seq) = (self.sim.now, self.start_seqs[&job.id]);
        self.sim
            .schedule
            .apply_rate_limit_announcement(slot, remaining, reset_after, now);
        let announced = &mut self.announced_limits[lane];
        if start_seq >= announced.announcement_start_seq {
            let mut until = now.plus_nanos(reset_after);
            if announced.until > now {
                // The schedule takes two close resets for the same reset, and uses the earlier one.
                until = until.min(announced.until);
            }
            *announced = AnnouncedLimit {
                announcement_start_seq: start_seq,
                last_allowed: start_seq + remaining,
                until,
                recheck_seq: None,
                is_lifted: false,
            };
        }
    }

    /// Records the outcome of an exchange, if the outcome says something about the host.
    fn maybe_record_health(&mut self, slot: &Slot, job: &TestJob, lane: usize, amount: u64) {
        let health = match amount % 8 {
            0..=2 => Some(RouteHealth::Unreachable),
            3..=5 => Some(RouteHealth::Healthy),
            6 => Some(RouteHealth::Overloaded),
            _ => None,
        };
        if let Some(health) = health {
            self.announced_limits[lane].record_silence(self.start_seqs[&job.id]);
            let observation = RouteObservation {
                health,
                response_head_latency_nanos: (!amount.is_multiple_of(5))
                    .then_some(amount % (100 * MS)),
            };
            self.sim
                .schedule
                .record_exchange_outcome(slot, observation, self.sim.now);
            self.outages[lane][route_of(job)].record_health(job.id, health, self.sim.now);
        }
        self.outages[lane][route_of(job)].record_settle(job.id);
    }

    /// Removes a request from those in flight.
    fn record_end(&mut self, selector: usize) -> Option<(Slot, TestJob, usize)> {
        let count = self.in_flight.len();
        let (slot, job, lane) =
            (count > 0).then(|| self.in_flight.swap_remove(selector % count))?;
        let (batch, route) = (slot.batch_id(), route_of(&job));
        let tenant = self.tenant_by_batch.get(&batch);
        let meters = [
            tenant.and_then(|tenant| self.tenant_meters.get_mut(tenant)),
            self.batch_meters.get_mut(&batch),
            self.pair_meters.get_mut(&(batch, lane)),
            self.queue_meters.get_mut(&(batch, lane, route)),
            self.route_meters[lane].get_mut(route),
        ];
        for meter in meters
            .into_iter()
            .flatten()
            .chain([&mut self.schedule_meter, &mut self.lane_meters[lane]])
        {
            meter.in_flight -= 1;
        }
        Some((slot, job, lane))
    }

    fn requeue(&mut self, selector: usize, amount: u64) -> Result<(), String> {
        let Some((slot, job, lane)) = self.record_end(selector) else {
            return Ok(());
        };
        self.maybe_announce_limit(&slot, &job, lane, amount / 3);
        self.maybe_record_health(&slot, &job, lane, amount / 8);
        self.check_lifted_limit(lane)?;
        let (now, batch) = (self.sim.now, slot.batch_id());
        let is_final_round = amount.is_multiple_of(5);
        let not_before = if is_final_round || amount.is_multiple_of(3) {
            now
        } else {
            now.plus_nanos(amount % (30 * MS))
        };
        let is_live = self.batches.iter().any(|(id, _)| *id == batch);
        let is_allowed = is_live
            && !self.is_pair_closed((batch, lane))
            && self
                .deadline_of(batch)
                .is_none_or(|deadline| not_before < deadline);
        let is_accepted = if is_final_round {
            self.sim.settle_for_final_round(slot, job.clone())
        } else {
            self.sim.settle_and_requeue(slot, job.clone(), not_before)
        };
        if is_accepted != is_allowed {
            return Err(format!(
                "{} was wrongly accepted or returned for {not_before:?}",
                job.id
            ));
        }
        if is_accepted {
            let route = route_of(&job);
            self.queued.insert(
                job.id,
                QueuedJob {
                    job,
                    batch,
                    lane,
                    route,
                    not_before,
                    is_requeued: true,
                    is_final_round,
                },
            );
        }
        self.sim.take_unreachable();
        self.take_rejected_jobs()
    }

    fn pause_lane(&mut self, selector: usize, amount: u64) -> Result<(), String> {
        let count = self.in_flight.len().max(1);
        if let Some((slot, _, lane)) = self.in_flight.get(selector % count) {
            let until = self.sim.now.plus_nanos(amount % (50 * MS));
            self.sim.schedule.pause_lane(slot, until);
            self.paused_until[*lane] = self.paused_until[*lane].max(until);
        }
        Ok(())
    }

    /// Removes the jobs that the schedule has rejected, and checks that there was a reason to
    /// reject each.
    fn take_rejected_jobs(&mut self) -> Result<(), String> {
        let now = self.sim.now;
        for (_, id) in std::mem::take(&mut self.sim.unreachable) {
            let removed = self
                .queued
                .remove(&id)
                .ok_or(format!("{id} was rejected but not queued"))?;
            let outage = &self.outages[removed.lane][removed.route];
            let has_queued_or_in_flight_job = self
                .in_flight
                .iter()
                .any(|(_, job, lane)| (*lane, route_of(job)) == (removed.lane, removed.route));
            let misses_deadline = self
                .deadline_of(removed.batch)
                .is_some_and(|deadline| deadline <= outage.open_until(now));
            if !outage.is_rejecting(now) && (has_queued_or_in_flight_job || !misses_deadline) {
                return Err(format!("{id} was rejected without an outage"));
            }
        }
        let direct = self.sim.schedule.take_rejected_jobs();
        let rejected: Vec<usize> = self.sim.rejected.drain(..).map(|(_, id)| id).collect();
        for id in rejected
            .into_iter()
            .chain(direct.into_iter().map(|job| job.id))
        {
            let removed = self
                .queued
                .remove(&id)
                .ok_or(format!("{id} was rejected but not queued"))?;
            let is_too_late = self
                .deadline_of(removed.batch)
                .is_some_and(|deadline| deadline <= now || deadline <= self.best_start(&removed));
            if !removed.job.is_abandoned() && !is_too_late && !self.is_pair_closed(removed.pair()) {
                return Err(format!("{id} was rejected without a reason"));
            }
        }
        Ok(())
    }

    /// Runs all jobs to their end, and checks that the schedule is empty.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        for batch in std::mem::take(&mut self.held) {
            self.sim.schedule.release_batch(batch);
        }
        while !self.in_flight.is_empty() || self.sim.schedule.queued_count > 0 {
            self.start_next_job()?;
            if self.announced_wait.is_some()
                || self.sim.schedule.queued_count == 0
                || self.in_flight.len() > 3
            {
                let amount = self.random.u64(..);
                self.settle(0, amount)?;
            }
            match self.announced_wait {
                Some(at) => self.sim.now = at,
                None if self.in_flight.is_empty() => self.start_next_job()?,
                None => {
                    let amount = self.random.u64(..);
                    self.settle(0, amount)?;
                }
            }
        }
        if let Some(lost) = self.queued.keys().next() {
            return Err(format!("{lost} was lost"));
        }
        let meters = self.pair_meters.values().chain(self.batch_meters.values());
        for meter in meters
            .chain(self.tenant_meters.values())
            .chain(&self.lane_meters)
            .chain([&self.schedule_meter])
        {
            meter.check_rate()?;
        }
        while !self.batches.is_empty() {
            self.remove_batch(0)?;
        }
        for tenant in std::mem::take(&mut self.tenants) {
            self.sim.schedule.remove_tenant(tenant);
        }
        let schedule = &self.sim.schedule;
        let left = schedule.batches.len()
            + schedule.queues.len()
            + schedule.shares.len()
            + schedule.delayed_jobs.len()
            + schedule.tenants.len()
            + schedule.overdue_batches.len()
            + schedule.runnable_batches.len();
        let parked: usize = schedule
            .lanes
            .iter()
            .map(|(_, lane)| lane.parking_lot.parked_queues.len())
            .chain(
                schedule
                    .routes
                    .iter()
                    .map(|(_, route)| route.parking_lot.parked_queues.len()),
            )
            .sum();
        if left + parked > 0 {
            Err(format!("{left} items and {parked} parked queues are left"))
        } else {
            Ok(())
        }
    }
}
