//! Calls a schedule with budgets at random, and checks each step against a model that computes the
//! levels from the list of all charges.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;

use super::super::budget::Ticket;
use super::super::{
    BatchId, BatchLimits, BudgetAnnouncement, BudgetConfig, BudgetKind, BudgetRate, BudgetScope,
    Charge, CostOutcome, GateLimits, LaneLimits, RouteKey, Schedulable, Schedule, Slot,
    StartDecision, TenantId, Time, UnaffordableReason,
};
use super::simulation::{MS, NO_LIMITS, concurrency};

/// The number of steps, unless the environment variable `FANOUT_BUDGET_STEPS` sets another one.
const STEPS: usize = 60_000;
const STEPS_PER_WALK: usize = 400;

const NAMES: [&str; 3] = ["requests", "tokens", "cents"];
const LANES: usize = 3;
const BATCHES: usize = 3;

#[derive(Debug)]
struct WalkJob {
    id: usize,
    costs: [u64; 3],
    abandoned: Rc<Cell<bool>>,
    carried_charge: Option<Charge>,
}

impl Schedulable for WalkJob {
    fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    fn stated_cost(&self, budget_name: &str) -> Option<u64> {
        let index = NAMES.iter().position(|name| *name == budget_name);
        index.map(|index| self.costs[index])
    }

    fn has_carried_charge(&self) -> bool {
        self.carried_charge.is_some()
    }

    fn take_carried_charge(&mut self) -> Option<Charge> {
        self.carried_charge.take()
    }
}

/// The model of one budget. Amounts are in units × period, so that nothing is rounded.
struct ModelBudget {
    config: BudgetConfig,
    /// `None`: all jobs.
    lane: Option<usize>,
    /// `None`: all batches.
    batches: Option<Vec<BatchId>>,
    is_of_tenant: bool,
    level: i128,
    updated_at: Time,
    outstanding: u64,
    /// The sum of all charges minus all refunds, minus the refill up to now, and its minimum.
    lead: i128,
    lowest_lead: i128,
    /// The sum of all charges.
    charged_total: u64,
    /// The start number of the request whose response has announced a level last.
    announcement_start_seq: u64,
    /// The rest of the server's window, and its end.
    server_window: Option<(u64, Time)>,
}

impl ModelBudget {
    fn new(
        config: &BudgetConfig,
        lane: Option<usize>,
        batches: Option<Vec<BatchId>>,
        now: Time,
    ) -> Self {
        let mut budget = Self {
            config: config.clone(),
            lane,
            batches,
            is_of_tenant: false,
            level: 0,
            updated_at: now,
            outstanding: 0,
            lead: 0,
            lowest_lead: 0,
            charged_total: 0,
            announcement_start_seq: 0,
            server_window: None,
        };
        budget.level = budget.capacity();
        budget
    }

    fn period(&self) -> i128 {
        match self.config.kind {
            BudgetKind::Rate(rate) => rate.period_nanos.get().into(),
            BudgetKind::Total(_) => 1,
        }
    }

    fn units_per_period(&self) -> i128 {
        match self.config.kind {
            BudgetKind::Rate(rate) => rate.units.get().into(),
            BudgetKind::Total(_) => 0,
        }
    }

    fn capacity(&self) -> i128 {
        let units = match self.config.kind {
            BudgetKind::Rate(rate) => rate.capacity,
            BudgetKind::Total(units) => units,
        };
        i128::from(units) * self.period()
    }

    fn advance(&mut self, now: Time) {
        let refill = i128::from(now.nanos_since(self.updated_at)) * self.units_per_period();
        self.level = self.capacity().min(self.level + refill);
        self.lead -= refill;
        self.lowest_lead = self.lowest_lead.min(self.lead);
        self.updated_at = now;
        self.server_window = self.server_window.filter(|&(_, end)| now < end);
    }

    /// Takes the cost of a start. In every window, the starts take at most the capacity and the
    /// refill of the window, plus what was refunded and minus the debt in it.
    fn start(&mut self, cost: u64) -> Result<(), String> {
        let scaled = i128::from(cost) * self.period();
        self.outstanding += cost;
        self.level -= scaled;
        self.lead += scaled;
        self.charged_total += cost;
        if let Some((remaining, _)) = &mut self.server_window {
            let left = remaining.checked_sub(cost);
            *remaining = left.ok_or(format!("{} exceeds the window", self.config.name))?;
        }
        if cost > 0 && (self.level < 0 || self.lead - self.lowest_lead > self.capacity()) {
            let (name, level) = (&self.config.name, self.level);
            return Err(format!("{name} is exceeded: {level}"));
        }
        Ok(())
    }

