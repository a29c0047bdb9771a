//! A single fetch: a job of the batch that all single fetches of a runtime share.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Id;

use super::{Effects, Engine, Job, JobOptions, ResultSlot, runtimes};
use crate::Request;
use crate::exchange::BodyHandler;

/// One request, from before it is handed in to its result.
pub(crate) struct SingleFetch {
    engine: Arc<Engine>,
    options: Arc<JobOptions>,
    handler: Option<Arc<dyn BodyHandler>>,
    state: FetchState,
}

enum FetchState {
    New(Box<Request>),
    Waiting {
        result_slot: Arc<ResultSlot>,
        runtime: Id,
    },
    Done,
}

impl SingleFetch {
    pub(crate) fn new(engine: Arc<Engine>, options: Arc<JobOptions>, request: Request) -> Self {
        Self {
            engine,
            options,
            handler: None,
            state: FetchState::New(Box::new(request)),
        }
    }

    /// # Panics
    ///
    /// If it was polled before.
    #[track_caller]
    pub(crate) fn set_handler(&mut self, handler: Arc<dyn BodyHandler>) {
        let is_new = matches!(self.state, FetchState::New(_));
        assert!(is_new, "a handler was given to a `Fetch` that is under way");
        self.handler = Some(handler);
    }

    /// # Panics
    ///
    /// Outside a tokio runtime, and after the result was given out.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Box<Job>> {
        loop {
            match std::mem::replace(&mut self.state, FetchState::Done) {
                FetchState::New(request) => {
                    let handler = self.handler.as_ref();
                    match self.engine.submit(*request, &self.options, handler) {
                        Ok((result_slot, runtime)) => {
                            self.state = FetchState::Waiting {
                                result_slot,
                                runtime,
                            }
                        }
                        Err(rejected) => return Poll::Ready(rejected),
                    }
                }
                FetchState::Waiting {
                    result_slot,
                    runtime,
                } => match result_slot.poll(cx) {
                    Poll::Ready(job) => {
                        self.engine.leave_runtime(runtime);
                        return Poll::Ready(job);
                    }
                    Poll::Pending => {
                        self.state = FetchState::Waiting {
                            result_slot,
                            runtime,
                        };
                        return Poll::Pending;
                    }
                },
                FetchState::Done => panic!("a `Fetch` was polled after it had given its result"),
            }
        }
    }
}

/// A fetch that is dropped before its result is cancelled: it leaves the wire, or the schedule.
impl Drop for SingleFetch {
    fn drop(&mut self) {
        let FetchState::Waiting {
            result_slot,
            runtime,
        } = &self.state
        else {
            return;
        };
        result_slot.abandon();
        if let Some(handler) = &self.handler {
            handler.close();
        }
        let mut effects = Effects::default();
        {
            let mut state = self.engine.lock();
            let active_job = result_slot
                .active_key()
                .and_then(|active_key| state.active.get(active_key));
            let is_ours = |slot: &Arc<ResultSlot>| Arc::ptr_eq(slot, result_slot);
            match active_job
                .filter(|active_job| active_job.result_slot.as_ref().is_some_and(is_ours))
            {
                Some(active_job) => active_job.cancel_flag.set(),
                None => {
                    if let Some(single_fetches) = state.runtimes.single_fetches(*runtime) {
                        effects.dropped_jobs = state.schedule.note_abandoned(single_fetches);
                    }
                }
            }
            state.leave_runtime(*runtime, &mut effects);
        }
        effects.run();
    }
}

impl Engine {
    fn submit(
        self: &Arc<Self>,
        request: Request,
        options: &Arc<JobOptions>,
        handler: Option<&Arc<dyn BodyHandler>>,
    ) -> Result<(Arc<ResultSlot>, Id), Box<Job>> {
        let mut effects = Effects::default();
        let result_slot = ResultSlot::new();
        let current_runtime = runtimes::current();
        let mut state = self.lock();
        let runtime = state.runtimes.add_user(current_runtime);
        let batch = match state.runtimes.single_fetches(runtime) {
            Some(batch) => batch,
            None => {
                let batch = state.add_batch(self.limits.single_fetch_limits(), runtime, None);
                state.runtimes.set_single_fetches(runtime, batch);
                batch
            }
        };
        drop(state);
        // Without the lock: this asks `limit_by`. The batch stays, since this fetch is a user of its runtime.
        let job = match handler {
            None => self.new_job(0, request, batch, options),
            Some(handler) => {
                let options = options.with_handler(Arc::clone(handler));
                self.new_job(0, request, batch, &Arc::new(options))
            }
        };
        let mut job = job.inspect_err(|_refused| self.leave_runtime(runtime))?;
        job.result_slot = Some(Arc::clone(&result_slot));
        let mut state = self.lock();
        let now = self.now();
        self.push(&mut state, batch, [job], now, &mut effects);
        self.start_ready(&mut state, now, None, &mut effects);
        drop(state);
        effects.run();
        Ok((result_slot, runtime))
    }

    fn leave_runtime(self: &Arc<Self>, runtime: Id) {
        let mut effects = Effects::default();
        self.lock().leave_runtime(runtime, &mut effects);
        effects.run();
    }
}
