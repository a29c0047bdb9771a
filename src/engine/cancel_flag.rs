//! The flag that cancels the exchange of a worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

/// A flag that, once set, aborts the exchange of a worker.
///
/// The flag is set under the engine's lock, after a check that the worker runs the job to cancel.
/// The flag is cleared under the same lock when the worker takes its next job, so it never aborts
/// the exchange of another job.
#[derive(Default)]
pub(super) struct CancelFlag {
    is_set: AtomicBool,
    waker: AtomicWaker,
    /// Whether `waker` holds the worker's waker. Only the worker's own task reads or writes this
    /// field.
    is_waker_registered: AtomicBool,
}

impl CancelFlag {
    pub(super) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    pub(super) fn clear(&self) {
        if self.is_set() {
            self.is_set.store(false, Ordering::Release);
            // The waker was consumed when the flag was set, so it must be registered again.
            self.is_waker_registered.store(false, Ordering::Relaxed);
        }
    }

    /// Registers the worker's waker. A task's waker does not change, so one registration is enough.
    pub(super) fn register_waker(&self, waker: &Waker) {
        if !self.is_waker_registered.load(Ordering::Relaxed) {
            self.waker.register(waker);
            self.is_waker_registered.store(true, Ordering::Relaxed);
        }
    }
}
