//! In place of `decode`, where no content coding is built in: every body is handed over as it came.

use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;
use http::response::Parts;

use super::transport::Incoming;
use crate::Error;
use crate::wire::Progress;

/// There is none.
pub(super) enum Decoder {}

impl Decoder {
    pub(super) fn of(
        _method: &Method,
        _head: &mut Parts,
        _incoming: &Incoming,
        _cap: u64,
    ) -> Result<Option<Self>, Error> {
        Ok(None)
    }
}

pub(super) async fn collect(
    decoder: Decoder,
    _incoming: &mut Incoming,
    _cap: u64,
    _progress: &Progress,
) -> Result<Bytes, Error> {
    match decoder {}
}

pub(crate) fn accepted() -> Option<HeaderValue> {
    None
}
