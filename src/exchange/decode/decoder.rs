//! The chain of layers.

use std::ops::Range;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::super::collect::body_too_large;
use super::super::transport::TransportBody;
use super::codings::{self, Coding};
use super::layer::{DecodeError, Layer};
use crate::{Error, ErrorKind};

/// The most that goes in or out of a layer in one step.
const MAX_STEP_BYTES: usize = 16 << 10;

/// Decodes one body.
pub(in crate::exchange) struct Decoder {
    /// As the data take their way: what was applied last comes first.
    layers: Vec<BufferedLayer>,
    /// What was fed_bytes and not read yet.
    input: Bytes,
    /// How much was fed_bytes.
    fed_bytes: u64,
    cap: u64,
    /// The end of the body is the end of the connection: one that is lost looks the same.
    may_be_truncated: bool,
}

struct BufferedLayer {
    name: &'static str,
    layer: Box<dyn Layer>,
    buffer: Box<[u8]>,
    /// The part of `buffer` that was written and not read yet.
    unread: Range<usize>,
    written: u64,
}

/// What came of a step.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// There is [`output`](Decoder::output).
    Output,
    /// There is more to be done.
    Continue,
    /// All that was fed_bytes has been read.
    NeedsInput,
}

impl Decoder {
    /// What undoes the codings of this response; none if it has no coding, no body, or a coding that is not built in.
    /// With a decoder the head loses what only describes the coded body: `Content-Encoding` and `Content-Length`.
    ///
    /// # Errors
    ///
    /// If there are too many codings.
    pub(in crate::exchange) fn for_response(
        method: &Method,
        head: &mut Parts,
        incoming: &TransportBody,
        cap: u64,
    ) -> Result<Option<Box<Self>>, Error> {
        if !head.headers.contains_key(CONTENT_ENCODING)
            || *method == Method::HEAD
            || incoming.exact_length() == Some(0)
            || !is_complete_representation(head.status)
        {
            return Ok(None);
        }
        let codings = codings::parse_content_encoding(&head.headers)?;
        if codings.is_empty() {
            return Ok(None);
        }
        let mut decoder = Self::new(&codings, cap);
        decoder.may_be_truncated = is_close_delimited(head, incoming);
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        Ok(Some(Box::new(decoder)))
    }

    /// `codings` are in the order in which they were applied.
    pub(super) fn new(codings: &[&'static Coding], cap: u64) -> Self {
        Self {
            layers: codings
                .iter()
                .rev()
                .map(|coding| BufferedLayer::new(coding))
                .collect(),
            input: Bytes::new(),
            fed_bytes: 0,
            cap,
            may_be_truncated: false,
        }
    }

    /// The most that a body within the cap may be in any of its coded forms. Coding makes some data larger, but not by
    /// much; without a bound there would be no end to data that decode to nothing.
    pub(super) fn max_encoded_size(&self) -> u64 {
        let more = (self.cap / 32).saturating_add(64 << 10);
        self.cap.saturating_add(more)
    }

    /// Gives it more to read. It must be hungry.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Result<(), Error> {
        debug_assert!(self.input.is_empty());
        self.fed_bytes = self.fed_bytes.saturating_add(chunk.len() as u64);
        self.input = chunk;
        match self.fed_bytes > self.max_encoded_size() {
            true => Err(body_too_large(self.cap)),
            false => Ok(()),
        }
    }

    /// Moves what can be transferred, through each layer once. What the last step wrote is gone after this.
    ///
    /// The layers may hold `memory` bytes together.
    pub(super) fn advance(&mut self, memory: u64) -> Result<Step, Error> {
        let last = self.layers.len() - 1;
        self.layers[last].unread = 0..0;
        let mut transferred = false;
        // From the end to the beginning, so that a buffer is emptied before it is filled.
        for index in (0..=last).rev() {
            if self.layers[index].unread.is_empty() {
                transferred |= self.step(index, memory)?;
            }
        }
        let max_encoded_size = self.max_encoded_size();
        let between = &self.layers[..last];
        if between.iter().any(|stage| stage.written > max_encoded_size) {
            return Err(body_too_large(self.cap));
        }
        if !self.layers[last].unread.is_empty() {
            Ok(Step::Output)
        } else if transferred {
            Ok(Step::Continue)
        } else if self.input.is_empty() {
            Ok(Step::NeedsInput)
        } else {
            Err(self.layers[0].error(DecodeError::corrupt("its decoder does not go on"), self.cap))
        }
    }

    fn step(&mut self, index: usize, memory: u64) -> Result<bool, Error> {
        let held_by_others = self.memory() - self.layers[index].layer.memory() as u64;
        let memory = usize::try_from(memory.saturating_sub(held_by_others)).unwrap_or(usize::MAX);
        let (before, rest) = self.layers.split_at_mut(index);
        let stage = &mut rest[0];
        let source = match before.last() {
            Some(before) => &before.buffer[before.unread.clone()],
            None => &self.input[..self.input.len().min(MAX_STEP_BYTES)],
        };
        let transferred = stage
            .layer
            .step(source, &mut stage.buffer, memory)
            .map_err(|fault| stage.error(fault, self.cap))?;
        stage.unread = 0..transferred.written;
        stage.written += transferred.written as u64;
        match before.last_mut() {
            Some(before) => before.unread.start += transferred.read,
            None => self.input.advance(transferred.read),
        }
        Ok(transferred.read + transferred.written > 0)
    }

    /// What the last step wrote.
    pub(super) fn output(&self) -> &[u8] {
        self.layers
            .last()
            .map_or(&[], |last| &last.buffer[last.unread.clone()])
    }

    /// What the layers hold, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let layers = self.layers.iter().map(|stage| stage.layer.memory() as u64);
        layers.sum()
    }

    /// The body has ended. It must be hungry.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let unfinished = self.layers.iter().find(|stage| !stage.layer.is_complete());
        match unfinished {
            // Nothing at all is an empty body, however it is said to be coded.
            Some(stage) if self.fed_bytes > 0 => {
                let kind = match self.may_be_truncated {
                    true => ErrorKind::Truncated,
                    false => ErrorKind::ContentEncoding,
                };
                let reason = format!("the {} data end too early", stage.name);
                Err(Error::from_kind(kind).with_detail(reason))
            }
            _ => Ok(()),
        }
    }
}

impl BufferedLayer {
    fn new(coding: &Coding) -> Self {
        Self {
            name: coding.name,
            layer: (coding.layer)(),
            buffer: vec![0; MAX_STEP_BYTES].into(),
            unread: 0..0,
            written: 0,
        }
    }

    fn error(&self, fault: DecodeError, cap: u64) -> Error {
        let name = self.name;
        match fault {
            DecodeError::Corrupt(source) => Error::new(ErrorKind::ContentEncoding, source)
                .with_detail(format!("the {name} data are corrupt")),
            DecodeError::TrailingData => Error::from_kind(ErrorKind::ContentEncoding)
                .with_detail(format!("there is more after the end of the {name} data")),
            DecodeError::MemoryLimit => Error::from_kind(ErrorKind::BodyTooLarge).with_detail(
                format!("to decode {name} takes more memory than a cap of {cap} bytes leaves"),
            ),
        }
    }
}

/// Whether nothing but the end of the connection ends this body (RFC 9112 §6.3).
fn is_close_delimited(head: &Parts, incoming: &TransportBody) -> bool {
    matches!(incoming, TransportBody::Wire(_))
        && head.version <= Version::HTTP_11
        && !head.headers.contains_key(CONTENT_LENGTH)
        && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// A part of a coded body cannot be decoded on its own.
fn is_complete_representation(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
    )
}
