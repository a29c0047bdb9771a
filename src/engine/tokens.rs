//! The bearer tokens of origins that have a source of them: asked for once for all that wait.
//!
//! While a source is asked, the lanes of those that wait are held: the jobs are in the schedule, as all that wait are.
//! Whether a token is wanted is decided under the engine's lock, where a job is pushed; the source itself, which is code
//! of the user's, runs in a task of its own, and without any lock.

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use tokio::runtime::Id;
use tokio::time::timeout;

use super::job::Tally;
use super::trail::Trail;
use super::{Afterwards, Engine, Job, State};
use crate::credentials;
use crate::error::BoxError;
use crate::limits::{Asking, TokenSource};
use crate::request::origin;
use crate::schedule::{BatchId, Slot, Time};
use crate::{Error, ErrorKind, Response, Timings};

/// By origin.
#[derive(Clone, Default)]
pub(crate) struct Tokens(HashMap<Box<str>, Arc<Keeper>>);

/// One that was given out is told from the next by its address, even if they read the same.
pub(super) type Token = Arc<HeaderValue>;

/// Keeps the token of one origin.
pub(super) struct Keeper {
    source: TokenSource,
    /// How long it may take.
    limit: Option<Duration>,
    /// Changed only under the engine's lock.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The last there was: what has been started goes with it even while a new one is asked for.
    token: Option<Token>,
    /// Whether nobody has refused it.
    is_good: bool,
    is_asking: bool,
    /// The lanes that are held until the source has answered.
    held: HashSet<Box<str>>,
}

impl Tokens {
    /// The source of an origin in place of the one it had, or none.
    pub(crate) fn set(
        &mut self,
        origin: &str,
        source: Option<TokenSource>,
        limit: Option<Duration>,
    ) {
        match source {
            None => self.0.remove(origin),
            Some(source) => {
                let kept = Mutex::default();
                let keeper = Keeper {
                    source,
                    limit,
                    kept,
                };
                self.0.insert(origin.into(), Arc::new(keeper))
            }
        };
    }
}

impl Keeper {
    /// Nothing that panics runs under it, and no other lock is taken.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Who keeps the token that its present hop goes with; none if it has an `Authorization` of its own.
    pub(super) fn keeper(&self) -> Option<&Arc<Keeper>> {
        let tokens = &self.terms.manners.tokens;
        if tokens.0.is_empty() {
            return None;
        }
        let hop = self.hop();
        let keeper = tokens.0.get(origin(hop.shared_url()?))?;
        // What a hop of the same origin left there was ours.
        let has_own = self.token().is_none() && hop.header_map().contains_key(AUTHORIZATION);
        (!has_own).then_some(keeper)
    }

    fn token(&self) -> Option<&Token> {
        self.trail.as_ref()?.token.as_ref()
    }

    /// Gives the present hop the token of its origin, if that has a source.
    pub(super) fn authorize(&mut self) {
        if self.terms.manners.tokens.0.is_empty() {
            return;
        }
        let token = self.keeper().and_then(|keeper| keeper.kept().token.clone());
        let request = match &token {
            Some(token) => self.hop().clone().header(AUTHORIZATION, (**token).clone()),
            None => match &mut self.trail {
                Some(trail) => return trail.token = None,
                None => return,
            },
        };
        match &mut self.trail {
            Some(trail) => {
                trail.request = request;
                trail.token = token;
            }
            None => {
                self.trail = Some(Box::new(Trail {
                    request,
                    redirects: Vec::new(),
                    timings: Timings::default(),
                    token,
                    renewed: false,
                }));
            }
        }
    }

    /// Whether it goes again after a 401, if its body can be sent again.
    pub(super) fn may_renew(&self) -> bool {
        self.trail
            .as_ref()
            .is_some_and(|trail| trail.token.is_some() && !trail.renewed)
    }

    /// Whether this is the first 401 to a token of ours: the job then goes again, in the same attempt.
    pub(super) fn renews(&mut self, response: &Response, timings: Timings) -> bool {
        let is_refused = response.status() == StatusCode::UNAUTHORIZED;
        if !is_refused || !self.may_renew() || self.hop().content().is_spent() {
            return false;
        }
        if let Some(trail) = &mut self.trail {
            trail.renewed = true;
            trail.timings += timings;
        }
        true
    }

    /// The end of one that waited for a token. Who has a result keeps it.
    fn end_without_token(&mut self, error: Error) {
        if self.result.is_some() {
            return;
        }
        if self.hops() == Timings::default() {
            self.result = Some(Err(error));
        } else {
            let nothing = Tally {
                timings: Timings::default(),
                counted: Duration::ZERO,
                sent: false,
            };
            self.book_end(error, &nothing);
        }
    }
}

impl Engine {
    /// A job of `batch` was pushed into `lane`, which is held if the token is not there that it goes with.
    pub(super) fn heed_token(
        self: &Arc<Self>,
        state: &mut State,
        keeper: Option<&Arc<Keeper>>,
        lane: &str,
        batch: BatchId,
        afterwards: &mut Afterwards,
    ) {
        let Some(keeper) = keeper else { return };
        let mut kept = keeper.kept();
        if kept.is_good {
            return;
        }
        if !kept.is_asking {
            let Some((runtime, handle)) = state.runtime_of(batch) else {
                return;
            };
            let refresh = Refresh::new(self, keeper, runtime);
            afterwards.refreshes.push((handle.clone(), refresh));
            kept.is_asking = true;
        }
        if !kept.held.contains(lane) && state.schedule.hold_lane(lane) {
            kept.held.insert(lane.into());
        }
    }

