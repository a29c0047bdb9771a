//! Control of a batch through its handles. A command takes effect under the engine's lock, or when
//! the batch opens (at its first poll) if the command was sent earlier.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Engine;
use super::batch_state::BatchState;
use super::progress::final_progress;
use super::result_counts::ResultCounts;
use super::state::Transaction;
use super::throughput::Throughput;
use crate::error::{Error, ErrorKind};
use crate::limits::Rate;
use crate::progress::Progress;
use crate::request::{Request, origin};
use crate::schedule::{BatchId, GcraRate, Time};

pub(crate) enum Command {
    Pause,
    Resume,
    Cancel,
    /// Cancels the batch's requests in the lane with this key. A lane is one host, or one
    /// `limit_by` key.
    CancelHost(Box<str>),
    Drain,
    SetConcurrency(usize),
    SetRate(Option<Rate>),
}

/// The control of a batch, shared by the batch and its handles.
///
/// The lock of the control is taken before the engine's lock. Commands, and the batch's start and
/// end, therefore take effect in one order.
pub(crate) struct BatchControl {
    engine: Weak<Engine>,
    /// Number of inputs of the batch, if known.
    total_inputs: Option<usize>,
    state: Mutex<ControlState>,
    /// Number of commands so far that concern the consumer of the batch.
    consumer_commands: AtomicUsize,
    /// Whether a command has stopped the batch from pulling inputs.
    inputs_closed: AtomicBool,
    /// The concurrency set by the last command that sets one; 0 if there was no such command.
    commanded_concurrency: AtomicUsize,
    /// Number of followed requests, which were found in the results of other requests.
    discovered_requests: AtomicUsize,
    /// Number of results that the consumer has taken.
    delivered_results: AtomicUsize,
}

pub(super) enum ControlState {
    /// The batch was not polled yet. Commands are kept until the batch opens.
    BeforeOpen(Vec<Command>),
    Open {
        batch: BatchId,
        throughput: Throughput,
    },
    Ended(Progress),
}

