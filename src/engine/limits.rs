//! The limits of a Fetcher, in the form that the schedule uses.

use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use super::costs::{FetcherBudgets, budget_configs};
use super::lane::JobLane;
use super::tenant_handle::TenantHandle;
use crate::limits::{
    Breaker, Budget, Concurrency, Host, HostFn, KeyLimits, LimitSettings, Rate, RetryBudget,
};
use crate::request::{Request, origin};
use crate::schedule::{
    BatchLimits, BreakerConfig, ConcurrencyBounds, GateLimits, GcraRate, LaneLimits,
    RetryBudgetConfig, Time,
};

pub(crate) type LimitByFn = Arc<dyn Fn(&Request) -> String + Send + Sync>;

pub(crate) struct EngineLimits {
    /// Limits on all requests of the Fetcher together.
    pub(crate) overall_limits: GateLimits,
    /// Limits of each lane (one host, or one `limit_by` key) that has no limits of its own.
    pub(crate) default_lane_limits: LaneLimits,
    /// Limits of the origins that were configured with `FetcherBuilder::host`.
    pub(crate) limits_by_origin: HashMap<Box<str>, LaneLimits>,
    /// Limits of the `limit_by` keys that were configured with `FetcherBuilder::limits_for`.
    pub(crate) limits_by_key: HashMap<Box<str>, LaneLimits>,
    /// The budgets of the Fetcher, of the origins and of the keys.
    pub(crate) budgets: FetcherBudgets,
    /// The user's callback that returns the settings of an origin without configured limits.
    pub(crate) host_fn: Option<Arc<HostFn>>,
    pub(crate) limit_by: Option<LimitByFn>,
    pub(crate) default_batch_concurrency: usize,
    /// Number of sockets the system allows to be open; `None` if the system sets no limit.
    pub(crate) max_sockets: Option<usize>,
}

/// How long other requests to an origin wait for the scout (the first request, which finds out the
/// origin's protocol).
pub(super) const SCOUT_TIMEOUT: Duration = Duration::from_millis(300);

impl EngineLimits {
    /// Clamps the Fetcher's concurrency to the number of sockets that may be open.
    pub(crate) fn clamp_concurrency_to_max_sockets(&mut self) {
        self.default_batch_concurrency = self.clamped_concurrency(self.default_batch_concurrency);
        let max_sockets = self.max_sockets.unwrap_or(usize::MAX);
        self.overall_limits.concurrency = self.overall_limits.concurrency.min(max_sockets);
    }

    /// Clamps a concurrency to the number of sockets that may be open. Requests beyond that number
    /// would fail for lack of a socket.
    pub(crate) fn clamped_concurrency(&self, concurrency: usize) -> usize {
        match self.max_sockets {
            Some(max_sockets) if concurrency > max_sockets => {
                static WARN_ONCE: Once = Once::new();
                WARN_ONCE.call_once(|| {
                    tracing::warn!(
                        target: "fanout",
                        requested = concurrency,
                        clamped = max_sockets,
                        "concurrency was clamped to the limit on open files; raise it with `ulimit -n`"
                    );
                });
                max_sockets
            }
            _ => concurrency,
        }
    }

    /// The effective concurrency of a batch with the given limit settings and tenant.
    pub(crate) fn batch_concurrency(
        &self,
        settings: &LimitSettings,
        tenant: Option<&TenantHandle>,
    ) -> usize {
        let concurrency = settings
            .concurrency
            .or(tenant.and_then(TenantHandle::concurrency))
            .unwrap_or(self.default_batch_concurrency);
        self.clamped_concurrency(concurrency)
    }

    pub(super) fn configured_lane_limits(&self, lane: &JobLane) -> LaneLimits {
        let key = lane.lane_key();
        let for_key = self.limits_by_key.get(key);
        let mut limits = match for_key.or_else(|| self.limits_by_origin.get(key)) {
            Some(configured) => configured.clone(),
            None => match &lane.lane_assignment.host_settings {
                Some(host) if key == origin(&lane.url) => {
                    self.default_lane_limits.clone().with_host_settings(host)
                }
                _ => self.default_lane_limits.clone(),
            },
        };
        if self.limit_by.is_some() {
            // With `limit_by`, a lane may contain several hosts. A host that is down must not stop
            // requests to the lane's other hosts.
            limits.breaker = BreakerConfig::DISABLED;
        }
        limits
    }

