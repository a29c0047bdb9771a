//! Adds an origin's bearer token to the current hop of a job.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::{BearerToken, TokenCell};
use crate::engine::job::Job;
use crate::request::origin;

impl Job {
    /// The token cell (token source and last token) of the current hop's origin. `None` if the
    /// origin has no token source, or if the request has an `Authorization` header of its own.
    pub(in crate::engine) fn token_cell(&self) -> Option<&Arc<TokenCell>> {
        let cells = &self.options.request_settings.token_cells;
        if cells.0.is_empty() {
            return None;
        }
        let request = self.hop_request();
        let cell = cells.0.get(origin(request.shared_url()?))?;
        // If the hop state has a token, the engine itself has set the header.
        let is_own = self.hop_token().is_none() && request.headers().contains_key(AUTHORIZATION);
        (!is_own).then_some(cell)
    }

    pub(super) fn hop_token(&self) -> Option<&BearerToken> {
        self.hop_state.as_ref()?.token.as_ref()
    }

    pub(super) fn uses_token_cell(&self, cell: &Arc<TokenCell>) -> bool {
        self.token_cell().is_some_and(|own| Arc::ptr_eq(own, cell))
    }

    /// Adds the origin's token to the current hop, if the origin has a token source.
    pub(in crate::engine) fn add_bearer_token(&mut self) {
        if self.options.request_settings.token_cells.0.is_empty() {
            return;
        }
        let token = self.token_cell().and_then(|cell| cell.lock().token.clone());
        match token {
            Some(token) => {
                let request = self.hop_request().clone().into_builder();
                let request = request.header(AUTHORIZATION, (*token).clone()).build();
                self.set_hop_request(request).token = Some(token);
            }
            None => {
                if let Some(hop) = &mut self.hop_state {
                    hop.token = None;
                }
            }
        }
    }
}
