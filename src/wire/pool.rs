//! Connections at rest, and the count of all that are open.
//!
//! A connection belongs to the runtime whose reactor it is registered with, and is found again
//! by (runtime, origin), the last one in first. The lock is held for a few instructions:
//! connections are polled and dropped outside it, since either may call into a runtime.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};

use super::connection::Connection;

/// As long as it matters, and no more than a clock can count.
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often the sweep looks for connections that expired or died.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Slots the sweep looks at under one lock.
const SWEEP_BATCH: usize = 256;
/// Connections closed at once when the process has run out of descriptors.
const EVICT_BATCH: usize = 16;
const NO_KEY: usize = usize::MAX;

pub(super) struct Pool {
    state: Mutex<State>,
    socket_limit: Arc<SocketLimit>,
    idle_timeout: Duration,
}

/// A connection that was at rest.
pub(super) struct IdleConnection {
    pub(super) connection: Box<Connection>,
    pub(super) idle_since: Instant,
}

impl IdleConnection {
    /// Whether it leads to that origin, and has not expired. Its runtime is for the caller to know.
    pub(super) fn is_usable_for(&self, origin: &str, now: Instant) -> bool {
        let connection = &self.connection;
        **connection.origin() == *origin && now < expires_at(connection, self.idle_since)
    }
}

/// Until when a connection may rest that has done so since then.
fn expires_at(connection: &Connection, idle_since: Instant) -> Instant {
    idle_since + connection.idle_timeout().min(MAX_IDLE_TIMEOUT)
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, max_sockets: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::default()),
            socket_limit: Arc::new(SocketLimit {
                open: AtomicUsize::new(0),
                max_open: max_sockets.unwrap_or(usize::MAX),
            }),
            idle_timeout,
        })
    }

    /// The longest a connection may rest when the server names no shorter time.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Takes the connection to `origin` that was laid to rest last, unless it has expired.
    pub(super) fn take(&self, runtime: Id, origin: &str, now: Instant) -> Option<IdleConnection> {
        loop {
            let idle = self.lock().pop_newest(runtime, origin)?;
            if now < idle.expires_at {
                return Some(IdleConnection {
                    connection: idle.connection,
                    idle_since: idle.idle_since,
                });
            }
        }
    }

    /// Lays a connection to rest. The caller has polled it and found nothing amiss.
    pub(super) fn put_idle(self: &Arc<Self>, connection: Box<Connection>, now: Instant) {
        if self.socket_limit.is_exceeded() || connection.idle_timeout().is_zero() {
            return;
        }
        let expires_at = expires_at(&connection, now);
        let runtime = connection.runtime();
        let pool_closed = self.lock().push(connection, now, expires_at);
        if let Some(pool_closed) = pool_closed {
            self.start_sweep(runtime, pool_closed);
        }
    }

    /// The right to open one more socket, for which the oldest connection at rest may have to go.
    pub(super) fn acquire_socket(&self) -> SocketPermit {
        if !self.socket_limit.open() {
            self.evict_oldest();
        }
        SocketPermit(Arc::clone(&self.socket_limit))
    }

    /// Whether one more socket is more than there may be, and none is at rest.
    pub(super) fn is_full(&self) -> bool {
        self.socket_limit.is_full() && self.lock().idle.is_empty()
    }

    /// Closes some connections at rest, since the process has no descriptor left. Answers
    /// whether there were any.
    pub(super) fn evict_for_descriptors(&self) -> bool {
        (0..EVICT_BATCH).take_while(|_| self.evict_oldest()).count() > 0
    }

    fn evict_oldest(&self) -> bool {
        let evicted = self.lock().pop_oldest();
        evicted.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn idle_count(&self) -> usize {
        self.lock().idle.len()
    }

    /// How many at rest have had something happen to them.
    #[cfg(test)]
    pub(super) fn woken_count(&self) -> usize {
        let state = self.lock();
        let was_woken = |(_, idle): &(usize, &IdleEntry)| idle.connection.was_woken();
        state.idle.iter().filter(was_woken).count()
    }

    pub(super) fn open_sockets(&self) -> usize {
        self.socket_limit.open.load(Relaxed)
    }
}

