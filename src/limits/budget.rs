//! Limits on the costs of requests: per period, or in total.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::response::Response;

/// A limit on the cost of requests, for example tokens per minute, or cents in total.
///
/// Each request has a cost on each budget that applies to it:
/// [`RequestBuilder::cost`](crate::RequestBuilder::cost) states the cost. A request without a
/// stated cost costs 1 of a budget named `requests` and nothing of any other budget, unless
/// [`default_cost`](Self::default_cost) is set. A request starts once every budget that applies to
/// it has enough units left; the cost is then charged on all budgets at once. Until then the
/// request is queued. It holds no slot and no connection, and none of its timeouts run. Requests to
/// hosts without the budget proceed. Later requests of its batch to the same host stay behind it,
/// so that small requests do not overtake a large one forever.
///
/// Budgets are set for one [`Host`](crate::Host::budget), for one key of `limit_by`
/// ([`KeyLimits::budget`](crate::KeyLimits::budget)), for one batch
/// ([`Batch::budget`](crate::Batch::budget)) or for all requests of a Fetcher
/// ([`FetcherBuilder::budget`](crate::FetcherBuilder::budget)). All budgets of a request apply,
/// also those with the same name.
///
/// ```
/// use fanout::{Budget, Fetcher, Host, Request, Response};
/// # use fanout::Mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> fanout::Result<()> {
/// # let mock = Mock::new().fallback("Hello! [tokens: 90]");
/// let used_tokens = |response: &Response| {
///     let text = response.text();
///     let (_, tokens) = text.trim_end_matches(']').rsplit_once("[tokens: ")?;
///     tokens.parse().ok()
/// };
/// let api = Host::new()
///     .budget(Budget::per_minute("requests", 500))
///     .budget(Budget::per_minute("tokens", 200_000).settle(used_tokens))
///     .budget(Budget::total("cents", 5_000).default_cost(2));
/// let fetcher = Fetcher::builder()
///     .host("https://api.example", api)
/// #   .transport(mock)
///     .build()?;
///
/// let prompt = Request::post("https://api.example/chat").body("Say hello").cost("tokens", 100);
/// fetcher.fetch(prompt).await?.error_for_status()?;
/// # Ok(())
/// # }
/// ```
///
/// # Which requests a period admits
///
/// The requests that start in any time of one period cost at most the units of the budget, if the
/// stated costs are correct. Servers count the requests of fixed windows, of sliding windows or
/// with a token bucket; the budget keeps within the limit of each of them.
///
/// A budget is refilled continuously, up to a capacity. The capacity is the largest cost that can
/// be charged at once after an idle time. A full bucket in front of a server with fixed windows
/// admits its capacity in addition to what is refilled in the window: with a capacity of a whole
/// period's units, that is twice the limit. The capacity is therefore small, and the refill is
/// reduced by it:
///
/// - The capacity is `units / 40`, at least 1, and at least the [default cost](Self::default_cost).
///   That is the cost of 1.5 s of a budget per minute. [`burst`](Self::burst) changes it.
/// - `units - capacity + 1` units are refilled in each 1.01 periods. The 1 % is for requests that
///   travel to the server at different speeds.
///
/// With the default capacity, at least 96 % of the units can be used.
///
/// A single request that costs more than the capacity can never start. It fails with
/// [`ErrorKind::Budget`](crate::ErrorKind::Budget) at once, without delaying other requests. If
/// single requests cost more than `units / 40`, set `burst` to the cost of the largest one.
///
/// # Which requests pay
///
/// A retry and a followed redirect pay again. A request that is repeated with a
/// [new bearer token](crate::Host::token_source) after a 401 does not pay again.
///
/// The stated cost is an estimate. After each exchange, it is settled:
///
/// - If no byte of the request was sent, for example because connecting failed, the whole cost is
///   refunded.
/// - If there is a response and the function of [`settle`](Self::settle) returns the actual cost,
///   the difference is refunded or charged. The budget may then be in debt: it is below zero, and
///   nothing more starts until the debt is paid off.
/// - Otherwise the estimate remains.
///
/// A budget is never above its capacity.
#[derive(Clone, PartialEq)]
pub struct Budget {
    pub(crate) name: Arc<str>,
    units: NonZeroU64,
    /// `None` if the budget is a total, which is never refilled.
    period: Option<Duration>,
    burst: Option<NonZeroU64>,
    default_cost: Option<u64>,
    pub(crate) actual_cost_fn: Option<ActualCostFn>,
}

