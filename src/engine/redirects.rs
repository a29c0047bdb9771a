//! Moves a job to the next hop of a redirect.

use std::sync::Arc;

use super::Engine;
use super::job::Job;
use crate::error::{Error, ErrorKind};
use crate::exchange::redirect;
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

    /// Makes the target of a redirect the job's next hop, and returns the response that redirects.
    ///
    /// # Errors
    ///
    /// Returns an error with that response if the limit of redirects is reached, or if the redirect
    /// is invalid or forbidden.
    pub(super) fn prepare_redirect_hop(
        &mut self,
        engine: &Engine,
        response: Response,
    ) -> Result<Response, Error> {
        match self.set_redirect_target(engine, &response) {
            Ok(()) => Ok(response),
            Err(mut error) => {
                if let Some(location) = redirect::quoted_location(response.headers()) {
                    error.append_detail(location);
                }
                error.set_response(response);
                Err(error)
            }
        }
    }

    fn set_redirect_target(&mut self, engine: &Engine, response: &Response) -> Result<(), Error> {
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
