//! The chain without sockets. Bodies over the network, and bombs, are in the integration tests.

use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::codings::{Coding, SUPPORTED_CODINGS};
use super::decoder::{Decoder, Step};
use crate::{Error, ErrorKind};

const CAP: u64 = 1 << 20;
const MEMORY: u64 = 64 << 20;

fn encode(coding: &str, data: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let level = flate2::Compression::new(6);
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut coded = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut coded, 4096, 5, 22);
            encoder.write_all(data).unwrap();
            drop(encoder);
            coded
        }
        "zstd" => {
            let mut context = zstd_safe::CCtx::create();
            let checksum = zstd_safe::CParameter::ChecksumFlag(true);
            context.set_parameter(checksum).unwrap();
            let mut coded = vec![0; zstd_safe::compress_bound(data.len())];
            let length = context.compress2(&mut coded[..], data).unwrap();
            coded.truncate(length);
            coded
        }
        other => panic!("no encoder for {other}"),
    }
}

fn encode_all(codings: &[&'static Coding], data: &[u8]) -> Vec<u8> {
    let encoded = |data: Vec<u8>, coding: &&Coding| encode(coding.name, &data);
    codings.iter().fold(data.to_vec(), encoded)
}

fn decode<'a>(
    codings: &[&'static Coding],
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, Error> {
    decode_within(codings, chunks, CAP, MEMORY)
}

fn decode_within<'a>(
    codings: &[&'static Coding],
    chunks: impl IntoIterator<Item = &'a [u8]>,
    cap: u64,
    memory: u64,
) -> Result<Vec<u8>, Error> {
    let mut decoder = Decoder::new(codings, cap);
    let mut whole = Vec::new();
    for chunk in chunks {
        decoder.feed(Bytes::copy_from_slice(chunk))?;
        loop {
            match decoder.advance(memory)? {
                Step::Output => whole.extend_from_slice(decoder.output()),
                Step::Continue => {}
                Step::NeedsInput => break,
            }
            assert!(decoder.memory() <= memory.max(256 << 10));
        }
    }
    decoder.finish()?;
    Ok(whole)
}

/// Bytes that can be compressed, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let word = |_| ["one ", "two ", "three ", "four ", "\n"][random.usize(..5)];
    let mut text: Vec<u8> = (0..length).map(word).flat_map(str::bytes).collect();
    text.truncate(length);
    text
}

fn kind(result: Result<Vec<u8>, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn each_coding_is_undone_from_one_chunk_and_byte_by_byte() {
    for coding in SUPPORTED_CODINGS {
        for length in [0, 1, 2, 300, 70_000, 300_000] {
            let data = text(length);
            let coded = encode(coding.name, &data);
            let whole = decode(&[coding], [&coded[..]]).unwrap();
            assert!(whole == data, "{} {length}", coding.name);
            let bytes = decode(&[coding], coded.chunks(1)).unwrap();
            assert!(bytes == data, "{} {length}", coding.name);
        }
    }
}

#[test]
fn up_to_five_layers_are_undone() {
    let data = text(50_000);
    for layers in 1..=5 {
        let codings: Vec<_> = SUPPORTED_CODINGS.iter().cycle().take(layers).collect();
        let coded = encode_all(&codings, &data);
        assert!(decode(&codings, [&coded[..]]).unwrap() == data, "{layers}");
        assert!(
            decode(&codings, coded.chunks(7)).unwrap() == data,
            "{layers}"
        );
    }
}

proptest! {
    #[test]
    fn any_data_in_any_codings_and_chunks_come_back(
        data in prop::collection::vec(any::<u8>(), 0..2_000),
        times in 1usize..40,
        codings in prop::collection::vec(select((0..SUPPORTED_CODINGS.len()).collect::<Vec<_>>()), 1..=5),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let codings: Vec<_> = codings.into_iter().map(|index| &SUPPORTED_CODINGS[index]).collect();
        let data = data.repeat(times);
        let coded = encode_all(&codings, &data);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(coded.len() + 1)).collect();
        cuts.extend([0, coded.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|ends| &coded[ends[0]..ends[1]]);
        prop_assert!(decode(&codings, chunks).unwrap() == data);
    }

    #[test]
    fn what_is_not_coded_is_an_error_and_never_a_panic(
        data in prop::collection::vec(any::<u8>(), 1..500),
        coding in 0..SUPPORTED_CODINGS.len(),
    ) {
        // Random bytes may be valid now and then; they must only do no harm.
        let _ = decode(&[&SUPPORTED_CODINGS[coding]], [&data[..]]);
    }
}

#[test]
fn a_body_of_no_bytes_is_empty_however_it_is_coded() {
    for coding in SUPPORTED_CODINGS {
        assert!(decode(&[coding, coding], []).unwrap().is_empty());
        assert!(decode(&[coding], [&b""[..]]).unwrap().is_empty());
    }
}

#[test]
fn every_early_end_is_an_error() {
    for coding in SUPPORTED_CODINGS {
        for codings in [&[coding][..], &[coding, coding]] {
            let coded = encode_all(codings, &text(300));
            for end in 1..coded.len() {
                let result = decode(codings, [&coded[..end]]);
                let what = format!("{} {end}", coding.name);
                assert_eq!(kind(result), Some(ErrorKind::ContentEncoding), "{what}");
                let result = decode(codings, coded[..end].chunks(1));
                assert_eq!(kind(result), Some(ErrorKind::ContentEncoding), "{what}");
            }
        }
    }
}

#[test]
fn an_inner_layer_that_ends_early_is_an_error_although_the_outer_one_is_whole() {
    for coding in SUPPORTED_CODINGS {
        let inner = encode(coding.name, &text(300));
        for end in 0..inner.len() {
            let coded = encode(coding.name, &inner[..end]);
            let result = decode(&[coding, coding], [&coded[..]]);
            assert_eq!(
                kind(result),
                Some(ErrorKind::ContentEncoding),
                "{}",
                coding.name
            );
        }
    }
}

#[test]
fn data_after_the_end_are_an_error() {
    for coding in SUPPORTED_CODINGS {
        for more in [
            &b"\0"[..],
            b"x",
            b"\x1fx",
            b"\x28\xb5\x2f",
            &[0; 64],
            b"<html>",
        ] {
            let mut coded = encode(coding.name, &text(300));
            let whole = coded.len();
            coded.extend_from_slice(more);
            for chunks in [vec![&coded[..]], vec![&coded[..whole], more]] {
                let result = decode(&[coding], chunks);
                assert_eq!(
                    kind(result),
                    Some(ErrorKind::ContentEncoding),
                    "{}",
                    coding.name
                );
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let data = text(200);
    for coding in SUPPORTED_CODINGS {
        let coded = encode(coding.name, &data);
        for bit in 0..coded.len() * 8 {
            let mut flipped = coded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = decode(&[coding], [&flipped[..]]);
            // Brotli has no checksum: there it must only do no harm.
            if coding.name != "br"
                && let Ok(decoded) = result
            {
                assert!(decoded == data, "{} {bit}", coding.name);
            }
        }
    }
}

#[test]
fn a_wrong_checksum_at_the_end_is_an_error() {
    for coding in SUPPORTED_CODINGS
        .iter()
        .filter(|coding| coding.name != "br")
    {
        let mut coded = encode(coding.name, &text(5_000));
        // gzip's last four bytes are the length.
        for back in 1..=4 {
            let index = coded.len() - back;
            coded[index] ^= 0x10;
            let result = decode(&[coding], [&coded[..]]);
            assert_eq!(
                kind(result),
                Some(ErrorKind::ContentEncoding),
                "{}",
                coding.name
            );
            coded[index] ^= 0x10;
        }
    }
}

#[test]
fn a_layer_between_may_be_little_larger_than_the_cap() {
    let cap = 300_000;
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(cap).collect();
    for coding in SUPPORTED_CODINGS {
        let codings = [coding; 5];
        let coded = encode_all(&codings, &data);
        let decoded = decode_within(&codings, [&coded[..]], cap as u64, MEMORY);
        assert!(decoded.unwrap() == data, "{}", coding.name);

        let result = decode_within(&codings, [&coded[..]], 1_000, MEMORY);
        assert_eq!(kind(result), Some(ErrorKind::BodyTooLarge));
    }
}

#[test]
fn whatever_memory_there_is_a_decoder_keeps_within_it_or_fails() {
    let data = text(400_000);
    for coding in SUPPORTED_CODINGS {
        let coded = encode(coding.name, &data);
        let mut failures = 0;
        for step in 0..400 {
            match decode_within(&[coding], [&coded[..]], CAP, step * 4096) {
                Ok(decoded) => assert!(decoded == data, "{}", coding.name),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BodyTooLarge, "{error:?}");
                    failures += 1;
                }
            }
        }
        assert!((1..400).contains(&failures), "{} {failures}", coding.name);
    }
}
