//! The endings that answer one by one: `as_completed` and `in_order`.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use http::StatusCode;

use super::BatchHandle;
use super::follow::{Follow, Frontier};
use super::run::{BatchRun, ExtractResult};
use crate::engine::{Job, Reservation};
use crate::timings::AttemptList;
use crate::{Request, Response, Result, Timings};

/// One input's end: what came of it, with the input itself and the caller's own value.
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher) {
/// let mut done = fetcher.as_completed([("home", "http://127.0.0.1/"), ("news", "http://127.0.0.1/news")]);
/// while let Some(completed) = done.next().await {
///     match completed.result {
///         Ok(response) => println!("{} {}", completed.tag, response.status()),
///         Err(error) => println!("{} {error}", completed.tag),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<T = (), R = Response> {
    /// The place of the input among the inputs, from 0. What is [followed](AsCompleted::follow) is counted among them as
    /// it is handed in.
    pub index: usize,
    /// The caller's own value; `()` if none was given.
    pub tag: T,
    /// The request as it was handed in.
    pub request: Request,
    /// What came of it.
    pub result: Result<R>,
    /// The index of the item whose result led here ([`follow`](AsCompleted::follow)); none for an input.
    pub parent: Option<usize>,
    /// How many steps it is from an input: 0 for the inputs themselves.
    pub depth: usize,
    timings: Timings,
    pub(crate) attempts: u32,
    /// Of the answer, also of one that a handler has read.
    pub(crate) status: Option<StatusCode>,
}

impl<T, R> Completed<T, R> {
    /// Where the time went, over all attempts.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    fn new(tag: T, mut job: Box<Job>, extract_result: ExtractResult<R>) -> Self {
        let timings = job.timings();
        let attempts = job.attempts().map_or(0, |attempts| attempts.len() as u32);
        let status = job.status();
        let result = extract_result(&mut job);
        let Job { index, request, .. } = *job;
        Self {
            index,
            tag,
            request,
            result,
            parent: None,
            depth: 0,
            timings,
            attempts,
            status,
        }
    }
}

/// The results of a batch as they come, from [`as_completed`](crate::Fetcher::as_completed).
///
/// It is a [`Stream`], and has [`next`](Self::next) of its own, so that no other crate is needed to read it.
///
/// # Cancel safety
///
/// Dropping it cancels the batch: what is on the wire is closed, and what waits is forgotten.
///
/// # Panics
///
/// When polled outside a tokio runtime. A panic of the input iterator passes through, and cancels the batch.
#[must_use = "a batch does nothing until its results are asked for"]
pub struct AsCompleted<'a, T = (), R = Response> {
    run: BatchRun<'a, T>,
    extract_result: ExtractResult<R>,
    follow: Option<Follow<'a, T, R>>,
}

/// Nothing of `T` or of the inputs is ever pinned in place: what needs a pin is boxed.
impl<T, R> Unpin for AsCompleted<'_, T, R> {}

impl<'a, T, R> AsCompleted<'a, T, R> {
    pub(super) fn new(run: BatchRun<'a, T>, extract_result: ExtractResult<R>) -> Self {
        Self {
            run,
            extract_result,
            follow: None,
        }
    }

    /// Follows what results lead to: next pages, or the links of pages. Their results come as those of the inputs do, each
    /// with its [`parent`](Completed::parent) and [`depth`](Completed::depth). See [`Follow`], which has the bounds.
    ///
    /// What is found goes before fresh inputs, in the order in which it was found; while any of it waits, no input is
    /// pulled. It counts in the look-ahead window once it is handed in; what waits before that is kept as requests, at most
    /// [`max_requests`](Follow::max_requests) of them. The batch ends when inputs, what was found, and what is under way are all
    /// done. After the [`deadline`](crate::Batch::deadline), and once a [handle](Self::handle) has cancelled or drained the
    /// batch, nothing more is followed. What was left out is [counted](Self::skipped).
    ///
    /// Where a result leads is known only when it is read, so a reader that is slow to ask holds up what would come after.
    ///
    /// # Panics
    ///
    /// If it was polled before.
    #[track_caller]
    pub fn follow(mut self, follow: Follow<'a, T, R>) -> Self {
        self.run.set_frontier(follow.new_frontier());
        self.follow = Some(follow);
        self
    }

    /// How many links were left out so far: those beyond a bound of [`Follow`], and those that had not been
    /// handed in when the deadline came or the batch was cancelled or drained.
    ///
    /// What was left alone because it had been asked for is not among them.
    pub fn skipped(&self) -> usize {
        self.run.frontier().map_or(0, Frontier::skipped)
    }

