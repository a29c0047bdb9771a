//! Stands in for `http2` when the feature is off: every connection is one of HTTP/1.1.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use tokio::time::Instant;

use super::pool::Token;
use super::progress::Progress;
use super::stream::Stream;
use super::{Failure, Outgoing, Protocols, Target};
use crate::error::Error;

pub(super) struct Http2;

pub(super) enum Way {
    #[expect(dead_code, reason = "there are no streams")]
    Stream(Lease),
    Dial(Dial),
}

impl Http2 {
    pub(super) fn new(_: Protocols, _: Duration, _: Duration) -> Self {
        Self
    }

    pub(super) fn is_unknown(&self, _: &Target<'_>) -> bool {
        false
    }

    pub(super) async fn way(&self, _: &Target<'_>, progress: &Progress) -> Way {
        progress.connecting(Instant::now());
        Way::Dial(Dial)
    }

    pub(super) fn evict_idle(&self) {}
}

pub(super) struct Dial;

impl Dial {
    pub(super) fn offers_http2(&self) -> bool {
        false
    }

    pub(super) async fn agree(self, stream: Stream, token: Token) -> Result<Agreed, Error> {
        debug_assert!(!stream.chose_http2(), "it was not offered");
        Ok(Agreed::Http1(stream, token))
    }

    pub(super) fn fail(self) {}
}

pub(super) enum Agreed {
    Http1(Stream, Token),
    #[expect(dead_code, reason = "there are no streams")]
    Http2(Lease),
}

pub(super) struct Lease(Infallible);

impl Lease {
    pub(super) async fn exchange(
        self,
        _: &mut Outgoing,
        _: bool,
        _: &Progress,
    ) -> Result<(Parts, Incoming), Failure> {
        match self.0 {}
    }
}

pub(crate) struct Incoming(Infallible);

impl Incoming {
    pub(super) fn length(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(super) fn poll_chunk(
        &mut self,
        _: &mut Context<'_>,
        _: &Progress,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self.0 {}
    }
}
