//! One open batch, as its reader holds it: jobs go in, results come out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::runtime::Id;

use super::{Afterwards, Counts, Engine, Helm, Job, State, Terms, runtimes};
use crate::exchange::verdict::{Last, Verdict};
use crate::schedule::{BatchId, BatchLimits, Time};
use crate::{Error, ErrorKind, Request};

const SAVED_AND_READ: &str = "its body is to be saved, and to be read by a handler";

/// Where the results of a batch wait for their reader.
pub(super) struct Outlet {
    batch: BatchId,
    runtime: Id,
    results: VecDeque<Box<Job>>,
    /// Jobs that have been pushed and not put here yet.
    open: usize,
    pub(super) counts: Counts,
    /// None for the single fetches.
    helm: Option<Arc<Helm>>,
    wish: Wish,
    /// Whether it is in the list of those that wish for other hosts.
    is_wishing: bool,
    pub(super) waker: Option<Waker>,
}

/// When the reader wants to be woken.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Wish {
    /// At each result, or only once so few jobs are open.
    pub(crate) each_result: bool,
    pub(crate) low_water: usize,
    /// Also when a slot is idle for want of a host that may start: the reader has more inputs.
    pub(crate) other_hosts: bool,
}

impl Outlet {
    pub(super) fn batch(&self) -> BatchId {
        self.batch
    }

    /// A batch's number is used again; its name is not.
    pub(super) fn is_of(&self, batch: BatchId) -> bool {
        self.batch == batch
    }

    pub(super) fn runtime(&self) -> Id {
        self.runtime
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many results its reader has let go, if it is a batch's.
    pub(super) fn given(&self) -> Option<usize> {
        self.helm.as_ref().map(|helm| helm.given())
    }

    pub(super) fn put(&mut self, job: Box<Job>) -> Option<Waker> {
        self.counts.add(&job);
        self.results.push_back(job);
        self.open -= 1;
        if self.wish.each_result || self.open <= self.wish.low_water {
            self.waker.take()
        } else {
            None
        }
    }
}

impl State {
    /// Wakes the readers of batches that could use a slot if they had a job for another host. Any change may leave one
    /// so: a slot that another batch gave back, a host of its own that paused.
    pub(super) fn ask_for_other_hosts(&mut self, now: Time, afterwards: &mut Afterwards) {
        let mut wishing = std::mem::take(&mut self.wishing);
        wishing.retain(|&batch| {
            let wants = self.schedule.wants_other_hosts(batch, now);
            let Some(outlet) = self.outlet_mut(batch) else {
                return false;
            };
            outlet.is_wishing = outlet.wish.other_hosts && !wants;
            if outlet.wish.other_hosts && wants {
                afterwards.wakers.extend(outlet.waker.take());
            }
            outlet.is_wishing
        });
        self.wishing = wishing;
    }
}

impl State {
    /// Counts a job that was put back, if it was.
    pub(super) fn count_retry<E>(
        &mut self,
        batch: BatchId,
        put_back: Result<(), E>,
    ) -> Result<(), E> {
        if let Some(outlet) = self.outlet_mut(batch) {
            outlet.counts.retries += usize::from(put_back.is_ok());
        }
        put_back
    }
}

/// An open batch. Dropping it cancels what is in flight and forgets what waits.
pub(crate) struct Feed {
    engine: Arc<Engine>,
    batch: BatchId,
    runtime: Id,
    terms: Arc<Terms>,
    helm: Arc<Helm>,
}

impl Feed {
    /// Opens a batch that runs on the present runtime, as it was steered before.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        limits: BatchLimits,
        terms: Arc<Terms>,
        helm: &Arc<Helm>,
    ) -> Self {
        let present = runtimes::present();
        let mut stage = helm.lock();
        let mut state = engine.lock();
        let runtime = state.runtimes.join(present);
        let batch = state.add_batch(limits, runtime, Some(helm));
        state.schedule.expect_more(batch, true);
        stage.open(&mut state, batch, engine.now());
        drop((state, stage));
        Self {
            engine: Arc::clone(engine),
            helm: Arc::clone(helm),
            batch,
            runtime,
            terms,
        }
    }

    /// Makes the job of an input. Its lane is settled here, where `limit_by` may panic without harm.
    ///
    /// # Errors
    ///
    /// The finished job, if the request is invalid.
    pub(crate) fn job(&self, index: usize, request: Request) -> Result<Box<Job>, Box<Job>> {
        let mut job = self.engine.job(index, request, self.batch, &self.terms)?;
        if self.terms.retry.final_round {
            job.last = Last::ToCome;
        }
        Ok(job)
    }

