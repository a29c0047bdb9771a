//! The stream that `as_completed` returns: results of a batch in the order of completion.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::ExtractResult;
use super::completed::Completed;
use super::follow::Follow;
use super::frontier::Frontier;
use super::handle::BatchHandle;
use super::run::BatchRun;
use crate::response::Response;
use crate::timings::AttemptList;

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
    follow: Option<Follow<'a, T, R>>,
}

/// Neither a tag nor an input is pinned in place. Pinned values are boxed.
impl<T, R> Unpin for AsCompleted<'_, T, R> {}

impl<'a, T, R> AsCompleted<'a, T, R> {
    pub(super) fn new(batch_run: BatchRun<'a, T>, extract_result: ExtractResult<R>) -> Self {
        Self {
            batch_run,
            extract_result,
            follow: None,
        }
    }

    /// Also fetches the requests that results lead to, such as next pages or the links of a page.
    /// Default: only inputs are fetched.
    ///
    /// The results of found requests are yielded like the results of inputs, with their
    /// [`parent_index`](Completed::parent_index) and [`depth`](Completed::depth). [`Follow`] sets
    /// which requests are followed, and how many.
    ///
    /// Found requests are queued before further inputs, in the order in which they were found.
    /// Found requests count towards the look-ahead window once they are queued. At most
    /// [`max_requests`](Follow::max_requests) found requests are kept before they are queued.
    ///
    /// The batch ends when all inputs and all found requests have a result. No more requests are
    /// followed after the [`deadline`](crate::Batch::deadline), or once a [handle](Self::handle)
    /// has cancelled or drained the batch. [`skipped_requests`](Self::skipped_requests) counts the
    /// requests that were not followed.
    ///
    /// A result is examined for links when the result is taken. A consumer that takes results
    /// slowly delays the requests found in the results.
    ///
    /// # Panics
    ///
    /// Panics if the stream was polled before.
    #[track_caller]
    pub fn follow(mut self, follow: Follow<'a, T, R>) -> Self {
        self.batch_run.set_frontier(follow.new_frontier());
        self.follow = Some(follow);
        self
    }

    /// The number of found requests that were not followed: requests beyond a limit of [`Follow`],
    /// and requests that were not queued yet when the deadline passed or the batch was cancelled or
    /// drained.
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
        poll_fn(|cx| self.poll_completed(cx)).await
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completed<T, R>>> {
        let Some((tag, job)) = ready!(self.batch_run.poll_next_job(cx)) else {
            return Poll::Ready(None);
        };
        self.batch_run.mark_delivered(&job.request);
        Poll::Ready(Some(match &mut self.follow {
            None => Completed::new(tag, job, self.extract_result),
            Some(follow) => {
                let attempts = job.attempts().cloned().unwrap_or_default();
                let mut completed = Completed::new(tag, job, self.extract_result);
                completed.enqueue_found_requests(follow, &mut self.batch_run, attempts);
                completed
            }
        }))
    }
}

impl<T, R> Completed<T, R> {
    /// Queues the requests found in this result. If the user's `Follow` function panics, the panic
    /// becomes the result.
    fn enqueue_found_requests(
        &mut self,
        follow: &mut Follow<'_, T, R>,
        batch_run: &mut BatchRun<'_, T>,
        attempts: AttemptList,
    ) {
        let Some(frontier) = batch_run.frontier_mut() else {
            return;
        };
        let lineage = frontier.take_lineage(self.index);
        (self.parent_index, self.depth) = (lineage.parent_index, lineage.depth);
        match follow.find_requests(self) {
            Ok(found) => batch_run.enqueue_found_requests(self.index, self.depth, found),
            Err(mut error) => {
                error.set_url(self.request.url_or_text().clone());
                error.set_maybe_sent(match &self.result {
                    Ok(_) => true,
                    Err(original) => original.maybe_sent(),
                });
                error.set_attempts(attempts);
                self.result = Err(error);
            }
        }
    }
}

impl<T, R> Stream for AsCompleted<'_, T, R> {
    type Item = Completed<T, R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_completed(cx)
    }
}

impl<T, R> fmt::Debug for AsCompleted<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("inputs_pulled", &self.batch_run.inputs_pulled())
            .finish_non_exhaustive()
    }
}
