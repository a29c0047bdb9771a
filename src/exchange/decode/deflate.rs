//! `deflate`: zlib data (RFC 1950) as RFC 9110 §8.4.1.2 has it, or bare deflate data as some servers send them.

use flate2::Decompress;

use super::inflate::{self, inflate};
use super::layer::{Fault, Layer, Moved};

enum Deflate {
    /// Which of the two it is shows in two bytes.
    Start(Option<u8>),
    Data(Decompress),
    End,
}

pub(super) fn layer() -> Box<dyn Layer> {
    Box::new(Deflate::Start(None))
}

impl Layer for Deflate {
    fn step(&mut self, input: &[u8], output: &mut [u8], memory: usize) -> Result<Moved, Fault> {
        if memory < inflate::MEMORY {
            return Err(Fault::Memory);
        }
        match (&mut *self, input) {
            (Deflate::Data(_), _) => self.data(input, output),
            (_, []) => Ok(Moved::default()),
            (Deflate::End, _) => Err(Fault::Trailing),
            (Deflate::Start(None), [first, ..]) => {
                *self = Deflate::Start(Some(*first));
                Ok(Moved {
                    read: 1,
                    written: 0,
                })
            }
            (Deflate::Start(Some(first)), [second, ..]) => {
                let head = [*first, *second];
                *self = Deflate::Data(Decompress::new(is_zlib(head)));
                let moved = self.data(&head, output)?;
                match moved.read {
                    2 => Ok(Moved { read: 1, ..moved }),
                    _ => Err(Fault::corrupt("it ends before it begins")),
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self, Deflate::End)
    }

    fn memory(&self) -> usize {
        match self {
            Deflate::Data(_) => inflate::MEMORY,
            Deflate::Start(_) | Deflate::End => 0,
        }
    }
}

impl Deflate {
    fn data(&mut self, input: &[u8], output: &mut [u8]) -> Result<Moved, Fault> {
        let Deflate::Data(data) = self else {
            return Ok(Moved::default());
        };
        let (moved, ended) = inflate(data, input, output)?;
        if ended {
            *self = Deflate::End;
        }
        Ok(moved)
    }
}

/// Whether these can begin zlib data: the method, a window of at most 32 KiB, and the check (RFC 1950 §2.2). Deflate data
/// begin so only with a stored block whose padding is not zero, which nobody writes.
fn is_zlib([first, second]: [u8; 2]) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]) % 31 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};

    use super::*;

    fn decode(coded: &[u8], chunk: usize) -> Option<Vec<u8>> {
        let mut layer = layer();
        let mut whole = Vec::new();
        let mut output = [0; 64];
        for mut chunk in coded.chunks(chunk) {
            loop {
                let moved = layer.step(chunk, &mut output, usize::MAX).ok()?;
                whole.extend_from_slice(&output[..moved.written]);
                chunk = &chunk[moved.read..];
                if moved == Moved::default() {
                    break;
                }
            }
        }
        layer.is_complete().then_some(whole)
    }

    fn both_forms(data: &[u8], level: u32) -> [Vec<u8>; 2] {
        let level = Compression::new(level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(data).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), level);
        raw.write_all(data).unwrap();
        [zlib.finish().unwrap(), raw.finish().unwrap()]
    }

    #[test]
    fn zlib_and_bare_data_are_told_apart() {
        for level in 0..=9 {
            for data in [&b""[..], b"a", b"abcabcabc", &[7; 5_000], &[b'x'; 70_000]] {
                for coded in both_forms(data, level) {
                    for chunk in [1, 2, 3, coded.len()] {
                        assert!(decode(&coded, chunk).unwrap() == data);
                    }
                    assert_eq!(decode(&coded[..coded.len() - 1], 5), None);
                    assert_eq!(decode(&[&coded[..], b"x"].concat(), 5), None);
                }
            }
        }
    }

    #[test]
    fn a_dictionary_that_nobody_has_is_an_error() {
        assert!(is_zlib([0x78, 0xbb]));
        assert_eq!(
            decode(&[0x78, 0xbb, 1, 2, 3, 4, 0x03, 0x00, 0, 0, 0, 1], 100),
            None
        );
    }
}
