//! What steers a batch from outside: orders that are carried out under the engine's lock, or kept until it begins.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::census::{Counts, Recent, ended};
use super::rules::limits;
use super::{Afterwards, Engine, State};
use crate::limits::Rate;
use crate::progress::Progress;
use crate::request::origin;
use crate::schedule::{BatchId, Time};
use crate::{Error, ErrorKind, Request};

pub(crate) enum Order {
    Pause,
    Resume,
    Cancel,
    /// By the key of its lane.
    CancelHost(Box<str>),
    Drain,
    Concurrency(usize),
    Rate(Option<Rate>),
}

/// Shared by a batch and its handles. Its lock comes before the engine's.
pub(crate) struct Helm {
    engine: Weak<Engine>,
    /// How many inputs there are, if that is known.
    total: Option<usize>,
    stage: Mutex<Stage>,
    /// Orders that the batch's reader has to heed, too.
    orders: AtomicUsize,
    closed: AtomicBool,
    /// What may be on the wire by the last order; 0 if there was none.
    concurrency: AtomicUsize,
    /// What the results have led to so far, beside the inputs.
    found: AtomicUsize,
    /// Results that the reader has let go.
    given: AtomicUsize,
}

pub(super) enum Stage {
    Before(Vec<Order>),
    Open { batch: BatchId, recent: Recent },
    Ended(Progress),
}

impl Helm {
    pub(super) fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once the batch has ended this does nothing.
    pub(crate) fn order(&self, order: Order) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        let mut afterwards = Afterwards::default();
        {
            let mut stage = self.lock();
            self.tell_reader(&order);
            match &mut *stage {
                Stage::Before(orders) => orders.push(order),
                Stage::Open { batch, .. } => {
                    let mut state = engine.lock();
                    let now = engine.now();
                    state.carry_out(*batch, &order, &mut afterwards);
                    engine.start_ready(&mut state, now, None, &mut afterwards);
                }
                Stage::Ended(_) => {}
            }
        }
        afterwards.run();
    }

    /// The key of the lane that is meant by a URL; where `limit_by` makes the keys, by one of those.
    ///
    /// # Errors
    ///
    /// If it is not a URL.
    pub(crate) fn lane(&self, host: &str) -> Result<Box<str>, Error> {
        let is_key = |engine: Arc<Engine>| engine.rules.limit_by.is_some();
        if self.engine.upgrade().is_some_and(is_key) {
            return Ok(host.into());
        }
        Ok(origin(Request::get(host).check()?).into())
    }

    /// What a limit may be at most for want of open files.
    pub(crate) fn fitted(&self, concurrency: usize) -> usize {
        match self.engine.upgrade() {
            Some(engine) => engine.rules.fitted(concurrency),
            None => concurrency,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let engine = self.engine.upgrade();
        let mut stage = self.lock();
        let progress = match (&mut *stage, &engine) {
            (Stage::Ended(progress), _) => progress.clone(),
            (Stage::Open { batch, recent }, Some(engine)) => {
                engine.progress_of(*batch, recent, self.given())
            }
            (Stage::Before(_) | Stage::Open { .. }, _) => Progress::default(),
        };
        let found = self.found.load(Ordering::Relaxed);
        progress.of(self.total.map(|inputs| inputs + found))
    }

    fn tell_reader(&self, order: &Order) {
        match order {
            Order::Cancel | Order::Drain => self.closed.store(true, Ordering::Relaxed),
            Order::Concurrency(most) => self.concurrency.store(*most, Ordering::Relaxed),
            Order::Pause | Order::Resume | Order::CancelHost(_) | Order::Rate(_) => return,
        }
        self.orders.fetch_add(1, Ordering::Release);
    }

    /// A number that changes when there is something for the reader to heed, who is woken then.
    pub(crate) fn orders(&self) -> usize {
        self.orders.load(Ordering::Acquire)
    }

    /// Whether no more inputs are wanted.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn concurrency(&self) -> Option<usize> {
        Some(self.concurrency.load(Ordering::Relaxed)).filter(|most| *most > 0)
    }

    pub(super) fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    pub(crate) fn found(&self, requests: usize) {
        self.found.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn gave(&self, results: usize) {
        self.given.store(results, Ordering::Relaxed);
    }
}

/// A helm as the batch itself holds it.
pub(crate) struct Steered(Arc<Helm>);

impl Steered {
    pub(crate) fn new(engine: &Arc<Engine>, total: Option<usize>) -> Self {
        Self(Arc::new(Helm {
            engine: Arc::downgrade(engine),
            total,
            stage: Mutex::new(Stage::Before(Vec::new())),
            orders: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            concurrency: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn helm(&self) -> &Arc<Helm> {
        &self.0
    }
}

/// A batch that never began has ended, too.
impl Drop for Steered {
    fn drop(&mut self) {
        let mut stage = self.0.lock();
        if matches!(&*stage, Stage::Before(_)) {
            *stage = Stage::Ended(Progress::default().ended());
        }
    }
}

impl Stage {
    /// The batch begins. What was ordered before comes first.
    pub(super) fn open(&mut self, state: &mut State, batch: BatchId, now: Time) {
        let recent = Recent::since(now);
        if let Self::Before(orders) = std::mem::replace(self, Self::Open { batch, recent }) {
            // Nothing is in it yet, so nothing comes of them now.
            let mut nothing = Afterwards::default();
            for order in &orders {
                state.carry_out(batch, order, &mut nothing);
            }
        }
    }

    /// The batch has come to this.
    pub(super) fn end(&mut self, counts: Counts, now: Time) {
        if let Self::Open { recent, .. } = self {
            *self = Self::Ended(ended(recent, now, counts));
        }
    }
}

impl State {
    fn carry_out(&mut self, batch: BatchId, order: &Order, afterwards: &mut Afterwards) {
        match order {
            Order::Pause => self.schedule.hold_batch(batch),
            Order::Resume => self.schedule.release_batch(batch),
            Order::Concurrency(most) => self.schedule.set_concurrency(batch, *most),
            Order::Rate(rate) => self.schedule.set_pace(batch, limits(None, *rate).pace),
            Order::Drain => self.close(batch, afterwards),
            Order::Cancel => {
                self.close(batch, afterwards);
                self.cut(batch, None);
            }
            Order::CancelHost(lane) => {
                for job in self.schedule.close_lane(batch, lane) {
                    self.deliver(job, ErrorKind::Cancelled, afterwards);
                }
                if let Some(lane) = self.schedule.lane_number(lane) {
                    self.cut(batch, Some(lane));
                }
            }
        }
        // Its reader may have inputs to take, or to take no more.
        if let Some(outlet) = self.outlet_mut(batch) {
            afterwards.wakers.extend(outlet.waker.take());
        }
    }

    fn close(&mut self, batch: BatchId, afterwards: &mut Afterwards) {
        for job in self.schedule.close_batch(batch) {
            self.deliver(job, ErrorKind::Cancelled, afterwards);
        }
    }

    /// Has what a batch has on the wire given up; all of it, or what is in one lane.
    pub(super) fn cut(&self, batch: BatchId, lane: Option<usize>) {
        self.running
            .iter()
            .map(|(_, running)| running)
            .filter(|running| {
                running.batch == batch && lane.is_none_or(|lane| running.lane == lane)
            })
            .for_each(|running| running.signal.raise());
    }
}
