//! What retries a host may be sent: a share of what is sent there first, and a few a second (the retry budget of Finagle
//! and tower, as a balance that fills by itself).

use super::{LaneId, Schedulable, Schedule, Time};

/// In this unit one retry a second is one a nanosecond.
const RETRY: u64 = 1_000_000_000;
/// What can be saved, in nanoseconds of what comes by itself.
const SAVED: u64 = 10 * RETRY;
/// And at least so many retries.
const FEW: u64 = 10;

/// What fills a budget.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RetryBudgetConfig {
    /// For a hundred fresh starts.
    pub(crate) retry_percent: u32,
    pub(crate) min_per_second: u32,
}

impl RetryBudgetConfig {
    fn most(self) -> u64 {
        let saved = u64::from(self.min_per_second).saturating_mul(SAVED);
        saved.max(FEW * RETRY)
    }
}

#[derive(Debug)]
pub(super) struct RetryBudgetState {
    /// None: there is no bound.
    income: Option<RetryBudgetConfig>,
    balance: u64,
    /// Since when nothing has come by itself.
    as_of: Time,
}

impl RetryBudgetState {
    /// A full one.
    pub(super) fn new(income: Option<RetryBudgetConfig>) -> Self {
        Self {
            income,
            balance: income.map_or(0, RetryBudgetConfig::most),
            as_of: Time::default(),
        }
    }

    /// A fresh job has started.
    pub(super) fn earn(&mut self) {
        if let Some(income) = self.income {
            let share = u64::from(income.retry_percent) * (RETRY / 100);
            self.balance = self.balance.saturating_add(share).min(income.most());
        }
    }

    /// Takes out what a retry costs. False if it is not there.
    pub(super) fn pay(&mut self, now: Time) -> bool {
        let Some(income) = self.income else {
            return true;
        };
        let since = now.nanos_since(self.as_of);
        let came = since.saturating_mul(u64::from(income.min_per_second));
        self.balance = self.balance.saturating_add(came).min(income.most());
        self.as_of = self.as_of.max(now);
        let pays = self.balance >= RETRY;
        if pays {
            self.balance -= RETRY;
        }
        pays
    }

    /// Whether it would be full by now, or was not asked for so long.
    pub(super) fn is_at_rest(&self, now: Time) -> bool {
        let most = self.income.map_or(0, RetryBudgetConfig::most);
        self.balance == most || now.nanos_since(self.as_of) >= SAVED
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Takes out of a host's budget what a retry costs. False if it is not there.
    pub(crate) fn withdraw_retry(&mut self, lane: LaneId, now: Time) -> bool {
        self.lanes[lane.0].budget.pay(now)
    }
}
