//! Decodes a body into memory.

use bytes::Bytes;
use tokio::task::consume_budget;

use super::super::reader::BodyReader;
use super::super::size_limit::body_too_large;
use super::decoder::{Decoder, StepOutcome};
use crate::error::Error;

/// The memory of the decoder, in bytes, that does not count against the body size limit. The
/// allowance and the buffers between the layers add up to less than 8 MiB.
const DECODER_MEMORY_ALLOWANCE: u64 = 7 << 20;

/// Reads and decodes a body of at most `max_body_size` decoded bytes.
///
/// The decoded body and the decoder together use at most `max_body_size` plus 8 MiB of memory. If
/// the decoder uses more than its allowance, less memory is left for the body. Each decoding step
/// consumes tokio's cooperative budget, so an endlessly expanding body cannot starve other tasks.
pub(in crate::response_body) async fn collect(
    mut decoder: Box<Decoder>,
    reader: &mut BodyReader<'_>,
    max_body_size: u64,
) -> Result<Bytes, Error> {
    reader.meter().start(0, None);
    if reader
        .encoded_length()
        .is_some_and(|length| length > decoder.max_encoded_size())
    {
        return Err(body_too_large(max_body_size));
    }
    let mut body = BoundedBody {
        bytes: Vec::new(),
        max_body_size,
    };
    while let Some(chunk) = reader.chunk().await.transpose()? {
        decoder.feed(chunk)?;
        loop {
            match decoder.advance(body.decoder_memory_limit())? {
                StepOutcome::Output => {
                    body.append(decoder.step_output(), decoder.memory_usage())?;
                    reader.reserve(decoder.step_output().len());
                    reader.meter().record(body.bytes.len() as u64);
                }
                StepOutcome::Continue => {}
                StepOutcome::NeedsInput => break,
            }
            consume_budget().await;
        }
    }
    decoder.check_complete()?;
    body.bytes.shrink_to_fit();
    Ok(Bytes::from(body.bytes))
}

/// A decoded body that grows. The body and its decoder share one memory limit.
struct BoundedBody {
    bytes: Vec<u8>,
    max_body_size: u64,
}

impl BoundedBody {
    fn total_memory_limit(&self) -> u64 {
        self.max_body_size.saturating_add(DECODER_MEMORY_ALLOWANCE)
    }

    fn decoder_memory_limit(&self) -> u64 {
        self.total_memory_limit()
            .saturating_sub(self.bytes.capacity() as u64)
    }

    fn append(&mut self, data: &[u8], decoder_memory: u64) -> Result<(), Error> {
        let body_memory_limit = self.total_memory_limit().saturating_sub(decoder_memory);
        let max_length = self.max_body_size.min(body_memory_limit);
        let length = self.bytes.len() + data.len();
        if length as u64 > max_length {
            return Err(body_too_large(self.max_body_size));
        }
        if length > self.bytes.capacity() {
            // The capacity grows by a quarter, because doubling it could use up the memory of the
            // decoder.
            let extra = (self.bytes.len() / 4) as u64;
            let extra = extra.min(max_length - length as u64) as usize;
            self.bytes.reserve_exact(data.len() + extra);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}
