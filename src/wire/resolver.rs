//! Names to addresses: each name is looked up by one at a time, and what was found is kept a short while.
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
const AT_ONCE: usize = 128;
/// Names remembered.
const MOST: usize = 4096;
/// The longest that a name which does not exist is remembered.
const ABSENT: Duration = Duration::from_secs(5);
/// As long as it matters, and no more than a clock can count.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a resolver of the user's own may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where names are looked up, and for how long an answer holds.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) source: Option<Arc<dyn Resolve>>,
    pub(crate) keep: Duration,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            source: None,
            keep: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

pub(super) type Addresses = Arc<[SocketAddr]>;

pub(super) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    names: Names,
    permits: Semaphore,
    known: Mutex<HashMap<Box<str>, Flight>>,
}

/// A lookup that is under way, or has been made.
type Flight = watch::Receiver<Option<Answer>>;

struct Answer {
    found: Result<Addresses, Failure>,
    until: Instant,
}

impl Resolver {
    pub(super) fn new(names: Names) -> Self {
        Self {
            shared: Arc::new(Shared {
                names,
                permits: Semaphore::new(AT_ONCE),
                known: Mutex::default(),
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
            let mut flight = self.shared.join(name);
            if let Ok(answer) = flight.wait_for(Option::is_some).await
                && let Some(answer) = &*answer
            {
                return answer.found.clone().map_err(Failure::into_error);
            }
        }
    }

    /// Called when none of the addresses would do: they may be outdated.
    pub(super) fn forget(&self, name: &str) {
        let mut known = self.shared.lock();
        if known
            .get(name)
            .is_some_and(|flight| flight.borrow().is_some())
        {
            known.remove(name);
        }
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.shared.lock().len()
    }
}

impl Shared {
    /// The lookup of a name: the one that is known, or a new one.
    fn join(self: &Arc<Self>, name: &str) -> Flight {
        let now = Instant::now();
        let mut known = self.lock();
        if let Some(flight) = known.get(name)
            && is_good(flight, now)
        {
            return flight.clone();
        }
        if known.len() >= MOST {
            make_room(&mut known, now);
        }
        let (answer, flight) = watch::channel(None);
        known.insert(name.into(), flight.clone());
        drop(known);
        tokio::spawn(Arc::clone(self).fly(name.into(), answer));
        flight
    }

    async fn fly(self: Arc<Self>, name: Box<str>, answer: watch::Sender<Option<Answer>>) {
        let Ok(_permit) = self.permits.acquire().await else {
            return;
        };
        let found = self.find(name).await;
        let keep = match &found {
            Ok(_) => self.names.keep,
            Err(failure) if failure.kind == ErrorKind::HostNotFound => self.names.keep.min(ABSENT),
            Err(_) => Duration::ZERO,
        };
        answer.send_replace(Some(Answer {
            found,
            until: Instant::now() + keep.min(FOREVER),
        }));
    }

    async fn find(&self, name: Box<str>) -> Result<Addresses, Failure> {
        let found = match &self.names.source {
            Some(resolver) => ask(&**resolver, &name).await?,
            None => ask_system(name).await,
        };
        match found {
            Ok(addresses) if addresses.is_empty() => Err(Failure::from(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ))),
            Ok(addresses) => Ok(addresses.into()),
            Err(error) => Err(Failure::from(error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Flight>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether to wait for this lookup, or to take its answer.
fn is_good(flight: &Flight, now: Instant) -> bool {
    match &*flight.borrow() {
        Some(answer) => now < answer.until,
        // An error: whoever was to answer is gone.
        None => flight.has_changed().is_ok(),
    }
}

/// Forgets what has expired, or all that is settled if that is little.
fn make_room(known: &mut HashMap<Box<str>, Flight>, now: Instant) {
    known.retain(|_, flight| is_good(flight, now));
    if known.len() > MOST / 2 {
        known.retain(|_, flight| flight.borrow().is_none());
    }
}

/// Asks the user's resolver. What it panics with is the failure of those who asked.
async fn ask(resolver: &dyn Resolve, name: &str) -> Result<io::Result<Vec<SocketAddr>>, Failure> {
    let panicked = |_| Failure::new(ErrorKind::Panicked, io::Error::other("in the resolver"));
    let mut lookup = catch_unwind(AssertUnwindSafe(|| resolver.resolve(name))).map_err(panicked)?;
    let caught = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| lookup.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    );
    match timeout(PATIENCE, caught).await {
        Ok(Ok(found)) => Ok(found.map(|addresses| {
            let addresses = addresses.into_iter();
            addresses.map(|address| (address, 0).into()).collect()
        })),
        Ok(Err(panic)) => Err(panicked(panic)),
        Err(_) => Ok(Err(io::ErrorKind::TimedOut.into())),
    }
}

async fn ask_system(name: Box<str>) -> io::Result<Vec<SocketAddr>> {
    // Names that never exist, and need not be asked for (RFC 6761, 6.4).
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
struct Failure {
    kind: ErrorKind,
    source: Arc<io::Error>,
}

impl Failure {
    fn new(kind: ErrorKind, source: io::Error) -> Self {
        Self {
            kind,
            source: Arc::new(source),
        }
    }

    fn into_error(self) -> Error {
        match self.kind {
            ErrorKind::Panicked => Error::of(ErrorKind::Panicked).because("in the resolver"),
            kind => Error::new(kind, Shown(self.source)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match is_absence(&error) {
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
fn is_absence(error: &io::Error) -> bool {
    /// glibc twice, musl, the BSDs and macOS twice, Android.
    const WORDS: [&str; 6] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided, or not known",
        "No address associated with nodename",
        "Name has no usable address",
    ];
    // WSAHOST_NOT_FOUND and WSANO_DATA.
    let on_windows = cfg!(windows) && matches!(error.raw_os_error(), Some(11001 | 11004));
    on_windows || error.kind() == io::ErrorKind::NotFound || {
        let words = error.to_string();
        WORDS.iter().any(|absent| words.ends_with(absent))
    }
}

/// An I/O error that several own.
#[derive(Debug)]
struct Shown(Arc<io::Error>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests;
