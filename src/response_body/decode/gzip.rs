//! Decodes the `gzip` coding (RFC 1952): one or more members, each with a checksum.

use flate2::Decompress;

use super::inflate::{INFLATE_MEMORY, inflate};
use super::layer::{DecodeError, DecoderLayer, Transferred};

const WINDOW_BITS: u8 = 15;

/// The first byte of a member's magic number (RFC 1952 §2.3.1).
const MAGIC_BYTE: u8 = 0x1f;

struct Gzip {
    decompress: Decompress,
    position: MemberPosition,
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum MemberPosition {
    BeforeFirst,
    Inside,
    /// A member has ended. Only another member may follow.
    Between,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    Box::new(Gzip {
        decompress: Decompress::new_gzip(WINDOW_BITS),
        position: MemberPosition::BeforeFirst,
    })
}

impl DecoderLayer for Gzip {
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<Transferred, DecodeError> {
        if memory_limit < INFLATE_MEMORY {
            return Err(DecodeError::MemoryLimit);
        }
        match (self.position, input.first()) {
            (MemberPosition::Inside, _) => {}
            (_, None) => return Ok(Transferred::default()),
            (MemberPosition::BeforeFirst, _) => {}
            (MemberPosition::Between, Some(&MAGIC_BYTE)) => self.decompress.reset(true),
            (MemberPosition::Between, Some(_)) => return Err(DecodeError::TrailingData),
        }
        let (transferred, member_ended) = inflate(&mut self.decompress, input, output)?;
        self.position = if member_ended {
            MemberPosition::Between
        } else {
            MemberPosition::Inside
        };
        Ok(transferred)
    }

    fn is_complete(&self) -> bool {
        self.position == MemberPosition::Between
    }

    fn memory_usage(&self) -> usize {
        INFLATE_MEMORY
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::codings;
    use super::super::decoder::{Decoder, StepOutcome};
    use crate::error::{Error, ErrorKind};

    fn member(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(
        layers: usize,
        encoded: &[u8],
        chunk_size: usize,
        max_body_size: u64,
    ) -> Result<Vec<u8>, Error> {
        let gzip = codings::SUPPORTED_CODINGS
            .iter()
            .find(|coding| coding.name == "gzip");
        let mut decoder = Decoder::new(&vec![gzip.unwrap(); layers], max_body_size);
        let mut decoded = Vec::new();
        for chunk in encoded.chunks(chunk_size) {
            decoder.feed(Bytes::copy_from_slice(chunk))?;
            loop {
                match decoder.advance(8 << 20)? {
                    StepOutcome::Output => decoded.extend_from_slice(decoder.output()),
                    StepOutcome::Continue => {}
                    StepOutcome::NeedsInput => break,
                }
            }
        }
        decoder.finish()?;
        Ok(decoded)
    }

    #[test]
    fn several_members_are_concatenated_even_empty_ones() {
        let encoded = [
            member(b"one "),
            member(b""),
            member(b"two "),
            member(b"three"),
        ]
        .concat();
        for chunk_size in [1, 2, 7, encoded.len()] {
            let decoded = decode(1, &encoded, chunk_size, 100).unwrap();
            assert_eq!(decoded, b"one two three");
        }
        for missing in 1..4 {
            let truncated = &encoded[..encoded.len() - missing];
            let error = decode(1, truncated, 3, 100).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContentEncoding);
        }
    }

    #[test]
    fn each_member_checksum_is_verified() {
        let first = member(b"one ");
        let mut encoded = [first.clone(), member(b"two")].concat();
        encoded[first.len() - 8] ^= 1;
        let error = decode(1, &encoded, 100, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
        assert!(error.to_string().contains("gzip"), "{error}");
    }

    #[test]
    fn all_optional_header_fields_are_accepted() {
        let builder = flate2::GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![1; 300])
            .mtime(1);
        let mut encoder = builder.write(Vec::new(), Compression::best());
        encoder.write_all(b"data").unwrap();
        let encoded = encoder.finish().unwrap();
        for chunk_size in [1, encoded.len()] {
            assert_eq!(decode(1, &encoded, chunk_size, 100).unwrap(), b"data");
        }
    }

    #[test]
    fn endless_empty_members_exceed_the_size_limit() {
        let empty_members = member(b"").repeat(30_000);
        let encoded = member(&empty_members);
        assert!(encoded.len() < 10_000);
        let error = decode(2, &encoded, encoded.len(), 1_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
        let error = decode(1, &empty_members, 4096, 1_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
    }
}
