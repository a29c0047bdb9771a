//! Asks a token source for a bearer token, and then lets the jobs that wait for the token start, or
//! ends them with an error.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use http::header::HeaderValue;
use tokio::runtime::Id;
use tokio::time::timeout;

use super::TokenCell;
use crate::credentials;
use crate::engine::Engine;
use crate::engine::state::{EngineTask, Transaction};
use crate::error::{BoxError, Error, ErrorKind, SharedErrorSource};
use crate::limits::TokenFuture;
use crate::schedule::BatchId;

/// A task that asks one token source for a token.
///
/// If the task's runtime shuts down, the task is dropped, and the source is asked on the runtime of
/// another waiting job.
pub(in crate::engine) struct TokenRefresh {
    engine: Arc<Engine>,
    token_cell: Arc<TokenCell>,
    runtime_id: Id,
    is_done: bool,
}

impl TokenRefresh {
    fn new(engine: &Arc<Engine>, cell: &Arc<TokenCell>, runtime: Id) -> Self {
        Self {
            engine: Arc::clone(engine),
            token_cell: Arc::clone(cell),
            runtime_id: runtime,
            is_done: false,
        }
    }

    pub(in crate::engine) async fn run(mut self) {
        let fetched = self.fetch_token().await;
        self.is_done = true;
        self.engine
            .update(|tx| tx.finish_refresh(&self.token_cell, fetched));
    }

    async fn fetch_token(&self) -> Result<HeaderValue, TokenFailure> {
        let token = await_token_catching_panics(catch_token_source_panic(|| {
            self.token_cell.token_source.request_token()
        })?);
        let text = match self.token_cell.max_token_fetch_time {
            None => token.await?,
            Some(limit) => timeout(limit, token).await.unwrap_or_else(|_| {
                let detail = format!("the token source returned none within {limit:?}");
                Err(TokenFailure::from_detail(detail))
            })?,
        };
        credentials::bearer_authorization(&text)
            .map_err(|reason| TokenFailure::from_detail(reason.into_owned()))
    }
}

async fn await_token_catching_panics(future: TokenFuture) -> Result<String, TokenFailure> {
    let mut future = Some(future);
    let token = poll_fn(|cx| match &mut future {
        Some(future) => match catch_token_source_panic(|| future.as_mut().poll(cx)) {
            Ok(poll) => poll.map(|token| token.map_err(TokenFailure::from_source_error)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
        None => Poll::Pending,
    })
    .await;
    // The token source's future may also panic while it is dropped.
    catch_token_source_panic(|| drop(future.take())).and(token)
}

/// Calls `run`, which is code of the token source, and turns a panic into a failure. The panic
/// message is discarded, because it may contain a credential.
fn catch_token_source_panic<T>(run: impl FnOnce() -> T) -> Result<T, TokenFailure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| TokenFailure {
        error_kind: ErrorKind::Panicked,
        error_detail: "in the token source".to_owned(),
        error_source: None,
    })
}

impl Drop for TokenRefresh {
    fn drop(&mut self) {
        if !self.is_done {
            self.engine.update(|tx| {
                tx.end_runtime_and_cancel_queued(self.runtime_id);
                tx.restart_refresh_on_other_runtime(&self.token_cell);
            });
        }
    }
}

impl Transaction<'_> {
    /// Keeps the jobs in a pushed job's lane from starting if the job's origin has no valid token.
    /// Starts a token refresh if no refresh is running.
    pub(in crate::engine) fn hold_lane_unless_token_valid(
        &mut self,
        cell: Option<&Arc<TokenCell>>,
        lane: &str,
        batch: BatchId,
    ) {
        let Some(cell) = cell else { return };
        let mut state = cell.lock();
        if state.is_token_valid {
            return;
        }
        if !state.is_refreshing {
            let Some((runtime, handle)) = self.state().runtime_of_batch(batch) else {
                return;
            };
            let handle = handle.clone();
            let refresh = TokenRefresh::new(self.engine(), cell, runtime);
            self.defer_spawn(handle, EngineTask::TokenRefresh(refresh));
            state.is_refreshing = true;
        }
        if !state.held_lane_keys.contains(lane) && self.schedule_mut().hold_lane(lane) {
            state.held_lane_keys.insert(lane.into());
        }
    }

    /// Stores the new token and lets the jobs that waited for the token start. If the refresh
    /// failed, the waiting jobs end with an error.
    fn finish_refresh(
        &mut self,
        cell: &Arc<TokenCell>,
        fetched: Result<HeaderValue, TokenFailure>,
    ) {
        let held_lane_keys = {
            let mut state = cell.lock();
            state.is_refreshing = false;
            state.is_token_valid = fetched.is_ok();
            if let Ok(token) = &fetched {
                state.token = Some(Arc::new(token.clone()));
            }
            std::mem::take(&mut state.held_lane_keys)
        };
        for lane in &held_lane_keys {
            if let Err(failure) = &fetched {
                let schedule = self.schedule_mut();
                for mut job in
                    schedule.take_matching_ready_jobs_of_lane(lane, |job| job.uses_token_cell(cell))
                {
                    job.end_before_start(failure.to_error());
                    self.deliver_job(job, failure.error_kind);
                }
            }
            self.schedule_mut().release_lane(lane);
        }
    }

    /// Asks the token source on the runtime of another waiting job. If no other job waits, the
    /// lanes are released (their jobs may start), and the next pushed job starts a refresh.
    fn restart_refresh_on_other_runtime(&mut self, cell: &Arc<TokenCell>) {
        let mut state = cell.lock();
        let waiting = state
            .held_lane_keys
            .iter()
            .flat_map(|lane| {
                self.state()
                    .schedule()
                    .batches_with_matching_ready_job_in_lane(lane, |job| job.uses_token_cell(cell))
            })
            .find_map(|batch| self.state().runtime_of_batch(batch));
        if let Some((runtime, handle)) = waiting {
            let handle = handle.clone();
            let refresh = TokenRefresh::new(self.engine(), cell, runtime);
            self.defer_spawn(handle, EngineTask::TokenRefresh(refresh));
            return;
        }
        state.is_refreshing = false;
        for lane in std::mem::take(&mut state.held_lane_keys) {
            self.schedule_mut().release_lane(&lane);
        }
    }
}

/// Why a token refresh failed. The error of each waiting job is made from the failure.
struct TokenFailure {
    error_kind: ErrorKind,
    error_detail: String,
    error_source: Option<SharedErrorSource>,
}

impl TokenFailure {
    fn from_detail(detail: String) -> Self {
        Self {
            error_kind: ErrorKind::Token,
            error_detail: detail,
            error_source: None,
        }
    }

    fn from_source_error(source: BoxError) -> Self {
        Self {
            error_source: Some(source.into()),
            ..Self::from_detail("the token source failed".to_owned())
        }
    }

    fn to_error(&self) -> Error {
        let error = match &self.error_source {
            Some(source) => Error::new(self.error_kind, source.clone()),
            None => Error::from_kind(self.error_kind),
        };
        error.with_detail(self.error_detail.clone())
    }
}
