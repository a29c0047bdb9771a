//! The generic cell rate algorithm (GCRA, ITU-T Recommendation I.371) for requests of different
//! costs.
//!
//! The state is one instant, the *theoretical arrival time* (TAT). A cost of `n` units moves the
//! TAT ahead by the time in which `n` units are refilled, and a cost may be charged while the TAT
//! stays at most the refill time of the capacity ahead of the clock. The level, which is the number
//! of units that may be charged now, is thus the capacity minus the lead of the TAT.
//!
//! A cost that is charged without a check, for example because an estimate was too low, takes the
//! level below zero. Such a debt is paid off before anything else is granted.
//!
//! A refund counts from the instant of its settlement, not from that of its charge. In a window of
//! any length, the granted costs are at most the capacity, plus the units that are refilled in the
//! window, plus the units that are refunded in it.
//!
//! A rate of starts is the special case in which each start costs one unit. It has a [limiter of
//! its own](super::gate), which makes up for late starts. A budget does not: a level that is not
//! used at once is kept up to the capacity.
//!
//! The TAT is kept in nanoseconds × units per period. A unit then is exactly one period, so no
//! charge is rounded and a refund restores the state exactly.

use std::num::NonZeroU64;

use super::time::Time;

/// The rate at which a budget is refilled, and its largest level.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct BudgetRate {
    /// The number of units that are refilled in one period.
    pub(crate) units: NonZeroU64,
    pub(crate) period_nanos: NonZeroU64,
    /// The largest level, in units.
    pub(crate) capacity: u64,
}

/// The level of one budget.
#[derive(Clone, Debug)]
pub(super) struct Gcra {
    rate: BudgetRate,
    /// The theoretical arrival time, in nanoseconds × units per period.
    tat: u128,
    /// The latest instant at which the state has changed.
    clock: Time,
}

impl Gcra {
    /// Returns a full budget.
    pub(super) fn new(rate: BudgetRate) -> Self {
        Self {
            rate,
            tat: 0,
            clock: Time::default(),
        }
    }

    pub(super) fn rate(&self) -> BudgetRate {
        self.rate
    }

    /// The instant from which `cost` units may be charged; `now` or earlier if they may be charged
    /// now. `cost` is at most the capacity.
    pub(super) fn earliest_charge(&self, now: Time, cost: u64) -> Time {
        let lead = self.lead(now).saturating_add(self.scaled_cost(cost));
        let excess = lead.saturating_sub(self.max_lead());
        if excess == 0 {
            return now;
        }
        let units = self.rate.units.get();
        now.plus_nanos(match u64::try_from(excess) {
            // A division of 64 bits is several times faster.
            Ok(excess) => excess.div_ceil(units),
            Err(_) => u64::try_from(excess.div_ceil(units.into())).unwrap_or(u64::MAX),
        })
    }

    /// Charges `cost` units, even if the level is lower.
    pub(super) fn charge(&mut self, now: Time, cost: u64) {
        self.follow_clock(now);
        let earliest = self.scaled_time(now);
        self.tat = self
            .tat
            .max(earliest)
            .saturating_add(self.scaled_cost(cost));
    }

    /// Gives back `units` that were charged before.
    pub(super) fn refund(&mut self, units: u64) {
        self.tat = self.tat.saturating_sub(self.scaled_cost(units));
    }

    /// Lowers the level to `level` if it is higher.
    pub(super) fn lower_level_to(&mut self, now: Time, level: u64) {
        self.follow_clock(now);
        let lead = self.max_lead().saturating_sub(self.scaled_cost(level));
        self.tat = self.tat.max(self.scaled_time(now).saturating_add(lead));
    }

    /// The number of units that may be charged now, rounded down. Negative if the budget is in
    /// debt.
    pub(super) fn level(&self, now: Time) -> i64 {
        let (lead, max_lead) = (self.lead(now), self.max_lead());
        let period = u128::from(self.rate.period_nanos.get());
        let units = |scaled: u128| i64::try_from(scaled).unwrap_or(i64::MAX);
        if lead <= max_lead {
            units((max_lead - lead) / period)
        } else {
            -units((lead - max_lead).div_ceil(period))
        }
    }

    /// Whether the level is the capacity.
    pub(super) fn is_full(&self, now: Time) -> bool {
        self.lead(now) == 0
    }

    /// The distance of the TAT ahead of the clock.
    fn lead(&self, now: Time) -> u128 {
        self.tat
            .saturating_sub(self.scaled_time(now.max(self.clock)))
    }

    /// The largest lead at which a charge is granted.
    fn max_lead(&self) -> u128 {
        self.scaled_cost(self.rate.capacity)
    }

    fn scaled_cost(&self, units: u64) -> u128 {
        u128::from(units) * u128::from(self.rate.period_nanos.get())
    }

    fn scaled_time(&self, at: Time) -> u128 {
        u128::from(at.as_nanos()) * u128::from(self.rate.units.get())
    }

