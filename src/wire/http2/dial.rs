//! A connection being opened, whose HTTP version may not be known yet.

use super::connection;
use super::pool::{DialRegistration, StreamLease};
use super::protocol_cache::ProtocolSupport;
use crate::error::Error;
use crate::wire::connect::MaybeTlsStream;
use crate::wire::sockets::SocketCountGuard;

/// How HTTP/2 is offered to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Http2Offer {
    /// The client does not offer HTTP/2, so the connection uses HTTP/1.1.
    NotOffered,
    /// The client offers HTTP/2 in the TLS handshake (ALPN).
    Alpn,
    /// The client uses HTTP/2 without negotiation and assumes that the server supports it.
    PriorKnowledge,
}

/// The right to open (dial) one connection.
///
/// Other requests may wait for this connection. They are woken when the ticket is used or dropped.
pub(in crate::wire) struct DialTicket {
    dial_registration: Option<DialRegistration>,
    http2_offer: Http2Offer,
}

/// A new connection whose HTTP version has been negotiated.
pub(in crate::wire) enum NegotiatedConnection {
    Http1(MaybeTlsStream, SocketCountGuard),
    /// The first stream of a new HTTP/2 connection.
    Http2(StreamLease),
}

impl DialTicket {
    pub(super) fn new(dial_registration: DialRegistration, http2_offer: Http2Offer) -> Self {
        Self {
            dial_registration: Some(dial_registration),
            http2_offer,
        }
    }

    pub(super) fn without_http2_offer() -> Self {
        Self {
            dial_registration: None,
            http2_offer: Http2Offer::NotOffered,
        }
    }

    /// Whether the TLS handshake offers HTTP/2 (ALPN).
    pub(in crate::wire) fn offers_http2_in_alpn(&self) -> bool {
        self.http2_offer == Http2Offer::Alpn
    }

    /// Opens an HTTP/2 connection on `stream` if HTTP/2 was negotiated or is assumed. Otherwise,
    /// returns `stream` for HTTP/1.1.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(in crate::wire) async fn start_negotiated_protocol(
        self,
        stream: MaybeTlsStream,
        socket_count_guard: SocketCountGuard,
    ) -> Result<NegotiatedConnection, Error> {
        let is_http2 = match self.http2_offer {
            Http2Offer::NotOffered => false,
            Http2Offer::Alpn => stream.has_negotiated_http2(),
            Http2Offer::PriorKnowledge => true,
        };
        match self.dial_registration {
            Some(dial_registration) if is_http2 => {
                let lease = connection::open(dial_registration, stream, socket_count_guard).await?;
                Ok(NegotiatedConnection::Http2(lease))
            }
            Some(dial_registration) => {
                let pool = &dial_registration.pool;
                pool.record_protocol_support(&dial_registration.origin, ProtocolSupport::Http1);
                Ok(NegotiatedConnection::Http1(stream, socket_count_guard))
            }
            None => Ok(NegotiatedConnection::Http1(stream, socket_count_guard)),
        }
    }

    /// Wakes the waiting requests because opening the connection failed. Each of them then opens
    /// its own connection.
    pub(in crate::wire) fn notify_waiters_of_failure(mut self) {
        if let Some(mut dial_registration) = self.dial_registration.take()
            && let Some(waiters) = dial_registration.unregister_dial()
        {
            // Sending fails only if no request waits for the connection.
            let _ = waiters.failed_channel.send(true);
        }
    }
}
