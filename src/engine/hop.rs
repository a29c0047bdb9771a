//! The way of a job that was redirected.

use std::sync::Arc;

use super::{BearerToken, EngineLimits, Job};
use crate::exchange::redirect;
use crate::{Error, ErrorKind, Redirect, Request, Response, Timings};

/// Where a redirected job is, and how it came there.
pub(super) struct HopState {
    /// The request of the present hop.
    pub(super) request: Request,
    pub(super) redirects: Vec<Redirect>,
    /// What the hops before took, in the present attempt.
    pub(super) timings: Timings,
    /// The one that this hop goes with, as its `Authorization`.
    pub(super) token: Option<BearerToken>,
    /// Whether it has gone again for a 401.
    pub(super) is_reauthorized: bool,
}

impl Job {
    /// The request of the present hop.
    pub(super) fn hop_request(&self) -> &Request {
        self.hop_state
            .as_ref()
            .map_or(&self.request, |hop_state| &hop_state.request)
    }

    /// Whether one more redirect would be followed, or at least looked at.
    pub(super) fn follows_redirects(&self) -> bool {
        self.max_redirects() > 0
    }

    fn max_redirects(&self) -> usize {
        let own = self.request.max_redirects();
        own.unwrap_or(self.options.policy.max_redirects) as usize
    }

    /// Goes where `response` points: the job is then at its next hop. False if it points nowhere.
    ///
    /// # Errors
    ///
    /// If there were too many redirects, or this one may not or cannot be followed.
    pub(super) fn follow_redirect(
        &mut self,
        limits: &EngineLimits,
        response: &Response,
        timings: Timings,
    ) -> Result<bool, Error> {
        let max = self.max_redirects();
        // ExchangeRequest first: to look into the headers of every response would unpack them.
        if max == 0 || !redirect::is_redirect(response.status()) {
            return Ok(false);
        }
        let url = response.shared_url();
        let next = redirect::redirected_request(
            self.hop_request(),
            url,
            response.status(),
            response.headers(),
        )?;
        let Some(next) = next else { return Ok(false) };
        let taken = self
            .hop_state
            .as_ref()
            .map_or(0, |hop_state| hop_state.redirects.len());
        if taken == max {
            return Err(
                Error::from_kind(ErrorKind::Redirect).with_detail(format!("{max} were followed"))
            );
        }
        if next.body().is_consumed() {
            let reason = "its body is a stream, which cannot be sent again";
            return Err(Error::from_kind(ErrorKind::Redirect).with_detail(reason));
        }
        let assignment = limits.assign_lane(&next, &self.options.policy);
        (self.custom_lane_key, self.host_settings) =
            assignment.map_err(|error| match error.kind() {
                ErrorKind::InvalidRequest => Error::new(ErrorKind::Redirect, error),
                _ => error,
            })?;
        let redirect = Redirect::new(response.status(), Arc::clone(url));
        match &mut self.hop_state {
            Some(hop_state) => {
                hop_state.request = next;
                hop_state.redirects.push(redirect);
                hop_state.timings += timings;
            }
            None => {
                let redirects = vec![redirect];
                self.hop_state = Some(Box::new(HopState {
                    request: next,
                    redirects,
                    timings,
                    token: None,
                    is_reauthorized: false,
                }));
            }
        }
        Ok(true)
    }
}
