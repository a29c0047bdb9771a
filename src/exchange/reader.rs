//! The body of one answer as it comes in: as it was sent, and as it was meant.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::buffer::Charge;
use super::decode::{self, Decoder};
use super::transport::Incoming;
use crate::Error;
use crate::wire::Progress;

/// The body as it was sent.
pub(super) struct Reader<'a> {
    incoming: Incoming,
    progress: &'a Progress,
    /// What it is counted in, if its batch bounds what it holds.
    charge: Option<&'a mut Charge>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(incoming: Incoming, progress: &'a Progress) -> Self {
        Self {
            incoming,
            progress,
            charge: None,
        }
    }

    /// From now on it is read only as there is room for it.
    pub(super) fn charged(mut self, charge: Option<&'a mut Charge>) -> Self {
        if let Some(charge) = &charge {
            charge.begin();
        }
        self.charge = charge;
        self
    }

    /// So much of the body is kept.
    pub(super) fn keep(&mut self, bytes: usize) {
        if let Some(charge) = &mut self.charge {
            charge.add(bytes);
        }
    }

    pub(super) fn incoming(&self) -> &Incoming {
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
        if let Some(charge) = &mut self.charge {
            if !charge.has_room(cx) {
                self.progress.hold(Instant::now());
                return Poll::Pending;
            }
            if self.progress.is_held() {
                self.progress.release(Instant::now());
            }
        }
        self.incoming.poll_chunk(cx, self.progress)
    }
}

/// The body without its content codings, for one who takes it piece by piece.
pub(super) struct Decoded<'a> {
    reader: Reader<'a>,
    stream: Option<decode::Stream>,
}

impl<'a> Decoded<'a> {
    pub(super) fn new(reader: Reader<'a>, decoder: Option<Box<Decoder>>) -> Self {
        Self {
            reader,
            stream: decoder.map(decode::Stream::new),
        }
    }

    pub(super) fn progress(&self) -> &'a Progress {
        self.reader.progress
    }

    /// Whether it is not what was sent.
    pub(super) fn was_coded(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn into_coded(self) -> Reader<'a> {
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
