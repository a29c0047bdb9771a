//! Streams a body to the user's handler.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::reader::DecodedBody;
use crate::error::{BoxError, Error, ErrorKind};
use crate::response::Response;
use crate::streaming_response::{BodyChannel, StreamingResponse};

/// The value that a handler returned.
pub(crate) type HandlerOutput = Box<dyn Any + Send>;
type HandlerFuture = Pin<Box<dyn Future<Output = Result<HandlerOutput, Error>> + Send>>;

/// The handler of a batch or of a single fetch.
pub(crate) trait BodyHandler: Send + Sync {
    /// Calls the handler and polls its future once. Returns the future, unless the handler is
    /// closed.
    fn start(
        &self,
        response: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>);

    /// Makes every later [`start`](Self::start) fail, and waits for the calls that are running.
    fn close(&self);
}

struct ClosableHandler<F> {
    call: F,
    /// Locked for reading while a call starts, so that `close` waits for it.
    closed: RwLock<bool>,
}

pub(crate) fn boxed_handler<F, A, R, E>(handler: F) -> Arc<dyn BodyHandler>
where
    F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Into<BoxError>,
{
    let call = move |response| -> HandlerFuture {
        let future = handler(response);
        Box::pin(async move {
            match future.await {
                Ok(output) => Ok(Box::new(output) as HandlerOutput),
                Err(error) => Err(handler_error(error.into())),
            }
        })
    };
    Arc::new(ClosableHandler {
        call,
        closed: RwLock::new(false),
    })
}

impl<F: Fn(StreamingResponse) -> HandlerFuture + Send + Sync> BodyHandler for ClosableHandler<F> {
    fn start(
        &self,
        response: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>) {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            let error = Error::from_kind(ErrorKind::Cancelled);
            return (None, Poll::Ready(Err(error)));
        }
        let mut future = (self.call)(response);
        let poll = future.as_mut().poll(cx);
        (Some(future), poll)
    }

    fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Wraps a handler's error, unless it is the error of the body that the handler read. The latter
/// has no URL yet.
fn handler_error(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(body_error) if body_error.url().is_none() => *body_error,
        Ok(other) => Error::new(ErrorKind::Handler, *other),
        Err(other) => Error::new(ErrorKind::Handler, other),
    }
}

/// Streams a body to a handler.
pub(crate) struct HandlerSink {
    handler: Arc<dyn BodyHandler>,
    pub(super) handler_started: bool,
    pub(super) output: Option<HandlerOutput>,
    pub(super) bytes_read: u64,
}

impl HandlerSink {
    pub(super) fn new(handler: &Arc<dyn BodyHandler>) -> Self {
        Self {
            handler: Arc::clone(handler),
            handler_started: false,
            output: None,
            bytes_read: 0,
        }
    }

    /// Runs the handler, and reads the chunks that it requests.
    pub(crate) async fn run(
        &mut self,
        head: Response,
        mut body: DecodedBody<'_>,
    ) -> Result<(), Error> {
        self.handler_started = true;
        let clock = body.start_streaming();
        let channel = CloseOnDrop(Arc::default());
        let mut response = Some(StreamingResponse::new(
            head,
            body.exact_length(),
            Arc::clone(&channel.0),
        ));
        let mut future: Option<HandlerFuture> = None;
        let output = poll_fn(|cx| {
            loop {
                let poll = match (&mut future, response.take()) {
                    (Some(future), _) => future.as_mut().poll(cx),
                    (None, Some(response)) => {
                        let (started, poll) = self.handler.start(response, cx);
                        future = started;
                        poll
                    }
                    (None, None) => return Poll::Pending,
                };
                if poll.is_ready() {
                    return poll;
                }
                if channel.0.poll_chunk_requested(cx).is_pending() {
                    // The handler is working on its last chunk, so no timeout runs.
                    clock.pause(Instant::now());
                    return Poll::Pending;
                }
                if clock.is_paused() {
                    clock.resume(Instant::now());
                }
                match body.poll_chunk(cx) {
                    Poll::Ready(chunk) => {
                        if let Some(Ok(chunk)) = &chunk {
                            self.bytes_read += chunk.len() as u64;
                        }
                        channel.0.send(chunk, cx);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        self.output = Some(output.await?);
        Ok(())
    }
}

/// Closes the channel however the handler ends.
struct CloseOnDrop(Arc<BodyChannel>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
