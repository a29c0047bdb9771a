//! The setters that limit how many requests are in flight, and how often requests start.

use std::sync::Arc;

use super::FetcherBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
#[cfg(doc)]
use crate::fetcher::Fetcher;
use crate::limits::{Breaker, Budget, Concurrency, KeyLimits, Rate, RetryBudget};
use crate::request::Request;

impl FetcherBuilder {
    /// Limits how many requests of all batches and single fetches together are in flight at once.
    /// Default: no limit for the Fetcher, and 100 requests for each batch.
    ///
    /// In a [sibling](Fetcher::to_builder), the limit applies to the requests of the sibling alone,
    /// and within the limit of its parent. It is also the default for each batch of the sibling.
    ///
    /// If the number exceeds the system's limit on open files, that limit applies instead and a
    /// warning is logged.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error for the sibling of a sibling that has limits of its
    /// own.
    ///
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.limit_settings.set_concurrency(limit);
        self
    }

    /// Limits how often requests of all batches and single fetches together start, retries
    /// included. Default: no limit.
    ///
    /// In a [sibling](Fetcher::to_builder), the rate applies to the requests of the sibling alone,
    /// and within the rate of its parent.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error for the sibling of a sibling that has limits of its
    /// own.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.limit_settings.rate = Some(rate);
        self
    }

    /// Limits how many requests are in flight to one host at once. `limit` is a number or
    /// [`Concurrency::adaptive`]. Default: no limit.
    ///
    /// A host is an origin (scheme, host and port), or a key of [`limit_by`](Self::limit_by).
    ///
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub fn concurrency_per_host(mut self, limit: impl Into<Concurrency>) -> Self {
        self.record_change_of_shared_setting("concurrency_per_host");
        self.limit_settings.set_concurrency_per_host(limit.into());
        self
    }

    /// Limits how often requests to one host start, retries included. Default: no limit.
    pub fn rate_per_host(mut self, rate: Rate) -> Self {
        self.record_change_of_shared_setting("rate_per_host");
        self.limit_settings.rate_per_host = Some(rate);
        self
    }

    /// Sets whether requests to a host slow down according to the rate limits that the server
    /// announces in response headers, before it responds with 429. Default: `true`.
    ///
    /// These headers are read: `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers), `RateLimit-Remaining` and `RateLimit-Reset` of its
    /// older drafts, and the common `X-RateLimit-Remaining` and `X-RateLimit-Reset`, with the reset
    /// as a number of seconds, a duration such as `1m30s`, or a point in time. Malformed values are
    /// ignored.
    ///
    /// If the remaining quota covers all queued requests to the host, no request is delayed.
    /// Otherwise the remaining requests are spread over the time until the reset, and with no quota
    /// left, the host is paused. After the reset, one request is sent alone, for up to 2 s, to
    /// learn the new quota. A pause lasts 5 min at most. If a server reports the reset in whole
    /// seconds, up to 1 s per rate-limit window may be lost.
    ///
    /// The quota applies to the whole host. If a server has separate quotas, separate its requests
    /// with [`limit_by`](Self::limit_by).
    ///
    /// # Quotas with a name
    ///
    /// Some servers announce a quota for each of several resources. Such a quota lowers the
    /// [`Budget`](crate::Budget) of the [`Host`](crate::Host::budget) that has the same name, in
    /// lower case:
    ///
    /// | headers | name of the budget | servers |
    /// |---|---|---|
    /// | `x-ratelimit-remaining-tokens`, `x-ratelimit-limit-tokens`, `x-ratelimit-reset-tokens` | `tokens`, or any other suffix | OpenAI, Azure OpenAI, Groq, Cerebras |
    /// | `anthropic-ratelimit-input-tokens-remaining`, `-limit`, `-reset` | `input-tokens`, or any other name | Anthropic |
    /// | `x-ratelimit-resource: search` beside `x-ratelimit-remaining` | `search`, or any other value | GitHub |
    ///
    /// An announcement may lower the level of a budget. It never raises the level, and the response
    /// to an earlier request never replaces the announcement in the response to a later one. If the
    /// host has no such budget, a quota of `requests` and a quota of GitHub apply to the whole host
    /// as above, and any other quota is ignored.
    ///
    /// # Requests that were refused with 403
    ///
    /// GitHub may refuse a request with 403 because of a rate limit. A 403 with `Retry-After`, or
    /// with `X-RateLimit-Remaining: 0` and a reset, is therefore
    /// [retried](crate::Retry::max_throttled_attempts) as a 429 is, after that delay. GitHub's
    /// secondary limits have neither: the delay is then 1 min after a 429, and after a 403 whose
    /// body names a secondary rate limit. [`read_with`](crate::Batch::read_with) and
    /// [`stream_body`](crate::Fetch::stream_body) decide without the body.
    ///
    /// `false` turns all of this off. `Retry-After`, `retry-after-ms` and `x-should-retry`, which
    /// [`Retry`](crate::Retry) describes, are obeyed in any case.
    pub fn respect_rate_limit_headers(mut self, enabled: bool) -> Self {
        self.respect_rate_limit_headers = enabled;
        self
    }

    /// Sets a function that selects the lane (the queue, limits and pauses of one host) of each
    /// request: requests for which `key` returns the same value share a lane. Default: one lane per
    /// origin (scheme, host and port).
    ///
    /// The function is called once for each request, when the request is queued. If the function
    /// panics, the request fails with [`ErrorKind::Panicked`]. The limits of a [`host`](Self::host)
    /// apply to the key that equals the origin of the host. There are no [breakers](Self::breaker),
    /// because requests with one key may go to several hosts.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// // All subdomains of a site share its limits.
    /// let site = |request: &fanout::Request| {
    ///     let host = request.url().and_then(|url| url.domain()).unwrap_or_default();
    ///     host.rsplitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    /// };
    /// let fetcher = fanout::Fetcher::builder().concurrency_per_host(2).limit_by(site).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit_by<F, K>(mut self, key: F) -> Self
    where
        F: Fn(&Request) -> K + Send + Sync + 'static,
        K: Into<String>,
    {
        self.record_change_of_shared_setting("limit_by");
        self.limit_by_fn = Some(Arc::new(move |request| key(request).into()));
        self
    }

    /// Sets the limits of the requests for which [`limit_by`](Self::limit_by) returns `key`.
    /// Default: the limits per host apply to each key.
    ///
    /// `limits` replaces the limits per host and the limits of a [`host`](Self::host) whose origin
    /// equals the key. The limits of the Fetcher and of each batch apply as well.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `limit_by` is not set, or if the limits of a key
    /// are set twice.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, KeyLimits, Rate, Request};
    ///
    /// // Each tenant of an API has its own quota.
    /// let tenant = |request: &Request| {
    ///     let header = request.headers().get("x-tenant");
    ///     header.and_then(|tenant| tenant.to_str().ok()).unwrap_or_default().to_owned()
    /// };
    /// let fetcher = Fetcher::builder()
    ///     .limit_by(tenant)
    ///     .rate_per_host(Rate::per_second(2))
    ///     .limits_for("gold", KeyLimits::new().rate(Rate::per_second(50)))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limits_for(mut self, key: impl Into<String>, limits: KeyLimits) -> Self {
        self.record_change_of_shared_setting("limits_for");
        self.limits_by_key.push((key.into(), limits));
        self
    }

    /// Sets the circuit breaker: when a host counts as down, and how long its requests stay queued.
    /// Default: [`Breaker::default`], 5 consecutive failures and 15 s. [`Breaker::off`] disables
    /// the breaker. A [`Host`](crate::Host) can have its own breaker.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.record_change_of_shared_setting("breaker");
        self.breaker = breaker;
        self
    }

    /// Adds a budget: a limit on the cost of all batches and single fetches together. Default:
    /// none.
    ///
    /// The budgets of the host and of the batch apply as well. In a [sibling](Fetcher::to_builder),
    /// the budget applies to the requests of the sibling alone, and the budgets of its parent apply
    /// as well.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if two budgets of the Fetcher have the same name,
    /// and for the sibling of a sibling that has limits of its own.
    ///
    /// ```
    /// use fanout::{Budget, Fetcher};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let spending_cap = Budget::total("cents", 5_000);
    /// let fetcher = Fetcher::builder().budget(spending_cap).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }

    /// Limits how many retries are sent to one host, in addition to the limit on retries of each
    /// request. Default: [`RetryBudget::default`], 20 % of the first attempts plus 10 retries per
    /// second. [`RetryBudget::off`] removes the limit.
    ///
    /// All batches and single fetches share one budget per host, including those with their own
    /// [`retry`](crate::Batch::retry).
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.record_change_of_shared_setting("retry_budget");
        self.retry_budget = budget;
        self
    }
}
