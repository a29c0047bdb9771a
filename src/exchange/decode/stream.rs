//! A coded body, decoded piece by piece.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use super::super::reader::Reader;
use super::decoder::{Advance, Decoder};
use crate::Error;

/// What the decoders of one body may hold: enough for the largest windows that are allowed, one in the other.
const MEMORY: u64 = 40 << 20;

/// What is decoded so far is given before more is read.
pub(in crate::exchange) struct Stream {
    decoder: Box<Decoder>,
    is_hungry: bool,
}

impl Stream {
    pub(in crate::exchange) fn new(decoder: Box<Decoder>) -> Self {
        Self {
            decoder,
            is_hungry: true,
        }
    }

    pub(in crate::exchange) fn poll_next(
        &mut self,
        reader: &mut Reader<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if self.is_hungry {
                match ready!(reader.poll_chunk(cx)) {
                    Some(Ok(chunk)) => self.decoder.feed(chunk)?,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(self.decoder.finish().err().map(Err)),
                }
                self.is_hungry = false;
            }
            let budget = ready!(poll_proceed(cx));
            let advance = self.decoder.advance(MEMORY)?;
            budget.made_progress();
            match advance {
                Advance::Wrote => {
                    let piece = Bytes::copy_from_slice(self.decoder.output());
                    return Poll::Ready(Some(Ok(piece)));
                }
                Advance::Busy => {}
                Advance::Hungry => self.is_hungry = true,
            }
        }
    }
}
