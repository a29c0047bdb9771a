//! Moves a job to the next hop of a redirect.

use std::sync::Arc;

use super::Engine;
use super::job::Job;
use crate::error::{Error, ErrorKind};
use crate::exchange::redirect;
use crate::redirect_policy::RedirectPolicy;
use crate::request::Request;
use crate::response::{Redirect, Response};

impl Job {
    /// Whether the request may follow at least one redirect.
    pub(super) fn follows_redirects(&self) -> bool {
        self.max_redirects() > 0
    }

    fn max_redirects(&self) -> usize {
        let own = self.request.max_redirects();
        own.unwrap_or(self.options.request_settings.max_redirects) as usize
    }

    pub(super) fn redirect_policy(&self) -> &RedirectPolicy {
        let own = self.request.redirect_policy();
        own.unwrap_or(&self.options.request_settings.redirect_policy)
    }

    /// The redirects that were followed so far.
    pub(super) fn followed_redirects(&self) -> &[Redirect] {
        self.hop_state.as_ref().map_or(&[], |hop| &hop.redirects)
    }

    /// The request of the last hop of a finished job, and the redirects that led to it. `None` if
    /// no redirect was followed.
    pub(crate) fn last_request_and_redirects(&self) -> Option<(&Request, &[Redirect])> {
        let redirects = match self.result.as_ref()? {
            Ok(response) => response.redirects(),
            Err(error) => error.redirects(),
        };
        (!redirects.is_empty()).then(|| (self.hop_request(), redirects))
    }

    /// Makes the target of a redirect the job's next hop, and returns the redirect response.
    ///
    /// # Errors
    ///
    /// Returns an error with the redirect response if the limit of redirects is reached, or if the
    /// redirect is invalid or forbidden. `refusal` is the error of a redirect that the redirect
    /// policy refuses.
    pub(super) fn prepare_redirect_hop(
        &mut self,
        engine: &Engine,
        response: Response,
        refusal: Option<Error>,
    ) -> Result<Response, Error> {
        let followed = refusal.map_or_else(|| self.set_redirect_target(engine, &response), Err);
        match followed {
            Ok(()) => Ok(response),
            Err(mut error) => {
                if let Some(location) = redirect::quoted_location_detail(response.headers()) {
                    error.append_detail(location);
                }
                error.set_rejected_response(response);
                Err(error)
            }
        }
    }

    fn set_redirect_target(&mut self, engine: &Engine, response: &Response) -> Result<(), Error> {
        let (status, url) = (response.status(), response.shared_url());
        let request =
            redirect::redirected_request(self.hop_request(), url, status, response.headers())?;
        let max_redirects = self.max_redirects();
        if self.followed_redirects().len() == max_redirects {
            let reason = format!("{max_redirects} redirects were followed");
            return Err(Error::from_kind(ErrorKind::Redirect).with_detail(reason));
        }
        if request.body().is_stream_already_taken() {
            let reason = "the request body is a stream, which cannot be sent again";
            return Err(Error::from_kind(ErrorKind::Redirect).with_detail(reason));
        }
        self.lane_assignment = engine
            .assign_lane(&request, &self.options.request_settings)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidRequest => Error::new(ErrorKind::Redirect, error),
                _ => error,
            })?;
        let hop = self.set_hop_request(request);
        hop.redirects.push(Redirect::new(status, Arc::clone(url)));
        Ok(())
    }
}
