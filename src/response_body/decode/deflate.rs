//! Decodes the `deflate` coding: zlib data (RFC 1950) as RFC 9110 §8.4.1.2 requires, or raw deflate
//! data (RFC 1951), which some servers send instead.

use flate2::Decompress;

use super::inflate::{INFLATE_MEMORY_BYTES, inflate};
use super::layer::{DecodeError, DecoderLayer, Transferred};

enum Deflate {
    /// The decoder collects the first two bytes, which show whether the data is zlib data or raw
    /// deflate data.
    Header(Option<u8>),
    Body(Decompress),
    End,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    Box::new(Deflate::Header(None))
}

impl DecoderLayer for Deflate {
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<Transferred, DecodeError> {
        if memory_limit < INFLATE_MEMORY_BYTES {
            return Err(DecodeError::MemoryLimit);
        }
        match (&mut *self, input) {
            (Deflate::Body(_), _) => self.inflate_body(input, output),
            (_, []) => Ok(Transferred::default()),
            (Deflate::End, _) => Err(DecodeError::TrailingData),
            (Deflate::Header(None), [first, ..]) => {
                *self = Deflate::Header(Some(*first));
                Ok(Transferred {
                    read: 1,
                    written: 0,
                })
            }
            (Deflate::Header(Some(first)), [second, ..]) => {
                let header = [*first, *second];
                *self = Deflate::Body(Decompress::new(is_zlib_header(header)));
                let transferred = self.inflate_body(&header, output)?;
                match transferred.read {
                    // The previous step has already reported the first header byte as read.
                    2 => Ok(Transferred {
                        read: 1,
                        ..transferred
                    }),
                    _ => Err(DecodeError::corrupt("it ends within its first two bytes")),
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self, Deflate::End)
    }

    fn memory_usage(&self) -> usize {
        match self {
            Deflate::Body(_) => INFLATE_MEMORY_BYTES,
            Deflate::Header(_) | Deflate::End => 0,
        }
    }
}

impl Deflate {
    fn inflate_body(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Transferred, DecodeError> {
        let Deflate::Body(decompress) = self else {
            return Ok(Transferred::default());
        };
        let (transferred, ended) = inflate(decompress, input, output)?;
        if ended {
            *self = Deflate::End;
        }
        Ok(transferred)
    }
}

/// Whether two bytes are a zlib header with a valid method, window size and check value (RFC 1950
/// §2.2). Raw deflate data could start with such bytes only as a stored block with padding that is
/// not zero, which no encoder writes.
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
                decoded.extend_from_slice(&output[..transferred.written]);
                chunk = &chunk[transferred.read..];
                if transferred == Transferred::default() {
                    break;
                }
            }
        }
        layer.is_complete().then_some(decoded)
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
