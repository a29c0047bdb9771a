//! Rewrites the response heads of a connection into a form that hyper accepts.

use std::io;

use tokio::io::ReadBuf;

use super::lenient_head::{HeadError, LenientHeadParser};
use http::HeaderMap;

/// Stands between the stream of an HTTP/1.1 connection and hyper, after hyper has rejected a
/// response head.
///
/// hyper then gets only the status line and the fields that decide where the response ends. All
/// fields are in the `HeaderMap` that [`receive`](Self::receive) returns. Bodies pass unchanged.
///
/// hyper must have sent a request before it accepts a response. So it sends a second request,
/// which is discarded here: the server has received the first one.
#[derive(Debug)]
pub(super) struct LenientReader {
    parser: LenientHeadParser,
    /// Bytes for hyper, of which `output_position` were read.
    output: Vec<u8>,
    output_position: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// hyper has not sent the request that is discarded. No read returns bytes.
    DiscardingRequest,
    /// The head of a response is incomplete.
    ReadingHead,
    /// All bytes pass unchanged: those of a body, and any that arrive before a request is sent.
    PassingThrough,
}

impl LenientReader {
    /// Creates a reader for a connection on which hyper has rejected a head.
    ///
    /// `received` holds the bytes that have arrived, from the first byte of that head.
    pub(super) fn new(received: &[u8]) -> Self {
        let mut parser = LenientHeadParser::default();
        parser.push(received);
        Self {
            parser,
            output: Vec::new(),
            output_position: 0,
            stage: Stage::DiscardingRequest,
        }
    }

    /// Prepares for a write of hyper. Returns whether the bytes must be discarded instead.
    #[cold]
    pub(super) fn discards_write(&mut self, is_first_of_exchange: bool) -> bool {
        match self.stage {
            Stage::DiscardingRequest => {
                self.stage = Stage::ReadingHead;
                return true;
            }
            Stage::PassingThrough if is_first_of_exchange => {
                self.parser.start_response();
                self.stage = Stage::ReadingHead;
            }
            Stage::ReadingHead | Stage::PassingThrough => {}
        }
        false
    }

    /// Whether reads must return `Pending`.
    pub(super) fn is_blocked(&self) -> bool {
        self.stage == Stage::DiscardingRequest
    }

    /// Whether received bytes must be passed to [`receive`](Self::receive).
    pub(super) fn is_reading_head(&self) -> bool {
        self.stage == Stage::ReadingHead
    }

    /// Takes received bytes of a head. Returns the fields of the head once it is complete.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Option<HeaderMap>, HeadError> {
        self.parser.push(bytes);
        let head = self.parser.parse().inspect_err(|_| {
            self.stage = Stage::PassingThrough;
        })?;
        let Some(head) = head else {
            return Ok(None);
        };
        self.stage = Stage::PassingThrough;
        self.output = head.strict_head;
        self.output.append(&mut self.parser.take_rest());
        Ok(Some(head.headers))
    }

    /// Copies bytes for hyper into `buffer`. Returns false if there are none.
    pub(super) fn read_output(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let unread = &self.output[self.output_position..];
        if unread.is_empty() {
            return false;
        }
        let length = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..length]);
        self.output_position += length;
        if self.output_position == self.output.len() {
            self.output = Vec::new();
            self.output_position = 0;
        }
        true
    }
}

impl From<HeadError> for io::Error {
    fn from(error: HeadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
