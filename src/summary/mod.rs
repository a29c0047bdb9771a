//! Aggregates many results into counts and percentiles.

mod histogram;
mod hosts;
mod sample;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use self::hosts::HostSummaries;
use self::sample::ResultSample;
use crate::error::ErrorKind;

pub use self::histogram::Histogram;
pub use self::hosts::HostSummary;
pub use self::sample::Summarize;

/// A summary of many results: counts by status, error kind and host, and percentiles of the times.
///
/// [`of`](Self::of) summarizes a list of results, and [`add`](Self::add) adds single results as
/// they complete. The memory of a summary is bounded, whatever the number of results. A summary
/// stores origins, not URLs, so it holds no secrets. `Display` prints a table of at most 80
/// columns.
///
/// # Examples
///
/// To summarize a list of results:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// # use fanout::{ErrorKind, Fetcher, Mock, MockResponse};
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
/// The output for another batch looks like this:
///
/// ```text
/// 1,203 requests in 12.1 s (99.4/s): 1,200 responses, 3 failed
/// 9 retries, 48.2 MiB of bodies, 207 s on the wire
/// status  200 × 1,180, 404 × 20
/// errors  connection failed × 1, response head timeout × 2
///
/// time            requests       p50       p90       p99       max
/// queued             1,203    5.90 s    10.7 s    11.8 s    12.0 s
/// connect               96   11.2 ms   18.0 ms   30.1 ms   30.1 ms
/// …
/// ```
///
/// To summarize results as they complete:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// # let mock = fanout::Mock::new().fallback(200);
/// # let fetcher = fanout::Fetcher::builder().transport(mock).build()?;
/// # let urls = ["http://a.example/1", "http://a.example/2"];
/// let mut summary = fanout::Summary::default();
/// let mut done = fetcher.as_completed(&urls);
/// while let Some(completed) = done.next().await {
///     summary.add(&completed);
/// }
/// println!("median wire time: {:?}", summary.wire_time().p50());
/// # assert_eq!(summary.responses(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a summary does nothing by itself"]
pub struct Summary {
    request_count: u64,
    retry_count: u64,
    body_byte_count: u64,
    status_counts: BTreeMap<StatusCode, u64>,
    error_counts: BTreeMap<ErrorKind, u64>,
    queued_time_histogram: Histogram,
    connect_time_histogram: Histogram,
    response_head_time_histogram: Histogram,
    body_time_histogram: Histogram,
    wire_time_histogram: Histogram,
    total_time_histogram: Histogram,
    host_summaries: HostSummaries,
    batch_wall_time: Option<Duration>,
}

impl Summary {
    /// Summarizes a list of results.
    ///
    /// `results` is a reference to the list that `gather` returns, or to a list of
    /// [`Completed`](crate::Completed).
    pub fn of(results: impl IntoIterator<Item: Summarize>) -> Self {
        results.into_iter().collect()
    }

    /// Adds one result.
    pub fn add(&mut self, result: impl Summarize) {
        let sample = result.to_sample();
        self.request_count += 1;
        self.retry_count += sample.attempt_count.saturating_sub(1) as u64;
        self.body_byte_count += sample.body_bytes;
        if let Some(status) = sample.status {
            *self.status_counts.entry(status).or_default() += 1;
        }
        if let Some(kind) = sample.error_kind {
            *self.error_counts.entry(kind).or_default() += 1;
        }
        if sample.attempt_count > 0 {
            self.add_sample_times(&sample);
        }
        if let Some(origin) = sample.origin {
            self.host_summaries.add_sample(origin, &sample);
        }
    }

    fn add_sample_times(&mut self, sample: &ResultSample<'_>) {
        let timings = sample.timings;
        self.queued_time_histogram.add_duration(timings.queued());
        self.wire_time_histogram.add_duration(timings.wire());
        self.total_time_histogram.add_duration(timings.total());
        let phases = [
            (&mut self.connect_time_histogram, timings.connect()),
            (
                &mut self.response_head_time_histogram,
                timings.response_head(),
            ),
            (&mut self.body_time_histogram, timings.body()),
        ];
        for (histogram, time) in phases {
            if !time.is_zero() {
                histogram.add_duration(time);
            }
        }
    }

