//! The futures that `gather` and `try_gather` return, which yield all results of a batch at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::ExtractResult;
use super::handle::BatchHandle;
use super::run::BatchRun;
use crate::error::{Error, ErrorKind, Result};
use crate::response::Response;

/// Largest number of results for which memory is reserved in advance, according to the size hint of
/// the input iterator.
const MAX_PREALLOCATED_RESULTS: usize = 1 << 20;

/// The future of [`Fetcher::gather`](crate::Fetcher::gather) and
/// [`Batch::gather`](crate::Batch::gather): all results in input order.
///
/// # Cancel safety
///
/// Dropping the future cancels the batch: connections in use are closed, queued requests are
/// dropped, and the results so far are lost. To keep the results so far, use
/// [`as_completed`](crate::Batch::as_completed), or set a [`deadline`](crate::Batch::deadline),
/// after which every input has a result.
///
/// # Panics
///
/// Panics if polled outside a tokio runtime, or if the input iterator panics, which cancels the
/// batch.
#[must_use = "a batch does nothing until it is awaited"]
pub struct Gather<'a, R = Response> {
    batch_run: BatchRun<'a, ()>,
    extract_result: ExtractResult<R>,
    results: Vec<Option<Result<R>>>,
}

/// Every pinned value is boxed, so the future can be moved after it was polled.
impl<R> Unpin for Gather<'_, R> {}

impl<'a, R> Gather<'a, R> {
    pub(super) fn new(batch_run: BatchRun<'a, ()>, extract_result: ExtractResult<R>) -> Self {
        Self {
            batch_run,
            extract_result,
            results: Vec::new(),
        }
    }

    /// Returns a handle that controls this batch and reports its progress.
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.batch_run.control())
    }

    /// Takes results from the batch. Returns ready once there are no more results, or after the
    /// first result for which `is_last` returns true.
    fn poll_until_collected(
        &mut self,
        cx: &mut Context<'_>,
        is_last: fn(&Result<R>) -> bool,
    ) -> Poll<()> {
        if self.results.is_empty() {
            let expected = self
                .batch_run
                .min_input_count()
                .min(MAX_PREALLOCATED_RESULTS);
            self.results.reserve_exact(expected);
        }
        while let Some(((), mut job)) = ready!(self.batch_run.poll_next_job(cx)) {
            self.batch_run.mark_delivered(&job.request);
            if self.results.len() < self.batch_run.pulled_input_count() {
                self.results
                    .resize_with(self.batch_run.pulled_input_count(), || None);
            }
            let result = (self.extract_result)(&mut job);
            let is_last = is_last(&result);
            self.results[job.index] = Some(result);
            if is_last {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<R> Future for Gather<'_, R> {
    type Output = Vec<Result<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.poll_until_collected(cx, |_| false));
        let results = std::mem::take(&mut self.results);
        Poll::Ready(results.into_iter().map(or_cancelled_error).collect())
    }
}

/// Replaces a missing result by a `Cancelled` error. A result is missing only if a batch is polled
/// again after its input iterator has panicked.
fn or_cancelled_error<R>(result: Option<Result<R>>) -> Result<R> {
    result.unwrap_or_else(|| Err(Error::from_kind(ErrorKind::Cancelled)))
}

/// The future of [`Batch::try_gather`](crate::Batch::try_gather): all responses, or the first
/// error.
///
/// # Cancel safety
///
/// Dropping the future cancels the batch: connections in use are closed, queued requests are
/// dropped, and the responses so far are lost.
///
/// # Panics
///
/// Panics if polled outside a tokio runtime, or if the input iterator panics, which cancels the
/// batch.
#[must_use = "a batch does nothing until it is awaited"]
pub struct TryGather<'a, R = Response>(Option<Gather<'a, R>>);

impl<'a, R> TryGather<'a, R> {
    pub(super) fn new(gather: Gather<'a, R>) -> Self {
        Self(Some(gather))
    }
}

impl<R> Future for TryGather<'_, R> {
    type Output = Result<Vec<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(gather) = &mut self.0 else {
            panic!("a `TryGather` was polled after it had completed")
        };
        ready!(gather.poll_until_collected(cx, Result::is_err));
        let mut results = std::mem::take(&mut gather.results);
        let stop_reason = gather.batch_run.inputs_stop_reason();
        // Dropping the `Gather` cancels the rest of the batch before the result is returned.
        self.0 = None;
        let is_error = |result: &Option<Result<R>>| matches!(result, Some(Err(_)));
        let first_error = results.iter().position(is_error);
        if let Some(Some(Err(error))) = first_error.map(|index| results.swap_remove(index)) {
            return Poll::Ready(Err(error));
        }
        if let Some(reason) = stop_reason {
            return Poll::Ready(Err(Error::from_kind(reason)));
        }
        Poll::Ready(results.into_iter().map(or_cancelled_error).collect())
    }
}

impl<R> fmt::Debug for Gather<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("inputs_pulled", &self.batch_run.pulled_input_count())
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for TryGather<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryGather").field(&self.0).finish()
    }
}
