//! The costs of requests on budgets: which budgets apply to a job, and what an exchange has cost.
//!
//! The schedule charges the stated costs of a job when the job starts. After the exchange, the
//! user's functions return the actual costs, without a lock, and the schedule settles the charge.

use std::collections::HashMap;
use std::sync::Arc;

use url::Url;

use super::Engine;
use super::job::Job;
use super::lane::LaneAssignment;
use super::limits::EngineLimits;
use crate::error::{Error, ErrorKind, catch_user_panic, replace_outcome_by_panic};
use crate::limits::Budget;
use crate::request::origin;
use crate::response::Response;
use crate::schedule::{
    BudgetConfig, BudgetKind, BudgetRate, BudgetScope, Charge, ChargedBudget, CostOutcome,
    Schedule, Slot, Time, UnaffordableJob, UnaffordableReason,
};

/// The budgets of a Fetcher. The budgets that `host_fn` returns are in the settings of the host.
#[derive(Default)]
pub(crate) struct FetcherBudgets {
    /// The budgets of all requests together.
    pub(crate) overall: Vec<Budget>,
    pub(crate) budgets_by_origin: HashMap<Box<str>, Vec<Budget>>,
    /// By key of `limit_by`.
    pub(crate) budgets_by_key: HashMap<Box<str>, Vec<Budget>>,
}

impl FetcherBudgets {
    fn is_empty(&self) -> bool {
        self.overall.is_empty()
            && self.budgets_by_origin.is_empty()
            && self.budgets_by_key.is_empty()
    }
}

impl EngineLimits {
    /// Returns false if no budget applies to the current hop of a job. Most Fetchers have no
    /// budgets, so this check comes before the lookup of the budgets.
    #[inline]
    fn may_have_budgets(&self, job: &Job) -> bool {
        !self.budgets.is_empty()
            || !job.options.budgets.is_empty()
            || !job.options.request_settings.sibling_budgets.is_empty()
            || job.lane_assignment.host_settings.is_some()
    }

    /// The budgets that apply to the current hop of a job: those of its lane, of its batch, of the
    /// sibling and of the Fetcher.
    fn budgets_of_job<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Budget> {
        let url = job.hop_request().shared_url();
        let of_lane = url.map_or(&[][..], |url| {
            self.budgets_of_lane(url, &job.lane_assignment)
        });
        of_lane
            .iter()
            .chain(&job.options.budgets)
            .chain(&job.options.request_settings.sibling_budgets)
            .chain(&self.budgets.overall)
    }

    /// The budgets of a lane. They are part of the
    /// [configured limits](Self::configured_lane_limits) of the lane.
    fn budgets_of_lane<'a>(&'a self, url: &Url, lane: &'a LaneAssignment) -> &'a [Budget] {
        let key = lane.lane_key(url);
        let configured = if self.limits_by_key.contains_key(key) {
            self.budgets.budgets_by_key.get(key)
        } else if self.limits_by_origin.contains_key(key) {
            self.budgets.budgets_by_origin.get(key)
        } else {
            let host = lane.host_settings.as_ref();
            host.filter(|_| key == origin(url))
                .map(|host| &host.budgets)
        };
        configured.map_or(&[], |budgets| budgets)
    }
}

impl Job {
    /// Returns the cost of an exchange that ended with `outcome`. The caller must hold no lock,
    /// because the user's functions run. A panic in such a function becomes the outcome.
    fn exchange_cost(
        &self,
        engine: &Engine,
        outcome: &mut Result<Response, Error>,
        maybe_sent: bool,
    ) -> CostOutcome {
        let Ok(response) = outcome else {
            return CostOutcome::without_response(maybe_sent);
        };
        let actual_costs = || {
            let mut costs: Vec<(Arc<str>, u64)> = Vec::new();
            for budget in engine.limits.budgets_of_job(self) {
                let Some(actual_cost_fn) = &budget.actual_cost_fn else {
                    continue;
                };
                if costs.iter().all(|(name, _)| *name != budget.name)
                    && let Some(cost) = actual_cost_fn.actual_cost(response)
                {
                    costs.push((Arc::clone(&budget.name), cost));
                }
            }
            costs
        };
        match catch_user_panic("in the `settle` function of a budget", actual_costs) {
            Ok(costs) => CostOutcome::Actual(costs),
            Err(panicked) => {
                replace_outcome_by_panic(outcome, panicked);
                CostOutcome::Unknown
            }
        }
    }

    /// Keeps the charge of a start that is going to be repeated without another charge.
    pub(super) fn carry_charge(&mut self, charge: Option<Charge>) {
        if let Some(hop) = &mut self.hop_state {
            hop.carried_charge = charge;
        }
    }
}

