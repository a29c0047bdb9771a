//! A response whose body is still to come, as a handler reads it.

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

use crate::{Error, ErrorKind, Response, Result};

/// A response whose head is there and whose body is read as it comes, for the handler of
/// [`read_with`](crate::Batch::read_with).
///
/// It is a [`Stream`] of the body, decoded, and has [`next`](Self::next) of its own, so that no other crate is needed to
/// read it. Nothing is read from the connection that the handler has not is_requested for, so a body of any length takes the
/// memory of one piece; a piece that is to be kept should be copied, since it may be a slice of a larger buffer.
///
/// It belongs to its handler: when that has returned, it gives an error.
///
/// ```
/// use fanout::{Result, StreamingResponse};
///
/// async fn lines(mut page: StreamingResponse) -> Result<usize> {
///     let mut lines = 0;
///     while let Some(chunk) = page.next().await {
///         lines += chunk?.iter().filter(|byte| **byte == b'\n').count();
///     }
///     Ok(lines)
/// }
/// ```
#[must_use = "the body is not read by itself"]
pub struct StreamingResponse {
    /// Without its body.
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

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// The version of HTTP that the server spoke.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// The URL that answered: the last one, after redirects; never with user-info.
    pub fn url(&self) -> &Url {
        self.head.url()
    }

    /// How many bytes the body has in all, if that is known. One that is decoded has no known length.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The response itself, unless its status is 4xx or 5xx.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Status`] for 4xx and 5xx. The error keeps the head of the response; its body is not read.
    pub fn error_for_status(self) -> Result<Self> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let mut error = Error::from_kind(ErrorKind::Status).with_detail(status.to_string());
        error.set_response(self.head);
        Err(error)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// As for a body that is kept: [`ErrorKind::Reset`], [`ErrorKind::Truncated`] and so on, once. The handler may
    /// return it as it is. [`ErrorKind::Cancelled`] if its handler has is_finished.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, no byte is lost.
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

/// Between the handler, which asks for pieces of a body, and the worker, which reads them.
///
/// The worker polls both; but a handler may read in another task, so each leaves its waker for the other.
#[derive(Default)]
pub(crate) struct BodyChannel(Mutex<ChannelState>);

#[derive(Default)]
struct ChannelState {
    is_requested: bool,
    /// None inside is the end of the body.
    chunk: Option<Option<Result<Bytes>>>,
    is_finished: bool,
    /// The worker no longer reads.
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
        if let Some(worker) = worker.filter(|worker| !worker.will_wake(cx.waker())) {
            worker.wake();
        }
        Poll::Pending
    }

    /// Whether the handler waits for a piece. If not, the worker is woken when it does.
    pub(crate) fn poll_requested(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if !state.is_requested {
            state.worker_waker = Some(cx.waker().clone());
        }
        state.is_requested
    }

    /// Hands over what was is_requested for. The worker polls the handler after this, so only another task is woken.
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
