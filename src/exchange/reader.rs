//! The body of one answer as it comes in: as it was sent, and as it was meant.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::body_budget::Reservation;
use super::decode::{self, Decoder};
use super::transport::TransportBody;
use crate::Error;
use crate::wire::AttemptClock;

/// The body as it was sent.
pub(super) struct BodyReader<'a> {
    incoming: TransportBody,
    clock: &'a AttemptClock,
    /// What it is counted in, if its batch bounds what it holds.
    reservation: Option<&'a mut Reservation>,
}

impl<'a> BodyReader<'a> {
    pub(super) fn new(incoming: TransportBody, clock: &'a AttemptClock) -> Self {
        Self {
            incoming,
            clock,
            reservation: None,
        }
    }

    /// From now on it is read only as there is room for it.
    pub(super) fn with_reservation(mut self, reservation: Option<&'a mut Reservation>) -> Self {
        if let Some(reservation) = &reservation {
            reservation.start_reading();
        }
        self.reservation = reservation;
        self
    }

    /// So much of the body is kept.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if let Some(reservation) = &mut self.reservation {
            reservation.reserve(bytes);
        }
    }

    pub(super) fn incoming(&self) -> &TransportBody {
        &self.incoming
    }

    /// How much is left of it, if that is known.
    pub(super) fn exact_length(&self) -> Option<u64> {
        self.incoming.exact_length()
    }

    /// The next piece of the body. It may be a slice of a far larger buffer.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(reservation) = &mut self.reservation {
            if !reservation.poll_room(cx) {
                self.clock.pause(Instant::now());
                return Poll::Pending;
            }
            if self.clock.is_paused() {
                self.clock.resume(Instant::now());
            }
        }
        self.incoming.poll_chunk(cx, self.clock)
    }
}

/// The body without its content codings, for one who takes it piece by piece.
pub(super) struct DecodedBody<'a> {
    reader: BodyReader<'a>,
    stream: Option<decode::DecodedStream>,
}

impl<'a> DecodedBody<'a> {
    pub(super) fn new(reader: BodyReader<'a>, decoder: Option<Box<Decoder>>) -> Self {
        Self {
            reader,
            stream: decoder.map(decode::DecodedStream::new),
        }
    }

    pub(super) fn clock(&self) -> &'a AttemptClock {
        self.reader.clock
    }

    /// Whether it is not what was sent.
    pub(super) fn was_encoded(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn into_encoded(self) -> BodyReader<'a> {
        self.reader
    }

    /// How much is left of it, if that is known.
    pub(super) fn exact_length(&self) -> Option<u64> {
        match self.stream {
            None => self.reader.exact_length(),
            Some(_) => None,
        }
    }

    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut self.stream {
            None => self.reader.poll_chunk(cx),
            Some(stream) => stream.poll_next(&mut self.reader, cx),
        }
    }
}
