//! The way to a new connection, which may turn out to be one of HTTP/2.

use std::sync::Arc;

use tokio::runtime::Id;

use super::connection;
use super::exchange::Lease;
use super::known::Speaks;
use super::pool::{Opening, Pool};
use crate::error::Error;
use crate::wire::pool::Token;
use crate::wire::stream::Stream;

/// Whether a server is asked for HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Offer {
    No,
    /// In the TLS handshake.
    Alpn,
    /// It is known to speak it.
    Prior,
}

/// One who opens a connection. Others may have joined; they wake when it ends.
pub(in crate::wire) struct Dial {
    place: Option<Place>,
    offer: Offer,
}

/// What a connection is.
pub(in crate::wire) enum Agreed {
    Http1(Stream, Token),
    Http2(Lease),
}

pub(super) struct Place {
    pub(super) pool: Arc<Pool>,
    pub(super) runtime: Id,
    pub(super) origin: Arc<str>,
    /// Its number among the dials that others may join.
    pub(super) dial: Option<u64>,
}

impl Dial {
    pub(super) fn new(place: Place, offer: Offer) -> Self {
        Self {
            place: Some(place),
            offer,
        }
    }

    /// For HTTP/1.1 and nothing else.
    pub(super) fn http1() -> Self {
        Self {
            place: None,
            offer: Offer::No,
        }
    }

    /// Whether HTTP/2 is offered in the TLS handshake.
    pub(in crate::wire) fn offers_http2(&self) -> bool {
        self.offer == Offer::Alpn
    }

    /// Goes on in the protocol that was agreed on. In HTTP/2 there is a first stream for whoever
    /// has opened the connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(in crate::wire) async fn agree(
        self,
        stream: Stream,
        token: Token,
    ) -> Result<Agreed, Error> {
        let is_http2 = match self.offer {
            Offer::No => false,
            Offer::Alpn => stream.chose_http2(),
            Offer::Prior => true,
        };
        match self.place {
            Some(place) if is_http2 => connection::open(place, stream, token)
                .await
                .map(Agreed::Http2),
            Some(place) => {
                place.pool.learn(&place.origin, Speaks::Http1);
                Ok(Agreed::Http1(stream, token))
            }
            None => Ok(Agreed::Http1(stream, token)),
        }
    }

    /// There is no connection: who joined shall try for himself.
    pub(in crate::wire) fn fail(mut self) {
        if let Some(mut place) = self.place.take()
            && let Some(opening) = place.take_opening()
        {
            // Fails if nobody has joined.
            let _ = opening.over.send(true);
        }
    }
}

impl Place {
    pub(super) fn take_opening(&mut self) -> Option<Opening> {
        let dial = self.dial.take();
        self.pool.take_dial(self.runtime, &self.origin, dial)
    }
}

/// Those who joined a dial that was given up look again, and one of them dials.
impl Drop for Place {
    fn drop(&mut self) {
        drop(self.take_opening());
    }
}
