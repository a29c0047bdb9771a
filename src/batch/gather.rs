//! The endings that answer once: `gather` and `try_gather`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::BatchHandle;
use super::run::{BatchRun, ExtractResult};
use crate::{Error, ErrorKind, Response, Result};

/// For so many results room is made on the word of the iterator alone.
const MAX_PREALLOCATED: usize = 1 << 20;

/// The future of [`Fetcher::gather`](crate::Fetcher::gather) and [`Batch::gather`](crate::Batch::gather): all results,
/// in the order of the inputs.
///
/// # Cancel safety
///
/// Dropping it cancels the batch: what is on the wire is closed, what waits is forgotten, and the results so far are
/// lost. To keep them use [`as_completed`](crate::Batch::as_completed), or set a
/// [`deadline`](crate::Batch::deadline), after which every input is answered.
///
/// # Panics
///
/// When polled outside a tokio runtime. A panic of the input iterator passes through, and cancels the batch.
#[must_use = "a batch does nothing until it is awaited"]
pub struct Gather<'a, R = Response> {
    run: BatchRun<'a, ()>,
    extract_result: ExtractResult<R>,
    results: Vec<Option<Result<R>>>,
}

/// Nothing of the results or of the inputs is ever pinned in place: what needs a pin is boxed.
impl<R> Unpin for Gather<'_, R> {}

impl<'a, R> Gather<'a, R> {
    pub(super) fn new(run: BatchRun<'a, ()>, extract_result: ExtractResult<R>) -> Self {
        Self {
            run,
            extract_result,
            results: Vec::new(),
        }
    }

    /// What steers this batch from elsewhere, as [`Batch::handle`](crate::Batch::handle).
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.run.control())
    }

    /// Takes what has come. Ready when all has, or when `stop` says of a result that it is the last one wanted.
    fn poll_all(&mut self, cx: &mut Context<'_>, stop: fn(&Result<R>) -> bool) -> Poll<()> {
        if self.results.is_empty() {
            self.results
                .reserve_exact(self.run.min_expected_inputs().min(MAX_PREALLOCATED));
        }
        while let Some(((), mut job)) = ready!(self.run.poll_next(cx)) {
            self.run.mark_delivered();
            if self.results.len() < self.run.inputs_pulled() {
                self.results.resize_with(self.run.inputs_pulled(), || None);
            }
            let result = (self.extract_result)(&mut job);
            let is_last = stop(&result);
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
        ready!(self.poll_all(cx, |_| false));
        let results = std::mem::take(&mut self.results);
        Poll::Ready(results.into_iter().map(or_cancelled).collect())
    }
}

/// Every input has its answer when the run has ended, unless an input panicked and the caller polls on all the same.
fn or_cancelled<R>(result: Option<Result<R>>) -> Result<R> {
    result.unwrap_or_else(|| Err(Error::from_kind(ErrorKind::Cancelled)))
}

/// The future of [`Batch::try_gather`](crate::Batch::try_gather): all responses, or the first error.
///
/// # Cancel safety
///
/// As for [`Gather`]: dropping it cancels the batch.
///
/// # Panics
///
/// As for [`Gather`].
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
            panic!("a `TryGather` was polled after it had given its result")
        };
        ready!(gather.poll_all(cx, Result::is_err));
        let mut results = std::mem::take(&mut gather.results);
        let stopped_by = gather.run.stopped_by();
        // The rest is cancelled before the answer is given.
        self.0 = None;
        let first_error = results
            .iter()
            .position(|result| matches!(result, Some(Err(_))));
        if let Some(Some(Err(error))) = first_error.map(|index| results.swap_remove(index)) {
            return Poll::Ready(Err(error));
        }
        if let Some(reason) = stopped_by {
            return Poll::Ready(Err(Error::from_kind(reason)));
        }
        Poll::Ready(results.into_iter().map(or_cancelled).collect())
    }
}

impl<R> fmt::Debug for Gather<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("pulled", &self.run.inputs_pulled())
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for TryGather<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryGather").field(&self.0).finish()
    }
}
