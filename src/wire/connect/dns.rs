//! Resolves host names, with a cache. At most one lookup of a name runs at a time.
//!
//! Each [lookup] runs in its own task. It continues if the request that started it ends while other
//! requests wait for the result. If the task is lost because its runtime shuts down, a waiting
//! request starts the lookup again.

mod lookup;
mod lookup_error;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use self::lookup::PendingLookup;
use self::lookup::{LookupChannel, LookupResult, LookupTask};
use self::lookup_error::LookupError;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::host_name::is_localhost_or_subdomain;
use crate::resolve::Resolve;

/// The number of permits for lookups by the user's resolver.
const MAX_CONCURRENT_USER_LOOKUPS: usize = 128;
/// The number of permits for lookups by the system's resolver. Each of these lookups blocks a
/// thread. Half of the threads of tokio's default blocking pool stay free for file operations.
const MAX_CONCURRENT_SYSTEM_LOOKUPS: usize = 256;
/// The maximum number of lookups that may wait for a permit while their requests hold no
/// concurrency slot. Above this number, a request keeps its slot while its lookup waits. This
/// bounds the memory of waiting lookups.
const MAX_WAITING_LOOKUPS_WITHOUT_SLOT: usize = 1024;
const MAX_CACHED_NAMES: usize = 4096;
/// The maximum time for which a name that does not exist is cached.
const MAX_NOT_FOUND_CACHE_TTL: Duration = Duration::from_secs(5);
/// The maximum time for which a result is cached. Prevents an overflow of `Instant`.
const MAX_CACHE_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone)]
pub(crate) struct DnsConfig {
    /// The user's resolver. `None` means the system's resolver.
    pub(crate) user_resolver: Option<Arc<dyn Resolve>>,
    pub(crate) cache_ttl: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            user_resolver: None,
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

pub(super) type ResolvedAddresses = Arc<[SocketAddr]>;

pub(in crate::wire) struct Resolver {
    shared_state: Arc<SharedResolverState>,
}

struct SharedResolverState {
    dns_config: DnsConfig,
    lookup_permits: Arc<Semaphore>,
    /// The number of lookups that wait for a permit.
    waiting_lookup_count: AtomicUsize,
    cache: Mutex<HashMap<Box<str>, CacheEntry>>,
}

enum CacheEntry {
    /// A lookup in progress. The task of the lookup owns the channel, so the weak reference is dead
    /// once the task is gone.
    InProgress(Weak<LookupChannel>),
    Finished {
        result: LookupResult,
        expires_at: Instant,
    },
}

/// The cached result for a name, or the lookup that will return it.
enum CachedOrPendingLookup {
    Cached(LookupResult),
    Pending(PendingLookup),
}

impl Resolver {
    pub(in crate::wire) fn new(dns_config: DnsConfig) -> Self {
        let permits = match dns_config.user_resolver {
            Some(_) => MAX_CONCURRENT_USER_LOOKUPS,
            None => MAX_CONCURRENT_SYSTEM_LOOKUPS,
        };
        Self {
            shared_state: Arc::new(SharedResolverState {
                dns_config,
                lookup_permits: Arc::new(Semaphore::new(permits)),
                waiting_lookup_count: AtomicUsize::new(0),
                cache: Mutex::default(),
            }),
        }
    }

    /// Returns the addresses of a host name, with port 0. A name under `localhost` resolves to the
    /// loopback addresses without a lookup.
    ///
    /// `clock` is paused while the lookup waits for a permit, so the wait does not count towards
    /// timeouts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop a lookup that other requests wait for.
    pub(super) async fn look_up(
        &self,
        name: &str,
        clock: &HopClock,
    ) -> Result<ResolvedAddresses, Error> {
        if is_localhost_or_subdomain(name) {
            return Ok(loopback_addresses());
        }
        let result = loop {
            let mut lookup = match self.shared_state.find_or_start_lookup(name) {
                CachedOrPendingLookup::Cached(result) => break result,
                CachedOrPendingLookup::Pending(lookup) => lookup,
            };
            if let Some(result) = lookup.wait_for_result(clock).await {
                break result;
            }
        };
        result.map_err(LookupError::into_error)
    }

    /// Whether a lookup that starts now has to wait for a permit.
    pub(in crate::wire) fn is_out_of_lookup_permits(&self) -> bool {
        self.shared_state.lookup_permits.available_permits() == 0
    }

