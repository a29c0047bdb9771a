//! Runs jobs (inputs on their way to a result): the asynchronous code around the
//! [schedule](crate::schedule), which is pure.
//!
//! ```text
//!   OpenBatch, SingleFetch ──push──► State { schedule, … } ──start──► Worker ──► exchange
//!            ▲                          ▲    ▲                          │
//!            └────────deliver───────────┘    └────settle, requeue───────┘
//! ```
//!
//! - A [`Job`] is one input on the way to its result. It is owned by exactly one place: the
//!   schedule, a worker, or the consumer.
//! - A [`Worker`](worker::Worker) is a spawned task that runs one exchange (request and response on
//!   the wire) after another.
//! - A [`RuntimeTimer`](timer::RuntimeTimer) per runtime sleeps until the next instant at which a
//!   queued job may start.
//! - A [`TokenRefresh`](tokens::TokenRefresh) is a task that asks a token source for a bearer
//!   token.
//! - A [`LookupPermitWait`](lookup_wait::LookupPermitWait) is a task that keeps the jobs of a lane
//!   from starting until a name lookup has a permit.
//!
//! # Locks
//!
//! One lock protects the [`State`] that workers, timers and consumers share. Every change of the
//! state is a [`Transaction`](state::Transaction), which ends by starting each job that may start.
//! A push, a settled slot or a timer therefore starts the jobs it makes ready in the same critical
//! section, and no wake-up is lost.
//!
//! The lock protects the schedule, the records of open batches, and the state of token cells. Code
//! under the lock does not wait, panic or call the user's code.
//!
//! After the lock is released, [`Effects`](state::Effects) spawn tasks, wake consumers, and drop
//! jobs whose result no consumer takes.
//!
//! The lock is not held while the callbacks `limit_by` and `host_fn`, the `settle` functions of
//! budgets, token sources and exchanges run.
//!
//! Lock order: first a batch's [`BatchControl`] or [`Throughput`], then [`State`], then a token
//! cell or a result slot.

mod announced_limits;
mod assign_lane;
mod batch_state;
mod cancel_flag;
mod commands;
mod control;
mod costs;
mod decision;
mod enqueue;
mod guarded_exchange;
mod hop;
mod hop_stats;
mod job;
mod job_options;
mod lane;
mod limits;
mod lookup_wait;
mod open_batch;
mod progress;
mod recording;
mod redirects;
mod request_settings;
mod response_outlet;
mod result_counts;
mod result_slot;
mod route_health;
mod runtimes;
mod shared_worker_state;
mod single_fetch;
mod single_fetch_batches;
mod state;
mod stop_condition;
mod tenant_handle;
mod throughput;
mod timeouts;
mod timer;
mod tokens;
mod worker;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use batch_state::WakeConditions;
pub(crate) use control::{BatchCommand, BatchControl, ControlOwner};
pub(crate) use costs::FetcherBudgets;
pub(crate) use job::Job;
pub(crate) use job_options::JobOptions;
pub(crate) use limits::{EngineLimits, LimitByFn};
pub(crate) use open_batch::OpenBatch;
pub(crate) use request_settings::RequestSettings;
pub(crate) use single_fetch::SingleFetch;
pub(crate) use stop_condition::StopCondition;
pub(crate) use tenant_handle::TenantHandle;
pub(crate) use tokens::TokenCells;

use crate::exchange::Transport;
use crate::schedule::{LaneId, LaneLimits, Time};
use lane::JobLane;
use limits::SCOUT_TIMEOUT;
use state::State;
use throughput::Throughput;

/// Runs the requests of a Fetcher. The Fetcher's clones and siblings (Fetchers from `to_builder`)
/// share its engine.
pub(crate) struct Engine {
    transport: Transport,
    pub(crate) limits: EngineLimits,
    /// The instant at which [`Time`] is zero.
    epoch: Instant,
    state: Mutex<State>,
    /// Number of queued jobs at the end of the last transaction, readable without the engine's
    /// lock.
    queued_job_count: AtomicUsize,
    throughput: Mutex<Throughput>,
}

/// Returns `start + wait`. A wait longer than 30 years counts as 30 years, because the clock may be
/// unable to represent the sum.
pub(crate) fn instant_after(start: Instant, wait: Duration) -> Instant {
    const LONGEST_WAIT: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    start + wait.min(LONGEST_WAIT)
}

impl Engine {
    pub(crate) fn new(transport: Transport, limits: EngineLimits) -> Self {
        Self {
            transport,
            epoch: Instant::now(),
            state: Mutex::new(State::new(&limits)),
            queued_job_count: AtomicUsize::new(0),
            throughput: Mutex::new(Throughput::starting_at(Time::default())),
            limits,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.to_time(Instant::now())
    }

    pub(crate) fn to_time(&self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.epoch)
    }

    fn to_instant(&self, time: Time) -> Instant {
        instant_after(self.epoch, Duration::from_nanos(time.as_nanos()))
    }

    /// The limits of a new lane or route. If the route's protocol is unknown, its first request is
    /// a scout, which finds out the protocol, and other requests wait for the scout until its
    /// timeout.
    fn lane_limits_with_scout_timeout(&self, lane: &JobLane) -> LaneLimits {
        let mut limits = self.limits.configured_lane_limits(lane);
        if self
            .transport
            .is_origin_protocol_unknown(&lane.url, lane.lane_assignment.proxy.as_ref())
        {
            limits.scout_timeout_nanos = SCOUT_TIMEOUT.as_nanos() as u64;
        }
        limits
    }

    /// Withdraws a retry from the retry budget of a lane. Returns false if the budget is spent. The
    /// caller must not hold the engine's lock.
    fn withdraw_from_retry_budget(self: &Arc<Self>, lane: LaneId) -> bool {
        self.update(|tx| tx.withdraw_from_retry_budget(lane))
    }
}
