//! The decoder of one body: a chain of layers, one per content coding.

use std::ops::Range;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::super::size_limit::body_too_large_error;
use super::super::transport_body::TransportBody;
use super::codings::{self, Coding};
use super::layer::{DecodeError, DecoderLayer};
use crate::error::{Error, ErrorKind};

/// The maximum number of bytes that a layer reads in one step. The maximum number that it writes is
/// the same.
const MAX_STEP_BYTES: usize = 16 << 10;

/// Decodes the content codings of one body.
pub(crate) struct Decoder {
    /// The layers in decoding order. The first layer decodes the coding that the server applied
    /// last.
    layers: Vec<BufferedLayer>,
    /// Encoded bytes that were fed and that the first layer has not read yet.
    unread_encoded_input: Bytes,
    fed_byte_count: u64,
    max_body_size: u64,
    /// Whether the end of the connection marks the end of the body. If so, a lost connection looks
    /// like the end of the body.
    is_close_delimited: bool,
}

/// A layer and its output buffer.
struct BufferedLayer {
    coding_name: &'static str,
    layer: Box<dyn DecoderLayer>,
    output_buffer: Box<[u8]>,
    /// The part of `output_buffer` that is not read yet. The reader is the next layer or, for the
    /// last layer, the caller.
    unread_output_range: Range<usize>,
    total_output_bytes: u64,
}

/// The result of one decoding step.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum StepOutcome {
    /// The step has produced decoded data, which is in [`step_output`](Decoder::step_output).
    ProducedOutput,
    /// Another step is needed to produce output.
    NeedsAnotherStep,
    /// The layers have decoded all input that the caller has fed.
    NeedsInput,
}

impl Decoder {
    /// Creates the decoder for a response. Returns `None` if the response has no content coding, no
    /// body, or an unsupported coding.
    ///
    /// If a decoder is returned, `Content-Encoding` and `Content-Length` are removed from the head,
    /// because these headers describe the encoded body.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::ContentEncoding`] if the response has too many codings.
    pub(crate) fn for_response(
        method: &Method,
        head: &mut Parts,
        body: &TransportBody,
        max_body_size: u64,
    ) -> Result<Option<Box<Self>>, Error> {
        if !head.headers.contains_key(CONTENT_ENCODING)
            || *method == Method::HEAD
            || body.exact_body_length() == Some(0)
            || !status_has_complete_body(head.status)
        {
            return Ok(None);
        }
        let codings = codings::parse_content_encoding(&head.headers)?;
        if codings.is_empty() {
            return Ok(None);
        }
        let mut decoder = Self::new(&codings, max_body_size);
        decoder.is_close_delimited = is_close_delimited(head, body);
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        Ok(Some(Box::new(decoder)))
    }

