//! Rewrites the response heads of a connection into a form that hyper accepts.

use std::io;

use tokio::io::ReadBuf;

use super::lenient_head::{HeadError, LenientHeadParser};
use http::HeaderMap;

/// A filter between the byte stream of an HTTP/1.1 connection and hyper. It is inserted after hyper
/// has rejected a response head.
///
/// hyper gets a rewritten head, with only the status line and the fields that decide where the
/// response ends. [`receive_head_bytes`](Self::receive_head_bytes) returns all fields. Bodies pass
/// unchanged.
///
/// hyper accepts a response only after it has sent a request. Therefore hyper sends a placeholder
/// request, which the filter discards. The server has already received the real request.
#[derive(Debug)]
pub(super) struct LenientReader {
    parser: LenientHeadParser,
    /// The bytes for hyper to read. The first `rewritten_position` bytes have been read.
    rewritten_bytes: Vec<u8>,
    rewritten_position: usize,
    reader_stage: ReaderStage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReaderStage {
    /// hyper has not sent the placeholder request yet, which will be discarded. Reads return
    /// `Pending`.
    DiscardingPlaceholder,
    /// The head of a response is being read.
    ReadingHead,
    /// All bytes pass unchanged. They belong to a body, or arrive before the next request is sent.
    PassingThrough,
}

impl LenientReader {
    /// Creates a reader for a connection on which hyper has rejected a response head. `received`
    /// holds the bytes that have arrived, from the first byte of this head on.
    pub(super) fn new(received: &[u8]) -> Self {
        let mut parser = LenientHeadParser::default();
        parser.push_bytes(received);
        Self {
            parser,
            rewritten_bytes: Vec::new(),
            rewritten_position: 0,
            reader_stage: ReaderStage::DiscardingPlaceholder,
        }
    }

    /// Called before hyper writes. Returns true if the bytes to write must be discarded.
    #[cold]
    pub(super) fn advance_stage_before_write(&mut self, is_first_of_exchange: bool) -> bool {
        match self.reader_stage {
            ReaderStage::DiscardingPlaceholder => {
                self.reader_stage = ReaderStage::ReadingHead;
                return true;
            }
            ReaderStage::PassingThrough if is_first_of_exchange => {
                self.parser.reset_for_next_response();
                self.reader_stage = ReaderStage::ReadingHead;
            }
            ReaderStage::ReadingHead | ReaderStage::PassingThrough => {}
        }
        false
    }

    /// Whether reads must return `Pending`, because hyper has not sent its placeholder request yet.
    pub(super) fn blocks_reads(&self) -> bool {
        self.reader_stage == ReaderStage::DiscardingPlaceholder
    }

    /// Whether received bytes belong to a head, and must be passed to
    /// [`receive_head_bytes`](Self::receive_head_bytes).
    pub(super) fn is_reading_head(&self) -> bool {
        self.reader_stage == ReaderStage::ReadingHead
    }

    /// Parses received bytes of a head. Returns the fields of the head once it is complete.
    pub(super) fn receive_head_bytes(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<HeaderMap>, HeadError> {
        self.parser.push_bytes(bytes);
        let head = self.parser.parse().inspect_err(|_| {
            self.reader_stage = ReaderStage::PassingThrough;
        })?;
        let Some(head) = head else {
            return Ok(None);
        };
        self.reader_stage = ReaderStage::PassingThrough;
        self.rewritten_bytes = head.strict_head;
        self.rewritten_bytes
            .append(&mut self.parser.take_bytes_after_head());
        Ok(Some(head.headers))
    }

    /// Copies rewritten bytes to `buffer`. Returns false if there are none.
    pub(super) fn read_rewritten(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let unread = &self.rewritten_bytes[self.rewritten_position..];
        if unread.is_empty() {
            return false;
        }
        let length = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..length]);
        self.rewritten_position += length;
        if self.rewritten_position == self.rewritten_bytes.len() {
            self.rewritten_bytes = Vec::new();
            self.rewritten_position = 0;
        }
        true
    }
}

impl From<HeadError> for io::Error {
    fn from(error: HeadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
