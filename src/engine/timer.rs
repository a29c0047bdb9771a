//! The one timer of a runtime: it sleeps until the schedule's next instant.

use std::sync::{Arc, Weak};

use tokio::runtime::Id;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::{Afterwards, Engine};

/// Lives for as long as its runtime is known, and holds nothing while it sleeps. One that is dropped before has lost its
/// runtime: of what only waits there, nothing else would tell.
pub(super) struct Timer {
    engine: Weak<Engine>,
    runtime: Id,
    bell: Arc<Notify>,
}

impl Timer {
    pub(super) fn new(engine: &Arc<Engine>, runtime: Id, bell: Arc<Notify>) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            runtime,
            bell,
        }
    }

    pub(super) async fn run(self) {
        loop {
            let next = {
                let Some(engine) = self.engine.upgrade() else {
                    return;
                };
                let mut state = engine.lock();
                let Some(alarm) = state.runtimes.alarm_of(self.runtime, &self.bell) else {
                    return;
                };
                alarm.map(|at| engine.instant(at))
            };
            match next {
                None => self.bell.notified().await,
                Some(at) => {
                    if timeout_at(at, self.bell.notified()).await.is_err() {
                        let Some(engine) = self.engine.upgrade() else {
                            return;
                        };
                        engine.ring(self.runtime, &self.bell);
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
        let mut afterwards = Afterwards::default();
        {
            let mut state = engine.lock();
            if state.runtimes.alarm_of(self.runtime, &self.bell).is_some() {
                state.end_runtime(self.runtime, &mut afterwards);
            }
        }
        afterwards.run();
    }
}

impl Engine {
    fn ring(self: &Arc<Self>, runtime: Id, bell: &Arc<Notify>) {
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.lock();
            let now = self.now();
            if let Some(alarm) = state.runtimes.alarm_of(runtime, bell) {
                *alarm = None;
            }
            self.start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }
}
