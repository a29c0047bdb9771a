//! A coded body, read and decoded into memory.

use bytes::Bytes;
use tokio::task::consume_budget;

use super::super::body::too_large;
use super::super::reader::Reader;
use super::decoder::{Advance, Decoder};
use crate::Error;

/// What decoders may hold without its counting against the cap. With the buffers between the layers it stays below
/// 8 MiB.
const BESIDE_THE_CAP: u64 = 7 << 20;

/// Reads a body that is at most `cap` bytes when decoded.
///
/// The body and all that its decoders hold take at most the cap and 8 MiB: where decoders need large windows, the body
/// must be the smaller. Tokio's budget is spent along, so that a body that expands without end cannot keep a thread from
/// its other tasks.
pub(in crate::exchange) async fn collect(
    mut decoder: Box<Decoder>,
    reader: &mut Reader<'_>,
    cap: u64,
) -> Result<Bytes, Error> {
    if reader
        .exact_length()
        .is_some_and(|length| length > decoder.most_coded())
    {
        return Err(too_large(cap));
    }
    let mut body = Body {
        bytes: Vec::new(),
        cap,
    };
    while let Some(chunk) = reader.chunk().await.transpose()? {
        decoder.feed(chunk)?;
        loop {
            match decoder.advance(body.leaves())? {
                Advance::Wrote => {
                    body.append(decoder.output(), decoder.memory())?;
                    reader.keep(decoder.output().len());
                }
                Advance::Busy => {}
                Advance::Hungry => break,
            }
            consume_budget().await;
        }
    }
    decoder.finish()?;
    body.bytes.shrink_to_fit();
    Ok(Bytes::from(body.bytes))
}

struct Body {
    bytes: Vec<u8>,
    cap: u64,
}

impl Body {
    /// What is left for decoders.
    fn leaves(&self) -> u64 {
        let whole = self.cap.saturating_add(BESIDE_THE_CAP);
        whole.saturating_sub(self.bytes.capacity() as u64)
    }

    fn append(&mut self, more: &[u8], held: u64) -> Result<(), Error> {
        let whole = self.cap.saturating_add(BESIDE_THE_CAP);
        let most = self.cap.min(whole.saturating_sub(held));
        let length = self.bytes.len() + more.len();
        if length as u64 > most {
            return Err(too_large(self.cap));
        }
        if length > self.bytes.capacity() {
            // By a quarter: a Vec's own doubling could take all that is left for decoders.
            let ahead = (self.bytes.len() / 4) as u64;
            let ahead = ahead.min(most - length as u64) as usize;
            self.bytes.reserve_exact(more.len() + ahead);
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}