/// The default capacity of a budget is its units divided by this number.
const DEFAULT_CAPACITY_DIVISOR: u64 = 40;

/// The budget on which a request without a stated cost costs 1.
const REQUESTS_BUDGET_NAME: &str = "requests";

impl Budget {
    /// A budget of `units` per second. See [`per`](Self::per).
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_second(name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        Self::per(name, units, Duration::from_secs(1))
    }

    /// A budget of `units` per minute. See [`per`](Self::per).
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_minute(name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        Self::per(name, units, Duration::from_secs(60))
    }

    /// A budget of `units` per hour. See [`per`](Self::per).
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_hour(name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        Self::per(name, units, Duration::from_secs(3_600))
    }

    /// A budget of `units` per day. See [`per`](Self::per).
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_day(name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        Self::per(name, units, Duration::from_secs(86_400))
    }

    /// A budget of `units` per `period`. Requests state their cost on this budget under `name`.
    ///
    /// # Panics
    ///
    /// Panics if `units` or `period` is zero, or if `period` is 500 years or more.
    ///
    /// ```
    /// use std::time::Duration;
    /// use fanout::Budget;
    ///
    /// let budget = Budget::per("tokens", 6_000, Duration::from_secs(10)).burst(500);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn per(name: impl Into<Cow<'static, str>>, units: u64, period: Duration) -> Self {
        assert!(!period.is_zero(), "the period of a budget must not be zero");
        assert!(
            period < LONGEST_PERIOD,
            "the period of a budget is 500 years or more"
        );
        Self::new(name.into(), units, Some(period))
    }

    /// A budget of `units` that is never refilled, for example a limit on the spending. Requests
    /// state their cost on this budget under `name`.
    ///
    /// When the budget is exhausted, all requests that wait for it fail at once with
    /// [`ErrorKind::Budget`](crate::ErrorKind::Budget), unsent. While requests in flight may still
    /// be refunded enough, the requests wait for their end.
    ///
    /// A total lasts as long as the Fetcher or the batch that has it. A total that
    /// [`host_fn`](crate::FetcherBuilder::host_fn) returns therefore needs memory for each host.
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero.
    ///
    /// ```
    /// use fanout::{Budget, ErrorKind, Fetcher, Mock, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// let fetcher = Fetcher::builder().transport(Mock::new()).build()?;
    /// let urls = ["https://api.example/a", "https://api.example/b", "https://api.example/c"];
    /// let requests = urls.map(|url| Request::get(url).cost("cents", 2));
    /// let results = fetcher.batch(requests).budget(Budget::total("cents", 5)).gather().await;
    /// assert!(results[0].is_ok() && results[1].is_ok());
    /// assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::Budget);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn total(name: impl Into<Cow<'static, str>>, units: u64) -> Self {
        Self::new(name.into(), units, None)
    }

    #[track_caller]
    fn new(name: Cow<'static, str>, units: u64, period: Option<Duration>) -> Self {
        let Some(units) = NonZeroU64::new(units) else {
            panic!("a budget of zero would never start anything");
        };
        Self {
            name: name.into(),
            units,
            period,
            burst: None,
            default_cost: None,
            actual_cost_fn: None,
        }
    }

    /// Sets the capacity: the cost that can be charged at once after an idle time, and the largest
    /// cost of a single request. Default: `units / 40`, at least 1 and at least the [default
    /// cost](Self::default_cost).
    ///
    /// A larger capacity reduces the refill, so that no period sees more than `units`: the usable
    /// part of the budget is about `(units - burst) / (1.01 × units)`. That is 96 % with
    /// `units / 40`, 89 % with `units / 10` and 49 % with `units / 2`.
    ///
    /// # Panics
    ///
    /// Panics if `units` is zero or above the units per period, or if the budget is a
    /// [total](Self::total), whose capacity is the total.
    #[must_use]
    #[track_caller]
    pub fn burst(self, units: u64) -> Self {
        assert!(self.period.is_some(), "a total budget has no burst");
        assert!(
            units <= self.units.get(),
            "a burst of {units} is above the {} units of the budget `{}`",
            self.units,
            self.name
        );
        let Some(burst) = NonZeroU64::new(units) else {
            panic!("a burst of zero would never start anything");
        };
        Self {
            burst: Some(burst),
            ..self
        }
    }

    /// Sets the cost of a request that does not [state](crate::RequestBuilder::cost) its cost on
    /// this budget. Default: 1 if the name of the budget is `requests`, otherwise 0.
    ///
    /// # Errors
    ///
    /// [`FetcherBuilder::build`](crate::FetcherBuilder::build) returns an error if the cost is
    /// above the capacity; [`Batch::budget`](crate::Batch::budget) panics.
    #[must_use]
    pub fn default_cost(self, units: u64) -> Self {
        Self {
            default_cost: Some(units),
            ..self
        }
    }

    /// Sets a function that returns the actual cost of a request from its response. Default: the
    /// stated cost is the actual cost.
    ///
    /// The function is called after each exchange that has a response, whatever its status, also
    /// before a retry or a redirect. With `None`, the stated cost remains. The function is called
    /// on the task that runs the request. If the body goes to a
    /// [file](crate::RequestBuilder::save_to) or a [handler](crate::Batch::read_with), the function
    /// is called with the response without its body.
    ///
    /// A cost above the stated one puts the budget into debt, without a bound. If the server that
    /// reports the cost is not trusted, limit the returned cost.
    ///
    /// The returned cost applies to all budgets of this name. If several budgets of this name with
    /// a function apply to a request, the first one that returns a cost counts: that of the host,
    /// then those of the batch, of the sibling and of the Fetcher.
    ///
    /// If the function panics, the request ends with
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked), and the stated cost remains. The error
    /// holds the response.
    ///
    /// ```
    /// use fanout::{Budget, Response};
    ///
    /// let header_cost = |response: &Response| {
    ///     let cost = response.headers().get("x-request-cost")?;
    ///     cost.to_str().ok()?.parse().ok()
    /// };
    /// let budget = Budget::per_minute("points", 1_000).default_cost(10).settle(header_cost);
    /// ```
    #[must_use]
    pub fn settle<F>(self, actual_cost: F) -> Self
    where
        F: Fn(&Response) -> Option<u64> + Send + Sync + 'static,
    {
        Self {
            actual_cost_fn: Some(ActualCostFn(Arc::new(actual_cost))),
            ..self
        }
    }

    pub(crate) fn default_cost_or_implied(&self) -> u64 {
        let implied = u64::from(*self.name == *REQUESTS_BUDGET_NAME);
        self.default_cost.unwrap_or(implied)
    }

    /// The largest cost that can be charged at once.
    pub(crate) fn capacity(&self) -> u64 {
        let units = self.units.get();
        match (self.period, self.burst) {
            (None, _) => units,
            (Some(_), Some(burst)) => burst.get(),
            (Some(_), None) => (units / DEFAULT_CAPACITY_DIVISOR)
                .max(1)
                .max(self.default_cost_or_implied())
                .min(units),
        }
    }

    /// The refill, which keeps every period within the units of the budget. `None` if the budget is
    /// a total.
    pub(crate) fn refill(&self) -> Option<BudgetRefill> {
        let period_nanos = self.period?.as_nanos();
        let stretched = period_nanos + period_nanos.div_ceil(100);
        let units = self.units.get() - self.capacity();
        Some(BudgetRefill {
            units: NonZeroU64::MIN.saturating_add(units),
            // `per` rejects a period whose nanoseconds do not fit.
            period_nanos: u64::try_from(stretched)
                .ok()
                .and_then(NonZeroU64::new)
                .unwrap_or(NonZeroU64::MAX),
        })
    }

    /// # Errors
    ///
    /// Returns the reason if a request without a stated cost could never start.
    fn check_default_cost(&self) -> Result<(), String> {
        let (cost, capacity) = (self.default_cost_or_implied(), self.capacity());
        let name = &self.name;
        if cost > capacity {
            return Err(format!(
                "the default cost {cost} of the budget `{name}` is above its capacity {capacity}"
            ));
        }
        Ok(())
    }
}

