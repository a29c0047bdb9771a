//! The particulars of hosts that are known only when they are met.

use std::collections::HashMap;
use std::fmt;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::PROXY_AUTHORIZATION;

use super::Host;
use crate::{Error, ErrorKind};

type Ask = dyn Fn(&str) -> Option<Host> + Send + Sync;
type Answers = HashMap<Box<str>, Option<Arc<Host>>>;

/// A function from the origin to what is particular to it, and what it said of the hosts met last.
pub(crate) struct HostBy {
    ask: Box<Ask>,
    seen: Mutex<Seen>,
}

/// Those met of late, and those met before them; so that memory follows the hosts in use.
#[derive(Default)]
struct Seen {
    young: Answers,
    old: Answers,
}

/// So many answers are kept, and as many of the older ones.
const KEPT: usize = 4_096;

impl HostBy {
    pub(crate) fn new(ask: impl Fn(&str) -> Option<Host> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            ask: Box::new(ask),
            seen: Mutex::default(),
        })
    }

    /// What is particular to an origin. This may run code of the user's, so no lock may be held.
    ///
    /// # Errors
    ///
    /// If that panics, or what it gives is not valid.
    pub(crate) fn get(&self, origin: &str) -> Result<Option<Arc<Host>>, Error> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen().find(origin) {
            return Ok(known);
        }
        let host = match catch_unwind(AssertUnwindSafe(|| (self.ask)(origin))) {
            Ok(host) => host.map(|host| checked(host, origin)).transpose()?,
            Err(_) => return Err(Error::of(ErrorKind::Panicked).because("in `host_by`")),
        };
        Ok(seen().keep(origin, host.map(Arc::new)))
    }
}

impl fmt::Debug for HostBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBy").finish_non_exhaustive()
    }
}

impl Seen {
    fn find(&mut self, origin: &str) -> Option<Option<Arc<Host>>> {
        if let Some(known) = self.young.get(origin) {
            return Some(known.clone());
        }
        let known = self.old.remove(origin)?;
        Some(self.keep(origin, known))
    }

    /// Who was faster to ask is who is believed.
    fn keep(&mut self, origin: &str, host: Option<Arc<Host>>) -> Option<Arc<Host>> {
        if self.young.len() >= KEPT && !self.young.contains_key(origin) {
            self.old = take(&mut self.young);
        }
        self.young.entry(origin.into()).or_insert(host).clone()
    }
}

fn checked(host: Host, origin: &str) -> Result<Host, Error> {
    let reason = if let Some(reason) = &host.mistake {
        reason.to_string()
    } else if host.headers.contains_key(PROXY_AUTHORIZATION) {
        "`proxy-authorization` is for a proxy; give it in the URL of the `Proxy`".into()
    } else if host.token_source.is_some() {
        "`host_by` cannot give a token source; set it with `host`".into()
    } else {
        return Ok(host);
    };
    Err(Error::of(ErrorKind::InvalidRequest).because(format!("for host {origin}: {reason}")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn each_origin_is_asked_for_once_while_it_is_in_use() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let by = HostBy::new(move |_| {
            counted.fetch_add(1, Relaxed);
            Some(Host::new().concurrency(2))
        });
        for n in 0..3 * KEPT {
            assert!(by.get(&n.to_string()).unwrap().is_some());
            by.get("in use").unwrap();
        }
        assert_eq!(asked.load(Relaxed), 3 * KEPT + 1);
        let seen = by.seen.lock().unwrap();
        assert!(seen.young.len() <= KEPT && seen.old.len() <= KEPT);
    }
}
