//! A budget that limits the retries to a host.
//!
//! The balance counts retries. Each fresh request deposits a fraction of a retry, and a small
//! number of retries per second is deposited unconditionally. Each retry withdraws one from the
//! balance. The same design is in Finagle and in tower (`tower::retry::budget`).

use super::time::Time;

/// The units of the balance that one retry withdraws. A deposit of one retry per second is thus one
/// unit per nanosecond.
const UNITS_PER_RETRY: u64 = 1_000_000_000;
/// A full budget holds the per-second deposits of this time, in nanoseconds.
const FILL_PERIOD: u64 = 10_000_000_000;
/// The least number of retries in a full budget.
const MIN_CAPACITY: u64 = 10;

/// The deposits of a retry budget.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RetryBudgetConfig {
    /// The number of retries deposited per hundred fresh requests.
    pub(crate) retry_percent: u32,
    /// The number of retries deposited per second.
    pub(crate) min_retries_per_second: u32,
}

impl RetryBudgetConfig {
    /// The largest balance. A balance of [`UNITS_PER_RETRY`] permits one retry.
    fn capacity(self) -> u64 {
        let deposits = u64::from(self.min_retries_per_second).saturating_mul(FILL_PERIOD);
        deposits.max(MIN_CAPACITY * UNITS_PER_RETRY)
    }
}

/// The state of a retry budget.
#[derive(Debug)]
pub(super) struct RetryBudgetState {
    /// `None`: retries are unlimited.
    config: Option<RetryBudgetConfig>,
    /// The deposits minus the withdrawals. A balance of [`UNITS_PER_RETRY`] permits one retry.
    balance: u64,
    /// When the per-second deposits were last added.
    refilled_at: Time,
}

impl RetryBudgetState {
    /// Returns a full budget.
    pub(super) fn new(config: Option<RetryBudgetConfig>) -> Self {
        Self {
            config,
            balance: config.map_or(0, RetryBudgetConfig::capacity),
            refilled_at: Time::default(),
        }
    }

    /// Adds the deposit for the start of a fresh request.
    pub(super) fn deposit(&mut self) {
        if let Some(config) = self.config {
            let share = u64::from(config.retry_percent) * (UNITS_PER_RETRY / 100);
            self.balance = self.balance.saturating_add(share).min(config.capacity());
        }
    }

    /// Subtracts one retry from the balance. Returns false if the balance is too low.
    pub(super) fn withdraw(&mut self, now: Time) -> bool {
        let Some(config) = self.config else {
            return true;
        };
        let elapsed = now.nanos_since(self.refilled_at);
        let refill = elapsed.saturating_mul(u64::from(config.min_retries_per_second));
        self.balance = self.balance.saturating_add(refill).min(config.capacity());
        self.refilled_at = self.refilled_at.max(now);
        let is_covered = self.balance >= UNITS_PER_RETRY;
        if is_covered {
            self.balance -= UNITS_PER_RETRY;
        }
        is_covered
    }

    /// Whether the budget is full, or the last attempt to withdraw was at least [`FILL_PERIOD`]
    /// ago.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let capacity = self.config.map_or(0, RetryBudgetConfig::capacity);
        self.balance == capacity || now.nanos_since(self.refilled_at) >= FILL_PERIOD
    }
}
