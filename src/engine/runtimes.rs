//! The tokio runtimes that use an engine.
//!
//! A job runs on the runtime that submitted it, because the job's socket belongs to the runtime's
//! reactor. A runtime is registered while a batch or single fetch is open on the runtime. Each
//! runtime has a [`RuntimeTimer`] of its own, so that no runtime depends on another runtime being
//! driven.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Engine;
use super::single_fetch_batches::SingleFetchBatches;
use super::timer::RuntimeTimer;
use crate::error::{Error, ErrorKind};
use crate::schedule::{BatchId, TenantId, Time};

/// The runtime of the calling thread.
///
/// # Panics
///
/// Panics if called outside a tokio runtime.
pub(super) fn current_runtime() -> Handle {
    match Handle::try_current() {
        Ok(handle) => handle,
        Err(_) => panic!("fanout needs a tokio runtime: poll this inside one, or `block_on` it"),
    }
}

thread_local! {
    /// The runtime on which this thread last found a time driver.
    static LAST_RUNTIME_WITH_TIME_DRIVER: Cell<Option<Id>> = const { Cell::new(None) };
}

/// Whether the current runtime, whose handle is `current`, has a time driver.
///
/// tokio has no function for this check, but panics when a timer is made without a time driver. The
/// panic is caught here. The panic hook still sees it, once for each batch and single fetch on such
/// a runtime.
pub(super) fn has_time_driver(current: &Handle) -> bool {
    let id = current.id();
    if LAST_RUNTIME_WITH_TIME_DRIVER.get() == Some(id) {
        return true;
    }
    let has_driver = catch_unwind(|| drop(sleep(Duration::ZERO))).is_ok();
    if has_driver {
        LAST_RUNTIME_WITH_TIME_DRIVER.set(Some(id));
    }
    has_driver
}

/// The error of a request on a runtime without a time driver.
pub(super) fn no_time_driver_error() -> Error {
    let detail = "no time driver; call `enable_time` or `enable_all` on the runtime's builder";
    Error::from_kind(ErrorKind::MissingRuntimeDriver).with_detail(detail)
}

/// Returns the error for tokio's panic about a missing I/O driver; `None` for another panic
/// message.
pub(super) fn no_io_driver_error(panic_message: &str) -> Option<Error> {
    let is_tokio_message =
        panic_message.contains("Tokio") && panic_message.contains("IO is disabled");
    let detail = "no I/O driver; call `enable_io` or `enable_all` on the runtime's builder";
    is_tokio_message.then(|| Error::from_kind(ErrorKind::MissingRuntimeDriver).with_detail(detail))
}

/// The registered runtimes. There is nearly always only one runtime, so a list suffices.
///
/// A runtime is identified by tokio's runtime id, which is never reused. A worker may therefore
/// hold the id of a runtime that was removed from the list.
#[derive(Default)]
pub(super) struct Runtimes(Vec<Runtime>);

struct Runtime {
    id: Id,
    handle: Handle,
    /// Number of open batches and single fetches on the runtime.
    batch_and_fetch_count: usize,
    /// Whether the runtime is shutting down, which is detected when the runtime drops a worker or
    /// the timer.
    has_ended: bool,
    single_fetch_batches: SingleFetchBatches,
    /// When the runtime's timer fires next.
    next_wakeup: Option<Time>,
    /// Tells the timer that `next_wakeup` has become earlier, or that the runtime was removed.
    /// `None` before the first wakeup.
    timer_notify: Option<Arc<Notify>>,
}

impl Runtimes {
    /// Registers an open batch or single fetch on a runtime.
    pub(super) fn register_batch_or_fetch(&mut self, handle: Handle) -> Id {
        let id = handle.id();
        match self.get_mut(id) {
            Some(runtime) => runtime.batch_and_fetch_count += 1,
            None => self.0.push(Runtime {
                id,
                handle,
                batch_and_fetch_count: 1,
                has_ended: false,
                single_fetch_batches: SingleFetchBatches::default(),
                next_wakeup: None,
                timer_notify: None,
            }),
        }
        id
    }

    fn get(&self, id: Id) -> Option<&Runtime> {
        self.0.iter().find(|runtime| runtime.id == id)
    }

