//! A model of a circuit breaker that sees only the starts and outcomes of jobs.

use std::num::NonZeroU32;

use super::super::{BreakerConfig, RouteHealth, Time};
use super::simulation::MS;

pub(super) struct OutageModel {
    config: BreakerConfig,
    consecutive_failures: u32,
    last_failure_at: Time,
    outage: Option<Outage>,
}

/// A time in which the breaker is not closed.
struct Outage {
    since: Time,
    until: Time,
    /// Whether queued jobs are rejected, because their wait would exceed the configured maximum.
    rejects_queued_jobs: bool,
    /// The id of the job whose request is the probe, while the job is in flight.
    probe: Option<usize>,
}

impl OutageModel {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            consecutive_failures: 0,
            last_failure_at: Time::default(),
            outage: None,
        }
    }

    pub(super) fn random_config(random: &mut fastrand::Rng) -> BreakerConfig {
        if random.bool() {
            return BreakerConfig::DISABLED;
        }
        BreakerConfig {
            failure_threshold: NonZeroU32::new(random.u32(1..4)),
            cooldown_nanos: 20 * MS,
            max_wait_nanos: [0, 20 * MS, 50 * MS][random.usize(..3)],
        }
    }

    /// Records a start. Fails if the breaker must refuse the start.
    pub(super) fn record_start(&mut self, id: usize, now: Time) -> Result<(), String> {
        match &mut self.outage {
            Some(outage) if outage.probe.is_some() => Err(format!("{id} started during a probe")),
            Some(outage) if now < outage.until => Err(format!("{id} started during the cooldown")),
            Some(outage) => {
                outage.probe = Some(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn is_current_probe(&self, id: usize) -> bool {
        self.outage
            .as_ref()
            .is_some_and(|outage| outage.probe == Some(id))
    }

    pub(super) fn record_health(&mut self, id: usize, health: RouteHealth, now: Time) {
        let Some(threshold) = self.config.failure_threshold else {
            return;
        };
        let is_counted = self.outage.is_none() || self.is_current_probe(id);
        match health {
            RouteHealth::Unreachable if is_counted => {
                self.consecutive_failures += 1;
                self.last_failure_at = now;
                if self.consecutive_failures >= threshold.get() {
                    let since = self.outage.as_ref().map_or(now, |outage| outage.since);
                    let until = now.plus_nanos(self.config.cooldown_nanos);
                    self.outage = Some(Outage {
                        since,
                        until,
                        rejects_queued_jobs: until.nanos_since(since) > self.config.max_wait_nanos,
                        probe: None,
                    });
                }
            }
            RouteHealth::Overloaded if !is_counted => {}
            RouteHealth::Unreachable => {}
            RouteHealth::Healthy | RouteHealth::Overloaded => self.close(),
        }
    }

    fn close(&mut self) {
        self.consecutive_failures = 0;
        self.outage = None;
    }

    /// Records that a job has received a response head.
    pub(super) fn record_response_head(&mut self, id: usize) {
        if self.is_current_probe(id) {
            self.close();
        }
    }

    /// Records that a job has settled.
    pub(super) fn record_settle(&mut self, id: usize) {
        if self.is_current_probe(id)
            && let Some(outage) = &mut self.outage
        {
            (outage.probe, outage.until) = (None, Time::default());
        }
    }

    /// Records that the lane was evicted and added again. Fails if the eviction was too early.
    pub(super) fn record_eviction(&mut self, now: Time) -> Result<(), String> {
        if now.nanos_since(self.last_failure_at) < 2 * self.config.cooldown_nanos {
            return Err("a lane was evicted during an outage".into());
        }
        self.close();
        Ok(())
    }

    pub(super) fn is_closed_without_failures(&self) -> bool {
        self.consecutive_failures == 0
    }

    /// The instant at which the next job may start if nothing changes. `None` during a probe, and
    /// if queued jobs are rejected.
    pub(super) fn earliest_start(&self, now: Time) -> Option<Time> {
        match &self.outage {
            None => Some(now),
            Some(outage) if outage.probe.is_some() || self.is_rejecting(now) => None,
            Some(outage) => Some(now.max(outage.until)),
        }
    }

    /// The end of the cooldown. [`Time::default`] without an outage and during a probe.
    pub(super) fn open_until(&self, now: Time) -> Time {
        let outage = self.outage.as_ref();
        let open = outage.filter(|outage| outage.probe.is_none() && now < outage.until);
        open.map_or_else(Time::default, |outage| outage.until)
    }

    pub(super) fn is_rejecting(&self, now: Time) -> bool {
        self.outage.as_ref().is_some_and(|outage| {
            let refuses_start = outage.probe.is_some() || now < outage.until;
            refuses_start && outage.rejects_queued_jobs
        })
    }
}
