//! Deflate data (RFC 1951), as gzip and zlib wrap it.

use flate2::{Decompress, FlushDecompress, Status};

use super::layer::{DecodeError, Transferred};

/// What zlib's decoders hold: a window of 32 KiB and their tables.
pub(super) const INFLATE_MEMORY: usize = 64 << 10;

/// One step, and whether the data have ended.
pub(super) fn inflate(
    inflate: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Transferred, bool), DecodeError> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, output, FlushDecompress::None)
        .map_err(DecodeError::corrupt)?;
    let transferred = Transferred {
        read: (inflate.total_in() - read) as usize,
        written: (inflate.total_out() - written) as usize,
    };
    Ok((transferred, matches!(status, Status::StreamEnd)))
}
