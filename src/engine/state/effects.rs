//! Work that a transaction (one change of the engine's state) defers until the engine's lock is
//! released.

use std::mem::take;
use std::task::Waker;

use tokio::runtime::Handle;

use crate::engine::job::Job;
use crate::engine::lookup_wait::LookupWait;
use crate::engine::timer::Timer;
use crate::engine::tokens::TokenRefresh;
use crate::engine::worker::Worker;

/// Work that must not be done under the engine's lock. Dropping the effects performs the work.
///
/// - A waker, and the destructor of a job, may be the user's code.
/// - A runtime that is shutting down drops a task instead of spawning it, and the drop of a worker,
///   timer, token refresh or lookup wait takes the engine's lock.
#[derive(Default)]
#[must_use = "the effects take place when this is dropped, which must be after every lock is released"]
pub(in crate::engine) struct Effects {
    pub(super) workers: Vec<(Handle, Worker)>,
    pub(super) timers: Vec<(Handle, Timer)>,
    pub(super) token_refreshes: Vec<(Handle, TokenRefresh)>,
    pub(super) lookup_waits: Vec<(Handle, LookupWait)>,
    pub(super) wakers: Vec<Waker>,
    /// Jobs whose result no consumer takes.
    pub(super) dropped_jobs: Vec<Box<Job>>,
}

impl Drop for Effects {
    fn drop(&mut self) {
        // Most transactions have few effects, so each list is checked before it is taken.
        if !self.wakers.is_empty() {
            for waker in take(&mut self.wakers) {
                waker.wake();
            }
        }
        if !self.workers.is_empty() {
            for (handle, worker) in take(&mut self.workers) {
                handle.spawn(worker.run());
            }
        }
        if !self.token_refreshes.is_empty() {
            for (handle, refresh) in take(&mut self.token_refreshes) {
                handle.spawn(refresh.run());
            }
        }
        if !self.lookup_waits.is_empty() {
            for (handle, wait) in take(&mut self.lookup_waits) {
                handle.spawn(wait.run());
            }
        }
        if !self.timers.is_empty() {
            for (handle, timer) in take(&mut self.timers) {
                handle.spawn(timer.run());
            }
        }
        // The jobs are dropped as fields of this struct.
    }
}
