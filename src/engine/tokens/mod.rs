//! Bearer tokens of origins that have a token source.
//!
//! A job is pushed into the schedule even if its origin has no valid token. In that case the job's
//! lane is held (its jobs do not start), and a [`TokenRefresh`] task asks the token source once for
//! all waiting jobs. Lanes are held under the engine's lock. The token source is the user's code,
//! and is called without a lock.

mod authorization;
mod reauthorization;
mod refresh;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::HeaderValue;

pub(super) use refresh::TokenRefresh;

use crate::limits::TokenSource;

/// The token cells of all origins that have a token source.
#[derive(Clone, Default)]
pub(crate) struct TokenCells(HashMap<Box<str>, Arc<TokenCell>>);

/// A bearer token. Tokens are compared by address, because two tokens with equal text may differ in
/// validity.
pub(super) type BearerToken = Arc<HeaderValue>;

/// The token source of one origin, and the last token it returned.
pub(super) struct TokenCell {
    token_source: TokenSource,
    max_token_fetch_time: Option<Duration>,
    /// The state of the token. Changes are made only under the engine's lock, which is taken before
    /// the lock of the token state.
    token_state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    /// The last token that the source returned. Jobs that have already started use this token even
    /// during a refresh.
    token: Option<BearerToken>,
    /// Whether there is a token that no server has refused.
    is_token_valid: bool,
    is_refreshing: bool,
    /// Keys of the lanes whose jobs must not start until the refresh ends.
    held_lane_keys: HashSet<Box<str>>,
}

impl TokenCells {
    /// Sets or removes the token source of an origin.
    pub(crate) fn set_token_source(
        &mut self,
        origin: &str,
        source: Option<TokenSource>,
        max_token_fetch_time: Option<Duration>,
    ) {
        let Some(source) = source else {
            self.0.remove(origin);
            return;
        };
        let cell = TokenCell {
            token_source: source,
            max_token_fetch_time,
            token_state: Mutex::default(),
        };
        self.0.insert(origin.into(), Arc::new(cell));
    }
}

impl TokenCell {
    /// Locks the token state. Code under this lock neither panics nor takes another lock.
    fn lock(&self) -> MutexGuard<'_, TokenState> {
        self.token_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