    fn get_mut(&mut self, id: Id) -> Option<&mut Runtime> {
        self.0.iter_mut().find(|runtime| runtime.id == id)
    }

    /// Unregisters an open batch or single fetch from a runtime. After the last one, the runtime's
    /// timer ends, and the runtime's batches of single fetches are returned, which the caller must
    /// end.
    pub(super) fn unregister_batch_or_fetch(&mut self, id: Id) -> SingleFetchBatches {
        let Some(position) = self.0.iter().position(|runtime| runtime.id == id) else {
            return SingleFetchBatches::default();
        };
        let runtime = &mut self.0[position];
        runtime.batch_and_fetch_count -= 1;
        if runtime.batch_and_fetch_count > 0 {
            return SingleFetchBatches::default();
        }
        let runtime = self.0.swap_remove(position);
        if let Some(notify) = runtime.timer_notify {
            notify.notify_one();
        }
        runtime.single_fetch_batches
    }

    /// The batch that holds the runtime's single fetches of this tenant, or without a tenant.
    pub(super) fn single_fetch_batch(&self, id: Id, tenant: Option<TenantId>) -> Option<BatchId> {
        self.get(id)?.single_fetch_batches.get(tenant)
    }

    pub(super) fn set_single_fetch_batch(
        &mut self,
        id: Id,
        tenant: Option<TenantId>,
        batch: BatchId,
    ) {
        if let Some(runtime) = self.get_mut(id) {
            runtime.single_fetch_batches.insert(tenant, batch);
        }
    }

    /// Removes the batches that hold a tenant's single fetches, one of each runtime. The caller
    /// must end the batches.
    pub(super) fn take_single_fetch_batches(&mut self, tenant: TenantId) -> Vec<BatchId> {
        let runtimes = self.0.iter_mut();
        runtimes
            .filter_map(|runtime| runtime.single_fetch_batches.remove_batch_of_tenant(tenant))
            .collect()
    }

    /// The handle to spawn on; `None` if the runtime has ended.
    pub(super) fn handle(&self, id: Id) -> Option<&Handle> {
        let runtime = self.get(id).filter(|runtime| !runtime.has_ended)?;
        Some(&runtime.handle)
    }

    pub(super) fn mark_ended(&mut self, id: Id) {
        if let Some(runtime) = self.get_mut(id) {
            runtime.has_ended = true;
        }
    }

    /// Makes the timer of every runtime fire at `at` or earlier. Returns the timers that must be
    /// spawned.
    pub(super) fn schedule_timer_wakeup(
        &mut self,
        engine: &Arc<Engine>,
        at: Time,
    ) -> impl Iterator<Item = (Handle, RuntimeTimer)> {
        self.0.iter_mut().filter_map(move |runtime| {
            let is_due = runtime.next_wakeup.is_none_or(|earlier| earlier > at);
            if runtime.has_ended || !is_due {
                return None;
            }
            runtime.next_wakeup = Some(at);
            if let Some(notify) = &runtime.timer_notify {
                notify.notify_one();
                return None;
            }
            let notify = Arc::new(Notify::new());
            runtime.timer_notify = Some(Arc::clone(&notify));
            let timer = RuntimeTimer::new(engine, runtime.id, notify);
            Some((runtime.handle.clone(), timer))
        })
    }

    /// Returns when the timer that owns `notify` fires next. An outer `None` means that the timer
    /// must end, because its runtime was removed.
    pub(super) fn next_wakeup_of_timer(
        &self,
        id: Id,
        notify: &Arc<Notify>,
    ) -> Option<Option<Time>> {
        let runtime = self.get(id)?;
        let is_its_timer = |own: &Arc<Notify>| Arc::ptr_eq(own, notify);
        let is_registered = runtime.timer_notify.as_ref().is_some_and(is_its_timer);
        is_registered.then_some(runtime.next_wakeup)
    }

    /// Records that the timer has fired.
    pub(super) fn clear_fired_wakeup(&mut self, id: Id, notify: &Arc<Notify>) {
        if self.next_wakeup_of_timer(id, notify).is_some()
            && let Some(runtime) = self.get_mut(id)
        {
            runtime.next_wakeup = None;
        }
    }
}
