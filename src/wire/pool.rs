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
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often the sweep looks for connections that expired or died.
const SWEEP: Duration = Duration::from_secs(2);
/// Slots the sweep looks at under one lock.
const SLICE: usize = 256;
/// Connections closed at once when the process has run out of descriptors.
const RELIEF: usize = 16;
const NONE: usize = usize::MAX;

pub(super) struct Pool {
    state: Mutex<State>,
    budget: Arc<Budget>,
    idle: Duration,
}

/// A connection that was at rest.
pub(super) struct Rested {
    pub(super) connection: Box<Connection>,
    pub(super) since: Instant,
}

impl Rested {
    /// Whether it leads to that origin, and has not expired. Its runtime is for the caller to know.
    pub(super) fn serves(&self, origin: &str, now: Instant) -> bool {
        let connection = &self.connection;
        **connection.origin() == *origin && now < expiry(connection, self.since)
    }
}

/// Until when a connection may rest that has done so since then.
fn expiry(connection: &Connection, since: Instant) -> Instant {
    since + connection.keep().min(FOREVER)
}

impl Pool {
    pub(super) fn new(idle: Duration, descriptors: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::default()),
            budget: Arc::new(Budget {
                open: AtomicUsize::new(0),
                most: descriptors.unwrap_or(usize::MAX),
            }),
            idle,
        })
    }

    /// The longest a connection may rest when the server names no shorter time.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// Takes the connection to `origin` that was laid to rest last, unless it has expired.
    pub(super) fn take(&self, runtime: Id, origin: &str, now: Instant) -> Option<Rested> {
        loop {
            let resting = self.lock().pop(runtime, origin)?;
            if now < resting.until {
                return Some(Rested {
                    connection: resting.connection,
                    since: resting.since,
                });
            }
        }
    }

    /// Lays a connection to rest. The caller has polled it and found nothing amiss.
    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, now: Instant) {
        if self.budget.is_exceeded() || connection.keep().is_zero() {
            return;
        }
        let until = expiry(&connection, now);
        let runtime = connection.runtime();
        let gone = self.lock().push(connection, now, until);
        if let Some(gone) = gone {
            self.start_sweep(runtime, gone);
        }
    }

    /// The right to open one more socket, for which the oldest connection at rest may have to go.
    pub(super) fn claim(&self) -> Token {
        if !self.budget.open() {
            self.evict_oldest();
        }
        Token(Arc::clone(&self.budget))
    }

    /// Whether one more socket is more than there may be, and none is at rest.
    pub(super) fn lacks_room(&self) -> bool {
        self.budget.is_full() && self.lock().resting.is_empty()
    }

    /// Closes some connections at rest, since the process has no descriptor left. Answers
    /// whether there were any.
    pub(super) fn relieve(&self) -> bool {
        (0..RELIEF).take_while(|_| self.evict_oldest()).count() > 0
    }

    fn evict_oldest(&self) -> bool {
        let evicted = self.lock().pop_oldest();
        evicted.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resting(&self) -> usize {
        self.lock().resting.len()
    }

    /// How many at rest have had something happen to them.
    #[cfg(test)]
    pub(super) fn stirred(&self) -> usize {
        let state = self.lock();
        let stirred = |(_, resting): &(usize, &Resting)| resting.connection.is_stirred();
        state.resting.iter().filter(stirred).count()
    }

    pub(super) fn open(&self) -> usize {
        self.budget.open.load(Relaxed)
    }
}

/// The sweep: one task for each runtime that has connections at rest.
impl Pool {
    /// `gone` ends the sweep at once when the pool is dropped.
    fn start_sweep(self: &Arc<Self>, runtime: Id, gone: oneshot::Receiver<Infallible>) {
        let sweep = Sweep {
            pool: Arc::downgrade(self),
            runtime,
            cut_short: true,
        };
        // On another runtime, or none, `sweep` is dropped here and takes the connections along.
        if let Ok(handle) = Handle::try_current()
            && handle.id() == runtime
        {
            // Exempt from tokio's budget, which a hundred polls would spend.
            handle.spawn(unconstrained(sweep.run(gone, self.idle.min(SWEEP))));
        }
    }

