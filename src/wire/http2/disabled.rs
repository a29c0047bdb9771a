//! Replaces the module `http2` in a build without the feature `http2`. All connections use
//! HTTP/1.1.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use tokio::time::Instant;

use super::config::HttpVersionPolicy;
use super::connect::MaybeTlsStream;
use super::send_error::{SendError, UnsentRequest};
use super::sockets::SocketCountGuard;
use super::target::ConnectionTarget;
use crate::error::Error;
use crate::hop_clock::HopClock;

pub(super) struct Http2Connections;

pub(super) enum StreamOrDialTicket {
    #[expect(dead_code, reason = "without HTTP/2 there are no streams")]
    Stream(StreamLease),
    Dial(DialTicket),
}

impl Http2Connections {
    pub(super) fn new(_: HttpVersionPolicy, _: Duration, _: Duration) -> Self {
        Self
    }

    pub(super) fn is_protocol_unknown(&self, _: &ConnectionTarget<'_>) -> bool {
        false
    }

    pub(super) async fn take_stream_or_dial_ticket(
        &self,
        _: &ConnectionTarget<'_>,
        clock: &HopClock,
    ) -> StreamOrDialTicket {
        clock.record_connecting(Instant::now());
        StreamOrDialTicket::Dial(DialTicket)
    }

    pub(super) fn evict_longest_idle(&self) {}

    pub(super) fn idle_count(&self) -> usize {
        0
    }
}

pub(super) struct DialTicket;

impl DialTicket {
    pub(super) fn offers_http2_in_alpn(&self) -> bool {
        false
    }

    pub(super) async fn start_negotiated_protocol(
        self,
        stream: MaybeTlsStream,
        socket_count_guard: SocketCountGuard,
    ) -> Result<NegotiatedConnection, Error> {
        debug_assert!(!stream.has_negotiated_http2(), "HTTP/2 was not offered");
        Ok(NegotiatedConnection::Http1(stream, socket_count_guard))
    }

    pub(super) fn notify_waiters_of_failure(self) {}
}

pub(super) enum NegotiatedConnection {
    Http1(MaybeTlsStream, SocketCountGuard),
    #[expect(dead_code, reason = "without HTTP/2 there are no streams")]
    Http2(StreamLease),
}

pub(super) struct StreamLease(Infallible);

pub(super) async fn exchange(
    lease: StreamLease,
    _: &mut UnsentRequest,
    _: bool,
    _: &HopClock,
) -> Result<(Parts, Http2Body), SendError> {
    match lease.0 {}
}

pub(crate) struct Http2Body(Infallible);

impl Http2Body {
    pub(super) fn remaining_length(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(super) fn is_known_to_have_ended(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn poll_chunk(
        &mut self,
        _: &mut Context<'_>,
        _: &HopClock,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self.0 {}
    }
}
