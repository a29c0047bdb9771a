//! Content codings (RFC 9110 §8.4), undone while the body comes in.
//!
//! A [`Decoder`] is a chain with one layer for each coding, and knows nothing of sockets or tasks: it is fed_bytes what came
//! and advanced step by step. One step moves at most a buffer through each layer, whatever the data say, so the caller
//! decides after each whether it has had enough. No layer holds more memory than it is told it may.

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
pub(super) use decoder::Decoder;
pub(super) use stream::DecodedStream;
