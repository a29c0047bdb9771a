//! The stream that `as_completed` returns: results of a batch in the order of completion.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::ExtractResult;
use super::completed::Completed;
use super::follow::LinkFinder;
use super::follow_limits::FollowLimits;
use super::frontier::Frontier;
use super::handle::BatchHandle;
use super::run::BatchRun;
use crate::request::IntoRequest;
use crate::response::Response;

/// The results of a batch in the order of completion, from
/// [`as_completed`](crate::Fetcher::as_completed).
///
/// `AsCompleted` is a [`Stream`]. Its method [`next`](Self::next) reads the stream without another
/// crate.
///
/// # Cancel safety
///
/// Dropping the stream cancels the batch: connections in use are closed, and queued requests are
/// dropped.
///
/// # Panics
///
/// Panics if polled outside a tokio runtime, or if the input iterator panics, which cancels the
/// batch.
#[must_use = "a batch does nothing until it is polled"]
pub struct AsCompleted<'a, T = (), R = Response> {
    batch_run: BatchRun<'a, T>,
    extract_result: ExtractResult<R>,
    link_finder: Option<LinkFinder<'a, T, R>>,
}

/// Every pinned value is boxed, so the stream can be moved after it was polled.
impl<T, R> Unpin for AsCompleted<'_, T, R> {}

impl<'a, T, R> AsCompleted<'a, T, R> {
    pub(super) fn new(batch_run: BatchRun<'a, T>, extract_result: ExtractResult<R>) -> Self {
        Self {
            batch_run,
            extract_result,
            link_finder: None,
        }
    }

    /// Also fetches the requests that `find_links` finds in each result, such as the links of a
    /// page. Default: only inputs are fetched.
    ///
    /// `find_links` is called once for each result, including errors, in the task that takes the
    /// results. It may borrow the same data as the inputs. At most
    /// [`max_requests`](FollowLimits::max_requests) + 1 requests are read from each return value,
    /// which may be endless. If the inputs have tags, each returned request needs a tag too.
    ///
    /// Requests are used as returned, except for their [fragment](FollowLimits::dedupe). Resolve
    /// relative links against [`Response::url`](crate::Response::url). Headers of the page's
    /// request are not copied.
    ///
    /// The results of found requests are yielded like the results of inputs, with their
    /// [`parent_index`](Completed::parent_index) and [`depth`](Completed::depth). `limits` sets how
    /// many requests are followed.
    ///
    /// Found requests are queued before further inputs, in the order in which they were found.
    /// Found requests count towards the look-ahead window once they are queued. At most
    /// [`max_requests`](FollowLimits::max_requests) found requests are kept before they are queued.
    ///
    /// The batch ends when all inputs and all found requests have a result. No more requests are
    /// followed after the [`deadline`](crate::Batch::deadline), or once a [handle](Self::handle)
    /// has cancelled or drained the batch. [`skipped_requests`](Self::skipped_requests) counts the
    /// requests that were not followed.
    ///
    /// A result is examined for links when the result is taken. A consumer that takes results
    /// slowly delays the requests found in the results.
    ///
    /// # Errors
    ///
    /// If `find_links` panics, the result becomes
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) and no request is found in the result.
    ///
    /// # Panics
    ///
    /// Panics if the stream was polled before, or if `follow_links` or `follow_next_link` was
    /// called before.
    ///
    /// # Examples
    ///
    /// A crawler. Here `hrefs` stands for an HTML parser:
    ///
    /// ```
    /// # fn hrefs(text: &str) -> std::str::SplitWhitespace<'_> { text.split_whitespace() }
    /// # async fn example(fetcher: fanout::Fetcher) {
    /// use fanout::FollowLimits;
    ///
    /// let limits = FollowLimits::default().max_depth(3).max_requests(1_000);
    /// let mut pages = fetcher
    ///     .as_completed(["https://example.com/"])
    ///     .follow_links(limits, |page| match &page.result {
    ///         Ok(page) => hrefs(&page.text())
    ///             .filter_map(|href| page.url().join(href).ok())
    ///             .collect(),
    ///         Err(_) => Vec::new(),
    ///     });
    /// while let Some(page) = pages.next().await {
    ///     println!("{} from {:?}", page.request.url_str(), page.parent_index);
    /// }
    /// println!("{} links were skipped", pages.skipped_requests());
    /// # }
    /// ```
    #[track_caller]
    pub fn follow_links<F, I>(self, limits: FollowLimits, find_links: F) -> Self
    where
        F: FnMut(&Completed<T, R>) -> I + Send + 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T>>,
    {
        self.with_link_finder(LinkFinder::new(limits, find_links))
    }

    #[track_caller]
    fn with_link_finder(mut self, link_finder: LinkFinder<'a, T, R>) -> Self {
        assert!(
            self.link_finder.is_none(),
            "`follow_links` or `follow_next_link` was called twice"
        );
        self.batch_run.set_frontier(link_finder.new_frontier());
        self.link_finder = Some(link_finder);
        self
    }

    /// The number of found requests that were not followed: requests beyond a
    /// [limit](FollowLimits), and requests that were not queued yet when the deadline passed or the
    /// batch was cancelled or drained.
    ///
    /// A request that was skipped because the batch had already made an equal request is not
    /// counted.
    pub fn skipped_requests(&self) -> usize {
        self.batch_run.frontier().map_or(0, Frontier::skipped_count)
    }

    /// Returns a handle that controls this batch and reports its progress.
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.batch_run.control())
    }

    /// Returns the next result in the order of completion. Returns `None` once the result of every
    /// pulled input was returned.
    ///
    /// While `next` is not called, requests in the look-ahead window continue, but no further
    /// inputs are pulled.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: if the future is dropped, no result is lost.
    ///
    /// # Panics
    ///
    /// Panics if polled outside a tokio runtime, or if the input iterator panics, which cancels the
    /// batch.
    pub async fn next(&mut self) -> Option<Completed<T, R>> {
        poll_fn(|cx| self.poll_next_completed(cx)).await
    }

    fn poll_next_completed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completed<T, R>>> {
        let Some((tag, job)) = ready!(self.batch_run.poll_next_job(cx)) else {
            return Poll::Ready(None);
        };
        self.batch_run.mark_delivered(&job.request);
        Poll::Ready(Some(match &mut self.link_finder {
            None => Completed::new(tag, job, self.extract_result),
            Some(link_finder) => {
                if let Some((request, redirects)) = job.last_request_and_redirects()
                    && let Some(frontier) = self.batch_run.frontier_mut()
                {
                    frontier.mark_redirects_visited(request, redirects);
                }
                let mut completed = Completed::new(tag, job, self.extract_result);
                completed.find_and_enqueue_requests(link_finder, &mut self.batch_run);
                completed
            }
        }))
    }
}