impl BatchControl {
    pub(super) fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes a command, or keeps the command until the batch opens. After the end of the batch,
    /// a command does nothing.
    pub(crate) fn send_command(&self, command: Command) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        let _effects = {
            let mut state = self.lock();
            self.note_consumer_command(&command);
            match &mut *state {
                ControlState::BeforeOpen(commands) => {
                    commands.push(command);
                    None
                }
                ControlState::Open { batch, .. } => {
                    let execute = |tx: &mut Transaction<'_>| tx.execute_command(*batch, &command);
                    let ((), effects) = engine.update_deferring_effects(execute);
                    Some(effects)
                }
                ControlState::Ended(_) => None,
            }
        };
    }

    /// Returns the lane key of `host`, which is a URL or, if `limit_by` is set, the lane key
    /// itself.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if `host` has to be a URL and is not.
    pub(crate) fn lane_key(&self, host: &str) -> Result<Box<str>, Error> {
        let has_custom_keys = |engine: Arc<Engine>| engine.limits.limit_by.is_some();
        if self.engine.upgrade().is_some_and(has_custom_keys) {
            return Ok(host.into());
        }
        Ok(origin(Request::get(host).build().checked_url()?).into())
    }

    /// Clamps a concurrency to the number of sockets that may be open.
    pub(crate) fn clamped_concurrency(&self, concurrency: usize) -> usize {
        match self.engine.upgrade() {
            Some(engine) => engine.limits.clamped_concurrency(concurrency),
            None => concurrency,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let engine = self.engine.upgrade();
        let mut state = self.lock();
        let progress = match (&mut *state, &engine) {
            (ControlState::Ended(progress), _) => progress.clone(),
            (ControlState::Open { batch, throughput }, Some(engine)) => {
                engine.batch_progress(*batch, throughput, self.delivered_results())
            }
            (ControlState::BeforeOpen(_) | ControlState::Open { .. }, _) => Progress::default(),
        };
        let discovered = self.discovered_requests.load(Ordering::Relaxed);
        progress.with_total(self.total_inputs.map(|inputs| inputs + discovered))
    }

    fn note_consumer_command(&self, command: &Command) {
        match command {
            Command::Cancel | Command::Drain => self.inputs_closed.store(true, Ordering::Relaxed),
            Command::SetConcurrency(limit) => {
                self.commanded_concurrency.store(*limit, Ordering::Relaxed);
            }
            Command::Pause | Command::Resume | Command::CancelHost(_) | Command::SetRate(_) => {
                return;
            }
        }
        self.consumer_commands.fetch_add(1, Ordering::Release);
    }

    /// Number of commands sent so far that the batch's consumer must apply. A command that
    /// increases the number also wakes the consumer.
    pub(crate) fn consumer_commands(&self) -> usize {
        self.consumer_commands.load(Ordering::Acquire)
    }

    /// Whether a command has stopped the batch from pulling inputs.
    pub(crate) fn are_inputs_closed(&self) -> bool {
        self.inputs_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn commanded_concurrency(&self) -> Option<usize> {
        Some(self.commanded_concurrency.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    pub(super) fn delivered_results(&self) -> usize {
        self.delivered_results.load(Ordering::Relaxed)
    }

    pub(crate) fn set_discovered_requests(&self, requests: usize) {
        self.discovered_requests.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn set_delivered_results(&self, results: usize) {
        self.delivered_results.store(results, Ordering::Relaxed);
    }
}

/// The batch's own reference to its control. Dropping the `ControlOwner` ends a batch that was
/// never opened.
pub(crate) struct ControlOwner(Arc<BatchControl>);

impl ControlOwner {
    pub(crate) fn new(engine: &Arc<Engine>, total_inputs: Option<usize>) -> Self {
        Self(Arc::new(BatchControl {
            engine: Arc::downgrade(engine),
            total_inputs,
            state: Mutex::new(ControlState::BeforeOpen(Vec::new())),
            consumer_commands: AtomicUsize::new(0),
            inputs_closed: AtomicBool::new(false),
            commanded_concurrency: AtomicUsize::new(0),
            discovered_requests: AtomicUsize::new(0),
            delivered_results: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn control(&self) -> &Arc<BatchControl> {
        &self.0
    }
}

impl Drop for ControlOwner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(&*state, ControlState::BeforeOpen(_)) {
            *state = ControlState::Ended(Progress::default().into_ended());
        }
    }
}

impl ControlState {
    /// Opens the batch, and executes the commands that were sent before the batch opened.
    pub(super) fn open(&mut self, tx: &mut Transaction<'_>, batch: BatchId) {
        let throughput = Throughput::starting_at(tx.now());
        if let Self::BeforeOpen(commands) =
            std::mem::replace(self, Self::Open { batch, throughput })
        {
            for command in &commands {
                tx.execute_command(batch, command);
            }
        }
    }

    /// Ends the batch, and keeps its final progress.
    pub(super) fn end(&mut self, counts: ResultCounts, now: Time) {
        if let Self::Open { throughput, .. } = self {
            *self = Self::Ended(final_progress(throughput, now, counts));
        }
    }
}

impl Transaction<'_> {
    fn execute_command(&mut self, batch: BatchId, command: &Command) {
        match command {
            Command::Pause => self.schedule_mut().hold_batch(batch),
            Command::Resume => self.schedule_mut().release_batch(batch),
            Command::SetConcurrency(limit) => {
                self.schedule_mut().set_batch_concurrency(batch, *limit);
            }
            Command::SetRate(rate) => {
                let rate = rate.map(GcraRate::from);
                self.schedule_mut().set_batch_rate(batch, rate);
            }
            Command::Drain => self.close_batch(batch),
            Command::Cancel => {
                self.close_batch(batch);
                self.cancel_in_flight(batch, None);
            }
            Command::CancelHost(lane) => {
                for job in self.schedule_mut().close_lane(batch, lane) {
                    self.deliver(job, ErrorKind::Cancelled);
                }
                if let Some(lane) = self.state().schedule().lane_id(lane) {
                    self.cancel_in_flight(batch, Some(lane));
                }
            }
        }
        // The consumer is woken, because after a command it may pull more inputs or must stop
        // pulling.
        let waker = self.batch_mut(batch).and_then(BatchState::take_waker);
        self.defer_wake(waker);
    }

    /// Cancels all queued jobs of a batch. The batch accepts no more jobs.
    fn close_batch(&mut self, batch: BatchId) {
        for job in self.schedule_mut().close_batch(batch) {
            self.deliver(job, ErrorKind::Cancelled);
        }
    }
}
