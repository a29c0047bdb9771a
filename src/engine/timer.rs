//! The timer of a runtime, which sleeps until the schedule's next instant.

use std::sync::{Arc, Weak};

use tokio::runtime::Id;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::Engine;

/// A timer lives while its runtime is registered. It does not keep the engine alive while it
/// sleeps.
///
/// If a timer is dropped earlier, its runtime is shutting down. For jobs that are only queued on
/// that runtime, nothing else reports this.
pub(super) struct Timer {
    engine: Weak<Engine>,
    runtime: Id,
    notify: Arc<Notify>,
}

impl Timer {
    pub(super) fn new(engine: &Arc<Engine>, runtime: Id, notify: Arc<Notify>) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            runtime,
            notify,
        }
    }

    pub(super) async fn run(self) {
        loop {
            let next_wakeup = {
                let Some(engine) = self.engine.upgrade() else {
                    return;
                };
                let next_wakeup =
                    engine.read(|state| state.runtimes().next_wakeup(self.runtime, &self.notify));
                let Some(next_wakeup) = next_wakeup else {
                    return;
                };
                next_wakeup.map(|at| engine.instant(at))
            };
            let Some(at) = next_wakeup else {
                self.notify.notified().await;
                continue;
            };
            if timeout_at(at, self.notify.notified()).await.is_err() {
                let Some(engine) = self.engine.upgrade() else {
                    return;
                };
                engine.update(|tx| {
                    tx.runtimes_mut().clear_wakeup(self.runtime, &self.notify);
                    tx.note_time_passed();
                });
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        engine.update(|tx| {
            let runtimes = tx.state().runtimes();
            if runtimes.next_wakeup(self.runtime, &self.notify).is_some() {
                tx.end_runtime(self.runtime);
            }
        });
    }
}
