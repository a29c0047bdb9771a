//! A brute-force model that knows every job and nothing of queues, and checks each step of the schedule against it.
//!
//! It takes the schedule's own gates as given when it asks who could start (their rules are checked apart, by meters that
//! see only starts and settles), and finds out about everything else by looking at all the jobs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use fastrand::Rng;

use super::super::{
    BatchId, BatchLimits, BreakerConfig, GateLimits, Health, HostObservation, LaneLimits,
    PriorityLevel, Schedulable, Slot, StartDecision, Time,
};
use super::gate_meter::{Meter, some_limits, that_may_learn};
use super::outage_model::Outage;
use super::random_walks::{Action, Step};
use super::simulation::{MS, Sim, TestJob};

pub(super) const BATCHES: usize = 4;
pub(super) const LANES: usize = 6;

pub(super) struct Waiting {
    pub(super) job: TestJob,
    pub(super) batch: BatchId,
    pub(super) lane: usize,
    pub(super) not_before: Time,
    pub(super) again: bool,
    /// It waits for the end of its batch.
    pub(super) last: bool,
}

impl Waiting {
    pub(super) fn pair(&self) -> Pair {
        (self.batch, self.lane)
    }
}

/// What a host said last: nothing after the start of number `last` before `until`.
#[derive(Copy, Clone, Default)]
pub(super) struct Allowed {
    pub(super) number: u64,
    pub(super) last: u64,
    pub(super) until: Time,
}

/// A batch and a lane: all that the model knows of a queue.
pub(super) type Pair = (BatchId, usize);

