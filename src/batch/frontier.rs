//! The frontier: requests that were found in results and are not queued in the schedule yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::request::Request;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct FollowLimits {
    pub(super) max_depth: usize,
    pub(super) max_requests: usize,
    pub(super) dedupe: bool,
}

/// How a request was found.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Lineage {
    /// Index of the result in which the request was found; `None` for an input.
    pub(super) parent: Option<usize>,
    /// Number of links from an input to the request.
    pub(super) depth: usize,
}

/// The found requests that are not queued in the schedule yet, in the order in which they were
/// found.
pub(super) struct Frontier<T> {
    limits: FollowLimits,
    found_requests: VecDeque<(T, Request, Lineage)>,
    /// Lineage of each found request that has no delivered result, by the index of the request.
    lineages: HashMap<usize, Lineage>,
    visited: Option<VisitedSet>,
    /// Number of found requests that are followed.
    followed: usize,
    /// Number of found requests that are not followed, not counting duplicates.
    skipped: usize,
    is_closed: bool,
}

impl<T> Frontier<T> {
    pub(super) fn new(limits: FollowLimits) -> Self {
        Self {
            limits,
            found_requests: VecDeque::new(),
            lineages: HashMap::new(),
            visited: limits.dedupe.then(VisitedSet::default),
            followed: 0,
            skipped: 0,
            is_closed: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found_requests.is_empty()
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    pub(super) fn followed(&self) -> usize {
        self.followed
    }

    /// Records a request of the batch, so that an equal found request is not followed.
    pub(super) fn mark_visited(&mut self, request: &Request) {
        if let Some(visited) = &mut self.visited {
            visited.insert(request);
        }
    }

    /// Adds the requests found in a result, as far as the limits allow.
    pub(super) fn add_found_requests(
        &mut self,
        index: usize,
        depth: usize,
        links: Vec<(T, Request)>,
    ) {
        let lineage = Lineage {
            parent: Some(index),
            depth: depth + 1,
        };
        let skipped_before = self.skipped;
        for (tag, request) in links {
            let visited = self.visited.as_ref();
            if visited.is_some_and(|visited| visited.contains(&request)) {
                continue;
            }
            let is_within_limits =
                lineage.depth <= self.limits.max_depth && self.followed < self.limits.max_requests;
            if self.is_closed || !is_within_limits {
                self.skipped += 1;
                continue;
            }
            self.mark_visited(&request);
            self.followed += 1;
            self.found_requests.push_back((tag, request, lineage));
        }
        if self.skipped > skipped_before {
            let count = self.skipped - skipped_before;
            tracing::debug!(target: "fanout::follow", index, depth, count, "links skipped");
        }
    }

    /// Takes the next found request, which gets the index `index` in the batch.
    pub(super) fn pop_request(&mut self, index: usize) -> Option<(T, Request)> {
        let (tag, request, lineage) = self.found_requests.pop_front()?;
        self.lineages.insert(index, lineage);
        Some((tag, request))
    }

    /// Takes the lineage of a request whose result is being delivered.
    pub(super) fn take_lineage(&mut self, index: usize) -> Lineage {
        self.lineages.remove(&index).unwrap_or_default()
    }

    /// Stops following results. Found requests that are not queued in the schedule yet are skipped.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.followed -= self.found_requests.len();
        self.skipped += self.found_requests.len();
        self.found_requests.clear();
    }
}

/// The set of requests made so far, stored as 128-bit hashes.
///
/// With 128 bits, two different requests practically never have the same hash. The hash functions
/// have random keys, so URLs cannot be chosen to collide.
#[derive(Default)]
struct VisitedSet {
    hashes: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl VisitedSet {
    /// The hash of a request; `None` for a request with a body and for an invalid request with a
    /// URL, each of which equals no other request.
    fn hash(&self, request: &Request) -> Option<u128> {
        let is_invalid = request.url().is_some() && request.is_invalid();
        if is_invalid || request.body().len() != Some(0) {
            return None;
        }
        let url = request.url_str();
        let without_fragment = url.split_once('#').map_or(url, |(url, _)| url);
        let identity = (request.method(), without_fragment);
        let hash = |hasher: &RandomState| hasher.hash_one(identity);
        let [high, low] = self.hashers.each_ref().map(hash);
        Some(u128::from(high) << 64 | u128::from(low))
    }

    fn contains(&self, request: &Request) -> bool {
        self.hash(request)
            .is_some_and(|hash| self.hashes.contains(&hash))
    }

    fn insert(&mut self, request: &Request) {
        self.hashes.extend(self.hash(request));
    }
}
