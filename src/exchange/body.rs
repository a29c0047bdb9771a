//! The body, copied out of the connection's buffers into memory of exactly its size.
//!
//! A slice of a read buffer would keep the whole buffer alive: 8 KiB for an answer of 100 bytes.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::transport::Incoming;
use crate::wire::Progress;
use crate::{Error, ErrorKind};

/// The body of one answer as it is read: into memory, to a file or by a handler.
pub(super) struct Reader<'a> {
    incoming: Incoming,
    progress: &'a Progress,
}

impl<'a> Reader<'a> {
    pub(super) fn new(incoming: Incoming, progress: &'a Progress) -> Self {
        Self { incoming, progress }
    }

    pub(super) fn progress(&self) -> &'a Progress {
        self.progress
    }

    /// The next piece of the body. It may be a slice of a far larger buffer.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        self.incoming.poll_chunk(cx, self.progress)
    }

    /// How much is left of it, if that is known.
    pub(super) fn exact_length(&self) -> Option<u64> {
        self.incoming.exact_length()
    }
}

/// The most memory that is set aside on a server's word alone.
const TRUSTED_LENGTH: u64 = 1 << 20;

/// Reads a body of at most `cap` bytes.
pub(super) async fn collect(reader: &mut Reader<'_>, cap: u64) -> Result<Bytes, Error> {
    let announced = reader.exact_length();
    if announced.is_some_and(|length| length > cap) {
        return Err(too_large(cap));
    }
    let Some(first) = reader.chunk().await.transpose()? else {
        return Ok(Bytes::new());
    };
    if announced == Some(first.len() as u64) && first.len() as u64 <= cap {
        let whole = Bytes::copy_from_slice(&first);
        drop(first);
        // The end must be seen for the connection to be put back.
        while let Some(rest) = reader.chunk().await.transpose()? {
            debug_assert!(rest.is_empty());
        }
        return Ok(whole);
    }
    collect_rest(reader, first, announced, cap).await
}

async fn collect_rest(
    reader: &mut Reader<'_>,
    first: Bytes,
    announced: Option<u64>,
    cap: u64,
) -> Result<Bytes, Error> {
    let capacity = announced.unwrap_or(0).min(TRUSTED_LENGTH) as usize;
    let mut whole = Vec::with_capacity(capacity);
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        if (whole.len() + bytes.len()) as u64 > cap {
            return Err(too_large(cap));
        }
        whole.extend_from_slice(&bytes);
        drop(bytes);
        chunk = reader.chunk().await.transpose()?;
    }
    whole.shrink_to_fit();
    Ok(Bytes::from(whole))
}

/// Reads a body nobody wants, so that its connection can be used again. A long one is not worth that, and one that
/// breaks off is nobody's loss: they take their connection along.
pub(super) async fn pass_over(reader: &mut Reader<'_>) {
    const WORTH_READING: usize = 64 << 10;
    let mut passed = 0;
    while let Some(Ok(chunk)) = reader.chunk().await {
        passed += chunk.len();
        if passed > WORTH_READING {
            return;
        }
    }
}

fn too_large(cap: u64) -> Error {
    Error::of(ErrorKind::BodyTooLarge).because(format!("the cap is {cap} bytes"))
}
