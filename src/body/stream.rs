//! A file or stream body while it is sent.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::task::coop::poll_proceed;

use super::file;
use super::source::{self, BodySource, ChunkStream};
use crate::error::{BoxError, Error, ErrorKind, panic_message};
use crate::hop_clock::{HopClock, QueueWaitGuard};

/// The error of a body that failed while it was sent.
///
/// The slot is needed because the connection hides the cause: it reports a generic error, a lost
/// connection, or no error at all.
#[derive(Clone, Default)]
pub(crate) struct BodyErrorSlot(Arc<Mutex<Option<Error>>>);

impl BodyErrorSlot {
    pub(crate) fn take_body_error(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_body_error(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// A body that one attempt sends: its chunks and their source.
pub(super) struct BodyStream {
    body_source: BodySource,
    /// `None` after the end of the body. The mutex is never locked. Its only purpose is to make the
    /// body `Sync`, because the user's stream may not be `Sync`.
    remaining_chunks: Mutex<Option<ChunkStream>>,
    was_polled: bool,
    /// The number of bytes that `remaining_chunks` has not yielded yet, if the length of the body
    /// is known.
    remaining_length: Option<u64>,
    /// The last chunk of a body of known length. The chunk is held back until `remaining_chunks`
    /// has ended, so that a stream that is too long is never sent as a complete body.
    held_back_chunk: Option<Bytes>,
    error_slot: Option<BodyErrorSlot>,
}

impl BodyStream {
    pub(super) async fn open_source(
        source: &BodySource,
        error_slot: Option<BodyErrorSlot>,
        clock: &HopClock,
    ) -> Result<Self, Error> {
        let mut stream = match source {
            BodySource::File(path, range) => {
                let _queue_wait = QueueWaitGuard::pause_clock(clock);
                let opened = file::open_chunk_stream(Arc::clone(path), *range).await;
                let (chunks, length) = opened.map_err(unreadable_file_error)?;
                let mut stream = Self::new(source, chunks);
                stream.remaining_length = Some(length);
                stream
            }
            BodySource::OneShotStream { .. } | BodySource::StreamFactory { .. } => {
                Self::open_without_io(source)?
            }
        };
        // The connection never polls an empty body, so this poll checks that the stream is empty.
        if source.announced_length() == Some(0)
            && let Some(Err(error)) = poll_fn(|cx| stream.poll_frame(cx)).await
        {
            return Err(error);
        }
        stream.error_slot = error_slot;
        Ok(stream)
    }

    /// Opens the source without I/O: a file is opened at the first poll, and its length is unknown.
    pub(super) fn open_without_io(source: &BodySource) -> Result<Self, Error> {
        let chunks = match source {
            BodySource::OneShotStream { chunks, .. } => source::lock_one_shot_stream(chunks)
                .take()
                .ok_or_else(stream_already_sent_error)?,
            BodySource::StreamFactory { make_chunks, .. } => make_chunks(),
            BodySource::File(path, range) => {
                file::stream_opened_on_first_poll(Arc::clone(path), *range)
            }
        };
        Ok(Self::new(source, chunks))
    }

    fn new(source: &BodySource, chunks: ChunkStream) -> Self {
        Self {
            body_source: source.clone(),
            remaining_chunks: Mutex::new(Some(chunks)),
            was_polled: false,
            remaining_length: source.announced_length(),
            held_back_chunk: None,
            error_slot: None,
        }
    }

    pub(super) fn body_source(&self) -> &BodySource {
        &self.body_source
    }

    /// The number of bytes left to send, if the length is known.
    pub(super) fn unsent_length(&self) -> Option<u64> {
        let held_back = self.held_back_chunk.as_ref().map_or(0, Bytes::len);
        self.remaining_length
            .map(|unread| unread + held_back as u64)
    }

    fn unread_chunks_mut(&mut self) -> &mut Option<ChunkStream> {
        self.remaining_chunks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls for the next chunk that is not empty.
    ///
    /// Each chunk consumes tokio's cooperative budget, so that a stream that is always ready cannot
    /// block other tasks or the timeouts of its own attempt.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.was_polled = true;
        loop {
            let coop_budget = ready!(poll_proceed(cx));
            let polled = ready!(self.poll_source_chunk(cx));
            coop_budget.made_progress();
            let chunk = match polled {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => match self.count_or_hold_back_chunk(chunk) {
                    Some(accepted) => Some(accepted),
                    None => continue,
                },
                Some(Err(error)) => Some(Err(error)),
                None => self.end_and_check_length(),
            };
            return Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)));
        }
    }