    /// Hands in jobs, and starts what may start. So many others were refused before.
    pub(crate) fn push(&self, jobs: &mut Vec<Box<Job>>, refused: usize) {
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            let now = self.engine.now();
            if let Some(outlet) = state.outlet_mut(self.batch) {
                outlet.open += jobs.len();
                outlet.counts.failed += refused;
            }
            let jobs = jobs.drain(..);
            self.engine
                .push(&mut state, self.batch, jobs, now, &mut afterwards);
            self.engine
                .start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }

    /// Takes all results there are, and leaves word when to be woken next. True if a slot is idle for want of a host
    /// that may start.
    pub(crate) fn take(
        &self,
        results: &mut VecDeque<Box<Job>>,
        wish: Wish,
        cx: &Context<'_>,
    ) -> bool {
        // Cloned before the lock, and the old one dropped after it: a waker is code of others.
        let waker = cx.waker().clone();
        let mut afterwards = Afterwards::default();
        let (_old, wants) = {
            let mut state = self.engine.lock();
            let state = &mut *state;
            let Some(outlet) = state.outlet_mut(self.batch) else {
                return false;
            };
            if results.is_empty() {
                std::mem::swap(results, &mut outlet.results);
            } else {
                results.append(&mut outlet.results);
            }
            outlet.wish = wish;
            let old = outlet.waker.replace(waker);
            if wish.other_hosts && !std::mem::replace(&mut outlet.is_wishing, true) {
                state.wishing.push(self.batch);
            }
            if state.schedule.expect_more(self.batch, wish.other_hosts) {
                let now = self.engine.now();
                self.engine.start_ready(state, now, None, &mut afterwards);
            }
            let wants = wish.other_hosts
                && state
                    .schedule
                    .wants_other_hosts(self.batch, self.engine.now());
            (old, wants)
        };
        afterwards.run();
        wants
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(handler) = &self.terms.handler {
            handler.close();
        }
        let mut afterwards = Afterwards::default();
        {
            let mut stage = self.helm.lock();
            let mut state = self.engine.lock();
            let now = self.engine.now();
            stage.end(state.counts_of(self.batch).0, now);
            state.remove_batch(self.batch, &mut afterwards);
            state.leave_runtime(self.runtime, &mut afterwards);
            // What this batch kept from starting may start now.
            self.engine
                .start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }
}

impl Engine {
    pub(super) fn job(
        &self,
        index: usize,
        request: Request,
        batch: BatchId,
        terms: &Arc<Terms>,
    ) -> Result<Box<Job>, Box<Job>> {
        let lane = match terms.handler.is_some() && request.save_path().is_some() {
            true => Err(Error::of(ErrorKind::InvalidRequest).because(SAVED_AND_READ)),
            false => self.rules.place_of(&request, &terms.manners),
        };
        let mut job = Job::new(index, request, batch, Arc::clone(terms));
        match lane {
            Ok((lane, host)) => {
                (job.lane, job.host) = (lane, host);
                Ok(job)
            }
            Err(error) => {
                job.result = Some(Err(error));
                job.finish(ErrorKind::InvalidRequest);
                job.end_charge(Verdict::DONE);
                Err(job)
            }
        }
    }
}

impl State {
    pub(super) fn add_batch(
        &mut self,
        limits: BatchLimits,
        runtime: Id,
        helm: Option<&Arc<Helm>>,
    ) -> BatchId {
        let batch = self.schedule.add_batch(limits);
        let outlet = Outlet {
            batch,
            runtime,
            results: VecDeque::new(),
            open: 0,
            counts: Counts::default(),
            helm: helm.map(Arc::clone),
            wish: Wish::default(),
            is_wishing: false,
            waker: None,
        };
        if self.outlets.len() <= batch.index() {
            self.outlets.resize_with(batch.index() + 1, || None);
        }
        self.outlets[batch.index()] = Some(outlet);
        batch
    }

    pub(super) fn remove_batch(&mut self, batch: BatchId, afterwards: &mut Afterwards) {
        afterwards
            .drops
            .append(&mut self.schedule.remove_batch(batch));
        if let Some(outlet) = self.outlets[batch.index()].take() {
            self.past += outlet.counts;
            afterwards.drops.extend(outlet.results);
            afterwards.wakers.extend(outlet.waker);
        }
        self.cut(batch, None);
    }

    /// One user of a runtime less. The last takes the batch of its single fetches along.
    pub(super) fn leave_runtime(&mut self, runtime: Id, afterwards: &mut Afterwards) {
        if let Some(singles) = self.runtimes.leave(runtime) {
            self.remove_batch(singles, afterwards);
        }
    }
}