    fn settle(&mut self, estimate: u64, cost: u64) {
        let refund = (i128::from(estimate) - i128::from(cost)) * self.period();
        self.outstanding -= estimate;
        let extra = cost.saturating_sub(estimate);
        self.charged_total += extra;
        if let Some((remaining, _)) = &mut self.server_window {
            *remaining = remaining.saturating_sub(extra);
        }
        self.level = self.capacity().min(self.level + refund);
        self.lead -= refund;
        self.lowest_lead = self.lowest_lead.min(self.lead);
    }

    fn is_unaffordable(&self, cost: u64) -> bool {
        let scaled = i128::from(cost) * self.period();
        let outstanding = i128::from(self.outstanding);
        let is_total = matches!(self.config.kind, BudgetKind::Total(_));
        cost > 0 && (scaled > self.capacity() || is_total && scaled > self.level + outstanding)
    }

    /// The instant from which the level covers a cost. `None` if it never does by itself.
    fn earliest(&self, cost: u64, now: Time) -> Option<Time> {
        let missing = i128::from(cost) * self.period() - self.level;
        if cost == 0 {
            return Some(now);
        }
        let window_end = self
            .server_window
            .filter(|&(remaining, _)| cost > remaining)
            .map(|(_, end)| end);
        let rate = self.units_per_period();
        let refilled_at = if missing <= 0 {
            Some(now)
        } else {
            (rate > 0).then(|| now.plus_nanos(((missing + rate - 1) / rate) as u64))
        };
        refilled_at.max(window_end)
    }

    /// Lowers the level to an announced one.
    fn announce(&mut self, start_seq: u64, remaining: u64, window: Option<Time>) {
        if start_seq >= self.announcement_start_seq {
            self.announcement_start_seq = start_seq;
            let announced = i128::from(remaining) * self.period();
            let lowered = (self.level - announced).max(0);
            self.level -= lowered;
            self.lead += lowered;
            self.server_window = window.map(|end| (remaining, end));
        }
    }
}

#[derive(Debug)]
struct Waiting {
    batch: BatchId,
    lane: usize,
    costs: [u64; 3],
    has_carried_charge: bool,
    not_before: Time,
    /// Orders the ready jobs of one queue: jobs with a carried charge come first, the last of them
    /// at the front, and then requeued jobs. `None`: in a backoff.
    order: Option<(u8, i64)>,
    /// The number of the requeue, which orders the ends of backoffs.
    requeue_number: usize,
    abandoned: Rc<Cell<bool>>,
}

struct InFlight {
    slot: Slot,
    job: WalkJob,
    lane: usize,
    costs: [u64; 3],
    /// [`ModelBudget::charged_total`] of the budgets of the lane, after the start.
    charged_totals: [u64; 3],
}

struct Walk {
    schedule: Schedule<WalkJob>,
    random: Rng,
    now: Time,
    lane_limits: Vec<LaneLimits>,
    /// Half of the batches belong to this tenant.
    tenant: TenantId,
    budgets: Vec<ModelBudget>,
    batches: Vec<(BatchId, usize, bool)>,
    waiting: BTreeMap<usize, Waiting>,
    in_flight: Vec<InFlight>,
    /// The costs of carried charges, and the totals of [`InFlight::charged_totals`].
    carried: BTreeMap<usize, ([u64; 3], [u64; 3])>,
    next_id: usize,
    wake_up: Option<Time>,
    done: usize,
    requeue_count: usize,
}

