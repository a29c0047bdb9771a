//! A coded body, decoded piece by piece.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use super::super::reader::BodyReader;
use super::decoder::{Decoder, Step};
use crate::Error;

/// What the decoders of one body may hold: enough for the largest windows that are allowed, one in the other.
const MAX_DECODER_MEMORY: u64 = 40 << 20;

/// What is decoded so far is given before more is read.
pub(in crate::exchange) struct DecodedStream {
    decoder: Box<Decoder>,
    needs_input: bool,
}

impl DecodedStream {
    pub(in crate::exchange) fn new(decoder: Box<Decoder>) -> Self {
        Self {
            decoder,
            needs_input: true,
        }
    }

    pub(in crate::exchange) fn poll_next(
        &mut self,
        reader: &mut BodyReader<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if self.needs_input {
                match ready!(reader.poll_chunk(cx)) {
                    Some(Ok(chunk)) => self.decoder.feed(chunk)?,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(self.decoder.finish().err().map(Err)),
                }
                self.needs_input = false;
            }
            let budget = ready!(poll_proceed(cx));
            let step = self.decoder.advance(MAX_DECODER_MEMORY)?;
            budget.made_progress();
            match step {
                Step::Output => {
                    let piece = Bytes::copy_from_slice(self.decoder.output());
                    return Poll::Ready(Some(Ok(piece)));
                }
                Step::Continue => {}
                Step::NeedsInput => self.needs_input = true,
            }
        }
    }
}