impl<'a, T: Clone + 'a> AsCompleted<'a, T> {
    /// Also fetches the next pages of each input: follows `Link: rel="next"` (RFC 8288), the
    /// pagination of many APIs. Default: only inputs are fetched.
    ///
    /// Only a response with a 2xx status leads to a next page. The next page is requested with the
    /// headers and the tag of the page, without a body. The method is GET, or HEAD if the page was
    /// requested with HEAD. If the link, or a redirect on the way to the page, leads to another
    /// origin, credentials are removed from the request.
    ///
    /// The pages of one input are fetched one after another. The pages of several inputs are
    /// fetched concurrently. Apart from that, pages are followed as
    /// [`follow_links`](Self::follow_links) describes.
    ///
    /// Pagination never ends silently. If the target of the link is not a URL, or if a malformed
    /// `Link` header may hide the link, the next result is the error
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) for the URL of the page.
    ///
    /// # Panics
    ///
    /// Panics if the stream was polled before, or if `follow_links` or `follow_next_link` was
    /// called before.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
    /// use fanout::FollowLimits;
    ///
    /// let first_page = "https://api.example.com/items";
    /// let mut pages = fetcher
    ///     .as_completed([first_page])
    ///     .follow_next_link(FollowLimits::default());
    /// while let Some(page) = pages.next().await {
    ///     println!("page {}: {} bytes", page.depth, page.result?.bytes().len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn follow_next_link(self, limits: FollowLimits) -> Self {
        self.with_link_finder(LinkFinder::next_link_finder(limits))
    }
}

impl<T, R> Completed<T, R> {
    /// Finds requests in this result and queues them. If the user's function panics, the panic
    /// becomes the result.
    fn find_and_enqueue_requests(
        &mut self,
        link_finder: &mut LinkFinder<'_, T, R>,
        batch_run: &mut BatchRun<'_, T>,
    ) {
        let Some(frontier) = batch_run.frontier_mut() else {
            return;
        };
        let lineage = frontier.take_lineage(self.index);
        (self.parent_index, self.depth) = (lineage.parent_index, lineage.depth);
        match link_finder.find_requests(self) {
            Ok(found) => batch_run.enqueue_found_requests(self.index, self.depth, found),
            Err(mut error) => {
                error.set_url(self.request.url_or_invalid_text().clone());
                error.set_maybe_sent(match &self.result {
                    Ok(_) => true,
                    Err(original) => original.maybe_sent(),
                });
                error.set_attempts(self.history.attempt_list().clone());
                error.set_redirects(self.history.redirects().into());
                self.result = Err(error);
            }
        }
    }
}

impl<T, R> Stream for AsCompleted<'_, T, R> {
    type Item = Completed<T, R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_completed(cx)
    }
}

impl<T, R> fmt::Debug for AsCompleted<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("inputs_pulled", &self.batch_run.pulled_input_count())
            .finish_non_exhaustive()
    }
}
