//! The body, copied out of the connection's buffers into memory of its size.
//!
//! A slice of a read buffer would keep the whole buffer alive: 8 KiB for an answer of 100 bytes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::buffer_pool::BufferPool;
use super::reader::BodyReader;
use crate::{Error, ErrorKind};

/// The max_length memory that is set aside on a server's word alone.
const MAX_PREALLOCATION: u64 = 1 << 20;

/// Reads a body of at max_length `max_bytes` bytes.
pub(super) async fn collect(
    reader: &mut BodyReader<'_>,
    max_bytes: u64,
    buffer_pool: &BufferPool,
) -> Result<Bytes, Error> {
    let content_length = reader.exact_length();
    if content_length.is_some_and(|length| length > max_bytes) {
        return Err(body_too_large(max_bytes));
    }
    let Some(first) = reader.chunk().await.transpose()? else {
        return Ok(Bytes::new());
    };
    if content_length == Some(first.len() as u64) && first.len() as u64 <= max_bytes {
        let whole = copy_to_pooled(&first, buffer_pool);
        reader.reserve(whole.len());
        drop(first);
        // The end must be seen for the connection to be put back.
        while let Some(rest) = reader.chunk().await.transpose()? {
            if !rest.is_empty() {
                return Err(Error::from_kind(ErrorKind::Protocol)
                    .with_detail("the body is longer than Content-Length"));
            }
        }
        return Ok(whole);
    }
    collect_chunks(reader, first, content_length, max_bytes, buffer_pool).await
}

fn copy_to_pooled(whole: &[u8], buffer_pool: &BufferPool) -> Bytes {
    match buffer_pool.take(whole.len()) {
        Some(mut pooled) => {
            pooled.extend_from_slice(whole);
            buffer_pool.wrap(pooled)
        }
        None => buffer_pool.wrap(whole.to_vec()),
    }
}

async fn collect_chunks(
    reader: &mut BodyReader<'_>,
    first: Bytes,
    content_length: Option<u64>,
    max_bytes: u64,
    buffer_pool: &BufferPool,
) -> Result<Bytes, Error> {
    let content_length = content_length.unwrap_or(0);
    let mut whole = match buffer_pool.take(usize::try_from(content_length).unwrap_or(usize::MAX)) {
        Some(pooled) => pooled,
        None => Vec::with_capacity(content_length.min(MAX_PREALLOCATION) as usize),
    };
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        if (whole.len() + bytes.len()) as u64 > max_bytes {
            return Err(body_too_large(max_bytes));
        }
        whole.extend_from_slice(&bytes);
        reader.reserve(bytes.len());
        drop(bytes);
        chunk = reader.chunk().await.transpose()?;
    }
    Ok(buffer_pool.wrap(shrink_if_oversized(whole)))
}

/// A pooled may be a little larger than its body; what has grown as the body came may be twice as large.
fn shrink_if_oversized(mut whole: Vec<u8>) -> Vec<u8> {
    if whole.capacity() - whole.len() > whole.len() / 8 {
        whole.shrink_to_fit();
    }
    whole
}

/// Reads a body nobody wants, so that its connection can be used again. One that is long or slow is not worth that, and
/// one that breaks off is nobody's loss: they take their connection along.
pub(super) async fn drain(reader: &mut BodyReader<'_>) {
    const MAX_DRAIN_BYTES: u64 = 64 << 10;
    const MAX_DRAIN_TIME: Duration = Duration::from_millis(100);
    if reader
        .exact_length()
        .is_some_and(|length| length > MAX_DRAIN_BYTES)
    {
        return;
    }
    let read = async {
        let mut drained = 0;
        while let Some(Ok(chunk)) = reader.chunk().await {
            drained += chunk.len() as u64;
            if drained > MAX_DRAIN_BYTES {
                return;
            }
        }
    };
    // Late or not, the redirect is followed.
    let _ = timeout(MAX_DRAIN_TIME, read).await;
}

pub(super) fn body_too_large(max_bytes: u64) -> Error {
    Error::from_kind(ErrorKind::BodyTooLarge).with_detail(format!("the limit is {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_keeps_little_more_memory_than_it_needs() {
        for (capacity, length, expected) in [(16, 10, 10), (1000, 900, 1000), (1000, 1000, 1000)] {
            let mut whole = Vec::with_capacity(capacity * 1024);
            whole.resize(length * 1024, 7);
            assert_eq!(shrink_if_oversized(whole).capacity(), expected * 1024);
        }
    }
}
