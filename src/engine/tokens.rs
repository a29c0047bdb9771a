//! The bearer tokens of origins that have a source of them: asked for once for all that wait.
//!
//! While a source is asked, the lanes of those that wait are held: the jobs are in the schedule, as all that wait are.
//! Whether a token is wanted is decided under the engine's lock, where a job is pushed; the source itself, which is code
//! of the user's, runs in a task of its own, and without any lock.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use tokio::runtime::Id;
use tokio::time::timeout;

use super::hop::HopState;
use super::job::HopStats;
use super::{Effects, Engine, Job, State};
use crate::credentials;
use crate::error::{BoxError, SharedError};
use crate::limits::{TokenFuture, TokenSource};
use crate::request::origin;
use crate::schedule::{BatchId, Slot, Time};
use crate::{Error, ErrorKind, Response, Timings};

/// By origin.
#[derive(Clone, Default)]
pub(crate) struct TokenCells(HashMap<Box<str>, Arc<TokenCell>>);

/// One that was given out is told from the next by its address, even if they read the same.
pub(super) type BearerToken = Arc<HeaderValue>;

/// Keeps the token of one origin.
pub(super) struct TokenCell {
    source: TokenSource,
    /// How long it may take.
    max_fetch_time: Option<Duration>,
    /// Changed only under the engine's lock.
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    /// The last there was: what has been started goes with it even while a new one is asked for.
    token: Option<BearerToken>,
    /// Whether nobody has refused it.
    is_valid: bool,
    is_refreshing: bool,
    /// The lanes that are held until the source has answered.
    held_lanes: HashSet<Box<str>>,
}

impl TokenCells {
    /// The source of an origin in place of the one it had, or none.
    pub(crate) fn set(
        &mut self,
        origin: &str,
        source: Option<TokenSource>,
        max_fetch_time: Option<Duration>,
    ) {
        match source {
            None => self.0.remove(origin),
            Some(source) => {
                let state = Mutex::default();
                let token_cell = TokenCell {
                    source,
                    max_fetch_time,
                    state,
                };
                self.0.insert(origin.into(), Arc::new(token_cell))
            }
        };
    }
}

impl TokenCell {
    /// Nothing that panics runs under it, and no other lock is taken.
    fn lock(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Who keeps the token that its present hop goes with; none if it has an `Authorization` of its own.
    pub(super) fn token_cell(&self) -> Option<&Arc<TokenCell>> {
        let token_cells = &self.options.policy.token_cells;
        if token_cells.0.is_empty() {
            return None;
        }
        let request = self.hop_request();
        let token_cell = token_cells.0.get(origin(request.shared_url()?))?;
        // What a hop of the same origin left there was ours.
        let has_own_header =
            self.token().is_none() && request.headers().contains_key(AUTHORIZATION);
        (!has_own_header).then_some(token_cell)
    }

    fn token(&self) -> Option<&BearerToken> {
        self.hop_state.as_ref()?.token.as_ref()
    }

    /// Gives the present hop the token of its origin, if that has a source.
    pub(super) fn authorize(&mut self) {
        if self.options.policy.token_cells.0.is_empty() {
            return;
        }
        let token = self
            .token_cell()
            .and_then(|token_cell| token_cell.lock().token.clone());
        let request = match &token {
            Some(token) => self
                .hop_request()
                .clone()
                .into_builder()
                .header(AUTHORIZATION, (**token).clone())
                .build(),
            None => match &mut self.hop_state {
                Some(hop_state) => return hop_state.token = None,
                None => return,
            },
        };
        match &mut self.hop_state {
            Some(hop_state) => {
                hop_state.request = request;
                hop_state.token = token;
            }
            None => {
                self.hop_state = Some(Box::new(HopState {
                    request,
                    redirects: Vec::new(),
                    timings: Timings::default(),
                    token,
                    is_reauthorized: false,
                }));
            }
        }
    }

    /// Whether it goes again after a 401, if its body can be sent again.
    pub(super) fn can_reauthorize(&self) -> bool {
        self.hop_state
            .as_ref()
            .is_some_and(|hop_state| hop_state.token.is_some() && !hop_state.is_reauthorized)
    }

    /// Whether this is the first 401 to a token of ours: the job then goes again, in the same attempt.
    pub(super) fn try_reauthorize(&mut self, response: &Response, timings: Timings) -> bool {
        let is_refused = response.status() == StatusCode::UNAUTHORIZED;
        if !is_refused || !self.can_reauthorize() || self.hop_request().body().is_consumed() {
            return false;
        }
        if let Some(hop_state) = &mut self.hop_state {
            hop_state.is_reauthorized = true;
            hop_state.timings += timings;
        }
        true
    }

    /// The end of one that waited for a token. Who has a result keeps it.
    fn end_without_token(&mut self, error: Error) {
        if self.result.is_some() {
            return;
        }
        if self.earlier_hop_timings() == Timings::default() {
            self.result = Some(Err(error));
        } else {
            let no_stats = HopStats {
                timings: Timings::default(),
                counted_wire_time: Duration::ZERO,
                maybe_sent: false,
            };
            self.record_end(error, &no_stats);
        }
    }
}

impl Engine {
    /// A job of `batch` was pushed into `lane`, which is held if the token is not there that it goes with.
    pub(super) fn ensure_token(
        self: &Arc<Self>,
        state: &mut State,
        token_cell: Option<&Arc<TokenCell>>,
        lane: &str,
        batch: BatchId,
        effects: &mut Effects,
    ) {
        let Some(token_cell) = token_cell else { return };
        let mut cell = token_cell.lock();
        if cell.is_valid {
            return;
        }
        if !cell.is_refreshing {
            let Some((runtime, handle)) = state.runtime_of(batch) else {
                return;
            };
            let refresh = Refresh::new(self, token_cell, runtime);
            effects.refreshes.push((handle.clone(), refresh));
            cell.is_refreshing = true;
        }
        if !cell.held_lanes.contains(lane) && state.schedule.hold_lane(lane) {
            cell.held_lanes.insert(lane.into());
        }
    }

