//! Reuses body buffers between responses.
//!
//! Programs often drop many results at once. An allocator then returns the free memory to the
//! system, and each page of 4 KiB that is allocated again costs a page fault. Without a pool, page
//! faults took a quarter of the CPU time of a 10 KB response and of a 1 MB response.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// The smallest capacity of a pooled buffer.
const MIN_POOLED_BUFFER_BYTES: usize = 4 << 10;
/// The maximum total capacity of all pooled buffers.
const MAX_TOTAL_POOLED_BYTES: usize = 8 << 20;
/// The maximum number of pooled buffers. Each search for a buffer scans all of them.
const MAX_POOLED_BUFFERS: usize = 64;

type LockedBufferQueue = Mutex<VecDeque<Vec<u8>>>;

/// The pooled buffers of one Fetcher, oldest first.
#[derive(Default)]
pub(crate) struct BufferPool(Arc<LockedBufferQueue>);

impl BufferPool {
    /// Takes an empty buffer from the pool. The capacity of the buffer is at least `length` and at
    /// most an eighth more. Returns `None` if the pool has no such buffer.
    pub(super) fn take_fitting_buffer(&self, length: usize) -> Option<Vec<u8>> {
        if !(MIN_POOLED_BUFFER_BYTES..=MAX_TOTAL_POOLED_BYTES).contains(&length) {
            return None;
        }
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| (length..=length + length / 8).contains(&buffer.capacity());
        let index = buffers.iter().position(fits)?;
        buffers.remove(index)
    }

    /// Converts a complete body to [`Bytes`]. When the last clone of the `Bytes` is dropped, the
    /// buffer of the body returns to the pool.
    pub(super) fn pooled_bytes_from(&self, body: Vec<u8>) -> Bytes {
        if !(MIN_POOLED_BUFFER_BYTES..=MAX_TOTAL_POOLED_BYTES).contains(&body.capacity()) {
            return Bytes::from(body);
        }
        Bytes::from_owner(PooledBuffer {
            buffer: body,
            home_pool: Arc::downgrade(&self.0),
        })
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").finish_non_exhaustive()
    }
}

/// A buffer that returns to its pool when it is dropped.
struct PooledBuffer {
    buffer: Vec<u8>,
    home_pool: Weak<LockedBufferQueue>,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for PooledBuffer {
    /// Returns the buffer to the pool and evicts the oldest buffers beyond the limits. Evicted
    /// buffers are freed after the lock is released.
    fn drop(&mut self) {
        let Some(pool) = self.home_pool.upgrade() else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // `evicted` is declared before the lock guard. It is therefore dropped after the lock is
        // released.
        let mut evicted = Vec::new();
        let mut buffers = pool.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push_back(buffer);
        while buffers.len() > MAX_POOLED_BUFFERS
            || buffers.iter().map(Vec::capacity).sum::<usize>() > MAX_TOTAL_POOLED_BYTES
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
    fn buffer_returns_to_the_pool_when_its_last_handle_is_dropped() {
        let pool = BufferPool::default();
        let body = pool.pooled_bytes_from(vec![7; MEGABYTE]);
        let slice = body.slice(10..20);
        drop(body);
        assert_eq!((slice.as_ref(), pooled_bytes(&pool)), (&[7; 10][..], 0));
        drop(slice);
        assert_eq!(pooled_bytes(&pool), MEGABYTE);
        let reused = pool.take_fitting_buffer(MEGABYTE).unwrap();
        assert_eq!((reused.len(), reused.capacity()), (0, MEGABYTE));
        assert_eq!(pooled_bytes(&pool), 0);
    }

    #[test]
    fn pooled_bytes_are_bounded_and_the_newest_buffers_stay() {
        let pool = BufferPool::default();
        let bodies: Vec<Bytes> = (0..12)
            .map(|n| pool.pooled_bytes_from(vec![0; MEGABYTE + n * MEGABYTE / 4]))
            .collect();
        drop(bodies);
        assert!((1..=MAX_TOTAL_POOLED_BYTES).contains(&pooled_bytes(&pool)));
        assert!(pool.take_fitting_buffer(MEGABYTE).is_none());
        assert!(
            pool.take_fitting_buffer(MEGABYTE + 11 * MEGABYTE / 4)
                .is_some()
        );
    }

    #[test]
    fn taken_buffer_is_at_most_an_eighth_larger_than_requested() {
        let pool = BufferPool::default();
        drop(pool.pooled_bytes_from(vec![0; MEGABYTE]));
        assert!(pool.take_fitting_buffer(MEGABYTE / 2).is_none());
        assert!(pool.take_fitting_buffer(MEGABYTE + 1).is_none());
        assert!(pool.take_fitting_buffer(MEGABYTE - MEGABYTE / 10).is_some());
    }

    #[test]
    fn small_and_huge_buffers_are_not_pooled() {
        let pool = BufferPool::default();
        drop(pool.pooled_bytes_from(vec![0; MIN_POOLED_BUFFER_BYTES - 1]));
        drop(pool.pooled_bytes_from(vec![0; MAX_TOTAL_POOLED_BYTES + 1]));
        assert_eq!(pooled_bytes(&pool), 0);
        assert!(
            pool.take_fitting_buffer(MIN_POOLED_BUFFER_BYTES - 1)
                .is_none()
        );
    }

    #[test]
    fn number_of_pooled_buffers_is_bounded() {
        let pool = BufferPool::default();
        let bodies: Vec<Bytes> = (0..3 * MAX_POOLED_BUFFERS)
            .map(|_| pool.pooled_bytes_from(vec![0; MIN_POOLED_BUFFER_BYTES]))
            .collect();
        drop(bodies);
        assert_eq!(
            pooled_bytes(&pool),
            MAX_POOLED_BUFFERS * MIN_POOLED_BUFFER_BYTES
        );
    }

    #[test]
    fn body_outlives_its_pool() {
        let body = BufferPool::default().pooled_bytes_from(vec![7; MIN_POOLED_BUFFER_BYTES]);
        assert_eq!(body.len(), MIN_POOLED_BUFFER_BYTES);
    }
}
