//! A gate decides whether a request may start now.
//!
//! Each batch, each lane (usually a host), each batch's share of a lane, and the schedule itself
//! have a gate. A gate combines independent conditions. Each condition is a small state machine in
//! its own file:
//!
//! | condition | refuses a start |
//! |---|---|
//! | [`ConcurrencyLimit`] | while as many requests are in flight as the limit |
//! | [`GateHolds`] | until all holds are removed |
//! | [`Pause`] | until an instant |
//! | [`ServerLimit`] | beyond the rate limit that the host announced |
//! | [`RateLimiter`] | beyond a configured rate |
//!
//! Every gate has all conditions, but only the gate of a lane uses the [`ServerLimit`].

mod hold;
mod pause;
mod rate;
mod server_limit;

use super::adaptive::ConcurrencyBounds;
use super::admission::Admission;
use super::block_reason::BlockReason;
use super::concurrency::ConcurrencyLimit;
use super::time::Time;
use hold::GateHolds;
use pause::Pause;
pub(crate) use rate::GcraRate;
use rate::RateLimiter;
pub(crate) use server_limit::RateLimitAnnouncement;
use server_limit::ServerLimit;

/// The limits of one gate, and the adaptive limits of its routes (a route leads to a host, directly
/// or through one proxy).
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GateLimits {
    /// The maximum number of requests in flight. For an adaptive limit, its initial value.
    pub(crate) concurrency: usize,
    /// The bounds of the adaptive concurrency limit. Each route learns its own limit. `None`: the
    /// limit is fixed.
    pub(crate) adaptive_bounds: Option<ConcurrencyBounds>,
    /// The maximum rate of starts. `None`: unlimited.
    pub(crate) rate: Option<GcraRate>,
}

impl GateLimits {
    pub(crate) const UNLIMITED: Self = Self {
        concurrency: usize::MAX,
        adaptive_bounds: None,
        rate: None,
    };

    /// Returns the fixed limit, or the maximum of the adaptive limit.
    fn largest_concurrency(self) -> usize {
        self.adaptive_bounds
            .map_or(self.concurrency, |bounds| bounds.max_limit)
    }

