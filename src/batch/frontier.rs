//! The frontier: requests that were found in results and are not queued in the schedule yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use http::Method;
use url::Url;

use super::follow_limits::FollowLimits;
use crate::request::Request;
use crate::response::Redirect;

/// How a request was found.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Lineage {
    /// Index of the result in which the request was found; `None` for an input.
    pub(super) parent_index: Option<usize>,
    /// Number of links from an input to the request.
    pub(super) depth: usize,
}

/// The found requests that are not queued in the schedule yet, in the order in which they were
/// found.
pub(super) struct Frontier<T> {
    follow_limits: FollowLimits,
    found_requests: VecDeque<(T, Request, Lineage)>,
    /// How each queued found request was found, by its index. An entry is removed when the result
    /// of its request is delivered.
    lineages: HashMap<usize, Lineage>,
    visited_set: Option<VisitedSet>,
    /// Number of found requests that are followed.
    followed_count: usize,
    /// Number of found requests that are not followed, not counting duplicates.
    skipped_count: usize,
    has_stopped_following: bool,
}

impl<T> Frontier<T> {
    pub(super) fn new(limits: FollowLimits) -> Self {
        Self {
            follow_limits: limits,
            found_requests: VecDeque::new(),
            lineages: HashMap::new(),
            visited_set: limits.dedupe.then(VisitedSet::default),
            followed_count: 0,
            skipped_count: 0,
            has_stopped_following: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found_requests.is_empty()
    }

    pub(super) fn skipped_count(&self) -> usize {
        self.skipped_count
    }

    pub(super) fn followed_count(&self) -> usize {
        self.followed_count
    }

    /// Records a request of the batch, so that an equal found request is not followed.
    pub(super) fn mark_visited(&mut self, request: &Request) {
        if let Some(visited) = &mut self.visited_set {
            visited.insert_request(request);
        }
    }

    /// Records the URLs to which a request was redirected, so that equal found requests are not
    /// followed. `request` is the request of the last hop. The first redirect is skipped, because
    /// its URL is the original URL, which is already recorded.
    pub(super) fn mark_redirects_visited(&mut self, request: &Request, redirects: &[Redirect]) {
        if let Some(visited) = &mut self.visited_set
            && request.body().known_length() == Some(0)
        {
            for redirect in redirects.iter().skip(1) {
                visited.insert_method_and_url(request.method(), redirect.url());
            }
            visited.insert_request(request);
        }
    }

    /// Adds the requests found in a result, as far as the limits allow.
    pub(super) fn add_found_requests(
        &mut self,
        index: usize,
        depth: usize,
        found: Vec<(T, Request)>,
    ) {
        let lineage = Lineage {
            parent_index: Some(index),
            depth: depth + 1,
        };
        let skipped_before = self.skipped_count;
        for (tag, request) in found {
            let visited = self.visited_set.as_ref();
            if visited.is_some_and(|visited| visited.contains_request(&request)) {
                continue;
            }
            let max_depth = self.follow_limits.max_depth;
            let is_within_limits = max_depth.is_none_or(|max_depth| lineage.depth <= max_depth)
                && self.followed_count < self.follow_limits.max_requests;
            if self.has_stopped_following || !is_within_limits {
                self.skipped_count += 1;
                continue;
            }
            self.mark_visited(&request);
            // One request stands for all URLs that differ only in their fragments.
            let request = if self.visited_set.is_some() {
                request.without_fragment()
            } else {
                request
            };
            self.followed_count += 1;
            self.found_requests.push_back((tag, request, lineage));
        }
        if self.skipped_count > skipped_before {
            let count = self.skipped_count - skipped_before;
            tracing::debug!(target: "fanout::follow", index, depth, count, "found requests skipped");
        }
    }

    /// Takes the next found request, which gets the index `index` in the batch.
    pub(super) fn pop_found_request(&mut self, index: usize) -> Option<(T, Request)> {
        let (tag, request, lineage) = self.found_requests.pop_front()?;
        self.lineages.insert(index, lineage);
        Some((tag, request))
    }

    /// Takes the lineage of a request whose result is being delivered.
    pub(super) fn take_lineage(&mut self, index: usize) -> Lineage {
        self.lineages.remove(&index).unwrap_or_default()
    }

    /// Stops following results. Found requests that are not queued in the schedule yet are skipped.
    pub(super) fn stop_following(&mut self) {
        self.has_stopped_following = true;
        self.followed_count -= self.found_requests.len();
        self.skipped_count += self.found_requests.len();
        self.found_requests.clear();
    }
}

/// The set of requests made so far, stored as 128-bit hashes.
///
/// With 128 bits, two different requests practically never have the same hash. The hash functions
/// have random keys, so nobody can choose URLs whose hashes collide.
#[derive(Default)]
struct VisitedSet {
    request_hashes: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl VisitedSet {
    /// The hash of a request. `None` for a request that equals no other request: one with a body,
    /// or an invalid one that has a URL.
    fn request_hash(&self, request: &Request) -> Option<u128> {
        let is_invalid = request.url().is_some() && request.is_invalid();
        if is_invalid || request.body().known_length() != Some(0) {
            return None;
        }
        Some(self.hash_method_and_url(request.method(), request.url_str()))
    }

    fn hash_method_and_url(&self, method: &Method, url: &str) -> u128 {
        let without_fragment = url.split_once('#').map_or(url, |(url, _)| url);
        let identity = (method, without_fragment);
        let hash = |hasher: &RandomState| hasher.hash_one(identity);
        let [high, low] = self.hashers.each_ref().map(hash);
        u128::from(high) << 64 | u128::from(low)
    }

    fn contains_request(&self, request: &Request) -> bool {
        self.request_hash(request)
            .is_some_and(|hash| self.request_hashes.contains(&hash))
    }

    /// Records a request without a body.
    fn insert_method_and_url(&mut self, method: &Method, url: &Url) {
        let hash = self.hash_method_and_url(method, url.as_str());
        self.request_hashes.insert(hash);
    }

    fn insert_request(&mut self, request: &Request) {
        self.request_hashes.extend(self.request_hash(request));
    }
}
