//! Summaries of single hosts. The number of summaries is bounded.

use std::collections::HashMap;

use super::histogram::Histogram;
use super::sample::ResultSample;

/// The maximum number of hosts that have a summary each.
const MAX_SUMMARIZED_HOSTS: usize = 1_000;

/// A summary of the requests to one host, from [`Summary::hosts`](crate::Summary::hosts).
#[derive(Clone, Debug, Default)]
pub struct HostSummary {
    origin: Box<str>,
    request_count: u64,
    failed_request_count: u64,
    retry_count: u64,
    body_byte_count: u64,
    wire_time_histogram: Histogram,
}

impl HostSummary {
    /// The origin: scheme, host and port.
    ///
    /// The origin is empty in the summary of the [hosts beyond the first
    /// 1,000](crate::Summary::other_hosts).
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of results from the host.
    pub fn requests(&self) -> u64 {
        self.request_count
    }

    /// The number of results from the host that are errors.
    pub fn failed(&self) -> u64 {
        self.failed_request_count
    }

    /// The number of retries: all attempts except the first of each request.
    pub fn retries(&self) -> u64 {
        self.retry_count
    }

    /// The number of decoded body bytes from the host, in memory or saved to files.
    pub fn body_bytes(&self) -> u64 {
        self.body_byte_count
    }

    /// The distribution of the wire time over the requests. The wire time of a request is the sum
    /// over its attempts.
    pub fn wire_time(&self) -> &Histogram {
        &self.wire_time_histogram
    }

    fn add_sample(&mut self, sample: &ResultSample<'_>) {
        self.request_count += 1;
        self.failed_request_count += u64::from(sample.error_kind.is_some());
        self.retry_count += sample.attempt_count.saturating_sub(1) as u64;
        self.body_byte_count += sample.body_bytes;
        if sample.attempt_count > 0 {
            self.wire_time_histogram.add_duration(sample.timings.wire());
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct HostSummaries {
    summaries_by_origin: HashMap<Box<str>, HostSummary>,
    /// One summary of all hosts beyond the first `MAX_SUMMARIZED_HOSTS`.
    pub(super) other_hosts_summary: HostSummary,
}

impl HostSummaries {
    pub(super) fn add_sample(&mut self, origin: &str, sample: &ResultSample<'_>) {
        if let Some(host) = self.summaries_by_origin.get_mut(origin) {
            return host.add_sample(sample);
        }
        if self.summaries_by_origin.len() == MAX_SUMMARIZED_HOSTS {
            return self.other_hosts_summary.add_sample(sample);
        }
        let mut host = HostSummary {
            origin: origin.into(),
            ..HostSummary::default()
        };
        host.add_sample(sample);
        self.summaries_by_origin.insert(origin.into(), host);
    }

    /// The summaries of single hosts, in descending order of their number of requests.
    pub(super) fn sorted_by_request_count(&self) -> Vec<&HostSummary> {
        let mut hosts: Vec<_> = self.summaries_by_origin.values().collect();
        hosts.sort_unstable_by(|a, b| {
            (b.request_count, &a.origin).cmp(&(a.request_count, &b.origin))
        });
        hosts
    }
}
