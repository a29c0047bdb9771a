//! Bearer tokens of origins that have a token source.
//!
//! A job is always pushed into the schedule. If its origin has no valid token at that time, the
//! job's lane is held, and a [`TokenRefresh`] task asks the token source, once for all waiting
//! jobs. This is decided under the engine's lock. The token source is the user's code, and is
//! called without any lock.

mod reauthorization;
mod refresh;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};

pub(super) use refresh::TokenRefresh;

use super::job::Job;
use crate::limits::TokenSource;
use crate::request::origin;

/// The token cells of all origins that have a source.
#[derive(Clone, Default)]
pub(crate) struct TokenCells(HashMap<Box<str>, Arc<TokenCell>>);

/// A bearer token. Tokens are compared by address, because two tokens of the same text may differ
/// in validity.
pub(super) type BearerToken = Arc<HeaderValue>;

/// The token source of one origin, and the last token it returned.
pub(super) struct TokenCell {
    source: TokenSource,
    max_fetch_time: Option<Duration>,
    /// The token's state. It is changed only under the engine's lock, which is taken first.
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    /// The last token. Jobs that were already started use it even during a refresh.
    token: Option<BearerToken>,
    /// Whether the token is valid: no server has refused it.
    is_valid: bool,
    is_refreshing: bool,
    /// Lanes that are held until the refresh ends.
    held_lanes: HashSet<Box<str>>,
}

impl TokenCells {
    /// Sets or removes the token source of an origin.
    pub(crate) fn set(
        &mut self,
        origin: &str,
        source: Option<TokenSource>,
        max_fetch_time: Option<Duration>,
    ) {
        let Some(source) = source else {
            self.0.remove(origin);
            return;
        };
        let cell = TokenCell {
            source,
            max_fetch_time,
            state: Mutex::default(),
        };
        self.0.insert(origin.into(), Arc::new(cell));
    }
}

impl TokenCell {
    /// Code under this lock neither panics nor takes another lock.
    fn lock(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// The cell of the token that the current hop carries; `None` if the request has an
    /// `Authorization` of its own.
    pub(super) fn token_cell(&self) -> Option<&Arc<TokenCell>> {
        let cells = &self.options.policy.token_cells;
        if cells.0.is_empty() {
            return None;
        }
        let request = self.hop_request();
        let cell = cells.0.get(origin(request.shared_url()?))?;
        // If the hop state has a token, the engine has set the header.
        let is_own = self.token().is_none() && request.headers().contains_key(AUTHORIZATION);
        (!is_own).then_some(cell)
    }

    fn token(&self) -> Option<&BearerToken> {
        self.hop_state.as_ref()?.token.as_ref()
    }

    fn waits_for(&self, cell: &Arc<TokenCell>) -> bool {
        self.token_cell().is_some_and(|own| Arc::ptr_eq(own, cell))
    }

    /// Adds the origin's token to the current hop, if the origin has a token source.
    pub(super) fn authorize(&mut self) {
        if self.options.policy.token_cells.0.is_empty() {
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
