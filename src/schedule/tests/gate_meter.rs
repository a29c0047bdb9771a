//! Random limits, and a meter that checks the limits of a gate by counting starts and ends.

use fastrand::Rng;

use super::super::{ConcurrencyBounds, GateLimits, GcraRate, Time};
use super::simulation::MS;

/// Returns random fixed limits: a concurrency limit, a rate limit, both or neither.
pub(super) fn random_limits(random: &mut Rng) -> GateLimits {
    let concurrency = [1, 2, 3, usize::MAX, usize::MAX, usize::MAX][random.usize(..6)];
    let rate = random.bool().then(|| {
        let emission_interval_nanos = random.u64(1..20_000) * 1_000;
        GcraRate {
            emission_interval_nanos,
            burst_tolerance_nanos: [0, 0, 2 * emission_interval_nanos, 10 * MS][random.usize(..4)],
        }
    });
    GateLimits {
        concurrency,
        rate: rate.filter(|_| random.bool()),
        ..GateLimits::UNLIMITED
    }
}

/// Returns random limits: a fixed or adaptive concurrency limit, a rate limit, both or neither.
pub(super) fn random_adaptive_limits(random: &mut Rng) -> GateLimits {
    let limits = random_limits(random);
    let is_adaptive = limits.concurrency < usize::MAX && random.bool();
    let min = random.usize(1..=limits.concurrency.min(3));
    let max = limits.concurrency.saturating_add(random.usize(..4));
    GateLimits {
        adaptive_bounds: is_adaptive.then_some(ConcurrencyBounds {
            min_limit: min,
            max_limit: max,
        }),
        ..limits
    }
}

/// Checks the limits of a gate without using the gate.
pub(super) struct GateMeter {
    pub(super) limits: GateLimits,
    pub(super) in_flight: usize,
    pub(super) starts: Vec<Time>,
}

impl GateMeter {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            in_flight: 0,
            starts: Vec::new(),
        }
    }

    /// Records a start. If the concurrency limit is adaptive, `adapted` is the current limit.
    pub(super) fn record_start(&mut self, now: Time, adapted: usize) -> Result<(), String> {
        self.in_flight += 1;
        self.starts.push(now);
        let limit = match self.limits.adaptive_bounds {
            Some(bounds) => adapted.clamp(bounds.min_limit, bounds.max_limit),
            None => self.limits.concurrency,
        };
        if self.in_flight > limit {
            return Err(format!(
                "{} in flight, {limit} allowed by {:?}",
                self.in_flight, self.limits
            ));
        }
        Ok(())
    }

    /// Checks the rate of all starts so far.
    pub(super) fn check_rate(&self) -> Result<(), String> {
        let made_up_delay = |rate: GcraRate| (2 * rate.emission_interval_nanos).max(2 * MS);
        let check = |rate| check_rate(&self.starts, rate, made_up_delay(rate));
        self.limits.rate.map_or(Ok(()), check)
    }

    /// Checks that no request is in flight, and the rate of all starts.
    pub(super) fn check_ended(&self) -> Result<(), String> {
        if self.in_flight > 0 {
            return Err(format!("{} in flight after the end", self.in_flight));
        }
        self.check_rate()
    }

    /// Checks the old limits, and sets new limits. Requests in flight stay.
    pub(super) fn change_limits(&mut self, limits: GateLimits) -> Result<(), String> {
        self.check_rate()?;
        self.starts.clear();
        self.limits = limits;
        Ok(())
    }
}

/// Checks that no window of `starts` has more than `burst + rate × (length + slack)` starts.
pub(super) fn check_rate(starts: &[Time], rate: GcraRate, slack: u64) -> Result<(), String> {
    let burst = rate.burst_tolerance_nanos as f64 / rate.emission_interval_nanos as f64 + 1.0;
    // Each start moves a nominal time ahead by one interval. The lead is the nominal time minus the
    // actual time. A window has too many starts if the lead rises too much between its ends, so one
    // pass that compares each lead with the lowest lead so far checks all windows.
    let mut lowest_lead = i128::MAX;
    for (count, at) in starts.iter().enumerate() {
        let lead =
            count as i128 * i128::from(rate.emission_interval_nanos) - i128::from(at.as_nanos());
        lowest_lead = lowest_lead.min(lead);
        let max_rise = i128::from(rate.burst_tolerance_nanos) + i128::from(slack);
        if lead - lowest_lead > max_rise {
            return Err(format!(
                "start {count} at {at:?} exceeds the rate with a burst of {burst:.1}"
            ));
        }
    }
    Ok(())
}
