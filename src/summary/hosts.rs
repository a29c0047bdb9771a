//! The same for each host, as far as there are not too many.

use std::collections::HashMap;

use super::{Histogram, Sample};

/// So many hosts are told apart.
const MAX_HOSTS: usize = 1_000;

/// What came of the requests to one host, from [`Summary::hosts`](crate::Summary::hosts).
#[derive(Clone, Debug, Default)]
pub struct HostSummary {
    origin: Box<str>,
    requests: u64,
    failed: u64,
    retries: u64,
    bytes: u64,
    wire: Histogram,
}

impl HostSummary {
    /// Scheme, host and port; empty for all hosts [beyond the first 1,000](crate::Summary::other_hosts).
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many results there are.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// How many of them are errors.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// How many attempts were made beside the first ones.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// How many bytes of bodies came, decoded.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The time on the wire, all attempts of a request together.
    pub fn wire(&self) -> &Histogram {
        &self.wire
    }

    fn add(&mut self, sample: &Sample<'_>) {
        self.requests += 1;
        self.failed += u64::from(sample.kind.is_some());
        self.retries += sample.attempts.saturating_sub(1) as u64;
        self.bytes += sample.bytes;
        if sample.attempts > 0 {
            self.wire.add(sample.timings.wire());
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Hosts {
    by_origin: HashMap<Box<str>, HostSummary>,
    pub(super) others: HostSummary,
}

impl Hosts {
    pub(super) fn add(&mut self, origin: &str, sample: &Sample<'_>) {
        if let Some(host) = self.by_origin.get_mut(origin) {
            return host.add(sample);
        }
        if self.by_origin.len() == MAX_HOSTS {
            return self.others.add(sample);
        }
        let mut host = HostSummary {
            origin: origin.into(),
            ..HostSummary::default()
        };
        host.add(sample);
        self.by_origin.insert(origin.into(), host);
    }

    /// Those with the most requests first.
    pub(super) fn sorted(&self) -> Vec<&HostSummary> {
        let mut hosts: Vec<_> = self.by_origin.values().collect();
        hosts.sort_unstable_by(|a, b| (b.requests, &a.origin).cmp(&(a.requests, &b.origin)));
        hosts
    }
}
