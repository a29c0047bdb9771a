//! Decodes the `gzip` coding (RFC 1952): one or more members, each with a checksum.
//!
//! Zero bytes may follow the last member, as padding up to the size of a block. They are ignored,
//! as in gzip(1).

use flate2::Decompress;

use super::inflate::{INFLATE_MEMORY_BYTES, inflate_step};
use super::layer::{DecodeError, DecoderLayer, TransferredBytes};

const WINDOW_BITS: u8 = 15;

/// The first byte of a member's magic number (RFC 1952 §2.3.1).
const FIRST_MAGIC_BYTE: u8 = 0x1f;

struct GzipLayer {
    inflate_state: Decompress,
    member_position: MemberPosition,
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum MemberPosition {
    BeforeFirstMember,
    InsideMember,
    /// A member has ended. Only another member or zero bytes may follow.
    MemberEnded,
    /// The input has reached the padding after the last member. Only zero bytes may follow.
    TrailingZeros,
}

pub(super) fn new_layer() -> Box<dyn DecoderLayer> {
    Box::new(GzipLayer {
        inflate_state: Decompress::new_gzip(WINDOW_BITS),
        member_position: MemberPosition::BeforeFirstMember,
    })
}

impl DecoderLayer for GzipLayer {
    fn decode_step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory_limit: usize,
    ) -> Result<TransferredBytes, DecodeError> {
        if memory_limit < INFLATE_MEMORY_BYTES {
            return Err(DecodeError::MemoryLimitExceeded);
        }
        match (self.member_position, input.first()) {
            (MemberPosition::InsideMember, _) => {}
            (_, None) => return Ok(TransferredBytes::default()),
            (MemberPosition::BeforeFirstMember, _) => {}
            (MemberPosition::MemberEnded, Some(&FIRST_MAGIC_BYTE)) => {
                self.inflate_state.reset(true);
            }
            (MemberPosition::MemberEnded | MemberPosition::TrailingZeros, Some(0)) => {
                self.member_position = MemberPosition::TrailingZeros;
                return Ok(TransferredBytes {
                    read_byte_count: input.iter().take_while(|byte| **byte == 0).count(),
                    written_byte_count: 0,
                });
            }
            (MemberPosition::MemberEnded | MemberPosition::TrailingZeros, Some(_)) => {
                return Err(DecodeError::TrailingData);
            }
        }
        let (transferred, member_ended) = inflate_step(&mut self.inflate_state, input, output)?;
        self.member_position = if member_ended {
            MemberPosition::MemberEnded
        } else {
            MemberPosition::InsideMember
        };
        Ok(transferred)
    }

    fn is_input_complete(&self) -> bool {
        matches!(
            self.member_position,
            MemberPosition::MemberEnded | MemberPosition::TrailingZeros
        )
    }

    fn memory_usage(&self) -> usize {
        INFLATE_MEMORY_BYTES
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
            decoder.feed_encoded_chunk(Bytes::copy_from_slice(chunk))?;
            loop {
                match decoder.run_decoding_step(8 << 20)? {
                    StepOutcome::ProducedOutput => decoded.extend_from_slice(decoder.step_output()),
                    StepOutcome::NeedsAnotherStep => {}
                    StepOutcome::NeedsInput => break,
                }
            }
        }
        decoder.check_input_complete()?;
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
    fn only_zero_bytes_may_follow_the_last_member() {
        let members = [member(b"one "), member(b"two")].concat();
        for (trailing, is_accepted) in [
            (&b""[..], true),
            (b"\0", true),
            (&[0; 511], true),
            (&[0; 40_000], true),
            (b"\0\0x", false),
            (b"x\0\0", false),
            (b"\0\x1f", false),
            (b"\x1f\0", false),
            (b"\x1f", false),
            (b"\n", false),
            (&[&[0; 512][..], &member(b"three")].concat(), false),
        ] {
            let encoded = [&members, trailing].concat();
            for chunk_size in [1, 5, members.len(), encoded.len()] {
                match decode(1, &encoded, chunk_size, 100_000) {
                    Ok(decoded) => assert!(is_accepted && decoded == b"one two", "{trailing:?}"),
                    Err(error) => {
                        assert!(!is_accepted, "{trailing:?} {error}");
                        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
                    }
                }
            }
        }
        // The padding of an inner layer is not data for the outer layer.
        let nested = [member(&[&members[..], &[0; 20]].concat()), vec![0; 20]].concat();
        assert_eq!(decode(2, &nested, 3, 100).unwrap(), b"one two");
    }

    #[test]
    fn zero_bytes_before_the_first_member_are_an_error() {
        let encoded = [&[0; 4][..], &member(b"one")].concat();
        let error = decode(1, &encoded, 3, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
    }

    #[test]
    fn endless_padding_exceeds_the_size_limit() {
        let encoded = [member(b"one"), vec![0; 200_000]].concat();
        let error = decode(1, &encoded, 4096, 1_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
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
