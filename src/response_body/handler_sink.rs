//! Streams a body to the user's handler (the `read_with` closure).

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::reader::DecodedBody;
use crate::error::{BoxError, Error, ErrorKind};
use crate::response::Response;
use crate::streaming_response::{BodyChannel, StreamingResponse};

/// The value that a handler returned, with its type erased.
pub(crate) type HandlerOutput = Box<dyn Any + Send>;
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<HandlerOutput, Error>> + Send>>;

/// The handler of a batch or of a single fetch, with its type erased.
pub(crate) trait BodyHandler: Send + Sync {
    /// Calls the handler and polls its future once. Returns the future and the result of the poll.
    /// After [`close_to_starts`](Self::close_to_starts), returns an error and no future.
    fn start_handler(
        &self,
        response: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>);

    /// Makes every later call of [`start_handler`](Self::start_handler) fail. Waits until running
    /// calls of `start_handler` have returned.
    fn close_to_starts(&self);
}

struct ClosableHandler<F> {
    handler: F,
    /// `start_handler` holds the read lock, so `close_to_starts` waits until `start_handler` has
    /// returned.
    is_closed_to_starts: RwLock<bool>,
}

pub(crate) fn type_erased_handler<F, A, R>(handler: F) -> Arc<dyn BodyHandler>
where
    F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, BoxError>> + Send + 'static,
    R: Send + 'static,
{
    let start_handler = move |response| -> HandlerFuture {
        let future = handler(response);
        Box::pin(async move {
            match future.await {
                Ok(output) => Ok(Box::new(output) as HandlerOutput),
                Err(error) => Err(handler_error(error)),
            }
        })
    };
    Arc::new(ClosableHandler {
        handler: start_handler,
        is_closed_to_starts: RwLock::new(false),
    })
}

impl<F: Fn(StreamingResponse) -> HandlerFuture + Send + Sync> BodyHandler for ClosableHandler<F> {
    fn start_handler(
        &self,
        response: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>) {
        let is_closed_to_starts = self
            .is_closed_to_starts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_closed_to_starts {
            let error = Error::from_kind(ErrorKind::Cancelled);
            return (None, Poll::Ready(Err(error)));
        }
        let mut future = (self.handler)(response);
        let poll = future.as_mut().poll(cx);
        (Some(future), poll)
    }

    fn close_to_starts(&self) {
        *self
            .is_closed_to_starts
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Wraps an error that the handler returned in [`ErrorKind::Handler`]. The exception is an
/// [`Error`] without a URL: it comes from reading the body, and is returned unchanged.
fn handler_error(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(body_error) if body_error.url().is_none() => *body_error,
        Ok(other) => Error::new(ErrorKind::Handler, *other),
        Err(other) => Error::new(ErrorKind::Handler, other),
    }
}

/// Streams a body to a handler, and keeps the value that the handler returned.
pub(crate) struct HandlerSink {
    handler: Arc<dyn BodyHandler>,
    pub(super) has_handler_started: bool,
    pub(super) handler_output: Option<HandlerOutput>,
    pub(super) bytes_read: u64,
}

impl HandlerSink {
    pub(super) fn new(handler: &Arc<dyn BodyHandler>) -> Self {
        Self {
            handler: Arc::clone(handler),
            has_handler_started: false,
            handler_output: None,
            bytes_read: 0,
        }
    }

    /// Runs the handler to its end, and reads the body chunks that the handler requests.
    pub(crate) async fn run_handler(
        &mut self,
        head: Response,
        mut body: DecodedBody<'_>,
    ) -> Result<(), Error> {
        self.has_handler_started = true;
        let clock = body.record_streaming_start();
        let meter = body.body_meter();
        meter.record_body_start(0, body.decoded_length());
        let is_body_known_to_have_ended = body.is_known_to_have_ended();
        if is_body_known_to_have_ended {
            meter.record_body_end(0);
        }
        let channel = CloseChannelOnDrop(Arc::default());
        let mut response = Some(StreamingResponse::new(
            head,
            body.decoded_length(),
            Arc::clone(&channel.0),
            is_body_known_to_have_ended,
        ));
        let mut future: Option<HandlerFuture> = None;
        let output = poll_fn(|cx| {
            loop {
                let poll = match (&mut future, response.take()) {
                    (Some(future), _) => future.as_mut().poll(cx),
                    (None, Some(response)) => {
                        let (started, poll) = self.handler.start_handler(response, cx);
                        future = started;
                        poll
                    }
                    (None, None) => return Poll::Pending,
                };
                if poll.is_ready() {
                    return poll;
                }
                if channel.0.poll_chunk_requested(cx).is_pending() {
                    // The handler is working on a chunk and has not requested the next one, so no
                    // timeout runs.
                    clock.pause_timeouts(Instant::now());
                    return Poll::Pending;
                }
                if clock.is_paused() {
                    clock.resume_timeouts(Instant::now());
                }
                let (chunk, body_end) = match ready!(body.poll_chunk(cx)) {
                    Some(Ok(chunk)) => {
                        self.bytes_read += chunk.len() as u64;
                        meter.record_received_bytes(self.bytes_read);
                        (Some(chunk), body.is_known_to_have_ended().then_some(Ok(())))
                    }
                    Some(Err(error)) => (None, Some(Err(error))),
                    None => (None, Some(Ok(()))),
                };
                if let Some(Ok(())) = body_end {
                    meter.record_body_end(self.bytes_read);
                }
                channel.0.send(chunk, body_end, cx);
            }
        });
        self.handler_output = Some(output.await?);
        Ok(())
    }
}

/// Closes the channel when the handler has ended or was dropped.
struct CloseChannelOnDrop(Arc<BodyChannel>);

impl Drop for CloseChannelOnDrop {
    fn drop(&mut self) {
        self.0.close_channel();
    }
}