fn random_budgets(random: &mut Rng) -> Vec<BudgetConfig> {
    let mut budgets = Vec::new();
    for name in NAMES {
        if random.bool() {
            continue;
        }
        let kind = if name == "cents" {
            BudgetKind::Total(random.u64(1..200))
        } else {
            BudgetKind::Rate(BudgetRate {
                units: NonZeroU64::new(random.u64(1..50)).unwrap(),
                period_nanos: NonZeroU64::new(random.u64(1..60) * MS).unwrap(),
                capacity: random.u64(1..30),
            })
        };
        budgets.push(BudgetConfig {
            name: name.into(),
            kind,
            default_cost: 0,
        });
    }
    budgets
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut schedule = Schedule::new(concurrency([3, 8, usize::MAX][random.usize(..3)]));
        let overall = random_budgets(&mut random);
        schedule.add_overall_budgets(&overall);
        let now = Time::default();
        let new = |config| ModelBudget::new(config, None, None, now);
        let mut budgets: Vec<ModelBudget> = overall.iter().map(new).collect();
        let tenant = schedule.add_tenant(GateLimits::UNLIMITED);
        let of_tenant = random_budgets(&mut random);
        schedule.add_tenant_budgets(tenant, &of_tenant);
        budgets.extend(of_tenant.iter().map(|config| ModelBudget {
            is_of_tenant: true,
            ..ModelBudget::new(config, None, Some(Vec::new()), now)
        }));
        let lane_limits: Vec<LaneLimits> = (0..LANES)
            .map(|_| LaneLimits {
                budgets: Some(random_budgets(&mut random).into()),
                ..concurrency([1, 4, usize::MAX][random.usize(..3)]).into()
            })
            .collect();
        for (lane, limits) in lane_limits.iter().enumerate() {
            let configs = limits.budgets.as_deref().unwrap();
            budgets.extend(
                configs
                    .iter()
                    .map(|config| ModelBudget::new(config, Some(lane), None, now)),
            );
        }
        Self {
            schedule,
            random,
            now,
            lane_limits,
            tenant,
            budgets,
            batches: Vec::new(),
            waiting: BTreeMap::new(),
            in_flight: Vec::new(),
            carried: BTreeMap::new(),
            next_id: 0,
            wake_up: None,
            done: 0,
            requeue_count: 0,
        }
    }

    /// The budgets that apply to a job of this batch and lane.
    fn budgets_of(budget: &ModelBudget, batch: BatchId, lane: usize) -> bool {
        let batches = budget.batches.as_ref();
        budget.lane.is_none_or(|of| of == lane)
            && batches.is_none_or(|batches| batches.contains(&batch))
    }

    fn applying(&self, batch: BatchId, lane: usize) -> impl Iterator<Item = &ModelBudget> {
        let applies = move |budget: &&ModelBudget| Self::budgets_of(budget, batch, lane);
        self.budgets.iter().filter(applies)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.u8(..32) {
            0..=7 => self.push(),
            8..=15 => self.start()?,
            16..=20 => self.settle()?,
            21..=22 => self.requeue()?,
            23 => self.carry()?,
            24 => self.abandon()?,
            25 if self.random.bool() => self.add_batch(),
            25 => self.toggle_hold(),
            26 if self.random.u8(..4) == 0 => self.remove_batch()?,
            26 => self.announce()?,
            27 if self.random.u8(..4) == 0 => self.close_lane()?,
            28..=29 => self.advance(self.wake_up.unwrap_or(self.now)),
            30 => {
                let nanos = self.random.u64(..5 * MS);
                self.advance(self.now.plus_nanos(nanos));
            }
            _ => self.start()?,
        }
        self.take_ended()?;
        self.check_levels()
    }

    fn advance(&mut self, to: Time) {
        self.now = self.now.max(to);
        for budget in &mut self.budgets {
            budget.advance(self.now);
        }
    }

    fn add_batch(&mut self) {
        if self.batches.len() == BATCHES {
            return;
        }
        let limit = [1, 3, usize::MAX][self.random.usize(..3)];
        let limits = BatchLimits {
            overall_limits: concurrency(limit),
            ..NO_LIMITS
        };
        let batch = self.schedule.add_batch(limits);
        let configs = random_budgets(&mut self.random);
        self.schedule.add_batch_budgets(batch, &configs);
        let new = |config| ModelBudget::new(config, None, Some(vec![batch]), self.now);
        self.budgets.extend(configs.iter().map(new));
        if self.random.bool() {
            self.schedule.add_batch_to_tenant(batch, self.tenant);
            let of_tenant = self.budgets.iter_mut().filter(|budget| budget.is_of_tenant);
            of_tenant.for_each(|budget| budget.batches.get_or_insert_default().push(batch));
        }
        self.batches.push((batch, limit, false));
    }

    fn push(&mut self) {
        if self.batches.is_empty() {
            self.add_batch();
        }
        let batch = self.batches[self.random.usize(..self.batches.len())].0;
        let lane = self.random.usize(..LANES);
        let id = self.next_id;
        self.next_id += 1;
        let largest = [3, 10, 35][self.random.usize(..3)];
        let costs = [
            self.random.u64(..2),
            self.random.u64(..largest),
            self.random.u64(..largest) / 2,
        ];
        let abandoned = Rc::<Cell<bool>>::default();
        let job = WalkJob {
            id,
            costs,
            abandoned: Rc::clone(&abandoned),
            carried_charge: None,
        };
        let key = lane.to_string();
        let limits = || self.lane_limits[lane].clone();
        self.schedule
            .push(batch, RouteKey::direct(&key), limits, job, self.now);
        self.waiting.insert(
            id,
            Waiting {
                batch,
                lane,
                costs,
                has_carried_charge: false,
                not_before: self.now,
                order: Some((2, id as i64)),
                requeue_number: 0,
                abandoned,
            },
        );
    }

    fn start(&mut self) -> Result<(), String> {
        self.end_backoffs();
        let carried_count = self.carried.len();
        let decision = self.schedule.start_next_job(self.now);
        self.take_ended()?;
        self.wake_up = None;
        let has_settled_carried_charge = self.carried.len() < carried_count;
        match decision {
            StartDecision::Start(slot, job) => self.record_start(slot, job),
            // The settlement may have made jobs ready to start.
            _ if has_settled_carried_charge => self.start(),
            StartDecision::WaitUntil(at) => {
                self.wake_up = Some(at);
                self.check_nothing_could_start(Some(at))
            }
            StartDecision::WaitForChange => self.check_nothing_could_start(None),
        }
    }

    fn end_backoffs(&mut self) {
        let now = self.now;
        let is_due = |waiting: &&mut Waiting| waiting.order.is_none() && waiting.not_before <= now;
        let mut due: Vec<&mut Waiting> = self.waiting.values_mut().filter(is_due).collect();
        due.sort_by_key(|waiting| (waiting.not_before, waiting.requeue_number));
        for waiting in due {
            self.requeue_count += 1;
            let order = order_of_requeue(waiting.has_carried_charge, self.requeue_count);
            waiting.order = Some(order);
        }
    }

    fn record_start(&mut self, slot: Slot, job: WalkJob) -> Result<(), String> {
        let id = job.id;
        let started = self
            .waiting
            .remove(&id)
            .ok_or(format!("{id} did not wait"))?;
        if started.abandoned.get() || started.not_before > self.now || self.is_held(started.batch) {
            return Err(format!("{id} should not have started"));
        }
        let in_flight_of = |is_same: &dyn Fn(&InFlight) -> bool| {
            self.in_flight.iter().filter(|other| is_same(other)).count()
        };
        let in_lane = in_flight_of(&|other| other.lane == started.lane);
        if in_lane >= self.lane_limits[started.lane].gate_limits.concurrency {
            return Err(format!("{id} started in a full lane"));
        }
        if !started.has_carried_charge {
            let (batch, lane) = (started.batch, started.lane);
            let cost_of = |budget: &ModelBudget| cost_on(&started.costs, budget);
            for budget in &mut self.budgets {
                if Self::budgets_of(budget, batch, lane) {
                    budget.start(cost_of(budget))?;
                }
            }
        }
        let mut charged_totals = [0; 3];
        for budget in self.budgets.iter_mut() {
            if budget.lane != Some(started.lane) {
                continue;
            }
            if slot.start_seq == 1 {
                // The lane was evicted, after its budgets were full.
                budget.announcement_start_seq = 0;
            }
            charged_totals[name_index(&budget.config.name)] = budget.charged_total;
        }
        if let Some((_, totals)) = self.carried.remove(&id) {
            charged_totals = totals;
        }
        self.in_flight.push(InFlight {
            charged_totals,
            slot,
            lane: started.lane,
            costs: started.costs,
            job,
        });
        Ok(())
    }

    fn is_held(&self, batch: BatchId) -> bool {
        let of = self.batches.iter().find(|(id, ..)| *id == batch);
        of.is_some_and(|&(.., is_held)| is_held)
    }

    /// Checks that each queue is empty, or that its first job waits for a reason, and that no such
    /// reason ends before `announced`.
    fn check_nothing_could_start(&self, announced: Option<Time>) -> Result<(), String> {
        if self.in_flight.len() >= self.overall_concurrency() {
            return Ok(());
        }
        let mut firsts: BTreeMap<(usize, usize), (usize, &Waiting)> = BTreeMap::new();
        for (&id, waiting) in &self.waiting {
            let Some(order) = waiting.order else {
                let is_announced = announced.is_some_and(|at| at <= waiting.not_before);
                if !is_announced {
                    return Err(format!("the backoff of {id} is not announced"));
                }
                continue;
            };
            let key = (waiting.batch.index(), waiting.lane);
            let first = firsts.entry(key).or_insert((id, waiting));
            if Some(order) < first.1.order {
                *first = (id, waiting);
            }
        }
        let could_start = |waiting: &Waiting| -> Option<Time> {
            let in_lane = |other: &&InFlight| other.lane == waiting.lane;
            let in_batch = |other: &&InFlight| other.slot.batch_id() == waiting.batch;
            let count = |is_same: &dyn Fn(&&InFlight) -> bool| {
                self.in_flight.iter().filter(|other| is_same(other)).count()
            };
            let batch = self.batches.iter().find(|(id, ..)| *id == waiting.batch)?;
            if count(&in_lane) >= self.lane_limits[waiting.lane].gate_limits.concurrency
                || count(&in_batch) >= batch.1
                || batch.2
            {
                return None;
            }
            if waiting.has_carried_charge {
                return Some(self.now);
            }
            let mut at = self.now;
            for budget in self.applying(waiting.batch, waiting.lane) {
                at = at.max(budget.earliest(cost_on(&waiting.costs, budget), self.now)?);
            }
            Some(at)
        };
        for &(id, first) in firsts.values() {
            let Some(at) = could_start(first) else {
                continue;
            };
            if announced.is_some_and(|announced| announced <= at) {
                continue;
            }
            let ticket = self.ticket_of(first);
            let competes = |other: &Waiting| {
                self.ticket_of(other) < ticket
                    && self.applying(first.batch, first.lane).any(|budget| {
                        Self::budgets_of(budget, other.batch, other.lane)
                            && cost_on(&first.costs, budget) > 0
                            && cost_on(&other.costs, budget) > 0
                    })
            };
            if !firsts.values().any(|&(_, other)| competes(other)) {
                return Err(format!(
                    "{id} could start at {at:?}, but {announced:?} was announced at {:?}: {first:?}",
                    self.now
                ));
            }
        }
        Ok(())
    }

    fn ticket_of(&self, waiting: &Waiting) -> Ticket {
        let schedule = &self.schedule;
        let lane = schedule.lane_by_key[&*waiting.lane.to_string()];
        let batch = schedule.find_batch(waiting.batch).unwrap();
        let queue = schedule.shares[batch.share_by_lane[&lane]]
            .queues
            .index_of(None);
        schedule.ticket_of(queue.unwrap())
    }

    fn overall_concurrency(&self) -> usize {
        let mut gate = self.schedule.gate.clone();
        let mut room = 0;
        while !gate.is_limit_reached() && room < 1_000 {
            gate.record_start(self.now, false);
            room += 1;
        }
        self.in_flight.len() + room
    }

    fn take_in_flight(&mut self) -> Option<InFlight> {
        let count = self.in_flight.len();
        (count > 0).then(|| {
            let index = self.random.usize(..count);
            self.in_flight.swap_remove(index)
        })
    }

    /// Settles the costs of a request with a random outcome, in the schedule and in the model.
    fn settle_costs(&mut self, ended: &InFlight) {
        let mut costs = ended.costs;
        let mut listed: Vec<(Arc<str>, u64)> = Vec::new();
        let outcome = match self.random.u8(..4) {
            0 => {
                costs = [0; 3];
                CostOutcome::Unsent
            }
            1 => CostOutcome::Unknown,
            _ => {
                for (index, name) in NAMES.into_iter().enumerate() {
                    if self.random.bool() {
                        costs[index] = self.random.u64(..=2 * costs[index] + 1);
                        listed.push((name.into(), costs[index]));
                    }
                }
                CostOutcome::Actual(listed)
            }
        };
        self.schedule.settle_costs(&ended.slot, &outcome, self.now);
        self.settle_in_model(ended.slot.batch_id(), ended.lane, ended.costs, costs);
    }

    fn settle_in_model(&mut self, batch: BatchId, lane: usize, charged: [u64; 3], costs: [u64; 3]) {
        for budget in &mut self.budgets {
            if Self::budgets_of(budget, batch, lane) {
                budget.settle(cost_on(&charged, budget), cost_on(&costs, budget));
            }
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        if let Some(ended) = self.take_in_flight() {
            if self.random.u8(..8) == 0 {
                let (batch, costs) = (ended.slot.batch_id(), ended.costs);
                self.settle_in_model(batch, ended.lane, costs, costs);
            } else {
                self.settle_costs(&ended);
            }
            let batch = ended.slot.batch_id();
            self.schedule.settle(ended.slot);
            self.forget_batch_if_removed(batch);
            self.done += 1;
        }
        Ok(())
    }

    /// Lets a request in flight receive the announcement of its host.
    fn announce(&mut self) -> Result<(), String> {
        let count = self.in_flight.len();
        if count == 0 {
            return Ok(());
        }
        let request = &self.in_flight[self.random.usize(..count)];
        let name = self.random.usize(..NAMES.len());
        let remaining = self.random.u64(..40);
        let reset_after_nanos = self.random.bool().then(|| self.random.u64(..80 * MS));
        let announcement = BudgetAnnouncement {
            budget_name: NAMES[name],
            limit: None,
            remaining,
            reset_after_nanos,
        };
        let (schedule, now) = (&mut self.schedule, self.now);
        let is_applied = schedule.apply_budget_announcement(&request.slot, &announcement, now);
        let is_named = |budget: &&mut ModelBudget| {
            budget.lane == Some(request.lane) && *budget.config.name == *NAMES[name]
        };
        let budget = self.budgets.iter_mut().find(is_named);
        let Some((budget, rate)) = budget.and_then(|budget| match budget.config.kind {
            BudgetKind::Rate(rate) => Some((budget, rate)),
            BudgetKind::Total(_) => None,
        }) else {
            return (!is_applied)
                .then_some(())
                .ok_or("a total was announced".into());
        };
        let charged_since = budget.charged_total - request.charged_totals[name];
        let (units, period) = (rate.units.get(), rate.period_nanos.get());
        let refill_time = units.saturating_sub(remaining) * period / units;
        let is_window = |&reset_after: &u64| reset_after < refill_time / 4 * 3;
        let window = reset_after_nanos.filter(is_window);
        budget.announce(
            request.slot.start_seq,
            remaining.saturating_sub(charged_since),
            window.map(|reset_after| now.plus_nanos(reset_after)),
        );
        budget.advance(now);
        is_applied
            .then_some(())
            .ok_or("nothing was announced".into())
    }

    fn requeue(&mut self) -> Result<(), String> {
        let Some(ended) = self.take_in_flight() else {
            return Ok(());
        };
        self.settle_costs(&ended);
        self.requeue_job(ended, false)
    }

    /// Repeats a request without a further charge.
    fn carry(&mut self) -> Result<(), String> {
        let Some(mut ended) = self.take_in_flight() else {
            return Ok(());
        };
        ended.job.carried_charge = self.schedule.take_charge(&ended.slot);
        let is_carried = ended.job.carried_charge.is_some();
        self.requeue_job(ended, is_carried)
    }

    fn requeue_job(&mut self, ended: InFlight, has_carried_charge: bool) -> Result<(), String> {
        self.requeue_count += 1;
        let backoff = [0, 0, self.random.u64(..10 * MS)][self.random.usize(..3)];
        let not_before = self.now.plus_nanos(backoff);
        let (batch, id) = (ended.slot.batch_id(), ended.job.id);
        let (abandoned, costs) = (Rc::clone(&ended.job.abandoned), ended.job.costs);
        if has_carried_charge {
            self.carried.insert(id, (ended.costs, ended.charged_totals));
        }
        let result = self
            .schedule
            .requeue(&ended.slot, ended.job, not_before, self.now);
        self.schedule.settle(ended.slot);
        match result {
            Ok(()) => {
                self.waiting.insert(
                    id,
                    Waiting {
                        batch,
                        lane: ended.lane,
                        costs,
                        has_carried_charge,
                        not_before,
                        order: (backoff == 0)
                            .then_some(order_of_requeue(has_carried_charge, self.requeue_count)),
                        requeue_number: self.requeue_count,
                        abandoned,
                    },
                );
            }
            Err(job) => self.record_end(job, batch, ended.lane)?,
        }
        self.forget_batch_if_removed(batch);
        Ok(())
    }

    /// Records the end of a job that did not start again.
    fn record_end(&mut self, job: WalkJob, batch: BatchId, lane: usize) -> Result<(), String> {
        if let Some(charge) = job.carried_charge {
            let carried = self.carried.remove(&job.id);
            let (costs, _) = carried.ok_or("nothing was carried")?;
            self.schedule.settle_charge_as_estimated(charge);
            self.settle_in_model(batch, lane, costs, costs);
        }
        self.done += 1;
        Ok(())
    }

    fn remove_waiting(&mut self, job: WalkJob) -> Result<Waiting, String> {
        let id = job.id;
        let ended = self
            .waiting
            .remove(&id)
            .ok_or(format!("{id} did not wait"))?;
        self.record_end(job, ended.batch, ended.lane)?;
        Ok(ended)
    }

    fn abandon(&mut self) -> Result<(), String> {
        let count = self.waiting.len();
        if count == 0 {
            return Ok(());
        }
        let selected = self.random.usize(..count);
        if let Some(waiting) = self.waiting.values().nth(selected) {
            waiting.abandoned.set(true);
            let batch = waiting.batch;
            for job in self.schedule.note_abandoned_job_and_remove_if_many(batch) {
                self.remove_waiting(job)?;
            }
        }
        Ok(())
    }

    fn toggle_hold(&mut self) {
        let count = self.batches.len();
        if count > 0 {
            let index = self.random.usize(..count);
            let (batch, _, is_held) = &mut self.batches[index];
            if *is_held {
                self.schedule.release_batch(*batch);
            } else {
                self.schedule.hold_batch(*batch);
            }
            *is_held = !*is_held;
        }
    }

    fn remove_batch(&mut self) -> Result<(), String> {
        let count = self.batches.len();
        if count > 0 {
            let index = self.random.usize(..count);
            let (batch, ..) = self.batches.swap_remove(index);
            for job in self.schedule.remove_batch(batch) {
                self.remove_waiting(job)?;
            }
            if self.waiting.values().any(|waiting| waiting.batch == batch) {
                return Err("a job of a removed batch was lost".into());
            }
            self.forget_batch_if_removed(batch);
        }
        Ok(())
    }

    /// Removes the budgets of a batch once its last request has ended.
    fn forget_batch_if_removed(&mut self, batch: BatchId) {
        let is_open = self.batches.iter().any(|(id, ..)| *id == batch);
        let mut in_flight = self.in_flight.iter();
        if !is_open && !in_flight.any(|other| other.slot.batch_id() == batch) {
            let is_of_batch = |budget: &ModelBudget| {
                !budget.is_of_tenant && budget.batches.as_deref() == Some(&[batch])
            };
            self.budgets.retain(|budget| !is_of_batch(budget));
        }
    }

    fn close_lane(&mut self) -> Result<(), String> {
        let count = self.batches.len();
        if count > 0 {
            let (batch, ..) = self.batches[self.random.usize(..count)];
            let lane = self.random.usize(..LANES).to_string();
            for job in self
                .schedule
                .close_lane_of_batch_and_take_queued_jobs(batch, &lane)
            {
                self.remove_waiting(job)?;
            }
        }
        Ok(())
    }

    /// Takes the jobs that will not start, and checks their reasons.
    fn take_ended(&mut self) -> Result<(), String> {
        for job in self.schedule.take_rejected_jobs() {
            let lane = self.waiting.get(&job.id).map(|waiting| waiting.lane);
            let batch = self.waiting.get(&job.id).map(|waiting| waiting.batch);
            let lane = lane.map(|lane| lane.to_string());
            let is_closed = batch.is_some_and(|batch| {
                self.schedule
                    .is_batch_or_lane_closed(batch, lane.as_deref())
            });
            let ended = self.remove_waiting(job)?;
            if !ended.abandoned.get() && !is_closed {
                return Err(format!("{ended:?} was rejected"));
            }
        }
        for unaffordable in self.schedule.take_unaffordable_jobs() {
            let ended = self.remove_waiting(unaffordable.job)?;
            let is_blamed = |budget: &&ModelBudget| {
                budget.config.name == unaffordable.budget_name
                    && budget.is_unaffordable(cost_on(&ended.costs, budget))
                    && (unaffordable.reason == UnaffordableReason::AboveCapacity)
                        == matches!(budget.config.kind, BudgetKind::Rate(_))
            };
            if !self
                .applying(ended.batch, ended.lane)
                .any(|budget| is_blamed(&budget))
            {
                return Err(format!("{ended:?} was affordable"));
            }
        }
        Ok(())
    }

    fn check_levels(&self) -> Result<(), String> {
        for level in self.schedule.budget_levels(self.now) {
            let is_same = |budget: &&ModelBudget| {
                let batches = budget.batches.as_deref();
                let has_scope = match &level.scope {
                    BudgetScope::Overall => budget.lane.is_none() && batches.is_none(),
                    BudgetScope::Tenant(_) => budget.is_of_tenant,
                    BudgetScope::Batch(batch) => !budget.is_of_tenant && batches == Some(&[*batch]),
                    BudgetScope::Lane(lane) => {
                        budget.lane.map(|lane| lane.to_string()).as_deref() == Some(lane)
                    }
                };
                has_scope && budget.config.name == level.name
            };
            let budget = self.budgets.iter().find(is_same).ok_or("unknown budget")?;
            let mut expected = budget.level.div_euclid(budget.period());
            if let Some((remaining, _)) = budget.server_window {
                expected = expected.min(remaining.into());
            }
            if expected != i128::from(level.level) {
                return Err(format!("{level:?}, expected {expected}"));
            }
        }
        Ok(())
    }

    /// Runs all jobs to their ends.
    fn finish(&mut self) -> Result<(), String> {
        for (batch, _, is_held) in &mut self.batches {
            if std::mem::take(is_held) {
                self.schedule.release_batch(*batch);
            }
        }
        while !self.waiting.is_empty() || !self.in_flight.is_empty() {
            self.start()?;
            match self.wake_up {
                Some(at) if self.random.bool() => self.advance(at),
                _ => self.settle()?,
            }
            if self.wake_up.is_none() && self.in_flight.is_empty() && !self.waiting.is_empty() {
                self.start()?;
                if self.wake_up.is_none() && self.in_flight.is_empty() && !self.waiting.is_empty() {
                    return Err(format!("nothing starts: {:?}", self.waiting));
                }
            }
            self.take_ended()?;
            self.check_levels()?;
        }
        if self.done != self.next_id {
            return Err(format!("{} of {} jobs have ended", self.done, self.next_id));
        }
        while let Some((batch, ..)) = self.batches.pop() {
            self.schedule.remove_batch(batch);
        }
        let parked: usize = self
            .schedule
            .budget_levels(self.now)
            .iter()
            .map(|level| level.parked_queue_count)
            .sum();
        if parked + self.schedule.queues.len() > 0 {
            return Err(format!("{parked} queues are left"));
        }
        Ok(())
    }
}

/// The order of a requeued job among the ready jobs of its queue.
fn order_of_requeue(has_carried_charge: bool, number: usize) -> (u8, i64) {
    let number = number as i64;
    if has_carried_charge {
        (0, -number)
    } else {
        (1, number)
    }
}

fn cost_on(costs: &[u64; 3], budget: &ModelBudget) -> u64 {
    costs[name_index(&budget.config.name)]
}

fn name_index(name: &str) -> usize {
    NAMES.iter().position(|other| *other == name).unwrap()
}

#[test]
fn random_walks_keep_every_budget() {
    let steps = std::env::var("FANOUT_BUDGET_STEPS");
    let steps = steps.map_or(STEPS, |steps| steps.parse().unwrap());
    for seed in 0..steps.div_ceil(STEPS_PER_WALK) as u64 {
        let mut walk = Walk::new(seed);
        let run = |walk: &mut Walk| {
            (0..STEPS_PER_WALK).try_for_each(|_| walk.step())?;
            walk.finish()
        };
        if let Err(reason) = run(&mut walk) {
            panic!("seed {seed}: {reason}");
        }
    }
}
