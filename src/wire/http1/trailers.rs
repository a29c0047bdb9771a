//! Skips the trailers that hyper rejects.
//!
//! Trailers are not used, and the body is complete before them (RFC 9112 §8). Therefore invalid
//! trailers do not fail a response. Its connection is closed, because the end of the trailers is
//! uncertain.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::connection::{Connection, DetachedStream};
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;

/// The maximum number of bytes of trailers that are skipped after hyper has rejected the trailers.
const MAX_SKIPPED_TRAILER_BYTES: usize = 64 * 1024;
/// hyper's error message for more than 100 trailers.
const HYPER_TOO_MANY_TRAILERS_MESSAGE: &str = "chunk trailers count overflow";

/// Why hyper rejected the trailers of a complete body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TrailerError {
    /// A trailer is malformed. hyper has read all trailers.
    Malformed,
    /// There are more than 100 trailers. hyper has read only a part of them.
    TooMany,
}

impl TrailerError {
    pub(super) fn from_hyper_error(error: &hyper::Error) -> Option<Self> {
        let io_error: &io::Error = error.source()?.downcast_ref()?;
        let source = io_error.get_ref()?;
        // hyper uses httparse only for the trailers of a body. It parses chunk sizes itself.
        if source.is::<httparse::Error>() {
            Some(Self::Malformed)
        } else if source.to_string() == HYPER_TOO_MANY_TRAILERS_MESSAGE {
            Some(Self::TooMany)
        } else {
            None
        }
    }
}

/// Reads and discards the rest of the trailers of a body.
pub(super) struct TrailerSkipper {
    detached_stream: Box<DetachedStream>,
    is_current_line_empty: bool,
    skipped_bytes: usize,
}

impl Connection {
    /// Separates the byte stream from hyper, which has read the stream to the end of a trailer
    /// line.
    #[cold]
    pub(super) fn start_trailer_skip(&mut self) {
        let skipper = self
            .take_detached_stream()
            .map(|detached_stream| TrailerSkipper {
                detached_stream,
                is_current_line_empty: true,
                skipped_bytes: 0,
            });
        self.trailer_skipper = skipper.map(Box::new);
    }

    /// Discards trailers. Completes when the end of the trailers has been read.
    #[cold]
    pub(super) fn poll_trailer_skip(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
    ) -> Poll<Result<(), Error>> {
        self.io_counts.clear_read_drained();
        match &mut self.trailer_skipper {
            Some(skipper) => skipper.poll_end_of_trailers(cx, clock),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl TrailerSkipper {
    fn poll_end_of_trailers(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
    ) -> Poll<Result<(), Error>> {
        let unparsed_bytes = std::mem::take(&mut self.detached_stream.unparsed_bytes);
        let mut is_end = self.skip_trailer_lines(&unparsed_bytes);
        let mut chunk = [0; 4096];
        while !is_end {
            if self.skipped_bytes > MAX_SKIPPED_TRAILER_BYTES {
                let reason = "more than 64 KiB of trailers";
                return Poll::Ready(Err(Error::new(ErrorKind::Protocol, reason)));
            }
            let Some(stream) = self.detached_stream.stream_mut() else {
                return Poll::Ready(Ok(()));
            };
            let mut buffer = ReadBuf::new(&mut chunk);
            let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
            read.map_err(|error| Error::new(ErrorKind::Reset, error))?;
            let received = buffer.filled();
            if received.is_empty() {
                let reason = "the connection closed within the trailers";
                return Poll::Ready(Err(Error::new(ErrorKind::Truncated, reason)));
            }
            clock.record_activity(Instant::now());
            is_end = self.skip_trailer_lines(received);
        }
        Poll::Ready(Ok(()))
    }

    /// Skips trailer lines. Returns whether the empty line after the last trailer was skipped.
    fn skip_trailer_lines(&mut self, bytes: &[u8]) -> bool {
        self.skipped_bytes += bytes.len();
        for byte in bytes {
            match byte {
                b'\n' if self.is_current_line_empty => return true,
                b'\n' => self.is_current_line_empty = true,
                b'\r' => {}
                _ => self.is_current_line_empty = false,
            }
        }
        false
    }
}
