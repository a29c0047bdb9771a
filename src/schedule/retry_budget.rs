//! A budget that limits the retries sent to a host.
//!
//! Each fresh request deposits a fraction of a retry, and a small number of retries per second is
//! deposited unconditionally. Each retry withdraws one. This is the retry budget of Finagle and of
//! tower (`tower::retry::budget`).

use super::time::Time;

/// The price of one retry, in units of the balance. With this price, a deposit of one retry per
/// second is one unit per nanosecond.
const UNITS_PER_RETRY: u64 = 1_000_000_000;
/// A full budget holds the per-second deposits of this many nanoseconds.
const SAVINGS_PERIOD: u64 = 10_000_000_000;
/// A full budget holds at least this many retries.
const MIN_CAPACITY: u64 = 10;

/// The deposits of a retry budget.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RetryBudgetConfig {
    /// The number of retries deposited per hundred fresh requests.
    pub(crate) retry_percent: u32,
    /// The number of retries deposited per second.
    pub(crate) min_per_second: u32,
}

impl RetryBudgetConfig {
    /// The largest balance, in units of which [`UNITS_PER_RETRY`] buy a retry.
    fn capacity(self) -> u64 {
        let savings = u64::from(self.min_per_second).saturating_mul(SAVINGS_PERIOD);
        savings.max(MIN_CAPACITY * UNITS_PER_RETRY)
    }
}

/// The state of a retry budget.
#[derive(Debug)]
pub(super) struct RetryBudgetState {
    /// `None`: retries are unlimited.
    config: Option<RetryBudgetConfig>,
    /// In units of which [`UNITS_PER_RETRY`] buy a retry.
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

    /// Records the start of a fresh request.
    pub(super) fn deposit(&mut self) {
        if let Some(config) = self.config {
            let share = u64::from(config.retry_percent) * (UNITS_PER_RETRY / 100);
            self.balance = self.balance.saturating_add(share).min(config.capacity());
        }
    }

    /// Takes one retry out of the budget. Returns false if the balance is too low.
    pub(super) fn withdraw(&mut self, now: Time) -> bool {
        let Some(config) = self.config else {
            return true;
        };
        let elapsed = now.nanos_since(self.refilled_at);
        let refill = elapsed.saturating_mul(u64::from(config.min_per_second));
        self.balance = self.balance.saturating_add(refill).min(config.capacity());
        self.refilled_at = self.refilled_at.max(now);
        let is_covered = self.balance >= UNITS_PER_RETRY;
        if is_covered {
            self.balance -= UNITS_PER_RETRY;
        }
        is_covered
    }

    /// Whether the budget is full, or was not used for long enough to be full.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let capacity = self.config.map_or(0, RetryBudgetConfig::capacity);
        self.balance == capacity || now.nanos_since(self.refilled_at) >= SAVINGS_PERIOD
    }
}