    /// `codings` are in the order in which the server applied them.
    pub(super) fn new(codings: &[&'static Coding], max_body_size: u64) -> Self {
        Self {
            layers: codings
                .iter()
                .rev()
                .map(|coding| BufferedLayer::new(coding))
                .collect(),
            unread_encoded_input: Bytes::new(),
            fed_byte_count: 0,
            max_body_size,
            is_close_delimited: false,
        }
    }

    /// The maximum size of the encoded data that each layer reads. This is slightly more than the
    /// body size limit, because encoding can enlarge data. Without this maximum, input that decodes
    /// to nothing could continue forever.
    pub(super) fn max_encoded_size_per_layer(&self) -> u64 {
        let overhead = (self.max_body_size / 32).saturating_add(64 << 10);
        self.max_body_size.saturating_add(overhead)
    }

    /// Supplies encoded data. Call only after [`StepOutcome::NeedsInput`].
    pub(super) fn feed_encoded_chunk(&mut self, chunk: Bytes) -> Result<(), Error> {
        debug_assert!(self.unread_encoded_input.is_empty());
        self.fed_byte_count = self.fed_byte_count.saturating_add(chunk.len() as u64);
        self.unread_encoded_input = chunk;
        if self.fed_byte_count > self.max_encoded_size_per_layer() {
            return Err(body_too_large_error(self.max_body_size));
        }
        Ok(())
    }

    /// Runs each layer at most once. Discards the output of the previous step.
    ///
    /// The layers together hold at most `memory_limit` bytes.
    pub(super) fn run_decoding_step(&mut self, memory_limit: u64) -> Result<StepOutcome, Error> {
        let last = self.layers.len() - 1;
        self.layers[last].unread_output_range = 0..0;
        let mut made_progress = false;
        // The layers run from last to first: each layer reads its input buffer before the previous
        // layer fills that buffer again.
        for index in (0..=last).rev() {
            if self.layers[index].unread_output_range.is_empty() {
                made_progress |= self.run_layer_step(index, memory_limit)?;
            }
        }
        let max_encoded_size = self.max_encoded_size_per_layer();
        let intermediate = &self.layers[..last];
        if intermediate
            .iter()
            .any(|layer| layer.total_output_bytes > max_encoded_size)
        {
            return Err(body_too_large_error(self.max_body_size));
        }
        if !self.layers[last].unread_output_range.is_empty() {
            Ok(StepOutcome::ProducedOutput)
        } else if made_progress {
            Ok(StepOutcome::NeedsAnotherStep)
        } else if self.unread_encoded_input.is_empty() {
            Ok(StepOutcome::NeedsInput)
        } else {
            let stalled = DecodeError::corrupt_input("the decoder made no progress");
            Err(self.layers[0].to_crate_error(stalled, self.max_body_size))
        }
    }

    /// Runs one layer, and returns whether the layer has read or written anything.
    fn run_layer_step(&mut self, index: usize, memory_limit: u64) -> Result<bool, Error> {
        let other_layers_memory =
            self.memory_usage() - self.layers[index].layer.memory_usage() as u64;
        let memory_limit = memory_limit.saturating_sub(other_layers_memory);
        let memory_limit = usize::try_from(memory_limit).unwrap_or(usize::MAX);
        let (previous_layers, rest) = self.layers.split_at_mut(index);
        let current = &mut rest[0];
        let input = match previous_layers.last() {
            Some(previous) => &previous.output_buffer[previous.unread_output_range.clone()],
            None => {
                &self.unread_encoded_input[..self.unread_encoded_input.len().min(MAX_STEP_BYTES)]
            }
        };
        let transferred = current
            .layer
            .decode_step(input, &mut current.output_buffer, memory_limit)
            .map_err(|error| current.to_crate_error(error, self.max_body_size))?;
        current.unread_output_range = 0..transferred.written_byte_count;
        current.total_output_bytes += transferred.written_byte_count as u64;
        match previous_layers.last_mut() {
            Some(previous) => previous.unread_output_range.start += transferred.read_byte_count,
            None => self
                .unread_encoded_input
                .advance(transferred.read_byte_count),
        }
        Ok(transferred.read_byte_count + transferred.written_byte_count > 0)
    }

    /// The decoded data that the last step produced.
    pub(super) fn step_output(&self) -> &[u8] {
        self.layers.last().map_or(&[], |last| {
            &last.output_buffer[last.unread_output_range.clone()]
        })
    }

    /// The number of bytes of memory that all layers hold.
    pub(super) fn memory_usage(&self) -> u64 {
        let layers = self.layers.iter();
        layers.map(|layer| layer.layer.memory_usage() as u64).sum()
    }

    /// Checks that the encoded data is complete. Call only after [`StepOutcome::NeedsInput`].
    pub(super) fn check_input_complete(&self) -> Result<(), Error> {
        let incomplete = self
            .layers
            .iter()
            .find(|layer| !layer.layer.is_input_complete());
        match incomplete {
            // A server may state a coding for an empty body. A body without bytes is accepted as an
            // empty body, unless the end of the connection marks the end of the body: it may then
            // be truncated.
            Some(layer) if self.fed_byte_count > 0 || self.is_close_delimited => {
                let kind = if self.is_close_delimited {
                    ErrorKind::Truncated
                } else {
                    ErrorKind::ContentEncoding
                };
                let reason = format!("the {} data ended too early", layer.coding_name);
                Err(Error::from_kind(kind).with_detail(reason))
            }
            _ => Ok(()),
        }
    }
}

impl BufferedLayer {
    fn new(coding: &Coding) -> Self {
        Self {
            coding_name: coding.name,
            layer: (coding.new_layer)(),
            output_buffer: vec![0; MAX_STEP_BYTES].into(),
            unread_output_range: 0..0,
            total_output_bytes: 0,
        }
    }

    fn to_crate_error(&self, error: DecodeError, max_body_size: u64) -> Error {
        let name = self.coding_name;
        match error {
            DecodeError::CorruptInput(source) => Error::new(ErrorKind::ContentEncoding, source)
                .with_detail(format!("the {name} data is corrupt")),
            DecodeError::TrailingData => Error::from_kind(ErrorKind::ContentEncoding)
                .with_detail(format!("data follows the end of the {name} data")),
            DecodeError::MemoryLimitExceeded => Error::from_kind(ErrorKind::BodyTooLarge)
                .with_detail(format!(
                    "the {name} decoder needs more memory than the body size limit of \
                     {max_body_size} bytes leaves"
                )),
        }
    }
}

/// Whether the end of the connection marks the end of the body (RFC 9112 §6.3).
fn is_close_delimited(head: &Parts, body: &TransportBody) -> bool {
    matches!(body, TransportBody::Wire(_))
        && head.version <= Version::HTTP_11
        && !head.headers.contains_key(CONTENT_LENGTH)
        && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// Whether a response with this status has a complete body. A 206 response has only a part of the
/// body, which cannot be decoded alone.
fn status_has_complete_body(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
    )
}