    fn poll_source_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(chunks) = self.unread_chunks_mut() else {
            return Poll::Ready(None);
        };
        // A panic of the user's stream is caught here, because it would otherwise unwind through an
        // HTTP/2 connection that carries other requests.
        let polled = catch_unwind(AssertUnwindSafe(|| chunks.as_mut().poll_next(cx)));
        let error = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(None)) => return Poll::Ready(None),
            Ok(Poll::Ready(Some(Ok(chunk)))) => return Poll::Ready(Some(Ok(chunk))),
            Ok(Poll::Ready(Some(Err(error)))) => match self.body_source {
                BodySource::File(..) => unreadable_file_error(error),
                _ => {
                    Error::new(ErrorKind::RequestBody, error).with_detail("the body stream failed")
                }
            },
            Err(panic) => {
                let message = format!("the body stream: {}", panic_message(&*panic));
                Error::from_kind(ErrorKind::Panicked).with_detail(message)
            }
        };
        Poll::Ready(Some(Err(self.end_with_error(error))))
    }

    /// Subtracts the length of a chunk from the unread length. Returns `None` for the last chunk,
    /// which is held back until the source has ended.
    fn count_or_hold_back_chunk(&mut self, chunk: Bytes) -> Option<Result<Bytes, Error>> {
        let Some(unread) = self.remaining_length else {
            return Some(Ok(chunk));
        };
        let Some(unread_after) = unread.checked_sub(chunk.len() as u64) else {
            let error = self.wrong_length_error("is longer than");
            return Some(Err(self.end_with_error(error)));
        };
        self.remaining_length = Some(unread_after);
        if unread_after > 0 {
            return Some(Ok(chunk));
        }
        self.held_back_chunk = Some(chunk);
        None
    }

    /// Ends the body when the source has ended. Returns the chunk that was held back, or an error
    /// if the source has ended too early.
    fn end_and_check_length(&mut self) -> Option<Result<Bytes, Error>> {
        let is_incomplete = self.remaining_length.is_some_and(|unread| unread > 0);
        if self.unread_chunks_mut().take().is_some() && is_incomplete {
            let error = self.wrong_length_error("is shorter than");
            return Some(Err(self.end_with_error(error)));
        }
        self.held_back_chunk.take().map(Ok)
    }

    fn wrong_length_error(&self, comparison: &str) -> Error {
        let length = self.body_source.announced_length().unwrap_or_default();
        let detail = format!("the body stream {comparison} its announced {length} bytes");
        Error::from_kind(ErrorKind::RequestBody).with_detail(detail)
    }

    /// Ends the body and returns an error for the connection. The cause goes into the error slot,
    /// if the body has one.
    fn end_with_error(&mut self, error: Error) -> Error {
        *self.unread_chunks_mut() = None;
        self.held_back_chunk = None;
        let Some(error_slot) = &self.error_slot else {
            return error;
        };
        let forwarded = Error::from_kind(error.kind());
        error_slot.set_body_error(error);
        forwarded
    }
}

/// When an attempt ends, its stream goes back to the source if the stream was never polled, so that
/// another attempt can send it.
impl Drop for BodyStream {
    fn drop(&mut self) {
        if !self.was_polled
            && let Some(chunks) = self.unread_chunks_mut().take()
        {
            self.body_source.put_back_unpolled(chunks);
        }
    }
}

fn unreadable_file_error(error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::RequestBody, error).with_detail("the body file cannot be read")
}

fn stream_already_sent_error() -> Error {
    Error::from_kind(ErrorKind::InvalidRequest).with_detail(
        "the body is a stream that was sent already; use `Body::factory` to send it again",
    )
}
