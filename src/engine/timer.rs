//! The one timer of a runtime: it sleeps until the schedule's next instant.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::{Afterwards, Engine};

/// Lives for as long as its runtime is known, and holds nothing while it sleeps.
pub(super) async fn run(engine: Weak<Engine>, runtime: usize, bell: Arc<Notify>) {
    loop {
        let next = {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let mut state = engine.lock();
            let Some(alarm) = state.runtimes.alarm_of(runtime, &bell) else {
                return;
            };
            alarm.map(|at| engine.instant(at))
        };
        match next {
            None => bell.notified().await,
            Some(at) => {
                if timeout_at(at, bell.notified()).await.is_err() {
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.ring(runtime, &bell);
                }
            }
        }
    }
}

impl Engine {
    fn ring(self: &Arc<Self>, runtime: usize, bell: &Arc<Notify>) {
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
