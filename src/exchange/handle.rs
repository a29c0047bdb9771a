//! A body that a handler reads as it comes.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::reader::Decoded;
use super::verdict::Verdict;
use crate::error::BoxError;
use crate::streaming::Link;
use crate::{Error, ErrorKind, Response, Streaming};

/// What a handler returned.
pub(crate) type Output = Box<dyn Any + Send>;
type Running = Pin<Box<dyn Future<Output = Result<Output, Error>> + Send>>;

/// The handler of a batch or of a single fetch.
pub(crate) trait ReadBody: Send + Sync {
    /// Calls the handler and polls it once; what it then is, unless it is done.
    fn start(
        &self,
        body: Streaming,
        cx: &mut Context<'_>,
    ) -> (Option<Running>, Poll<Result<Output, Error>>);

    /// After this none starts.
    fn close(&self);
}

struct Handler<F> {
    call: F,
    /// Read while the handler begins, so that whoever closes it knows that none begins any more.
    closed: RwLock<bool>,
}

pub(crate) fn handler<F, A, R, E>(call: F) -> Arc<dyn ReadBody>
where
    F: Fn(Streaming) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Into<BoxError>,
{
    let call = move |body| -> Running {
        let answer = call(body);
        Box::pin(async move {
            match answer.await {
                Ok(output) => Ok(Box::new(output) as Output),
                Err(error) => Err(of_handler(error.into())),
            }
        })
    };
    Arc::new(Handler {
        call,
        closed: RwLock::new(false),
    })
}

impl<F: Fn(Streaming) -> Running + Send + Sync> ReadBody for Handler<F> {
    fn start(
        &self,
        body: Streaming,
        cx: &mut Context<'_>,
    ) -> (Option<Running>, Poll<Result<Output, Error>>) {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return (None, Poll::Ready(Err(Error::of(ErrorKind::Cancelled))));
        }
        let mut running = (self.call)(body);
        let polled = running.as_mut().poll(cx);
        (Some(running), polled)
    }

    fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// An error of the body's own, which belongs to no request yet, passes through.
fn of_handler(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(own) if own.url().is_none() => *own,
        Ok(other) => Error::new(ErrorKind::Handler, *other),
        Err(other) => Error::new(ErrorKind::Handler, other),
    }
}

/// A job whose body a handler reads.
pub(crate) struct Handling {
    handler: Arc<dyn ReadBody>,
    /// The handler has the head, so the request is not sent again.
    pub(super) given: bool,
    /// What was made of the head. It is judged once: the handler has acted on it.
    pub(super) verdict: Option<Verdict>,
    pub(super) output: Option<Output>,
    /// How much of the body it was given.
    pub(super) bytes: u64,
}

impl Handling {
    pub(super) fn new(handler: &Arc<dyn ReadBody>) -> Self {
        Self {
            handler: Arc::clone(handler),
            given: false,
            verdict: None,
            output: None,
            bytes: 0,
        }
    }

    /// Runs the handler, and reads what it asks for.
    pub(super) async fn run(
        &mut self,
        head: Response,
        mut reader: Decoded<'_>,
    ) -> Result<(), Error> {
        self.given = true;
        let progress = reader.progress();
        progress.streams();
        let open = Open(Arc::default());
        let mut body = Some(Streaming::new(
            head,
            reader.exact_length(),
            Arc::clone(&open.0),
        ));
        let mut running: Option<Running> = None;
        let output = poll_fn(|cx| {
            loop {
                let polled = match (&mut running, body.take()) {
                    (Some(running), _) => running.as_mut().poll(cx),
                    (None, Some(body)) => {
                        let (begun, polled) = self.handler.start(body, cx);
                        running = begun;
                        polled
                    }
                    (None, None) => return Poll::Pending,
                };
                if polled.is_ready() {
                    return polled;
                }
                if !open.0.is_asked(cx) {
                    // It has what it asked for: what takes its time now is not the peer.
                    progress.hold(Instant::now());
                    return Poll::Pending;
                }
                if progress.is_held() {
                    progress.release(Instant::now());
                }
                match reader.poll_chunk(cx) {
                    Poll::Ready(piece) => {
                        if let Some(Ok(piece)) = &piece {
                            self.bytes += piece.len() as u64;
                        }
                        open.0.give(piece, cx);
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
struct Open(Arc<Link>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}
