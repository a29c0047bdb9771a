//! Summaries of single hosts, for a bounded number of hosts.

use std::collections::HashMap;

use super::histogram::Histogram;
use super::sample::Sample;

/// The maximum number of hosts that have a summary each.
const MAX_HOSTS: usize = 1_000;

/// A summary of the requests to one host, from [`Summary::hosts`](crate::Summary::hosts).
#[derive(Clone, Debug, Default)]
pub struct HostSummary {
    origin: Box<str>,
    requests: u64,
    failed: u64,
    retries: u64,
    body_bytes: u64,
    wire_time: Histogram,
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
        self.requests
    }

    /// The number of results from the host that are errors.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// The number of retries: all attempts except the first of each request.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// The number of decoded body bytes from the host, in memory or saved to files.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The distribution of the wire time over the requests. The wire time of a request is the sum
    /// over its attempts.
    pub fn wire_time(&self) -> &Histogram {
        &self.wire_time
    }

    fn add(&mut self, sample: &Sample<'_>) {
        self.requests += 1;
        self.failed += u64::from(sample.error_kind.is_some());
        self.retries += sample.attempt_count.saturating_sub(1) as u64;
        self.body_bytes += sample.body_bytes;
        if sample.attempt_count > 0 {
            self.wire_time.add(sample.timings.wire());
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct HostSummaries {
    by_origin: HashMap<Box<str>, HostSummary>,
    /// One summary of all hosts beyond the first `MAX_HOSTS`.
    pub(super) other_hosts: HostSummary,
}

impl HostSummaries {
    pub(super) fn add(&mut self, origin: &str, sample: &Sample<'_>) {
        if let Some(host) = self.by_origin.get_mut(origin) {
            return host.add(sample);
        }
        if self.by_origin.len() == MAX_HOSTS {
            return self.other_hosts.add(sample);
        }
        let mut host = HostSummary {
            origin: origin.into(),
            ..HostSummary::default()
        };
        host.add(sample);
        self.by_origin.insert(origin.into(), host);
    }

    /// The summaries of single hosts, in descending order of their number of requests.
    pub(super) fn sorted(&self) -> Vec<&HostSummary> {
        let mut hosts: Vec<_> = self.by_origin.values().collect();
        hosts.sort_unstable_by(|a, b| (b.requests, &a.origin).cmp(&(a.requests, &b.origin)));
        hosts
    }
}
