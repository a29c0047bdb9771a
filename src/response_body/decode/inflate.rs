//! Deflate data (RFC 1951), which both gzip and zlib wrap.

use flate2::{Decompress, FlushDecompress, Status};

use super::layer::{DecodeError, Transferred};

/// The memory of an inflate decoder: a window of 32 KiB and its tables.
pub(super) const INFLATE_MEMORY: usize = 64 << 10;

/// Runs one decoding step, and returns whether the data ended.
pub(super) fn inflate(
    decompress: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Transferred, bool), DecodeError> {
    let (read_before, written_before) = (decompress.total_in(), decompress.total_out());
    let status = decompress
        .decompress(input, output, FlushDecompress::None)
        .map_err(DecodeError::corrupt)?;
    let transferred = Transferred {
        read: (decompress.total_in() - read_before) as usize,
        written: (decompress.total_out() - written_before) as usize,
    };
    Ok((transferred, matches!(status, Status::StreamEnd)))
}
