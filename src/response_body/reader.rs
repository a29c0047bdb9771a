//! Reads a body chunk by chunk, with or without decoding its content codings.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::decode::{ChunkDecoder, Decoder};
use super::transport_body::TransportBody;
use crate::body_budget::BodyReservation;
use crate::body_progress::BodyProgressMeter;
use crate::error::Error;
use crate::hop_clock::HopClock;
use crate::wire::StickyConnection;

/// Reads a body without decoding its content codings.
pub(crate) struct BodyReader<'a> {
    transport_body: TransportBody,
    hop_clock: &'a HopClock,
    sticky_connection: &'a mut StickyConnection,
    /// The memory that this body reserves in the batch's body budget. `None` if the batch does not
    /// limit the memory of its bodies.
    body_reservation: Option<&'a mut BodyReservation>,
    body_meter: BodyProgressMeter<'a>,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(
        body: TransportBody,
        clock: &'a HopClock,
        sticky_connection: &'a mut StickyConnection,
        body_meter: BodyProgressMeter<'a>,
    ) -> Self {
        Self {
            transport_body: body,
            hop_clock: clock,
            sticky_connection,
            body_reservation: None,
            body_meter,
        }
    }

    /// Makes each read wait until the batch's body budget has room.
    pub(super) fn with_body_reservation(
        mut self,
        reservation: Option<&'a mut BodyReservation>,
    ) -> Self {
        if let Some(reservation) = &reservation {
            reservation.register_body_reader();
        }
        self.body_reservation = reservation;
        self
    }

    /// Counts bytes that stay in memory against the batch's body budget.
    pub(super) fn count_against_body_budget(&mut self, bytes: usize) {
        if let Some(reservation) = &mut self.body_reservation {
            reservation.add_reserved_bytes(bytes);
        }
    }

    /// Returns the meter that publishes how much of the body has arrived.
    pub(super) fn body_meter(&self) -> BodyProgressMeter<'a> {
        self.body_meter
    }

    pub(crate) fn transport_body(&self) -> &TransportBody {
        &self.transport_body
    }

    /// The length of the body before decoding; `None` if it is unknown. Call only before the first
    /// chunk is read.
    pub(super) fn encoded_length(&self) -> Option<u64> {
        self.transport_body.exact_body_length()
    }

    /// Reads the next chunk. The memory of the chunk may be a slice of a much larger buffer.
    pub(super) async fn next_chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(reservation) = &mut self.body_reservation {
            if reservation.poll_room_for_next_chunk(cx).is_pending() {
                self.hop_clock.pause_timeouts(Instant::now());
                // The wait may be long. Meanwhile, other requests can use the connection that is
                // kept for the next request.
                self.sticky_connection.return_to_pool();
                return Poll::Pending;
            }
            if self.hop_clock.is_paused() {
                self.hop_clock.resume_timeouts(Instant::now());
            }
        }
        self.transport_body
            .poll_chunk(cx, self.hop_clock, self.sticky_connection)
    }
}

/// A body whose content codings are decoded while it is read.
pub(crate) struct DecodedBody<'a> {
    encoded_reader: BodyReader<'a>,
    /// The decoder of the body; `None` if the body is not encoded.
    chunk_decoder: Option<ChunkDecoder>,
}

impl<'a> DecodedBody<'a> {
    pub(crate) fn new(reader: BodyReader<'a>, decoder: Option<Box<Decoder>>) -> Self {
        Self {
            encoded_reader: reader,
            chunk_decoder: decoder.map(ChunkDecoder::new),
        }
    }

