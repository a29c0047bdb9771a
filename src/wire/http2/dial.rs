//! A connection being opened, whose protocol may not be known yet.

use super::connection;
use super::pool::{DialRegistration, StreamLease};
use super::protocol_cache::ProtocolSupport;
use crate::error::Error;
use crate::wire::connect::MaybeTlsStream;
use crate::wire::sockets::SocketPermit;

/// How a server is offered HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Http2Offer {
    /// HTTP/1.1 is used.
    None,
    /// The TLS handshake offers HTTP/2 (ALPN).
    Alpn,
    /// The server is assumed to support HTTP/2, without negotiation.
    PriorKnowledge,
}

/// The task to open one connection.
///
/// Other requests may wait for the connection. They are woken when the ticket is used or dropped.
pub(in crate::wire) struct DialTicket {
    registration: Option<DialRegistration>,
    offer: Http2Offer,
}

/// An open connection, by its protocol.
pub(in crate::wire) enum Negotiated {
    Http1(MaybeTlsStream, SocketPermit),
    /// An HTTP/2 connection was opened. This is its first stream.
    Http2(StreamLease),
}

impl DialTicket {
    pub(super) fn new(registration: DialRegistration, offer: Http2Offer) -> Self {
        Self {
            registration: Some(registration),
            offer,
        }
    }

    pub(super) fn http1_only() -> Self {
        Self {
            registration: None,
            offer: Http2Offer::None,
        }
    }

    /// Whether to offer HTTP/2 in the TLS handshake.
    pub(in crate::wire) fn offers_http2(&self) -> bool {
        self.offer == Http2Offer::Alpn
    }

    /// Continues in the protocol that was negotiated on `stream`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(in crate::wire) async fn complete(
        self,
        stream: MaybeTlsStream,
        permit: SocketPermit,
    ) -> Result<Negotiated, Error> {
        let is_http2 = match self.offer {
            Http2Offer::None => false,
            Http2Offer::Alpn => stream.negotiated_http2(),
            Http2Offer::PriorKnowledge => true,
        };
        match self.registration {
            Some(registration) if is_http2 => {
                let lease = connection::start(registration, stream, permit).await?;
                Ok(Negotiated::Http2(lease))
            }
            Some(registration) => {
                let pool = &registration.pool;
                pool.record_support(&registration.origin, ProtocolSupport::Http1);
                Ok(Negotiated::Http1(stream, permit))
            }
            None => Ok(Negotiated::Http1(stream, permit)),
        }
    }

    /// Tells the waiting requests that the connection failed, so that each of them dials itself.
    pub(in crate::wire) fn notify_failure(mut self) {
        if let Some(mut registration) = self.registration.take()
            && let Some(pending) = registration.take_pending()
        {
            // Sending fails if no request waits for the connection.
            let _ = pending.failed.send(true);
        }
    }
}
