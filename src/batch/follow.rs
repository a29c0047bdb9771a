//! Requests that results lead to: the next page, the links of a page.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Method;

use super::Completed;
use crate::link_header;
use crate::request::origin;
use crate::{Error, ErrorKind, IntoRequest, Request, Response};

/// How far from the inputs links are followed.
const DEFAULT_MAX_DEPTH: usize = 16;
/// How far next pages are, which come one after another.
const DEFAULT_MAX_PAGES: usize = 10_000;
/// How many requests are followed in all.
const DEFAULT_MAX_REQUESTS: usize = 100_000;

type ExpandFn<'a, T, R> = dyn FnMut(&Completed<T, R>, usize) -> Vec<(T, Request)> + Send + 'a;

/// What results lead to, and how far that is followed: next pages, or the links of pages; for
/// [`AsCompleted::follow`](crate::AsCompleted::follow).
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
/// use fanout::Follow;
///
/// let mut pages = fetcher.as_completed(["https://api.example.com/items"]).follow(Follow::next_link());
/// while let Some(page) = pages.next().await {
///     println!("page {}: {} bytes", page.depth, page.result?.bytes().len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// A crawler says itself where a page leads. Here `hrefs` stands for whatever finds the links in its text:
///
/// ```
/// # fn hrefs(text: &str) -> std::str::SplitWhitespace<'_> { text.split_whitespace() }
/// # async fn example(fetcher: fanout::Fetcher) {
/// use fanout::{Completed, Follow};
///
/// let links = |page: &Completed| match &page.result {
///     Ok(page) => hrefs(&page.text()).filter_map(|href| page.url().join(href).ok()).collect(),
///     Err(_) => Vec::new(),
/// };
/// let mut pages = fetcher
///     .as_completed(["https://example.com/"])
///     .follow(Follow::new(links).max_depth(3).max_requests(1_000));
/// while let Some(page) = pages.next().await {
///     println!("{} from {:?}", page.request.url_str(), page.parent);
/// }
/// println!("{} links were left out", pages.skipped());
/// # }
/// ```
#[must_use = "it does nothing until a batch is given it"]
pub struct Follow<'a, T = (), R = Response> {
    expand: Box<ExpandFn<'a, T, R>>,
    limits: FollowLimits,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
struct FollowLimits {
    max_depth: usize,
    max_requests: usize,
    dedupe: bool,
}

impl<'a, T, R> Follow<'a, T, R> {
    /// Follows what `lead` gives for a result: requests of any kind, each with a tag if the inputs have tags.
    ///
    /// It is called once for each result, also for an error, in the task that reads the results and just before the reader
    /// gets it. It may borrow what the inputs may. Of one result no more than [`max_requests`](Self::max_requests) and one are
    /// looked at. If it panics that result becomes [`ErrorKind::Panicked`](crate::ErrorKind::Panicked), and nothing of it
    /// is followed.
    ///
    /// What it gives is taken as it is: links are to be resolved against [`Response::url`](crate::Response::url), and
    /// nothing of the page's own request, such as its headers, goes with them.
    pub fn new<F, I>(mut expand: F) -> Self
    where
        F: FnMut(&Completed<T, R>) -> I + Send + 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T>>,
    {
        Self {
            expand: Box::new(move |completed, max_links| {
                let links = expand(completed).into_iter().take(max_links);
                links.map(IntoRequest::into_request).collect()
            }),
            limits: FollowLimits {
                max_depth: DEFAULT_MAX_DEPTH,
                max_requests: DEFAULT_MAX_REQUESTS,
                dedupe: true,
            },
        }
    }

    /// How many steps from an input are followed at most. Default 16, and 10,000 for [`next_link`](Self::next_link).
    ///
    /// An input is at depth 0, what it leads to at depth 1; with a `max_depth` of 0 nothing is followed.
    pub fn max_depth(mut self, steps: usize) -> Self {
        self.limits.max_depth = steps;
        self
    }

    /// How many requests are followed at most, beside the inputs. Default 100,000.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.limits.max_requests = requests;
        self
    }

    /// Whether a request is left alone that has been made in this batch. Default: yes.
    ///
    /// Two are the same if method and URL are, the fragment aside; one with a body is like no other. Only what is followed
    /// is left alone: every input is fetched. It costs about 40 bytes for each input and each request followed, whatever
    /// the length of the URL, until the batch ends.
    pub fn dedupe(mut self, dedupe: bool) -> Self {
        self.limits.dedupe = dedupe;
        self
    }

    pub(super) fn new_frontier(&self) -> Frontier<T> {
        Frontier {
            limits: self.limits,
            queued: VecDeque::new(),
            lineages: HashMap::new(),
            visited: self.limits.dedupe.then(VisitedSet::default),
            followed: 0,
            skipped: 0,
            closed: false,
        }
    }

    /// Where a result leads.
    ///
    /// # Errors
    ///
    /// If it panicked.
    pub(super) fn expand(
        &mut self,
        completed: &Completed<T, R>,
    ) -> Result<Vec<(T, Request)>, Error> {
        let max_links = self.limits.max_requests.saturating_add(1);
        // What it has changed by then is its own affair: it is called again for the next.
        catch_unwind(AssertUnwindSafe(|| (self.expand)(completed, max_links))).map_err(|_| {
            Error::from_kind(ErrorKind::Panicked).with_detail("in what was given to `follow`")
        })
    }
}

