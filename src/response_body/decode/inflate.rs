//! Decodes deflate data (RFC 1951), which gzip and zlib contain.

use flate2::{Decompress, FlushDecompress, Status};

use super::layer::{DecodeError, TransferredBytes};

/// The memory of an inflate decoder, in bytes: a window of 32 KiB, and tables.
pub(super) const INFLATE_MEMORY_BYTES: usize = 64 << 10;

/// Runs one decoding step. The returned flag is true at the end of the deflate data.
pub(super) fn inflate_step(
    decompress: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(TransferredBytes, bool), DecodeError> {
    let (read_before, written_before) = (decompress.total_in(), decompress.total_out());
    let status = decompress
        .decompress(input, output, FlushDecompress::None)
        .map_err(DecodeError::corrupt_input)?;
    let transferred = TransferredBytes {
        read_byte_count: (decompress.total_in() - read_before) as usize,
        written_byte_count: (decompress.total_out() - written_before) as usize,
    };
    Ok((transferred, matches!(status, Status::StreamEnd)))
}