    /// Sets the elapsed wall time of the batch, which the results do not contain. Default: none.
    ///
    /// `Display` then shows the wall time and the number of requests per second.
    pub fn with_wall_time(mut self, wall_time: Duration) -> Self {
        self.batch_wall_time = Some(wall_time);
        self
    }

    /// The number of results.
    pub fn requests(&self) -> u64 {
        self.request_count
    }

    /// The number of results that are responses, of any status.
    pub fn responses(&self) -> u64 {
        self.request_count - self.failed()
    }

    /// The number of results that are errors.
    pub fn failed(&self) -> u64 {
        self.error_counts.values().sum()
    }

    /// Each kind of error that occurred, and its number of results.
    pub fn error_counts(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        self.error_counts
            .iter()
            .map(|(&kind, &count)| (kind, count))
    }

    /// Each status that occurred, and its number of results.
    ///
    /// Statuses that [`error_for_status`](crate::Response::error_for_status) turned into errors are
    /// included.
    pub fn status_counts(&self) -> impl Iterator<Item = (StatusCode, u64)> {
        self.status_counts
            .iter()
            .map(|(&status, &count)| (status, count))
    }

    /// The number of retries: all attempts except the first of each request.
    pub fn retries(&self) -> u64 {
        self.retry_count
    }

    /// The number of decoded body bytes, in memory or saved to files.
    ///
    /// Bodies that a handler read are not included.
    pub fn body_bytes(&self) -> u64 {
        self.body_byte_count
    }

    /// The wall time of the batch, if it was set with [`with_wall_time`](Self::with_wall_time).
    pub fn wall_time(&self) -> Option<Duration> {
        self.batch_wall_time
    }

    /// The distribution of the time that requests were queued, over all requests that were started.
    ///
    /// The time of a request is the sum over its attempts.
    pub fn queued_time(&self) -> &Histogram {
        &self.queued_time_histogram
    }

    /// The distribution of the time to connect, over all requests that opened a connection.
    pub fn connect_time(&self) -> &Histogram {
        &self.connect_time_histogram
    }

    /// The distribution of the time to send the request and receive the complete response head,
    /// over all requests that received a response head.
    pub fn response_head_time(&self) -> &Histogram {
        &self.response_head_time_histogram
    }

    /// The distribution of the time to read the body, over all requests that received a body.
    pub fn body_time(&self) -> &Histogram {
        &self.body_time_histogram
    }

    /// The distribution of the time on the wire, over all requests that were started.
    ///
    /// The [`sum`](Histogram::sum) of the histogram is the total wire time.
    pub fn wire_time(&self) -> &Histogram {
        &self.wire_time_histogram
    }

    /// The distribution of the time from submission to result, over all requests that were started.
    pub fn total_time(&self) -> &Histogram {
        &self.total_time_histogram
    }

    /// The summary of each host, in descending order of the number of requests.
    ///
    /// A host is an origin: scheme, host and port. The first 1,000 hosts have a summary each; the
    /// others share [`other_hosts`](Self::other_hosts). A response or an error counts for the host
    /// of its last hop, after redirects. A value that a handler returned counts for the host of the
    /// request's URL. A request without a valid URL has no host.
    pub fn hosts(&self) -> impl Iterator<Item = &HostSummary> {
        self.host_summaries.sorted_by_request_count().into_iter()
    }

    /// One summary of all hosts beyond the first 1,000. `None` if there are at most 1,000 hosts.
    pub fn other_hosts(&self) -> Option<&HostSummary> {
        Some(&self.host_summaries.other_hosts_summary).filter(|others| others.requests() > 0)
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
            .field("requests", &self.request_count)
            .field("retries", &self.retry_count)
            .field("body_bytes", &self.body_byte_count)
            .field("status_counts", &self.status_counts)
            .field("error_counts", &self.error_counts)
            .field("wire_time", &self.wire_time_histogram)
            .finish_non_exhaustive()
    }
}
