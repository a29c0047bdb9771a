//! Requests that results lead to: the next page, the links of a page.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Method;

use super::Completed;
use crate::links;
use crate::request::origin;
use crate::{Error, ErrorKind, IntoRequest, Request, Response};

/// How far from the inputs links are followed.
const DEPTH: usize = 16;
/// How far next pages are, which come one after another.
const PAGES: usize = 10_000;
/// How many requests are followed in all.
const ITEMS: usize = 100_000;

type Lead<'a, T, R> = dyn FnMut(&Completed<T, R>, usize) -> Vec<(T, Request)> + Send + 'a;

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
///     .follow(Follow::new(links).max_depth(3).max_items(1_000));
/// while let Some(page) = pages.next().await {
///     println!("{} from {:?}", page.request.as_str(), page.parent);
/// }
/// println!("{} links were left out", pages.left_out());
/// # }
/// ```
#[must_use = "it does nothing until a batch is given it"]
pub struct Follow<'a, T = (), R = Response> {
    lead: Box<Lead<'a, T, R>>,
    bounds: Bounds,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
struct Bounds {
    depth: usize,
    items: usize,
    dedupe: bool,
}

impl<'a, T, R> Follow<'a, T, R> {
    /// Follows what `lead` gives for a result: requests of any kind, each with a tag if the inputs have tags.
    ///
    /// It is called once for each result, also for an error, in the task that reads the results and just before the reader
    /// gets it. It may borrow what the inputs may. Of one result no more than [`max_items`](Self::max_items) and one are
    /// looked at. If it panics that result becomes [`ErrorKind::Panicked`](crate::ErrorKind::Panicked), and nothing of it
    /// is followed.
    ///
    /// What it gives is taken as it is: links are to be resolved against [`Response::url`](crate::Response::url), and
    /// nothing of the page's own request, such as its headers, goes with them.
    pub fn new<F, I>(mut lead: F) -> Self
    where
        F: FnMut(&Completed<T, R>) -> I + Send + 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T>>,
    {
        Self {
            lead: Box::new(move |completed, most| {
                let links = lead(completed).into_iter().take(most);
                links.map(IntoRequest::into_request).collect()
            }),
            bounds: Bounds {
                depth: DEPTH,
                items: ITEMS,
                dedupe: true,
            },
        }
    }

    /// How many steps from an input are followed at most. Default 16, and 10,000 for [`next_link`](Self::next_link).
    ///
    /// An input is at depth 0, what it leads to at depth 1; with a `max_depth` of 0 nothing is followed.
    pub fn max_depth(mut self, steps: usize) -> Self {
        self.bounds.depth = steps;
        self
    }

    /// How many requests are followed at most, beside the inputs. Default 100,000.
    pub fn max_items(mut self, requests: usize) -> Self {
        self.bounds.items = requests;
        self
    }

    /// Whether a request is left alone that has been made in this batch. Default: yes.
    ///
    /// Two are the same if method and URL are, the fragment aside; one with a body is like no other. Only what is followed
    /// is left alone: every input is fetched. It costs about 40 bytes for each input and each request followed, whatever
    /// the length of the URL, until the batch ends.
    pub fn dedupe(mut self, dedupe: bool) -> Self {
        self.bounds.dedupe = dedupe;
        self
    }

    pub(super) fn queue(&self) -> Followed<T> {
        Followed {
            bounds: self.bounds,
            waiting: VecDeque::new(),
            places: HashMap::new(),
            seen: self.bounds.dedupe.then(Seen::default),
            followed: 0,
            left_out: 0,
            closed: false,
        }
    }

    /// Where a result leads.
    ///
    /// # Errors
    ///
    /// If it panicked.
    pub(super) fn lead(&mut self, completed: &Completed<T, R>) -> Result<Vec<(T, Request)>, Error> {
        let most = self.bounds.items.saturating_add(1);
        // What it has changed by then is its own affair: it is called again for the next.
        catch_unwind(AssertUnwindSafe(|| (self.lead)(completed, most)))
            .map_err(|_| Error::of(ErrorKind::Panicked).because("in what was given to `follow`"))
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
                .and_then(|answer| next_page(&page.request, answer));
            next.map(|next| (page.tag.clone(), next))
        };
        Self::new(next).max_depth(PAGES)
    }
}

