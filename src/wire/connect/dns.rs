//! Resolves host names, with a cache and one lookup at a time per name.
//!
//! A lookup runs in its own task, because `getaddrinfo` cannot be cancelled and because the request
//! that started it may end while others wait for the result. If the task is lost with its runtime,
//! a waiting request starts the lookup again.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind, SharedError};
use crate::resolve::Resolve;

/// Lookups in progress at once. Each one of the system's resolver blocks a thread until the name
/// servers answer.
const MAX_CONCURRENT_LOOKUPS: usize = 128;
const MAX_CACHED_NAMES: usize = 4096;
/// How long a name that does not exist is cached at most.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// The longest time that an entry is cached. Prevents an overflow of `Instant`.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
const USER_RESOLVER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct DnsConfig {
    /// `None` uses the system's resolver.
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
    pub(crate) cache_ttl: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            resolver: None,
            cache_ttl: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsConfig")
            .field("cache_ttl", &self.cache_ttl)
            .finish_non_exhaustive()
    }
}

pub(super) type Addresses = Arc<[SocketAddr]>;

pub(in crate::wire) struct Resolver {
    inner: Arc<ResolverInner>,
}

struct ResolverInner {
    config: DnsConfig,
    lookup_permits: Semaphore,
    lookups: Mutex<HashMap<Box<str>, LookupReceiver>>,
}

/// A lookup in progress (`None`), or its cached outcome.
type LookupReceiver = watch::Receiver<Option<LookupOutcome>>;

struct LookupOutcome {
    result: Result<Addresses, LookupError>,
    expires_at: Instant,
}

impl Resolver {
    pub(in crate::wire) fn new(config: DnsConfig) -> Self {
        Self {
            inner: Arc::new(ResolverInner {
                config,
                lookup_permits: Semaphore::new(MAX_CONCURRENT_LOOKUPS),
                lookups: Mutex::default(),
            }),
        }
    }

    /// Returns the addresses of a name, with port 0.
    ///
    /// # Cancel safety
    ///
    /// The lookup continues, and other requests can use its result.
    pub(super) async fn look_up(&self, name: &str) -> Result<Addresses, Error> {
        loop {
            let mut lookup = self.inner.find_or_start_lookup(name);
            if let Ok(outcome) = lookup.wait_for(Option::is_some).await
                && let Some(outcome) = &*outcome
            {
                return outcome.result.clone().map_err(LookupError::into_error);
            }
        }
    }

    /// Removes a name from the cache. Called when no address of the name accepts a connection,
    /// because the addresses may be outdated.
    pub(super) fn invalidate(&self, name: &str) {
        let mut lookups = self.inner.lock();
        if lookups
            .get(name)
            .is_some_and(|lookup| lookup.borrow().is_some())
        {
            lookups.remove(name);
        }
    }

    #[cfg(test)]
    fn cached_names(&self) -> usize {
        self.inner.lock().len()
    }
}

impl ResolverInner {
    fn find_or_start_lookup(self: &Arc<Self>, name: &str) -> LookupReceiver {
        let now = Instant::now();
        let mut lookups = self.lock();
        if let Some(lookup) = lookups.get(name)
            && is_usable(lookup, now)
        {
            return lookup.clone();
        }
        if lookups.len() >= MAX_CACHED_NAMES {
            evict_lookups(&mut lookups, now);
        }
        let (sender, lookup) = watch::channel(None);
        lookups.insert(name.into(), lookup.clone());
        drop(lookups);
        tokio::spawn(Arc::clone(self).run_lookup(name.into(), sender));
        lookup
    }

    async fn run_lookup(
        self: Arc<Self>,
        name: Box<str>,
        sender: watch::Sender<Option<LookupOutcome>>,
    ) {
        let Ok(_permit) = self.lookup_permits.acquire().await else {
            return;
        };
        let result = self.resolve(name).await;
        let cache_ttl = self.config.cache_ttl;
        let ttl = match &result {
            Ok(_) => cache_ttl,
            Err(error) if error.kind == ErrorKind::HostNotFound => cache_ttl.min(MAX_NEGATIVE_TTL),
            Err(_) => Duration::ZERO,
        };
        sender.send_replace(Some(LookupOutcome {
            result,
            expires_at: Instant::now() + ttl.min(MAX_TTL),
        }));
    }

