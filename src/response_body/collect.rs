//! Reads a body into memory.
//!
//! The data is copied out of the connection's read buffer. Otherwise, a body of 100 bytes would
//! keep a read buffer of 8 KiB alive.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::buffer_pool::BufferPool;
use super::decode::{self, Decoder};
use super::reader::BodyReader;
use super::size_limit::body_too_large_error;
use crate::body_budget::BodyReservation;
use crate::error::{Error, ErrorKind};

/// The maximum memory that is allocated for an announced length before the data arrives, in bytes.
const MAX_PREALLOCATED_BYTES: u64 = 1 << 20;

/// Reads and decodes a body of at most `max_body_size` decoded bytes into memory.
pub(crate) async fn read_into_memory(
    reader: BodyReader<'_>,
    decoder: Option<Box<Decoder>>,
    reservation: Option<&mut BodyReservation>,
    max_body_size: u64,
    buffer_pool: &BufferPool,
) -> Result<Bytes, Error> {
    let mut reader = reader.with_body_reservation(reservation);
    let body = match decoder {
        None => collect_without_decoding(&mut reader, max_body_size, buffer_pool).await?,
        Some(decoder) => decode::decode_into_memory(decoder, &mut reader, max_body_size).await?,
    };
    reader.body_meter().record_body_end(body.len() as u64);
    Ok(body)
}

async fn collect_without_decoding(
    reader: &mut BodyReader<'_>,
    max_body_size: u64,
    buffer_pool: &BufferPool,
) -> Result<Bytes, Error> {
    let exact_length = reader.encoded_length();
    reader.body_meter().record_body_start(0, exact_length);
    if exact_length.is_some_and(|length| length > max_body_size) {
        return Err(body_too_large_error(max_body_size));
    }
    let Some(first) = reader.next_chunk().await.transpose()? else {
        return Ok(Bytes::new());
    };
    if exact_length == Some(first.len() as u64) && first.len() as u64 <= max_body_size {
        let body = copy_into_pooled_buffer(&first, buffer_pool);
        reader.count_against_body_budget(body.len());
        drop(first);
        // The connection returns to its pool only when the end of the body is read.
        while let Some(rest) = reader.next_chunk().await.transpose()? {
            if !rest.is_empty() {
                let detail = "the body is longer than announced";
                return Err(Error::from_kind(ErrorKind::Protocol).with_detail(detail));
            }
        }
        return Ok(body);
    }
    collect_remaining_chunks(reader, first, exact_length, max_body_size, buffer_pool).await
}

fn copy_into_pooled_buffer(body: &[u8], buffer_pool: &BufferPool) -> Bytes {
    match buffer_pool.take_fitting_buffer(body.len()) {
        Some(mut buffer) => {
            buffer.extend_from_slice(body);
            buffer_pool.pooled_bytes_from(buffer)
        }
        None => buffer_pool.pooled_bytes_from(body.to_vec()),
    }
}

async fn collect_remaining_chunks(
    reader: &mut BodyReader<'_>,
    first: Bytes,
    exact_length: Option<u64>,
    max_body_size: u64,
    buffer_pool: &BufferPool,
) -> Result<Bytes, Error> {
    let expected_length = exact_length.unwrap_or(0);
    let pooled =
        buffer_pool.take_fitting_buffer(usize::try_from(expected_length).unwrap_or(usize::MAX));
    let mut body = match pooled {
        Some(buffer) => buffer,
        None => Vec::with_capacity(expected_length.min(MAX_PREALLOCATED_BYTES) as usize),
    };
    let mut next = Some(first);
    while let Some(chunk) = next {
        if (body.len() + chunk.len()) as u64 > max_body_size {
            return Err(body_too_large_error(max_body_size));
        }
        body.extend_from_slice(&chunk);
        reader.count_against_body_budget(chunk.len());
        reader.body_meter().record_received_bytes(body.len() as u64);
        drop(chunk);
        next = reader.next_chunk().await.transpose()?;
    }
    Ok(buffer_pool.pooled_bytes_from(shrink_if_oversized(body)))
}

/// Frees the unused capacity if it exceeds an eighth of the length. A buffer that grew with the
/// body may have twice the capacity that it needs.
fn shrink_if_oversized(mut body: Vec<u8>) -> Vec<u8> {
    if body.capacity() - body.len() > body.len() / 8 {
        body.shrink_to_fit();
    }
    body
}

/// Reads and discards an unwanted body, so that its connection can be reused.
///
/// A long or slow body is not read to its end, so its connection is closed. Errors are ignored.
pub(crate) async fn drain_body(reader: &mut BodyReader<'_>) {
    const MAX_DRAINED_BYTES: u64 = 64 << 10;
    const MAX_DRAIN_TIME: Duration = Duration::from_millis(100);
    if reader
        .encoded_length()
        .is_some_and(|length| length > MAX_DRAINED_BYTES)
    {
        return;
    }
    let drain_all = async {
        let mut drained_bytes = 0;
        while let Some(Ok(chunk)) = reader.next_chunk().await {
            drained_bytes += chunk.len() as u64;
            if drained_bytes > MAX_DRAINED_BYTES {
                return;
            }
        }
    };
    // A timeout is not an error: the connection is closed instead of being reused.
    let _ = timeout(MAX_DRAIN_TIME, drain_all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collected_body_has_little_unused_capacity() {
        for (capacity, length, expected) in [(16, 10, 10), (1000, 900, 1000), (1000, 1000, 1000)] {
            let mut body = Vec::with_capacity(capacity * 1024);
            body.resize(length * 1024, 7);
            assert_eq!(shrink_if_oversized(body).capacity(), expected * 1024);
        }
    }
}
