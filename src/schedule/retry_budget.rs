//! A budget that limits the retries to a host.
//!
//! The balance of the budget is a number of retries. The start of each fresh request deposits a
//! fraction of a retry, and time deposits a small number of retries per second. Each retry
//! withdraws one retry. The design follows Finagle and tower (`tower::retry::budget`).

use super::time::Time;

/// The balance is counted in billionths of a retry. A deposit of one retry per second is thus one
/// unit per nanosecond.
const BALANCE_UNITS_PER_RETRY: u64 = 1_000_000_000;
/// A full budget holds the per-second deposits of this time, but at least
/// [`MIN_CAPACITY_IN_RETRIES`].
const FILL_PERIOD_NANOS: u64 = 10_000_000_000;
/// The minimum number of retries in a full budget.
const MIN_CAPACITY_IN_RETRIES: u64 = 10;

/// The parameters of a retry budget.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RetryBudgetConfig {
    /// The number of retries deposited per hundred fresh requests.
    pub(crate) retry_percent: u32,
    /// The number of retries deposited per second.
    pub(crate) min_retries_per_second: u32,
}

impl RetryBudgetConfig {
    /// The maximum balance.
    fn capacity_in_units(self) -> u64 {
        let deposits = u64::from(self.min_retries_per_second).saturating_mul(FILL_PERIOD_NANOS);
        deposits.max(MIN_CAPACITY_IN_RETRIES * BALANCE_UNITS_PER_RETRY)
    }
}

/// The state of a retry budget.
#[derive(Debug)]
pub(super) struct RetryBudgetState {
    /// The parameters of the budget. `None`: retries are unlimited.
    budget_config: Option<RetryBudgetConfig>,
    /// The deposits minus the withdrawals. [`BALANCE_UNITS_PER_RETRY`] units permit one retry.
    balance_in_units: u64,
    /// The instant at which the per-second deposits were last added.
    refilled_at: Time,
}

impl RetryBudgetState {
    /// Creates a full budget.
    pub(super) fn new(budget_config: Option<RetryBudgetConfig>) -> Self {
        Self {
            budget_config,
            balance_in_units: budget_config.map_or(0, RetryBudgetConfig::capacity_in_units),
            refilled_at: Time::default(),
        }
    }

    /// Adds the deposit of one fresh request.
    pub(super) fn deposit_for_fresh_request(&mut self) {
        if let Some(budget_config) = self.budget_config {
            let share = u64::from(budget_config.retry_percent) * (BALANCE_UNITS_PER_RETRY / 100);
            self.balance_in_units = self
                .balance_in_units
                .saturating_add(share)
                .min(budget_config.capacity_in_units());
        }
    }

    /// Withdraws one retry. Returns false and withdraws nothing if the balance is too low.
    pub(super) fn try_withdraw_retry(&mut self, now: Time) -> bool {
        let Some(budget_config) = self.budget_config else {
            return true;
        };
        let elapsed = now.nanos_since(self.refilled_at);
        let refill = elapsed.saturating_mul(u64::from(budget_config.min_retries_per_second));
        self.balance_in_units = self
            .balance_in_units
            .saturating_add(refill)
            .min(budget_config.capacity_in_units());
        self.refilled_at = self.refilled_at.max(now);
        let is_covered = self.balance_in_units >= BALANCE_UNITS_PER_RETRY;
        if is_covered {
            self.balance_in_units -= BALANCE_UNITS_PER_RETRY;
        }
        is_covered
    }

    /// Whether the budget may be removed: it is full, or its last withdrawal was tried at least
    /// [`FILL_PERIOD_NANOS`] ago.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let capacity_in_units = self
            .budget_config
            .map_or(0, RetryBudgetConfig::capacity_in_units);
        self.balance_in_units == capacity_in_units
            || now.nanos_since(self.refilled_at) >= FILL_PERIOD_NANOS
    }
}
