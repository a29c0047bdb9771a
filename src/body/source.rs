//! The source of a body that is not in memory.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use super::file::FileRange;
use crate::error::BoxError;

/// The chunks of one body in order.
pub(super) type ChunkStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

#[derive(Clone)]
pub(super) enum BodySource {
    /// A stream that can be sent once.
    OneShotStream {
        /// `None` after an attempt has taken the stream.
        chunks: Arc<Mutex<Option<ChunkStream>>>,
        length: Option<u64>,
    },
    /// A function that returns a new stream for every attempt.
    StreamFactory {
        make_chunks: Arc<dyn Fn() -> ChunkStream + Send + Sync>,
        length: Option<u64>,
    },
    File(Arc<Path>, FileRange),
}

impl BodySource {
    pub(super) fn one_shot(chunks: ChunkStream, length: Option<u64>) -> Self {
        let chunks = Arc::new(Mutex::new(Some(chunks)));
        Self::OneShotStream { chunks, length }
    }

    pub(super) fn stream_factory<F, S, D, E>(make_stream: F, length: Option<u64>) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        let make_chunks = Arc::new(move || into_chunk_stream(make_stream()));
        Self::StreamFactory {
            make_chunks,
            length,
        }
    }

    /// The length in bytes, if it is known before the body is opened.
    pub(super) fn announced_length(&self) -> Option<u64> {
        match self {
            Self::OneShotStream { length, .. } | Self::StreamFactory { length, .. } => *length,
            Self::File(_, range) => range.length_if_bounded(),
        }
    }

    pub(super) fn is_stream_already_taken(&self) -> bool {
        match self {
            Self::OneShotStream { chunks, .. } => lock_one_shot_stream(chunks).is_none(),
            Self::StreamFactory { .. } | Self::File(..) => false,
        }
    }

    /// Returns a stream that was taken but never polled to this source.
    pub(super) fn put_back_unpolled(&self, unpolled: ChunkStream) {
        if let Self::OneShotStream { chunks, .. } = self {
            *lock_one_shot_stream(chunks) = Some(unpolled);
        }
    }
}

pub(super) fn lock_one_shot_stream(
    chunks: &Mutex<Option<ChunkStream>>,
) -> MutexGuard<'_, Option<ChunkStream>> {
    chunks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Formats the kind of the source, the path of a file, and the length if it is announced.
impl fmt::Debug for BodySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneShotStream { .. } => f.write_str("stream")?,
            Self::StreamFactory { .. } => f.write_str("factory")?,
            Self::File(path, _) => write!(f, "file {path:?}")?,
        }
        match self.announced_length() {
            Some(length) => write!(f, ", {length} bytes"),
            None => Ok(()),
        }
    }
}

pub(super) fn into_chunk_stream<S, D, E>(stream: S) -> ChunkStream
where
    S: Stream<Item = Result<D, E>> + Send + 'static,
    D: Into<Bytes> + 'static,
    E: Into<BoxError> + 'static,
{
    Box::pin(UserChunkStream(Box::pin(stream)))
}

/// A user's stream with its items converted to `Bytes` and boxed errors.
struct UserChunkStream<S>(Pin<Box<S>>);

impl<S, D, E> Stream for UserChunkStream<S>
where
    S: Stream<Item = Result<D, E>>,
    D: Into<Bytes>,
    E: Into<BoxError>,
{
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.0.as_mut().poll_next(cx);
        item.map(|item| item.map(|chunk| chunk.map(D::into).map_err(E::into)))
    }
}
