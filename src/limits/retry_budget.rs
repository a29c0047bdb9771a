//! How many of the requests to one host may be retries.

use std::fmt;

/// How many retries one host is sent: a share of the fresh requests to it, and a few a second on top.
///
/// So what a broken host costs it is bounded, whoever retries: with the default of 20 % and 10 a second, ten thousand
/// requests to a host that answers nothing but errors become twelve thousand and a few hundred, not thirty thousand. What
/// is not used is saved, up to ten seconds of the rate (but at least 10 retries), and it begins full: 100 by default. All
/// batches and fetches of the Fetcher share one budget a host, where a host is what the limits take for one (see
/// [`limit_by`](crate::FetcherBuilder::limit_by)). When it is spent, what an attempt came to is the result, though
/// [`Retry`](crate::Retry) would allow another.
///
/// Nothing is taken out for what costs [no retry](crate::Retry::max_throttled_attempts), for redirects, and for what a connection
/// sends again by itself because the server never saw it. The idea is that of the retry budgets of Finagle and tower.
///
/// ```
/// use fanout::{Fetcher, RetryBudget};
///
/// # fn main() -> fanout::Result<()> {
/// let careful = RetryBudget::default().retry_percent(5).retries_per_second(1);
/// let fetcher = Fetcher::builder().retry_budget(careful).build()?;
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
    /// No bound on the retries of a host, but those of each request.
    #[must_use]
    pub fn off() -> Self {
        Self {
            is_off: true,
            ..Self::default()
        }
    }

    /// How many retries a hundred fresh requests allow: 20 by default.
    #[must_use]
    pub fn retry_percent(self, retry_percent: u32) -> Self {
        Self {
            retry_percent,
            ..self
        }
    }

    /// How many retries a second are allowed beside those: 10 by default.
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
        match self.is_off {
            true => f.write_str("RetryBudget::off()"),
            false => f
                .debug_struct("RetryBudget")
                .field("retry_percent", &self.retry_percent)
                .field("retries_per_second", &self.retries_per_second)
                .finish(),
        }
    }
}
