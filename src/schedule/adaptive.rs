//! Learns how many concurrent requests a host can use.
//!
//! The limit changes only between **rounds**. A round lasts for as many exchanges (one request and
//! its response) as the limit, but for at least [`MIN_EXCHANGES_PER_ROUND`]. All exchanges of a
//! round start under the same limit. The effect of a change is thus measured before the next
//! change, and an overload causes only one decrease.
//!
//! - After a good round, with few failures and normal latency, a fully used limit grows. It doubles
//!   until the first setback, which lowers it (slow start, RFC 5681). The limit at which a setback
//!   occurs is the **ceiling**. From then on, each increase covers half of the distance to the
//!   ceiling (compare CUBIC, RFC 9438). The limit exceeds the ceiling only after some rounds below
//!   it.
//! - After a round with too many failures, the limit returns to the last good limit. If the current
//!   limit is the last good limit, the limit falls to three quarters (multiplicative decrease, RFC
//!   5681).
//! - After a round whose mean latency exceeds 1.5 times the baseline, a **trial** measures one
//!   round at half the limit. By Little's law, throughput is concurrency divided by latency. If the
//!   trial has the same throughput, half of the requests only queued at the server, and the limit
//!   stays at half. If the trial has the same latency, the limit does not cause the latency, and
//!   the full limit is restored. Each trial also measures the baseline again, so a host that has
//!   become slower is not throttled forever.

use super::health::{RouteHealth, RouteObservation};
use super::time::Time;

/// The minimum number of exchanges in a round. Fewer exchanges give no meaningful mean latency.
const MIN_EXCHANGES_PER_ROUND: usize = 16;
/// One failure per this number of exchanges is tolerated, and at least one failure per round. A
/// host may have failures that do not depend on the load.
const EXCHANGES_PER_TOLERATED_FAILURE: usize = 16;
/// The number of rounds without growth after the first setback.
const INITIAL_ROUNDS_TO_WAIT_AFTER_SETBACK: u32 = 2;
/// The maximum number of rounds without growth after a setback. Repeated setbacks double the number
/// up to this maximum.
const MAX_ROUNDS_TO_WAIT_AFTER_SETBACK: u32 = 16;
/// The time for which the learned limit of an idle host is kept, in nanoseconds.
const LEARNED_LIMIT_RETENTION_NANOS: u64 = 60_000_000_000;

/// The bounds of an adaptive limit, in requests in flight.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct ConcurrencyBounds {
    pub(crate) min_limit: usize,
    pub(crate) max_limit: usize,
}

#[derive(Clone, Debug)]
pub(super) struct AdaptiveConcurrencyLimit {
    limit_bounds: ConcurrencyBounds,
    current_limit: usize,
    /// The limit of the last round with few failures and normal latency.
    last_good_limit: usize,
    /// The limit at which the last setback occurred, minus one. `None` before the first setback,
    /// and after the limit has exceeded the ceiling.
    ceiling_after_setback: Option<usize>,
    /// The next increase of the limit while there is no ceiling. Each increase doubles this value.
    next_limit_increase: usize,
    rounds_since_setback: u32,
    /// The number of rounds that must pass after a setback before the limit may exceed the ceiling,
    /// and before a trial may start.
    rounds_to_wait_after_setback: u32,
    /// The mean latency of requests that do not queue at the host.
    baseline_latency_nanos: u64,
    half_limit_trial: Option<HalfLimitTrial>,
    current_round: MeasurementRound,
    /// The instant at which the learned limit becomes out of date.
    learned_limit_expires_at: Time,
}

/// The limit and the mean latency of the round before a trial. The trial is a round at half that
/// limit.
#[derive(Copy, Clone, Debug)]
struct HalfLimitTrial {
    limit_before_trial: usize,
    mean_latency_nanos_before_trial: u64,
}

#[derive(Copy, Clone, Debug, Default)]
struct MeasurementRound {
    /// The sequence number of the first exchange of the round. Exchanges with lower numbers belong
    /// to earlier rounds.
    first_start_seq: u64,
    success_count: usize,
    failure_count: usize,
    /// The number of successful exchanges at whose end the limit was fully used.
    success_count_at_full_limit: usize,
    latency_sum_nanos: u64,
    latency_sample_count: u64,
}

impl AdaptiveConcurrencyLimit {
    pub(super) fn new(limit: usize, limit_bounds: ConcurrencyBounds) -> Self {
        Self {
            limit_bounds,
            current_limit: limit,
            last_good_limit: limit,
            ceiling_after_setback: None,
            next_limit_increase: limit,
            rounds_since_setback: INITIAL_ROUNDS_TO_WAIT_AFTER_SETBACK,
            rounds_to_wait_after_setback: INITIAL_ROUNDS_TO_WAIT_AFTER_SETBACK,
            baseline_latency_nanos: u64::MAX,
            half_limit_trial: None,
            current_round: MeasurementRound::default(),
            learned_limit_expires_at: Time::default(),
        }
    }