impl<'a, T: Clone + 'a> Follow<'a, T> {
    /// Follows `Link: rel="next"` (RFC 8288), page after page, as many APIs have it.
    ///
    /// The next page is asked for as the page was, with the same headers and the same tag; by GET, unless that was by HEAD,
    /// and without its body. If the link, or a redirect on the way to the page, leads to another scheme, host or port, the
    /// credentials of the request stay behind. The pages of one input come one after another; several inputs are followed
    /// side by side. Only a page with a status of 2xx leads on. A `next` that is no URL is the error of an item of its own.
    pub fn next_link() -> Self {
        let next = |page: &Completed<T>| {
            let next = page
                .result
                .as_ref()
                .ok()
                .and_then(|response| next_page(&page.request, response));
            next.map(|next| (page.tag.clone(), next))
        };
        Self::new(next).max_depth(DEFAULT_MAX_PAGES)
    }
}

fn next_page(request: &Request, response: &Response) -> Option<Request> {
    if !response.status().is_success() {
        return None;
    }
    let page_url = response.url();
    let target = link_header::find_target(response.headers(), "next", page_url)?;
    let Some(next) = link_header::resolve_target(target, page_url) else {
        return Some(Request::get(target).build());
    };
    let requested_origin = request.url().map(origin);
    let is_cross_origin =
        requested_origin != Some(origin(page_url)) || requested_origin != Some(origin(&next));
    let becomes_get = !matches!(*request.method(), Method::GET | Method::HEAD);
    Some(
        request
            .redirected(next, becomes_get, is_cross_origin)
            .without_save(),
    )
}

impl<T, R> fmt::Debug for Follow<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("max_depth", &self.limits.max_depth)
            .field("max_requests", &self.limits.max_requests)
            .field("dedupe", &self.limits.dedupe)
            .finish_non_exhaustive()
    }
}

/// Where an item stands among those that led to it.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Lineage {
    pub(super) parent: Option<usize>,
    pub(super) depth: usize,
}

/// What is to be followed, in the order in which it was found.
pub(super) struct Frontier<T> {
    limits: FollowLimits,
    queued: VecDeque<(T, Request, Lineage)>,
    /// Of those under way, by their index.
    lineages: HashMap<usize, Lineage>,
    visited: Option<VisitedSet>,
    followed: usize,
    skipped: usize,
    closed: bool,
}

impl<T> Frontier<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// An input is fetched whatever was fetched before.
    pub(super) fn mark_visited(&mut self, request: &Request) {
        if let Some(visited) = &mut self.visited {
            visited.insert(request);
        }
    }

    /// Where the item of this index stands, which is under way no longer.
    pub(super) fn take_lineage(&mut self, index: usize) -> Lineage {
        self.lineages.remove(&index).unwrap_or_default()
    }

    /// Takes what a result led to, as far as the bounds have it.
    pub(super) fn add(&mut self, index: usize, depth: usize, links: Vec<(T, Request)>) {
        let lineage = Lineage {
            parent: Some(index),
            depth: depth + 1,
        };
        let skipped = self.skipped;
        for (tag, request) in links {
            if self
                .visited
                .as_ref()
                .is_some_and(|visited| visited.contains(&request))
            {
                continue;
            }
            let is_within_limits =
                lineage.depth <= self.limits.max_depth && self.followed < self.limits.max_requests;
            if self.closed || !is_within_limits {
                self.skipped += 1;
                continue;
            }
            self.mark_visited(&request);
            self.followed += 1;
            self.queued.push_back((tag, request, lineage));
        }
        if self.skipped > skipped {
            let count = self.skipped - skipped;
            tracing::debug!(target: "fanout::follow", index, depth, count, "links left out");
        }
    }

    /// The next to be handed in, as the item of this index.
    pub(super) fn pop_next(&mut self, index: usize) -> Option<(T, Request)> {
        let (tag, request, lineage) = self.queued.pop_front()?;
        self.lineages.insert(index, lineage);
        Some((tag, request))
    }

    /// How many were found that are followed.
    pub(super) fn followed_count(&self) -> usize {
        self.followed
    }

    /// From now on nothing is followed.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.followed -= self.queued.len();
        self.skipped += self.queued.len();
        self.queued.clear();
    }
}

/// What has been asked for, as hashes so long that no two requests have the same; and nobody can choose URLs that do,
/// since the hashers have keys of their own.
#[derive(Default)]
struct VisitedSet {
    requests: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl VisitedSet {
    fn hash(&self, request: &Request) -> Option<u128> {
        if request.body().len() != Some(0) {
            return None;
        }
        let url = request.url_str();
        let hashed = (
            request.method(),
            url.split_once('#').map_or(url, |(url, _)| url),
        );
        let [high, low] = self
            .hashers
            .each_ref()
            .map(|hasher| hasher.hash_one(hashed));
        Some(u128::from(high) << 64 | u128::from(low))
    }

    fn contains(&self, request: &Request) -> bool {
        self.hash(request)
            .is_some_and(|hash| self.requests.contains(&hash))
    }

    fn insert(&mut self, request: &Request) {
        self.requests.extend(self.hash(request));
    }
}
