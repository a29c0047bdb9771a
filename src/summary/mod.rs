//! What came of many requests, in a few lines.

mod histogram;
mod hosts;
mod sample;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::ErrorKind;
pub use histogram::Histogram;
pub use hosts::HostSummary;
use hosts::Hosts;
use sample::Sample;
pub use sample::Summarize;

/// What came of many requests: counts, percentiles of the times, and the same by host. It prints as a short table.
///
/// It is made [of](Self::of) results that are all there, or each is [added](Self::add) as it comes: its memory does not
/// grow with their number. It keeps no URL, only origins, and so has no secret to show.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// # use fanout::{MockResponse, ErrorKind, Fetcher, Mock};
/// # use std::time::Duration;
/// # let page = MockResponse::text("hello").delay(Duration::from_millis(20));
/// # let mock = Mock::new().on("http://down.example/", ErrorKind::Connect).fallback(page);
/// # let fetcher = Fetcher::builder().transport(mock).build()?;
/// # let urls = ["http://a.example/1", "http://a.example/2", "http://b.example/", "http://down.example/"];
/// use fanout::Summary;
///
/// let started = std::time::Instant::now();
/// let results = fetcher.gather(urls).await;
/// println!("{}", Summary::of(&results).with_wall_time(started.elapsed()));
/// # let summary = Summary::of(&results);
/// # assert_eq!((summary.requests(), summary.failed()), (4, 1));
/// # Ok(())
/// # }
/// ```
///
/// ```text
/// 1,203 requests in 12.1 s (99.4/s): 1,200 answered, 3 failed
/// 9 retries, 48.2 MiB of bodies, 207 s on the wire
/// status  200 × 1,180, 404 × 20
/// errors  connection failed × 1, response head timeout × 2
///
/// time            requests       p50       p90       p99       max
/// queued             1,203   5.90 s    10.7 s    11.8 s    12.0 s
/// connect               96   11.2 ms   18.0 ms   30.1 ms   30.1 ms
/// …
/// ```
///
/// As they come, also while they are read one by one:
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
/// let mut summary = fanout::Summary::default();
/// let mut done = fetcher.as_completed(&urls);
/// while let Some(completed) = done.next().await {
///     summary.add(&completed);
/// }
/// println!("half of the answers took {:?} or less", summary.wire().p50());
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a summary is there to be looked at"]
pub struct Summary {
    requests: u64,
    retries: u64,
    bytes: u64,
    statuses: BTreeMap<StatusCode, u64>,
    errors: BTreeMap<ErrorKind, u64>,
    queued: Histogram,
    connect: Histogram,
    response_head: Histogram,
    body: Histogram,
    wire: Histogram,
    total: Histogram,
    hosts: Hosts,
    wall_time: Option<Duration>,
}

impl Summary {
    /// Sums up these results: `&results` of a `gather`, or of a list of [`Completed`](crate::Completed).
    pub fn of(results: impl IntoIterator<Item: Summarize>) -> Self {
        results.into_iter().collect()
    }

    /// Adds one result.
    pub fn add(&mut self, result: impl Summarize) {
        let sample = result.sample();
        self.requests += 1;
        self.retries += sample.attempts.saturating_sub(1) as u64;
        self.bytes += sample.bytes;
        if let Some(status) = sample.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        if let Some(kind) = sample.kind {
            *self.errors.entry(kind).or_default() += 1;
        }
        if sample.attempts > 0 {
            self.add_times(&sample);
        }
        if let Some(origin) = sample.origin {
            self.hosts.add(origin, &sample);
        }
    }

    fn add_times(&mut self, sample: &Sample<'_>) {
        let timings = sample.timings;
        self.queued.add(timings.queued());
        self.wire.add(timings.wire());
        self.total.add(timings.total());
        let phases = [
            (&mut self.connect, timings.connect()),
            (&mut self.response_head, timings.response_head()),
            (&mut self.body, timings.body()),
        ];
        for (histogram, time) in phases {
            if !time.is_zero() {
                histogram.add(time);
            }
        }
    }

    /// How long it all took by the clock on the wall, which results do not tell. Default: not known.
    pub fn with_wall_time(mut self, wall_time: Duration) -> Self {
        self.wall_time = Some(wall_time);
        self
    }

    /// How many results there are.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// How many of them are answers, with whatever status.
    pub fn responses(&self) -> u64 {
        self.requests - self.failed()
    }

    /// How many of them are errors.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// How many ended in each kind of error.
    pub fn errors(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        self.errors.iter().map(|(&kind, &count)| (kind, count))
    }

    /// How many ended with each status, those among them that
    /// [`error_for_status`](crate::Response::error_for_status) has made errors.
    pub fn statuses(&self) -> impl Iterator<Item = (StatusCode, u64)> {
        self.statuses
            .iter()
            .map(|(&status, &count)| (status, count))
    }

    /// How many attempts were made beside the first ones.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// How many bytes of bodies came, decoded, in memory or to files. Those that a handler read are not known.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long it all took by the clock on the wall, if that was [told](Self::with_wall_time).
    pub fn wall_time(&self) -> Option<Duration> {
        self.wall_time
    }

    /// The time in the schedule, of all requests that were started. As all these times, it is that of all attempts of a
    /// request together, as [`Timings`](crate::Timings) has it.
    pub fn queued(&self) -> &Histogram {
        &self.queued
    }

    /// The time to connect, of the requests that made a connection.
    pub fn connect(&self) -> &Histogram {
        &self.connect
    }

    /// The time to the head of the response, of the requests that came so far.
    pub fn response_head(&self) -> &Histogram {
        &self.response_head
    }

    /// The time to read the body, of the requests that came so far.
    pub fn body(&self) -> &Histogram {
        &self.body
    }

    /// The time on the wire, of all requests that were started; its [sum](Histogram::sum) is that of all of them.
    pub fn wire(&self) -> &Histogram {
        &self.wire
    }

    /// The time from when a request was handed in to its end, of all that were started.
    pub fn total(&self) -> &Histogram {
        &self.total
    }

    /// The hosts, that is origins, those with the most requests first. Told apart are the first 1,000 to come; what goes
    /// to others is in [`other_hosts`](Self::other_hosts).
    ///
    /// A result counts for the host that answered or failed, after redirects; what a handler returned, for the host that
    /// was asked. A request without a valid URL has no host.
    pub fn hosts(&self) -> impl Iterator<Item = &HostSummary> {
        self.hosts.sorted().into_iter()
    }

    /// All hosts beyond the first 1,000 together, if there are any.
    pub fn other_hosts(&self) -> Option<&HostSummary> {
        Some(&self.hosts.others).filter(|others| others.requests() > 0)
    }
}

impl<S: Summarize> Extend<S> for Summary {
    fn extend<I: IntoIterator<Item = S>>(&mut self, results: I) {
        for result in results {
            self.add(result);
        }
    }
}

impl<S: Summarize> FromIterator<S> for Summary {
    fn from_iter<I: IntoIterator<Item = S>>(results: I) -> Self {
        let mut summary = Self::default();
        summary.extend(results);
        summary
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary")
            .field("requests", &self.requests)
            .field("retries", &self.retries)
            .field("bytes", &self.bytes)
            .field("statuses", &self.statuses)
            .field("errors", &self.errors)
            .field("wire", &self.wire)
            .finish_non_exhaustive()
    }
}
