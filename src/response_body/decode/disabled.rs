//! Replaces the module `decode` in a build without content codings: no body is decoded.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;
use http::response::Parts;

use super::reader::BodyReader;
use super::transport_body::TransportBody;
use crate::error::Error;

/// There are no decoders in this build, so this type has no values.
pub(crate) enum Decoder {}

impl Decoder {
    pub(crate) fn for_response(
        _method: &Method,
        _head: &mut Parts,
        _body: &TransportBody,
        _max_body_size: u64,
    ) -> Result<Option<Box<Self>>, Error> {
        Ok(None)
    }
}

pub(super) async fn decode_into_memory(
    decoder: Box<Decoder>,
    _reader: &mut BodyReader<'_>,
    _max_body_size: u64,
) -> Result<Bytes, Error> {
    match *decoder {}
}

pub(super) struct ChunkDecoder(Box<Decoder>);

impl ChunkDecoder {
    pub(super) fn new(decoder: Box<Decoder>) -> Self {
        Self(decoder)
    }

    pub(super) fn poll_next(
        &mut self,
        _reader: &mut BodyReader<'_>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match *self.0 {}
    }
}

pub(crate) fn accept_encoding() -> Option<HeaderValue> {
    None
}
