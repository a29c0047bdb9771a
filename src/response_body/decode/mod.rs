//! Decodes content codings (RFC 9110 §8.4), such as gzip, while the body arrives.
//!
//! A [`Decoder`] is a chain with one [`DecoderLayer`](layer::DecoderLayer) per coding. The decoder
//! does no I/O: the caller feeds it encoded bytes and advances it step by step. One step moves at
//! most one buffer through each layer, so the caller can stop after any step. The memory of each
//! layer is limited.
//!
//! The `async-compression` crate is not used, because it has no memory limit and ignores data after
//! the end of a zlib or brotli stream. With `async-compression`, the tests
//! `decoder_stays_within_memory_limit_or_fails`, `trailing_data_is_an_error` and
//! `zlib_and_raw_deflate_are_distinguished` fail.

#[cfg(feature = "brotli")]
mod brotli;
mod codings;
mod collect;
mod decoder;
#[cfg(feature = "deflate")]
mod deflate;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(any(feature = "deflate", feature = "gzip"))]
mod inflate;
mod layer;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;

pub(crate) use codings::accept_encoding;
pub(super) use collect::decode_into_memory;
pub(crate) use decoder::Decoder;
pub(super) use stream::ChunkDecoder;
