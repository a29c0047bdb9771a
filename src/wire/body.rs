//! The body of a response, whatever protocol brings it.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::attempt_clock::AttemptClock;
use super::{connection, http2};
use crate::error::Error;

/// A response's body, which keeps its connection, or its stream of one, until it ends.
///
/// At a clean end the connection goes back to the pool by itself. Dropping the body earlier
/// closes the connection, or resets the stream.
pub(crate) enum IncomingBody {
    Http1(connection::Http1Body),
    Http2(http2::Http2Body),
}

impl IncomingBody {
    /// What is left of the body, if its length is known.
    pub(crate) fn remaining_length(&self) -> Option<u64> {
        match self {
            Self::Http1(incoming) => incoming.remaining_length(),
            Self::Http2(incoming) => incoming.remaining_length(),
        }
    }

    #[cfg(test)]
    pub(crate) async fn chunk(&mut self, clock: &AttemptClock) -> Option<Result<Bytes, Error>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, clock)).await
    }

    /// The next bytes of the body. Trailers are dropped.
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &AttemptClock,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Self::Http1(incoming) => incoming.poll_chunk(cx, clock),
            Self::Http2(incoming) => incoming.poll_chunk(cx, clock),
        }
    }
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody")
            .field("length", &self.remaining_length())
            .finish_non_exhaustive()
    }
}
