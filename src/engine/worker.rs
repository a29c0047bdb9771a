//! A worker: a spawned task that runs one exchange after another while jobs may start.
//!
//! A worker is created with its first job. The critical section that settles a job (returns its
//! slot) also takes the worker's next job. A worker without a next job ends. Every started job is
//! settled: a caught panic becomes the job's result, and the destructor of a worker settles the
//! worker's current job.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Id;
use tokio::time::sleep_until;

use super::Engine;
use super::announced_limits::apply_announced_limits;
use super::costs::CostSettlement;
use super::decision::{AttemptSoFar, HeadDecider, HeadDecisions};
use super::guarded_exchange::{ExchangeTimer, GuardedExchange, catch_panic};
use super::hop_stats::HopStats;
use super::job::Job;
use super::shared_worker_state::SharedWorkerState;
use super::timeouts::ExchangeTimeouts;
use crate::error::{Error, ErrorKind};
use crate::exchange::{AnnouncedLimits, ExchangeInput};
use crate::hop_clock::{HopClock, Phase};
use crate::response::Response;
use crate::retry::NextStep;
use crate::schedule::{CostOutcome, RouteObservation, Slot, Time};
use crate::wire::{PendingLookup, StickyConnection};

pub(super) struct Worker {
    engine: Arc<Engine>,
    id: WorkerId,
    shared_state: Arc<SharedWorkerState>,
    hop_clock: HopClock,
    sticky_connection: StickyConnection,
    /// The job in flight; `None` once it is settled.
    current_job: Option<(Slot, Box<Job>)>,
    hop_started_at: Time,
    /// Whether the worker's task is being polled. A worker that is dropped during a poll has
    /// panicked.
    is_polling: bool,
}

#[derive(Copy, Clone)]
pub(super) struct WorkerId {
    pub(super) runtime_id: Id,
    /// The key of the worker's job among the engine's active jobs.
    pub(super) active_job_key: usize,
}

