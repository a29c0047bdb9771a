//! A response whose body is read as it arrives, by the user's handler.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_core::Stream;
use http::header::HeaderMap;
use http::{StatusCode, Version};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::response::{Redirect, Response};
use crate::timings::{Attempt, Timings};

/// A response whose body is read as it arrives. [`read_with`](crate::Batch::read_with) passes the
/// response to its handler.
///
/// The response is a [`Stream`] of the chunks of the decoded body. Its method [`next`](Self::next)
/// reads the body without another crate. The connection is read only when the handler requests a
/// chunk, so a body of any length needs the memory of one chunk. A chunk may be a slice of a larger
/// buffer: copy bytes that you keep.
///
/// The body can be read only while the handler runs: a response that outlives its handler yields an
/// error.
///
/// ```
/// use fanout::{Result, StreamingResponse};
///
/// async fn count_lines(mut response: StreamingResponse) -> Result<usize> {
///     let mut lines = 0;
///     while let Some(chunk) = response.next().await {
///         lines += chunk?.iter().filter(|byte| **byte == b'\n').count();
///     }
///     Ok(lines)
/// }
/// ```
#[must_use = "the body is not read until a chunk is requested"]
pub struct StreamingResponse {
    /// The response with an empty body.
    head: Response,
    body_length: Option<u64>,
    body_channel: Arc<BodyChannel>,
}

impl StreamingResponse {
    pub(crate) fn new(
        head: Response,
        body_length: Option<u64>,
        body_channel: Arc<BodyChannel>,
    ) -> Self {
        Self {
            head,
            body_length,
            body_channel,
        }
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// The HTTP version of the response.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// The response headers. If the body is decoded, they lack `Content-Encoding` and
    /// `Content-Length`.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// The URL of the response, after redirects and without userinfo.
    pub fn url(&self) -> &Url {
        self.head.url()
    }

    /// The time spent queued and in each phase on the wire, summed over all attempts of the
    /// request, until the handler was called. The time of reading the body is not included.
    pub fn timings(&self) -> Timings {
        self.head.timings()
    }

    /// The attempts of the request, oldest first. The last attempt received this response. Its
    /// timings end at the call of the handler.
    pub fn attempts(&self) -> &[Attempt] {
        self.head.attempts()
    }

    /// The redirects that were followed to reach this response, in order; empty if there were none.
    pub fn redirects(&self) -> &[Redirect] {
        self.head.redirects()
    }

    /// The length of the whole body in bytes, if it is known in advance. It is not known if the
    /// body is decoded.
    pub fn length(&self) -> Option<u64> {
        self.body_length
    }

    /// Turns a 4xx or 5xx response into an error.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Status`] if the status is 4xx or 5xx. The error holds the head of the
    /// response; the body is not read.
    pub fn error_for_status(self) -> Result<Self> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let mut error = Error::from_kind(ErrorKind::Status).with_detail(status.to_string());
        error.set_rejected_response(self.head);
        Err(error)
    }

    /// Reads the next chunk of the body. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Reset`], [`ErrorKind::Truncated`] or another error of reading a body if
    /// the body cannot be read to its end. The handler can return such an error unchanged. After an
    /// error, `next` returns `None`.
    ///
    /// Returns [`ErrorKind::Cancelled`] if the handler has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no data.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.body_channel.poll_next_chunk(cx)).await
    }
}

impl Stream for StreamingResponse {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.body_channel.poll_next_chunk(cx)
    }
}

impl fmt::Debug for StreamingResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingResponse")
            .field("head", &self.head)
            .field("length", &self.body_length)
            .finish_non_exhaustive()
    }
}

/// Passes chunks from the worker (the task that reads the body) to the handler, one at a time.
///
/// The worker's task usually polls both the body and the handler, but a handler may move the
/// response into another task. Each side therefore stores a waker for the other side.
#[derive(Default)]
pub(crate) struct BodyChannel(Mutex<ChannelState>);

#[derive(Default)]
struct ChannelState {
    /// Whether the handler waits for a chunk.
    is_chunk_requested: bool,
    /// A chunk that was sent but not yet received. An inner `None` is the end of the body.
    sent_chunk: Option<Option<Result<Bytes>>>,
    /// Whether the handler has received the end of the body or an error.
    is_body_finished: bool,
    /// Whether the worker has stopped reading the body.
    has_worker_stopped: bool,
    handler_waker: Option<Waker>,
    worker_waker: Option<Waker>,
}

impl BodyChannel {
    fn lock_state(&self) -> MutexGuard<'_, ChannelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next_chunk(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let mut state = self.lock_state();
        if let Some(chunk) = state.sent_chunk.take() {
            state.is_body_finished = !matches!(chunk, Some(Ok(_)));
            return Poll::Ready(chunk);
        }
        if state.is_body_finished {
            return Poll::Ready(None);
        }
        if state.has_worker_stopped {
            state.is_body_finished = true;
            let error = Error::from_kind(ErrorKind::Cancelled).with_detail("its handler has ended");
            return Poll::Ready(Some(Err(error)));
        }
        state.is_chunk_requested = true;
        state.handler_waker = Some(cx.waker().clone());
        let worker = state.worker_waker.take();
        drop(state);
        // A worker that polls the handler in its own task needs no wake-up: it checks for a chunk
        // request after each poll.
        if let Some(worker) = worker.filter(|worker| !worker.will_wake(cx.waker())) {
            worker.wake();
        }
        Poll::Pending
    }

    /// Returns `Pending` until the handler requests a chunk.
    pub(crate) fn poll_chunk_requested(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock_state();
        if state.is_chunk_requested {
            return Poll::Ready(());
        }
        state.worker_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends the requested chunk. The handler is woken only if it reads in another task, because
    /// the worker's own task polls the handler next.
    pub(crate) fn send_chunk(&self, chunk: Option<Result<Bytes>>, cx: &Context<'_>) {
        let mut state = self.lock_state();
        state.is_chunk_requested = false;
        state.sent_chunk = Some(chunk);
        let handler = state.handler_waker.take();
        drop(state);
        if let Some(handler) = handler.filter(|handler| !handler.will_wake(cx.waker())) {
            handler.wake();
        }
    }

    /// Closes the channel. The handler can still read a chunk that was already sent; later reads
    /// fail.
    pub(crate) fn close_channel(&self) {
        let mut state = self.lock_state();
        state.has_worker_stopped = true;
        let handler = state.handler_waker.take();
        drop(state);
        if let Some(handler) = handler {
            handler.wake();
        }
    }
}