    /// Returns the adaptive limit. If the limit is fixed, returns an unlimited one, because the
    /// gate enforces a fixed limit.
    pub(super) fn adaptive_limit_or_unlimited(self) -> ConcurrencyLimit {
        match self.adaptive_bounds {
            Some(bounds) => ConcurrencyLimit::new(self.concurrency, Some(bounds)),
            None => ConcurrencyLimit::new(usize::MAX, None),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Gate {
    concurrency_limit: ConcurrencyLimit,
    holds: GateHolds,
    current_pause: Pause,
    /// The rate limit that the host announced. Boxed, because most hosts announce none.
    server_limit: Option<Box<ServerLimit>>,
    rate_limiter: RateLimiter,
}

impl Gate {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            concurrency_limit: ConcurrencyLimit::new(limits.largest_concurrency(), None),
            holds: GateHolds::default(),
            current_pause: Pause::default(),
            server_limit: None,
            rate_limiter: RateLimiter::new(limits.rate),
        }
    }

    /// Checks whether a request may start now.
    pub(super) fn check_admission(&mut self, now: Time) -> Admission {
        if self.is_limit_reached() {
            return Admission::RefusedUntilEvent;
        }
        let admission = self.check_hold_pause_and_server_limit(now);
        if admission != Admission::Granted {
            // If another condition delays a start, later starts must not make up for the delay.
            self.rate_limiter.discard_delay_to_make_up_for();
            return admission;
        }
        self.rate_limiter.check_admission(now)
    }

    fn check_hold_pause_and_server_limit(&self, now: Time) -> Admission {
        if self.has_holds() {
            return Admission::RefusedUntilEvent;
        }
        match self.current_pause.check_admission(now) {
            Admission::Granted => {}
            refusal => return refusal,
        }
        self.server_limit
            .as_ref()
            .map_or(Admission::Granted, |server_limit| {
                server_limit.check_admission(now)
            })
    }

    /// Records a start that [`Self::check_admission`] has granted at `now`. `has_waiting_request`
    /// tells whether another request is ready to start.
    pub(super) fn record_start(&mut self, now: Time, has_waiting_request: bool) {
        self.concurrency_limit.record_start();
        if let Some(server_limit) = &mut self.server_limit {
            server_limit.record_start(now);
        }
        self.rate_limiter.record_start(now, has_waiting_request);
    }

    /// Returns one start to the configured rate. Called if the request of a recorded start is not
    /// going to be sent.
    pub(super) fn return_start(&mut self) {
        self.rate_limiter.return_start();
    }

    /// Lets later starts make up for the delay of a late timer. Called when a timer for the next
    /// start at the configured rate may have fired.
    pub(super) fn make_up_for_late_timer(&mut self, now: Time) {
        self.rate_limiter.make_up_for_late_timer(now);
    }

    /// Records the end of a request. Returns true if the gate may have opened.
    pub(super) fn record_end(&mut self) -> bool {
        self.concurrency_limit.record_end()
    }

    /// Applies a rate limit that the host announced. [`ServerLimit::apply_announcement`] explains
    /// the parameters.
    pub(super) fn apply_rate_limit_announcement(
        &mut self,
        announcement: RateLimitAnnouncement,
        start_count: u64,
        queued: u64,
        now: Time,
    ) {
        self.server_limit
            .get_or_insert_default()
            .apply_announcement(announcement, start_count, queued, now);
    }

    /// Lifts the server limit if the request with the sequence number `start_seq` has rechecked it:
    /// the request started after the reset, and its response announced no limit. Returns true if
    /// the limit was lifted.
    pub(super) fn lift_server_limit_if_rechecked_by(&mut self, start_seq: u64) -> bool {
        self.server_limit
            .as_mut()
            .is_some_and(|server_limit| server_limit.lift_limit_if_rechecked_by(start_seq))
    }

    /// Refuses starts before `until`. Never shortens a pause.
    pub(super) fn pause_until(&mut self, until: Time) {
        self.current_pause.extend_until(until);
    }

    /// Refuses starts until [`Self::remove_hold`] has been called once for each call of
    /// `add_hold`.
    pub(super) fn add_hold(&mut self) {
        self.holds.add_hold();
    }

    /// Refuses starts until [`Self::remove_name_lookup_hold`] has been called once for each call of
    /// `add_name_lookup_hold`.
    pub(super) fn add_name_lookup_hold(&mut self) {
        self.holds.add_name_lookup_hold();
    }

    /// Undoes one [`Self::add_name_lookup_hold`]. Returns true if the gate may have opened.
    pub(super) fn remove_name_lookup_hold(&mut self) -> bool {
        self.holds.remove_name_lookup_hold()
    }

    /// Undoes one call of [`Self::add_hold`]. Returns true if the gate may have opened.
    pub(super) fn remove_hold(&mut self) -> bool {
        self.holds.remove_hold()
    }

    pub(super) fn has_holds(&self) -> bool {
        self.holds.has_holds()
    }

    /// Changes the concurrency limit. If the limit falls, requests already in flight continue.
    pub(super) fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency_limit.set_max_in_flight(concurrency);
    }

    /// Changes the rate. Earlier starts count against the new rate, so there is no new burst.
    pub(super) fn set_rate(&mut self, rate: Option<GcraRate>) {
        self.rate_limiter.set_rate(rate);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.concurrency_limit.in_flight()
    }

    pub(super) fn is_limit_reached(&self) -> bool {
        self.concurrency_limit.is_limit_reached()
    }

    /// Returns the reason why the gate refuses a start, or `None` if the gate grants a start.
    pub(super) fn block_reason(&self, now: Time) -> Option<BlockReason> {
        if self.holds.has_only_name_lookup_holds() {
            return Some(BlockReason::Concurrency);
        }
        if self.has_holds() {
            return Some(BlockReason::LaneHeld);
        }
        if !self.current_pause.is_over(now) {
            return Some(BlockReason::Backoff);
        }
        if self.is_limit_reached() {
            return Some(BlockReason::Concurrency);
        }
        (self.is_refused_by_server_limit(now) || self.rate_limiter.refuses_start(now))
            .then_some(BlockReason::Rate)
    }

    /// Whether the rate limit that the host announced refuses a start.
    pub(super) fn is_refused_by_server_limit(&self, now: Time) -> bool {
        self.server_limit
            .as_deref()
            .is_some_and(|server_limit| server_limit.check_admission(now) != Admission::Granted)
    }

