//! Memory of bodies that are gone, for those to come.
//!
//! Results are let go of many at a time, and an allocator tends to give so much free memory back to the system; to have it
//! again costs a page fault for every 4 KiB. That was a quarter of the CPU of an answer of 10 KB, and of one of a
//! megabyte.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// Smaller ones are not worth it.
const MIN_POOLED_BYTES: usize = 4 << 10;
/// The most bytes that are kept, and the most buffers: they are looked through one by one.
const MAX_POOLED_BYTES: usize = 8 << 20;
const MAX_POOLED_BUFFERS: usize = 64;

type SharedBuffers = Mutex<VecDeque<Vec<u8>>>;

/// What a Fetcher keeps of such memory.
#[derive(Default)]
pub(crate) struct BufferPool(Arc<SharedBuffers>);

impl BufferPool {
    /// An empty buffer with room for so many bytes, or a little more; none if none is kept.
    pub(super) fn take(&self, length: usize) -> Option<Vec<u8>> {
        if !(MIN_POOLED_BYTES..=MAX_POOLED_BYTES).contains(&length) {
            return None;
        }
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| (length..=length + length / 8).contains(&buffer.capacity());
        let at = buffers.iter().position(fits)?;
        buffers.remove(at)
    }

    /// A whole body. When its last handle is gone, its memory is kept.
    pub(super) fn wrap(&self, whole: Vec<u8>) -> Bytes {
        if !(MIN_POOLED_BYTES..=MAX_POOLED_BYTES).contains(&whole.capacity()) {
            return Bytes::from(whole);
        }
        Bytes::from_owner(PooledBuffer {
            whole,
            pool: Arc::downgrade(&self.0),
        })
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").finish_non_exhaustive()
    }
}

struct PooledBuffer {
    whole: Vec<u8>,
    pool: Weak<SharedBuffers>,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

impl Drop for PooledBuffer {
    /// The oldest make way, and are given back after the lock.
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        let mut evicted = Vec::new();
        let mut buffers = pool.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push_back(whole);
        while buffers.len() > MAX_POOLED_BUFFERS
            || buffers.iter().map(Vec::capacity).sum::<usize>() > MAX_POOLED_BYTES
        {
            evicted.extend(buffers.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1 << 20;

    fn pooled_bytes(pool: &BufferPool) -> usize {
        pool.0.lock().unwrap().iter().map(Vec::capacity).sum()
    }

    #[test]
    fn memory_is_kept_when_the_last_handle_is_gone_and_no_sooner() {
        let pool = BufferPool::default();
        let body = pool.wrap(vec![7; MEGABYTE]);
        let part = body.slice(10..20);
        drop(body);
        assert_eq!((part.as_ref(), pooled_bytes(&pool)), (&[7; 10][..], 0));
        drop(part);
        assert_eq!(pooled_bytes(&pool), MEGABYTE);
        let again = pool.take(MEGABYTE).unwrap();
        assert_eq!((again.len(), again.capacity()), (0, MEGABYTE));
        assert_eq!(pooled_bytes(&pool), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_stay() {
        let pool = BufferPool::default();
        let bodies: Vec<Bytes> = (0..12)
            .map(|n| pool.wrap(vec![0; MEGABYTE + n * MEGABYTE / 4]))
            .collect();
        drop(bodies);
        assert!((1..=MAX_POOLED_BYTES).contains(&pooled_bytes(&pool)));
        assert!(pool.take(MEGABYTE).is_none());
        assert!(pool.take(MEGABYTE + 11 * MEGABYTE / 4).is_some());
    }

    #[test]
    fn a_body_gets_little_more_memory_than_it_needs() {
        let pool = BufferPool::default();
        drop(pool.wrap(vec![0; MEGABYTE]));
        assert!(pool.take(MEGABYTE / 2).is_none());
        assert!(pool.take(MEGABYTE + 1).is_none());
        assert!(pool.take(MEGABYTE - MEGABYTE / 10).is_some());
    }

    #[test]
    fn small_and_huge_ones_are_left_to_the_allocator() {
        let pool = BufferPool::default();
        drop(pool.wrap(vec![0; MIN_POOLED_BYTES - 1]));
        drop(pool.wrap(vec![0; MAX_POOLED_BYTES + 1]));
        assert_eq!(pooled_bytes(&pool), 0);
        assert!(pool.take(MIN_POOLED_BYTES - 1).is_none());
    }

    #[test]
    fn few_are_kept_however_small() {
        let pool = BufferPool::default();
        let bodies: Vec<Bytes> = (0..3 * MAX_POOLED_BUFFERS)
            .map(|_| pool.wrap(vec![0; MIN_POOLED_BYTES]))
            .collect();
        drop(bodies);
        assert_eq!(pooled_bytes(&pool), MAX_POOLED_BUFFERS * MIN_POOLED_BYTES);
    }

    #[test]
    fn a_body_outlives_its_fetcher() {
        let body = BufferPool::default().wrap(vec![7; MIN_POOLED_BYTES]);
        assert_eq!(body.len(), MIN_POOLED_BYTES);
    }
}