    async fn resolve(&self, name: Box<str>) -> Result<Addresses, LookupError> {
        let addresses = match &self.config.resolver {
            Some(resolver) => resolve_with_user_resolver(&**resolver, &name).await?,
            None => resolve_with_system(name).await?,
        };
        if addresses.is_empty() {
            let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(LookupError::from(error));
        }
        Ok(addresses.into())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, LookupReceiver>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a lookup is in progress or its outcome has not expired.
fn is_usable(lookup: &LookupReceiver, now: Instant) -> bool {
    match &*lookup.borrow() {
        Some(outcome) => now < outcome.expires_at,
        // An error means that the task of the lookup is gone.
        None => lookup.has_changed().is_ok(),
    }
}

/// Removes expired entries. If more than half of the cache remains, removes every finished lookup.
fn evict_lookups(lookups: &mut HashMap<Box<str>, LookupReceiver>, now: Instant) {
    lookups.retain(|_, lookup| is_usable(lookup, now));
    if lookups.len() > MAX_CACHED_NAMES / 2 {
        lookups.retain(|_, lookup| lookup.borrow().is_none());
    }
}

/// Calls the user's resolver. A panic in it fails only this lookup.
async fn resolve_with_user_resolver(
    resolver: &dyn Resolve,
    name: &str,
) -> Result<Vec<SocketAddr>, LookupError> {
    let mut lookup = catch_unwind(AssertUnwindSafe(|| resolver.resolve(name)))
        .map_err(|_| LookupError::panicked())?;
    let addresses =
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| lookup.as_mut().poll(cx))) {
                Ok(poll) => poll.map_err(LookupError::from),
                Err(_) => Poll::Ready(Err(LookupError::panicked())),
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

async fn resolve_with_system(name: Box<str>) -> io::Result<Vec<SocketAddr>> {
    // Names under `.invalid` never exist and should not be looked up (RFC 6761 §6.4).
    let absolute = name.strip_suffix('.').unwrap_or(&name);
    if absolute == "invalid" || absolute.ends_with(".invalid") {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no name under .invalid exists",
        ));
    }
    spawn_blocking(move || Ok((&*name, 0).to_socket_addrs()?.collect())).await?
}

/// A failed lookup. Every request that waited for the lookup gets a copy.
#[derive(Clone, Debug)]
struct LookupError {
    kind: ErrorKind,
    /// The cause. `None` after a panic in the user's resolver.
    source: Option<SharedError>,
}

impl LookupError {
    fn panicked() -> Self {
        Self {
            kind: ErrorKind::Panicked,
            source: None,
        }
    }

    fn into_error(self) -> Error {
        match self.source {
            Some(source) => Error::new(self.kind, source),
            None => Error::from_kind(self.kind).with_detail("in the resolver"),
        }
    }
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        let kind = if is_not_found(&error) {
            ErrorKind::HostNotFound
        } else {
            ErrorKind::Dns
        };
        Self {
            kind,
            source: Some(Arc::new(error)),
        }
    }
}

/// Returns whether the name does not exist or has no address, as opposed to a lookup that failed.
///
/// The standard library keeps only the message of a `getaddrinfo` error, not its code. An unknown
/// message counts as a failed lookup, which is retried.
fn is_not_found(error: &io::Error) -> bool {
    /// In order: glibc (two), musl, BSD and macOS (two), Android.
    const NOT_FOUND_MESSAGES: [&str; 6] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided, or not known",
        "No address associated with nodename",
        "Name has no usable address",
    ];
    // WSAHOST_NOT_FOUND and WSANO_DATA.
    let is_windows_not_found = cfg!(windows) && matches!(error.raw_os_error(), Some(11001 | 11004));
    is_windows_not_found || error.kind() == io::ErrorKind::NotFound || {
        let message = error.to_string();
        NOT_FOUND_MESSAGES
            .iter()
            .any(|suffix| message.ends_with(suffix))
    }
}

#[cfg(test)]
mod tests;
