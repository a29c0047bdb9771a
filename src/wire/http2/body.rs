//! The body of an HTTP/2 response.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::task::coop::poll_proceed;
use tokio::time::Instant;

use super::pool::StreamLease;
use super::upload::{Upload, poll_upload};
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;

/// A response body. It holds its stream until the body ends.
pub(crate) struct Http2Body {
    remaining_length: Option<u64>,
    /// `None` after the end of the body. Boxed because the stream is much larger than an HTTP/1.1
    /// body.
    body_stream: Option<Box<LeasedStream>>,
}

/// The stream of a body. The order of the fields is their drop order, with the lease last.
struct LeasedStream {
    recv_stream: RecvStream,
    /// The unsent rest of the request body, if the response head arrived before the request body
    /// was sent.
    upload: Option<Upload>,
    lease: StreamLease,
}

impl Http2Body {
    pub(super) fn new(
        recv_stream: RecvStream,
        upload: Option<Upload>,
        lease: StreamLease,
        content_length: Option<u64>,
    ) -> Self {
        let mut this = Self {
            remaining_length: content_length,
            body_stream: Some(Box::new(LeasedStream {
                recv_stream,
                upload,
                lease,
            })),
        };
        this.release_stream_if_ended();
        this
    }

    /// Creates the body of a response without content.
    pub(super) fn empty() -> Self {
        Self {
            remaining_length: Some(0),
            body_stream: None,
        }
    }

    pub(in crate::wire) fn remaining_length(&self) -> Option<u64> {
        match self.body_stream {
            Some(_) => self.remaining_length,
            None => Some(0),
        }
    }

    pub(in crate::wire) fn is_known_to_have_ended(&self) -> bool {
        self.body_stream.is_none()
    }

    pub(in crate::wire) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(stream) = &mut self.body_stream else {
            return Poll::Ready(None);
        };
        if let Err(error) = poll_upload(&mut stream.upload, cx, clock) {
            self.body_stream = None;
            return Poll::Ready(Some(Err(error)));
        }
        // The driver task can receive frames as fast as this task takes them, so each frame
        // consumes tokio's cooperative budget.
        let coop_budget = ready!(poll_proceed(cx));
        let frame = ready!(stream.recv_stream.poll_data(cx));
        coop_budget.made_progress();
        let chunk = match frame {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => {
                let error = to_body_error(error, &stream.lease);
                self.body_stream = None;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.body_stream = None;
                return Poll::Ready(None);
            }
        };
        stream.lease.connection_state.count_exchange_progress();
        clock.record_activity(Instant::now());
        // The result is ignored, because releasing capacity fails only on a closed stream.
        let _ = stream
            .recv_stream
            .flow_control()
            .release_capacity(chunk.len());
        self.remaining_length = self
            .remaining_length
            .map(|remaining| remaining.saturating_sub(chunk.len() as u64));
        self.release_stream_if_ended();
        Poll::Ready(Some(Ok(chunk)))
    }

    /// Releases the stream if all of its bytes have been read, so that another request can open a
    /// stream at once.
    fn release_stream_if_ended(&mut self) {
        let stream = self.body_stream.as_ref();
        if stream.is_some_and(|stream| stream.recv_stream.is_end_stream()) {
            self.body_stream = None;
        }
    }
}

fn to_body_error(error: h2::Error, lease: &StreamLease) -> Error {
    use io::ErrorKind::{BrokenPipe, UnexpectedEof};
    match lease.connection_state.local_close_reason() {
        Some((ErrorKind::Closed, reason)) => return Error::new(ErrorKind::Reset, reason),
        Some((kind, reason)) => return Error::new(kind, reason),
        None => {}
    }
    let kind = match error.get_io().map(io::Error::kind) {
        _ if error.is_library() => ErrorKind::Protocol,
        // h2 reports the end of the TCP or TLS stream with one of these error kinds.
        Some(BrokenPipe | UnexpectedEof) => ErrorKind::Truncated,
        _ => ErrorKind::Reset,
    };
    Error::new(kind, error)
}
