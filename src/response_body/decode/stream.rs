//! Decodes a body chunk by chunk, for a file or a handler.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use super::super::reader::BodyReader;
use super::decoder::{Decoder, StepOutcome};
use crate::error::Error;

/// The memory limit of all layers together, in bytes. The limit is large enough for nested codings
/// with the largest allowed windows.
const MAX_DECODER_MEMORY_BYTES: u64 = 40 << 20;

/// A stream of decoded chunks. More of the encoded body is read only after all decoded data was
/// yielded.
pub(in crate::response_body) struct ChunkDecoder {
    decoder: Box<Decoder>,
    needs_input: bool,
}

impl ChunkDecoder {
    pub(in crate::response_body) fn new(decoder: Box<Decoder>) -> Self {
        Self {
            decoder,
            needs_input: true,
        }
    }

    pub(in crate::response_body) fn poll_next(
        &mut self,
        reader: &mut BodyReader<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if self.needs_input {
                match ready!(reader.poll_chunk(cx)) {
                    Some(Ok(chunk)) => self.decoder.feed_encoded_chunk(chunk)?,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(self.decoder.check_input_complete().err().map(Err)),
                }
                self.needs_input = false;
            }
            let coop_budget = ready!(poll_proceed(cx));
            let step = self.decoder.run_decoding_step(MAX_DECODER_MEMORY_BYTES)?;
            coop_budget.made_progress();
            match step {
                StepOutcome::ProducedOutput => {
                    let chunk = Bytes::copy_from_slice(self.decoder.step_output());
                    return Poll::Ready(Some(Ok(chunk)));
                }
                StepOutcome::NeedsAnotherStep => {}
                StepOutcome::NeedsInput => self.needs_input = true,
            }
        }
    }
}
