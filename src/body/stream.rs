//! A file or stream body while it is sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::task::coop::poll_proceed;

use super::file;
use super::source::{self, BodySource, ChunkStream};
use crate::error::{BoxError, Error, ErrorKind, panic_message};

/// The error of a body that failed while it was sent.
///
/// The connection reports a failed body as a generic error, as a lost connection, or not at all if
/// the response has arrived. The slot keeps the cause.
#[derive(Clone, Default)]
pub(crate) struct ErrorSlot(Arc<Mutex<Option<Error>>>);

impl ErrorSlot {
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// A body that one attempt sends: its chunks and their source.
pub(super) struct BodyStream {
    source: BodySource,
    /// `None` after the end of the body. The mutex is never locked. It makes the body `Sync`
    /// although the user's stream may not be `Sync`.
    chunks: Mutex<Option<ChunkStream>>,
    was_polled: bool,
    /// The number of bytes left to send, if the length is known.
    remaining: Option<u64>,
    error_slot: Option<ErrorSlot>,
}

impl BodyStream {
    pub(super) async fn open(
        source: &BodySource,
        error_slot: Option<ErrorSlot>,
    ) -> Result<Self, Error> {
        let mut stream = match source {
            BodySource::File(path) => {
                let (chunks, length) = file::open(Arc::clone(path)).await.map_err(file_error)?;
                let mut stream = Self::new(source, chunks);
                stream.remaining = Some(length);
                stream
            }
            BodySource::Once(_) | BodySource::Factory(_) => Self::open_lazily(source)?,
        };
        stream.error_slot = error_slot;
        Ok(stream)
    }

    /// Opens the source without reading its length.
    pub(super) fn open_lazily(source: &BodySource) -> Result<Self, Error> {
        let chunks = match source {
            BodySource::Once(chunks) => source::lock_chunks(chunks)
                .take()
                .ok_or_else(already_sent_error)?,
            BodySource::Factory(make_chunks) => make_chunks(),
            BodySource::File(path) => file::open_lazily(Arc::clone(path)),
        };
        Ok(Self::new(source, chunks))
    }

    fn new(source: &BodySource, chunks: ChunkStream) -> Self {
        Self {
            source: source.clone(),
            chunks: Mutex::new(Some(chunks)),
            was_polled: false,
            remaining: None,
            error_slot: None,
        }
    }

    pub(super) fn source(&self) -> &BodySource {
        &self.source
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    fn chunks(&mut self) -> &mut Option<ChunkStream> {
        self.chunks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls for the next chunk that is not empty.
    ///
    /// Each chunk consumes tokio's cooperative budget. Otherwise, a stream that is always ready
    /// would block other tasks, and the timeouts of its own attempt.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.was_polled = true;
        loop {
            let coop_budget = ready!(poll_proceed(cx));
            let frame = ready!(self.poll_chunk(cx));
            coop_budget.made_progress();
            match frame {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                frame => return Poll::Ready(frame.map(|chunk| chunk.map(Frame::data))),
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(chunks) = self.chunks() else {
            return Poll::Ready(None);
        };
        // Catches a panic of the user's stream. The worker also catches panics, but an uncaught
        // panic would first unwind through an HTTP/2 connection that carries other requests.
        let polled = catch_unwind(AssertUnwindSafe(|| chunks.as_mut().poll_next(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(Ok(chunk)))) => {
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(chunk.len() as u64);
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Ok(Poll::Ready(None)) => {
                *self.chunks() = None;
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Err(error)))) => self.end_with_error(match self.source {
                BodySource::File(_) => file_error(error),
                _ => {
                    Error::new(ErrorKind::RequestBody, error).with_detail("the body stream failed")
                }
            }),
            Err(panic) => {
                let message = format!("the body stream: {}", panic_message(&*panic));
                self.end_with_error(Error::from_kind(ErrorKind::Panicked).with_detail(message))
            }
        }
    }

    /// Ends the body with an error. If there is an error slot, the slot gets the cause.
    fn end_with_error(&mut self, error: Error) -> Poll<Option<Result<Bytes, Error>>> {
        *self.chunks() = None;
        let Some(error_slot) = &self.error_slot else {
            return Poll::Ready(Some(Err(error)));
        };
        let forwarded = Error::from_kind(error.kind());
        error_slot.set(error);
        Poll::Ready(Some(Err(forwarded)))
    }
}

/// Puts a stream that was never polled back into its source, so that another attempt can send it.
impl Drop for BodyStream {
    fn drop(&mut self) {
        if !self.was_polled
            && let Some(chunks) = self.chunks().take()
        {
            self.source.put_back(chunks);
        }
    }
}

fn file_error(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::RequestBody, error).with_detail("the body file cannot be read")
}

fn already_sent_error() -> Error {
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(
        "the body is a stream that was sent already; use `Body::factory` to send it again",
    )
}