    /// Records that the body is streamed to a file or a handler. Returns the clock of the hop,
    /// which the caller pauses while the file or the handler is busy.
    pub(super) fn record_streaming_start(&mut self) -> &'a HopClock {
        let reader = &mut self.encoded_reader;
        reader.hop_clock.enter_streaming_phase();
        // The worker may keep an idle connection for its next request. Streaming may take long, so
        // the connection goes back to the pool for other requests.
        reader.sticky_connection.return_to_pool();
        reader.hop_clock
    }

    /// Returns the meter that publishes how much of the body has arrived.
    pub(super) fn body_meter(&self) -> BodyProgressMeter<'a> {
        self.encoded_reader.body_meter
    }

    pub(super) fn was_encoded(&self) -> bool {
        self.chunk_decoder.is_some()
    }

    /// Returns the reader of the body before decoding.
    pub(crate) fn into_encoded_reader(self) -> BodyReader<'a> {
        self.encoded_reader
    }

    /// The length of the decoded body; `None` if it is unknown. Call only before the first chunk is
    /// read.
    pub(super) fn decoded_length(&self) -> Option<u64> {
        if self.was_encoded() {
            None
        } else {
            self.encoded_reader.encoded_length()
        }
    }

    /// Whether no chunk follows. The end of some bodies is known only after another poll, in
    /// particular of bodies that are decoded or have no length.
    pub(super) fn is_known_to_have_ended(&self) -> bool {
        !self.was_encoded() && self.encoded_reader.transport_body.is_known_to_have_ended()
    }

    pub(super) async fn next_chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut self.chunk_decoder {
            None => self.encoded_reader.poll_chunk(cx),
            Some(chunk_decoder) => chunk_decoder.poll_next(&mut self.encoded_reader, cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use url::Host;

    use super::*;
    use crate::body::Body;
    use crate::body_budget::BodyBudget;
    use crate::wire::{ConnectionSource, ConnectionTarget, Wire, WireConfig};

    /// Starts a server for one connection that sends responses without bodies. Returns the server's
    /// port.
    fn start_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                    .unwrap();
            }
        });
        port
    }

    /// Sends a request over a sticky connection and returns the body of the response.
    async fn send(
        wire: &Wire,
        port: u16,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> TransportBody {
        let target = ConnectionTarget {
            origin: "http://127.0.0.1",
            is_https: false,
            host: Host::Ipv4(std::net::Ipv4Addr::LOCALHOST),
            port,
            proxy: None,
        };
        clock.reset_for_new_hop(Instant::now());
        let mut request = http::Request::new(Body::default());
        let host = http::HeaderValue::from_static("test");
        request.headers_mut().insert("host", host);
        *request.uri_mut() = "/".parse().unwrap();
        let mut unsent = Some(request);
        let source = ConnectionSource::Pooled;
        let sent = wire.send(&target, &mut unsent, source, clock, sticky_connection);
        let (_, body) = sent.await.unwrap();
        assert_eq!(wire.connection_counts(), (1, 0));
        TransportBody::Wire(body)
    }

    #[tokio::test]
    async fn sticky_connection_is_pooled_before_a_wait_for_the_consumer() {
        let wire = Wire::new(WireConfig::default());
        let clock = HopClock::new(Instant::now());
        let body_bytes = AtomicU64::new(0);
        let meter = BodyProgressMeter::new(&body_bytes, None);
        let mut sticky_connection = StickyConnection::default();
        let port = start_server();

        let body = send(&wire, port, &clock, &mut sticky_connection).await;
        let reader = BodyReader::new(body, &clock, &mut sticky_connection, meter);
        DecodedBody::new(reader, None).record_streaming_start();
        assert_eq!(wire.connection_counts(), (1, 1));

        let body = send(&wire, port, &clock, &mut sticky_connection).await;
        let budget = BodyBudget::new(1, false);
        let mut first = BodyReservation::new(&budget, 0);
        first.register_body_reader();
        first.add_reserved_bytes(1);
        let mut second = BodyReservation::new(&budget, 1);
        let reader = BodyReader::new(body, &clock, &mut sticky_connection, meter);
        let mut reader = reader.with_body_reservation(Some(&mut second));
        poll_fn(|cx| {
            assert!(reader.poll_chunk(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(clock.is_paused());
        assert_eq!(wire.connection_counts(), (1, 1));
    }
}