    /// Closes what has expired or died. Answers false, and forgets the runtime, when nothing of
    /// it is left at rest.
    fn sweep(&self, runtime: Id) -> bool {
        let now = Instant::now();
        let mut start = 0;
        loop {
            let (suspects, end) = self.lock().suspects(runtime, start, now);
            for mut suspect in suspects {
                if now < suspect.until && suspect.connection.lie_down() {
                    // Bound, so that what comes back is dropped after the lock.
                    let _homeless = self.lock().insert(suspect);
                }
            }
            start += SLICE;
            if start >= end {
                return self.lock().tidy(runtime);
            }
        }
    }
}

struct Sweep {
    pool: Weak<Pool>,
    runtime: Id,
    /// Still set when the task is dropped before its end: the runtime is shutting down.
    cut_short: bool,
}

impl Sweep {
    async fn run(mut self, mut gone: oneshot::Receiver<Infallible>, period: Duration) {
        while timeout(period, &mut gone).await.is_err() {
            if !self
                .pool
                .upgrade()
                .is_some_and(|pool| pool.sweep(self.runtime))
            {
                break;
            }
        }
        self.cut_short = false;
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        if self.cut_short
            && let Some(pool) = self.pool.upgrade()
        {
            // Named, so that the connections are dropped after the lock.
            let _abandoned = pool.lock().abandon(self.runtime);
        }
    }
}

/// All sockets that are open or being opened.
struct Budget {
    open: AtomicUsize,
    most: usize,
}

impl Budget {
    /// Counts one more, and answers whether it fits.
    fn open(&self) -> bool {
        self.open.fetch_add(1, Relaxed) < self.most
    }

    fn is_full(&self) -> bool {
        self.open.load(Relaxed) >= self.most
    }

    fn is_exceeded(&self) -> bool {
        self.open.load(Relaxed) > self.most
    }
}

/// Held by every socket for as long as it is open.
pub(super) struct Token(Arc<Budget>);

impl Token {
    /// Whether there are more sockets than there may be.
    pub(super) fn is_in_excess(&self) -> bool {
        self.0.is_exceeded()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

struct State {
    resting: Slab<Resting>,
    /// The ends of the list that links all of `resting` by age.
    oldest: usize,
    newest: usize,
    /// One for each runtime: nearly always one.
    rooms: Vec<Room>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            resting: Slab::new(),
            oldest: NONE,
            newest: NONE,
            rooms: Vec::new(),
        }
    }
}

/// The connections of one runtime.
struct Room {
    runtime: Id,
    /// Keys into `State::resting`. An emptied stack stays until the next sweep, since its origin
    /// is likely to be wanted again.
    stacks: HashMap<Arc<str>, Vec<usize>>,
    resting: usize,
    /// Dropped with the room: this is what ends the sweep.
    _sweep: oneshot::Sender<Infallible>,
}

struct Resting {
    connection: Box<Connection>,
    since: Instant,
    until: Instant,
    older: usize,
    newer: usize,
}

impl State {
    fn pop(&mut self, runtime: Id, origin: &str) -> Option<Resting> {
        let room = self.rooms.iter_mut().find(|room| room.runtime == runtime)?;
        let key = room.stacks.get_mut(origin)?.pop()?;
        room.resting -= 1;
        Some(self.unlink(key))
    }

    fn pop_oldest(&mut self) -> Option<Resting> {
        (self.oldest != NONE).then(|| self.remove(self.oldest))
    }