impl Worker {
    pub(super) fn new(
        engine: &Arc<Engine>,
        id: WorkerId,
        shared_state: Arc<SharedWorkerState>,
        job: (Slot, Box<Job>),
        now: Time,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            id,
            shared_state,
            hop_clock: HopClock::new(engine.epoch),
            sticky_connection: StickyConnection::default(),
            current_job: Some(job),
            hop_started_at: now,
            is_polling: false,
        }
    }

    /// The worker's main loop: runs an exchange, settles the job and takes the next job.
    pub(super) async fn run(mut self) {
        self.is_polling = true;
        let sleep = pin!(sleep_until(self.engine.to_instant(self.hop_started_at)));
        let mut timer = ExchangeTimer::new(sleep);
        while self.current_job.is_some() {
            if let Some(lookup) = self.lookup_awaiting_permit() {
                self.requeue_until_lookup_permit(lookup);
            } else if let Some(outcome) = self.run_exchange(&mut timer).await {
                self.settle_and_take_next_job(outcome);
            }
        }
    }

    /// Returns the name lookup of the current job if the lookup has to wait for a permit.
    ///
    /// Returns `None` if the job has waited for a permit before this exchange, or if the job's lane
    /// has a `limit_by` key. Other hosts of such a lane must not wait for the lookup.
    fn lookup_awaiting_permit(&self) -> Option<PendingLookup> {
        let (_, job) = self.current_job.as_ref()?;
        if job.pending_lookup.is_some() || job.lane_assignment.custom_lane_key.is_some() {
            return None;
        }
        let lookup = self
            .engine
            .transport
            .name_lookup_awaiting_permit(job.hop_request())?;
        (!self.shared_state.cancel_flag.is_set()).then_some(lookup)
    }

    /// Puts the current job back into the schedule until the job's name lookup has a permit, and
    /// takes the next job.
    fn requeue_until_lookup_permit(&mut self, lookup: PendingLookup) {
        let Some((slot, job)) = self.current_job.take() else {
            return;
        };
        self.sticky_connection.return_to_pool();
        let now = self.engine.now();
        let (next, effects) = self.engine.update_and_take_next_job(self.id, now, |tx| {
            tx.requeue_until_lookup_permit(slot, job, lookup);
        });
        self.current_job = next;
        self.hop_started_at = now;
        drop(effects);
    }

    /// Runs one exchange of the current job. Returns `None` if the worker has no job.
    async fn run_exchange(&mut self, timer: &mut ExchangeTimer<'_>) -> Option<ExchangeOutcome> {
        let (engine, clock) = (&self.engine, &self.hop_clock);
        let (slot, job) = self.current_job.as_mut()?;
        job.result = None;
        job.add_bearer_token();
        let mut body_sink = std::mem::take(&mut job.body_sink);
        let mut body_reservation = job.body_reservation.take();
        let mut announced_limits = None;
        clock.reset_for_new_hop(engine.to_instant(self.hop_started_at));
        let mut head_decisions = HeadDecisions::default();
        let result = {
            let exchange = job.options.request_settings.exchange_settings.run_exchange(
                &engine.transport,
                ExchangeInput {
                    request: job.hop_request(),
                    response_head_policy: HeadDecider {
                        redirect_policy: job.redirect_policy(),
                        earlier_redirects: job.followed_redirects(),
                        engine,
                        lane_id: slot.lane_id(),
                        // A response head proves that the request was sent.
                        hop_context: job.hop_context(true),
                        decisions: &mut head_decisions,
                        attempt_so_far: AttemptSoFar {
                            earlier_attempts: &job.attempts,
                            hop_state: job.hop_state.as_deref(),
                            hop_clock: clock,
                            queued_at: job.queued_at,
                            hop_started_at: self.hop_started_at,
                        },
                    },
                    hop_clock: clock,
                    body_bytes_in_flight: &self.shared_state.body_bytes_in_flight,
                    sticky_connection: &mut self.sticky_connection,
                    body_sink: &mut body_sink,
                    body_reservation: body_reservation.as_mut(),
                    announced_limits: &mut announced_limits,
                },
            );
            let mut exchange = pin!(Some(exchange));
            let mut guarded = GuardedExchange {
                engine,
                exchange: exchange.as_mut(),
                cancel_flag: &self.shared_state.cancel_flag,
                timeouts: ExchangeTimeouts::new(job, self.hop_started_at),
                hop_clock: clock,
                span: job.span().cloned(),
            };
            let result = poll_fn(|cx| {
                self.is_polling = true;
                let poll = guarded.poll(cx, timer);
                self.is_polling = poll.is_ready();
                if has_finished_scout_or_probe(slot, clock.phase()) {
                    engine.update(|tx| tx.schedule_mut().end_wait_for_scout_or_probe(slot));
                }
                poll
            })
            .await;
            // The transport may also panic while the exchange is dropped.
            catch_panic(|| exchange.set(None)).and(result)
        };
        body_sink.keep_resumable_download().await;
        job.body_sink = body_sink;
        job.body_reservation = body_reservation;
        Some(ExchangeOutcome {
            result,
            announced_limits,
            head_decisions,
        })
    }

    /// Settles the current job and takes the next job in one critical section.
    fn settle_and_take_next_job(&mut self, outcome: ExchangeOutcome) {
        let Some((slot, mut job)) = self.current_job.take() else {
            return;
        };
        job.pending_lookup = None;
        let now = self.engine.now();
        // With no job queued, the connection returns to the pool before the result is delivered.
        // Jobs that the consumer pushes after the delivery can then use the connection.
        if self.engine.queued_job_count.load(Ordering::Relaxed) == 0 {
            self.sticky_connection.return_to_pool();
        }
        let stats = HopStats::measure_hop(&self.hop_clock, job.queued_at, self.hop_started_at, now);
        let ExchangeOutcome {
            mut result,
            announced_limits,
            head_decisions,
        } = outcome;
        let observation = RouteObservation::observation_from_outcome(
            &result,
            stats.timings,
            self.hop_clock.phase(),
        );
        let lane = slot.lane_id();
        let mut settlement =
            CostSettlement::of_exchange(&self.engine, &job, &mut result, stats.maybe_sent);
        let decision = job.decide_and_record_hop(&self.engine, lane, result, stats, head_decisions);
        if decision.next_step == NextStep::Deliver {
            job.drain_batch_if_stop_condition_met();
        }
        job.release_body_reservation_unless_result(decision);
        let (next, effects) = self.engine.update_and_take_next_job(self.id, now, |tx| {
            let schedule = tx.schedule_mut();
            if let Some(settlement) = &mut settlement
                && decision.next_step != NextStep::RenewToken
            {
                settlement.settle_costs(schedule, &slot, now);
            }
            if let Some(announced_limits) = announced_limits {
                apply_announced_limits(schedule, &slot, &announced_limits, now);
            }
            if let Some(observation) = observation {
                schedule.record_exchange_outcome(&slot, observation, now);
            }
            tx.apply_hop_decision_and_settle(slot, job, decision);
        });
        self.current_job = next;
        self.hop_started_at = now;
        // The connection returns to the pool before the effects start other workers, which may use
        // the connection.
        let stays_in_lane = |(next, _): &(Slot, Box<Job>)| next.lane_id() == lane;
        if !self.current_job.as_ref().is_some_and(stays_in_lane) {
            self.sticky_connection.return_to_pool();
        }
        drop(effects);
        if let Some(settlement) = &settlement {
            settlement.trace_settled_costs();
        }
    }
}

/// The outcome of one exchange.
struct ExchangeOutcome {
    result: Result<Response, Error>,
    /// The rate limits that the server announced.
    announced_limits: Option<Box<AnnouncedLimits>>,
    head_decisions: HeadDecisions,
}

/// Whether the request in `slot` is a scout that has found out its origin's protocol, or a circuit
/// breaker's probe to which the host has responded.
fn has_finished_scout_or_probe(slot: &Slot, phase: Phase) -> bool {
    (slot.is_scout() && phase != Phase::Connect)
        || (slot.is_probe() && matches!(phase, Phase::Body | Phase::Streaming))
}

/// A worker that still has a job is dropped for one of two reasons. If the worker's runtime shuts
/// down, the runtime's other jobs end too. If the worker itself panics, for example in a tracing
/// subscriber, only the worker's job ends.
impl Drop for Worker {
    fn drop(&mut self) {
        let Some((slot, mut job)) = self.current_job.take() else {
            return;
        };
        let now = self.engine.now();
        let has_panicked = self.is_polling && std::thread::panicking();
        let reason = if has_panicked {
            ErrorKind::Panicked
        } else {
            ErrorKind::Cancelled
        };
        let stats = HopStats::measure_hop(&self.hop_clock, job.queued_at, self.hop_started_at, now);
        let cost = CostOutcome::without_response(stats.maybe_sent);
        job.record_final_error(Error::from_kind(reason), &stats);
        self.engine.update(|tx| {
            tx.remove_worker(self.id);
            if !has_panicked {
                tx.end_runtime_and_cancel_queued(self.id.runtime_id);
            }
            tx.deliver_job(job, reason);
            let schedule = tx.schedule_mut();
            schedule.settle_costs(&slot, &cost, now);
            schedule.settle(slot);
        });
    }
}