    /// Takes back a job whose token was refused.
    pub(super) fn push_renewed(
        self: &Arc<Self>,
        state: &mut State,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
        afterwards: &mut Afterwards,
    ) -> Result<(), Box<Job>> {
        let keeper = job.keeper().cloned();
        if let (Some(keeper), Some(sent)) = (&keeper, job.token()) {
            let mut kept = keeper.kept();
            // It may be another by now, which nobody has refused.
            if kept
                .token
                .as_ref()
                .is_some_and(|token| Arc::ptr_eq(token, sent))
            {
                kept.is_good = false;
            }
        }
        let lane = job.lane();
        job.since = now;
        state.schedule.push_again(slot, job, now, now)?;
        if let Some(lane) = lane {
            self.heed_token(
                state,
                keeper.as_ref(),
                lane.as_str(),
                slot.batch(),
                afterwards,
            );
        }
        Ok(())
    }

    fn token_came(self: &Arc<Self>, keeper: &Arc<Keeper>, answer: Result<HeaderValue, Failure>) {
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.lock();
            let state = &mut *state;
            let held = {
                let mut kept = keeper.kept();
                kept.is_asking = false;
                kept.is_good = answer.is_ok();
                if let Ok(token) = &answer {
                    kept.token = Some(Arc::new(token.clone()));
                }
                std::mem::take(&mut kept.held)
            };
            for lane in &held {
                if let Err(failure) = &answer {
                    for mut job in state
                        .schedule
                        .take_from_lane(lane, |job| waits_for(job, keeper))
                    {
                        job.end_without_token(failure.error());
                        state.deliver(job, failure.kind, &mut afterwards);
                    }
                }
                state.schedule.release_lane(lane);
            }
            self.start_ready(state, self.now(), None, &mut afterwards);
        }
        afterwards.run();
    }
}

fn waits_for(job: &Job, keeper: &Arc<Keeper>) -> bool {
    job.keeper().is_some_and(|own| Arc::ptr_eq(own, keeper))
}

/// A task that asks a source for a token. One that is dropped before has lost its runtime: then it is asked again on that
/// of another job that waits, if there is one.
pub(super) struct Refresh {
    engine: Arc<Engine>,
    keeper: Arc<Keeper>,
    runtime: Id,
    is_done: bool,
}

impl Refresh {
    fn new(engine: &Arc<Engine>, keeper: &Arc<Keeper>, runtime: Id) -> Self {
        Self {
            engine: Arc::clone(engine),
            keeper: Arc::clone(keeper),
            runtime,
            is_done: false,
        }
    }

    pub(super) async fn run(mut self) {
        let answer = self.ask().await;
        self.is_done = true;
        self.engine.token_came(&self.keeper, answer);
    }

    async fn ask(&self) -> Result<HeaderValue, Failure> {
        let asking = guarded(|| self.keeper.source.ask())?;
        let text = match self.keeper.limit {
            None => answer_of(asking).await?,
            Some(limit) => match timeout(limit, answer_of(asking)).await {
                Ok(answer) => answer?,
                Err(_) => {
                    return Err(Failure::because(format!(
                        "the source gave none within {limit:?}"
                    )));
                }
            },
        };
        credentials::bearer(&text).map_err(|reason| Failure::because(reason.into_owned()))
    }
}

async fn answer_of(asking: Asking) -> Result<String, Failure> {
    let mut asking = Some(asking);
    let answer = poll_fn(|cx| match &mut asking {
        Some(asking) => match guarded(|| asking.as_mut().poll(cx)) {
            Ok(poll) => poll.map(|answer| answer.map_err(Failure::of)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
        None => Poll::Pending,
    })
    .await;
    // It may panic as it is dropped, too.
    guarded(|| drop(asking.take())).and(answer)
}

/// The message of a panic is not kept: it may hold what should not be seen.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Failure {
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
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            let state = &mut *state;
            state.end_runtime(self.runtime, &mut afterwards);
            self.hand_over(state, &mut afterwards);
            let now = self.engine.now();
            self.engine.start_ready(state, now, None, &mut afterwards);
        }
        afterwards.run();
    }
}

impl Refresh {
    /// Has the source asked on the runtime of another that waits. If there is none the lanes are released, and the next
    /// to come asks.
    fn hand_over(&self, state: &mut State, afterwards: &mut Afterwards) {
        let mut kept = self.keeper.kept();
        let waiting = kept
            .held
            .iter()
            .flat_map(|lane| {
                state
                    .schedule
                    .batches_in_lane(lane, |job| waits_for(job, &self.keeper))
            })
            .find_map(|batch| state.runtime_of(batch));
        if let Some((runtime, handle)) = waiting {
            let next = Self::new(&self.engine, &self.keeper, runtime);
            return afterwards.refreshes.push((handle.clone(), next));
        }
        kept.is_asking = false;
        for lane in std::mem::take(&mut kept.held) {
            state.schedule.release_lane(&lane);
        }
    }
}

/// Why there is no token, told to each that waits for it.
struct Failure {
    kind: ErrorKind,
    detail: String,
    source: Option<Shared>,
}

impl Failure {
    fn because(detail: String) -> Self {
        Self {
            kind: ErrorKind::Token,
            detail,
            source: None,
        }
    }

    fn of(source: BoxError) -> Self {
        Self {
            source: Some(Shared(source.into())),
            ..Self::because("its source failed".to_owned())
        }
    }

    fn error(&self) -> Error {
        let error = match &self.source {
            Some(source) => Error::new(self.kind, source.clone()),
            None => Error::of(self.kind),
        };
        error.because(self.detail.clone())
    }
}

/// One error as the cause of many.
#[derive(Clone)]
struct Shared(Arc<dyn StdError + Send + Sync>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
