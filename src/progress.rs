//! Counts of completed, queued and in-flight requests, of a batch or of a whole Fetcher.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The progress of a batch, from [`BatchHandle::progress`](crate::BatchHandle::progress), or of all
/// work of a Fetcher, from [`Snapshot::progress`].
///
/// All numbers are of the same instant: [`inputs_pulled`](Self::inputs_pulled) is the sum of
/// [`completed`](Self::completed), [`in_flight`](Self::in_flight) and [`Waiting::total`]. `Display`
/// prints one line.
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
/// let batch = fetcher.batch(&urls);
/// let handle = batch.handle();
/// let watch = async {
///     loop {
///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
///         println!("{}", handle.progress());
///     }
/// };
/// tokio::select! {
///     results = batch.gather() => println!("{} results", results.len()),
///     () = watch => {}
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    pub(crate) total_inputs: Option<usize>,
    pub(crate) inputs_pulled: usize,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    pub(crate) in_flight: usize,
    pub(crate) waiting_counts: Waiting,
    pub(crate) retries: usize,
    pub(crate) body_bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) completed_per_second: f64,
    pub(crate) busiest_hosts: Vec<HostProgress>,
    pub(crate) budgets: Vec<BudgetLevel>,
    pub(crate) has_ended: bool,
}

impl Progress {
    pub(crate) fn with_total_inputs(mut self, total_inputs: Option<usize>) -> Self {
        self.total_inputs = total_inputs;
        self
    }

    pub(crate) fn with_budgets(mut self, mut budgets: Vec<BudgetLevel>) -> Self {
        budgets.sort_by(|a, b| {
            let key = |budget: &BudgetLevel| (budget.scope, budget.host.clone());
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        self.budgets = budgets;
        self
    }

    pub(crate) fn into_ended(mut self) -> Self {
        self.has_ended = true;
        self
    }

    /// The number of inputs, including the requests found so far by
    /// [`follow_links`](crate::AsCompleted::follow_links). `None` for a stream, or if the
    /// `size_hint` of the iterator is not exact.
    pub fn total(&self) -> Option<usize> {
        self.total_inputs
    }

    /// The number of inputs pulled from the iterator or stream so far. Inputs are pulled ahead of
    /// the requests, within the [look-ahead window](crate::Batch::look_ahead).
    pub fn inputs_pulled(&self) -> usize {
        self.inputs_pulled
    }

    /// The number of inputs that have a result, whether or not the consumer has taken the result.
    pub fn completed(&self) -> usize {
        self.succeeded + self.failed
    }

    /// The number of results that are a response, with any status.
    pub fn succeeded(&self) -> usize {
        self.succeeded
    }

    /// The number of results that are an error.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of queued requests, by the reason why they wait.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting_counts
    }

    /// The number of retries so far.
    pub fn retries(&self) -> usize {
        self.retries
    }

    /// The decoded bytes of all response bodies, including those saved to files or read by a
    /// handler.
    ///
    /// Bytes count as they arrive. The bytes of an attempt that fails no longer count, unless a
    /// retry continues a saved file. [`BodyProgress`](crate::BodyProgress) is the progress of one
    /// request.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The time since the batch was first polled, or since the Fetcher was created.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The number of results per second, over about the last 10 s. If the previous call was longer
    /// ago, the number counts from that call. After the end of a batch, the number is the average
    /// over the whole batch.
    pub fn completed_per_second(&self) -> f64 {
        self.completed_per_second
    }

    /// The estimated time until all inputs have a result, at the current rate of
    /// [`completed_per_second`](Self::completed_per_second). `None` if the [`total`](Self::total)
    /// is unknown, or if no request completed recently.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total_inputs?.saturating_sub(self.completed());
        let seconds = match left {
            0 => 0.0,
            left => left as f64 / self.completed_per_second,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The hosts with the most unfinished requests, largest first. Only a few hosts are listed, and
    /// only hosts with queued requests.
    ///
    /// A host is an origin, or a key of [`limit_by`](crate::FetcherBuilder::limit_by).
    pub fn busiest_hosts(&self) -> &[HostProgress] {
        &self.busiest_hosts
    }

    /// The budgets, in the order of [`BudgetScope`], of their hosts and of their names.
    ///
    /// The progress of a batch lists the budgets of this batch, of the Fetcher and of all hosts in
    /// use. After its end, the levels are those at the end. A [`Snapshot`] lists all budgets of the
    /// Fetcher and of its batches. A host without recent requests and with full budgets is not
    /// listed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{Budget, Fetcher, Mock, Request};
    ///
    /// let fetcher = Fetcher::builder()
    ///     .transport(Mock::new())
    ///     .budget(Budget::total("cents", 500))
    ///     .build()?;
    /// fetcher.fetch(Request::get("https://api.example/").cost("cents", 3)).await?;
    /// let snapshot = fetcher.snapshot();
    /// let cents = &snapshot.progress().budgets()[0];
    /// assert_eq!((cents.name(), cents.level(), cents.capacity()), ("cents", 497, 500));
    /// # Ok(())
    /// # }
    /// ```
    pub fn budgets(&self) -> &[BudgetLevel] {
        &self.budgets
    }

    /// Whether the batch has ended: all results were delivered, or it was dropped.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.completed())?;
        if let Some(total) = self.total_inputs {
            write!(f, " of {total}")?;
        }
        write!(
            f,
            " done ({} failed), {} in flight",
            self.failed, self.in_flight
        )?;
        write!(f, ", {}", self.waiting_counts)?;
        if self.retries > 0 {
            write!(f, ", {} retries", self.retries)?;
        }
        write!(f, ", {:.1}/s", self.completed_per_second)?;
        match self.eta() {
            Some(left) if !self.has_ended => write!(f, ", {:.0} s left", left.as_secs_f64()),
            _ => Ok(()),
        }
    }
}

/// The number of queued requests, by the reason why they wait.
///
/// A queued request holds no concurrency slot and no connection, and its timeouts do not run. A
/// request with several reasons to wait is counted once, under the reason that was found first.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Waiting {
    pub(crate) waiting_for_concurrency: usize,
    pub(crate) waiting_for_rate: usize,
    pub(crate) waiting_for_budget: usize,
    pub(crate) waiting_for_backoff: usize,
    pub(crate) waiting_for_breaker: usize,
    pub(crate) waiting_for_token: usize,
    pub(crate) waiting_while_paused: usize,
    pub(crate) undelivered_results: usize,
}

