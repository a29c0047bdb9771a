//! A bounded map that drops the entries that have not been used for the longest time.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem::take;

/// A cache made of two maps of at most `max_generation_entries` entries each.
///
/// New and recently read entries are in `recent_entries`. When `recent_entries` is full, it
/// replaces `previous_entries`, whose entries are dropped. An entry that is read from
/// `previous_entries` moves to `recent_entries`. The two maps approximate an LRU cache at the cost
/// of one or two hash lookups, without a linked list.
pub(crate) struct TwoGenerationCache<K, V> {
    recent_entries: HashMap<K, V>,
    previous_entries: HashMap<K, V>,
    max_generation_entries: usize,
}

impl<K: Eq + Hash, V: Clone> TwoGenerationCache<K, V> {
    /// Creates a cache. A full cache holds at least `max_generation_entries` and at most twice as
    /// many entries.
    pub(crate) fn new(max_generation_entries: usize) -> Self {
        Self {
            recent_entries: HashMap::new(),
            previous_entries: HashMap::new(),
            max_generation_entries,
        }
    }

    /// Returns the value of `key` and marks the entry as used.
    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(value) = self.recent_entries.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.previous_entries.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.recent_entries.len() >= self.max_generation_entries
            && !self.recent_entries.contains_key(&key)
        {
            self.previous_entries = take(&mut self.recent_entries);
        }
        self.recent_entries.insert(key, value);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.recent_entries.len() + self.previous_entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_replaces_the_value_in_either_generation() {
        let mut cache = TwoGenerationCache::new(2);
        cache.insert("a", 1);
        cache.insert("a", 2);
        assert_eq!(cache.get("a"), Some(2));
        cache.insert("b", 1);
        cache.insert("c", 1);
        cache.insert("a", 3);
        assert_eq!(cache.get("a"), Some(3));
    }

    #[test]
    fn unused_entries_are_dropped_after_two_generations() {
        let mut cache = TwoGenerationCache::new(10);
        for n in 0..30 {
            cache.insert(n, ());
            assert!(cache.len() <= 20);
        }
        assert_eq!(cache.get(&0), None);
        assert_eq!(cache.get(&9), None);
        assert_eq!(cache.get(&10), Some(()));
        assert_eq!(cache.get(&20), Some(()));
    }

    #[test]
    fn a_used_entry_is_kept() {
        let mut cache = TwoGenerationCache::new(10);
        cache.insert(String::from("used"), ());
        for n in 0..1000 {
            cache.insert(n.to_string(), ());
            assert_eq!(cache.get("used"), Some(()));
        }
        assert!(cache.len() <= 20);
    }
}
