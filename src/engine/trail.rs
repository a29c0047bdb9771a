//! The way of a job that was redirected.

use std::sync::Arc;

use super::{Job, Rules, Token};
use crate::exchange::redirect;
use crate::{Error, ErrorKind, Redirect, Request, Response, Timings};

/// Where a redirected job is, and how it came there.
pub(super) struct Trail {
    /// The request of the present hop.
    pub(super) request: Request,
    pub(super) redirects: Vec<Redirect>,
    /// What the hops before took, in the present attempt.
    pub(super) timings: Timings,
    /// The one that this hop goes with, as its `Authorization`.
    pub(super) token: Option<Token>,
    /// Whether it has gone again for a 401.
    pub(super) renewed: bool,
}

impl Job {
    /// The request of the present hop.
    pub(super) fn hop(&self) -> &Request {
        self.trail
            .as_ref()
            .map_or(&self.request, |trail| &trail.request)
    }

    /// Whether one more redirect would be followed, or at least looked at.
    pub(super) fn follows(&self) -> bool {
        self.most_redirects() > 0
    }

    fn most_redirects(&self) -> usize {
        let own = self.request.most_redirects();
        own.unwrap_or(self.terms.manners.max_redirects) as usize
    }

    /// Goes where `response` points: the job is then at its next hop. False if it points nowhere.
    ///
    /// # Errors
    ///
    /// If there were too many redirects, or this one may not or cannot be followed.
    pub(super) fn follow(
        &mut self,
        rules: &Rules,
        response: &Response,
        timings: Timings,
    ) -> Result<bool, Error> {
        let most = self.most_redirects();
        // Asked first: to look into the headers of every response would unpack them.
        if most == 0 || !redirect::is_redirect(response.status()) {
            return Ok(false);
        }
        let url = response.shared_url();
        let next = redirect::next_hop(self.hop(), url, response.status(), response.headers())?;
        let Some(next) = next else { return Ok(false) };
        let taken = self.trail.as_ref().map_or(0, |trail| trail.redirects.len());
        if taken == most {
            return Err(Error::of(ErrorKind::Redirect).because(format!("{most} were followed")));
        }
        if next.content().is_spent() {
            let reason = "its body is a stream, which cannot be sent again";
            return Err(Error::of(ErrorKind::Redirect).because(reason));
        }
        let place = rules.place_of(&next, &self.terms.manners);
        (self.lane, self.host) = place.map_err(|error| match error.kind() {
            ErrorKind::InvalidRequest => Error::new(ErrorKind::Redirect, error),
            _ => error,
        })?;
        let redirect = Redirect::new(response.status(), Arc::clone(url));
        match &mut self.trail {
            Some(trail) => {
                trail.request = next;
                trail.redirects.push(redirect);
                trail.timings += timings;
            }
            None => {
                let redirects = vec![redirect];
                self.trail = Some(Box::new(Trail {
                    request: next,
                    redirects,
                    timings,
                    token: None,
                    renewed: false,
                }));
            }
        }
        Ok(true)
    }
}
