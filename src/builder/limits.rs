//! Settings that limit how many requests are in flight, and how often they start.

use std::sync::Arc;

use super::FetcherBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::limits::{Breaker, Concurrency, Rate, RetryBudget};
use crate::request::Request;

impl FetcherBuilder {
    /// Limits how many requests are in flight at once, over all batches and single fetches.
    /// Default: no limit, and 100 for each batch.
    ///
    /// The number is clamped to the system's limit on open files, which logs a warning.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.mark_shared("concurrency");
        self.limits.set_concurrency(limit);
        self
    }

    /// Limits how often requests start, retries included, over all batches and single fetches.
    /// Default: no limit.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.mark_shared("rate");
        self.limits.rate = Some(rate);
        self
    }

    /// Limits how many requests are in flight to one host at once. It is a number or
    /// [`Concurrency::adaptive`]. Default: no limit.
    ///
    /// A host is an origin (scheme, host and port), or a key of [`limit_by`](Self::limit_by).
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency_per_host(mut self, limit: impl Into<Concurrency>) -> Self {
        self.mark_shared("concurrency_per_host");
        self.limits.set_concurrency_per_host(limit.into());
        self
    }

    /// Limits how often requests to one host start, retries included. Default: no limit.
    pub fn rate_per_host(mut self, rate: Rate) -> Self {
        self.mark_shared("rate_per_host");
        self.limits.rate_per_host = Some(rate);
        self
    }

    /// Whether to slow down for the rate limits that a server announces in its responses, before it
    /// responds with 429. Default: `true`.
    ///
    /// These headers are read: `RateLimit` and `RateLimit-Policy`
    /// (draft-ietf-httpapi-ratelimit-headers), `RateLimit-Remaining` and `RateLimit-Reset` of its
    /// older drafts, and the common `X-RateLimit-Remaining` and `X-RateLimit-Reset`, with the reset
    /// as a number of seconds or a point in time. Malformed values are ignored.
    ///
    /// Nothing is slowed while the remaining quota covers all queued requests to the host.
    /// Otherwise the remaining requests are spread over the time until the reset, and with no quota
    /// left the host is paused. After the reset, one request is sent alone, for up to 2 s, to learn
    /// the new quota. A pause lasts 5 min at most. For servers that report the reset in whole
    /// seconds, this may cost up to 1 s per window.
    ///
    /// The quota applies to the whole host. If a server has separate quotas, separate its requests
    /// with [`limit_by`](Self::limit_by).
    pub fn respect_rate_limit_headers(mut self, enabled: bool) -> Self {
        self.respect_rate_limit_headers = enabled;
        self
    }

    /// Chooses which requests share the limits and pauses of one host: those for which `key`
    /// returns the same value. Default: the origin (scheme, host and port).
    ///
    /// The function is called once for each request, when it is queued. A panic in it becomes that
    /// request's [`ErrorKind::Panicked`]. The limits of a [`host`](Self::host) apply to the key
    /// that equals its origin. There is no [breaker](Self::breaker), because requests with one key
    /// may go to several hosts.
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
        self.mark_shared("limit_by");
        self.limit_by = Some(Arc::new(move |request| key(request).into()));
        self
    }

    /// Sets when a host counts as down, and what happens to its requests then. Default:
    /// [`Breaker::default`], 5 failures in a row. [`Breaker::off`] disables it. A
    /// [`Host`](crate::Host) can have its own.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.mark_shared("breaker");
        self.breaker = breaker;
        self
    }

    /// Limits how many retries one host is sent, in addition to the limit of each request. Default:
    /// [`RetryBudget::default`], a fifth of the first attempts and 10 per second.
    /// [`RetryBudget::off`] removes the limit.
    ///
    /// All batches and single fetches share one budget per host, including those with their own
    /// [`retry`](crate::Batch::retry).
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.mark_shared("retry_budget");
        self.retry_budget = budget;
        self
    }
}