    /// What steers this batch from elsewhere, as [`Batch::handle`](crate::Batch::handle).
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.run.control())
    }

    /// The next result, in the order of completion; `None` when every input that was taken is answered.
    ///
    /// While nobody asks, no inputs are taken beyond the look-ahead window; what is in it goes on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, no result is lost.
    pub async fn next(&mut self) -> Option<Completed<T, R>> {
        poll_fn(|cx| self.poll_completed(cx)).await
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completed<T, R>>> {
        let Some((tag, job)) = ready!(self.run.poll_next(cx)) else {
            return Poll::Ready(None);
        };
        self.run.mark_delivered();
        Poll::Ready(Some(match &mut self.follow {
            None => Completed::new(tag, job, self.extract_result),
            Some(follow) => {
                let attempts = job.attempts().cloned().unwrap_or_default();
                let mut completed = Completed::new(tag, job, self.extract_result);
                completed.expand(follow, &mut self.run, attempts);
                completed
            }
        }))
    }
}

impl<T, R> Completed<T, R> {
    /// Hands in what it leads to.
    fn expand(
        &mut self,
        follow: &mut Follow<'_, T, R>,
        run: &mut BatchRun<'_, T>,
        attempts: AttemptList,
    ) {
        let Some(frontier) = run.frontier_mut() else {
            return;
        };
        let lineage = frontier.take_lineage(self.index);
        (self.parent, self.depth) = (lineage.parent, lineage.depth);
        match follow.expand(self) {
            Ok(links) => {
                run.enqueue_links(self.index, self.depth, links);
            }
            Err(mut error) => {
                error.set_url(self.request.target().clone());
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
            .field("pulled", &self.run.inputs_pulled())
            .finish_non_exhaustive()
    }
}

/// The results of a batch one by one in the order of the inputs, from [`in_order`](crate::Batch::in_order).
///
/// A result that comes before its turn is kept until the ones before it have come. What is kept so counts in the
/// look-ahead window, so that a slow first input costs no more memory than the window holds.
///
/// # Cancel safety
///
/// Dropping it cancels the batch: what is on the wire is closed, and what waits is forgotten.
///
/// # Panics
///
/// When polled outside a tokio runtime. A panic of the input iterator passes through, and cancels the batch.
#[must_use = "a batch does nothing until its results are asked for"]
pub struct InOrder<'a, T = (), R = Response> {
    run: BatchRun<'a, T>,
    extract_result: ExtractResult<R>,
    /// The index of the first in `early`: whose turn it is.
    next_index: usize,
    buffered: VecDeque<Option<Buffered<T, R>>>,
}

/// A result before its turn, and what it counts until then.
type Buffered<T, R> = (Completed<T, R>, Option<Reservation>);

/// As for [`AsCompleted`].
impl<T, R> Unpin for InOrder<'_, T, R> {}

impl<'a, T, R> InOrder<'a, T, R> {
    pub(super) fn new(run: BatchRun<'a, T>, extract_result: ExtractResult<R>) -> Self {
        Self {
            run,
            extract_result,
            next_index: 0,
            buffered: VecDeque::new(),
        }
    }

    /// What steers this batch from elsewhere, as [`Batch::handle`](crate::Batch::handle).
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.run.control())
    }

    /// The next result, in the order of the inputs; `None` when every input that was taken is answered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, no result is lost.
    pub async fn next(&mut self) -> Option<Completed<T, R>> {
        poll_fn(|cx| self.poll_in_order(cx)).await
    }

    fn poll_in_order(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completed<T, R>>> {
        loop {
            if self.buffered.front().is_some_and(Option::is_some) {
                self.run.mark_delivered();
                self.next_index += 1;
                let (completed, _released_reservation) =
                    self.buffered.pop_front().flatten().unzip();
                return Poll::Ready(completed);
            }
            match ready!(self.run.poll_next(cx)) {
                Some((tag, mut job)) => {
                    let reservation = job.take_reservation();
                    self.buffer((Completed::new(tag, job, self.extract_result), reservation));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn buffer(&mut self, buffered: Buffered<T, R>) {
        let position = buffered.0.index - self.next_index;
        if self.buffered.len() <= position {
            self.buffered.resize_with(position + 1, || None);
        }
        self.buffered[position] = Some(buffered);
    }
}

impl<T, R> Stream for InOrder<'_, T, R> {
    type Item = Completed<T, R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_in_order(cx)
    }
}

impl<T, R> fmt::Debug for InOrder<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder")
            .field("delivered", &self.next_index)
            .field("buffered", &self.buffered.len())
            .finish_non_exhaustive()
    }
}
