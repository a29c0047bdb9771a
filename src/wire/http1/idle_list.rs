//! The data structure of the pool: idle connections by runtime and key, linked by age.
//!
//! ```text
//! entries_by_runtime   runtime 1 ─┬─ "http://a.example:80"  ─ [0, 3]   indexes, newest last
//!                                 └─ "http://b.example:80"  ─ [2]
//!                      runtime 2 ─── "http://a.example:80"  ─ [1]
//!
//! entries              oldest ─ 0 ─ 1 ─ 2 ─ 3 ─ newest                 a list within a slab
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::runtime::Id;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::wire::per_runtime::PerRuntime;

/// The longest idle timeout. A longer timeout could overflow an [`Instant`].
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// The index of a neighbour that does not exist: the oldest entry has no older neighbour, and the
/// newest has no newer one.
const NO_INDEX: usize = usize::MAX;

/// A connection that a pool can hold.
pub(in crate::wire) trait Poolable: Send + 'static {
    /// The runtime with whose reactor the socket is registered.
    fn runtime_id(&self) -> Id;

    /// The key under which the pool stores the connection.
    fn pool_key(&self) -> &Arc<str>;

    /// How long the connection may stay idle before it is closed.
    fn idle_timeout(&self) -> Duration;

    /// Whether the waker of the idle connection was called since the last
    /// [`poll_still_open`](Self::poll_still_open).
    fn was_woken_while_idle(&self) -> bool;

    /// Polls the idle connection and registers its waker. Returns whether the connection can serve
    /// another request.
    fn poll_still_open(&mut self) -> bool;
}

/// A connection and the time at which it became idle.
pub(in crate::wire) struct IdleConnection<C> {
    pub(in crate::wire) connection: Box<C>,
    pub(in crate::wire) idle_since: Instant,
}

impl<C: Poolable> IdleConnection<C> {
    /// Whether a request with this pool key can use the connection. The caller ensures that the
    /// request runs on the runtime of the connection.
    pub(super) fn is_usable_for_key(&self, pool_key: &str, now: Instant) -> bool {
        **self.connection.pool_key() == *pool_key && now < self.expires_at()
    }

    pub(super) fn expires_at(&self) -> Instant {
        self.idle_since + self.connection.idle_timeout().min(MAX_IDLE_TIMEOUT)
    }
}

/// All idle connections of a pool.
pub(super) struct IdleList<C> {
    entries: Slab<IdleEntry<C>>,
    oldest_index: usize,
    newest_index: usize,
    entries_by_runtime: PerRuntime<RuntimeEntries>,
}

struct IdleEntry<C> {
    idle_connection: IdleConnection<C>,
    expires_at: Instant,
    older_index: usize,
    newer_index: usize,
}

/// The idle connections of one runtime.
struct RuntimeEntries {
    /// For each pool key, the indexes into [`IdleList::entries`], newest last.
    /// [`remove_empty_stacks`](IdleList::remove_empty_stacks) removes empty stacks. Until then they
    /// stay, because their keys are likely to be used again.
    index_stacks_by_key: HashMap<Arc<str>, Vec<usize>>,
    idle_count: usize,
    /// Dropped with the last idle connection of the runtime. The drop ends the sweep (the task that
    /// closes expired connections).
    _ends_sweep_on_drop: oneshot::Sender<Infallible>,
}

impl<C> Default for IdleList<C> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            oldest_index: NO_INDEX,
            newest_index: NO_INDEX,
            entries_by_runtime: PerRuntime::default(),
        }
    }
}

