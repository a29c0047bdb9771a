//! A response whose body is read as it arrives, by the user's handler or by the caller of a fetch.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::header::HeaderMap;
use http::{StatusCode, Version};
use http_body::{Frame, SizeHint};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::response::{Redirect, Response};
use crate::timings::{Attempt, Timings};

/// A response whose body is read as it arrives.
/// [`Fetch::stream_body`](crate::Fetch::stream_body) returns the response, and
/// [`read_with`](crate::Batch::read_with) passes it to a handler.
///
/// The response is a [`Stream`] of the chunks of the decoded body, and an [`http_body::Body`]. Its
/// method [`next`](Self::next) reads the body without another crate. The connection is read only
/// when a chunk is requested, so a body of any length needs the memory of one chunk. A chunk may be
/// a slice of a larger buffer: copy bytes that you keep. Trailers are skipped.
///
/// In a handler, the body can be read only while the handler runs: a response that outlives its
/// handler yields an error.
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
    /// The number of bytes that `next` has not returned yet; `None` if the length is unknown.
    remaining_length: Option<u64>,
    body_channel: Arc<BodyChannel>,
    consumer: BodyConsumer,
    /// Whether nothing more arrives through the channel.
    is_last_part_received: bool,
    /// The last chunk, until the request has a result.
    held_last_chunk: Option<Bytes>,
    /// Whether `next` returns `None`.
    is_finished: bool,
}

/// The reader of a streamed body.
enum BodyConsumer {
    /// A handler, which is usually polled by the worker's task.
    Handler,
    /// The caller of a fetch. `None` if the request has ended.
    Fetch(Option<Box<dyn RequestInFlight>>),
}

/// A request whose response is read by the caller of its fetch. Dropping it cancels the request.
pub(crate) trait RequestInFlight: Send + Sync {
    /// Polls for the result of the request, which is known after the end of the body.
    fn poll_result(&mut self, cx: &Context<'_>) -> Poll<Result<()>>;
}

impl StreamingResponse {
    /// `is_body_ended` tells whether it is already known that the body is empty.
    pub(crate) fn new(
        head: Response,
        body_length: Option<u64>,
        body_channel: Arc<BodyChannel>,
        is_body_ended: bool,
    ) -> Self {
        Self {
            head,
            body_length,
            remaining_length: body_length,
            body_channel,
            consumer: BodyConsumer::Handler,
            is_last_part_received: is_body_ended,
            held_last_chunk: None,
            is_finished: is_body_ended,
        }
    }

    /// Makes the caller of a fetch the reader of the body. `request` is `None` if the request has
    /// ended.
    pub(crate) fn with_fetch_consumer(mut self, request: Option<Box<dyn RequestInFlight>>) -> Self {
        self.consumer = BodyConsumer::Fetch(request);
        self
    }

    /// Whether the body has been read to its end or to an error.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// The channel through which the body arrives.
    pub(crate) fn body_channel(&self) -> &Arc<BodyChannel> {
        &self.body_channel
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
    /// request, until the response head arrived. The time of reading the body is not included.
    pub fn timings(&self) -> Timings {
        self.head.timings()
    }

    /// The attempts of the request, oldest first. The last attempt received this response, and
    /// lasts until the response head arrived.
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
        // A handler returns an error without a URL, to which the engine adds the URL.
        if matches!(self.consumer, BodyConsumer::Fetch(_)) {
            error.set_url(Arc::clone(self.head.shared_url()));
        }
        error.set_rejected_response(self.head);
        Err(error)
    }

    /// Reads the next chunk of the body. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Reset`], [`ErrorKind::Truncated`], [`ErrorKind::ContentEncoding`],
    /// [`ErrorKind::BodyIdleTimeout`] or another error if the body cannot be read to its end. A
    /// handler can return such an error unchanged. After an error, `next` returns `None`.
    ///
    /// Returns [`ErrorKind::Cancelled`] if the handler has ended, or if the runtime of the fetch
    /// has shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no data.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.poll_next_chunk(cx)).await
    }

