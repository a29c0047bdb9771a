//! Content codings (RFC 9110 §8.4), decoded while the body arrives.
//!
//! A [`Decoder`] is a chain with one [`Layer`](layer::Layer) per coding. It does no I/O: the
//! caller feeds it encoded bytes and advances it step by step. One step moves at most one buffer
//! through each layer, so the caller can stop after any step. Each layer obeys a memory limit.
//!
//! Own code instead of async-compression, which has no memory limit and ignores data after the
//! end of a zlib or brotli stream. It fails `decoder_stays_within_memory_limit_or_fails`,
//! `trailing_data_is_an_error` and `zlib_and_raw_deflate_are_distinguished`.

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
pub(super) use collect::collect;
pub(crate) use decoder::Decoder;
pub(super) use stream::DecodedStream;
