//! Decodes the `deflate` coding: zlib data (RFC 1950) as RFC 9110 §8.4.1.2 requires, or raw deflate
//! data (RFC 1951), which some servers send instead.

use flate2::Decompress;

use super::inflate::{INFLATE_MEMORY_BYTES, inflate_step};
use super::layer::{DecodeError, DecoderLayer, TransferredBytes};

enum DeflateLayer {
    /// The decoder collects the first two bytes, which show whether the data is zlib data or raw
    /// deflate data.
    InHeader(Option<u8>),
    InBody(Decompress),
    Ended,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    Box::new(DeflateLayer::InHeader(None))
}

impl DecoderLayer for DeflateLayer {
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<TransferredBytes, DecodeError> {
        if memory_limit < INFLATE_MEMORY_BYTES {
            return Err(DecodeError::MemoryLimitExceeded);
        }
        match (&mut *self, input) {
            (DeflateLayer::InBody(_), _) => self.inflate_step_of_body(input, output),
            (_, []) => Ok(TransferredBytes::default()),
            (DeflateLayer::Ended, _) => Err(DecodeError::TrailingData),
            (DeflateLayer::InHeader(None), [first, ..]) => {
                *self = DeflateLayer::InHeader(Some(*first));
                Ok(TransferredBytes {
                    read_byte_count: 1,
                    written_byte_count: 0,
                })
            }
            (DeflateLayer::InHeader(Some(first)), [second, ..]) => {
                let header = [*first, *second];
                *self = DeflateLayer::InBody(Decompress::new(is_zlib_header(header)));
                let transferred = self.inflate_step_of_body(&header, output)?;
                match transferred.read_byte_count {
                    // The previous step has already reported the first header byte as read.
                    2 => Ok(TransferredBytes {
                        read_byte_count: 1,
                        ..transferred
                    }),
                    _ => Err(DecodeError::corrupt_input(
                        "it ends within its first two bytes",
                    )),
                }
            }
        }
    }

    fn is_input_complete(&self) -> bool {
        matches!(self, DeflateLayer::Ended)
    }

    fn memory_usage(&self) -> usize {
        match self {
            DeflateLayer::InBody(_) => INFLATE_MEMORY_BYTES,
            DeflateLayer::InHeader(_) | DeflateLayer::Ended => 0,
        }
    }
}

impl DeflateLayer {
    fn inflate_step_of_body(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<TransferredBytes, DecodeError> {
        let DeflateLayer::InBody(decompress) = self else {
            return Ok(TransferredBytes::default());
        };
        let (transferred, ended) = inflate_step(decompress, input, output)?;
        if ended {
            *self = DeflateLayer::Ended;
        }
        Ok(transferred)
    }
}

/// Whether two bytes are a zlib header with a valid method, window size and check value (RFC 1950
/// §2.2). Raw deflate data begins with such bytes only if it begins with a stored block whose
/// padding is not zero, which no encoder writes.
fn is_zlib_header([first, second]: [u8; 2]) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]) % 31 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};

    use super::*;

    fn decode(encoded: &[u8], chunk_size: usize) -> Option<Vec<u8>> {
        let mut layer = new_layer();
        let mut decoded = Vec::new();
        let mut output = [0; 64];
        for mut chunk in encoded.chunks(chunk_size) {
            loop {
                let transferred = layer.decode_step(chunk, &mut output, usize::MAX).ok()?;
                decoded.extend_from_slice(&output[..transferred.written_byte_count]);
                chunk = &chunk[transferred.read_byte_count..];
                if transferred == TransferredBytes::default() {
                    break;
                }
            }
        }
        layer.is_input_complete().then_some(decoded)
    }

    fn zlib_and_raw(data: &[u8], level: u32) -> [Vec<u8>; 2] {
        let level = Compression::new(level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(data).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), level);
        raw.write_all(data).unwrap();
        [zlib.finish().unwrap(), raw.finish().unwrap()]
    }

    #[test]
    fn zlib_and_raw_deflate_are_distinguished() {
        for level in 0..=9 {
            for data in [&b""[..], b"a", b"abcabcabc", &[7; 5_000], &[b'x'; 70_000]] {
                for encoded in zlib_and_raw(data, level) {
                    for chunk_size in [1, 2, 3, encoded.len()] {
                        assert!(decode(&encoded, chunk_size).unwrap() == data);
                    }
                    assert_eq!(decode(&encoded[..encoded.len() - 1], 5), None);
                    assert_eq!(decode(&[&encoded[..], b"x"].concat(), 5), None);
                }
            }
        }
    }

    #[test]
    fn preset_dictionary_is_an_error() {
        assert!(is_zlib_header([0x78, 0xbb]));
        assert_eq!(
            decode(&[0x78, 0xbb, 1, 2, 3, 4, 0x03, 0x00, 0, 0, 0, 1], 100),
            None
        );
    }
}