/// Longer periods do not fit into 64 bits of nanoseconds, with the 1 % that is added.
const LONGEST_PERIOD: Duration = Duration::from_secs(500 * 365 * 86_400);

/// The number of units that are refilled in a period.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct BudgetRefill {
    pub(crate) units: NonZeroU64,
    pub(crate) period_nanos: NonZeroU64,
}

type ActualCostCallback = dyn Fn(&Response) -> Option<u64> + Send + Sync;

/// A function of the user that returns the actual cost of a request. Two values are equal if one is
/// a clone of the other.
#[derive(Clone)]
pub(crate) struct ActualCostFn(Arc<ActualCostCallback>);

impl ActualCostFn {
    /// Calls the user's function, which may panic.
    pub(crate) fn actual_cost(&self, response: &Response) -> Option<u64> {
        (self.0)(response)
    }
}

impl PartialEq for ActualCostFn {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Budget");
        debug.field("name", &self.name).field("units", &self.units);
        if let Some(period) = &self.period {
            debug.field("period", period);
        }
        debug
            .field("capacity", &self.capacity())
            .field("default_cost", &self.default_cost_or_implied())
            .field("settle", &self.actual_cost_fn.is_some())
            .finish()
    }
}

/// Checks the budgets of one scope: a host, a key, a batch or a Fetcher.
///
/// # Errors
///
/// Returns the reason if two budgets have the same name, or if a default cost is above a capacity.
pub(crate) fn check_budgets(budgets: &[Budget]) -> Result<(), String> {
    for (index, budget) in budgets.iter().enumerate() {
        if budgets[..index]
            .iter()
            .any(|earlier| earlier.name == budget.name)
        {
            return Err(format!("the budget `{}` was set twice", budget.name));
        }
        budget.check_default_cost()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_capacity_is_a_fortieth_of_the_units_and_covers_the_default_cost() {
        for (budget, capacity) in [
            (Budget::per_minute("tokens", 200_000), 5_000),
            (Budget::per_minute("tokens", 60), 1),
            (Budget::per_minute("tokens", 1), 1),
            (
                Budget::per_minute("tokens", 30_000).default_cost(1_800),
                1_800,
            ),
            (Budget::per_minute("tokens", 30_000).burst(2_000), 2_000),
            (Budget::total("cents", 5_000), 5_000),
        ] {
            assert_eq!(budget.capacity(), capacity, "{budget:?}");
        }
    }

    #[test]
    fn refill_is_reduced_by_the_capacity_and_stretched_by_one_percent() {
        let refill = Budget::per_minute("tokens", 6_000).burst(1_000).refill();
        let expected = BudgetRefill {
            units: NonZeroU64::new(5_001).unwrap(),
            period_nanos: NonZeroU64::new(60_600_000_000).unwrap(),
        };
        assert_eq!(refill, Some(expected));
        assert_eq!(Budget::total("cents", 5_000).refill(), None);
    }

    #[test]
    fn request_costs_one_of_requests_and_nothing_of_other_budgets() {
        for (budget, cost) in [
            (Budget::per_minute("requests", 60), 1),
            (Budget::per_minute("tokens", 60), 0),
            (Budget::per_minute("requests", 60).default_cost(0), 0),
            (Budget::per_minute("tokens", 60).default_cost(7), 7),
        ] {
            assert_eq!(budget.default_cost_or_implied(), cost, "{budget:?}");
        }
    }

    #[test]
    fn budgets_of_one_scope_have_different_names_and_affordable_default_costs() {
        let (requests, tokens) = (
            Budget::per_minute("requests", 60),
            Budget::per_minute("tokens", 600),
        );
        assert_eq!(check_budgets(&[requests, tokens.clone()]), Ok(()));
        let twice = check_budgets(&[tokens.clone(), Budget::total("tokens", 5)]);
        assert_eq!(twice.unwrap_err(), "the budget `tokens` was set twice");
        for (budget, reason) in [
            (tokens.clone().default_cost(601), "default cost 601"),
            (tokens.burst(10).default_cost(11), "above its capacity 10"),
            (
                Budget::total("cents", 5).default_cost(6),
                "above its capacity 5",
            ),
        ] {
            let error = check_budgets(&[budget]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_function() {
        let budget = Budget::per_second("tokens", 80).settle(|_| None);
        assert_eq!(
            format!("{budget:?}"),
            "Budget { name: \"tokens\", units: 80, period: 1s, capacity: 2, default_cost: 0, \
             settle: true }"
        );
    }

    #[test]
    #[should_panic(expected = "budget of zero")]
    fn zero_units_panic() {
        let _ = Budget::per_second("tokens", 0);
    }

    #[test]
    #[should_panic(expected = "period of a budget must not be zero")]
    fn zero_period_panics() {
        let _ = Budget::per("tokens", 1, Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "500 years or more")]
    fn period_of_500_years_panics() {
        let _ = Budget::per("tokens", 1, LONGEST_PERIOD);
    }

    #[test]
    #[should_panic(expected = "burst of zero")]
    fn zero_burst_panics() {
        let _ = Budget::per_second("tokens", 1).burst(0);
    }

    #[test]
    #[should_panic(expected = "a burst of 61 is above the 60 units of the budget `tokens`")]
    fn burst_above_the_units_panics() {
        let _ = Budget::per_second("tokens", 60).burst(61);
    }

    #[test]
    #[should_panic(expected = "a total budget has no burst")]
    fn burst_of_a_total_panics() {
        let _ = Budget::total("cents", 60).burst(6);
    }

    proptest! {
        /// A token bucket admits its capacity and the refill of a window.
        #[test]
        fn capacity_and_refill_of_a_period_are_within_the_units(
            units in 1..=u64::MAX,
            burst in prop::option::of(1..=u64::MAX),
            nanos in 1..LONGEST_PERIOD.as_nanos() as u64,
        ) {
            let budget = Budget::per("tokens", units, Duration::from_nanos(nanos));
            let budget = match burst {
                Some(burst) => budget.burst(burst.min(units)),
                None => budget,
            };
            let refill = budget.refill().unwrap();
            let refilled = u128::from(nanos) * u128::from(refill.units.get())
                / u128::from(refill.period_nanos.get());
            prop_assert!(u128::from(budget.capacity()) + refilled <= u128::from(units));
        }

        #[test]
        fn default_capacity_leaves_96_percent_usable(units in 1..=u64::MAX) {
            let budget = Budget::per_minute("tokens", units);
            let refill = budget.refill().unwrap();
            let per_period = refill.units.get() as f64 * 60e9 / refill.period_nanos.get() as f64;
            prop_assert!(per_period >= 0.96 * units as f64);
        }
    }
}
