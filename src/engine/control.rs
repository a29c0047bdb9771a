//! What steers a batch from outside: orders that are carried out under the engine's lock, or kept until it begins.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::limits::gate_limits;
use super::progress::{ResultCounts, Throughput, final_progress};
use super::{Effects, Engine, State};
use crate::limits::Rate;
use crate::progress::Progress;
use crate::request::origin;
use crate::schedule::{BatchId, LaneId, Time};
use crate::{Error, ErrorKind, Request};

pub(crate) enum Command {
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
pub(crate) struct BatchControl {
    engine: Weak<Engine>,
    /// How many inputs there are, if that is known.
    total_inputs: Option<usize>,
    control_state: Mutex<ControlState>,
    /// Orders that the batch's reader has to heed, too.
    consumer_commands: AtomicUsize,
    inputs_closed: AtomicBool,
    /// What may be on the wire by the last order; 0 if there was none.
    commanded_concurrency: AtomicUsize,
    /// What the results have led to so far, beside the inputs.
    discovered: AtomicUsize,
    /// Results that the reader has let go.
    delivered: AtomicUsize,
}

pub(super) enum ControlState {
    BeforeOpen(Vec<Command>),
    Open {
        batch: BatchId,
        throughput: Throughput,
    },
    Ended(Progress),
}

impl BatchControl {
    pub(super) fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.control_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Once the batch has ended this does nothing.
    pub(crate) fn send(&self, command: Command) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        let mut effects = Effects::default();
        {
            let mut control_state = self.lock();
            self.note_for_consumer(&command);
            match &mut *control_state {
                ControlState::BeforeOpen(commands) => commands.push(command),
                ControlState::Open { batch, .. } => {
                    let mut state = engine.lock();
                    let now = engine.now();
                    state.execute_command(*batch, &command, &mut effects);
                    engine.start_ready(&mut state, now, None, &mut effects);
                }
                ControlState::Ended(_) => {}
            }
        }
        effects.run();
    }

    /// The key of the lane that is meant by a URL; where `limit_by` makes the keys, by one of those.
    ///
    /// # Errors
    ///
    /// If it is not a URL.
    pub(crate) fn lane_key(&self, url: &str) -> Result<Box<str>, Error> {
        let has_custom_keys = |engine: Arc<Engine>| engine.limits.limit_by.is_some();
        if self.engine.upgrade().is_some_and(has_custom_keys) {
            return Ok(url.into());
        }
        Ok(origin(Request::get(url).build().check()?).into())
    }

