//! A single fetch: a job of the batch that all single fetches of a runtime share.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Id;

use super::{Afterwards, Engine, Job, Reply, Terms, runtimes};
use crate::Request;
use crate::exchange::ReadBody;

/// One request, from before it is handed in to its result.
pub(crate) struct Call {
    engine: Arc<Engine>,
    terms: Arc<Terms>,
    handler: Option<Arc<dyn ReadBody>>,
    stage: Stage,
}

enum Stage {
    New(Box<Request>),
    Waiting { reply: Arc<Reply>, runtime: Id },
    Done,
}

impl Call {
    pub(crate) fn new(engine: Arc<Engine>, terms: Arc<Terms>, request: Request) -> Self {
        Self {
            engine,
            terms,
            handler: None,
            stage: Stage::New(Box::new(request)),
        }
    }

    /// # Panics
    ///
    /// If it was polled before.
    #[track_caller]
    pub(crate) fn set_handler(&mut self, handler: Arc<dyn ReadBody>) {
        let is_new = matches!(self.stage, Stage::New(_));
        assert!(is_new, "a handler was given to a `Fetch` that is under way");
        self.handler = Some(handler);
    }

    /// # Panics
    ///
    /// Outside a tokio runtime, and after the result was given out.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Box<Job>> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::New(request) => {
                    let handler = self.handler.as_ref();
                    match self.engine.hand_in(*request, &self.terms, handler) {
                        Ok((reply, runtime)) => self.stage = Stage::Waiting { reply, runtime },
                        Err(refused) => return Poll::Ready(refused),
                    }
                }
                Stage::Waiting { reply, runtime } => match reply.poll(cx) {
                    Poll::Ready(job) => {
                        self.engine.leave_runtime(runtime);
                        return Poll::Ready(job);
                    }
                    Poll::Pending => {
                        self.stage = Stage::Waiting { reply, runtime };
                        return Poll::Pending;
                    }
                },
                Stage::Done => panic!("a `Fetch` was polled after it had given its result"),
            }
        }
    }
}

/// A fetch that is dropped before its result is cancelled: it leaves the wire, or the schedule.
impl Drop for Call {
    fn drop(&mut self) {
        let Stage::Waiting { reply, runtime } = &self.stage else {
            return;
        };
        reply.abandon();
        if let Some(handler) = &self.handler {
            handler.close();
        }
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            let running = reply.place().and_then(|place| state.running.get(place));
            let holds_it = |held: &Arc<Reply>| Arc::ptr_eq(held, reply);
            match running.filter(|running| running.reply.as_ref().is_some_and(holds_it)) {
                Some(running) => running.signal.raise(),
                None => {
                    if let Some(singles) = state.runtimes.singles(*runtime) {
                        afterwards.drops = state.schedule.abandoned_one(singles);
                    }
                }
            }
            state.leave_runtime(*runtime, &mut afterwards);
        }
        afterwards.run();
    }
}

impl Engine {
    fn hand_in(
        self: &Arc<Self>,
        request: Request,
        terms: &Arc<Terms>,
        handler: Option<&Arc<dyn ReadBody>>,
    ) -> Result<(Arc<Reply>, Id), Box<Job>> {
        let mut afterwards = Afterwards::default();
        let reply = Reply::new();
        let present = runtimes::present();
        let mut state = self.lock();
        let runtime = state.runtimes.join(present);
        let batch = match state.runtimes.singles(runtime) {
            Some(batch) => batch,
            None => {
                let batch = state.add_batch(self.rules.single_fetches(), runtime, None);
                state.runtimes.set_singles(runtime, batch);
                batch
            }
        };
        drop(state);
        // Without the lock: this asks `limit_by`. The batch stays, since this fetch is a user of its runtime.
        let job = match handler {
            None => self.job(0, request, batch, terms),
            Some(handler) => {
                let terms = terms.read_by(Arc::clone(handler));
                self.job(0, request, batch, &Arc::new(terms))
            }
        };
        let mut job = job.inspect_err(|_refused| self.leave_runtime(runtime))?;
        job.reply = Some(Arc::clone(&reply));
        let mut state = self.lock();
        let now = self.now();
        self.push(&mut state, batch, [job], now, &mut afterwards);
        self.start_ready(&mut state, now, None, &mut afterwards);
        drop(state);
        afterwards.run();
        Ok((reply, runtime))
    }

    fn leave_runtime(self: &Arc<Self>, runtime: Id) {
        let mut afterwards = Afterwards::default();
        self.lock().leave_runtime(runtime, &mut afterwards);
        afterwards.run();
    }
}