    /// Whether the gate may be removed: a new gate would grant the same starts, or the learned
    /// state is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let has_reset_passed = |server_limit: &ServerLimit| server_limit.has_reset_passed(now);
        self.concurrency_limit.is_evictable(now)
            && !self.has_holds()
            && self.rate_limiter.is_whole_burst_available(now)
            && self.current_pause.is_over(now)
            && self.server_limit.as_deref().is_none_or(has_reset_passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * MS)
    }

    fn gate() -> Gate {
        Gate::new(GateLimits {
            concurrency: 2,
            rate: Some(GcraRate {
                emission_interval_nanos: 100 * MS,
                burst_tolerance_nanos: 0,
            }),
            ..GateLimits::UNLIMITED
        })
    }

    #[track_caller]
    fn start(gate: &mut Gate, now: Time) {
        assert_eq!(gate.check_admission(now), Admission::Granted);
        assert_eq!(gate.block_reason(now), None);
        gate.record_start(now, false);
    }

    #[test]
    fn every_condition_must_grant_a_start() {
        let mut gate = gate();
        start(&mut gate, at_ms(0));
        assert_eq!(
            gate.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        assert_eq!(gate.block_reason(at_ms(0)), Some(BlockReason::Rate));
        gate.pause_until(at_ms(150));
        assert_eq!(
            gate.check_admission(at_ms(100)),
            Admission::RefusedUntil(at_ms(150))
        );
        assert_eq!(gate.block_reason(at_ms(100)), Some(BlockReason::Backoff));
        gate.add_hold();
        assert_eq!(
            gate.check_admission(at_ms(150)),
            Admission::RefusedUntilEvent
        );
        assert_eq!(gate.block_reason(at_ms(150)), Some(BlockReason::LaneHeld));
        assert!(gate.remove_hold());
        start(&mut gate, at_ms(150));
        assert_eq!(
            gate.check_admission(at_ms(500)),
            Admission::RefusedUntilEvent
        );
        let full = Some(BlockReason::Concurrency);
        assert_eq!(gate.block_reason(at_ms(500)), full);
        assert!(gate.record_end());
        start(&mut gate, at_ms(500));
    }

    #[test]
    fn rate_limiter_does_not_make_up_for_a_pause() {
        let mut gate = gate();
        start(&mut gate, at_ms(0));
        assert_eq!(
            gate.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        gate.pause_until(at_ms(101));
        assert_eq!(
            gate.check_admission(at_ms(100)),
            Admission::RefusedUntil(at_ms(101))
        );
        start(&mut gate, at_ms(101));
        gate.record_end();
        assert_eq!(
            gate.check_admission(at_ms(101)),
            Admission::RefusedUntil(at_ms(201))
        );
    }

    #[test]
    fn gate_is_evictable_once_its_state_equals_that_of_a_new_one() {
        let mut gate = gate();
        assert!(gate.is_evictable(at_ms(0)));
        start(&mut gate, at_ms(0));
        assert!(!gate.is_evictable(at_ms(500)), "a request is in flight");
        gate.record_end();
        assert!(!gate.is_evictable(at_ms(99)), "the rate is not replenished");
        assert!(gate.is_evictable(at_ms(100)));
        gate.add_hold();
        assert!(!gate.is_evictable(at_ms(100)));
        gate.remove_hold();
        gate.pause_until(at_ms(700));
        assert!(!gate.is_evictable(at_ms(699)) && gate.is_evictable(at_ms(700)));
    }

    #[test]
    fn server_limit_is_lifted_by_a_recheck_that_announces_none() {
        let mut gate = Gate::new(GateLimits::UNLIMITED);
        gate.record_start(at_ms(0), false);
        let announcement = RateLimitAnnouncement {
            remaining_requests: 0,
            nanos_until_reset: 50 * MS,
            announcing_start_seq: 1,
        };
        gate.apply_rate_limit_announcement(announcement, 1, 9, at_ms(0));
        assert_eq!(
            gate.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(50))
        );
        assert_eq!(gate.block_reason(at_ms(0)), Some(BlockReason::Rate));
        assert!(!gate.is_evictable(at_ms(49)));
        start(&mut gate, at_ms(50));
        assert!(!gate.lift_server_limit_if_rechecked_by(1));
        assert!(gate.lift_server_limit_if_rechecked_by(2));
        start(&mut gate, at_ms(51));
    }
}
