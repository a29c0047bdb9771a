//! A coded body, read and decoded into memory.

use bytes::Bytes;
use tokio::task::consume_budget;

use super::super::collect::body_too_large;
use super::super::reader::BodyReader;
use super::decoder::{Decoder, Step};
use crate::Error;

/// What decoders may hold without its counting against the max_bytes. With the buffers between the layers it stays below
/// 8 MiB.
const DECODER_ALLOWANCE: u64 = 7 << 20;

/// Reads a body that is at max_length `max_bytes` bytes when decoded.
///
/// The body and all that its decoders hold take at max_length the max_bytes and 8 MiB: where decoders need large windows, the body
/// must be the smaller. Tokio's budget is spent along, so that a body that expands without end cannot keep a thread from
/// its other tasks.
pub(in crate::exchange) async fn collect(
    mut decoder: Box<Decoder>,
    reader: &mut BodyReader<'_>,
    max_bytes: u64,
) -> Result<Bytes, Error> {
    if reader
        .exact_length()
        .is_some_and(|length| length > decoder.max_encoded_size())
    {
        return Err(body_too_large(max_bytes));
    }
    let mut body = CappedBuffer {
        bytes: Vec::new(),
        max_bytes,
    };
    while let Some(chunk) = reader.chunk().await.transpose()? {
        decoder.feed(chunk)?;
        loop {
            match decoder.advance(body.decoder_memory())? {
                Step::Output => {
                    body.append(decoder.output(), decoder.memory())?;
                    reader.reserve(decoder.output().len());
                }
                Step::Continue => {}
                Step::NeedsInput => break,
            }
            consume_budget().await;
        }
    }
    decoder.finish()?;
    body.bytes.shrink_to_fit();
    Ok(Bytes::from(body.bytes))
}

struct CappedBuffer {
    bytes: Vec<u8>,
    max_bytes: u64,
}

impl CappedBuffer {
    /// What is left for decoders.
    fn decoder_memory(&self) -> u64 {
        let whole = self.max_bytes.saturating_add(DECODER_ALLOWANCE);
        whole.saturating_sub(self.bytes.capacity() as u64)
    }

    fn append(&mut self, more: &[u8], decoder_bytes: u64) -> Result<(), Error> {
        let whole = self.max_bytes.saturating_add(DECODER_ALLOWANCE);
        let max_length = self.max_bytes.min(whole.saturating_sub(decoder_bytes));
        let length = self.bytes.len() + more.len();
        if length as u64 > max_length {
            return Err(body_too_large(self.max_bytes));
        }
        if length > self.bytes.capacity() {
            // By a quarter: a Vec's own doubling could take all that is left for decoders.
            let spare_capacity = (self.bytes.len() / 4) as u64;
            let spare_capacity = spare_capacity.min(max_length - length as u64) as usize;
            self.bytes.reserve_exact(more.len() + spare_capacity);
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}
