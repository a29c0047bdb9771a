//! The body, copied out of the connection's buffers into memory of its size.
//!
//! A slice of a read buffer would keep the whole buffer alive: 8 KiB for an answer of 100 bytes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::reader::Reader;
use super::spare::Spares;
use crate::{Error, ErrorKind};

/// The most memory that is set aside on a server's word alone.
const TRUSTED_LENGTH: u64 = 1 << 20;

/// Reads a body of at most `cap` bytes.
pub(super) async fn collect(
    reader: &mut Reader<'_>,
    cap: u64,
    spares: &Spares,
) -> Result<Bytes, Error> {
    let announced = reader.exact_length();
    if announced.is_some_and(|length| length > cap) {
        return Err(too_large(cap));
    }
    let Some(first) = reader.chunk().await.transpose()? else {
        return Ok(Bytes::new());
    };
    if announced == Some(first.len() as u64) && first.len() as u64 <= cap {
        let whole = copy(&first, spares);
        reader.keep(whole.len());
        drop(first);
        // The end must be seen for the connection to be put back.
        while let Some(rest) = reader.chunk().await.transpose()? {
            if !rest.is_empty() {
                return Err(Error::of(ErrorKind::Protocol).because("more body than was announced"));
            }
        }
        return Ok(whole);
    }
    collect_rest(reader, first, announced, cap, spares).await
}

fn copy(whole: &[u8], spares: &Spares) -> Bytes {
    match spares.take(whole.len()) {
        Some(mut spare) => {
            spare.extend_from_slice(whole);
            spares.lend(spare)
        }
        None => spares.lend(whole.to_vec()),
    }
}

async fn collect_rest(
    reader: &mut Reader<'_>,
    first: Bytes,
    announced: Option<u64>,
    cap: u64,
    spares: &Spares,
) -> Result<Bytes, Error> {
    let announced = announced.unwrap_or(0);
    let mut whole = match spares.take(usize::try_from(announced).unwrap_or(usize::MAX)) {
        Some(spare) => spare,
        None => Vec::with_capacity(announced.min(TRUSTED_LENGTH) as usize),
    };
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        if (whole.len() + bytes.len()) as u64 > cap {
            return Err(too_large(cap));
        }
        whole.extend_from_slice(&bytes);
        reader.keep(bytes.len());
        drop(bytes);
        chunk = reader.chunk().await.transpose()?;
    }
    Ok(spares.lend(fitted(whole)))
}

/// A spare may be a little larger than its body; what has grown as the body came may be twice as large.
fn fitted(mut whole: Vec<u8>) -> Vec<u8> {
    if whole.capacity() - whole.len() > whole.len() / 8 {
        whole.shrink_to_fit();
    }
    whole
}

/// Reads a body nobody wants, so that its connection can be used again. One that is long or slow is not worth that, and
/// one that breaks off is nobody's loss: they take their connection along.
pub(super) async fn pass_over(reader: &mut Reader<'_>) {
    const WORTH_READING: u64 = 64 << 10;
    const WORTH_WAITING: Duration = Duration::from_millis(100);
    if reader
        .exact_length()
        .is_some_and(|length| length > WORTH_READING)
    {
        return;
    }
    let read = async {
        let mut passed = 0;
        while let Some(Ok(chunk)) = reader.chunk().await {
            passed += chunk.len() as u64;
            if passed > WORTH_READING {
                return;
            }
        }
    };
    // Late or not, the redirect is followed.
    let _ = timeout(WORTH_WAITING, read).await;
}

pub(super) fn too_large(cap: u64) -> Error {
    Error::of(ErrorKind::BodyTooLarge).because(format!("the cap is {cap} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_keeps_little_more_memory_than_it_needs() {
        for (capacity, length, kept) in [(16, 10, 10), (1000, 900, 1000), (1000, 1000, 1000)] {
            let mut whole = Vec::with_capacity(capacity * 1024);
            whole.resize(length * 1024, 7);
            assert_eq!(fitted(whole).capacity(), kept * 1024);
        }
    }
}
