//! Following of results: which requests are found in a result, such as the next page or the links
//! of a page.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Method;

use super::completed::Completed;
use super::frontier::{FollowLimits, Frontier};
use crate::error::{Error, ErrorKind};
use crate::link_header::{self, LinkError};
use crate::request::{IntoRequest, Request, origin};
use crate::response::Response;

const DEFAULT_MAX_DEPTH: usize = 16;
/// Default depth limit of `next_link`, where each next page adds 1 to the depth.
const DEFAULT_MAX_PAGES: usize = 10_000;
const DEFAULT_MAX_REQUESTS: usize = 100_000;

/// Returns the requests found in a result, at most as many as the second argument.
type FindRequestsFn<'a, T, R> = dyn FnMut(&Completed<T, R>, usize) -> Vec<(T, Request)> + Send + 'a;

/// Determines which requests are found in results, and how many of these requests are followed.
/// Passed to [`AsCompleted::follow`](crate::AsCompleted::follow).
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
/// use fanout::Follow;
///
/// let first_page = "https://api.example.com/items";
/// let mut pages = fetcher.as_completed([first_page]).follow(Follow::next_link());
/// while let Some(page) = pages.next().await {
///     println!("page {}: {} bytes", page.depth, page.result?.bytes().len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// A crawler extracts the links of a page. In this example, `hrefs` stands for an HTML parser:
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
///     println!("{} from {:?}", page.request.url_str(), page.parent_index);
/// }
/// println!("{} links were skipped", pages.skipped_requests());
/// # }
/// ```
#[must_use = "it does nothing until it is passed to `AsCompleted::follow`"]
pub struct Follow<'a, T = (), R = Response> {
    find_requests_fn: Box<FindRequestsFn<'a, T, R>>,
    follow_limits: FollowLimits,
}

impl<'a, T, R> Follow<'a, T, R> {
    /// Follows the requests that `find_links` returns for a result. If the inputs have tags, each
    /// returned request needs a tag too.
    ///
    /// `find_links` is called once for each result, including errors. The call is made in the task
    /// that takes the results, just before the task gets the result, and `find_links` may borrow
    /// what the inputs may borrow. At most [`max_requests`](Self::max_requests) + 1 requests are
    /// read from the return value. If `find_links` panics, the result becomes
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) and no request is found in the result.
    ///
    /// Requests are used as returned. Relative links must be resolved against
    /// [`Response::url`](crate::Response::url), and headers of the page's request are not copied.
    pub fn new<F, I>(mut find_links: F) -> Self
    where
        F: FnMut(&Completed<T, R>) -> I + Send + 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T>>,
    {
        Self {
            find_requests_fn: Box::new(move |completed, max_links| {
                let links = find_links(completed).into_iter().take(max_links);
                links.map(IntoRequest::into_request).collect()
            }),
            follow_limits: FollowLimits {
                max_depth: DEFAULT_MAX_DEPTH,
                max_requests: DEFAULT_MAX_REQUESTS,
                dedupe: true,
            },
        }
    }

    /// Limits the number of links from an input to a request. Default: 16; 10,000 for
    /// [`next_link`](Self::next_link).
    ///
    /// An input has depth 0, and the requests found in its result have depth 1. With a limit of 0,
    /// no request is followed.
    pub fn max_depth(mut self, links: usize) -> Self {
        self.follow_limits.max_depth = links;
        self
    }

    /// Limits the number of requests followed in the whole batch, not counting inputs. Default:
    /// 100,000.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.follow_limits.max_requests = requests;
        self
    }

    /// Whether to skip requests that the batch has already made. Default: `true`.
    ///
    /// Two requests are equal if they have the same method and URL, without the fragment. A request
    /// with a body equals no other. Inputs are always fetched. Recognizing equal requests takes
    /// about 40 bytes for each input and each request followed, until the batch ends.
    pub fn dedupe(mut self, dedupe: bool) -> Self {
        self.follow_limits.dedupe = dedupe;
        self
    }

    pub(super) fn new_frontier(&self) -> Frontier<T> {
        Frontier::new(self.follow_limits)
    }

    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`] if the user's function panics.
    pub(super) fn find_requests(
        &mut self,
        completed: &Completed<T, R>,
    ) -> Result<Vec<(T, Request)>, Error> {
        let max_links = self.follow_limits.max_requests.saturating_add(1);
        // After a panic, the user's function is called again for later results. The state that the
        // function captured is the user's responsibility.
        catch_unwind(AssertUnwindSafe(|| {
            (self.find_requests_fn)(completed, max_links)
        }))
        .map_err(|_| Error::from_kind(ErrorKind::Panicked).with_detail("in the `Follow` function"))
    }
}

impl<'a, T: Clone + 'a> Follow<'a, T> {
    /// Follows `Link: rel="next"` (RFC 8288), the pagination of many APIs.
    ///
    /// Only a response with a 2xx status leads to a next page. The next page is requested with the
    /// headers and the tag of the page. The method is GET (HEAD if the page's was HEAD), without a
    /// body. If the link, or a redirect on the way to the page, leads to another origin,
    /// credentials are removed from the request.
    ///
    /// The pages of one input are fetched one after another. The pages of several inputs are
    /// fetched concurrently.
    ///
    /// Pagination never ends silently. If the target of the link is not a URL, or if the `Link`
    /// header is malformed where it may hold the link, the next result is the error
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) for the URL of the page.
    pub fn next_link() -> Self {
        let next = |page: &Completed<T>| {
            let response = page.result.as_ref().ok()?;
            let request = next_page_request(&page.request, response)?;
            Some((page.tag.clone(), request))
        };
        Self::new(next).max_depth(DEFAULT_MAX_PAGES)
    }
}

fn next_page_request(request: &Request, response: &Response) -> Option<Request> {
    if !response.status().is_success() {
        return None;
    }
    let page_url = response.url();
    let next_url = match link_header::find_link(response.headers(), "next", page_url) {
        Ok(next_url) => next_url?,
        Err(error) => {
            let page = Request::get(page_url);
            return Some(page.with_error(link_error_reason(error)).build());
        }
    };
    let requested_origin = request.url().map(origin);
    let is_cross_origin =
        requested_origin != Some(origin(page_url)) || requested_origin != Some(origin(&next_url));
    let becomes_get = !matches!(*request.method(), Method::GET | Method::HEAD);
    let next = request.redirected(next_url, becomes_get, is_cross_origin);
    Some(next.without_save_path())
}

fn link_error_reason(error: LinkError) -> &'static str {
    match error {
        LinkError::MalformedHeader => "the Link header of this page is malformed",
        LinkError::InvalidTarget => "the next link of this page is not a URL",
    }
}

impl<T, R> fmt::Debug for Follow<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("max_depth", &self.follow_limits.max_depth)
            .field("max_requests", &self.follow_limits.max_requests)
            .field("dedupe", &self.follow_limits.dedupe)
            .finish_non_exhaustive()
    }
}