fn next_page(request: &Request, answer: &Response) -> Option<Request> {
    if !answer.status().is_success() {
        return None;
    }
    let here = answer.url();
    let target = links::target_of(answer.headers(), "next", here)?;
    let Some(next) = links::resolve(target, here) else {
        return Some(Request::get(target));
    };
    let asked = request.url().map(origin);
    let crosses = asked != Some(origin(here)) || asked != Some(origin(&next));
    let becomes_get = !matches!(*request.method(), Method::GET | Method::HEAD);
    Some(request.redirected(next, becomes_get, crosses).unsaved())
}

impl<T, R> fmt::Debug for Follow<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("max_depth", &self.bounds.depth)
            .field("max_items", &self.bounds.items)
            .field("dedupe", &self.bounds.dedupe)
            .finish_non_exhaustive()
    }
}

/// Where an item stands among those that led to it.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) parent: Option<usize>,
    pub(super) depth: usize,
}

/// What is to be followed, in the order in which it was found.
pub(super) struct Followed<T> {
    bounds: Bounds,
    waiting: VecDeque<(T, Request, Place)>,
    /// Of those under way, by their index.
    places: HashMap<usize, Place>,
    seen: Option<Seen>,
    followed: usize,
    left_out: usize,
    closed: bool,
}

impl<T> Followed<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// An input is fetched whatever was fetched before.
    pub(super) fn note_input(&mut self, request: &Request) {
        if let Some(seen) = &mut self.seen {
            seen.insert(request);
        }
    }

    /// Where the item of this index stands, which is under way no longer.
    pub(super) fn leaves(&mut self, index: usize) -> Place {
        self.places.remove(&index).unwrap_or_default()
    }

    /// Takes what a result led to, as far as the bounds have it.
    pub(super) fn offer(&mut self, index: usize, depth: usize, links: Vec<(T, Request)>) {
        let place = Place {
            parent: Some(index),
            depth: depth + 1,
        };
        let left_out = self.left_out;
        for (tag, request) in links {
            if self.seen.as_ref().is_some_and(|seen| seen.holds(&request)) {
                continue;
            }
            let may_go_on = place.depth <= self.bounds.depth && self.followed < self.bounds.items;
            if self.closed || !may_go_on {
                self.left_out += 1;
                continue;
            }
            self.note_input(&request);
            self.followed += 1;
            self.waiting.push_back((tag, request, place));
        }
        if self.left_out > left_out {
            let count = self.left_out - left_out;
            tracing::debug!(target: "fanout::follow", index, depth, count, "links left out");
        }
    }

    /// The next to be handed in, as the item of this index.
    pub(super) fn next(&mut self, index: usize) -> Option<(T, Request)> {
        let (tag, request, place) = self.waiting.pop_front()?;
        self.places.insert(index, place);
        Some((tag, request))
    }

    /// How many were found that are followed.
    pub(super) fn count(&self) -> usize {
        self.followed
    }

    /// From now on nothing is followed.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.followed -= self.waiting.len();
        self.left_out += self.waiting.len();
        self.waiting.clear();
    }
}

/// What has been asked for, as hashes so long that no two requests have the same; and nobody can choose URLs that do,
/// since the hashers have keys of their own.
#[derive(Default)]
struct Seen {
    requests: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl Seen {
    fn hash(&self, request: &Request) -> Option<u128> {
        if request.content().len() != Some(0) {
            return None;
        }
        let url = request.as_str();
        let named = (
            request.method(),
            url.split_once('#').map_or(url, |(url, _)| url),
        );
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(named));
        Some(u128::from(high) << 64 | u128::from(low))
    }

    fn holds(&self, request: &Request) -> bool {
        self.hash(request)
            .is_some_and(|hash| self.requests.contains(&hash))
    }

    fn insert(&mut self, request: &Request) {
        self.requests.extend(self.hash(request));
    }
}
