//! A schedule with budgets, in virtual time.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use super::super::{
    BatchId, BudgetConfig, BudgetKind, BudgetRate, Charge, CostOutcome, GateLimits, LaneLimits,
    RouteKey, Schedulable, Schedule, Slot, StartDecision, Time, UnaffordableReason,
};
use super::simulation::{SECOND, at_ms};

/// The costs of a job, by the names of the budgets.
pub(super) type Costs = &'static [(&'static str, u64)];

#[derive(Debug)]
pub(super) struct CostlyJob {
    pub(super) id: usize,
    pub(super) costs: Costs,
    pub(super) abandoned: Rc<Cell<bool>>,
    pub(super) carried_charge: Option<Charge>,
}

impl Schedulable for CostlyJob {
    fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    fn stated_cost(&self, budget_name: &str) -> Option<u64> {
        let mut costs = self.costs.iter();
        costs
            .find(|(name, _)| *name == budget_name)
            .map(|&(_, cost)| cost)
    }

    fn has_carried_charge(&self) -> bool {
        self.carried_charge.is_some()
    }

    fn take_carried_charge(&mut self) -> Option<Charge> {
        self.carried_charge.take()
    }
}

/// A budget of `units` per second.
pub(super) fn per_second(name: &str, units: u64, capacity: u64) -> BudgetConfig {
    BudgetConfig {
        name: name.into(),
        kind: BudgetKind::Rate(BudgetRate {
            units: NonZeroU64::new(units).unwrap(),
            period_nanos: NonZeroU64::new(SECOND).unwrap(),
            capacity,
        }),
        default_cost: u64::from(name == "requests"),
    }
}

pub(super) fn total(name: &str, units: u64) -> BudgetConfig {
    BudgetConfig {
        name: name.into(),
        kind: BudgetKind::Total(units),
        default_cost: 0,
    }
}

/// The actual costs of a start.
pub(super) fn actual(costs: &[(&str, u64)]) -> Vec<(Arc<str>, u64)> {
    let owned = costs.iter().map(|&(name, cost)| (name.into(), cost));
    owned.collect()
}

pub(super) struct BudgetSimulation {
    pub(super) schedule: Schedule<CostlyJob>,
    pub(super) now: Time,
    /// The limits of all lanes.
    pub(super) lane_limits: LaneLimits,
    pub(super) rejected: Vec<usize>,
    pub(super) unaffordable: Vec<(usize, Arc<str>, UnaffordableReason)>,
    pushed_count: usize,
}

impl BudgetSimulation {
    /// Every lane has the budgets `lane_budgets`.
    pub(super) fn new(lane_budgets: &[BudgetConfig]) -> Self {
        Self {
            schedule: Schedule::new(GateLimits::UNLIMITED),
            now: Time::default(),
            lane_limits: LaneLimits {
                budgets: Some(lane_budgets.into()),
                ..GateLimits::UNLIMITED.into()
            },
            rejected: Vec::new(),
            unaffordable: Vec::new(),
            pushed_count: 0,
        }
    }

    pub(super) fn push(&mut self, batch: BatchId, lane: &str, costs: Costs) -> usize {
        self.push_job(batch, lane, costs).0
    }

    /// Pushes a job. Returns its id, and a flag that marks it as abandoned.
    pub(super) fn push_job(
        &mut self,
        batch: BatchId,
        lane: &str,
        costs: Costs,
    ) -> (usize, Rc<Cell<bool>>) {
        let id = self.pushed_count;
        self.pushed_count += 1;
        let abandoned = Rc::default();
        let job = CostlyJob {
            id,
            costs,
            abandoned: Rc::clone(&abandoned),
            carried_charge: None,
        };
        let limits = self.lane_limits.clone();
        let route = RouteKey::direct(lane);
        self.schedule.push(batch, route, || limits, job, self.now);
        (id, abandoned)
    }

    pub(super) fn next(&mut self) -> StartDecision<CostlyJob> {
        let decision = self.schedule.start_next_job(self.now);
        self.take_ended();
        decision
    }

    /// Takes the jobs that will not start.
    pub(super) fn take_ended(&mut self) {
        let rejected = self.schedule.take_rejected_jobs();
        self.rejected.extend(rejected.into_iter().map(|job| job.id));
        let unaffordable = self.schedule.take_unaffordable_jobs();
        let ended = |ended: super::super::UnaffordableJob<CostlyJob>| {
            (ended.job.id, ended.budget_name, ended.reason)
        };
        self.unaffordable
            .extend(unaffordable.into_iter().map(ended));
    }

    /// The jobs that are rejected if nothing starts.
    #[track_caller]
    pub(super) fn next_rejected(&mut self) -> Vec<usize> {
        let decision = self.next();
        let is_start = matches!(decision, StartDecision::Start(..));
        assert!(!is_start, "{decision:?}");
        std::mem::take(&mut self.rejected)
    }

    /// Starts the next job.
    #[track_caller]
    pub(super) fn start_next(&mut self) -> (Slot, CostlyJob) {
        match self.next() {
            StartDecision::Start(slot, job) => (slot, job),
            other => panic!("nothing starts at {:?}: {other:?}", self.now),
        }
    }

    /// Starts the next job, which must have the given id.
    #[track_caller]
    pub(super) fn start(&mut self, id: usize) -> (Slot, CostlyJob) {
        let (slot, job) = self.start_next();
        assert_eq!(job.id, id, "at {:?}", self.now);
        (slot, job)
    }

    /// Checks that nothing starts before `ms`, and advances the clock to that instant.
    #[track_caller]
    pub(super) fn wait_until_ms(&mut self, ms: u64) {
        match self.next() {
            StartDecision::WaitUntil(at) => assert_eq!(at, at_ms(ms), "at {:?}", self.now),
            other => panic!("at {:?}: {other:?}", self.now),
        }
        self.now = at_ms(ms);
    }

    /// Advances the clock until a job starts. It must have the given id and start at `ms`.
    #[track_caller]
    pub(super) fn start_at_ms(&mut self, id: usize, ms: u64) -> Slot {
        loop {
            match self.next() {
                StartDecision::Start(slot, job) => {
                    assert_eq!((job.id, self.now), (id, at_ms(ms)));
                    return slot;
                }
                StartDecision::WaitUntil(at) => self.now = at,
                StartDecision::WaitForChange => panic!("nothing starts after {:?}", self.now),
            }
        }
    }

    /// Checks that nothing starts unless the schedule is changed.
    #[track_caller]
    pub(super) fn assert_idle(&mut self) {
        let decision = self.next();
        assert!(
            matches!(decision, StartDecision::WaitForChange),
            "{decision:?}"
        );
    }

    /// Settles a slot and its costs.
    pub(super) fn settle(&mut self, slot: Slot, outcome: &CostOutcome) {
        self.schedule.settle_costs(&slot, outcome, self.now);
        self.schedule.settle(slot);
        self.take_ended();
    }

    /// The level of the only budget with this name.
    #[track_caller]
    pub(super) fn level(&self, name: &str) -> i64 {
        let levels = self.schedule.budget_levels(self.now);
        let mut named = levels.iter().filter(|level| *level.name == *name);
        let level = named.next().expect("no such budget").level;
        assert!(named.next().is_none(), "several budgets are named {name}");
        level
    }
}
