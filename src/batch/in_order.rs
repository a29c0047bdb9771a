//! The stream that `in_order` returns: results of a batch in input order.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::ExtractResult;
use super::completed::Completed;
use super::handle::BatchHandle;
use super::run::BatchRun;
use crate::body_budget::BodyReservation;
use crate::response::Response;

/// The results of a batch in input order, from [`in_order`](crate::Batch::in_order).
///
/// A result that is complete before the result of an earlier input is buffered. Buffered results
/// count towards the [look-ahead window](crate::Batch::look_ahead), so a slow input costs no more
/// memory than the window holds. [`max_buffered_bytes`](crate::Batch::max_buffered_bytes) bounds
/// the bytes of buffered bodies.
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
pub struct InOrder<'a, T = (), R = Response> {
    batch_run: BatchRun<'a, T>,
    extract_result: ExtractResult<R>,
    /// Index of the next result to yield. The first element of `buffered_results` belongs to this
    /// index.
    next_input_index: usize,
    buffered_results: VecDeque<Option<BufferedResult<T, R>>>,
}

/// A result that was not yielded yet, and the bytes that its body reserves in the batch's body
/// budget.
type BufferedResult<T, R> = (Completed<T, R>, Option<BodyReservation>);

/// Every pinned value is boxed, so the stream can be moved after it was polled.
impl<T, R> Unpin for InOrder<'_, T, R> {}

impl<'a, T, R> InOrder<'a, T, R> {
    pub(super) fn new(batch_run: BatchRun<'a, T>, extract_result: ExtractResult<R>) -> Self {
        Self {
            batch_run,
            extract_result,
            next_input_index: 0,
            buffered_results: VecDeque::new(),
        }
    }

    /// Returns a handle that controls this batch and reports its progress.
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.batch_run.control())
    }

    /// Returns the next result in input order. Returns `None` once the result of every pulled input
    /// was returned.
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
        poll_fn(|cx| self.poll_next_in_order(cx)).await
    }

    fn poll_next_in_order(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completed<T, R>>> {
        loop {
            if let Some(Some((completed, _))) = self.buffered_results.front() {
                self.batch_run.mark_delivered(&completed.request);
                self.next_input_index += 1;
                let (completed, _reservation) = self.buffered_results.pop_front().flatten().unzip();
                return Poll::Ready(completed);
            }
            match ready!(self.batch_run.poll_next_job(cx)) {
                Some((tag, mut job)) => {
                    let body_reservation = job.take_body_reservation();
                    let completed = Completed::new(tag, job, self.extract_result);
                    self.buffer_result((completed, body_reservation));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn buffer_result(&mut self, result: BufferedResult<T, R>) {
        let position = result.0.index - self.next_input_index;
        if self.buffered_results.len() <= position {
            self.buffered_results.resize_with(position + 1, || None);
        }
        self.buffered_results[position] = Some(result);
    }
}

impl<T, R> Stream for InOrder<'_, T, R> {
    type Item = Completed<T, R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_in_order(cx)
    }
}

impl<T, R> fmt::Debug for InOrder<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder")
            .field("delivered", &self.next_input_index)
            .field("buffered", &self.buffered_results.len())
            .finish_non_exhaustive()
    }
}
