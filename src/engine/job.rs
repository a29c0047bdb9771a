//! A job: one input of a batch, from its request to its result.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::hop::HopState;
use super::job_options::JobOptions;
use super::lane::{JobLane, LaneAssignment};
use super::result_slot::ResultSlot;
use super::{Engine, runtimes};
use crate::body_budget::BodyReservation;
use crate::error::{Error, ErrorKind};
use crate::limits::Priority;
use crate::request::Request;
use crate::request_history::RequestHistory;
use crate::response::Response;
use crate::response_body::BodySink;
use crate::retry::{FinalRoundState, HopDecision};
use crate::schedule::{BatchId, Charge, PriorityLevel, Schedulable, Time};
use crate::timings::{AttemptList, Timings};
use crate::wire::PendingLookup;

pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) request: Request,
    /// The key under which the consumer keeps the input's tag. The consumer chooses the key.
    pub(crate) tag_key: usize,
    pub(super) batch_id: BatchId,
    pub(super) lane_assignment: LaneAssignment,
    /// The result of a job that has ended; between two attempts, the outcome of the last attempt.
    pub(crate) result: Option<Result<Response, Error>>,
    pub(super) options: Arc<JobOptions>,
    /// When the job last entered the schedule.
    pub(super) queued_at: Time,
    /// The part of the completed attempts' wire time that counts towards the total timeout.
    pub(super) earlier_attempts_wire_time_for_total_timeout: Duration,
    /// Receives the result of a single fetch; `None` for a job of a batch.
    pub(super) result_slot: Option<Arc<ResultSlot<Box<Job>>>>,
    /// State of the current hop, if the hop's request differs from the job's own request.
    pub(super) hop_state: Option<Box<HopState>>,
    /// The destination of the response body. During an exchange, the worker has the sink.
    pub(super) body_sink: BodySink,
    /// The job's share of the batch's body budget. During an exchange, the worker has the share.
    pub(super) body_reservation: Option<BodyReservation>,
    pub(super) span: Option<Box<tracing::Span>>,
    /// The name lookup that had to wait for a permit, so that the job returned its slot. The lookup
    /// is kept until the end of the next exchange. Until then, the lookup goes on, and the job does
    /// not return its slot for another lookup.
    pub(super) pending_lookup: Option<Box<PendingLookup>>,
    pub(super) attempts: AttemptList,
    /// Whether any byte of the request may have reached a server.
    pub(super) maybe_sent: bool,
    /// Number of retries that were not charged to the retry limit.
    pub(super) uncharged_retry_count: u32,
    pub(super) final_round_state: FinalRoundState,
    /// Whether [`Self::result`] is complete, with attempts and redirects.
    pub(super) is_result_complete: bool,
    pub(super) is_stop_condition_applied: bool,
}

impl Engine {
    /// Makes the job of a request. `has_time_driver` tells whether the job's runtime has a time
    /// driver. The caller must hold no lock, because the callbacks `limit_by` and `host_fn` run.
    ///
    /// # Errors
    ///
    /// Returns the finished job, with its error, if the request is invalid, the settings forbid it,
    /// or the runtime has no time driver.
    pub(super) fn new_job(
        &self,
        index: usize,
        request: Request,
        batch: BatchId,
        options: &Arc<JobOptions>,
        has_time_driver: bool,
    ) -> Result<Box<Job>, Box<Job>> {
        let lane_assignment = if options.body_handler.is_some() && request.save_path().is_some() {
            let reason =
                "the body can be saved, or it can be streamed or read by a handler, not both";
            Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason))
        } else {
            self.assign_lane(&request, &options.request_settings)
        };
        match lane_assignment {
            Ok(lane) if has_time_driver => {
                Ok(Job::new(index, request, lane, batch, Arc::clone(options)))
            }
            rejection => {
                let error = rejection.err();
                let error = error.unwrap_or_else(runtimes::no_time_driver_error);
                let lane = LaneAssignment::default();
                let job = Job::new(index, request, lane, batch, Arc::clone(options));
                Err(job.reject(error))
            }
        }
    }
}

impl Job {
    fn new(
        index: usize,
        request: Request,
        lane_assignment: LaneAssignment,
        batch: BatchId,
        options: Arc<JobOptions>,
    ) -> Box<Self> {
        let budget = options.body_budget.as_ref();
        Box::new(Self {
            index,
            span: request_span(index, &request),
            body_sink: BodySink::for_request(&request, options.body_handler.as_ref()),
            body_reservation: budget.map(|budget| BodyReservation::new(budget, index)),
            request,
            tag_key: 0,
            batch_id: batch,
            lane_assignment,
            result: None,
            options,
            queued_at: Time::default(),
            earlier_attempts_wire_time_for_total_timeout: Duration::ZERO,
            result_slot: None,
            hop_state: None,
            pending_lookup: None,
            attempts: AttemptList::default(),
            maybe_sent: false,
            uncharged_retry_count: 0,
            final_round_state: FinalRoundState::NoFinalRound,
            is_result_complete: false,
            is_stop_condition_applied: false,
        })
    }

    /// Ends a job with `error` before it was pushed into the schedule.
    fn reject(mut self: Box<Self>, error: Error) -> Box<Self> {
        self.result = Some(Err(error));
        self.complete_result_with_history(|_| ErrorKind::InvalidRequest);
        self.release_body_reservation_unless_result(HopDecision::DELIVER);
        self
    }

