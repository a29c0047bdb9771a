//! The one timer of a runtime: it sleeps until the schedule's next instant.

use std::sync::{Arc, Weak};

use tokio::runtime::Id;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::{Effects, Engine};

/// Lives for as long as its runtime is known, and holds nothing while it sleeps. One that is dropped before has lost its
/// runtime: of what only waits there, nothing else would tell.
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
            let next = {
                let Some(engine) = self.engine.upgrade() else {
                    return;
                };
                let mut state = engine.lock();
                let Some(next_wakeup) = state.runtimes.next_wakeup_of(self.runtime, &self.notify)
                else {
                    return;
                };
                next_wakeup.map(|at| engine.instant(at))
            };
            match next {
                None => self.notify.notified().await,
                Some(at) => {
                    if timeout_at(at, self.notify.notified()).await.is_err() {
                        let Some(engine) = self.engine.upgrade() else {
                            return;
                        };
                        engine.fire(self.runtime, &self.notify);
                    }
                }
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        let mut effects = Effects::default();
        {
            let mut state = engine.lock();
            if state
                .runtimes
                .next_wakeup_of(self.runtime, &self.notify)
                .is_some()
            {
                state.end_runtime(self.runtime, &mut effects);
            }
        }
        effects.run();
    }
}

impl Engine {
    fn fire(self: &Arc<Self>, runtime: Id, notify: &Arc<Notify>) {
        let mut effects = Effects::default();
        {
            let mut state = self.lock();
            let now = self.now();
            if let Some(next_wakeup) = state.runtimes.next_wakeup_of(runtime, notify) {
                *next_wakeup = None;
            }
            self.start_ready(&mut state, now, None, &mut effects);
        }
        effects.run();
    }
}