    /// Starts or joins the lookup of a name if no permit is free. Returns the lookup if it waits
    /// for a permit.
    ///
    /// Returns `None` for a name that was resolved before, even if its addresses have expired. The
    /// request can then use an open connection, which needs no lookup.
    pub(in crate::wire) fn join_lookup_if_out_of_permits(
        &self,
        name: &str,
    ) -> Option<PendingLookup> {
        let shared_state = &self.shared_state;
        if !self.is_out_of_lookup_permits()
            || is_localhost_or_subdomain(name)
            || shared_state.waiting_lookup_count.load(Relaxed) >= MAX_WAITING_LOOKUPS_WITHOUT_SLOT
            || shared_state.has_cached_addresses(name)
        {
            return None;
        }
        match shared_state.find_or_start_lookup(name) {
            CachedOrPendingLookup::Pending(lookup) if lookup.is_waiting_for_permit() => {
                Some(lookup)
            }
            CachedOrPendingLookup::Pending(_) | CachedOrPendingLookup::Cached(_) => None,
        }
    }

    /// Removes the result for a name from the cache. Called when no address of the name accepts a
    /// connection, because the cached addresses may be outdated.
    pub(super) fn remove_from_cache(&self, name: &str) {
        let mut cache = self.shared_state.lock_cache();
        if let Some(CacheEntry::Finished { .. }) = cache.get(name) {
            cache.remove(name);
        }
    }

    #[cfg(test)]
    fn cached_name_count(&self) -> usize {
        self.shared_state.lock_cache().len()
    }
}

impl SharedResolverState {
    fn find_or_start_lookup(self: &Arc<Self>, name: &str) -> CachedOrPendingLookup {
        let now = Instant::now();
        let mut cache = self.lock_cache();
        match cache.get(name) {
            Some(CacheEntry::Finished { result, expires_at }) if now < *expires_at => {
                return CachedOrPendingLookup::Cached(result.clone());
            }
            Some(CacheEntry::InProgress(channel)) => {
                if let Some(channel) = channel.upgrade() {
                    return CachedOrPendingLookup::Pending(channel.subscribe());
                }
            }
            Some(CacheEntry::Finished { .. }) | None => {}
        }
        if cache.len() >= MAX_CACHED_NAMES {
            make_room_in_cache(&mut cache, now);
        }
        let channel = Arc::new(LookupChannel::new());
        let lookup = channel.subscribe();
        let entry = CacheEntry::InProgress(Arc::downgrade(&channel));
        cache.insert(name.into(), entry);
        drop(cache);
        tokio::spawn(LookupTask::new(self, name, channel).look_up_and_cache());
        CachedOrPendingLookup::Pending(lookup)
    }

    /// Whether the cache has addresses of a name, expired or not.
    fn has_cached_addresses(&self, name: &str) -> bool {
        let cache = self.lock_cache();
        matches!(
            cache.get(name),
            Some(CacheEntry::Finished { result: Ok(_), .. })
        )
    }

    /// Caches the result of a lookup. Addresses stay valid for the configured time, and a name that
    /// does not exist for at most [`MAX_NOT_FOUND_CACHE_TTL`]. Any other failure expires at once.
    fn cache_result(&self, name: &str, result: &LookupResult) {
        let cache_ttl = self.dns_config.cache_ttl;
        let ttl = match result {
            Ok(_) => cache_ttl,
            Err(error) if error.error_kind == ErrorKind::HostNotFound => {
                cache_ttl.min(MAX_NOT_FOUND_CACHE_TTL)
            }
            Err(_) => Duration::ZERO,
        };
        let entry = CacheEntry::Finished {
            result: result.clone(),
            expires_at: Instant::now() + ttl.min(MAX_CACHE_TTL),
        };
        self.lock_cache().insert(name.into(), entry);
    }

    /// Removes a lookup from the cache if no request waits for it. Returns whether it was removed.
    fn remove_lookup_if_abandoned(&self, name: &str, channel: &LookupChannel) -> bool {
        // While the lock is held, no request can join the lookup.
        let mut cache = self.lock_cache();
        let is_abandoned = !channel.has_waiting_requests();
        if is_abandoned {
            cache.remove(name);
        }
        is_abandoned
    }

    fn lock_cache(&self) -> MutexGuard<'_, HashMap<Box<str>, CacheEntry>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn loopback_addresses() -> ResolvedAddresses {
    Arc::new([
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    ])
}

/// Removes expired results. If the cache is still more than half full, removes all results. Lookups
/// in progress stay.
fn make_room_in_cache(cache: &mut HashMap<Box<str>, CacheEntry>, now: Instant) {
    cache.retain(|_, entry| match entry {
        CacheEntry::InProgress(channel) => channel.strong_count() > 0,
        CacheEntry::Finished { expires_at, .. } => now < *expires_at,
    });
    if cache.len() > MAX_CACHED_NAMES / 2 {
        cache.retain(|_, entry| matches!(entry, CacheEntry::InProgress(_)));
    }
}

#[cfg(test)]
mod tests;
