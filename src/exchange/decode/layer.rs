//! What every coding's decoder is to the chain.

use std::error::Error as StdError;

/// Undoes one coding.
pub(super) trait Layer: Send {
    /// Reads from `input` and writes to `output` as far as either goes. If neither transferred, it needs more input.
    ///
    /// It holds at most `memory` bytes, or fails. After a failure it is not called again.
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory: usize,
    ) -> Result<Transferred, DecodeError>;

    /// Whether the input may end here.
    fn is_complete(&self) -> bool;

    /// How many bytes it holds now.
    fn memory(&self) -> usize;
}

/// How far a step went.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Transferred {
    pub(super) read: usize,
    pub(super) written: usize,
}

/// Why a layer cannot go on.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The data do not follow the coding.
    Corrupt(Box<dyn StdError + Send + Sync>),
    /// There is more after the end of the data.
    TrailingData,
    /// It would hold more memory than it may.
    MemoryLimit,
}

impl DecodeError {
    pub(super) fn corrupt(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        DecodeError::Corrupt(reason.into())
    }
}
