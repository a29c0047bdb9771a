//! A body on its way out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::file;
use super::source::{self, Chunks, Source};
use crate::error::panic_message;
use crate::{Error, ErrorKind};

/// Where a body leaves word of what went wrong with it.
///
/// Whoever sends it reports a failed body in a way of its own, or as a lost connection, or not at all if the answer is
/// already there.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

pub(super) struct Sending {
    source: Source,
    /// None at its end. In a mutex that is never locked: a request is shared among threads, and a stream need not be.
    chunks: Mutex<Option<Chunks>>,
    is_touched: bool,
    left: Option<u64>,
    failure: Option<Failure>,
}

impl Sending {
    pub(super) async fn open(source: &Source, failure: Option<Failure>) -> Result<Self, Error> {
        let mut sending = match source {
            Source::File(path) => {
                let (chunks, length) = file::open(Arc::clone(path)).await.map_err(of_file)?;
                let mut sending = Self::new(source, chunks);
                sending.left = Some(length);
                sending
            }
            Source::Once(_) | Source::Made(_) => Self::unopened(source)?,
        };
        sending.failure = failure;
        Ok(sending)
    }

    /// The body, without asking for its length.
    pub(super) fn unopened(source: &Source) -> Result<Self, Error> {
        let chunks = match source {
            Source::Once(chunks) => source::lock(chunks).take().ok_or_else(spent)?,
            Source::Made(make) => make(),
            Source::File(path) => file::unopened(Arc::clone(path)),
        };
        Ok(Self::new(source, chunks))
    }

    fn new(source: &Source, chunks: Chunks) -> Self {
        Self {
            source: source.clone(),
            chunks: Mutex::new(Some(chunks)),
            is_touched: false,
            left: None,
            failure: None,
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    fn chunks(&mut self) -> &mut Option<Chunks> {
        self.chunks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.is_touched = true;
        let Some(chunks) = self.chunks() else {
            return Poll::Ready(None);
        };
        // Caught here, and not only by the worker: it must not unwind through what others have on the same connection.
        let polled = catch_unwind(AssertUnwindSafe(|| chunks.as_mut().poll_next(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(Ok(chunk)))) => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(chunk.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Ok(Poll::Ready(None)) => {
                *self.chunks() = None;
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Err(error)))) => self.fail(match self.source {
                Source::File(_) => of_file(error),
                _ => Error::new(ErrorKind::RequestBody, error).because("its stream failed"),
            }),
            Err(panic) => {
                let message = format!("the stream of the body: {}", panic_message(&*panic));
                self.fail(Error::of(ErrorKind::Panicked).because(message))
            }
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        *self.chunks() = None;
        let Some(failure) = &self.failure else {
            return Poll::Ready(Some(Err(error)));
        };
        let told = Error::of(error.kind());
        failure.put(error);
        Poll::Ready(Some(Err(told)))
    }
}

/// A stream that nobody has asked for anything can still be sent.
impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_touched
            && let Some(chunks) = self.chunks().take()
        {
            self.source.give_back(chunks);
        }
    }
}

fn of_file(error: impl Into<super::BoxError>) -> Error {
    Error::new(ErrorKind::RequestBody, error).because("its file cannot be read")
}

fn spent() -> Error {
    Error::of(ErrorKind::InvalidRequest).because(
        "its body is a stream that has been sent already; `Body::factory` can be sent again",
    )
}
