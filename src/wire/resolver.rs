//! DnsConfig to addresses: each name is looked up by one at a time, and what was found is kept a short while.
//!
//! A lookup runs in a task of its own, for it cannot be stopped once the system is asked, and who asked first may leave
//! while others wait. One that is lost, since its runtime ended, is begun again by whoever still waits for it.

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

use crate::error::{Error, ErrorKind};
use crate::resolve::Resolve;

/// Lookups under way at once. The system's each hold a thread for as long as the name's servers are silent.
const MAX_CONCURRENT_LOOKUPS: usize = 128;
/// DnsConfig remembered.
const MAX_CACHED_NAMES: usize = 4096;
/// The longest that a name which does not exist is remembered.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// As long as it matters, and no more than a clock can count.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a resolver of the user's own may take.
const USER_RESOLVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where names are looked up, and for how long an answer holds.
#[derive(Clone)]
pub(crate) struct DnsConfig {
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

pub(super) struct Resolver {
    inner: Arc<ResolverInner>,
}

struct ResolverInner {
    config: DnsConfig,
    lookup_permits: Semaphore,
    lookups: Mutex<HashMap<Box<str>, LookupReceiver>>,
}

/// A lookup that is under way, or has been made.
type LookupReceiver = watch::Receiver<Option<LookupOutcome>>;

struct LookupOutcome {
    result: Result<Addresses, LookupError>,
    expires_at: Instant,
}

impl Resolver {
    pub(super) fn new(config: DnsConfig) -> Self {
        Self {
            inner: Arc::new(ResolverInner {
                config,
                lookup_permits: Semaphore::new(MAX_CONCURRENT_LOOKUPS),
                lookups: Mutex::default(),
            }),
        }
    }

    /// The addresses of a name, with port 0.
    ///
    /// # Cancel safety
    ///
    /// The lookup goes on, for others who may want the name.
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

    /// Called when none of the addresses would do: they may be outdated.
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
    /// The lookup of a name: the one that is known, or a new one.
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
        let ttl = match &result {
            Ok(_) => self.config.cache_ttl,
            Err(failure) if failure.kind == ErrorKind::HostNotFound => {
                self.config.cache_ttl.min(MAX_NEGATIVE_TTL)
            }
            Err(_) => Duration::ZERO,
        };
        sender.send_replace(Some(LookupOutcome {
            result,
            expires_at: Instant::now() + ttl.min(MAX_TTL),
        }));
    }

    async fn resolve(&self, name: Box<str>) -> Result<Addresses, LookupError> {
        let found = match &self.config.resolver {
            Some(resolver) => resolve_with_user_resolver(&**resolver, &name).await?,
            None => resolve_with_system(name).await,
        };
        match found {
            Ok(addresses) if addresses.is_empty() => Err(LookupError::from(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ))),
            Ok(addresses) => Ok(addresses.into()),
            Err(error) => Err(LookupError::from(error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, LookupReceiver>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether to wait for this lookup, or to take its answer.
fn is_usable(lookup: &LookupReceiver, now: Instant) -> bool {
    match &*lookup.borrow() {
        Some(outcome) => now < outcome.expires_at,
        // An error: whoever was to answer is gone.
        None => lookup.has_changed().is_ok(),
    }
}

/// Forgets what has expired, or all that is settled if that is little.
fn evict_lookups(lookups: &mut HashMap<Box<str>, LookupReceiver>, now: Instant) {
    lookups.retain(|_, lookup| is_usable(lookup, now));
    if lookups.len() > MAX_CACHED_NAMES / 2 {
        lookups.retain(|_, lookup| lookup.borrow().is_none());
    }
}

/// Asks the user's resolver. What it panics with is the failure of those who asked.
async fn resolve_with_user_resolver(
    resolver: &dyn Resolve,
    name: &str,
) -> Result<io::Result<Vec<SocketAddr>>, LookupError> {
    let panicked = |_| LookupError::new(ErrorKind::Panicked, io::Error::other("in the resolver"));
    let mut lookup = catch_unwind(AssertUnwindSafe(|| resolver.resolve(name))).map_err(panicked)?;
    let caught = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| lookup.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    );
    match timeout(USER_RESOLVER_TIMEOUT, caught).await {
        Ok(Ok(found)) => Ok(found.map(|addresses| {
            let addresses = addresses.into_iter();
            addresses.map(|address| (address, 0).into()).collect()
        })),
        Ok(Err(panic)) => Err(panicked(panic)),
        Err(_) => Ok(Err(io::ErrorKind::TimedOut.into())),
    }
}

async fn resolve_with_system(name: Box<str>) -> io::Result<Vec<SocketAddr>> {
    // DnsConfig that never exist, and need not be asked for (RFC 6761, 6.4).
    let absolute = name.strip_suffix('.').unwrap_or(&name);
    if absolute == "invalid" || absolute.ends_with(".invalid") {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no name under .invalid exists",
        ));
    }
    spawn_blocking(move || Ok((&*name, 0).to_socket_addrs()?.collect())).await?
}

/// A failed lookup, which many may share.
#[derive(Clone, Debug)]
struct LookupError {
    kind: ErrorKind,
    source: Arc<io::Error>,
}

impl LookupError {
    fn new(kind: ErrorKind, source: io::Error) -> Self {
        Self {
            kind,
            source: Arc::new(source),
        }
    }

    fn into_error(self) -> Error {
        match self.kind {
            ErrorKind::Panicked => {
                Error::from_kind(ErrorKind::Panicked).with_detail("in the resolver")
            }
            kind => Error::new(kind, SharedError(self.source)),
        }
    }
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        let kind = match is_not_found(&error) {
            true => ErrorKind::HostNotFound,
            false => ErrorKind::Dns,
        };
        Self::new(kind, error)
    }
}

/// Whether the answer was that there is no such name or no address of it, rather than that no answer came.
///
/// The standard library keeps only the words of what `getaddrinfo` answers. Where they are not known it counts as no
/// answer, which is tried again.
fn is_not_found(error: &io::Error) -> bool {
    /// glibc twice, musl, the BSDs and macOS twice, Android.
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

/// An I/O error that several own.
#[derive(Debug)]
struct SharedError(Arc<io::Error>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests;