    fn poll_next_chunk(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.is_finished {
            return Poll::Ready(None);
        }
        if !self.is_last_part_received {
            let received = ready!(self.body_channel.poll_receive(cx));
            self.is_last_part_received = received.is_last;
            match received.chunk {
                Some(chunk) if !received.is_last => {
                    self.subtract_from_remaining_length(&chunk);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                chunk => self.held_last_chunk = chunk,
            }
        }
        let body_end = match &mut self.consumer {
            BodyConsumer::Handler => self.body_channel.take_body_end().unwrap_or_else(|| {
                Err(Error::from_kind(ErrorKind::Cancelled).with_detail("its handler has ended"))
            }),
            // The last chunk is returned once the request has ended, so that its slot is free, and
            // dropping the response cancels nothing.
            BodyConsumer::Fetch(Some(request)) => ready!(request.poll_result(cx)),
            BodyConsumer::Fetch(None) => Ok(()),
        };
        self.is_finished = true;
        if let BodyConsumer::Fetch(request) = &mut self.consumer {
            *request = None;
        }
        let last_chunk = self.held_last_chunk.take();
        match (body_end, last_chunk) {
            (Err(error), _) => Poll::Ready(Some(Err(error))),
            (Ok(()), Some(chunk)) => {
                self.subtract_from_remaining_length(&chunk);
                Poll::Ready(Some(Ok(chunk)))
            }
            (Ok(()), None) => Poll::Ready(None),
        }
    }

    fn subtract_from_remaining_length(&mut self, chunk: &Bytes) {
        if let Some(remaining) = &mut self.remaining_length {
            *remaining = remaining.saturating_sub(chunk.len() as u64);
        }
    }
}

impl Stream for StreamingResponse {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_chunk(cx)
    }
}

/// Yields data frames only.
impl http_body::Body for StreamingResponse {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let chunk = ready!(self.poll_next_chunk(cx));
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_finished
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining_length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
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

/// Passes chunks from the worker (the task that reads the body) to the consumer, one at a time.
///
/// A handler is usually polled by the worker's task, but may move the response into another task.
/// The caller of a fetch reads in another task. Each side therefore stores a waker for the other
/// side.
#[derive(Default)]
pub(crate) struct BodyChannel(Mutex<ChannelState>);

#[derive(Default)]
struct ChannelState {
    /// Whether the consumer waits for a chunk.
    is_chunk_requested: bool,
    /// A chunk that was sent but not yet received.
    sent_chunk: Option<Bytes>,
    /// Whether the worker has read the body to its end or to an error.
    has_body_ended: bool,
    /// The end of the body, or its error, until [`BodyChannel::take_body_end`] takes it.
    body_end: Option<Result<()>>,
    /// Whether the worker has stopped reading the body.
    has_worker_stopped: bool,
    consumer_waker: Option<Waker>,
    worker_waker: Option<Waker>,
}

/// A part of a body that the consumer has received.
struct ReceivedPart {
    chunk: Option<Bytes>,
    /// Whether no chunk follows.
    is_last: bool,
}

impl BodyChannel {
    fn lock_state(&self) -> MutexGuard<'_, ChannelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_receive(&self, cx: &Context<'_>) -> Poll<ReceivedPart> {
        let mut state = self.lock_state();
        if let Some(chunk) = state.sent_chunk.take() {
            return Poll::Ready(ReceivedPart {
                chunk: Some(chunk),
                is_last: state.has_body_ended,
            });
        }
        if state.has_body_ended || state.has_worker_stopped {
            return Poll::Ready(ReceivedPart {
                chunk: None,
                is_last: true,
            });
        }
        state.is_chunk_requested = true;
        state.consumer_waker = Some(cx.waker().clone());
        let worker = state.worker_waker.take();
        drop(state);
        // A worker that polls the handler in its own task needs no wake-up: it checks for a chunk
        // request after each poll.
        if let Some(worker) = worker.filter(|worker| !worker.will_wake(cx.waker())) {
            worker.wake();
        }
        Poll::Pending
    }

    /// Takes the end of the body, or the error that has ended it. `None` if the body has not ended,
    /// or if its end was taken.
    pub(crate) fn take_body_end(&self) -> Option<Result<()>> {
        self.lock_state().body_end.take()
    }

    /// Returns `Pending` until the consumer requests a chunk.
    pub(crate) fn poll_chunk_requested(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock_state();
        if state.is_chunk_requested {
            return Poll::Ready(());
        }
        state.worker_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends the requested chunk, the end of the body, or both. The consumer is woken only if it
    /// reads in another task, because the worker's own task polls the handler next.
    pub(crate) fn send(
        &self,
        chunk: Option<Bytes>,
        body_end: Option<Result<()>>,
        cx: &Context<'_>,
    ) {
        let mut state = self.lock_state();
        state.is_chunk_requested = false;
        state.sent_chunk = chunk;
        state.has_body_ended = body_end.is_some();
        state.body_end = body_end;
        let consumer = state.consumer_waker.take();
        drop(state);
        if let Some(consumer) = consumer.filter(|consumer| !consumer.will_wake(cx.waker())) {
            consumer.wake();
        }
    }

    /// Closes the channel. The consumer receives a chunk that was already sent, and no other.
    pub(crate) fn close_channel(&self) {
        let mut state = self.lock_state();
        state.has_worker_stopped = true;
        let consumer = state.consumer_waker.take();
        drop(state);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}
