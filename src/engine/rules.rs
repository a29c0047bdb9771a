//! What the Fetcher allows: all of it, each host, and a batch that sets nothing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use super::Manners;
use crate::limits::{Breaker, Concurrency, Rate, RetryBudget};
use crate::schedule::{BatchLimits, Bounds, Income, LaneLimits, Limits, Pace, Trip};
use crate::{Error, ErrorKind, Request};

pub(crate) type LimitBy = Arc<dyn Fn(&Request) -> String + Send + Sync>;

pub(crate) struct Rules {
    /// Over everything the Fetcher does.
    pub(crate) whole: Limits,
    /// For each lane that has none of its own.
    pub(crate) per_lane: LaneLimits,
    pub(crate) by_origin: HashMap<Box<str>, LaneLimits>,
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

    pub(super) fn limits_of(&self, lane: &str) -> LaneLimits {
        let mut limits = self.by_origin.get(lane).copied().unwrap_or(self.per_lane);
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

    /// The lane's key, where it is not the origin.
    ///
    /// # Errors
    ///
    /// If the request is invalid or not to be made, or `limit_by` panics.
    pub(super) fn lane_of(
        &self,
        request: &Request,
        manners: &Manners,
    ) -> Result<Option<Arc<str>>, Error> {
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
