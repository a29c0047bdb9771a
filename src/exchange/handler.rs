//! A body that a handler reads as it comes.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::decision::HopDecision;
use super::reader::DecodedBody;
use crate::error::BoxError;
use crate::streaming_response::BodyChannel;
use crate::{Error, ErrorKind, Response, StreamingResponse};

/// What a handler returned.
pub(crate) type HandlerOutput = Box<dyn Any + Send>;
type HandlerFuture = Pin<Box<dyn Future<Output = Result<HandlerOutput, Error>> + Send>>;

/// The handler of a batch or of a single fetch.
pub(crate) trait BodyHandler: Send + Sync {
    /// Calls the handler and polls it once; what it then is, unless it is done.
    fn start(
        &self,
        body: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>);

    /// After this none starts.
    fn close(&self);
}

struct ClosableHandler<F> {
    call: F,
    /// Read while the handler begins, so that whoever closes it knows that none begins any more.
    closed: RwLock<bool>,
}

pub(crate) fn boxed_handler<F, A, R, E>(call: F) -> Arc<dyn BodyHandler>
where
    F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Into<BoxError>,
{
    let call = move |body| -> HandlerFuture {
        let future = call(body);
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
        body: StreamingResponse,
        cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>) {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return (
                None,
                Poll::Ready(Err(Error::from_kind(ErrorKind::Cancelled))),
            );
        }
        let mut future = (self.call)(body);
        let polled = future.as_mut().poll(cx);
        (Some(future), polled)
    }

    fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// An error of the body's own, which belongs to no request yet, passes through.
fn handler_error(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(own) if own.url().is_none() => *own,
        Ok(other) => Error::new(ErrorKind::Handler, *other),
        Err(other) => Error::new(ErrorKind::Handler, other),
    }
}

/// A job whose body a handler reads.
pub(crate) struct HandlerSink {
    handler: Arc<dyn BodyHandler>,
    /// The handler has the head, so the request is not sent again.
    pub(super) handler_started: bool,
    /// What was made of the head. It is judged once: the handler has acted on it.
    pub(super) decision: Option<HopDecision>,
    pub(super) output: Option<HandlerOutput>,
    /// How much of the body it was handler_started.
    pub(super) bytes_read: u64,
}

impl HandlerSink {
    pub(super) fn new(handler: &Arc<dyn BodyHandler>) -> Self {
        Self {
            handler: Arc::clone(handler),
            handler_started: false,
            decision: None,
            output: None,
            bytes_read: 0,
        }
    }

    /// Runs the handler, and reads what it asks for.
    pub(super) async fn run(
        &mut self,
        head: Response,
        mut reader: DecodedBody<'_>,
    ) -> Result<(), Error> {
        self.handler_started = true;
        let clock = reader.clock();
        clock.start_streaming();
        let channel = CloseOnDrop(Arc::default());
        let mut body = Some(StreamingResponse::new(
            head,
            reader.exact_length(),
            Arc::clone(&channel.0),
        ));
        let mut future: Option<HandlerFuture> = None;
        let output = poll_fn(|cx| {
            loop {
                let polled = match (&mut future, body.take()) {
                    (Some(future), _) => future.as_mut().poll(cx),
                    (None, Some(body)) => {
                        let (started, polled) = self.handler.start(body, cx);
                        future = started;
                        polled
                    }
                    (None, None) => return Poll::Pending,
                };
                if polled.is_ready() {
                    return polled;
                }
                if !channel.0.poll_requested(cx) {
                    // It has what it asked for: what takes its time now is not the peer.
                    clock.pause(Instant::now());
                    return Poll::Pending;
                }
                if clock.is_paused() {
                    clock.resume(Instant::now());
                }
                match reader.poll_chunk(cx) {
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

/// Closed however the handler ends.
struct CloseOnDrop(Arc<BodyChannel>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
