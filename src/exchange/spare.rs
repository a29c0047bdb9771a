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
const LEAST: usize = 4 << 10;
/// The most bytes that are kept, and the most buffers: they are looked through one by one.
const KEPT: usize = 8 << 20;
const BUFFERS: usize = 64;

type Buffers = Mutex<VecDeque<Vec<u8>>>;

/// What a Fetcher keeps of such memory.
#[derive(Default)]
pub(crate) struct Spares(Arc<Buffers>);

impl Spares {
    /// An empty buffer with room for so many bytes, or a little more; none if none is kept.
    pub(super) fn take(&self, length: usize) -> Option<Vec<u8>> {
        if !(LEAST..=KEPT).contains(&length) {
            return None;
        }
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Vec<u8>| (length..=length + length / 8).contains(&buffer.capacity());
        let at = buffers.iter().position(fits)?;
        buffers.remove(at)
    }

    /// A whole body. When its last handle is gone, its memory is kept.
    pub(super) fn lend(&self, whole: Vec<u8>) -> Bytes {
        if !(LEAST..=KEPT).contains(&whole.capacity()) {
            return Bytes::from(whole);
        }
        Bytes::from_owner(Lent {
            whole,
            spares: Arc::downgrade(&self.0),
        })
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").finish_non_exhaustive()
    }
}

struct Lent {
    whole: Vec<u8>,
    spares: Weak<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

impl Drop for Lent {
    /// The oldest make way, and are given back after the lock.
    fn drop(&mut self) {
        let Some(spares) = self.spares.upgrade() else {
            return;
        };
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        let mut too_many = Vec::new();
        let mut buffers = spares.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push_back(whole);
        while buffers.len() > BUFFERS || buffers.iter().map(Vec::capacity).sum::<usize>() > KEPT {
            too_many.extend(buffers.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1 << 20;

    fn kept(spares: &Spares) -> usize {
        spares.0.lock().unwrap().iter().map(Vec::capacity).sum()
    }

    #[test]
    fn memory_is_kept_when_the_last_handle_is_gone_and_no_sooner() {
        let spares = Spares::default();
        let body = spares.lend(vec![7; MEGABYTE]);
        let part = body.slice(10..20);
        drop(body);
        assert_eq!((part.as_ref(), kept(&spares)), (&[7; 10][..], 0));
        drop(part);
        assert_eq!(kept(&spares), MEGABYTE);
        let again = spares.take(MEGABYTE).unwrap();
        assert_eq!((again.len(), again.capacity()), (0, MEGABYTE));
        assert_eq!(kept(&spares), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_stay() {
        let spares = Spares::default();
        let bodies: Vec<Bytes> = (0..12)
            .map(|n| spares.lend(vec![0; MEGABYTE + n * MEGABYTE / 4]))
            .collect();
        drop(bodies);
        assert!((1..=KEPT).contains(&kept(&spares)));
        assert!(spares.take(MEGABYTE).is_none());
        assert!(spares.take(MEGABYTE + 11 * MEGABYTE / 4).is_some());
    }

    #[test]
    fn a_body_gets_little_more_memory_than_it_needs() {
        let spares = Spares::default();
        drop(spares.lend(vec![0; MEGABYTE]));
        assert!(spares.take(MEGABYTE / 2).is_none());
        assert!(spares.take(MEGABYTE + 1).is_none());
        assert!(spares.take(MEGABYTE - MEGABYTE / 10).is_some());
    }

    #[test]
    fn small_and_huge_ones_are_left_to_the_allocator() {
        let spares = Spares::default();
        drop(spares.lend(vec![0; LEAST - 1]));
        drop(spares.lend(vec![0; KEPT + 1]));
        assert_eq!(kept(&spares), 0);
        assert!(spares.take(LEAST - 1).is_none());
    }

    #[test]
    fn few_are_kept_however_small() {
        let spares = Spares::default();
        let bodies: Vec<Bytes> = (0..3 * BUFFERS)
            .map(|_| spares.lend(vec![0; LEAST]))
            .collect();
        drop(bodies);
        assert_eq!(kept(&spares), BUFFERS * LEAST);
    }

    #[test]
    fn a_body_outlives_its_fetcher() {
        let body = Spares::default().lend(vec![7; LEAST]);
        assert_eq!(body.len(), LEAST);
    }
}
