//! The body of a response, whatever protocol brings it.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::progress::Progress;
use super::{connection, http2};
use crate::error::Error;

/// A response's body, which keeps its connection, or its stream of one, until it ends.
///
/// At a clean end the connection goes back to the pool by itself. Dropping the body earlier
/// closes the connection, or resets the stream.
pub(crate) enum Incoming {
    Http1(connection::Incoming),
    Http2(http2::Incoming),
}

impl Incoming {
    /// What is left of the body, if its length is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Http1(incoming) => incoming.length(),
            Self::Http2(incoming) => incoming.length(),
        }
    }

    #[cfg(test)]
    pub(crate) async fn chunk(&mut self, progress: &Progress) -> Option<Result<Bytes, Error>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, progress)).await
    }

    /// The next bytes of the body. Trailers are dropped.
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Self::Http1(incoming) => incoming.poll_chunk(cx, progress),
            Self::Http2(incoming) => incoming.poll_chunk(cx, progress),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}