    /// Keeps the level if the clock went back, for example because another runtime's paused test
    /// clock was advanced.
    fn follow_clock(&mut self, now: Time) {
        if now < self.clock {
            let lead = self.lead(now);
            self.tat = self.scaled_time(now).saturating_add(lead);
        }
        self.clock = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn gcra(units: u64, period: u64, capacity: u64) -> Gcra {
        Gcra::new(BudgetRate {
            units: NonZeroU64::new(units).unwrap(),
            period_nanos: NonZeroU64::new(period).unwrap(),
            capacity,
        })
    }

    #[test]
    fn charge_is_granted_once_the_level_covers_the_cost() {
        let mut gcra = gcra(100, SECOND, 50);
        assert_eq!((gcra.level(at_ms(0)), gcra.is_full(at_ms(0))), (50, true));
        assert_eq!(gcra.earliest_charge(at_ms(0), 50), at_ms(0));
        gcra.charge(at_ms(0), 50);
        assert_eq!((gcra.level(at_ms(0)), gcra.is_full(at_ms(0))), (0, false));
        assert_eq!(gcra.earliest_charge(at_ms(0), 1), at_ms(10));
        assert_eq!(gcra.earliest_charge(at_ms(5), 20), at_ms(200));
        gcra.charge(at_ms(200), 20);
        assert_eq!(gcra.level(at_ms(200)), 0);
        assert_eq!(gcra.level(at_ms(5_000)), 50, "the capacity is the maximum");
    }

    #[test]
    fn debt_is_paid_off_before_the_next_charge() {
        let mut gcra = gcra(100, SECOND, 50);
        gcra.charge(at_ms(0), 250);
        assert_eq!(gcra.level(at_ms(0)), -200);
        assert_eq!(gcra.earliest_charge(at_ms(0), 1), at_ms(2_010));
        assert_eq!(gcra.level(at_ms(1_999)), -1, "rounded down");
        assert_eq!(gcra.level(at_ms(2_000)), 0);
    }

    #[test]
    fn refund_restores_the_level_up_to_the_capacity() {
        let mut gcra = gcra(7, SECOND, 10);
        gcra.charge(at_ms(0), 10);
        gcra.refund(4);
        assert_eq!(gcra.level(at_ms(0)), 4);
        gcra.charge(at_ms(0), 4);
        gcra.refund(10);
        assert!(gcra.is_full(at_ms(0)), "no unit is lost to rounding");
        gcra.refund(10);
        assert_eq!(gcra.level(at_ms(0)), 10);
        gcra.charge(at_ms(9_000), 10);
        assert_eq!(
            gcra.level(at_ms(9_000)),
            0,
            "a refund saves nothing beyond the capacity"
        );
    }

    #[test]
    fn level_is_lowered_but_never_raised() {
        let mut gcra = gcra(100, SECOND, 50);
        gcra.lower_level_to(at_ms(0), 80);
        assert_eq!(gcra.level(at_ms(0)), 50);
        gcra.lower_level_to(at_ms(0), 20);
        assert_eq!(gcra.level(at_ms(0)), 20);
        gcra.lower_level_to(at_ms(0), 30);
        assert_eq!(gcra.level(at_ms(0)), 20);
        gcra.lower_level_to(at_ms(100), 0);
        assert_eq!(gcra.level(at_ms(100)), 0);
        assert_eq!(gcra.earliest_charge(at_ms(100), 1), at_ms(110));
    }

    #[test]
    fn clock_that_goes_back_keeps_the_level() {
        let mut gcra = gcra(100, SECOND, 50);
        gcra.charge(at_ms(60_000), 50);
        assert_eq!(gcra.level(at_ms(0)), 0);
        assert_eq!(gcra.earliest_charge(at_ms(0), 10), at_ms(100));
        gcra.charge(at_ms(0), 10);
        assert_eq!(gcra.level(at_ms(0)), -10);
        assert_eq!(gcra.level(at_ms(200)), 10);
    }

    #[test]
    fn no_nanosecond_is_lost_at_rates_that_do_not_divide_the_period() {
        let mut gcra = gcra(7, SECOND, 1);
        let mut now = at_ms(0);
        for _ in 0..7_000 {
            now = gcra.earliest_charge(now, 1);
            gcra.charge(now, 1);
        }
        // The bucket is full at first, so the last of 7,000 units is granted after 6,999/7 seconds.
        let seconds = now.as_nanos().div_ceil(SECOND);
        assert_eq!(seconds, 1_000);
        assert!(now.as_nanos() < 6_999 * SECOND / 7 + 7_000);
    }

    #[test]
    fn extreme_values_saturate() {
        let mut gcra = gcra(u64::MAX, u64::MAX, u64::MAX);
        gcra.charge(Time::from_nanos(u64::MAX / 2), u64::MAX);
        gcra.charge(Time::from_nanos(u64::MAX / 2), u64::MAX);
        gcra.refund(u64::MAX);
        assert!(gcra.level(Time::MAX) >= 0);
        assert!(gcra.earliest_charge(Time::default(), u64::MAX) >= Time::default());
    }
}