    /// Takes back a job whose token was refused.
    pub(super) fn requeue_after_401(
        self: &Arc<Self>,
        state: &mut State,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
        effects: &mut Effects,
    ) -> Result<(), Box<Job>> {
        let token_cell = job.token_cell().cloned();
        if let (Some(token_cell), Some(sent_token)) = (&token_cell, job.token()) {
            let mut cell = token_cell.lock();
            // It may be another by now, which nobody has refused.
            if cell
                .token
                .as_ref()
                .is_some_and(|token| Arc::ptr_eq(token, sent_token))
            {
                cell.is_valid = false;
            }
        }
        let lane = job.lane();
        job.queued_at = now;
        state.schedule.requeue(slot, job, now, now)?;
        if let Some(lane) = lane {
            self.ensure_token(
                state,
                token_cell.as_ref(),
                lane.key(),
                slot.batch(),
                effects,
            );
        }
        Ok(())
    }

    fn finish_refresh(
        self: &Arc<Self>,
        token_cell: &Arc<TokenCell>,
        fetched: Result<HeaderValue, TokenFailure>,
    ) {
        let mut effects = Effects::default();
        {
            let mut state = self.lock();
            let state = &mut *state;
            let held_lanes = {
                let mut cell = token_cell.lock();
                cell.is_refreshing = false;
                cell.is_valid = fetched.is_ok();
                if let Ok(token) = &fetched {
                    cell.token = Some(Arc::new(token.clone()));
                }
                std::mem::take(&mut cell.held_lanes)
            };
            for lane in &held_lanes {
                if let Err(failure) = &fetched {
                    for mut job in state
                        .schedule
                        .extract_from_lane(lane, |job| waits_for_cell(job, token_cell))
                    {
                        job.end_without_token(failure.to_error());
                        state.deliver(job, failure.kind, &mut effects);
                    }
                }
                state.schedule.release_lane(lane);
            }
            self.start_ready(state, self.now(), None, &mut effects);
        }
        effects.run();
    }
}

fn waits_for_cell(job: &Job, token_cell: &Arc<TokenCell>) -> bool {
    job.token_cell()
        .is_some_and(|own| Arc::ptr_eq(own, token_cell))
}

/// A task that asks a source for a token. One that is dropped before has lost its runtime: then it is asked again on that
/// of another job that waits, if there is one.
pub(super) struct Refresh {
    engine: Arc<Engine>,
    token_cell: Arc<TokenCell>,
    runtime: Id,
    is_done: bool,
}

impl Refresh {
    fn new(engine: &Arc<Engine>, token_cell: &Arc<TokenCell>, runtime: Id) -> Self {
        Self {
            engine: Arc::clone(engine),
            token_cell: Arc::clone(token_cell),
            runtime,
            is_done: false,
        }
    }

