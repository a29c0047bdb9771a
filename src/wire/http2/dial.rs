//! The way to a new connection, which may turn out to be one of HTTP/2.

use std::sync::Arc;

use tokio::runtime::Id;

use super::connection;
use super::exchange::StreamLease;
use super::pool::{Http2Pool, PendingConnection};
use super::protocol_cache::ProtocolSupport;
use crate::error::Error;
use crate::wire::pool::SocketPermit;
use crate::wire::stream::MaybeTlsStream;

/// Whether a server is asked for HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Http2Offer {
    None,
    /// In the TLS handshake.
    Alpn,
    /// It is known to speak it.
    PriorKnowledge,
}

/// One who opens a connection. Others may have joined; they wake when it ends.
pub(in crate::wire) struct DialTicket {
    registration: Option<DialRegistration>,
    offer: Http2Offer,
}

/// What a connection is.
pub(in crate::wire) enum Negotiated {
    Http1(MaybeTlsStream, SocketPermit),
    Http2(StreamLease),
}

pub(super) struct DialRegistration {
    pub(super) pool: Arc<Http2Pool>,
    pub(super) runtime: Id,
    pub(super) origin: Arc<str>,
    /// Its number among the dials that others may join.
    pub(super) dial_id: Option<u64>,
}

impl DialTicket {
    pub(super) fn new(registration: DialRegistration, offer: Http2Offer) -> Self {
        Self {
            registration: Some(registration),
            offer,
        }
    }

    /// For HTTP/1.1 and nothing else.
    pub(super) fn http1() -> Self {
        Self {
            registration: None,
            offer: Http2Offer::None,
        }
    }

    /// Whether HTTP/2 is offered in the TLS handshake.
    pub(in crate::wire) fn offers_http2(&self) -> bool {
        self.offer == Http2Offer::Alpn
    }

    /// Goes on in the protocol that was agreed on. In HTTP/2 there is a first stream for whoever
    /// has opened the connection.
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
            Some(registration) if is_http2 => connection::start(registration, stream, permit)
                .await
                .map(Negotiated::Http2),
            Some(registration) => {
                registration
                    .pool
                    .record_support(&registration.origin, ProtocolSupport::Http1);
                Ok(Negotiated::Http1(stream, permit))
            }
            None => Ok(Negotiated::Http1(stream, permit)),
        }
    }

    /// There is no connection: who joined shall try for himself.
    pub(in crate::wire) fn notify_failure(mut self) {
        if let Some(mut registration) = self.registration.take()
            && let Some(pending) = registration.take_pending()
        {
            // Fails if nobody has joined.
            let _ = pending.done.send(true);
        }
    }
}

impl DialRegistration {
    pub(super) fn take_pending(&mut self) -> Option<PendingConnection> {
        let dial_id = self.dial_id.take();
        self.pool.take_pending(self.runtime, &self.origin, dial_id)
    }
}

/// Those who joined a dial that was given up look again, and one of them dials.
impl Drop for DialRegistration {
    fn drop(&mut self) {
        drop(self.take_pending());
    }
}
