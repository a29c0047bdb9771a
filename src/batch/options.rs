//! The options of a batch.

use std::sync::Arc;
use std::time::Duration;

use super::Batch;
use crate::engine::{JobOptions, StopCondition, TenantHandle};
use crate::error::Result;
use crate::limits::{Budget, Concurrency, LimitSettings, Rate, Retry, Timeouts, check_budgets};
use crate::response::Response;

/// All options of a batch.
pub(super) struct BatchOptions {
    pub(super) limit_settings: LimitSettings,
    /// Options of each request, initially a copy of the Fetcher's defaults.
    pub(super) job_options: JobOptions,
    /// The tenant of the Fetcher, if the Fetcher is a sibling with limits of its own.
    pub(super) tenant: Option<Arc<TenantHandle>>,
    pub(super) deadline: Option<Duration>,
    pub(super) look_ahead: Option<usize>,
    pub(super) max_buffered_bytes: Option<u64>,
}

impl BatchOptions {
    pub(super) fn new(job_options: JobOptions, tenant: Option<Arc<TenantHandle>>) -> Self {
        Self {
            limit_settings: LimitSettings::default(),
            job_options,
            tenant,
            deadline: None,
            look_ahead: None,
            max_buffered_bytes: None,
        }
    }
}

impl<T, R> Batch<'_, T, R> {
    /// Limits how many requests of this batch are in flight at once. Default: the Fetcher's
    /// [concurrency](crate::FetcherBuilder::concurrency), or 100 requests if the Fetcher has no
    /// limit.
    ///
    /// The Fetcher's limit remains the ceiling. If the number exceeds the system's limit on open
    /// files, that limit applies instead and a warning is logged.
    ///
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.options.limit_settings.set_concurrency(limit);
        self
    }

    /// Limits how many requests of this batch are in flight to one host at once. `limit` is a
    /// number or [`Concurrency::adaptive`]. Default: no limit.
    ///
    /// An adaptive limit is learned for this batch alone. To share the learned limit between
    /// batches, set an adaptive limit on the
    /// [Fetcher](crate::FetcherBuilder::concurrency_per_host).
    ///
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub fn concurrency_per_host(mut self, limit: impl Into<Concurrency>) -> Self {
        self.options
            .limit_settings
            .set_concurrency_per_host(limit.into());
        self
    }

    /// Limits how often requests of this batch start, retries included. Default: no limit.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.options.limit_settings.rate = Some(rate);
        self
    }

    /// Limits how often requests of this batch to one host start, retries included. Default: no
    /// limit.
    pub fn rate_per_host(mut self, rate: Rate) -> Self {
        self.options.limit_settings.rate_per_host = Some(rate);
        self
    }

    /// Adds a budget: a limit on the cost of the requests of this batch. Default: none.
    ///
    /// The budgets of the host and of the Fetcher apply as well.
    ///
    /// # Panics
    ///
    /// Panics if the batch already has a budget with this name, or if the [default
    /// cost](Budget::default_cost) of the budget is above its capacity.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// # let fetcher = fanout::Fetcher::builder().transport(fanout::Mock::new()).build()?;
    /// # let urls = ["http://a.example/"];
    /// use fanout::Budget;
    ///
    /// // The batch sends at most 1,000 requests, retries and redirects included.
    /// let cap = Budget::total("sent", 1_000).default_cost(1);
    /// let results = fetcher.batch(urls).budget(cap).gather().await;
    /// # assert!(results[0].is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn budget(mut self, budget: Budget) -> Self {
        let budgets = &mut self.options.job_options.budgets;
        budgets.push(budget);
        if let Err(reason) = check_budgets(budgets) {
            panic!("{reason}");
        }
        self
    }

    /// Sets which failures are retried, how often and when. Default: the Fetcher's
    /// [retry](crate::FetcherBuilder::retry).
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.job_options.retry = retry;
        self
    }

    /// Sets the timeouts of each request. Default: the Fetcher's
    /// [timeouts](crate::FetcherBuilder::timeouts).
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.job_options.timeouts = timeouts;
        self
    }

    /// Limits the wall-clock time of the whole batch, starting at its first poll. Default: no
    /// limit.
    ///
    /// An input without a result at the deadline ends with the outcome of its last attempt, or with
    /// [`ErrorKind::Deadline`](crate::ErrorKind::Deadline) if there was no attempt. A request whose
    /// retry could not start before the deadline is not retried, and ends with the outcome of its
    /// last attempt.
    ///
    /// [`gather`](Self::gather) still returns a result for every input of an iterator, but stops
    /// reading a stream. The other endings stop taking inputs.
    ///
    /// # Panics
    ///
    /// Panics if `limit` is zero.
    #[track_caller]
    pub fn deadline(mut self, limit: Duration) -> Self {
        assert!(
            limit > Duration::ZERO,
            "a deadline of zero would never start anything"
        );
        self.options.deadline = Some(limit);
        self
    }

    /// Drains the batch at the first result for which `stop_when` returns true, such as a response
    /// that says that the account is exhausted. Default: every request is sent.
    ///
    /// Draining is the same as [`BatchHandle::drain`](crate::BatchHandle::drain): requests in
    /// flight complete, and all other requests end unsent with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). [`gather`](Self::gather) still
    /// returns a result for every input of an iterator; the other endings stop taking inputs.
    /// [`try_gather`](Self::try_gather) fails with the first request that was not sent.
    ///
    /// The function is called once for each final result, when its request ends, on the task that
    /// ran the request. It is not called for a response after which the request is retried or
    /// redirected, nor for a request that ends with [`ErrorKind::Cancelled`] or
    /// [`ErrorKind::Deadline`](crate::ErrorKind::Deadline). With [`read_with`](Self::read_with), it
    /// is called with the response head, or with the error of the handler. If the function is set
    /// twice, the last one counts.
    ///
    /// If the function panics, the input ends with
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked), and the batch continues. The error
    /// holds the response.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
    /// use fanout::ErrorKind;
    ///
    /// // A revoked key dooms all further requests.
    /// let results = fetcher
    ///     .batch(&urls)
    ///     .stop_when(|result| matches!(result, Ok(response) if response.status() == 401))
    ///     .gather()
    ///     .await;
    /// let is_unsent = |kind| kind == ErrorKind::Cancelled;
    /// let unsent = results.iter().filter_map(|result| result.as_ref().err());
    /// println!("unsent: {}", unsent.filter(|error| is_unsent(error.kind())).count());
    /// # }
    /// ```
    ///
    /// [`ErrorKind::Cancelled`]: crate::ErrorKind::Cancelled
    pub fn stop_when<F>(mut self, stop_when: F) -> Self
    where
        F: Fn(&Result<Response>) -> bool + Send + Sync + 'static,
    {
        self.options.job_options.stop_condition = Some(StopCondition::new(stop_when));
        self
    }

    /// Limits how many inputs are pulled ahead of the results that were taken. Default: initially
    /// 16 inputs per request that may be in flight. This look-ahead window doubles, up to 65,536
    /// inputs, while a concurrency slot is idle because host limits hold back all pulled inputs.
    ///
    /// The default window is also bounded by the bytes of the request bodies that it holds in
    /// memory. At 64 MiB or more, no input is pulled, unless the window has fewer inputs than the
    /// concurrency. While all inputs so far were for one host, a window that holds request bodies
    /// does not grow. A window that is set here has a fixed number of inputs, whatever the bytes
    /// of their bodies. Bodies from files and streams are not counted.
    ///
    /// Inputs within the window cost memory, and inputs beyond it cannot start. The window matters
    /// when the inputs are sorted by host and each host has a low limit. For example, 100,000
    /// inputs of 100 hosts, sorted by host, with a concurrency of 100, take longer than the limits
    /// require by 41 % with 1 request per host, 10 % with 2 requests, and 6 % with 4 requests. A
    /// window that holds all inputs, or shuffling the inputs, removes the difference.
    ///
    /// # Panics
    ///
    /// Panics if `inputs` is 0.
    #[track_caller]
    pub fn look_ahead(mut self, inputs: usize) -> Self {
        assert_ne!(inputs, 0, "a window of zero would never start anything");
        self.options.look_ahead = Some(inputs);
        self
    }

    /// Limits how many bytes of response bodies are held in memory at once: bodies being received,
    /// and bodies of results that were not taken yet. The limit applies to
    /// [`as_completed`](Self::as_completed) and [`in_order`](Self::in_order). Default: no limit.
    ///
    /// When the limit is reached, nothing more is read from any connection until results are taken,
    /// which slows the servers down. While reading is blocked, no timeout runs except the
    /// [`deadline`](Self::deadline), and no data is lost.
    ///
    /// The limit can be exceeded in two ways. Each connection may add one chunk; with HTTP/2, a
    /// server may send up to 1 MiB ahead for each body. And while no result can be taken, the body
    /// of the oldest input being received is read to its end, so that a body larger than the limit
    /// completes.
    ///
    /// With `in_order`, the only result that can be taken is the next result in input order. While
    /// that result is missing and the limit is reached, later bodies are received one at a time.
    /// The [look-ahead window](Self::look_ahead) then bounds the number of bodies held. If the next
    /// input waits for a retry's backoff, no later body is received until the backoff is over.
    ///
    /// Bodies that are [saved to a file](crate::RequestBuilder::save_to) or read by a
    /// [handler](Self::read_with) are not counted. [`gather`](Self::gather) and
    /// [`try_gather`](Self::try_gather) keep all bodies and ignore this limit.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
    /// let mut results = fetcher.batch(&urls).max_buffered_bytes(256 << 20).as_completed();
    /// while let Some(completed) = results.next().await {
    ///     let length = completed.result.map(|response| response.bytes().len());
    ///     println!("{} {length:?}", completed.index);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if `bytes` is 0.
    #[track_caller]
    pub fn max_buffered_bytes(mut self, bytes: u64) -> Self {
        assert_ne!(bytes, 0, "a limit of zero bytes would never read anything");
        self.options.max_buffered_bytes = Some(bytes);
        self
    }
}
