//! What a gate lets through, counted from outside.

use fastrand::Rng;

use super::super::{ConcurrencyBounds, GateLimits, GcraRate, Time};
use super::simulation::MS;

pub(super) fn some_limits(random: &mut Rng) -> GateLimits {
    let concurrency = [1, 2, 3, usize::MAX, usize::MAX, usize::MAX][random.usize(..6)];
    let pace = random.bool().then(|| {
        let emission_interval = random.u64(1..20_000) * 1_000;
        GcraRate {
            emission_interval,
            burst_tolerance: [0, 0, 2 * emission_interval, 10 * MS][random.usize(..4)],
        }
    });
    GateLimits {
        concurrency,
        rate: pace.filter(|_| random.bool()),
        ..GateLimits::UNLIMITED
    }
}

/// The same, and half of those with a concurrency learn it.
pub(super) fn that_may_learn(random: &mut Rng) -> GateLimits {
    let limits = some_limits(random);
    let learns = limits.concurrency < usize::MAX && random.bool();
    let least = random.usize(1..=limits.concurrency.min(3));
    let most = limits.concurrency.saturating_add(random.usize(..4));
    GateLimits {
        adaptive: learns.then_some(ConcurrencyBounds {
            min: least,
            max: most,
        }),
        ..limits
    }
}

/// What a gate let through, counted from outside.
pub(super) struct Meter {
    pub(super) limits: GateLimits,
    pub(super) in_flight: usize,
    pub(super) starts: Vec<Time>,
}

impl Meter {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            in_flight: 0,
            starts: Vec::new(),
        }
    }

    /// `learned` is what the concurrency is now, if it is one that learns.
    pub(super) fn enter(&mut self, now: Time, learned: usize) -> Result<(), String> {
        self.in_flight += 1;
        self.starts.push(now);
        let most = match self.limits.adaptive {
            Some(bounds) => learned.clamp(bounds.min, bounds.max),
            None => self.limits.concurrency,
        };
        if self.in_flight > most {
            return Err(format!(
                "{} at once, {most} of {:?}",
                self.in_flight, self.limits
            ));
        }
        Ok(())
    }
}

impl Meter {
    pub(super) fn check(&self) -> Result<(), String> {
        let kept = |pace| check_rate(&self.starts, pace, 2 * MS);
        self.limits.rate.map_or(Ok(()), kept)
    }

    /// From now on others hold. Those in flight are still there.
    pub(super) fn change(&mut self, limits: GateLimits) -> Result<(), String> {
        self.check()?;
        self.starts.clear();
        self.limits = limits;
        Ok(())
    }
}

/// No window of `starts` holds more than burst + rate × (its length + `slack`).
pub(super) fn check_rate(starts: &[Time], rate: GcraRate, slack: u64) -> Result<(), String> {
    let burst = rate.burst_tolerance as f64 / rate.emission_interval as f64 + 1.0;
    // Each start is worth an emission_interval. The most over the pace that any window has been is the largest rise of the
    // difference since its lowest point, so one pass sees all the windows.
    let mut lowest = i128::MAX;
    for (count, at) in starts.iter().enumerate() {
        let ahead = count as i128 * i128::from(rate.emission_interval) - i128::from(at.as_nanos());
        lowest = lowest.min(ahead);
        let most = i128::from(rate.burst_tolerance) + i128::from(slack);
        if ahead - lowest > most {
            return Err(format!(
                "start {count} at {at:?} is over the rate: more than {burst:.1} + pace in a window"
            ));
        }
    }
    Ok(())
}
