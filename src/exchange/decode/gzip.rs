//! gzip (RFC 1952): one member or several, each with its checksum.

use flate2::Decompress;

use super::inflate::{INFLATE_MEMORY, inflate};
use super::layer::{DecodeError, Layer, Transferred};

const WINDOW_BITS: u8 = 15;

struct Gzip {
    inflate: Decompress,
    member_state: MemberState,
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum MemberState {
    BeforeFirst,
    Inside,
    /// After a member: another may follow, and nothing else.
    After,
}

pub(super) fn new_layer() -> Box<dyn Layer> {
    Box::new(Gzip {
        inflate: Decompress::new_gzip(WINDOW_BITS),
        member_state: MemberState::BeforeFirst,
    })
}

impl Layer for Gzip {
    fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        memory: usize,
    ) -> Result<Transferred, DecodeError> {
        if memory < INFLATE_MEMORY {
            return Err(DecodeError::MemoryLimit);
        }
        match (self.member_state, input.first()) {
            (MemberState::Inside, _) => {}
            (_, None) => return Ok(Transferred::default()),
            (MemberState::BeforeFirst, _) => {}
            (MemberState::After, Some(0x1f)) => self.inflate.reset(true),
            (MemberState::After, Some(_)) => return Err(DecodeError::TrailingData),
        }
        let (transferred, ended) = inflate(&mut self.inflate, input, output)?;
        self.member_state = if ended {
            MemberState::After
        } else {
            MemberState::Inside
        };
        Ok(transferred)
    }

    fn is_complete(&self) -> bool {
        self.member_state == MemberState::After
    }

    fn memory(&self) -> usize {
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
    use super::super::decoder::{Decoder, Step};
    use crate::{Error, ErrorKind};

    fn member(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(layers: usize, coded: &[u8], chunk: usize, cap: u64) -> Result<Vec<u8>, Error> {
        let gzip = codings::SUPPORTED_CODINGS
            .iter()
            .find(|coding| coding.name == "gzip");
        let mut decoder = Decoder::new(&vec![gzip.unwrap(); layers], cap);
        let mut whole = Vec::new();
        for chunk in coded.chunks(chunk) {
            decoder.feed(Bytes::copy_from_slice(chunk))?;
            loop {
                match decoder.advance(8 << 20)? {
                    Step::Output => whole.extend_from_slice(decoder.output()),
                    Step::Continue => {}
                    Step::NeedsInput => break,
                }
            }
        }
        decoder.finish()?;
        Ok(whole)
    }

    #[test]
    fn members_follow_one_another_even_empty_ones() {
        let coded = [
            member(b"one "),
            member(b""),
            member(b"two "),
            member(b"three"),
        ]
        .concat();
        for chunk in [1, 2, 7, coded.len()] {
            assert_eq!(decode(1, &coded, chunk, 100).unwrap(), b"one two three");
        }
        for cut in 1..4 {
            let error = decode(1, &coded[..coded.len() - cut], 3, 100).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContentEncoding);
        }
    }

    #[test]
    fn every_member_has_its_own_checksum() {
        let first = member(b"one ");
        let mut coded = [first.clone(), member(b"two")].concat();
        coded[first.len() - 8] ^= 1;
        let error = decode(1, &coded, 100, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ContentEncoding);
        assert!(error.to_string().contains("gzip"), "{error}");
    }

    #[test]
    fn a_header_with_everything_in_it_is_read() {
        let coded = flate2::GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![1; 300])
            .mtime(1);
        let mut coded = coded.write(Vec::new(), Compression::best());
        coded.write_all(b"data").unwrap();
        let coded = coded.finish().unwrap();
        for chunk in [1, coded.len()] {
            assert_eq!(decode(1, &coded, chunk, 100).unwrap(), b"data");
        }
    }

    #[test]
    fn members_that_hold_nothing_come_to_an_end() {
        let nothing = member(b"").repeat(30_000);
        let coded = member(&nothing);
        assert!(coded.len() < 10_000);
        let error = decode(2, &coded, coded.len(), 1_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
        let error = decode(1, &nothing, 4096, 1_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BodyTooLarge);
    }
}