    /// The request of the current hop.
    pub(super) fn hop_request(&self) -> &Request {
        match &self.hop_state {
            Some(hop) => &hop.request,
            None => &self.request,
        }
    }

    /// Replaces the request of the current hop. Returns the hop state, for further changes.
    pub(super) fn set_hop_request(&mut self, request: Request) -> &mut HopState {
        match &mut self.hop_state {
            Some(hop) => {
                hop.request = request;
                hop
            }
            empty => empty.insert(HopState::new(request)),
        }
    }

    /// Sum of the timings of the attempt's earlier hops.
    pub(super) fn earlier_hop_timings(&self) -> Timings {
        match &self.hop_state {
            Some(hop) => hop.earlier_hop_timings,
            None => Timings::default(),
        }
    }

    /// The lane of the current hop; `None` if the hop's URL is invalid.
    pub(super) fn hop_lane(&self) -> Option<JobLane> {
        Some(JobLane {
            url: Arc::clone(self.hop_request().shared_url()?),
            lane_assignment: self.lane_assignment.clone(),
        })
    }

    /// The key of the current hop's lane; `None` if the hop's URL is invalid.
    pub(crate) fn lane_key(&self) -> Option<&str> {
        Some(
            self.lane_assignment
                .lane_key(self.hop_request().shared_url()?),
        )
    }

    pub(super) fn span(&self) -> Option<&tracing::Span> {
        self.span.as_deref()
    }

    /// Wire time so far that counts towards the total timeout, including the earlier hops of this
    /// attempt.
    pub(super) fn wire_time_for_total_timeout(&self) -> Duration {
        self.earlier_attempts_wire_time_for_total_timeout + self.earlier_hop_timings().wire()
    }

    /// Whether the total timeout of the request has passed.
    pub(super) fn has_total_timeout_expired(&self) -> bool {
        let total = self.options.timeouts.total;
        total.is_some_and(|total| total <= self.wire_time_for_total_timeout())
    }

    /// The attempts and redirects of a job that has ended.
    pub(crate) fn history(&self) -> RequestHistory {
        let (attempts, redirects) = match &self.result {
            Some(Ok(response)) => (response.attempt_list().clone(), response.redirects()),
            Some(Err(error)) => (error.attempt_list().clone(), error.redirects()),
            None => (AttemptList::default(), &[][..]),
        };
        RequestHistory::new(attempts, redirects.into())
    }

    /// The status of the response of a job that has ended; `None` if the job ended in an error.
    pub(crate) fn response_status(&self) -> Option<StatusCode> {
        Some(self.result.as_ref()?.as_ref().ok()?.status())
    }

    /// Length of the response body, whether kept in memory, saved to a file or read by a handler;
    /// `None` if the job ended in an error.
    pub(super) fn response_body_len(&self) -> Option<u64> {
        let response = self.result.as_ref()?.as_ref().ok()?;
        let streamed = response
            .saved_bytes()
            .or(self.body_sink.handler_read_bytes());
        Some(streamed.unwrap_or(response.bytes().len() as u64))
    }

    /// Takes the response, or the error, of a job that has ended.
    pub(crate) fn take_result(&mut self) -> Result<Response, Error> {
        let cancelled = || Err(Error::from_kind(ErrorKind::Cancelled));
        self.result.take().unwrap_or_else(cancelled)
    }

    /// Takes the value that the handler returned, or the error, of a job that has ended.
    pub(crate) fn take_handler_output<R: 'static>(&mut self) -> Result<R, Error> {
        self.take_result()?;
        let output = self.body_sink.take_handler_output();
        match output.and_then(|output| output.downcast().ok()) {
            Some(output) => Ok(*output),
            None => Err(Error::from_kind(ErrorKind::Cancelled)),
        }
    }

    /// Takes the job's share of the body budget. The share stays reserved until the
    /// [`BodyReservation`] is dropped.
    pub(crate) fn take_body_reservation(&mut self) -> Option<BodyReservation> {
        self.body_reservation.take()
    }
}

impl Schedulable for Box<Job> {
    fn is_abandoned(&self) -> bool {
        let slot = self.result_slot.as_ref();
        slot.is_some_and(|slot| slot.is_abandoned())
    }

    fn priority_level(&self) -> PriorityLevel {
        match self.request.priority() {
            Priority::High => PriorityLevel::High,
            Priority::Normal => PriorityLevel::Normal,
            Priority::Low => PriorityLevel::Low,
        }
    }

    fn stated_cost(&self, budget_name: &str) -> Option<u64> {
        self.hop_request().cost(budget_name)
    }

    fn has_carried_charge(&self) -> bool {
        let hop = self.hop_state.as_ref();
        hop.is_some_and(|hop| hop.carried_charge.is_some())
    }

    fn take_carried_charge(&mut self) -> Option<Charge> {
        self.hop_state.as_mut()?.carried_charge.take()
    }
}

/// The tracing span of a request. The span is created together with the job, so that the span is a
/// child of the caller's span.
fn request_span(index: usize, request: &Request) -> Option<Box<tracing::Span>> {
    let span = tracing::debug_span!(
        target: "fanout::request",
        "request",
        index,
        method = %request.method(),
        url = %request.url_or_invalid_text(),
    );
    (!span.is_disabled()).then(|| Box::new(span))
}
