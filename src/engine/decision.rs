//! Decides what follows a hop, such as a retry. This module supplies the job's state and the retry
//! budget of its lane. The module [`retry`](crate::retry) decides.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderMap;

use super::Engine;
use super::hop::HopState;
use super::hop_stats::HopStats;
use super::job::Job;
use crate::error::{Error, ErrorKind};
use crate::exchange::{ResponseHeadPolicy, redirect};
use crate::hop_clock::HopClock;
use crate::redirect_policy::{ProposedRedirect, RedirectDecision, RedirectPolicy};
use crate::response::{Redirect, Response};
use crate::retry::{HopContext, HopDecision};
use crate::schedule::{LaneId, Time};
use crate::timings::{Attempt, AttemptList, Outcome, Timings};

impl Job {
    /// The number of retries so far that were charged to the retry limit.
    #[inline]
    pub(super) fn charged_retry_count(&self) -> u32 {
        self.attempts.attempt_count() as u32 - self.uncharged_retry_count
    }

    /// The part of the job's state on which the decision after a hop depends.
    #[inline]
    pub(super) fn hop_context(&self, maybe_sent: bool) -> HopContext<'_> {
        HopContext {
            request: self.hop_request(),
            retry_policy: &self.options.retry,
            follows_redirects: self.follows_redirects(),
            respect_rate_limit_headers: self
                .options
                .request_settings
                .exchange_settings
                .respect_rate_limit_headers,
            can_renew_token: self.can_reauthorize(),
            has_handler_started: self.body_sink.has_handler_started(),
            maybe_sent,
            charged_retry_count: self.charged_retry_count()
                - self.body_sink.uncounted_retry_count(),
            uncharged_retry_count: self.uncharged_retry_count,
            final_round_state: self.final_round_state,
        }
    }
}

impl Engine {
    /// Decides what follows a hop. A retry that counts towards the retry limit is withdrawn from
    /// the lane's retry budget, under the engine's lock. If the budget is spent, there is no such
    /// retry.
    ///
    /// # Errors
    ///
    /// Returns an error if the user's `Retry::classify` callback panics.
    #[inline]
    pub(super) fn decide_after_hop(
        self: &Arc<Self>,
        context: &HopContext<'_>,
        lane: LaneId,
        outcome: &Result<Response, Error>,
    ) -> Result<HopDecision, Error> {
        let decision = context.decide_next_step(outcome, fastrand::f64())?;
        if decision.is_charged_retry && !self.withdraw_from_retry_budget(lane) {
            return Ok(context.replace_retry_for_lack_of_budget(decision));
        }
        Ok(decision)
    }
}

/// The decisions that were made from the head of a response.
#[derive(Default)]
pub(super) struct HeadDecisions {
    /// The step after the hop, decided before a handler reads the body. `None` without a handler.
    /// The decision is final, because it determines whether the handler is called.
    pub(super) hop_decision: Option<HopDecision>,
    /// Whether the redirect policy has stopped the redirect, so that the redirect response is the
    /// result.
    pub(super) policy_stops_redirect: bool,
    /// Why the redirect policy refuses the redirect.
    pub(super) redirect_refusal: Option<Error>,
}

/// Decides from the head of a response what follows the hop, before a handler reads the body.
pub(super) struct HeadDecider<'a> {
    pub(super) redirect_policy: &'a RedirectPolicy,
    pub(super) earlier_redirects: &'a [Redirect],
    pub(super) engine: &'a Arc<Engine>,
    pub(super) lane_id: LaneId,
    pub(super) hop_context: HopContext<'a>,
    pub(super) decisions: &'a mut HeadDecisions,
    pub(super) attempt_so_far: AttemptSoFar<'a>,
}

/// The current attempt, which has not ended, and the earlier attempts.
#[derive(Copy, Clone)]
pub(super) struct AttemptSoFar<'a> {
    pub(super) earlier_attempts: &'a AttemptList,
    pub(super) hop_state: Option<&'a HopState>,
    pub(super) hop_clock: &'a HopClock,
    pub(super) queued_at: Time,
    pub(super) hop_started_at: Time,
}

impl HeadDecider<'_> {
    /// Asks the redirect policy whether to follow a redirect. After a stopped redirect, no hop
    /// follows. An invalid redirect is ignored here, because `prepare_redirect_hop` returns its
    /// error.
    #[cold]
    fn apply_redirect_policy(&mut self, status: StatusCode, headers: &HeaderMap) {
        let policy = self.redirect_policy;
        let Some(url) = self.hop_context.request.url() else {
            return;
        };
        if policy.follows_all() || !redirect::has_location(headers) {
            return;
        }
        let Ok(target_url) = redirect::redirect_target(url, headers) else {
            return;
        };
        let decision = policy.decide_redirect(&ProposedRedirect {
            status,
            url,
            target_url: &target_url,
            earlier_redirects: self.earlier_redirects,
        });
        match decision {
            Ok(RedirectDecision::Follow) => {}
            Ok(RedirectDecision::Stop) => {
                self.hop_context.follows_redirects = false;
                self.decisions.policy_stops_redirect = true;
            }
            Ok(RedirectDecision::Fail) => {
                let refusal =
                    Error::from_kind(ErrorKind::Redirect).with_detail("refused by the policy");
                self.decisions.redirect_refusal = Some(refusal);
            }
            Err(panicked) => self.decisions.redirect_refusal = Some(panicked),
        }
    }
}

impl ResponseHeadPolicy for HeadDecider<'_> {
    #[inline]
    fn decide_whether_next_hop_follows(&mut self, status: StatusCode, headers: &HeaderMap) -> bool {
        if redirect::is_redirect(status) && self.hop_context.follows_redirects {
            self.apply_redirect_policy(status, headers);
        }
        self.hop_context.leads_to_next_hop(status, headers)
    }

    fn decide_whether_handler_starts(
        &mut self,
        outcome: &Result<Response, Error>,
    ) -> Result<bool, Error> {
        let decision = self
            .engine
            .decide_after_hop(&self.hop_context, self.lane_id, outcome)?;
        self.decisions.hop_decision = Some(decision);
        Ok(!decision.starts_another_attempt())
    }

    fn add_history_to_response(&self, response: &mut Response) {
        let AttemptSoFar {
            earlier_attempts,
            hop_state,
            hop_clock,
            queued_at,
            hop_started_at,
        } = self.attempt_so_far;
        let now = self.engine.now();
        let stats = HopStats::measure_hop(hop_clock, queued_at, hop_started_at, now);
        let earlier_hops = hop_state.map_or(Timings::default(), |hop| hop.earlier_hop_timings);
        let outcome = Outcome::Status(response.status());
        let mut attempts = earlier_attempts.clone();
        attempts.push_attempt(Attempt::new(outcome, earlier_hops + stats.timings));
        response.set_attempts(attempts);
        response.set_redirects(self.earlier_redirects.into());
    }
}