pub(super) struct Model {
    pub(super) sim: Sim,
    pub(super) random: Rng,
    pub(super) waiting: BTreeMap<usize, Waiting>,
    pub(super) in_flight: Vec<(Slot, TestJob, usize)>,
    pub(super) batches: Vec<(BatchId, BatchLimits)>,
    pub(super) whole: Meter,
    pub(super) per_lane: Vec<Meter>,
    pub(super) per_batch: HashMap<BatchId, Meter>,
    pub(super) per_pair: HashMap<Pair, Meter>,
    /// How often another started while this one could have.
    pub(super) passed_over: HashMap<Pair, usize>,
    pub(super) paused: Vec<Time>,
    /// By lane.
    pub(super) outages: Vec<Outage>,
    pub(super) held: HashSet<BatchId>,
    pub(super) closed: HashSet<BatchId>,
    pub(super) closed_pairs: HashSet<Pair>,
    pub(super) told: Option<Time>,
    pub(super) names: [Rc<str>; LANES],
    /// How many have started in each lane, and which start of its lane each job was at last.
    pub(super) started: Vec<u64>,
    pub(super) number_of: HashMap<usize, u64>,
    pub(super) allowed: Vec<Allowed>,
    /// So many of the lanes are used: with few of them a walk comes far in each.
    lanes: usize,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let whole = some_limits(&mut random);
        let lanes = [1, 2, LANES, LANES][random.usize(..4)];
        let mut sim = Sim::new(whole);
        let names: [Rc<str>; LANES] =
            std::array::from_fn(|lane| format!("https://host-{lane}.example").into());
        let per_lane: Vec<GateLimits> = (0..LANES)
            .map(|_| GateLimits {
                scout_timeout: [0, 0, 30 * MS][random.usize(..3)],
                ..that_may_learn(&mut random)
            })
            .collect();
        let trips: Vec<BreakerConfig> =
            (0..LANES).map(|_| Outage::some_trip(&mut random)).collect();
        for (name, (&gate, &trip)) in names.iter().zip(per_lane.iter().zip(&trips)) {
            sim.limit_lane(
                name,
                LaneLimits {
                    breaker: trip,
                    ..gate.into()
                },
            );
        }
        Self {
            sim,
            random,
            waiting: BTreeMap::new(),
            in_flight: Vec::new(),
            batches: Vec::new(),
            whole: Meter::new(whole),
            per_lane: per_lane.into_iter().map(Meter::new).collect(),
            per_batch: HashMap::new(),
            per_pair: HashMap::new(),
            passed_over: HashMap::new(),
            paused: vec![Time::default(); LANES],
            outages: trips.into_iter().map(Outage::new).collect(),
            held: HashSet::new(),
            closed: HashSet::new(),
            closed_pairs: HashSet::new(),
            told: None,
            started: vec![0; LANES],
            number_of: HashMap::new(),
            allowed: vec![Allowed::default(); LANES],
            names,
            lanes,
        }
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), String> {
        let Step {
            action,
            which,
            amount,
        } = step;
        self.act(action, which, amount)?;
        // It looks at everything, so not at each step.
        match amount.is_multiple_of(32) {
            true => self.check_census(),
            false => Ok(()),
        }
    }

    fn act(&mut self, action: Action, which: usize, amount: u64) -> Result<(), String> {
        match action {
            Action::Push => self.push(which, amount as usize % self.lanes),
            Action::Next => self.next(),
            Action::Settle => self.settle(which, amount),
            Action::Retry => self.retry(which, amount),
            Action::Pause => self.pause(which, amount),
            Action::Report => {
                let count = self.in_flight.len().max(1);
                if let Some((slot, job, lane)) = self.in_flight.get_mut(which % count) {
                    self.sim.schedule.finish_scout_or_probe(slot);
                    self.outages[*lane].answered(job.id);
                }
                Ok(())
            }
            Action::Abandon => {
                let count = self.waiting.len().max(1);
                self.waiting
                    .values()
                    .nth(which % count)
                    .inspect(|waiting| waiting.job.abandoned.set(true));
                Ok(())
            }
            Action::AddBatch => self.add_batch(amount),
            Action::RemoveBatch => self.remove_batch(which),
            Action::Hold => self.hold(which),
            Action::SetLimits => self.set_limits(which),
            Action::CloseLane => self.close_lane(which, amount as usize % LANES),
            Action::Close => self.close(which),
            Action::WakeUp => {
                self.sim.now = self.told.unwrap_or(self.sim.now).max(self.sim.now);
                Ok(())
            }
            Action::Oversleep => {
                self.sim.now = self.sim.now.plus_nanos(amount % (20 * MS));
                Ok(())
            }
        }
    }

    pub(super) fn add_batch(&mut self, amount: u64) -> Result<(), String> {
        if self.batches.len() < BATCHES.min(self.lanes) {
            let (whole, per_lane) = (
                some_limits(&mut self.random),
                that_may_learn(&mut self.random),
            );
            let deadline = amount
                .is_multiple_of(3)
                .then(|| self.sim.now.plus_nanos(amount % (100 * MS)));
            let limits = BatchLimits {
                overall: whole,
                per_lane,
                deadline,
            };
            let batch = self.sim.batch(limits);
            self.per_batch.insert(batch, Meter::new(whole));
            self.batches.push((batch, limits));
        }
        Ok(())
    }

    fn remove_batch(&mut self, which: usize) -> Result<(), String> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let (batch, _) = self.batches.swap_remove(which % self.batches.len());
        let given_back = self.sim.schedule.remove_batch(batch);
        self.give_back(given_back, |waited| waited.batch == batch)
    }

    /// What was given back is what was meant, and all of it.
    pub(super) fn give_back(
        &mut self,
        jobs: Vec<TestJob>,
        is_meant: impl Fn(&Waiting) -> bool,
    ) -> Result<(), String> {
        for job in jobs {
            let waited = self
                .waiting
                .remove(&job.id)
                .ok_or(format!("{} was given back and not waiting", job.id))?;
            if !is_meant(&waited) {
                return Err(format!("{} was given back with others", job.id));
            }
        }
        self.take_rejected()?;
        match self.waiting.values().find(|waiting| is_meant(waiting)) {
            Some(lost) => Err(format!("{} was not given back", lost.job.id)),
            None => Ok(()),
        }
    }

    fn push(&mut self, which: usize, lane: usize) -> Result<(), String> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let (batch, limits) = self.batches[which % self.batches.len()];
        let level = [
            PriorityLevel::High,
            PriorityLevel::Normal,
            PriorityLevel::Normal,
            PriorityLevel::Low,
        ][which / 7 % 4];
        let job = self.sim.push_at(batch, &self.names[lane], level);
        self.waiting.insert(
            job.id,
            Waiting {
                job,
                batch,
                lane,
                not_before: Time::default(),
                again: false,
                last: false,
            },
        );
        self.per_pair
            .entry((batch, lane))
            .or_insert_with(|| Meter::new(limits.per_lane));
        let schedule = &self.sim.schedule;
        let known = schedule.lane_by_key.get(&*self.names[lane]);
        let is_new = known.is_some_and(|&lane| schedule.lanes[lane].breaker.is_pristine());
        if is_new && !self.outages[lane].is_pristine() {
            self.outages[lane].forgotten(self.sim.now)?;
        }
        self.take_rejected()
    }

    fn next(&mut self) -> Result<(), String> {
        self.begin_last_rounds(false)?;
        let could: Vec<Pair> = self.pairs_that_could_start();
        match self.sim.next() {
            StartDecision::Start(slot, job) => {
                self.told = None;
                self.take_rejected()?;
                let mut could = could;
                if self.begin_last_rounds(true)?
                    && let Some(waiting) = self.waiting.get(&job.id)
                {
                    could.push(waiting.pair());
                }
                self.check_start(slot, job, &could)
            }
            StartDecision::WaitUntil(at) => {
                self.told = Some(at);
                self.take_rejected()?;
                self.begin_last_rounds(true)?;
                self.check_wait(Some(at))
            }
            StartDecision::Idle => {
                self.told = None;
                self.take_rejected()?;
                self.begin_last_rounds(true)?;
                self.check_wait(None)
            }
        }
    }

    fn settle(&mut self, which: usize, amount: u64) -> Result<(), String> {
        if let Some((slot, job, lane)) = self.leave(which) {
            self.allow(&slot, &job, lane, amount);
            self.learn(&slot, &job, lane, amount);
            self.sim.schedule.settle(slot);
        }
        Ok(())
    }

    /// Some hosts say now and then what they allow.
    fn allow(&mut self, slot: &Slot, job: &TestJob, lane: usize, amount: u64) {
        if !lane.is_multiple_of(3) || !amount.is_multiple_of(5) {
            return;
        }
        let (left, reset) = (amount / 5 % 6, 1 + amount / 30 % (60 * MS));
        let (now, number) = (self.sim.now, self.number_of[&job.id]);
        self.sim
            .schedule
            .observe_server_limit(slot, left, reset, now);
        let before = &mut self.allowed[lane];
        if number >= before.number {
            let until = now.plus_nanos(reset);
            *before = Allowed {
                number,
                last: number + left,
                // Two instants as close as these are taken for one, and for the earlier.
                until: match before.until > now {
                    true => until.min(before.until),
                    false => until,
                },
            };
        }
    }

    /// What there was to learn of an exchange, if anything.
    fn learn(&mut self, slot: &Slot, job: &TestJob, lane: usize, amount: u64) {
        let health = match amount % 8 {
            0..=2 => Some(Health::Unreachable),
            3..=5 => Some(Health::Healthy),
            6 => Some(Health::Overloaded),
            _ => None,
        };
        if let Some(health) = health {
            let evidence = HostObservation {
                health,
                latency: (!amount.is_multiple_of(5)).then_some(amount % (100 * MS)),
            };
            self.sim
                .schedule
                .record_observation(slot, evidence, self.sim.now);
            self.outages[lane].learn(job.id, health, self.sim.now);
        }
        self.outages[lane].gone(job.id);
    }

    fn leave(&mut self, which: usize) -> Option<(Slot, TestJob, usize)> {
        let count = self.in_flight.len();
        let (slot, job, lane) = (count > 0).then(|| self.in_flight.swap_remove(which % count))?;
        let batch = slot.batch();
        let meters = [
            self.per_batch.get_mut(&batch),
            self.per_pair.get_mut(&(batch, lane)),
        ];
        for meter in meters
            .into_iter()
            .flatten()
            .chain([&mut self.whole, &mut self.per_lane[lane]])
        {
            meter.in_flight -= 1;
        }
        Some((slot, job, lane))
    }

    fn retry(&mut self, which: usize, amount: u64) -> Result<(), String> {
        let Some((slot, job, lane)) = self.leave(which) else {
            return Ok(());
        };
        self.allow(&slot, &job, lane, amount / 3);
        self.learn(&slot, &job, lane, amount / 8);
        let (now, batch) = (self.sim.now, slot.batch());
        let at = if amount.is_multiple_of(3) {
            now
        } else {
            now.plus_nanos(amount % (30 * MS))
        };
        let is_open = self.batches.iter().any(|(id, _)| *id == batch);
        let last = amount.is_multiple_of(5);
        let at = if last { now } else { at };
        let may = is_open
            && !self.is_closed((batch, lane))
            && self.deadline_of(batch).is_none_or(|deadline| at < deadline);
        let taken = match last {
            true => self.sim.settle_last(slot, job.clone()),
            false => self.sim.settle_again(slot, job.clone(), at),
        };
        if taken != may {
            return Err(format!(
                "{} again at {at:?}: wrongly taken or given back",
                job.id
            ));
        }
        if may {
            self.waiting.insert(
                job.id,
                Waiting {
                    job,
                    batch,
                    lane,
                    not_before: at,
                    again: true,
                    last,
                },
            );
        }
        Ok(())
    }

    fn pause(&mut self, which: usize, amount: u64) -> Result<(), String> {
        if let Some((slot, _, lane)) = self.in_flight.get(which % self.in_flight.len().max(1)) {
            let until = self.sim.now.plus_nanos(amount % (50 * MS));
            self.sim.schedule.pause_lane(slot, until);
            self.paused[*lane] = self.paused[*lane].max(until);
        }
        Ok(())
    }

    fn take_rejected(&mut self) -> Result<(), String> {
        let now = self.sim.now;
        for (_, id) in self.sim.unreachable.drain(..) {
            let waited = self
                .waiting
                .remove(&id)
                .ok_or(format!("{id} was refused and not waiting"))?;
            if !self.outages[waited.lane].refuses(now) {
                return Err(format!("{id} was refused, though its host is not down"));
            }
        }
        let direct = self.sim.schedule.take_rejected();
        let refused: Vec<usize> = self.sim.refused.drain(..).map(|(_, id)| id).collect();
        for id in refused
            .into_iter()
            .chain(direct.into_iter().map(|job| job.id))
        {
            let waited = self
                .waiting
                .remove(&id)
                .ok_or(format!("{id} was refused and not waiting"))?;
            let deadline = self.deadline_of(waited.batch);
            let too_late = deadline
                .is_some_and(|deadline| deadline <= now || deadline <= self.best_start(&waited));
            if !waited.job.is_abandoned() && !too_late && !self.is_closed(waited.pair()) {
                return Err(format!("{id} was refused for no reason"));
            }
        }
        Ok(())
    }

    /// Lets all that is left run to its end, and counts.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        for batch in std::mem::take(&mut self.held) {
            self.sim.schedule.release_batch(batch);
        }
        while !self.in_flight.is_empty() || self.sim.schedule.queued_count > 0 {
            self.next()?;
            if self.told.is_some()
                || self.sim.schedule.queued_count == 0
                || self.in_flight.len() > 3
            {
                let amount = self.random.u64(..);
                self.settle(0, amount)?;
            }
            match self.told {
                Some(told) => self.sim.now = told,
                None if self.in_flight.is_empty() => self.next()?,
                None => {
                    let amount = self.random.u64(..);
                    self.settle(0, amount)?;
                }
            }
        }
        if let Some(lost) = self.waiting.keys().next() {
            return Err(format!("{lost} was lost"));
        }
        let pairs = self.per_pair.values().chain(self.per_batch.values());
        for meter in pairs.chain(&self.per_lane).chain([&self.whole]) {
            meter.check()?;
        }
        while !self.batches.is_empty() {
            self.remove_batch(0)?;
        }
        let schedule = &self.sim.schedule;
        let left = schedule.batches.len()
            + schedule.queues.len()
            + schedule.delayed_jobs.len()
            + schedule.runnable_batches.len();
        let in_line: usize = schedule
            .lanes
            .iter()
            .map(|(_, lane)| lane.parked_queues.len())
            .sum();
        if left + in_line > 0 {
            Err(format!("{left} and {in_line} things are left"))
        } else {
            Ok(())
        }
    }
}
