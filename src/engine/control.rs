//! The control that a batch shares with its handles.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Engine;
use super::throughput::Throughput;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::limits::Rate;
use crate::progress::Progress;
use crate::request::{Request, origin};
use crate::schedule::BatchId;

pub(crate) enum BatchCommand {
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
/// The lock of the control is taken before the engine's lock. Commands, and the start and end of
/// the batch, therefore take effect one after another.
pub(crate) struct BatchControl {
    engine: Weak<Engine>,
    /// Number of inputs of the batch, if known.
    total_input_count: Option<usize>,
    control_state: Mutex<ControlState>,
    /// Number of commands so far that concern the consumer of the batch.
    commands_for_consumer_count: AtomicUsize,
    /// Whether a command has stopped the batch from pulling inputs.
    are_inputs_closed: AtomicBool,
    /// The concurrency set by the last command that sets one; 0 if there was no such command.
    commanded_concurrency: AtomicUsize,
    /// Number of followed requests, which were found in the results of other requests.
    followed_request_count: AtomicUsize,
    /// Number of results that the consumer has taken.
    delivered_result_count: AtomicUsize,
}

pub(super) enum ControlState {
    /// The batch was not polled yet. Commands are kept until the batch opens.
    BeforeOpen(Vec<BatchCommand>),
    Open {
        batch: BatchId,
        throughput: Throughput,
    },
    Ended(Progress),
}

impl BatchControl {
    /// The engine of the batch; `None` after its last Fetcher and batch were dropped.
    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.control_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lane key of `host`. If `limit_by` is set, `host` is itself a lane key.
    /// Otherwise, `host` is a URL, and its origin is the lane key.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if `limit_by` is not set, so that `host` must be a
    /// URL, and `host` is not a URL.
    pub(crate) fn lane_key_of_host(&self, host: &str) -> Result<Box<str>, Error> {
        let has_custom_keys = |engine: Arc<Engine>| engine.limits.limit_by.is_some();
        if self.engine().is_some_and(has_custom_keys) {
            return Ok(host.into());
        }
        Ok(origin(Request::get(host).build().url_if_sendable()?).into())
    }

    /// Clamps a concurrency to the number of sockets that may be open.
    pub(crate) fn clamped_concurrency(&self, concurrency: usize) -> usize {
        match self.engine() {
            Some(engine) => engine.limits.clamped_concurrency(concurrency),
            None => concurrency,
        }
    }

    pub(super) fn record_command_for_consumer(&self, command: &BatchCommand) {
        match command {
            BatchCommand::Cancel | BatchCommand::Drain => {
                self.are_inputs_closed.store(true, Ordering::Relaxed);
            }
            BatchCommand::SetConcurrency(limit) => {
                self.commanded_concurrency.store(*limit, Ordering::Relaxed);
            }
            BatchCommand::Pause
            | BatchCommand::Resume
            | BatchCommand::CancelHost(_)
            | BatchCommand::SetRate(_) => {
                return;
            }
        }
        self.commands_for_consumer_count
            .fetch_add(1, Ordering::Release);
    }

    /// Number of commands sent so far that the batch's consumer must apply. A command that
    /// increases the number also wakes the consumer.
    pub(crate) fn commands_for_consumer_count(&self) -> usize {
        self.commands_for_consumer_count.load(Ordering::Acquire)
    }

    /// Whether a command has stopped the batch from pulling inputs.
    pub(crate) fn are_inputs_closed(&self) -> bool {
        self.are_inputs_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn commanded_concurrency(&self) -> Option<usize> {
        Some(self.commanded_concurrency.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Number of requests of the batch: its inputs, and the requests found by following results.
    /// `None` if the number of inputs is unknown.
    pub(super) fn total_request_count(&self) -> Option<usize> {
        let followed = self.followed_request_count.load(Ordering::Relaxed);
        self.total_input_count.map(|inputs| inputs + followed)
    }

    pub(super) fn delivered_result_count(&self) -> usize {
        self.delivered_result_count.load(Ordering::Relaxed)
    }

    pub(crate) fn set_followed_request_count(&self, requests: usize) {
        self.followed_request_count
            .store(requests, Ordering::Relaxed);
    }

    pub(crate) fn set_delivered_result_count(&self, results: usize) {
        self.delivered_result_count
            .store(results, Ordering::Relaxed);
    }
}

/// The batch's own reference to its control. Dropping the `ControlOwner` ends a batch that was
/// never opened.
pub(crate) struct ControlOwner(Arc<BatchControl>);

impl ControlOwner {
    pub(crate) fn new(engine: &Arc<Engine>, total_input_count: Option<usize>) -> Self {
        Self(Arc::new(BatchControl {
            engine: Arc::downgrade(engine),
            total_input_count,
            control_state: Mutex::new(ControlState::BeforeOpen(Vec::new())),
            commands_for_consumer_count: AtomicUsize::new(0),
            are_inputs_closed: AtomicBool::new(false),
            commanded_concurrency: AtomicUsize::new(0),
            followed_request_count: AtomicUsize::new(0),
            delivered_result_count: AtomicUsize::new(0),
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
