//! The hops of a job (request and response pairs within an attempt): redirects, and requests with a
//! bearer token.

use std::sync::Arc;

use super::job::Job;
use super::limits::EngineLimits;
use super::tokens::BearerToken;
use crate::error::{Error, ErrorKind};
use crate::exchange::redirect;
use crate::request::Request;
use crate::response::{Redirect, Response};
use crate::timings::Timings;

/// State of a job's current hop, if the hop's request differs from the job's own request.
pub(super) struct HopState {
    /// The request of the current hop.
    pub(super) request: Request,
    pub(super) redirects: Vec<Redirect>,
    /// Sum of the timings of the attempt's earlier hops.
    pub(super) earlier_hop_timings: Timings,
    /// The token that the engine set in the `Authorization` header of the current hop, if any.
    pub(super) token: Option<BearerToken>,
    /// Whether the request was sent again after a 401.
    pub(super) is_reauthorized: bool,
}

impl HopState {
    fn new(request: Request) -> Box<Self> {
        Box::new(Self {
            request,
            redirects: Vec::new(),
            earlier_hop_timings: Timings::default(),
            token: None,
            is_reauthorized: false,
        })
    }
}

impl Job {
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

    /// Whether the request may follow at least one redirect.
    pub(super) fn follows_redirects(&self) -> bool {
        self.max_redirects() > 0
    }

    fn max_redirects(&self) -> usize {
        let own = self.request.max_redirects();
        own.unwrap_or(self.options.policy.max_redirects) as usize
    }

    /// Makes the target of a redirect the job's next hop.
    ///
    /// # Errors
    ///
    /// Returns an error if the limit of redirects is reached, or if the redirect is invalid or
    /// forbidden.
    pub(super) fn follow_redirect(
        &mut self,
        limits: &EngineLimits,
        response: &Response,
    ) -> Result<(), Error> {
        let (status, url) = (response.status(), response.shared_url());
        let request =
            redirect::redirected_request(self.hop_request(), url, status, response.headers())?;
        let max_redirects = self.max_redirects();
        let followed = self.hop_state.as_ref().map_or(0, |hop| hop.redirects.len());
        if followed == max_redirects {
            let reason = format!("{max_redirects} redirects were followed");
            return Err(Error::from_kind(ErrorKind::Redirect).with_detail(reason));
        }
        if request.body().is_consumed() {
            let reason = "the request body is a stream, which cannot be sent again";
            return Err(Error::from_kind(ErrorKind::Redirect).with_detail(reason));
        }
        self.lane =
            limits
                .assign_lane(&request, &self.options.policy)
                .map_err(|error| match error.kind() {
                    ErrorKind::InvalidRequest => Error::new(ErrorKind::Redirect, error),
                    _ => error,
                })?;
        let hop = self.set_hop_request(request);
        hop.redirects.push(Redirect::new(status, Arc::clone(url)));
        Ok(())
    }
}