impl Waiting {
    /// The number of requests that have no result and are not in flight.
    pub fn total(&self) -> usize {
        self.waiting_for_concurrency
            + self.waiting_for_rate
            + self.waiting_for_budget
            + self.waiting_for_backoff
            + self.waiting_for_breaker
            + self.waiting_for_token
            + self.waiting_while_paused
    }

    /// The number of requests waiting for a concurrency slot of the Fetcher, the sibling, the batch
    /// or the host, or for their name lookups to begin. Requests that are about to start are
    /// included.
    pub fn for_concurrency(&self) -> usize {
        self.waiting_for_concurrency
    }

    /// The number of requests waiting for a [rate limit](crate::Rate).
    pub fn for_rate(&self) -> usize {
        self.waiting_for_rate
    }

    /// The number of requests waiting for a [budget](crate::Budget). [`Progress::budgets`] has the
    /// number for each budget.
    pub fn for_budget(&self) -> usize {
        self.waiting_for_budget
    }

    /// The number of requests waiting for the backoff before a retry, for the [final
    /// round](crate::Retry::final_round), or for the end of a pause that the host requested, for
    /// example with `Retry-After`.
    pub fn for_backoff(&self) -> usize {
        self.waiting_for_backoff
    }

    /// The number of requests waiting for a host whose [breaker](crate::Breaker) is open.
    pub fn for_breaker(&self) -> usize {
        self.waiting_for_breaker
    }

    /// The number of requests waiting for a bearer token from a [token
    /// source](crate::Host::token_source).
    pub fn for_token(&self) -> usize {
        self.waiting_for_token
    }

    /// The number of requests waiting for [`BatchHandle::resume`](crate::BatchHandle::resume).
    pub fn while_paused(&self) -> usize {
        self.waiting_while_paused
    }

    /// The number of results that the consumer has not taken yet. Their requests are not part of
    /// [`total`](Self::total).
    pub fn undelivered(&self) -> usize {
        self.undelivered_results
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waiting", self.total())?;
        let counts = [
            (self.waiting_for_concurrency, WaitReason::Concurrency),
            (self.waiting_for_rate, WaitReason::Rate),
            (self.waiting_for_budget, WaitReason::Budget),
            (self.waiting_for_backoff, WaitReason::Backoff),
            (self.waiting_for_breaker, WaitReason::Breaker),
            (self.waiting_for_token, WaitReason::Token),
            (self.waiting_while_paused, WaitReason::Paused),
        ];
        let mut separator = " (";
        for (count, reason) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{reason} {count}")?;
            separator = ", ";
        }
        match self.total() {
            0 => Ok(()),
            _ => f.write_str(")"),
        }
    }
}

/// The reason why a request is queued.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum WaitReason {
    /// All concurrency slots of the Fetcher, the sibling, the batch or the host are taken.
    Concurrency,
    /// A [rate limit](crate::Rate) does not allow another start yet.
    Rate,
    /// A [budget](crate::Budget) does not cover the cost of the next request yet.
    Budget,
    /// The backoff before a retry, a pause that the host requested, or the wait for the [final
    /// round](crate::Retry::final_round) is not over.
    Backoff,
    /// The [breaker](crate::Breaker) of the host is open.
    Breaker,
    /// The [token source](crate::Host::token_source) of the host has not returned a bearer token
    /// yet.
    Token,
    /// The batch is paused with [`BatchHandle::pause`](crate::BatchHandle::pause).
    Paused,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Budget => "budget",
            Self::Backoff => "backoff",
            Self::Breaker => "breaker",
            Self::Token => "token",
            Self::Paused => "paused",
        })
    }
}