    /// Records the outcome of an exchange, and returns the new limit. `start_seq` is the sequence
    /// number of the exchange, and `start_count` is the number of exchanges started so far.
    /// `is_saturated` tells whether the limit is fully used.
    pub(super) fn record_exchange_outcome(
        &mut self,
        observation: &RouteObservation,
        start_seq: u64,
        start_count: u64,
        is_saturated: bool,
        now: Time,
    ) -> usize {
        let round = &mut self.current_round;
        if start_seq < round.first_start_seq {
            return self.current_limit;
        }
        if observation.health == RouteHealth::Healthy {
            round.success_count += 1;
            round.success_count_at_full_limit += usize::from(is_saturated);
            let latency = observation.response_head_latency_nanos.unwrap_or(0);
            round.latency_sum_nanos = round.latency_sum_nanos.saturating_add(latency);
            round.latency_sample_count +=
                u64::from(observation.response_head_latency_nanos.is_some());
        } else {
            round.failure_count += 1;
        }
        let length = self.current_limit.max(MIN_EXCHANGES_PER_ROUND);
        let is_overloaded = round.failure_count > (length / EXCHANGES_PER_TOLERATED_FAILURE).max(1);
        if is_overloaded || round.success_count + round.failure_count >= length {
            let round = std::mem::take(round);
            self.current_round.first_start_seq = start_count + 1;
            self.learned_limit_expires_at = now.plus_nanos(LEARNED_LIMIT_RETENTION_NANOS);
            if is_overloaded {
                self.decrease_limit_after_many_failures();
            } else {
                self.adapt_limit_to_latency(round);
            }
        }
        self.current_limit
    }

    /// Whether the learned limit is out of date.
    pub(super) fn has_learned_limit_expired(&self, now: Time) -> bool {
        self.learned_limit_expires_at <= now
    }

    /// Lowers the limit after a round with too many failures.
    fn decrease_limit_after_many_failures(&mut self) {
        let limit = self.current_limit;
        self.rounds_since_setback = 0;
        if self.last_good_limit < limit {
            if self.ceiling_after_setback.is_none() {
                self.restart_and_double_wait_after_setback();
            }
            self.current_limit = self.last_good_limit;
        } else {
            self.rounds_to_wait_after_setback = INITIAL_ROUNDS_TO_WAIT_AFTER_SETBACK;
            self.current_limit = (limit - limit.div_ceil(4)).max(self.limit_bounds.min_limit);
        }
        self.last_good_limit = self.current_limit;
        self.ceiling_after_setback = Some((limit - 1).max(self.limit_bounds.min_limit));
        self.half_limit_trial = None;
    }

    fn restart_and_double_wait_after_setback(&mut self) {
        self.rounds_since_setback = 0;
        self.rounds_to_wait_after_setback =
            (self.rounds_to_wait_after_setback * 2).min(MAX_ROUNDS_TO_WAIT_AFTER_SETBACK);
    }

    /// Adapts the limit after a round with few failures: raises the limit, starts a trial, or ends
    /// a trial.
    fn adapt_limit_to_latency(&mut self, round: MeasurementRound) {
        self.rounds_since_setback = self.rounds_since_setback.saturating_add(1);
        let latency = round
            .latency_sum_nanos
            .checked_div(round.latency_sample_count)
            .unwrap_or(self.baseline_latency_nanos);
        if let Some(trial) = self.half_limit_trial.take() {
            return self.set_limit_after_trial(trial, latency);
        }
        self.baseline_latency_nanos = self.baseline_latency_nanos.min(latency);
        if round.success_count_at_full_limit <= round.success_count / 2 {
            return;
        }
        if latency <= one_and_a_half_times(self.baseline_latency_nanos) {
            self.last_good_limit = self.current_limit;
            self.increase_limit_unless_at_ceiling();
        } else if self.rounds_since_setback >= self.rounds_to_wait_after_setback {
            self.start_trial_at_half_limit(latency);
        }
    }

    fn increase_limit_unless_at_ceiling(&mut self) {
        let step = match self.ceiling_after_setback {
            Some(ceiling) if self.current_limit < ceiling => {
                (ceiling - self.current_limit).div_ceil(2)
            }
            Some(_) if self.rounds_since_setback < self.rounds_to_wait_after_setback => 0,
            Some(_) => {
                self.ceiling_after_setback = None;
                self.next_limit_increase = 2;
                1
            }
            None => {
                let step = self.next_limit_increase;
                self.next_limit_increase = step.saturating_mul(2);
                step
            }
        };
        self.current_limit = self
            .current_limit
            .saturating_add(step)
            .min(self.limit_bounds.max_limit);
    }

