//! The timer of a runtime, which sleeps until the next instant at which a queued job may start.

use std::sync::{Arc, Weak};

use tokio::runtime::Id;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::Engine;

/// A timer lives while its runtime is registered. A sleeping timer does not keep the engine alive.
///
/// A timer that is dropped while its runtime is registered shows that the runtime is shutting down.
/// If the runtime's jobs are all queued, the runtime has no worker, and only the timer reports the
/// shutdown.
pub(super) struct RuntimeTimer {
    engine: Weak<Engine>,
    runtime_id: Id,
    notify: Arc<Notify>,
}

impl RuntimeTimer {
    pub(super) fn new(engine: &Arc<Engine>, runtime_id: Id, notify: Arc<Notify>) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            runtime_id,
            notify,
        }
    }

    pub(super) async fn run(self) {
        loop {
            let next_wakeup = {
                let Some(engine) = self.engine.upgrade() else {
                    return;
                };
                let next_wakeup = engine.read_state(|state| {
                    state
                        .runtimes()
                        .next_wakeup_of_timer(self.runtime_id, &self.notify)
                });
                let Some(next_wakeup) = next_wakeup else {
                    return;
                };
                next_wakeup.map(|at| engine.to_instant(at))
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
                    tx.runtimes_mut()
                        .clear_fired_wakeup(self.runtime_id, &self.notify);
                    tx.set_may_have_ready_jobs();
                });
            }
        }
    }
}

impl Drop for RuntimeTimer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        engine.update(|tx| {
            let runtimes = tx.state().runtimes();
            if runtimes
                .next_wakeup_of_timer(self.runtime_id, &self.notify)
                .is_some()
            {
                tx.end_runtime_and_cancel_queued(self.runtime_id);
            }
        });
    }
}
