//! How far a batch has come, or all that a Fetcher does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How far a batch has come, from [`BatchHandle::progress`](crate::BatchHandle::progress); of all that a Fetcher does, in
/// a [`Snapshot`].
///
/// It is taken in one instant, so that it adds up: what is [completed](Self::completed), [in flight](Self::in_flight) and
/// [waiting](Waiting::total) is what was [pulled](Self::inputs_pulled). It prints as one line.
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
    pub(crate) total: Option<usize>,
    pub(crate) inputs_pulled: usize,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    pub(crate) in_flight: usize,
    pub(crate) waiting: Waiting,
    pub(crate) retries: usize,
    pub(crate) body_bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) completed_per_second: f64,
    pub(crate) busiest_hosts: Vec<HostProgress>,
    pub(crate) has_ended: bool,
}

impl Progress {
    pub(crate) fn with_total(mut self, total: Option<usize>) -> Self {
        self.total = total;
        self
    }

    pub(crate) fn into_ended(mut self) -> Self {
        self.has_ended = true;
        self
    }

    /// How many inputs there are in all; none if their iterator does not know it exactly, as a stream never does. What
    /// results [led to](crate::AsCompleted::follow) so far is among them.
    pub fn total(&self) -> Option<usize> {
        self.total
    }

    /// How many inputs were pulled so far: the look-ahead window runs before the requests.
    pub fn inputs_pulled(&self) -> usize {
        self.inputs_pulled
    }

    /// How many have their result, whether or not it was handed out yet.
    pub fn completed(&self) -> usize {
        self.succeeded + self.failed
    }

    /// How many of those [completed](Self::completed) have a response, whatever its status.
    pub fn succeeded(&self) -> usize {
        self.succeeded
    }

    /// How many of those [completed](Self::completed) have an error.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// How many are on the wire.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many wait, and for what.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// How often a request was put back to be tried again.
    pub fn retries(&self) -> usize {
        self.retries
    }

    /// How many bytes the bodies of the responses have, decoded; those that were saved to files or read by a handler
    /// too.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// How long it has been under way; of a batch, since it was first polled.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How many a second were done lately: over about the last 10 s, or since the last look if that is longer ago. Once
    /// a batch has ended, over all its time.
    pub fn completed_per_second(&self) -> f64 {
        self.completed_per_second
    }

    /// How long the rest, as far as it is known, will take if it goes on like this; none if the [total](Self::total) is
    /// not, or nothing was done lately.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.completed());
        let seconds = match left {
            0 => 0.0,
            left => left as f64 / self.completed_per_second,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The few hosts with something waiting that have the most to do, the first of them first.
    ///
    /// A host is what has limits of its own: an origin, or what
    /// [`limit_by`](crate::FetcherBuilder::limit_by) makes of a request.
    pub fn busiest_hosts(&self) -> &[HostProgress] {
        &self.busiest_hosts
    }

    /// Whether the batch is over: its results were all handed out, or it was dropped.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.completed())?;
        if let Some(total) = self.total {
            write!(f, " of {total}")?;
        }
        write!(
            f,
            " done ({} failed), {} in flight",
            self.failed, self.in_flight
        )?;
        write!(f, ", {}", self.waiting)?;
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

/// What waits, by what it waits for. None of it holds a slot or a connection, and no timeout runs.
///
/// A request that would wait for several things is counted once: for the one that it was stopped by.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Waiting {
    pub(crate) concurrency: usize,
    pub(crate) rate: usize,
    pub(crate) backoff: usize,
    pub(crate) breaker: usize,
    pub(crate) token: usize,
    pub(crate) paused: usize,
    pub(crate) undelivered: usize,
}

impl Waiting {
    /// How many have not come to their end and are not in flight.
    pub fn total(&self) -> usize {
        self.concurrency + self.rate + self.backoff + self.breaker + self.token + self.paused
    }

    /// For one of those in flight to end: as many are as may be, in all or at their host; or it is their turn next.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// For a rate.
    pub fn rate(&self) -> usize {
        self.rate
    }