    /// What a limit may be at most for want of open files.
    pub(crate) fn clamped_concurrency(&self, concurrency: usize) -> usize {
        match self.engine.upgrade() {
            Some(engine) => engine.limits.clamped_concurrency(concurrency),
            None => concurrency,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let engine = self.engine.upgrade();
        let mut control_state = self.lock();
        let progress = match (&mut *control_state, &engine) {
            (ControlState::Ended(progress), _) => progress.clone(),
            (ControlState::Open { batch, throughput }, Some(engine)) => {
                engine.progress_of(*batch, throughput, self.delivered())
            }
            (ControlState::BeforeOpen(_) | ControlState::Open { .. }, _) => Progress::default(),
        };
        let discovered = self.discovered.load(Ordering::Relaxed);
        progress.with_total(self.total_inputs.map(|inputs| inputs + discovered))
    }

    fn note_for_consumer(&self, command: &Command) {
        match command {
            Command::Cancel | Command::Drain => self.inputs_closed.store(true, Ordering::Relaxed),
            Command::Concurrency(max) => self.commanded_concurrency.store(*max, Ordering::Relaxed),
            Command::Pause | Command::Resume | Command::CancelHost(_) | Command::Rate(_) => return,
        }
        self.consumer_commands.fetch_add(1, Ordering::Release);
    }

    /// A number that changes when there is something for the reader to heed, who is woken then.
    pub(crate) fn consumer_commands(&self) -> usize {
        self.consumer_commands.load(Ordering::Acquire)
    }

    /// Whether no more inputs are wanted.
    pub(crate) fn is_closed(&self) -> bool {
        self.inputs_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn commanded_concurrency(&self) -> Option<usize> {
        Some(self.commanded_concurrency.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    pub(super) fn delivered(&self) -> usize {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_discovered(&self, requests: usize) {
        self.discovered.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn set_delivered(&self, results: usize) {
        self.delivered.store(results, Ordering::Relaxed);
    }
}

/// A helm as the batch itself holds it.
pub(crate) struct ControlOwner(Arc<BatchControl>);

impl ControlOwner {
    pub(crate) fn new(engine: &Arc<Engine>, total_inputs: Option<usize>) -> Self {
        Self(Arc::new(BatchControl {
            engine: Arc::downgrade(engine),
            total_inputs,
            control_state: Mutex::new(ControlState::BeforeOpen(Vec::new())),
            consumer_commands: AtomicUsize::new(0),
            inputs_closed: AtomicBool::new(false),
            commanded_concurrency: AtomicUsize::new(0),
            discovered: AtomicUsize::new(0),
            delivered: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn control(&self) -> &Arc<BatchControl> {
        &self.0
    }
}

/// A batch that never began has ended, too.
impl Drop for ControlOwner {
    fn drop(&mut self) {
        let mut control_state = self.0.lock();
        if matches!(&*control_state, ControlState::BeforeOpen(_)) {
            *control_state = ControlState::Ended(Progress::default().into_ended());
        }
    }
}

impl ControlState {
    /// The batch begins. What was ordered before comes first.
    pub(super) fn open(&mut self, state: &mut State, batch: BatchId, now: Time) {
        let throughput = Throughput::starting_at(now);
        if let Self::BeforeOpen(commands) =
            std::mem::replace(self, Self::Open { batch, throughput })
        {
            // Nothing is in it yet, so nothing comes of them now.
            let mut no_effects = Effects::default();
            for command in &commands {
                state.execute_command(batch, command, &mut no_effects);
            }
        }
    }

    /// The batch has come to this.
    pub(super) fn finish(&mut self, counts: ResultCounts, now: Time) {
        if let Self::Open { throughput, .. } = self {
            *self = Self::Ended(final_progress(throughput, now, counts));
        }
    }
}

impl State {
    fn execute_command(&mut self, batch: BatchId, command: &Command, effects: &mut Effects) {
        match command {
            Command::Pause => self.schedule.hold_batch(batch),
            Command::Resume => self.schedule.release_batch(batch),
            Command::Concurrency(max) => self.schedule.set_batch_concurrency(batch, *max),
            Command::Rate(rate) => self
                .schedule
                .set_batch_rate(batch, gate_limits(None, *rate).rate),
            Command::Drain => self.close_batch(batch, effects),
            Command::Cancel => {
                self.close_batch(batch, effects);
                self.abort_in_flight(batch, None);
            }
            Command::CancelHost(lane) => {
                for job in self.schedule.close_lane(batch, lane) {
                    self.deliver(job, ErrorKind::Cancelled, effects);
                }
                if let Some(lane) = self.schedule.lane_id(lane) {
                    self.abort_in_flight(batch, Some(lane));
                }
            }
        }
        // Its reader may have inputs to take, or to take no more.
        if let Some(batch_state) = self.batch_state_mut(batch) {
            effects.wakers.extend(batch_state.waker.take());
        }
    }

    fn close_batch(&mut self, batch: BatchId, effects: &mut Effects) {
        for job in self.schedule.close_batch(batch) {
            self.deliver(job, ErrorKind::Cancelled, effects);
        }
    }

    /// Has what a batch has on the wire given up; all of it, or what is in one lane.
    pub(super) fn abort_in_flight(&self, batch: BatchId, lane: Option<LaneId>) {
        self.active
            .iter()
            .map(|(_, job)| job)
            .filter(|job| job.batch == batch && lane.is_none_or(|lane| job.lane == lane))
            .for_each(|job| job.cancel_flag.set());
    }
}
