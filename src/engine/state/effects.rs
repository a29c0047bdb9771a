//! Work that a transaction (one change of the engine's state) defers until the engine's lock is
//! released.

use std::mem::take;
use std::task::Waker;

use tokio::runtime::Handle;

use crate::engine::job::Job;
use crate::engine::lookup_wait::LookupPermitWait;
use crate::engine::timer::RuntimeTimer;
use crate::engine::tokens::TokenRefresh;
use crate::engine::worker::Worker;

/// Work that must not be done under the engine's lock. Dropping the effects performs the work.
///
/// - A waker, and the destructor of a job, may run the user's code.
/// - A runtime that is shutting down drops a task instead of spawning it, and the drop of an
///   [`EngineTask`] takes the engine's lock.
#[derive(Default)]
#[must_use = "the effects take place when this is dropped, which must be after every lock is released"]
pub(in crate::engine) struct Effects {
    pub(super) tasks_to_spawn: Vec<(Handle, EngineTask)>,
    pub(super) wakers_to_wake: Vec<Waker>,
    /// Jobs whose result no consumer takes.
    pub(super) jobs_to_drop: Vec<Box<Job>>,
}

/// A task of the engine that is not spawned yet.
pub(in crate::engine) enum EngineTask {
    Worker(Worker),
    Timer(RuntimeTimer),
    TokenRefresh(TokenRefresh),
    LookupPermitWait(LookupPermitWait),
}

impl EngineTask {
    fn spawn(self, handle: &Handle) {
        match self {
            // tokio moves a future several times before and after it runs. The future of a worker
            // has 3 KB, so one allocation costs less than these moves.
            EngineTask::Worker(worker) => drop(handle.spawn(Box::pin(worker.run()))),
            EngineTask::Timer(timer) => drop(handle.spawn(timer.run())),
            EngineTask::TokenRefresh(refresh) => drop(handle.spawn(refresh.run())),
            EngineTask::LookupPermitWait(wait) => drop(handle.spawn(wait.run())),
        }
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        // Most transactions have few effects, so each list is checked before it is taken.
        if !self.wakers_to_wake.is_empty() {
            for waker in take(&mut self.wakers_to_wake) {
                waker.wake();
            }
        }
        if !self.tasks_to_spawn.is_empty() {
            for (handle, task) in take(&mut self.tasks_to_spawn) {
                task.spawn(&handle);
            }
        }
        // The jobs are dropped afterwards, with the fields of this struct.
    }
}
