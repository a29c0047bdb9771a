//! One DNS lookup: its permit, its task, and the requests that wait for it.
//!
//! Permits bound the number of lookups in progress. Names whose servers never respond must not use
//! up all permits. Three rules ensure this:
//!
//! - A lookup stops waiting for a permit when no request waits for the lookup any more.
//! - A lookup by the user's resolver returns its permit after [`MAX_PERMIT_HOLD_TIME`]. After this
//!   time, the lookup is dropped as soon as no request waits for it.
//! - A lookup by the system's resolver cannot be cancelled. Its thread holds the permit until the
//!   lookup ends.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::lookup_error::LookupError;
use super::{ResolvedAddresses, SharedResolverState};
use crate::hop_clock::{HopClock, QueueWaitGuard};
use crate::resolve::Resolve;

const USER_RESOLVER_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum time for which a lookup by the user's resolver holds its permit. Name servers that
/// respond are usually faster.
const MAX_PERMIT_HOLD_TIME: Duration = Duration::from_millis(500);

pub(super) type LookupResult = Result<ResolvedAddresses, LookupError>;

enum LookupState {
    WaitingForPermit,
    Running,
    Finished(LookupResult),
}

/// The channel from the task of a lookup to the requests that wait for it.
pub(super) struct LookupChannel {
    state: watch::Sender<LookupState>,
    /// Becomes true when the lookup gets its permit. A receiver of this channel does not keep the
    /// lookup running. Only a receiver of `state` does.
    has_permit: watch::Sender<bool>,
}

/// The handle of a waiting request to a lookup in progress.
pub(crate) struct PendingLookup {
    state: watch::Receiver<LookupState>,
    has_permit: watch::Receiver<bool>,
}

impl LookupChannel {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(LookupState::WaitingForPermit),
            has_permit: watch::Sender::new(false),
        }
    }

    pub(super) fn subscribe(&self) -> PendingLookup {
        PendingLookup {
            state: self.state.subscribe(),
            has_permit: self.has_permit.subscribe(),
        }
    }

    /// Whether a request waits for the lookup.
    pub(super) fn has_waiting_requests(&self) -> bool {
        self.state.receiver_count() > 0
    }
}

impl PendingLookup {
    /// Waits for the result. Returns `None` if the lookup was lost because its runtime shut down.
    pub(super) async fn wait_for_result(&mut self, clock: &HopClock) -> Option<LookupResult> {
        if self.is_waiting_for_permit() {
            let _queue_wait = QueueWaitGuard::pause_clock(clock);
            let is_running = |state: &LookupState| !matches!(state, LookupState::WaitingForPermit);
            self.state.wait_for(is_running).await.ok()?;
        }
        let is_finished = |state: &LookupState| matches!(state, LookupState::Finished(_));
        match &*self.state.wait_for(is_finished).await.ok()? {
            LookupState::Finished(result) => Some(result.clone()),
            LookupState::WaitingForPermit | LookupState::Running => None,
        }
    }

    pub(super) fn is_waiting_for_permit(&self) -> bool {
        matches!(*self.state.borrow(), LookupState::WaitingForPermit)
    }

    /// Completes when the lookup gets its permit or ends. The future does not keep the lookup
    /// running.
    pub(crate) fn wait_for_permit_or_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut has_permit = self.has_permit.clone();
        async move {
            let _ended = has_permit.wait_for(|has_permit| *has_permit).await;
        }
    }
}

/// The task that runs one lookup.
pub(super) struct LookupTask {
    resolver_state: Arc<SharedResolverState>,
    host_name: Box<str>,
    lookup_channel: Arc<LookupChannel>,
    permit: LookupPermit,
}

enum LookupPermit {
    Granted(OwnedSemaphorePermit),
    Waiting(WaitingLookupGuard),
}

/// Counts one lookup that waits for a permit, until the guard is dropped.
struct WaitingLookupGuard(Arc<SharedResolverState>);

impl WaitingLookupGuard {
    fn new(resolver_state: &Arc<SharedResolverState>) -> Self {
        resolver_state.waiting_lookup_count.fetch_add(1, Relaxed);
        Self(Arc::clone(resolver_state))
    }
}

impl Drop for WaitingLookupGuard {
    fn drop(&mut self) {
        self.0.waiting_lookup_count.fetch_sub(1, Relaxed);
    }
}

impl LookupTask {
    /// Takes a free permit at once, before the task is polled. Other requests thus see immediately
    /// that no permit is left.
    pub(super) fn new(
        resolver_state: &Arc<SharedResolverState>,
        host_name: &str,
        lookup_channel: Arc<LookupChannel>,
    ) -> Self {
        let permits = Arc::clone(&resolver_state.lookup_permits);
        Self {
            resolver_state: Arc::clone(resolver_state),
            host_name: host_name.into(),
            lookup_channel,
            permit: match permits.try_acquire_owned() {
                Ok(permit) => LookupPermit::Granted(permit),
                Err(_) => LookupPermit::Waiting(WaitingLookupGuard::new(resolver_state)),
            },
        }
    }