/// The unfinished requests of one host, from [`Progress::busiest_hosts`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostProgress {
    pub(crate) host: Arc<str>,
    pub(crate) waiting: usize,
    pub(crate) in_flight: usize,
    pub(crate) wait_reason: WaitReason,
    pub(crate) blocking_budget: Option<Arc<str>>,
}

impl HostProgress {
    /// The origin of the host, or the key that [`limit_by`](crate::FetcherBuilder::limit_by)
    /// returned for its requests.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The number of queued requests to the host.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The number of requests to the host in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The reason why the next request to the host is queued.
    pub fn wait_reason(&self) -> WaitReason {
        self.wait_reason
    }

    /// The name of the budget for which the next request to the host waits, if the
    /// [reason](Self::wait_reason) is [`WaitReason::Budget`].
    pub fn blocking_budget(&self) -> Option<&str> {
        self.blocking_budget.as_deref()
    }
}

impl fmt::Display for HostProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            waiting,
            in_flight,
            wait_reason,
            blocking_budget,
        } = self;
        write!(f, "{host}: {waiting} waiting ({wait_reason}")?;
        if let Some(budget) = blocking_budget {
            write!(f, " `{budget}`")?;
        }
        write!(f, "), {in_flight} in flight")
    }
}

/// The level of one [budget](crate::Budget), from [`Progress::budgets`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BudgetLevel {
    pub(crate) name: Arc<str>,
    pub(crate) scope: BudgetScope,
    pub(crate) host: Option<Arc<str>>,
    pub(crate) level: i64,
    pub(crate) capacity: u64,
    pub(crate) waiting: usize,
}

impl BudgetLevel {
    /// The name of the budget.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The requests to which the budget applies.
    pub fn scope(&self) -> BudgetScope {
        self.scope
    }

    /// The origin of the host that has the budget, or the key of
    /// [`limit_by`](crate::FetcherBuilder::limit_by). `None` if the budget is not one of a host.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The number of units that can be charged now; of a [total](crate::Budget::total), the units
    /// that are left. Negative if the budget is in debt, because requests have cost more than they
    /// stated.
    ///
    /// The stated costs of requests in flight are subtracted.
    pub fn level(&self) -> i64 {
        self.level
    }

    /// The largest level: the [burst](crate::Budget::burst), or the units of a
    /// [total](crate::Budget::total).
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The number of requests, of all batches, that wait for this budget.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

impl fmt::Display for BudgetLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(host) = &self.host {
            write!(f, " of {host}")?;
        }
        write!(f, ": {} of {}", self.level, self.capacity)?;
        match self.waiting {
            0 => Ok(()),
            waiting => write!(f, ", {waiting} waiting"),
        }
    }
}

/// The requests to which a [budget](crate::Budget) applies.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum BudgetScope {
    /// All requests of the Fetcher and its [siblings](crate::Fetcher::to_builder).
    Fetcher,
    /// The requests of one [sibling](crate::Fetcher::to_builder) that has budgets of its own.
    Sibling,
    /// The requests of one batch.
    Batch,
    /// The requests to one host, or with one key of
    /// [`limit_by`](crate::FetcherBuilder::limit_by).
    Host,
}

/// The state of a Fetcher at one instant, from [`Fetcher::snapshot`](crate::Fetcher::snapshot).
/// `Display` prints one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    progress: Progress,
    open_batches: usize,
    open_connections: usize,
    idle_connections: usize,
}

impl Snapshot {
    pub(crate) fn new(progress: Progress, open_batches: usize, open: usize, idle: usize) -> Self {
        Self {
            progress,
            open_batches,
            open_connections: open,
            idle_connections: idle,
        }
    }

    /// The progress of all batches and single fetches since the Fetcher was created, including
    /// those of its [siblings](crate::Fetcher::to_builder) and those that have ended.
    ///
    /// Requests that were dropped before they had a result are not counted. [`Progress::total`] is
    /// `None`.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The number of running batches of this Fetcher and its
    /// [siblings](crate::Fetcher::to_builder).
    pub fn open_batches(&self) -> usize {
        self.open_batches
    }

    /// The number of sockets that are open or being opened. With a [custom
    /// transport](crate::FetcherBuilder::transport) it is 0.
    pub fn open_connections(&self) -> usize {
        self.open_connections
    }

    /// The number of [open connections](Self::open_connections) that are idle.
    pub fn idle_connections(&self) -> usize {
        self.idle_connections
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            progress,
            open_batches,
            open_connections,
            idle_connections,
        } = self;
        write!(
            f,
            "{open_batches} batches, {progress}, {open_connections} connections ({idle_connections} idle)"
        )
    }
}
