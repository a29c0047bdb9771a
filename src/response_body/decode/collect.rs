//! Decodes a body into memory.

use bytes::Bytes;
use tokio::task::consume_budget;

use super::super::reader::BodyReader;
use super::super::size_limit::body_too_large_error;
use super::decoder::{Decoder, StepOutcome};
use crate::error::Error;

/// The memory of the decoder, in bytes, that does not count against the body size limit. The
/// allowance and the buffers between the layers add up to less than 8 MiB.
const DECODER_MEMORY_ALLOWANCE_BYTES: u64 = 7 << 20;

/// Reads and decodes a body of at most `max_body_size` decoded bytes.
///
/// The decoded body and the decoder together use at most `max_body_size` plus 8 MiB of memory. If
/// the decoder uses more than its allowance, less memory is left for the body. Each decoding step
/// consumes tokio's cooperative budget, so an endlessly expanding body cannot starve other tasks.
pub(in crate::response_body) async fn decode_into_memory(
    mut decoder: Box<Decoder>,
    reader: &mut BodyReader<'_>,
    max_body_size: u64,
) -> Result<Bytes, Error> {
    reader.body_meter().record_body_start(0, None);
    if reader
        .encoded_length()
        .is_some_and(|length| length > decoder.max_encoded_size_per_layer())
    {
        return Err(body_too_large_error(max_body_size));
    }
    let mut body = SizeLimitedBody {
        decoded_bytes: Vec::new(),
        max_body_size,
    };
    while let Some(chunk) = reader.next_chunk().await.transpose()? {
        decoder.feed_encoded_chunk(chunk)?;
        loop {
            match decoder.run_decoding_step(body.decoder_memory_limit())? {
                StepOutcome::ProducedOutput => {
                    body.append_decoded(decoder.step_output(), decoder.memory_usage())?;
                    reader.count_against_body_budget(decoder.step_output().len());
                    reader
                        .body_meter()
                        .record_received_bytes(body.decoded_bytes.len() as u64);
                }
                StepOutcome::NeedsAnotherStep => {}
                StepOutcome::NeedsInput => break,
            }
            consume_budget().await;
        }
    }
    decoder.check_input_complete()?;
    body.decoded_bytes.shrink_to_fit();
    Ok(Bytes::from(body.decoded_bytes))
}

/// The decoded body so far. The body and its decoder share one memory limit.
struct SizeLimitedBody {
    decoded_bytes: Vec<u8>,
    max_body_size: u64,
}

impl SizeLimitedBody {
    fn body_and_decoder_memory_limit(&self) -> u64 {
        self.max_body_size
            .saturating_add(DECODER_MEMORY_ALLOWANCE_BYTES)
    }

    fn decoder_memory_limit(&self) -> u64 {
        self.body_and_decoder_memory_limit()
            .saturating_sub(self.decoded_bytes.capacity() as u64)
    }

    fn append_decoded(&mut self, data: &[u8], decoder_memory: u64) -> Result<(), Error> {
        let body_memory_limit = self
            .body_and_decoder_memory_limit()
            .saturating_sub(decoder_memory);
        let max_length = self.max_body_size.min(body_memory_limit);
        let length = self.decoded_bytes.len() + data.len();
        if length as u64 > max_length {
            return Err(body_too_large_error(self.max_body_size));
        }
        if length > self.decoded_bytes.capacity() {
            // The capacity grows by a quarter, because doubling it could use up the memory of the
            // decoder.
            let extra = (self.decoded_bytes.len() / 4) as u64;
            let extra = extra.min(max_length - length as u64) as usize;
            self.decoded_bytes.reserve_exact(data.len() + extra);
        }
        self.decoded_bytes.extend_from_slice(data);
        Ok(())
    }
}