    pub(super) async fn run(mut self) {
        let fetched = self.fetch().await;
        self.is_done = true;
        self.engine.finish_refresh(&self.token_cell, fetched);
    }

    async fn fetch(&self) -> Result<HeaderValue, TokenFailure> {
        let token_future = catch_source_panic(|| self.token_cell.source.request_token())?;
        let text = match self.token_cell.max_fetch_time {
            None => await_token(token_future).await?,
            Some(max_fetch_time) => {
                match timeout(max_fetch_time, await_token(token_future)).await {
                    Ok(fetched) => fetched?,
                    Err(_) => {
                        return Err(TokenFailure::with_detail(format!(
                            "the source gave none within {max_fetch_time:?}"
                        )));
                    }
                }
            }
        };
        credentials::bearer_authorization(&text)
            .map_err(|reason| TokenFailure::with_detail(reason.into_owned()))
    }
}

async fn await_token(token_future: TokenFuture) -> Result<String, TokenFailure> {
    let mut token_future = Some(token_future);
    let fetched = poll_fn(|cx| match &mut token_future {
        Some(token_future) => match catch_source_panic(|| token_future.as_mut().poll(cx)) {
            Ok(poll) => poll.map(|fetched| fetched.map_err(TokenFailure::from_source)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
        None => Poll::Pending,
    })
    .await;
    // It may panic as it is dropped, too.
    catch_source_panic(|| drop(token_future.take())).and(fetched)
}

/// The message of a panic is not kept: it may hold what should not be seen.
fn catch_source_panic<T>(run: impl FnOnce() -> T) -> Result<T, TokenFailure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| TokenFailure {
        kind: ErrorKind::Panicked,
        detail: "in the token source".to_owned(),
        source: None,
    })
}

impl Drop for Refresh {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut effects = Effects::default();
        {
            let mut state = self.engine.lock();
            let state = &mut *state;
            state.end_runtime(self.runtime, &mut effects);
            self.continue_elsewhere(state, &mut effects);
            let now = self.engine.now();
            self.engine.start_ready(state, now, None, &mut effects);
        }
        effects.run();
    }
}

impl Refresh {
    /// Has the source asked on the runtime of another that waits. If there is none the lanes are released, and the next
    /// to come asks.
    fn continue_elsewhere(&self, state: &mut State, effects: &mut Effects) {
        let mut cell = self.token_cell.lock();
        let waiting = cell
            .held_lanes
            .iter()
            .flat_map(|lane| {
                state
                    .schedule
                    .batches_with_job_in_lane(lane, |job| waits_for_cell(job, &self.token_cell))
            })
            .find_map(|batch| state.runtime_of(batch));
        if let Some((runtime, handle)) = waiting {
            let next = Self::new(&self.engine, &self.token_cell, runtime);
            return effects.refreshes.push((handle.clone(), next));
        }
        cell.is_refreshing = false;
        for lane in std::mem::take(&mut cell.held_lanes) {
            state.schedule.release_lane(&lane);
        }
    }
}

/// Why there is no token, told to each that waits for it.
struct TokenFailure {
    kind: ErrorKind,
    detail: String,
    source: Option<SharedError>,
}

impl TokenFailure {
    fn with_detail(detail: String) -> Self {
        Self {
            kind: ErrorKind::Token,
            detail,
            source: None,
        }
    }

    fn from_source(source: BoxError) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::with_detail("its source failed".to_owned())
        }
    }

    fn to_error(&self) -> Error {
        let error = match &self.source {
            Some(source) => Error::new(self.kind, source.clone()),
            None => Error::from_kind(self.kind),
        };
        error.with_detail(self.detail.clone())
    }
}