/// The sweep: one task for each runtime that has connections at rest.
impl Pool {
    /// `pool_closed` ends the sweep at once when the pool is dropped.
    fn start_sweep(self: &Arc<Self>, runtime: Id, pool_closed: oneshot::Receiver<Infallible>) {
        let sweep = SweepTask {
            pool: Arc::downgrade(self),
            runtime,
            dropped_early: true,
        };
        // On another runtime, or none, `sweep` is dropped here and takes the connections along.
        if let Ok(handle) = Handle::try_current()
            && handle.id() == runtime
        {
            // Exempt from tokio's socket_limit, which a hundred polls would spend.
            handle.spawn(unconstrained(
                sweep.run(pool_closed, self.idle_timeout.min(SWEEP_INTERVAL)),
            ));
        }
    }

    /// Closes what has expired or died. Answers false, and forgets the runtime, when nothing of
    /// it is left at rest.
    fn sweep_runtime(&self, runtime: Id) -> bool {
        let now = Instant::now();
        let mut start = 0;
        loop {
            let (expired_or_woken, end) = self.lock().take_expired_or_woken(runtime, start, now);
            for mut entry in expired_or_woken {
                if now < entry.expires_at && entry.connection.poll_idle() {
                    // Bound, so that what comes back is dropped after the lock.
                    let _runtime_ended = self.lock().insert(entry);
                }
            }
            start += SWEEP_BATCH;
            if start >= end {
                return self.lock().prune(runtime);
            }
        }
    }
}

struct SweepTask {
    pool: Weak<Pool>,
    runtime: Id,
    /// Still set when the task is dropped before its end: the runtime is shutting down.
    dropped_early: bool,
}

impl SweepTask {
    async fn run(mut self, mut pool_closed: oneshot::Receiver<Infallible>, period: Duration) {
        while timeout(period, &mut pool_closed).await.is_err() {
            if !self
                .pool
                .upgrade()
                .is_some_and(|pool| pool.sweep_runtime(self.runtime))
            {
                break;
            }
        }
        self.dropped_early = false;
    }
}

impl Drop for SweepTask {
    fn drop(&mut self) {
        if self.dropped_early
            && let Some(pool) = self.pool.upgrade()
        {
            // Named, so that the connections are dropped after the lock.
            let _removed = pool.lock().remove_runtime(self.runtime);
        }
    }
}

/// All sockets that are open or being opened.
struct SocketLimit {
    open: AtomicUsize,
    max_open: usize,
}

impl SocketLimit {
    /// Counts one more, and answers whether it fits.
    fn open(&self) -> bool {
        self.open.fetch_add(1, Relaxed) < self.max_open
    }

    fn is_full(&self) -> bool {
        self.open.load(Relaxed) >= self.max_open
    }

    fn is_exceeded(&self) -> bool {
        self.open.load(Relaxed) > self.max_open
    }
}

/// Held by every socket for as long as it is open.
pub(super) struct SocketPermit(Arc<SocketLimit>);

impl SocketPermit {
    /// Whether there are more sockets than there may be.
    pub(super) fn is_over_limit(&self) -> bool {
        self.0.is_exceeded()
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

struct State {
    idle: Slab<IdleEntry>,
    /// The ends of the list that links all of `idle` by age.
    oldest: usize,
    newest: usize,
    /// One for each runtime: nearly always one.
    runtimes: Vec<RuntimePool>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            idle: Slab::new(),
            oldest: NO_KEY,
            newest: NO_KEY,
            runtimes: Vec::new(),
        }
    }
}

/// The connections of one runtime.
struct RuntimePool {
    runtime: Id,
    /// Keys into `State::idle`. An emptied stack stays expires_at the next sweep, since its origin
    /// is likely to be wanted again.
    idle_by_origin: HashMap<Arc<str>, Vec<usize>>,
    idle_count: usize,
    /// Dropped with the runtime_pool: this is what ends the sweep.
    _sweep: oneshot::Sender<Infallible>,
}

struct IdleEntry {
    connection: Box<Connection>,
    idle_since: Instant,
    expires_at: Instant,
    older: usize,
    newer: usize,
}

impl State {
    fn pop_newest(&mut self, runtime: Id, origin: &str) -> Option<IdleEntry> {
        let runtime_pool = self
            .runtimes
            .iter_mut()
            .find(|pool| pool.runtime == runtime)?;
        let key = runtime_pool.idle_by_origin.get_mut(origin)?.pop()?;
        runtime_pool.idle_count -= 1;
        Some(self.unlink(key))
    }

    fn pop_oldest(&mut self) -> Option<IdleEntry> {
        (self.oldest != NO_KEY).then(|| self.remove(self.oldest))
    }