impl<C: Poolable> IdleList<C> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &C> {
        self.entries
            .iter()
            .map(|(_, entry)| &*entry.idle_connection.connection)
    }

    /// Takes the newest connection of a runtime and key. The server is the least likely to have
    /// closed the newest one.
    pub(super) fn pop_newest_for_key(
        &mut self,
        runtime_id: Id,
        pool_key: &str,
    ) -> Option<IdleConnection<C>> {
        let of_runtime = self.entries_by_runtime.get_mut(runtime_id)?;
        let index = of_runtime.index_stacks_by_key.get_mut(pool_key)?.pop()?;
        of_runtime.idle_count -= 1;
        Some(self.unlink_entry(index))
    }

    /// Takes the connection that has been idle for the longest.
    pub(super) fn pop_oldest(&mut self) -> Option<IdleConnection<C>> {
        (self.oldest_index != NO_INDEX).then(|| self.remove_entry(self.oldest_index))
    }

    /// Adds a connection. For the first connection of a runtime, returns the receiver of a channel,
    /// and the caller starts a sweep. The channel closes when the runtime has no idle connection
    /// left, which ends the sweep.
    pub(super) fn push(
        &mut self,
        idle: IdleConnection<C>,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let runtime_id = idle.connection.runtime_id();
        let mut sweep_end = None;
        if !self.entries_by_runtime.contains(runtime_id) {
            let (sweep_end_sender, receiver) = oneshot::channel();
            self.entries_by_runtime.insert(
                runtime_id,
                RuntimeEntries {
                    index_stacks_by_key: HashMap::new(),
                    idle_count: 0,
                    _ends_sweep_on_drop: sweep_end_sender,
                },
            );
            sweep_end = Some(receiver);
        }
        // The connection is never returned here, because its runtime has an entry now.
        self.insert_if_runtime_remains(idle);
        sweep_end
    }

    /// Adds a connection if its runtime still has an entry. Otherwise the runtime has shut down,
    /// and the connection is returned. The caller then drops the connection after it has released
    /// the lock.
    pub(super) fn insert_if_runtime_remains(
        &mut self,
        idle: IdleConnection<C>,
    ) -> Option<IdleConnection<C>> {
        let Some(of_runtime) = self
            .entries_by_runtime
            .get_mut(idle.connection.runtime_id())
        else {
            return Some(idle);
        };
        let pool_key = idle.connection.pool_key();
        let index = self.entries.vacant_key();
        match of_runtime.index_stacks_by_key.get_mut(&**pool_key) {
            Some(stack) => stack.push(index),
            None => {
                of_runtime
                    .index_stacks_by_key
                    .insert(Arc::clone(pool_key), vec![index]);
            }
        }
        of_runtime.idle_count += 1;
        match self.entries.get_mut(self.newest_index) {
            Some(newest) => newest.newer_index = index,
            None => self.oldest_index = index,
        }
        self.entries.insert(IdleEntry {
            expires_at: idle.expires_at(),
            idle_connection: idle,
            older_index: self.newest_index,
            newer_index: NO_INDEX,
        });
        self.newest_index = index;
        None
    }

    /// Takes the expired and the woken connections of a runtime. Searches `batch_size` slab entries
    /// from index `start` on. Returns the connections, and the end index of the whole slab.
    pub(super) fn take_expired_or_woken(
        &mut self,
        runtime_id: Id,
        start: usize,
        batch_size: usize,
        now: Instant,
    ) -> (Vec<IdleConnection<C>>, usize) {
        let end = self.entries.capacity();
        let indexes: Vec<usize> = (start..end.min(start + batch_size))
            .filter(|&index| {
                self.entries.get(index).is_some_and(|entry| {
                    let connection = &entry.idle_connection.connection;
                    connection.runtime_id() == runtime_id
                        && (entry.expires_at <= now || connection.was_woken_while_idle())
                })
            })
            .collect();
        let taken = indexes.into_iter().map(|index| self.remove_entry(index));
        (taken.collect(), end)
    }

    /// Removes the empty stacks of a runtime, or the whole runtime if it has no idle connection.
    /// Returns whether the runtime is still in the list.
    pub(super) fn remove_empty_stacks(&mut self, runtime_id: Id) -> bool {
        let Some(of_runtime) = self.entries_by_runtime.get_mut(runtime_id) else {
            return false;
        };
        if of_runtime.idle_count == 0 {
            self.entries_by_runtime.remove(runtime_id);
            return false;
        }
        of_runtime
            .index_stacks_by_key
            .retain(|_, stack| !stack.is_empty());
        true
    }

    /// Removes a runtime from the list and returns all its connections.
    pub(super) fn remove_runtime(&mut self, runtime_id: Id) -> Vec<IdleConnection<C>> {
        let indexes: Vec<usize> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.idle_connection.connection.runtime_id() == runtime_id)
            .map(|(index, _)| index)
            .collect();
        let removed = indexes.into_iter().map(|index| self.unlink_entry(index));
        let removed = removed.collect();
        self.entries_by_runtime.remove(runtime_id);
        removed
    }

    fn remove_entry(&mut self, index: usize) -> IdleConnection<C> {
        let connection = &self.entries[index].idle_connection.connection;
        if let Some(of_runtime) = self.entries_by_runtime.get_mut(connection.runtime_id()) {
            of_runtime.idle_count -= 1;
            if let Some(stack) = of_runtime
                .index_stacks_by_key
                .get_mut(&**connection.pool_key())
            {
                stack.retain(|&other| other != index);
            }
        }
        self.unlink_entry(index)
    }

    fn unlink_entry(&mut self, index: usize) -> IdleConnection<C> {
        let entry = self.entries.remove(index);
        match self.entries.get_mut(entry.older_index) {
            Some(older) => older.newer_index = entry.newer_index,
            None => self.oldest_index = entry.newer_index,
        }
        match self.entries.get_mut(entry.newer_index) {
            Some(newer) => newer.older_index = entry.older_index,
            None => self.newest_index = entry.older_index,
        }
        entry.idle_connection
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    struct TestConnection {
        runtime_id: Id,
        pool_key: Arc<str>,
        number: usize,
        woken: bool,
    }

    impl Poolable for TestConnection {
        fn runtime_id(&self) -> Id {
            self.runtime_id
        }

        fn pool_key(&self) -> &Arc<str> {
            &self.pool_key
        }

        fn idle_timeout(&self) -> Duration {
            Duration::from_secs(10)
        }

        fn was_woken_while_idle(&self) -> bool {
            self.woken
        }

        fn poll_still_open(&mut self) -> bool {
            true
        }
    }

    fn runtime_id() -> Id {
        Builder::new_current_thread().build().unwrap().handle().id()
    }

    fn idle(
        runtime_id: Id,
        pool_key: &str,
        number: usize,
        idle_since: Instant,
    ) -> IdleConnection<TestConnection> {
        IdleConnection {
            connection: Box::new(TestConnection {
                runtime_id,
                pool_key: pool_key.into(),
                number,
                woken: false,
            }),
            idle_since,
        }
    }

    fn number(idle: Option<IdleConnection<TestConnection>>) -> Option<usize> {
        idle.map(|idle| idle.connection.number)
    }

    #[test]
    fn newest_is_taken_by_key_and_oldest_is_evicted() {
        let (one, two, now) = (runtime_id(), runtime_id(), Instant::now());
        let mut list = IdleList::default();
        for (number, runtime_id, key) in
            [(0, one, "a"), (1, two, "a"), (2, one, "b"), (3, one, "a")]
        {
            list.push(idle(runtime_id, key, number, now));
        }
        assert_eq!(number(list.pop_newest_for_key(one, "a")), Some(3));
        assert_eq!(number(list.pop_oldest()), Some(0));
        assert_eq!(number(list.pop_newest_for_key(one, "a")), None);
        assert_eq!(number(list.pop_oldest()), Some(1));
        assert_eq!(number(list.pop_newest_for_key(two, "b")), None);
        assert_eq!(number(list.pop_oldest()), Some(2));
        assert!(list.is_empty() && list.pop_oldest().is_none());
    }

    #[test]
    fn only_the_first_connection_of_a_runtime_starts_a_sweep() {
        let (one, two, now) = (runtime_id(), runtime_id(), Instant::now());
        let mut list = IdleList::default();
        let mut sweep_end = list.push(idle(one, "a", 0, now)).unwrap();
        assert!(list.push(idle(one, "b", 1, now)).is_none());
        assert!(list.push(idle(two, "a", 2, now)).is_some());
        assert!(list.remove_empty_stacks(one));
        assert_eq!(list.remove_runtime(one).len(), 2);
        assert!(
            sweep_end
                .try_recv()
                .is_err_and(|error| { error == oneshot::error::TryRecvError::Closed })
        );
        assert!(!list.remove_empty_stacks(one) && list.remove_empty_stacks(two));
        assert_eq!(
            number(list.insert_if_runtime_remains(idle(one, "a", 3, now))),
            Some(3)
        );
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn expired_and_woken_connections_of_a_runtime_are_taken() {
        let (one, two, now) = (runtime_id(), runtime_id(), Instant::now());
        let later = now + Duration::from_secs(5);
        let mut list = IdleList::default();
        list.push(idle(one, "a", 0, now));
        list.push(idle(one, "a", 1, later));
        list.push(idle(two, "a", 2, now));
        let mut woken = idle(one, "a", 3, later);
        woken.connection.woken = true;
        list.push(woken);
        let at = now + Duration::from_secs(10);
        let (taken, end) = list.take_expired_or_woken(one, 0, 2, at);
        let taken = taken.iter().map(|idle| idle.connection.number);
        assert_eq!(taken.collect::<Vec<_>>(), [0]);
        let (taken, _) = list.take_expired_or_woken(one, 2, end, at);
        let taken = taken.iter().map(|idle| idle.connection.number);
        assert_eq!(taken.collect::<Vec<_>>(), [3]);
        assert_eq!(number(list.pop_newest_for_key(one, "a")), Some(1));
    }
}
