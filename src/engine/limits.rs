//! What the Fetcher allows: all of it, each host, and a batch that sets nothing.

use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::lane::JobLane;
use crate::limits::{Breaker, Concurrency, Host, HostFn, Rate, RetryBudget};
use crate::request::{Request, origin};
use crate::schedule::{
    BatchLimits, BreakerConfig, ConcurrencyBounds, GateLimits, GcraRate, LaneLimits,
    RetryBudgetConfig,
};

pub(crate) type LimitByFn = Arc<dyn Fn(&Request) -> String + Send + Sync>;

pub(crate) struct EngineLimits {
    /// Over everything the Fetcher does.
    pub(crate) total: GateLimits,
    /// For each lane that has none of its own.
    pub(crate) per_lane: LaneLimits,
    pub(crate) by_origin: HashMap<Box<str>, LaneLimits>,
    /// For the origins that are not among these.
    pub(crate) host_fn: Option<Arc<HostFn>>,
    pub(crate) limit_by: Option<LimitByFn>,
    /// What a batch may have on the wire if it does not say.
    pub(crate) default_batch_concurrency: usize,
    /// The most sockets that may be open at once, if the system bounds them.
    pub(crate) max_sockets: Option<usize>,
}

impl EngineLimits {
    /// Fits the Fetcher's own limits to the open files it may have.
    pub(crate) fn clamp_to_sockets(&mut self) {
        self.default_batch_concurrency = self.clamped_concurrency(self.default_batch_concurrency);
        self.total.concurrency = self
            .total
            .concurrency
            .min(self.max_sockets.unwrap_or(usize::MAX));
    }

    /// A concurrency fitted to the open files there may be: the rest would fail for want of a socket.
    pub(crate) fn clamped_concurrency(&self, concurrency: usize) -> usize {
        match self.max_sockets {
            Some(max) if concurrency > max => {
                static ONCE: Once = Once::new();
                ONCE.call_once(|| {
                    tracing::warn!(
                        target: "fanout",
                        asked = concurrency,
                        clamped = max,
                        "concurrency fitted to the limit on open files; raise it with `ulimit -n`"
                    );
                });
                max
            }
            _ => concurrency,
        }
    }

    pub(super) fn lane_limits(&self, lane: &JobLane) -> LaneLimits {
        let by_host = || match &lane.assignment.host_settings {
            Some(host) if lane.key() == origin(&lane.url) => with_host_limits(host, self.per_lane),
            _ => self.per_lane,
        };
        let configured = self.by_origin.get(lane.key()).copied();
        let mut limits = configured.unwrap_or_else(by_host);
        if self.limit_by.is_some() {
            // One lane may be many hosts: that some of them are down says nothing of the others.
            limits.breaker = BreakerConfig::DISABLED;
        }
        limits
    }

    /// All single fetches of a runtime together are bounded as one batch is.
    pub(super) fn single_fetch_limits(&self) -> BatchLimits {
        let overall = GateLimits {
            concurrency: self.default_batch_concurrency,
            rate: None,
            ..GateLimits::UNLIMITED
        };
        BatchLimits {
            overall,
            per_lane: GateLimits::UNLIMITED,
            deadline: None,
        }
    }
}

/// How long the first request to an origin may be alone in finding out whether one connection is enough for all.
pub(super) const SCOUT_TIMEOUT: Duration = Duration::from_millis(300);

/// The limits of a lane, but for those that its host has of its own.
fn with_host_limits(host: &Host, mut limits: LaneLimits) -> LaneLimits {
    let own = adaptive_gate_limits(host.concurrency, host.rate);
    if host.concurrency.is_some() {
        limits.gate.concurrency = own.concurrency;
        limits.gate.adaptive = own.adaptive;
    }
    limits.gate.rate = own.rate.or(limits.gate.rate);
    limits.breaker = host.breaker.map_or(limits.breaker, breaker_config);
    limits
}

impl From<Rate> for GcraRate {
    fn from(rate: Rate) -> Self {
        Self {
            emission_interval: rate.emission_interval(),
            burst_tolerance: rate.burst_tolerance(),
        }
    }
}

/// The limits of a host, whose concurrency may be one that learns.
pub(crate) fn adaptive_gate_limits(
    concurrency: Option<Concurrency>,
    rate: Option<Rate>,
) -> GateLimits {
    let bounds = concurrency.and_then(|concurrency| concurrency.adaptive_bounds);
    GateLimits {
        adaptive: bounds.map(|(min, max)| ConcurrencyBounds { min, max }),
        ..gate_limits(concurrency.map(|concurrency| concurrency.initial), rate)
    }
}

/// The limits as the schedule counts them.
pub(crate) fn gate_limits(concurrency: Option<usize>, rate: Option<Rate>) -> GateLimits {
    GateLimits {
        concurrency: concurrency.unwrap_or(usize::MAX),
        rate: rate.map(GcraRate::from),
        ..GateLimits::UNLIMITED
    }
}

/// The breaker as the schedule keeps it.
pub(crate) fn breaker_config(breaker: Breaker) -> BreakerConfig {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    BreakerConfig {
        failure_threshold: breaker.failure_threshold,
        cooldown: nanos(breaker.cooldown),
        max_wait: nanos(breaker.max_wait),
    }
}

/// The budget as the schedule keeps it.
pub(crate) fn budget_config(budget: RetryBudget) -> Option<RetryBudgetConfig> {
    (!budget.is_off).then_some(RetryBudgetConfig {
        retry_percent: budget.retry_percent,
        min_per_second: budget.retries_per_second,
    })
}