    /// Adds a connection. For the first one of its runtime there is a sweep to start with the
    /// receiver this answers.
    fn push(
        &mut self,
        connection: Box<Connection>,
        idle_since: Instant,
        expires_at: Instant,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let runtime = connection.runtime();
        let opened = if self.runtimes.iter().any(|pool| pool.runtime == runtime) {
            None
        } else {
            let (sweep, pool_closed) = oneshot::channel();
            self.runtimes.push(RuntimePool {
                runtime,
                idle_by_origin: HashMap::new(),
                idle_count: 0,
                _sweep: sweep,
            });
            Some(pool_closed)
        };
        // The runtime_pool exists, so nothing is handed back.
        self.insert(IdleEntry {
            connection,
            idle_since,
            expires_at,
            older: NO_KEY,
            newer: NO_KEY,
        });
        opened
    }

    /// Adds a connection to a runtime_pool; without that runtime_pool its runtime has ended, and it is handed
    /// back to be dropped outside the lock.
    fn insert(&mut self, mut idle: IdleEntry) -> Option<IdleEntry> {
        let runtime = idle.connection.runtime();
        let Some(runtime_pool) = self
            .runtimes
            .iter_mut()
            .find(|pool| pool.runtime == runtime)
        else {
            return Some(idle);
        };
        idle.older = self.newest;
        idle.newer = NO_KEY;
        let origin = idle.connection.origin();
        let key = self.idle.vacant_key();
        match runtime_pool.idle_by_origin.get_mut(&**origin) {
            Some(stack) => stack.push(key),
            None => {
                runtime_pool
                    .idle_by_origin
                    .insert(Arc::clone(origin), vec![key]);
            }
        }
        runtime_pool.idle_count += 1;
        match self.idle.get_mut(self.newest) {
            Some(newest) => newest.newer = key,
            None => self.oldest = key,
        }
        self.newest = key;
        self.idle.insert(idle);
        None
    }

    fn remove(&mut self, key: usize) -> IdleEntry {
        let connection = &self.idle[key].connection;
        let runtime = connection.runtime();
        if let Some(runtime_pool) = self
            .runtimes
            .iter_mut()
            .find(|pool| pool.runtime == runtime)
        {
            runtime_pool.idle_count -= 1;
            if let Some(stack) = runtime_pool.idle_by_origin.get_mut(&**connection.origin()) {
                stack.retain(|&other| other != key);
            }
        }
        self.unlink(key)
    }

    fn unlink(&mut self, key: usize) -> IdleEntry {
        let idle = self.idle.remove(key);
        match self.idle.get_mut(idle.older) {
            Some(older) => older.newer = idle.newer,
            None => self.oldest = idle.newer,
        }
        match self.idle.get_mut(idle.newer) {
            Some(newer) => newer.older = idle.older,
            None => self.newest = idle.older,
        }
        idle
    }

    /// Takes out those of a slice of slots that have expired or been stirred, and answers the
    /// end of all slots too.
    fn take_expired_or_woken(
        &mut self,
        runtime: Id,
        start: usize,
        now: Instant,
    ) -> (Vec<IdleEntry>, usize) {
        let end = self.idle.capacity();
        let keys: Vec<usize> = (start..end.min(start + SWEEP_BATCH))
            .filter(|&key| {
                self.idle.get(key).is_some_and(|idle| {
                    idle.connection.runtime() == runtime
                        && (idle.expires_at <= now || idle.connection.was_woken())
                })
            })
            .collect();
        let expired_or_woken = keys.into_iter().map(|key| self.remove(key)).collect();
        (expired_or_woken, end)
    }

    /// Drops emptied idle_by_origin, or the whole runtime_pool when nothing rests in it. Answers whether the
    /// runtime_pool remains.
    fn prune(&mut self, runtime: Id) -> bool {
        let Some(at) = self
            .runtimes
            .iter()
            .position(|pool| pool.runtime == runtime)
        else {
            return false;
        };
        if self.runtimes[at].idle_count == 0 {
            self.runtimes.swap_remove(at);
            return false;
        }
        self.runtimes[at]
            .idle_by_origin
            .retain(|_, stack| !stack.is_empty());
        true
    }

    /// Takes out everything that belongs to a runtime.
    fn remove_runtime(&mut self, runtime: Id) -> Vec<IdleEntry> {
        let keys: Vec<usize> = self
            .idle
            .iter()
            .filter(|(_, idle)| idle.connection.runtime() == runtime)
            .map(|(key, _)| key)
            .collect();
        let removed = keys.into_iter().map(|key| self.unlink(key)).collect();
        self.runtimes.retain(|pool| pool.runtime != runtime);
        removed
    }
}
