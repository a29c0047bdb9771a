//! A function of the user that returns the settings of hosts that are not known in advance.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::PROXY_AUTHORIZATION;

use super::{Host, check_budgets};
use crate::error::{Error, ErrorKind, catch_user_panic};
use crate::two_generation_cache::TwoGenerationCache;

type HostCallback = dyn Fn(&str) -> Option<Host> + Send + Sync;
type HostSettingsCache = TwoGenerationCache<Box<str>, Option<Arc<Host>>>;

/// The user's function that returns the settings of an origin, and a cache of the returned
/// settings.
pub(crate) struct HostFn {
    user_function: Box<HostCallback>,
    host_settings_cache: Mutex<HostSettingsCache>,
}

/// The maximum number of hosts in each of the two generations of the cache.
const MAX_HOSTS_PER_CACHE_GENERATION: usize = 4_096;

impl HostFn {
    pub(crate) fn new(
        function: impl Fn(&str) -> Option<Host> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            user_function: Box::new(function),
            host_settings_cache: Mutex::new(HostSettingsCache::new(MAX_HOSTS_PER_CACHE_GENERATION)),
        })
    }

    /// Returns the settings of an origin, cached or from the user's function. The caller must not
    /// hold a lock during this call.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`] if the function panics, and [`ErrorKind::InvalidRequest`] if
    /// the returned settings are invalid.
    pub(crate) fn host_settings_for(&self, origin: &str) -> Result<Option<Arc<Host>>, Error> {
        let cache = || {
            self.host_settings_cache
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(cached) = cache().get(origin) {
            return Ok(cached);
        }
        let host = catch_user_panic("in `host_fn`", || (self.user_function)(origin))?;
        let host = host
            .map(|host| validate_host_settings(host, origin))
            .transpose()?;
        let host = host.map(Arc::new);
        let mut cache = cache();
        // If another thread has meanwhile cached settings for this origin, the cached settings are
        // used.
        if let Some(cached) = cache.get(origin) {
            return Ok(cached);
        }
        cache.insert(origin.into(), host.clone());
        Ok(host)
    }
}

impl fmt::Debug for HostFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFn").finish_non_exhaustive()
    }
}

fn validate_host_settings(host: Host, origin: &str) -> Result<Host, Error> {
    let reason = if let Some(reason) = &host.first_header_error {
        reason.to_string()
    } else if host.headers.contains_key(PROXY_AUTHORIZATION) {
        "`proxy-authorization` is for a proxy; give it in the URL of the `Proxy`".into()
    } else if host.token_source.is_some() {
        "`host_fn` cannot return a token source; set it with `host`".into()
    } else if let Err(reason) = check_budgets(&host.budgets) {
        reason
    } else {
        return Ok(host);
    };
    Err(Error::from_kind(ErrorKind::InvalidRequest)
        .with_detail(format!("for host {origin}: {reason}")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn function_is_called_once_per_origin_in_use() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let host_fn = HostFn::new(move |_| {
            counted.fetch_add(1, Relaxed);
            Some(Host::new().concurrency(2))
        });
        for n in 0..3 * MAX_HOSTS_PER_CACHE_GENERATION {
            assert!(host_fn.host_settings_for(&n.to_string()).unwrap().is_some());
            host_fn.host_settings_for("in use").unwrap();
        }
        assert_eq!(calls.load(Relaxed), 3 * MAX_HOSTS_PER_CACHE_GENERATION + 1);
        let cache = host_fn.host_settings_cache.lock().unwrap();
        assert!(cache.len() <= 2 * MAX_HOSTS_PER_CACHE_GENERATION);
    }
}