    /// Starts a trial at half the current limit, unless half is below the minimum.
    fn start_trial_at_half_limit(&mut self, mean_latency_nanos_before_trial: u64) {
        let half = self.current_limit.div_ceil(2);
        if (self.limit_bounds.min_limit..self.current_limit).contains(&half) {
            self.half_limit_trial = Some(HalfLimitTrial {
                limit_before_trial: self.current_limit,
                mean_latency_nanos_before_trial,
            });
            self.current_limit = half;
        }
    }

    /// Sets the limit according to the result of a trial.
    fn set_limit_after_trial(&mut self, trial: HalfLimitTrial, mean_latency_nanos_of_trial: u64) {
        let HalfLimitTrial {
            limit_before_trial,
            mean_latency_nanos_before_trial,
        } = trial;
        self.baseline_latency_nanos = mean_latency_nanos_of_trial;
        self.restart_and_double_wait_after_setback();
        let half = self.current_limit;
        // By Little's law, throughput is limit / latency. The condition holds if half the limit has
        // at least 95 % of the throughput of the full limit.
        let product = |limit: usize, latency: u64| limit as u128 * u128::from(latency);
        if product(half, mean_latency_nanos_before_trial) * 20
            >= product(limit_before_trial, mean_latency_nanos_of_trial) * 19
        {
            self.ceiling_after_setback = Some(half);
            self.last_good_limit = half;
            // The next trial halves the limit again.
            self.start_trial_at_half_limit(mean_latency_nanos_of_trial);
            return;
        }
        self.current_limit = limit_before_trial;
        let acceptable = one_and_a_half_times(mean_latency_nanos_of_trial);
        if mean_latency_nanos_before_trial > acceptable {
            // If latency is proportional to the limit, this limit has the acceptable latency.
            let proportional = product(limit_before_trial, acceptable)
                / u128::from(mean_latency_nanos_before_trial);
            self.current_limit = half.max(proportional as usize);
            self.ceiling_after_setback = Some(self.current_limit);
        }
        self.last_good_limit = self.current_limit;
    }
}

fn one_and_a_half_times(latency: u64) -> u64 {
    latency.saturating_add(latency / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: RouteObservation = RouteObservation {
        health: RouteHealth::Healthy,
        response_head_latency_nanos: Some(50_000_000),
    };
    const OVERLOADED: RouteObservation = RouteObservation {
        health: RouteHealth::Overloaded,
        response_head_latency_nanos: None,
    };

    fn adaptive(limit: usize) -> AdaptiveConcurrencyLimit {
        AdaptiveConcurrencyLimit::new(
            limit,
            ConcurrencyBounds {
                min_limit: 1,
                max_limit: 1_000,
            },
        )
    }

    /// Runs `N` fully used rounds in which each exchange has the outcome `observation`. Returns the
    /// limit after each round.
    fn rounds<const N: usize>(
        limit: &mut AdaptiveConcurrencyLimit,
        observation: RouteObservation,
    ) -> [usize; N] {
        std::array::from_fn(|_| {
            let first_start_seq = limit.current_round.first_start_seq;
            let mut start_seq = first_start_seq;
            while limit.current_round.first_start_seq == first_start_seq {
                start_seq += 1;
                limit.record_exchange_outcome(
                    &observation,
                    start_seq,
                    start_seq,
                    true,
                    Time::default(),
                );
            }
            limit.current_limit
        })
    }

    #[test]
    fn limit_doubles_until_the_first_setback_and_then_approaches_it() {
        let mut limit = adaptive(16);
        assert_eq!(rounds(&mut limit, HEALTHY), [32, 64, 128]);
        assert_eq!(rounds(&mut limit, OVERLOADED), [64], "the last good one");
        assert_eq!(rounds(&mut limit, HEALTHY), [96, 112, 120, 124]);
    }

    #[test]
    fn good_limit_that_becomes_too_high_falls_to_three_quarters() {
        let mut limit = adaptive(64);
        assert_eq!(rounds(&mut limit, OVERLOADED), [48, 36, 27]);
    }

    #[test]
    fn limit_that_is_not_in_use_does_not_grow() {
        let mut limit = adaptive(16);
        for start_seq in 1..100 {
            limit.record_exchange_outcome(&HEALTHY, start_seq, start_seq, false, Time::default());
        }
        assert_eq!(limit.current_limit, 16);
    }

    #[test]
    fn trial_halves_a_limit_that_only_adds_latency() {
        let with_latency = |nanos| RouteObservation {
            response_head_latency_nanos: Some(nanos),
            ..HEALTHY
        };
        let mut limit = adaptive(16);
        assert_eq!(rounds(&mut limit, with_latency(100)), [32]);
        // Twice the concurrency at twice the latency is the same throughput.
        assert_eq!(rounds(&mut limit, with_latency(200)), [16], "the trial");
        assert_eq!(rounds(&mut limit, with_latency(100)), [8], "the next trial");
        // Half the concurrency at the same latency is half the throughput.
        assert_eq!(rounds(&mut limit, with_latency(100)), [16]);
    }
}