    /// The limits of the batch that all single fetches of a runtime and tenant share.
    pub(super) fn single_fetch_batch_limits(&self, tenant: Option<&TenantHandle>) -> BatchLimits {
        BatchLimits {
            overall_limits: GateLimits {
                concurrency: self.batch_concurrency(&LimitSettings::default(), tenant),
                ..GateLimits::UNLIMITED
            },
            per_lane_limits: GateLimits::UNLIMITED,
            deadline: None,
        }
    }
}

impl LimitSettings {
    /// The limits that all requests of a Fetcher or batch share, whatever their host.
    pub(crate) fn overall_limits(&self) -> GateLimits {
        GateLimits {
            concurrency: self.concurrency.unwrap_or(usize::MAX),
            rate: self.rate.map(GcraRate::from),
            ..GateLimits::UNLIMITED
        }
    }

    /// The limits on the requests to one host.
    pub(crate) fn host_limits(&self) -> GateLimits {
        let unlimited = GateLimits {
            rate: self.rate_per_host.map(GcraRate::from),
            ..GateLimits::UNLIMITED
        };
        match self.concurrency_per_host {
            Some(concurrency) => unlimited.with_concurrency(concurrency),
            None => unlimited,
        }
    }

    pub(super) fn batch_limits(&self, deadline: Option<Time>) -> BatchLimits {
        BatchLimits {
            overall_limits: self.overall_limits(),
            per_lane_limits: self.host_limits(),
            deadline,
        }
    }
}

impl GateLimits {
    fn with_concurrency(self, concurrency: Concurrency) -> Self {
        let bounds = concurrency.adaptive_min_and_max;
        Self {
            concurrency: concurrency.fixed_or_initial_limit,
            adaptive_bounds: bounds.map(|(min, max)| ConcurrencyBounds {
                min_limit: min,
                max_limit: max,
            }),
            ..self
        }
    }
}

impl LaneLimits {
    /// Overrides these limits with the limits that are set for a `limit_by` key.
    pub(crate) fn with_key_limits(self, key_limits: &KeyLimits) -> Self {
        self.with_concurrency_and_rate(key_limits.concurrency, key_limits.rate)
            .with_budgets(&key_limits.budgets)
    }

    /// Overrides these limits with the limits that are set for a host.
    pub(crate) fn with_host_settings(self, host: &Host) -> Self {
        let mut limits = self
            .with_concurrency_and_rate(host.concurrency, host.rate)
            .with_budgets(&host.budgets);
        if let Some(breaker) = host.breaker {
            limits.breaker = breaker.into();
        }
        limits
    }

    fn with_budgets(mut self, budgets: &[Budget]) -> Self {
        if !budgets.is_empty() {
            self.budgets = Some(budget_configs(budgets).into());
        }
        self
    }

    fn with_concurrency_and_rate(
        mut self,
        concurrency: Option<Concurrency>,
        rate: Option<Rate>,
    ) -> Self {
        if let Some(concurrency) = concurrency {
            self.gate_limits = self.gate_limits.with_concurrency(concurrency);
        }
        if let Some(rate) = rate {
            self.gate_limits.rate = Some(rate.into());
        }
        self
    }
}

impl From<Rate> for GcraRate {
    fn from(rate: Rate) -> Self {
        Self {
            emission_interval_nanos: rate.emission_interval_nanos(),
            burst_tolerance_nanos: rate.burst_tolerance_nanos(),
        }
    }
}

impl From<Breaker> for BreakerConfig {
    fn from(breaker: Breaker) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            failure_threshold: breaker.failure_threshold,
            cooldown_nanos: nanos(breaker.cooldown),
            max_wait_nanos: nanos(breaker.max_wait),
        }
    }
}

/// A retry budget without a limit becomes `None`.
impl From<RetryBudget> for Option<RetryBudgetConfig> {
    fn from(budget: RetryBudget) -> Self {
        (!budget.is_off).then_some(RetryBudgetConfig {
            retry_percent: budget.retry_percent,
            min_retries_per_second: budget.retries_per_second,
        })
    }
}
