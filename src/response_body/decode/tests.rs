//! Tests of the decoder chain without sockets. Integration tests cover bodies over the network and
//! decompression bombs.

use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::codings::{Coding, SUPPORTED_CODINGS};
use super::decoder::{Decoder, StepOutcome};
use crate::error::{Error, ErrorKind};

const MAX_BODY_SIZE: u64 = 1 << 20;
const MEMORY_LIMIT: u64 = 64 << 20;

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
            let mut encoded = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
            encoder.write_all(data).unwrap();
            drop(encoder);
            encoded
        }
        "zstd" => {
            let mut context = zstd_safe::CCtx::create();
            let checksum = zstd_safe::CParameter::ChecksumFlag(true);
            context.set_parameter(checksum).unwrap();
            let mut encoded = vec![0; zstd_safe::compress_bound(data.len())];
            let length = context.compress2(&mut encoded[..], data).unwrap();
            encoded.truncate(length);
            encoded
        }
        other => panic!("no encoder for {other}"),
    }
}

fn encode_all(codings: &[&'static Coding], data: &[u8]) -> Vec<u8> {
    let encode_layer = |data: Vec<u8>, coding: &&Coding| encode(coding.name, &data);
    codings.iter().fold(data.to_vec(), encode_layer)
}

fn decode<'a>(
    codings: &[&'static Coding],
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, Error> {
    decode_within(codings, chunks, MAX_BODY_SIZE, MEMORY_LIMIT)
}

fn decode_within<'a>(
    codings: &[&'static Coding],
    chunks: impl IntoIterator<Item = &'a [u8]>,
    max_body_size: u64,
    memory_limit: u64,
) -> Result<Vec<u8>, Error> {
    let mut decoder = Decoder::new(codings, max_body_size);
    let mut decoded = Vec::new();
    for chunk in chunks {
        decoder.feed_encoded_chunk(Bytes::copy_from_slice(chunk))?;
        loop {
            match decoder.run_decoding_step(memory_limit)? {
                StepOutcome::ProducedOutput => decoded.extend_from_slice(decoder.step_output()),
                StepOutcome::NeedsAnotherStep => {}
                StepOutcome::NeedsInput => break,
            }
            assert!(decoder.memory_usage() <= memory_limit.max(256 << 10));
        }
    }
    decoder.check_input_complete()?;
    Ok(decoded)
}

/// Moderately compressible text.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let word = |_| ["one ", "two ", "three ", "four ", "\n"][random.usize(..5)];
    let mut text: Vec<u8> = (0..length).map(word).flat_map(str::bytes).collect();
    text.truncate(length);
    text
}

fn error_kind(result: Result<Vec<u8>, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn each_coding_is_decoded_from_one_chunk_and_byte_by_byte() {
    for coding in SUPPORTED_CODINGS {
        for length in [0, 1, 2, 300, 70_000, 300_000] {
            let data = text(length);
            let encoded = encode(coding.name, &data);
            let from_one_chunk = decode(&[coding], [&encoded[..]]).unwrap();
            assert!(from_one_chunk == data, "{} {length}", coding.name);
            let from_bytes = decode(&[coding], encoded.chunks(1)).unwrap();
            assert!(from_bytes == data, "{} {length}", coding.name);
        }
    }
}

#[test]
fn up_to_five_nested_codings_are_decoded() {
    let data = text(50_000);
    for layers in 1..=5 {
        let codings: Vec<_> = SUPPORTED_CODINGS.iter().cycle().take(layers).collect();
        let encoded = encode_all(&codings, &data);
        assert!(
            decode(&codings, [&encoded[..]]).unwrap() == data,
            "{layers}"
        );
        assert!(
            decode(&codings, encoded.chunks(7)).unwrap() == data,
            "{layers}"
        );
    }
}

proptest! {
    #[test]
    fn any_data_survives_any_codings_and_chunk_sizes(
        data in prop::collection::vec(any::<u8>(), 0..2_000),
        repetitions in 1usize..40,
        codings in prop::collection::vec(
            select((0..SUPPORTED_CODINGS.len()).collect::<Vec<_>>()),
            1..=5,
        ),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let codings: Vec<_> = codings.into_iter().map(|index| &SUPPORTED_CODINGS[index]).collect();
        let data = data.repeat(repetitions);
        let encoded = encode_all(&codings, &data);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(encoded.len() + 1)).collect();
        cuts.extend([0, encoded.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|ends| &encoded[ends[0]..ends[1]]);
        prop_assert!(decode(&codings, chunks).unwrap() == data);
    }

    #[test]
    fn random_input_never_panics(
        data in prop::collection::vec(any::<u8>(), 1..500),
        coding in 0..SUPPORTED_CODINGS.len(),
    ) {
        // Random bytes are occasionally valid, so the result is not checked.
        let _ = decode(&[&SUPPORTED_CODINGS[coding]], [&data[..]]);
    }
}

#[test]
fn body_without_bytes_is_empty_in_every_coding() {
    for coding in SUPPORTED_CODINGS {
        assert!(decode(&[coding, coding], []).unwrap().is_empty());
        assert!(decode(&[coding], [&b""[..]]).unwrap().is_empty());
    }
}

#[test]
fn truncated_data_is_an_error_at_every_length() {
    for coding in SUPPORTED_CODINGS {
        for codings in [&[coding][..], &[coding, coding]] {
            let encoded = encode_all(codings, &text(300));
            for end in 1..encoded.len() {
                let case = format!("{} {end}", coding.name);
                let result = decode(codings, [&encoded[..end]]);
                assert_eq!(
                    error_kind(result),
                    Some(ErrorKind::ContentEncoding),
                    "{case}"
                );
                let result = decode(codings, encoded[..end].chunks(1));
                assert_eq!(
                    error_kind(result),
                    Some(ErrorKind::ContentEncoding),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn truncated_inner_layer_is_an_error_even_if_the_outer_layer_is_complete() {
    for coding in SUPPORTED_CODINGS {
        let inner = encode(coding.name, &text(300));
        for end in 0..inner.len() {
            let encoded = encode(coding.name, &inner[..end]);
            let result = decode(&[coding, coding], [&encoded[..]]);
            assert_eq!(
                error_kind(result),
                Some(ErrorKind::ContentEncoding),
                "{}",
                coding.name
            );
        }
    }
}

#[test]
fn trailing_data_is_an_error() {
    for coding in SUPPORTED_CODINGS {
        for trailing in [
            &b"\0"[..],
            b"x",
            b"\x1fx",
            b"\x28\xb5\x2f",
            &[0; 64],
            b"<html>",
        ] {
            // Padding with zero bytes is part of gzip data in practice.
            if coding.name == "gzip" && trailing.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut encoded = encode(coding.name, &text(300));
            let encoded_length = encoded.len();
            encoded.extend_from_slice(trailing);
            for chunks in [
                vec![&encoded[..]],
                vec![&encoded[..encoded_length], trailing],
            ] {
                let result = decode(&[coding], chunks);
                assert_eq!(
                    error_kind(result),
                    Some(ErrorKind::ContentEncoding),
                    "{}",
                    coding.name
                );
            }
        }
    }
}

#[test]
fn flipped_bit_is_an_error_or_leaves_the_data_unchanged() {
    let data = text(200);
    for coding in SUPPORTED_CODINGS {
        let encoded = encode(coding.name, &data);
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = decode(&[coding], [&flipped[..]]);
            // Brotli has no checksum, so its output may differ.
            if coding.name != "br"
                && let Ok(decoded) = result
            {
                assert!(decoded == data, "{} {bit}", coding.name);
            }
        }
    }
}

#[test]
fn wrong_checksum_at_the_end_is_an_error() {
    for coding in SUPPORTED_CODINGS
        .iter()
        .filter(|coding| coding.name != "br")
    {
        let mut encoded = encode(coding.name, &text(5_000));
        // The last four bytes of gzip data are its length.
        for distance_from_end in 1..=4 {
            let index = encoded.len() - distance_from_end;
            encoded[index] ^= 0x10;
            let result = decode(&[coding], [&encoded[..]]);
            assert_eq!(
                error_kind(result),
                Some(ErrorKind::ContentEncoding),
                "{}",
                coding.name
            );
            encoded[index] ^= 0x10;
        }
    }
}

#[test]
fn intermediate_layer_may_slightly_exceed_the_size_limit() {
    let max_body_size = 300_000;
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(max_body_size)
        .collect();
    for coding in SUPPORTED_CODINGS {
        let codings = [coding; 5];
        let encoded = encode_all(&codings, &data);
        let decoded = decode_within(&codings, [&encoded[..]], max_body_size as u64, MEMORY_LIMIT);
        assert!(decoded.unwrap() == data, "{}", coding.name);

        let result = decode_within(&codings, [&encoded[..]], 1_000, MEMORY_LIMIT);
        assert_eq!(error_kind(result), Some(ErrorKind::BodyTooLarge));
    }
}

#[test]
fn decoder_stays_within_memory_limit_or_fails() {
    let data = text(400_000);
    for coding in SUPPORTED_CODINGS {
        let encoded = encode(coding.name, &data);
        let mut failures = 0;
        for pages in 0..400 {
            match decode_within(&[coding], [&encoded[..]], MAX_BODY_SIZE, pages * 4096) {
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
