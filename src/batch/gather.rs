//! The endings that answer once: `gather` and `try_gather`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::run::Run;
use crate::{Error, ErrorKind, Response, Result};

/// For so many results room is made on the word of the iterator alone.
const EXPECTED: usize = 1 << 20;

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
pub struct Gather<'a> {
    run: Run<'a, ()>,
    results: Vec<Option<Result<Response>>>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(run: Run<'a, ()>) -> Self {
        Self {
            run,
            results: Vec::new(),
        }
    }

    /// Takes what has come. Ready when all has, or when `stop` says of a result that it is the last one wanted.
    fn poll_all(&mut self, cx: &mut Context<'_>, stop: fn(&Result<Response>) -> bool) -> Poll<()> {
        if self.results.is_empty() {
            self.results
                .reserve_exact(self.run.expected().min(EXPECTED));
        }
        while let Some(((), mut job)) = ready!(self.run.poll_next(cx)) {
            self.run.release();
            if self.results.len() < self.run.admitted() {
                self.results.resize_with(self.run.admitted(), || None);
            }
            let result = job.result.take();
            let is_last = result.as_ref().is_some_and(stop);
            self.results[job.index] = result;
            if is_last {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl Future for Gather<'_> {
    type Output = Vec<Result<Response>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.poll_all(cx, |_| false));
        let results = std::mem::take(&mut self.results);
        Poll::Ready(results.into_iter().map(answered).collect())
    }
}

/// Every input has its answer when the run has ended, unless an input panicked and the caller polls on all the same.
fn answered(result: Option<Result<Response>>) -> Result<Response> {
    result.unwrap_or_else(|| Err(Error::of(ErrorKind::Cancelled)))
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
pub struct TryGather<'a>(Option<Gather<'a>>);

impl<'a> TryGather<'a> {
    pub(super) fn new(gather: Gather<'a>) -> Self {
        Self(Some(gather))
    }
}

impl Future for TryGather<'_> {
    type Output = Result<Vec<Response>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(gather) = &mut self.0 else {
            panic!("a `TryGather` was polled after it had given its result")
        };
        ready!(gather.poll_all(cx, Result::is_err));
        let mut results = std::mem::take(&mut gather.results);
        let was_cut_short = gather.run.was_cut_short();
        // The rest is cancelled before the answer is given.
        self.0 = None;
        let first_error = results
            .iter()
            .position(|result| matches!(result, Some(Err(_))));
        if let Some(Some(Err(error))) = first_error.map(|index| results.swap_remove(index)) {
            return Poll::Ready(Err(error));
        }
        if was_cut_short {
            return Poll::Ready(Err(Error::of(ErrorKind::Deadline)));
        }
        Poll::Ready(results.into_iter().map(answered).collect())
    }
}

impl fmt::Debug for Gather<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("pulled", &self.run.admitted())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TryGather<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryGather").field(&self.0).finish()
    }
}
