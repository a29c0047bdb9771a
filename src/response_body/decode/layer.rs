//! The interface between the decoder chain and the decoder of one coding.

use std::error::Error as StdError;

/// Decodes one content coding.
pub(super) trait DecoderLayer: Send {
    /// Decodes `input` into `output` until `input` is empty or `output` is full. If the returned
    /// counts are both zero, the layer needs more input.
    ///
    /// A layer that would need more than `memory_limit` bytes fails. After an error, `decode_step`
    /// must not be called again.
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<TransferredBytes, DecodeError>;

    /// Whether the input that the layer has read is complete encoded data.
    fn is_input_complete(&self) -> bool;

    /// The number of bytes of memory that the layer holds.
    fn memory_usage(&self) -> usize;
}

/// The number of bytes that one step has read and written.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TransferredBytes {
    pub(super) read_byte_count: usize,
    pub(super) written_byte_count: usize,
}

/// The reason why a layer failed.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The input is not valid in this coding.
    CorruptInput(Box<dyn StdError + Send + Sync>),
    /// Input follows the end of the encoded data.
    TrailingData,
    /// The layer needs more memory than its limit.
    MemoryLimitExceeded,
}

impl DecodeError {
    pub(super) fn corrupt_input(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        DecodeError::CorruptInput(reason.into())
    }
}
