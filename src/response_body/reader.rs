//! Reads a body chunk by chunk, as it was sent or decoded.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::decode::{DecodedStream, Decoder};
use super::transport_body::TransportBody;
use crate::body_budget::Reservation;
use crate::error::Error;
use crate::wire::AttemptClock;

/// Reads a body as it was sent.
pub(crate) struct BodyReader<'a> {
    body: TransportBody,
    clock: &'a AttemptClock,
    /// Present if the batch limits the memory of its bodies.
    reservation: Option<&'a mut Reservation>,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(body: TransportBody, clock: &'a AttemptClock) -> Self {
        Self {
            body,
            clock,
            reservation: None,
        }
    }

    /// Makes each read wait for room in the body budget.
    pub(super) fn with_reservation(mut self, reservation: Option<&'a mut Reservation>) -> Self {
        if let Some(reservation) = &reservation {
            reservation.start_reading();
        }
        self.reservation = reservation;
        self
    }

    /// Counts bytes that are kept in memory against the body budget.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if let Some(reservation) = &mut self.reservation {
            reservation.reserve(bytes);
        }
    }

    pub(crate) fn transport_body(&self) -> &TransportBody {
        &self.body
    }

    /// The length of the body, if it is known. Valid before the first chunk is read.
    pub(super) fn exact_length(&self) -> Option<u64> {
        self.body.exact_length()
    }

    /// Reads the next chunk, which may be a slice of a much larger buffer.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(reservation) = &mut self.reservation {
            if reservation.poll_room(cx).is_pending() {
                self.clock.pause(Instant::now());
                return Poll::Pending;
            }
            if self.clock.is_paused() {
                self.clock.resume(Instant::now());
            }
        }
        self.body.poll_chunk(cx, self.clock)
    }
}

/// A body whose content codings are decoded while it is read.
pub(crate) struct DecodedBody<'a> {
    reader: BodyReader<'a>,
    /// `None` if the body is not encoded.
    decoded: Option<DecodedStream>,
}

impl<'a> DecodedBody<'a> {
    pub(crate) fn new(reader: BodyReader<'a>, decoder: Option<Box<Decoder>>) -> Self {
        Self {
            reader,
            decoded: decoder.map(DecodedStream::new),
        }
    }

    pub(super) fn clock(&self) -> &'a AttemptClock {
        self.reader.clock
    }

    pub(super) fn was_encoded(&self) -> bool {
        self.decoded.is_some()
    }

    /// The reader of the encoded body.
    pub(crate) fn into_encoded(self) -> BodyReader<'a> {
        self.reader
    }

    /// The length of the decoded body, if it is known. Valid before the first chunk is read.
    pub(super) fn exact_length(&self) -> Option<u64> {
        if self.was_encoded() {
            None
        } else {
            self.reader.exact_length()
        }
    }

    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut self.decoded {
            None => self.reader.poll_chunk(cx),
            Some(decoded) => decoded.poll_next(&mut self.reader, cx),
        }
    }
}
