//! The slot through which a single fetch receives its result.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A one-shot channel for a result of type `T`, from the engine to a single fetch.
///
/// The lock of a result slot is taken after the engine's lock.
pub(super) struct ResultSlot<T> {
    is_abandoned: AtomicBool,
    /// Key of the worker that last started the job. The worker may run another job by now.
    active_job_key: AtomicUsize,
    slot_content: Mutex<SlotContent<T>>,
}

struct SlotContent<T> {
    result: Option<T>,
    waker: Option<Waker>,
}

impl<T> Default for SlotContent<T> {
    fn default() -> Self {
        Self {
            result: None,
            waker: None,
        }
    }
}

impl<T> ResultSlot<T> {
    const NOT_STARTED: usize = usize::MAX;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_abandoned: AtomicBool::new(false),
            active_job_key: AtomicUsize::new(Self::NOT_STARTED),
            slot_content: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, SlotContent<T>> {
        self.slot_content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_active_job_key(&self, active_job_key: usize) {
        self.active_job_key.store(active_job_key, Ordering::Relaxed);
    }

    pub(super) fn active_job_key(&self) -> Option<usize> {
        Some(self.active_job_key.load(Ordering::Relaxed)).filter(|key| *key != Self::NOT_STARTED)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Gives up the result and drops the consumer's waker. The caller must not hold the engine's
    /// lock, because the waker's destructor may be the user's code.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        let content = std::mem::take(&mut *self.lock());
        drop(content);
    }

    /// Stores the result. Returns the consumer's waker, which the caller wakes.
    pub(super) fn store_result(&self, result: T) -> Option<Waker> {
        let mut content = self.lock();
        content.result = Some(result);
        content.waker.take()
    }

    pub(super) fn poll_result(&self, cx: &Context<'_>) -> Poll<T> {
        let mut content = self.lock();
        match content.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                content.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
