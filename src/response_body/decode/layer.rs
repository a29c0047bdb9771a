//! The interface between the decoder chain and the decoder of one coding.

use std::error::Error as StdError;

/// Decodes one content coding.
pub(super) trait Layer: Send {
    /// Decodes `input` into `output` until one of them is exhausted. A step that transfers nothing
    /// needs more input.
    ///
    /// The layer holds at most `memory_limit` bytes or fails. It must not be called again after an
    /// error.
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<Transferred, DecodeError>;

    /// Whether the input may end here.
    fn is_complete(&self) -> bool;

    /// The bytes of memory that the layer holds.
    fn memory(&self) -> usize;
}

/// The bytes that one step read and wrote.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Transferred {
    pub(super) read: usize,
    pub(super) written: usize,
}

/// Why a layer failed.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The input is not valid in this coding.
    Corrupt(Box<dyn StdError + Send + Sync>),
    /// Input follows the end of the encoded data.
    TrailingData,
    /// The layer needs more memory than its limit.
    MemoryLimit,
}

impl DecodeError {
    pub(super) fn corrupt(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        DecodeError::Corrupt(reason.into())
    }
}