    /// For the time to try again, or the [end of the batch](crate::Retry::final_round); or for a host that asked for a
    /// pause, as with `Retry-After`.
    pub fn backoff(&self) -> usize {
        self.backoff
    }

    /// For a host that cannot be reached to be asked again: its [breaker](crate::Breaker) is open.
    pub fn breaker(&self) -> usize {
        self.breaker
    }

    /// For a [token](crate::Host::token_source).
    pub fn token(&self) -> usize {
        self.token
    }

    /// For [`resume`](crate::BatchHandle::resume).
    pub fn paused(&self) -> usize {
        self.paused
    }

    /// For whoever reads the results: these are done, and not handed out yet. They are not in the
    /// [total](Self::total).
    pub fn undelivered(&self) -> usize {
        self.undelivered
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waiting", self.total())?;
        let named = [
            (self.concurrency, WaitReason::Concurrency),
            (self.rate, WaitReason::Rate),
            (self.backoff, WaitReason::Backoff),
            (self.breaker, WaitReason::Breaker),
            (self.token, WaitReason::Token),
            (self.paused, WaitReason::Paused),
        ];
        let mut before = " (";
        for (count, reason) in named.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{before}{reason} {count}")?;
            before = ", ";
        }
        match self.total() {
            0 => Ok(()),
            _ => f.write_str(")"),
        }
    }
}

/// What a request waits for.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum WaitReason {
    /// See [`Waiting::concurrency`].
    Concurrency,
    /// See [`Waiting::rate`].
    Rate,
    /// See [`Waiting::backoff`].
    Backoff,
    /// See [`Waiting::breaker`].
    Breaker,
    /// See [`Waiting::token`].
    Token,
    /// See [`Waiting::paused`].
    Paused,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Backoff => "back-off",
            Self::Breaker => "breaker",
            Self::Token => "token",
            Self::Paused => "paused",
        })
    }
}

/// What one host has to do yet, from [`Progress::busiest_hosts`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostProgress {
    pub(crate) host: Arc<str>,
    pub(crate) waiting: usize,
    pub(crate) in_flight: usize,
    pub(crate) wait_reason: WaitReason,
}

impl HostProgress {
    /// Its origin, or what [`limit_by`](crate::FetcherBuilder::limit_by) calls it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How many of its requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of its requests are on the wire.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What the next of those that wait does so for.
    pub fn wait_reason(&self) -> WaitReason {
        self.wait_reason
    }
}

impl fmt::Display for HostProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            waiting,
            in_flight,
            wait_reason,
        } = self;
        write!(
            f,
            "{host}: {waiting} waiting ({wait_reason}), {in_flight} in flight"
        )
    }
}

/// What a Fetcher does at an instant, from [`Fetcher::snapshot`](crate::Fetcher::snapshot). It prints as one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    work: Progress,
    batches: usize,
    open_connections: usize,
    idle_connections: usize,
}

impl Snapshot {
    pub(crate) fn new(work: Progress, batches: usize, open: usize, idle: usize) -> Self {
        Self {
            work,
            batches,
            open_connections: open,
            idle_connections: idle,
        }
    }

    /// How far all batches and single fetches have come, of it and of its [siblings](crate::Fetcher::to_builder), those
    /// since the Fetcher was made that are over included. What was dropped before its end counts in nothing. There is no
    /// [`total`](Progress::total).
    pub fn progress(&self) -> &Progress {
        &self.work
    }

    /// How many batches are under way.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// How many sockets are open, or are being opened; 0 where a
    /// [transport](crate::FetcherBuilder::transport) stands in their place.
    pub fn open_connections(&self) -> usize {
        self.open_connections
    }

    /// How many of the [open](Self::open_connections) ones are at rest.
    pub fn idle_connections(&self) -> usize {
        self.idle_connections
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            work,
            batches,
            open_connections,
            idle_connections,
        } = self;
        write!(
            f,
            "{batches} batches, {work}, {open_connections} connections ({idle_connections} idle)"
        )
    }
}