/// Ends a job that a budget can never cover, unless the job has the result of an earlier attempt.
pub(super) fn end_unaffordable_job(unaffordable: UnaffordableJob<Box<Job>>) -> Box<Job> {
    let UnaffordableJob {
        mut job,
        budget_name,
        reason,
        cost,
        available,
    } = unaffordable;
    let detail = match reason {
        UnaffordableReason::AboveCapacity => format!(
            "the request costs {cost} of the budget `{budget_name}`, whose capacity is {available}; \
             `Budget::burst` sets the capacity"
        ),
        UnaffordableReason::Exhausted => format!(
            "the request costs {cost} of the budget `{budget_name}`, which has {available} left"
        ),
    };
    job.end_before_start(Error::from_kind(ErrorKind::Budget).with_detail(detail));
    job
}

/// The settlement of the costs of one exchange.
pub(super) struct CostSettlement {
    cost: CostOutcome,
    /// Set if the settlement is logged.
    trace: Option<CostTrace>,
}

/// The record of a settlement, for the log.
struct CostTrace {
    span: Option<tracing::Span>,
    /// The budgets after the settlement.
    charged_budgets: Vec<ChargedBudget>,
}

impl CostSettlement {
    /// Determines the cost of an exchange that ended with `outcome`. Returns `None` if the job has
    /// no budgets. The caller must hold no lock, because the user's functions run. A panic in such
    /// a function becomes the outcome.
    #[inline]
    pub(super) fn of_exchange(
        engine: &Engine,
        job: &Job,
        outcome: &mut Result<Response, Error>,
        maybe_sent: bool,
    ) -> Option<Box<Self>> {
        let may_have_budgets = engine.limits.may_have_budgets(job);
        may_have_budgets.then(|| Self::new(engine, job, outcome, maybe_sent))
    }

    #[cold]
    fn new(
        engine: &Engine,
        job: &Job,
        outcome: &mut Result<Response, Error>,
        maybe_sent: bool,
    ) -> Box<Self> {
        let is_traced = tracing::enabled!(target: "fanout::budget", tracing::Level::DEBUG);
        Box::new(Self {
            cost: job.exchange_cost(engine, outcome, maybe_sent),
            trace: is_traced.then(|| CostTrace {
                span: job.span().cloned(),
                charged_budgets: Vec::new(),
            }),
        })
    }

    #[cold]
    pub(super) fn settle_costs(
        &mut self,
        schedule: &mut Schedule<Box<Job>>,
        slot: &Slot,
        now: Time,
    ) {
        schedule.settle_costs(slot, &self.cost, now);
        if let Some(trace) = &mut self.trace {
            trace.charged_budgets = schedule.charged_budgets(slot, now);
        }
    }

    /// Logs the settled costs, and the levels of the budgets after that. The caller must hold no
    /// lock.
    #[cold]
    pub(super) fn trace_settled_costs(&self) {
        let Some(trace) = &self.trace else {
            return;
        };
        let record = || {
            for charged in &trace.charged_budgets {
                let (budget, estimated) = (&charged.budget, charged.estimated_cost);
                let host = match &budget.scope {
                    BudgetScope::Lane(host) => Some(&**host),
                    BudgetScope::Batch(_) | BudgetScope::Tenant(_) | BudgetScope::Overall => None,
                };
                tracing::debug!(
                    target: "fanout::budget",
                    budget = &*budget.name,
                    host,
                    estimated,
                    actual = self.cost.actual_cost(&budget.name, estimated),
                    level = budget.level,
                    capacity = budget.capacity,
                    waiting = budget.waiting_job_count,
                    "cost settled"
                );
            }
        };
        match &trace.span {
            Some(span) => span.in_scope(record),
            None => record(),
        }
    }
}

impl From<&Budget> for BudgetConfig {
    fn from(budget: &Budget) -> Self {
        Self {
            name: Arc::clone(&budget.name),
            kind: match budget.refill() {
                Some(refill) => BudgetKind::Rate(BudgetRate {
                    units: refill.units,
                    period_nanos: refill.period_nanos,
                    capacity: budget.capacity(),
                }),
                None => BudgetKind::Total(budget.capacity()),
            },
            default_cost: budget.default_cost_or_implied(),
        }
    }
}

/// The budgets in the form that the schedule uses.
pub(super) fn budget_configs(budgets: &[Budget]) -> Vec<BudgetConfig> {
    budgets.iter().map(BudgetConfig::from).collect()
}
