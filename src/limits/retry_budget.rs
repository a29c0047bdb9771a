//! The retry budget, which limits the retries of all requests to one host.

use std::fmt;

/// Limits the retries sent to one host: a percentage of its requests, plus a fixed rate.
///
/// [`Retry`](crate::Retry) limits the retries of each request. The budget limits how much
/// additional load retries put on a failing host. Each first attempt deposits into the budget, and
/// each retry withdraws from it. When the budget is empty, the outcome of the attempt is the
/// result, even if `Retry` allows another attempt. The default is 20 % of the first attempts plus
/// 10 retries per second. With the default, 10,000 requests to a host that fails every time cause
/// about 12,000 attempts rather than 30,000.
///
/// Unused budget is saved, up to 10 seconds of the fixed rate but at least 10 retries. The budget
/// starts full, which is 100 retries by default. All batches and fetches of a Fetcher share one
/// budget per host. A host is an origin, or a key of
/// [`limit_by`](crate::FetcherBuilder::limit_by).
///
/// These withdraw nothing: retries after a throttled attempt, up to
/// [`max_throttled_attempts`](crate::Retry::max_throttled_attempts) per request; the attempts of
/// the [final round](crate::Retry::final_round); redirects; and requests sent again on a new
/// connection because the server had closed the reused connection. The design follows the retry
/// budgets of Finagle and tower.
///
/// ```
/// use fanout::{Fetcher, RetryBudget};
///
/// # fn main() -> fanout::Result<()> {
/// let budget = RetryBudget::default().retry_percent(5).retries_per_second(1);
/// let fetcher = Fetcher::builder().retry_budget(budget).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Copy, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryBudget {
    pub(crate) is_off: bool,
    pub(crate) retry_percent: u32,
    pub(crate) retries_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            is_off: false,
            retry_percent: 20,
            retries_per_second: 10,
        }
    }
}

impl RetryBudget {
    /// An unlimited budget: only [`Retry`](crate::Retry) limits retries.
    #[must_use]
    pub fn off() -> Self {
        Self {
            is_off: true,
            ..Self::default()
        }
    }

    /// Sets how many retries are allowed per 100 first attempts. Default: 20 retries.
    #[must_use]
    pub fn retry_percent(self, retry_percent: u32) -> Self {
        Self {
            retry_percent,
            ..self
        }
    }

    /// Sets how many retries per second are allowed in addition to
    /// [`retry_percent`](Self::retry_percent). Default: 10 retries.
    #[must_use]
    pub fn retries_per_second(self, retries_per_second: u32) -> Self {
        Self {
            retries_per_second,
            ..self
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off {
            return f.write_str("RetryBudget::off()");
        }
        f.debug_struct("RetryBudget")
            .field("retry_percent", &self.retry_percent)
            .field("retries_per_second", &self.retries_per_second)
            .finish()
    }
}