    /// Waits for a permit, looks up the name and caches the result.
    pub(super) async fn look_up_and_cache(self) {
        let Self {
            resolver_state,
            host_name,
            lookup_channel,
            permit,
        } = self;
        let context = LookupContext {
            resolver_state: &resolver_state,
            host_name: &host_name,
            lookup_channel: &lookup_channel,
        };
        let permit = match permit {
            LookupPermit::Granted(permit) => permit,
            LookupPermit::Waiting(waiting) => {
                let permits = Arc::clone(&resolver_state.lookup_permits);
                let permit = context
                    .wait_unless_abandoned(pin!(permits.acquire_owned()))
                    .await;
                drop(waiting);
                let Some(Ok(permit)) = permit else { return };
                permit
            }
        };
        lookup_channel.has_permit.send_replace(true);
        let Some(addresses) = context.resolve(permit).await else {
            return;
        };
        let result = addresses.and_then(|addresses| {
            if addresses.is_empty() {
                let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(LookupError::from(error));
            }
            Ok(addresses.into())
        });
        resolver_state.cache_result(&host_name, &result);
        lookup_channel
            .state
            .send_replace(LookupState::Finished(result));
    }
}

/// The parts of a [`LookupTask`] that are borrowed while it runs.
#[derive(Clone, Copy)]
struct LookupContext<'a> {
    resolver_state: &'a SharedResolverState,
    host_name: &'a str,
    lookup_channel: &'a Arc<LookupChannel>,
}

impl LookupContext<'_> {
    /// Returns `None` if the lookup is abandoned, because no request waits for it any more.
    async fn resolve(
        self,
        permit: OwnedSemaphorePermit,
    ) -> Option<Result<Vec<SocketAddr>, LookupError>> {
        match &self.resolver_state.dns_config.user_resolver {
            Some(resolver) => self.resolve_with_user_resolver(&**resolver, permit).await,
            None => Some(self.resolve_with_system(permit).await),
        }
    }

    /// Returns `None` if the lookup is abandoned, because no request waits for it any more.
    async fn resolve_with_user_resolver(
        self,
        resolver: &dyn Resolve,
        permit: OwnedSemaphorePermit,
    ) -> Option<Result<Vec<SocketAddr>, LookupError>> {
        self.lookup_channel.state.send_replace(LookupState::Running);
        let mut addresses = pin!(call_user_resolver(resolver, self.host_name));
        if let Ok(addresses) = timeout(MAX_PERMIT_HOLD_TIME, addresses.as_mut()).await {
            return Some(addresses);
        }
        drop(permit);
        self.wait_unless_abandoned(addresses).await
    }

    async fn resolve_with_system(
        self,
        permit: OwnedSemaphorePermit,
    ) -> Result<Vec<SocketAddr>, LookupError> {
        // Names under `.invalid` never exist and should not be looked up (RFC 6761 §6.4).
        let absolute = self.host_name.strip_suffix('.').unwrap_or(self.host_name);
        if absolute == "invalid" || absolute.ends_with(".invalid") {
            let error = io::Error::new(io::ErrorKind::NotFound, "no name under .invalid exists");
            return Err(error.into());
        }
        let name: Box<str> = self.host_name.into();
        // A weak reference: if the task of the lookup is lost, the channel closes although the
        // thread still runs.
        let channel = Arc::downgrade(self.lookup_channel);
        let lookup = spawn_blocking(move || -> io::Result<Vec<SocketAddr>> {
            let _permit = permit;
            // The lookup counts as running from here on. Before, the closure may have waited for a
            // free thread.
            if let Some(channel) = channel.upgrade() {
                channel.state.send_replace(LookupState::Running);
            }
            Ok((&*name, 0).to_socket_addrs()?.collect())
        });
        let addresses = lookup.await.map_err(io::Error::from)??;
        Ok(addresses)
    }

    /// Waits for `future`. If no request waits for the lookup any more, removes the lookup from the
    /// cache and returns `None`.
    async fn wait_unless_abandoned<F: Future + Unpin>(self, mut future: F) -> Option<F::Output> {
        let mut abandoned = pin!(async {
            loop {
                self.lookup_channel.state.closed().await;
                if self
                    .resolver_state
                    .remove_lookup_if_abandoned(self.host_name, self.lookup_channel)
                {
                    return;
                }
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(output) = pin!(&mut future).poll(cx) {
                return Poll::Ready(Some(output));
            }
            abandoned.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

/// Calls the user's resolver. A panic of the resolver fails only this lookup.
async fn call_user_resolver(
    resolver: &dyn Resolve,
    name: &str,
) -> Result<Vec<SocketAddr>, LookupError> {
    let mut lookup = catch_unwind(AssertUnwindSafe(|| resolver.resolve(name)))
        .map_err(|_| LookupError::from_resolver_panic())?;
    let addresses =
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| lookup.as_mut().poll(cx))) {
                Ok(poll) => poll.map_err(LookupError::from),
                Err(_) => Poll::Ready(Err(LookupError::from_resolver_panic())),
            },
        );
    match timeout(USER_RESOLVER_TIMEOUT, addresses).await {
        Ok(addresses) => Ok(addresses?
            .into_iter()
            .map(|address| (address, 0).into())
            .collect()),
        Err(_) => Err(LookupError::from(io::Error::from(io::ErrorKind::TimedOut))),
    }
}
