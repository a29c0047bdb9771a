//! The limits of one key of `limit_by`.

use super::{Budget, Concurrency, Rate};

/// The limits of the requests that share one key, for
/// [`FetcherBuilder::limits_for`](crate::FetcherBuilder::limits_for).
///
/// ```
/// use fanout::{KeyLimits, Rate};
///
/// let limits = KeyLimits::new().concurrency(4).rate(Rate::per_second(10));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyLimits {
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) rate: Option<Rate>,
    pub(crate) budgets: Vec<Budget>,
}

impl KeyLimits {
    /// Creates a `KeyLimits` without limits of its own: the limits per host of the Fetcher apply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the requests in flight with this key: a number, or [`Concurrency::adaptive`].
    /// Default: the [`concurrency_per_host`](crate::FetcherBuilder::concurrency_per_host) of the
    /// Fetcher.
    ///
    /// # Panics
    ///
    /// Panics if the limit is zero.
    #[must_use]
    #[track_caller]
    pub fn concurrency(self, concurrency: impl Into<Concurrency>) -> Self {
        Self {
            concurrency: Some(concurrency.into().assert_nonzero()),
            ..self
        }
    }

    /// Limits how often requests with this key start. Default: the
    /// [`rate_per_host`](crate::FetcherBuilder::rate_per_host) of the Fetcher.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self {
            rate: Some(rate),
            ..self
        }
    }

    /// Adds a budget: a limit on the cost of the requests with this key. Default: none.
    ///
    /// The budgets of the batch and of the Fetcher apply as well. The budgets of a
    /// [`Host`](crate::Host::budget) whose origin equals the key do not apply.
    ///
    /// # Errors
    ///
    /// [`build`](crate::FetcherBuilder::build) returns an error if the key has two budgets with the
    /// same name.
    ///
    /// ```
    /// use fanout::{Budget, KeyLimits};
    ///
    /// let limits = KeyLimits::new().budget(Budget::per_hour("points", 5_000));
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "concurrency of zero")]
    fn zero_concurrency_panics() {
        let _ = KeyLimits::new().concurrency(0);
    }
}
