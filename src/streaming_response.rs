//! A response whose body a handler reads as it arrives.

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
use crate::response::Response;

/// A response whose body is read as it arrives. [`read_with`](crate::Batch::read_with) passes it to
/// its handler.
///
/// It is a [`Stream`] of the decoded body, and its own [`next`](Self::next) reads the body without
/// another crate. The connection is read only when the handler requests a chunk, so a body of any
/// length needs the memory of one chunk. A chunk may be a slice of a larger buffer: copy what you
/// keep.
///
/// The body ends with the handler: a response that outlives its handler yields an error.
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
    length: Option<u64>,
    channel: Arc<BodyChannel>,
}

impl StreamingResponse {
    pub(crate) fn new(head: Response, length: Option<u64>, channel: Arc<BodyChannel>) -> Self {
        Self {
            head,
            length,
            channel,
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

    /// The URL of the response, after redirects and without user information.
    pub fn url(&self) -> &Url {
        self.head.url()
    }

    /// The total length of the body in bytes, if it is known. The length of a decoded body is not
    /// known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Turns a 4xx or 5xx response into an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Status`] if the status is 4xx or 5xx. The error holds the head of the response;
    /// the body is not read.
    pub fn error_for_status(self) -> Result<Self> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let mut error = Error::from_kind(ErrorKind::Status).with_detail(status.to_string());
        error.set_response(self.head);
        Err(error)
    }

    /// Reads the next chunk of the body. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// - The errors of a body in memory, such as [`ErrorKind::Reset`] and
    ///   [`ErrorKind::Truncated`]. The handler can return such an error unchanged. After an error,
    ///   `next` returns `None`.
    /// - [`ErrorKind::Cancelled`] if the handler has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no data.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.channel.poll_next(cx)).await
    }
}

impl Stream for StreamingResponse {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.channel.poll_next(cx)
    }
}

impl fmt::Debug for StreamingResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingResponse")
            .field("head", &self.head)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Passes single chunks from the worker, which reads the body, to the handler.
///
/// The worker's task polls both ends, but a handler may read the body in another task. Each end
/// therefore leaves a waker for the other.
#[derive(Default)]
pub(crate) struct BodyChannel(Mutex<ChannelState>);

#[derive(Default)]
struct ChannelState {
    /// The handler waits for a chunk.
    is_requested: bool,
    /// A chunk that was sent and not yet received. An inner `None` is the end of the body.
    chunk: Option<Option<Result<Bytes>>>,
    /// The handler received the end of the body or an error.
    is_finished: bool,
    /// The worker stopped reading.
    is_closed: bool,
    handler_waker: Option<Waker>,
    worker_waker: Option<Waker>,
}

impl BodyChannel {
    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let mut state = self.lock();
        if let Some(chunk) = state.chunk.take() {
            state.is_finished = !matches!(chunk, Some(Ok(_)));
            return Poll::Ready(chunk);
        }
        if state.is_finished {
            return Poll::Ready(None);
        }
        if state.is_closed {
            state.is_finished = true;
            let error = Error::from_kind(ErrorKind::Cancelled).with_detail("its handler has ended");
            return Poll::Ready(Some(Err(error)));
        }
        state.is_requested = true;
        state.handler_waker = Some(cx.waker().clone());
        let worker = state.worker_waker.take();
        drop(state);
        // In the worker's own task, the worker looks for a request after this poll.
        if let Some(worker) = worker.filter(|worker| !worker.will_wake(cx.waker())) {
            worker.wake();
        }
        Poll::Pending
    }

    /// Waits until the handler requests a chunk.
    pub(crate) fn poll_requested(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_requested {
            return Poll::Ready(());
        }
        state.worker_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends the requested chunk. The worker polls the handler next, so this wakes the handler
    /// only if it reads in another task.
    pub(crate) fn send(&self, chunk: Option<Result<Bytes>>, cx: &Context<'_>) {
        let mut state = self.lock();
        state.is_requested = false;
        state.chunk = Some(chunk);
        let handler = state.handler_waker.take();
        drop(state);
        if let Some(handler) = handler.filter(|handler| !handler.will_wake(cx.waker())) {
            handler.wake();
        }
    }

    /// Makes the handler's next read fail.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let handler = state.handler_waker.take();
        drop(state);
        if let Some(handler) = handler {
            handler.wake();
        }
    }
}
