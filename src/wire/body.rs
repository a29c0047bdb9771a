//! The body of a response, over HTTP/1.1 or HTTP/2.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::http1::{Http1Body, StickyConnection};
use super::http2::Http2Body;
use crate::error::Error;
use crate::hop_clock::HopClock;

/// A response body. It holds its HTTP/1.1 connection or its HTTP/2 stream until the body ends.
///
/// At the end of the body, the worker keeps its HTTP/1.1 connection for the next exchange
/// ([`StickyConnection`]), or the connection returns to the pool. Dropping the body earlier closes
/// the connection, or resets the HTTP/2 stream.
pub(crate) enum IncomingBody {
    Http1(Http1Body),
    Http2(Http2Body),
}

impl IncomingBody {
    /// The number of body bytes that have not been read yet, or `None` if the length is unknown.
    pub(crate) fn remaining_length(&self) -> Option<u64> {
        match self {
            Self::Http1(body) => body.remaining_length(),
            Self::Http2(body) => body.remaining_length(),
        }
    }

    /// Whether the body has ended or failed.
    pub(crate) fn is_known_to_have_ended(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_known_to_have_ended(),
            Self::Http2(body) => body.is_known_to_have_ended(),
        }
    }

    #[cfg(test)]
    pub(crate) async fn next_chunk(
        &mut self,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Option<Result<Bytes, Error>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, clock, sticky_connection)).await
    }

    /// Polls for the next chunk of data. Skips trailers.
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Self::Http1(body) => body.poll_chunk(cx, clock, sticky_connection),
            Self::Http2(body) => body.poll_chunk(cx, clock),
        }
    }
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody")
            .field("remaining_length", &self.remaining_length())
            .finish_non_exhaustive()
    }
}
