//! A fast hasher for slab indices.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by slab indices.
pub(super) type SlabIndexMap<V> = HashMap<usize, V, BuildHasherDefault<SlabIndexHasher>>;

/// Hashes a slab index with one multiplication.
///
/// The schedule assigns the indices, so no peer can provoke hash collisions.
#[derive(Default)]
pub(super) struct SlabIndexHasher(u64);

impl Hasher for SlabIndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(usize::from(byte));
        }
    }

    fn write_usize(&mut self, index: usize) {
        // `HashMap` takes the bucket from the low bits of the hash and the tag from the high bits.
        // The multiplication mixes the high bits, and the shift copies them to the low bits.
        self.0 = (self.0 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
