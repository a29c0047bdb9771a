//! Finds the requests that a result leads to, such as the next page or the links of a page.

use http::Method;

use super::completed::Completed;
use super::follow_limits::FollowLimits;
use super::frontier::Frontier;
use crate::error::{Error, catch_user_panic};
use crate::link_header::{self, LinkError};
use crate::request::{IntoRequest, Request, origin};
use crate::response::Response;

const DEFAULT_MAX_LINK_DEPTH: usize = 16;
/// Default depth limit of `follow_next_link`, where each next page adds 1 to the depth.
const DEFAULT_MAX_PAGES_PER_INPUT: usize = 10_000;

/// Returns the requests found in a result, at most as many as the second argument.
type FindRequestsFn<'a, T, R> = dyn FnMut(&Completed<T, R>, usize) -> Vec<(T, Request)> + Send + 'a;

/// Finds the requests that a result leads to.
pub(super) struct LinkFinder<'a, T, R> {
    find_requests_fn: Box<FindRequestsFn<'a, T, R>>,
    follow_limits: FollowLimits,
}

impl<'a, T, R> LinkFinder<'a, T, R> {
    pub(super) fn new<F, I>(limits: FollowLimits, mut find_links: F) -> Self
    where
        F: FnMut(&Completed<T, R>) -> I + Send + 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T>>,
    {
        Self {
            find_requests_fn: Box::new(move |completed, max_links| {
                let links = find_links(completed).into_iter().take(max_links);
                links.map(IntoRequest::into_request).collect()
            }),
            follow_limits: limits.with_default_max_depth(DEFAULT_MAX_LINK_DEPTH),
        }
    }

    pub(super) fn new_frontier(&self) -> Frontier<T> {
        Frontier::new(self.follow_limits)
    }

    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if the user's function panics.
    pub(super) fn find_requests(
        &mut self,
        completed: &Completed<T, R>,
    ) -> Result<Vec<(T, Request)>, Error> {
        let max_links = self.follow_limits.max_requests.saturating_add(1);
        // After a panic, the user's function is called again for later results. The state that the
        // function captured is the user's responsibility.
        catch_user_panic("in the function of `follow_links`", || {
            (self.find_requests_fn)(completed, max_links)
        })
    }
}

impl<'a, T: Clone + 'a> LinkFinder<'a, T, Response> {
    /// Makes a finder of the next page: the target of `Link: rel="next"`.
    pub(super) fn next_link_finder(limits: FollowLimits) -> Self {
        let next = |page: &Completed<T>| {
            let response = page.result.as_ref().ok()?;
            let request = next_page_request(&page.request, response)?;
            Some((page.tag.clone(), request))
        };
        Self::new(
            limits.with_default_max_depth(DEFAULT_MAX_PAGES_PER_INPUT),
            next,
        )
    }
}

fn next_page_request(request: &Request, response: &Response) -> Option<Request> {
    if !response.status().is_success() {
        return None;
    }
    let page_url = response.url();
    let next_url = match link_header::find_link_target(response.headers(), "next", page_url) {
        Ok(next_url) => next_url?,
        Err(error) => {
            let page = Request::get(page_url);
            return Some(page.with_invalid_reason(link_error_message(error)).build());
        }
    };
    let requested_origin = request.url().map(origin);
    let is_cross_origin =
        requested_origin != Some(origin(page_url)) || requested_origin != Some(origin(&next_url));
    let changes_method_to_get = !matches!(*request.method(), Method::GET | Method::HEAD);
    let next = request.redirected(next_url, changes_method_to_get, is_cross_origin);
    Some(next.without_save_path())
}

fn link_error_message(error: LinkError) -> &'static str {
    match error {
        LinkError::MalformedHeader => "the Link header of this page is malformed",
        LinkError::InvalidTarget => "the next link of this page is not a URL",
    }
}
