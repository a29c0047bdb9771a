//! The runtimes that have something to do here.
//!
//! A job runs on the runtime that handed it in: its socket belongs to that runtime's reactor. A runtime is known for as
//! long as it has a batch or a fetch open, and each has a timer of its own, so that none depends on another being driven.

use std::sync::Arc;

use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;

use super::{Engine, Timer};
use crate::schedule::{BatchId, Time};

/// The runtime this is called on.
///
/// # Panics
///
/// If there is none.
pub(super) fn current() -> Handle {
    match Handle::try_current() {
        Ok(handle) => handle,
        Err(_) => panic!("fanout needs a tokio runtime: poll this inside one, or `block_on` it"),
    }
}

#[derive(Default)]
/// Runtimes are few, and nearly always one: a list is enough. Each goes by tokio's own id, which is never given to
/// another; a number would be, and a worker of a runtime that was forgotten may still hold it.
pub(super) struct Runtimes(Vec<Runtime>);

struct Runtime {
    id: Id,
    handle: Handle,
    user_count: usize,
    /// It dropped a worker or the timer: it takes no more.
    has_ended: bool,
    single_fetches: Option<BatchId>,
    /// When its timer fires.
    next_wakeup: Option<Time>,
    /// Tells its timer that the alarm was set earlier, or that it may end. None before the first alarm.
    notify: Option<Arc<Notify>>,
}

impl Runtimes {
    /// One user more of this runtime.
    pub(super) fn add_user(&mut self, handle: Handle) -> Id {
        let id = handle.id();
        match self.get_mut(id) {
            Some(runtime) => runtime.user_count += 1,
            None => self.0.push(Runtime {
                id,
                handle,
                user_count: 1,
                has_ended: false,
                single_fetches: None,
                next_wakeup: None,
                notify: None,
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

    /// One user less. The last one ends the timer, and gets the batch of single fetches to end it too.
    pub(super) fn remove_user(&mut self, id: Id) -> Option<BatchId> {
        let position = self.0.iter().position(|runtime| runtime.id == id)?;
        let runtime = &mut self.0[position];
        runtime.user_count -= 1;
        if runtime.user_count > 0 {
            return None;
        }
        let runtime = self.0.swap_remove(position);
        if let Some(notify) = runtime.notify {
            notify.notify_one();
        }
        runtime.single_fetches
    }

    pub(super) fn single_fetches(&self, id: Id) -> Option<BatchId> {
        self.get(id)?.single_fetches
    }

    pub(super) fn set_single_fetches(&mut self, id: Id, batch: BatchId) {
        if let Some(runtime) = self.get_mut(id) {
            runtime.single_fetches = Some(batch);
        }
    }

    /// Where to spawn; none if the runtime has ended.
    pub(super) fn handle(&self, id: Id) -> Option<&Handle> {
        self.get(id)
            .filter(|runtime| !runtime.has_ended)
            .map(|runtime| &runtime.handle)
    }

    pub(super) fn mark_ended(&mut self, id: Id) {
        if let Some(runtime) = self.get_mut(id) {
            runtime.has_ended = true;
        }
    }

    /// Sees to it that every runtime's timer fires at `at` or before.
    pub(super) fn schedule_wakeup(
        &mut self,
        engine: &Arc<Engine>,
        at: Time,
        timers: &mut Vec<(Handle, Timer)>,
    ) {
        for runtime in self.0.iter_mut().filter(|runtime| !runtime.has_ended) {
            if runtime
                .next_wakeup
                .is_some_and(|next_wakeup| next_wakeup <= at)
            {
                continue;
            }
            runtime.next_wakeup = Some(at);
            match &runtime.notify {
                Some(notify) => notify.notify_one(),
                None => {
                    let notify = Arc::new(Notify::new());
                    runtime.notify = Some(Arc::clone(&notify));
                    timers.push((
                        runtime.handle.clone(),
                        Timer::new(engine, runtime.id, notify),
                    ));
                }
            }
        }
    }

    /// What the timer that hears `bell` has to do; none if it is no longer wanted.
    pub(super) fn next_wakeup_of(
        &mut self,
        id: Id,
        notify: &Arc<Notify>,
    ) -> Option<&mut Option<Time>> {
        let runtime = self.get_mut(id)?;
        let is_its_own = runtime
            .notify
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, notify));
        is_its_own.then_some(&mut runtime.next_wakeup)
    }
}
