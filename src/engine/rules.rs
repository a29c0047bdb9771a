//! What the Fetcher allows: all of it, each host, and a batch that sets nothing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use super::Manners;
use super::job::Lane;
use crate::limits::{Breaker, Concurrency, Host, HostBy, Rate, RetryBudget};
use crate::request::origin;
use crate::schedule::{BatchLimits, Bounds, Income, LaneLimits, Limits, Pace, Trip};
use crate::{Error, ErrorKind, Request};

pub(crate) type LimitBy = Arc<dyn Fn(&Request) -> String + Send + Sync>;

/// The key of a lane, where it is not the origin, and what is particular to the host.
pub(super) type Place = (Option<Arc<str>>, Option<Arc<Host>>);

pub(crate) struct Rules {
    /// Over everything the Fetcher does.
    pub(crate) whole: Limits,
    /// For each lane that has none of its own.
    pub(crate) per_lane: LaneLimits,
    pub(crate) by_origin: HashMap<Box<str>, LaneLimits>,
    /// For the origins that are not among these.
    pub(crate) host_by: Option<Arc<HostBy>>,
    pub(crate) limit_by: Option<LimitBy>,
    /// What a batch may have on the wire if it does not say.
    pub(crate) batch_concurrency: usize,
    /// The most sockets that may be open at once, if the system bounds them.
    pub(crate) descriptors: Option<usize>,
}

impl Rules {
    /// Fits the Fetcher's own limits to the open files it may have.
    pub(crate) fn fit(&mut self) {
        self.batch_concurrency = self.fitted(self.batch_concurrency);
        self.whole.concurrency = self
            .whole
            .concurrency
            .min(self.descriptors.unwrap_or(usize::MAX));
    }

    /// A concurrency fitted to the open files there may be: the rest would fail for want of a socket.
    pub(crate) fn fitted(&self, concurrency: usize) -> usize {
        match self.descriptors {
            Some(most) if concurrency > most => {
                static ONCE: Once = Once::new();
                ONCE.call_once(|| {
                    tracing::warn!(
                        target: "fanout",
                        asked = concurrency,
                        given = most,
                        "concurrency fitted to the limit on open files; raise it with `ulimit -n`"
                    );
                });
                most
            }
            _ => concurrency,
        }
    }

    pub(super) fn limits_of(&self, lane: &Lane) -> LaneLimits {
        let by_host = || match &lane.host {
            Some(host) if lane.as_str() == origin(&lane.url) => given(host, self.per_lane),
            _ => self.per_lane,
        };
        let known = self.by_origin.get(lane.as_str()).copied();
        let mut limits = known.unwrap_or_else(by_host);
        if self.limit_by.is_some() {
            // One lane may be many hosts: that some of them are down says nothing of the others.
            limits.trip = Trip::NEVER;
        }
        limits
    }

    /// All single fetches of a runtime together are bounded as one batch is.
    pub(super) fn single_fetches(&self) -> BatchLimits {
        let whole = Limits {
            concurrency: self.batch_concurrency,
            pace: None,
            ..Limits::NONE
        };
        BatchLimits {
            whole,
            per_lane: Limits::NONE,
            deadline: None,
        }
    }

    /// Where a request belongs.
    ///
    /// # Errors
    ///
    /// If the request is invalid or not to be made, or a function of the user's panics or gives what is not valid.
    pub(super) fn place_of(&self, request: &Request, manners: &Manners) -> Result<Place, Error> {
        let lane = self.lane_of(request, manners)?;
        Ok((lane, self.host_of(request)?))
    }

    /// What is particular to the origin of a request, if it is a function that says so. This runs code of the user's.
    ///
    /// # Errors
    ///
    /// If that panics, or gives what is not valid.
    fn host_of(&self, request: &Request) -> Result<Option<Arc<Host>>, Error> {
        let Some(host_by) = &self.host_by else {
            return Ok(None);
        };
        let origin = origin(request.check()?);
        match self.by_origin.contains_key(origin) {
            true => Ok(None),
            false => host_by.get(origin),
        }
    }

    /// The lane's key, where it is not the origin.
    ///
    /// # Errors
    ///
    /// If the request is invalid or not to be made, or `limit_by` panics.
    fn lane_of(&self, request: &Request, manners: &Manners) -> Result<Option<Arc<str>>, Error> {
        manners.allow(request.check()?)?;
        let Some(limit_by) = &self.limit_by else {
            return Ok(None);
        };
        match catch_unwind(AssertUnwindSafe(|| limit_by(request))) {
            Ok(key) => Ok(Some(key.into())),
            Err(_) => Err(Error::of(ErrorKind::Panicked).because("in `limit_by`")),
        }
    }
}

/// How long the first request to an origin may be alone in finding out whether one connection is enough for all.
pub(super) const SCOUT: Duration = Duration::from_millis(300);

/// The limits of a lane, but for those that its host has of its own.
fn given(host: &Host, mut limits: LaneLimits) -> LaneLimits {
    let own = per_host(host.concurrency, host.rate);
    if host.concurrency.is_some() {
        limits.gate.concurrency = own.concurrency;
        limits.gate.adaptive = own.adaptive;
    }
    limits.gate.pace = own.pace.or(limits.gate.pace);
    limits.trip = host.breaker.map_or(limits.trip, trip);
    limits
}

/// The limits of a host, whose concurrency may be one that learns.
pub(crate) fn per_host(concurrency: Option<Concurrency>, rate: Option<Rate>) -> Limits {
    let bounds = concurrency.and_then(|concurrency| concurrency.bounds);
    Limits {
        adaptive: bounds.map(|(least, most)| Bounds { least, most }),
        ..limits(concurrency.map(|concurrency| concurrency.initial), rate)
    }
}

/// The limits as the schedule counts them.
pub(crate) fn limits(concurrency: Option<usize>, rate: Option<Rate>) -> Limits {
    Limits {
        concurrency: concurrency.unwrap_or(usize::MAX),
        pace: rate.map(|rate| Pace {
            interval: rate.interval(),
            tolerance: rate.tolerance(),
        }),
        ..Limits::NONE
    }
}

/// The breaker as the schedule keeps it.
pub(crate) fn trip(breaker: Breaker) -> Trip {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Trip {
        failures: breaker.failures,
        cooldown: nanos(breaker.cooldown),
        max_wait: nanos(breaker.max_wait),
    }
}

/// The budget as the schedule keeps it.
pub(crate) fn income(budget: RetryBudget) -> Option<Income> {
    (!budget.is_off).then_some(Income {
        percent: budget.percent,
        per_second: budget.per_second,
    })
}
