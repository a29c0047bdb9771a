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
/// read it. Nothing is read from the connection that the handler has not asked for, so a body of any length takes the
/// memory of one piece; a piece that is to be kept should be copied, since it may be a slice of a larger buffer.
///
/// It belongs to its handler: when that has returned, it gives an error.
///
/// ```
/// use fanout::{Result, Streaming};
///
/// async fn lines(mut page: Streaming) -> Result<usize> {
///     let mut lines = 0;
///     while let Some(chunk) = page.next().await {
///         lines += chunk?.iter().filter(|byte| **byte == b'\n').count();
///     }
///     Ok(lines)
/// }
/// ```
#[must_use = "the body is not read by itself"]
pub struct Streaming {
    /// Without its body.
    head: Response,
    length: Option<u64>,
    link: Arc<Link>,
}

impl Streaming {
    pub(crate) fn new(head: Response, length: Option<u64>, link: Arc<Link>) -> Self {
        Self { head, length, link }
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
        let mut error = Error::of(ErrorKind::Status).because(status.to_string());
        error.set_response(self.head);
        Err(error)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// As for a body that is kept: [`ErrorKind::Reset`], [`ErrorKind::Truncated`] and so on, once. The handler may
    /// return it as it is. [`ErrorKind::Cancelled`] if its handler has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, no byte is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.link.poll_next(cx)).await
    }
}

impl Stream for Streaming {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.link.poll_next(cx)
    }
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming")
            .field("head", &self.head)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Between the handler, which asks for pieces of a body, and the worker, which reads them.
///
/// The worker polls both; but a handler may read in another task, so each leaves its waker for the other.
#[derive(Default)]
pub(crate) struct Link(Mutex<Handover>);

#[derive(Default)]
struct Handover {
    asked: bool,
    /// None inside is the end of the body.
    given: Option<Option<Result<Bytes>>>,
    ended: bool,
    /// The worker no longer reads.
    closed: bool,
    handler: Option<Waker>,
    worker: Option<Waker>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let mut handover = self.lock();
        if let Some(given) = handover.given.take() {
            handover.ended = !matches!(given, Some(Ok(_)));
            return Poll::Ready(given);
        }
        if handover.ended {
            return Poll::Ready(None);
        }
        if handover.closed {
            handover.ended = true;
            let late = Error::of(ErrorKind::Cancelled).because("its handler has ended");
            return Poll::Ready(Some(Err(late)));
        }
        handover.asked = true;
        handover.handler = Some(cx.waker().clone());
        let worker = handover.worker.take();
        drop(handover);
        if let Some(worker) = worker.filter(|worker| !worker.will_wake(cx.waker())) {
            worker.wake();
        }
        Poll::Pending
    }

    /// Whether the handler waits for a piece. If not, the worker is woken when it does.
    pub(crate) fn is_asked(&self, cx: &Context<'_>) -> bool {
        let mut handover = self.lock();
        if !handover.asked {
            handover.worker = Some(cx.waker().clone());
        }
        handover.asked
    }

    /// Hands over what was asked for. The worker polls the handler after this, so only another task is woken.
    pub(crate) fn give(&self, piece: Option<Result<Bytes>>, cx: &Context<'_>) {
        let mut handover = self.lock();
        handover.asked = false;
        handover.given = Some(piece);
        let handler = handover.handler.take();
        drop(handover);
        if let Some(handler) = handler.filter(|handler| !handler.will_wake(cx.waker())) {
            handler.wake();
        }
    }

    pub(crate) fn close(&self) {
        let mut handover = self.lock();
        handover.closed = true;
        let handler = handover.handler.take();
        drop(handover);
        if let Some(handler) = handler {
            handler.wake();
        }
    }
}