    /// Adds a connection. For the first one of its runtime there is a sweep to start with the
    /// receiver this answers.
    fn push(
        &mut self,
        connection: Box<Connection>,
        since: Instant,
        until: Instant,
    ) -> Option<oneshot::Receiver<Infallible>> {
        let runtime = connection.runtime();
        let opened = if self.rooms.iter().any(|room| room.runtime == runtime) {
            None
        } else {
            let (sweep, gone) = oneshot::channel();
            self.rooms.push(Room {
                runtime,
                stacks: HashMap::new(),
                resting: 0,
                _sweep: sweep,
            });
            Some(gone)
        };
        // The room exists, so nothing is handed back.
        self.insert(Resting {
            connection,
            since,
            until,
            older: NONE,
            newer: NONE,
        });
        opened
    }

    /// Adds a connection to a room; without that room its runtime has ended, and it is handed
    /// back to be dropped outside the lock.
    fn insert(&mut self, mut resting: Resting) -> Option<Resting> {
        let runtime = resting.connection.runtime();
        let Some(room) = self.rooms.iter_mut().find(|room| room.runtime == runtime) else {
            return Some(resting);
        };
        resting.older = self.newest;
        resting.newer = NONE;
        let origin = resting.connection.origin();
        let key = self.resting.vacant_key();
        match room.stacks.get_mut(&**origin) {
            Some(stack) => stack.push(key),
            None => {
                room.stacks.insert(Arc::clone(origin), vec![key]);
            }
        }
        room.resting += 1;
        match self.resting.get_mut(self.newest) {
            Some(newest) => newest.newer = key,
            None => self.oldest = key,
        }
        self.newest = key;
        self.resting.insert(resting);
        None
    }

    fn remove(&mut self, key: usize) -> Resting {
        let connection = &self.resting[key].connection;
        let runtime = connection.runtime();
        if let Some(room) = self.rooms.iter_mut().find(|room| room.runtime == runtime) {
            room.resting -= 1;
            if let Some(stack) = room.stacks.get_mut(&**connection.origin()) {
                stack.retain(|&other| other != key);
            }
        }
        self.unlink(key)
    }

    fn unlink(&mut self, key: usize) -> Resting {
        let resting = self.resting.remove(key);
        match self.resting.get_mut(resting.older) {
            Some(older) => older.newer = resting.newer,
            None => self.oldest = resting.newer,
        }
        match self.resting.get_mut(resting.newer) {
            Some(newer) => newer.older = resting.older,
            None => self.newest = resting.older,
        }
        resting
    }

    /// Takes out those of a slice of slots that have expired or been stirred, and answers the
    /// end of all slots too.
    fn suspects(&mut self, runtime: Id, start: usize, now: Instant) -> (Vec<Resting>, usize) {
        let end = self.resting.capacity();
        let keys: Vec<usize> = (start..end.min(start + SLICE))
            .filter(|&key| {
                self.resting.get(key).is_some_and(|resting| {
                    resting.connection.runtime() == runtime
                        && (resting.until <= now || resting.connection.is_stirred())
                })
            })
            .collect();
        let suspects = keys.into_iter().map(|key| self.remove(key)).collect();
        (suspects, end)
    }

    /// Drops emptied stacks, or the whole room when nothing rests in it. Answers whether the
    /// room remains.
    fn tidy(&mut self, runtime: Id) -> bool {
        let Some(at) = self.rooms.iter().position(|room| room.runtime == runtime) else {
            return false;
        };
        if self.rooms[at].resting == 0 {
            self.rooms.swap_remove(at);
            return false;
        }
        self.rooms[at].stacks.retain(|_, stack| !stack.is_empty());
        true
    }

    /// Takes out everything that belongs to a runtime.
    fn abandon(&mut self, runtime: Id) -> Vec<Resting> {
        let keys: Vec<usize> = self
            .resting
            .iter()
            .filter(|(_, resting)| resting.connection.runtime() == runtime)
            .map(|(key, _)| key)
            .collect();
        let abandoned = keys.into_iter().map(|key| self.unlink(key)).collect();
        self.rooms.retain(|room| room.runtime != runtime);
        abandoned
    }
}
