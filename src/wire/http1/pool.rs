//! The pool of idle HTTP/1.1 connections.
//!
//! A connection belongs to the runtime with whose reactor its socket is registered. Only requests
//! of this runtime use the connection. A request takes the newest connection with its key.
//!
//! When another socket is needed, the connection that has been idle for the longest time is closed.
//! A sweep (one task per runtime) closes the connections that have expired or that the server has
//! closed.
//!
//! The lock is held for a few instructions. Connections are polled and dropped without the lock,
//! because both may call into a runtime.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};

use super::idle_list::{IdleConnection, IdleList, Poolable};
use crate::descriptors::IdleConnectionPool;
use crate::wire::sockets::{SocketCountGuard, SocketCounter, SocketLimit};

/// The maximum time between two sweeps of a runtime's idle connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// The number of slab entries that a sweep checks each time it takes the lock.
const SWEEP_BATCH_SIZE: usize = 256;
/// The maximum number of idle connections that are closed at once when file descriptors run out.
const EVICTION_BATCH_SIZE: usize = 16;

/// A pool of idle connections, which also enforces the limit on open sockets.
pub(in crate::wire) struct IdlePool<C> {
    idle_list: Mutex<IdleList<C>>,
    socket_limit: Arc<SocketLimit>,
    idle_timeout: Duration,
}

impl<C: Poolable> IdlePool<C> {
    pub(in crate::wire) fn new(
        idle_timeout: Duration,
        socket_limit: Arc<SocketLimit>,
    ) -> Arc<Self> {
        Arc::new(Self {
            idle_list: Mutex::default(),
            socket_limit,
            idle_timeout,
        })
    }

    /// How long a connection may stay idle, unless the server announces a shorter time.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Takes the newest connection of a runtime and key that has not expired.
    pub(super) fn take_newest(
        &self,
        runtime_id: Id,
        pool_key: &str,
        now: Instant,
    ) -> Option<IdleConnection<C>> {
        loop {
            let idle = self
                .lock_idle_list()
                .pop_newest_for_key(runtime_id, pool_key)?;
            if now < idle.expires_at() {
                return Some(idle);
            }
        }
    }

    /// Adds an idle connection. The caller has polled the connection and found it open.
    ///
    /// If the socket limit is exceeded or the idle timeout of the connection is zero, closes the
    /// connection instead of adding it.
    pub(super) fn put_idle_or_close(self: &Arc<Self>, connection: Box<C>, idle_since: Instant) {
        if self.socket_limit.is_limit_exceeded() || connection.idle_timeout().is_zero() {
            return;
        }
        let runtime_id = connection.runtime_id();
        let sweep_end = self.lock_idle_list().push(IdleConnection {
            connection,
            idle_since,
        });
        if let Some(sweep_end) = sweep_end {
            self.start_sweep(runtime_id, sweep_end);
        }
    }

    /// Whether the limit on open sockets is reached and no idle connection can be closed.
    pub(in crate::wire) fn is_out_of_sockets(&self) -> bool {
        self.socket_limit.is_limit_reached() && self.lock_idle_list().is_empty()
    }

    pub(in crate::wire) fn idle_count(&self) -> usize {
        self.lock_idle_list().len()
    }

    pub(in crate::wire) fn open_socket_count(&self) -> usize {
        self.socket_limit.open_socket_count()
    }

    /// The number of idle connections whose waker was called.
    #[cfg(test)]
    pub(in crate::wire) fn woken_idle_count(&self) -> usize {
        let list = self.lock_idle_list();
        list.iter()
            .filter(|connection| connection.was_woken_while_idle())
            .count()
    }

    fn evict_longest_idle(&self) -> bool {
        // Binding the connection to a variable drops it after the lock is released.
        let evicted = self.lock_idle_list().pop_oldest();
        evicted.is_some()
    }

    /// Spawns the sweep of a runtime: the task that closes its expired idle connections. The task
    /// ends when `sweep_end` closes.
    fn start_sweep(self: &Arc<Self>, runtime_id: Id, sweep_end: oneshot::Receiver<Infallible>) {
        let sweep = SweepTask {
            pool: Arc::downgrade(self),
            runtime_id,
            run_has_returned: false,
        };
        // The sweep must run on the runtime of the connections. On another runtime, `sweep` is
        // dropped, which closes the connections.
        if let Ok(handle) = Handle::try_current()
            && handle.id() == runtime_id
        {
            let period = self.idle_timeout.min(SWEEP_INTERVAL);
            // Exempt from tokio's cooperative budget, which polling a hundred connections would
            // exhaust.
            handle.spawn(unconstrained(sweep.run_sweeps(sweep_end, period)));
        }
    }

    /// Closes the idle connections of a runtime that have expired or that the server has closed.
    /// Returns false if the runtime has no idle connection left.
    fn sweep_runtime(&self, runtime_id: Id) -> bool {
        let now = Instant::now();
        let mut start = 0;
        loop {
            let (taken, end) = self.lock_idle_list().take_expired_or_woken(
                runtime_id,
                start,
                SWEEP_BATCH_SIZE,
                now,
            );
            for mut idle in taken {
                if now < idle.expires_at() && idle.connection.poll_still_open() {
                    // Binding the connection to a variable drops it after the lock is released.
                    let _runtime_ended = self.lock_idle_list().insert_if_runtime_remains(idle);
                }
            }
            start += SWEEP_BATCH_SIZE;
            if start >= end {
                return self.lock_idle_list().remove_empty_stacks(runtime_id);
            }
        }
    }

    fn lock_idle_list(&self) -> MutexGuard<'_, IdleList<C>> {
        self.idle_list
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Poolable> SocketCounter for IdlePool<C> {
    fn count_socket(&self) -> SocketCountGuard {
        let socket_count_guard = self.socket_limit.count_socket();
        if socket_count_guard.is_limit_exceeded() {
            self.evict_longest_idle();
        }
        socket_count_guard
    }
}

impl<C: Poolable> IdleConnectionPool for IdlePool<C> {
    fn close_some_idle_connections(&self) -> bool {
        (0..EVICTION_BATCH_SIZE)
            .take_while(|_| self.evict_longest_idle())
            .count()
            > 0
    }
}

/// The task that sweeps the idle connections of one runtime.
struct SweepTask<C: Poolable> {
    pool: Weak<IdlePool<C>>,
    runtime_id: Id,
    /// Whether `run_sweeps` has returned. It has not returned if the task is dropped because the
    /// runtime shuts down.
    run_has_returned: bool,
}

impl<C: Poolable> SweepTask<C> {
    async fn run_sweeps(mut self, mut sweep_end: oneshot::Receiver<Infallible>, period: Duration) {
        while timeout(period, &mut sweep_end).await.is_err() {
            let pool = self.pool.upgrade();
            if !pool.is_some_and(|pool| pool.sweep_runtime(self.runtime_id)) {
                break;
            }
        }
        self.run_has_returned = true;
    }
}

/// Closes the idle connections of the runtime if the task is dropped because the runtime shuts
/// down.
impl<C: Poolable> Drop for SweepTask<C> {
    fn drop(&mut self) {
        if !self.run_has_returned
            && let Some(pool) = self.pool.upgrade()
        {
            // Binding the connections to a variable drops them after the lock is released.
            let _removed = pool.lock_idle_list().remove_runtime(self.runtime_id);
        }
    }
}
