//! Learns how many concurrent requests a host can use.
//!
//! The limit changes between **rounds**. The length of a round, counted in exchanges (one request
//! and its response), equals the limit, but is at least [`MIN_EXCHANGES_PER_ROUND`]. All exchanges
//! of a round have started under that limit. The effect of a change is thus measured before the
//! next change, and an overload causes one decrease, no matter how many requests were in flight.
//!
//! - After a good round the limit grows. The limit doubles until the first setback (slow start, RFC
//!   5681). After a setback, each step goes half of the way to the limit at which the setback
//!   occurred (compare CUBIC, RFC 9438). The limit stays below that **ceiling** for some rounds,
//!   and then exceeds it to try higher limits again. A limit that is not fully used does not grow.
//! - After a round with too many failures the limit returns to the last good limit. If the current
//!   limit was good before, the limit falls to three quarters (multiplicative decrease, RFC 5681).
//! - After a round whose mean latency exceeds 1.5 times the baseline, a **trial** measures one
//!   round at half the limit. By Little's law, throughput is concurrency divided by latency. If the
//!   throughput at half the limit is the same, the other half of the requests only queued at the
//!   server, and half becomes the limit. If the latency at half the limit is the same, the host or
//!   the requests have become slower, and the limit is not the cause. Each trial also measures the
//!   baseline again, so a host that has become slower is not throttled forever.

use super::health::{RouteHealth, RouteObservation};
use super::time::Time;

/// The least number of exchanges in a round, so that their mean latency is meaningful.
const MIN_EXCHANGES_PER_ROUND: usize = 16;
/// The tolerated failures of a round are its length divided by this number, and at least one: a
/// host may have failures that do not depend on the load.
const TOLERATED_FAILURE_DIVISOR: usize = 16;
/// The number of rounds that the limit stays below the first ceiling before it exceeds the ceiling.
const INITIAL_ROUNDS_BELOW_CEILING: u32 = 2;
/// The largest number of rounds below a ceiling. Each setback above a ceiling doubles the number.
const MAX_ROUNDS_BELOW_CEILING: u32 = 16;
/// The time for which the learned limit of an idle host is kept, in nanoseconds.
const LEARNED_LIMIT_RETENTION: u64 = 60_000_000_000;

/// The bounds of an adaptive limit.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct ConcurrencyBounds {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

#[derive(Clone, Debug)]
pub(super) struct AdaptiveLimit {
    bounds: ConcurrencyBounds,
    current_limit: usize,
    /// The limit of the last round without an increased latency or too many failures.
    last_good_limit: usize,
    /// The limit at which the last setback occurred, minus one. `None` before the first setback and
    /// while higher limits are tried.
    ceiling: Option<usize>,
    /// The next increase of the limit while there is no ceiling. Doubles with each increase.
    growth_step: usize,
    rounds_since_setback: u32,
    /// The number of rounds without a setback that must pass before the limit exceeds a ceiling, or
    /// before a trial starts.
    rounds_below_ceiling: u32,
    /// The mean latency of a response while requests do not queue at the host, in nanoseconds.
    baseline_latency: u64,
    trial: Option<Trial>,
    current_round: Round,
    /// The instant from which the learned limit is out of date.
    expires_at: Time,
}

/// The limit and mean latency of the round before a trial. A trial is a round at half that limit.
#[derive(Copy, Clone, Debug)]
struct Trial {
    limit_before_trial: usize,
    latency_before_trial: u64,
}

#[derive(Copy, Clone, Debug, Default)]
struct Round {
    /// The start number of the round's first exchange. Exchanges with a lower number belong to
    /// earlier rounds.
    first_start_seq: u64,
    success_count: usize,
    failure_count: usize,
    /// The number of exchanges during which the whole limit was in use.
    saturated_count: usize,
    latency_sum: u64,
    latency_count: u64,
}

impl AdaptiveLimit {
    pub(super) fn new(limit: usize, bounds: ConcurrencyBounds) -> Self {
        Self {
            bounds,
            current_limit: limit,
            last_good_limit: limit,
            ceiling: None,
            growth_step: limit,
            rounds_since_setback: INITIAL_ROUNDS_BELOW_CEILING,
            rounds_below_ceiling: INITIAL_ROUNDS_BELOW_CEILING,
            baseline_latency: u64::MAX,
            trial: None,
            current_round: Round::default(),
            expires_at: Time::default(),
        }
    }

    /// Records the outcome of the exchange with start number `start_seq`, after `start_count`
    /// starts, and returns the new limit. `is_saturated` is true if as many requests as the limit
    /// are in flight.
    pub(super) fn record_observation(
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
            round.saturated_count += usize::from(is_saturated);
            let latency = observation.latency.unwrap_or(0);
            round.latency_sum = round.latency_sum.saturating_add(latency);
            round.latency_count += u64::from(observation.latency.is_some());
        } else {
            round.failure_count += 1;
        }
        let length = self.current_limit.max(MIN_EXCHANGES_PER_ROUND);
        let is_overloaded = round.failure_count > (length / TOLERATED_FAILURE_DIVISOR).max(1);
        if is_overloaded || round.success_count + round.failure_count >= length {
            let round = std::mem::take(round);
            self.current_round.first_start_seq = start_count + 1;
            self.expires_at = now.plus_nanos(LEARNED_LIMIT_RETENTION);
            if is_overloaded {
                self.decrease_limit_after_failures();
            } else {
                self.adapt_after_good_round(round);
            }
        }
        self.current_limit
    }

    /// Whether the learned limit is out of date.
    pub(super) fn is_stale(&self, now: Time) -> bool {
        self.expires_at <= now
    }

    /// Lowers the limit after a round with too many failures.
    fn decrease_limit_after_failures(&mut self) {
        let limit = self.current_limit;
        self.rounds_since_setback = 0;
        if self.last_good_limit < limit {
            if self.ceiling.is_none() {
                self.extend_rounds_below_ceiling();
            }
            self.current_limit = self.last_good_limit;
        } else {
            self.rounds_below_ceiling = INITIAL_ROUNDS_BELOW_CEILING;
            self.current_limit = (limit - limit.div_ceil(4)).max(self.bounds.min);
        }
        self.last_good_limit = self.current_limit;
        self.ceiling = Some((limit - 1).max(self.bounds.min));
        self.trial = None;
    }

    fn extend_rounds_below_ceiling(&mut self) {
        self.rounds_since_setback = 0;
        self.rounds_below_ceiling = (self.rounds_below_ceiling * 2).min(MAX_ROUNDS_BELOW_CEILING);
    }

    /// Raises the limit or starts or ends a trial, after a round without too many failures.
    fn adapt_after_good_round(&mut self, round: Round) {
        self.rounds_since_setback = self.rounds_since_setback.saturating_add(1);
        let latency = round
            .latency_sum
            .checked_div(round.latency_count)
            .unwrap_or(self.baseline_latency);
        if let Some(trial) = self.trial.take() {
            return self.judge_trial(trial, latency);
        }
        self.baseline_latency = self.baseline_latency.min(latency);
        if round.saturated_count <= round.success_count / 2 {
            return;
        }
        if latency <= one_and_a_half_times(self.baseline_latency) {
            self.last_good_limit = self.current_limit;
            self.increase_limit();
        } else if self.rounds_since_setback >= self.rounds_below_ceiling {
            self.start_trial(latency);
        }
    }

    fn increase_limit(&mut self) {
        let step = match self.ceiling {
            Some(ceiling) if self.current_limit < ceiling => {
                (ceiling - self.current_limit).div_ceil(2)
            }
            Some(_) if self.rounds_since_setback < self.rounds_below_ceiling => 0,
            Some(_) => {
                self.ceiling = None;
                self.growth_step = 2;
                1
            }
            None => {
                let step = self.growth_step;
                self.growth_step = step.saturating_mul(2);
                step
            }
        };
        self.current_limit = self.current_limit.saturating_add(step).min(self.bounds.max);
    }

    /// Starts a trial at half the limit, if the bounds permit that limit. `latency_before_trial` is
    /// the mean latency at the current limit.
    fn start_trial(&mut self, latency_before_trial: u64) {
        let half = self.current_limit.div_ceil(2);
        if (self.bounds.min..self.current_limit).contains(&half) {
            self.trial = Some(Trial {
                limit_before_trial: self.current_limit,
                latency_before_trial,
            });
            self.current_limit = half;
        }
    }

    /// Sets the limit after a trial round with a mean latency of `half_latency`.
    fn judge_trial(&mut self, trial: Trial, half_latency: u64) {
        let Trial {
            limit_before_trial,
            latency_before_trial,
        } = trial;
        self.baseline_latency = half_latency;
        self.extend_rounds_below_ceiling();
        let half = self.current_limit;
        // By Little's law, throughput is limit / latency. The condition is true if half the limit
        // has at least 95 % of the throughput of the full limit.
        let product = |limit: usize, latency: u64| limit as u128 * u128::from(latency);
        if product(half, latency_before_trial) * 20
            >= product(limit_before_trial, half_latency) * 19
        {
            self.ceiling = Some(half);
            self.last_good_limit = half;
            // A quarter of the full limit may suffice, too.
            self.start_trial(half_latency);
            return;
        }
        self.current_limit = limit_before_trial;
        let acceptable = one_and_a_half_times(half_latency);
        if latency_before_trial > acceptable {
            // If latency is proportional to the limit, this limit gives the acceptable latency.
            let proportional =
                product(limit_before_trial, acceptable) / u128::from(latency_before_trial);
            self.current_limit = half.max(proportional as usize);
            self.ceiling = Some(self.current_limit);
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
        latency: Some(50_000_000),
    };
    const OVERLOADED: RouteObservation = RouteObservation {
        health: RouteHealth::Overloaded,
        latency: None,
    };

    fn adaptive(limit: usize) -> AdaptiveLimit {
        AdaptiveLimit::new(limit, ConcurrencyBounds { min: 1, max: 1_000 })
    }

    /// Runs `N` fully used rounds in which each exchange has the outcome `observation`. Returns the
    /// limit after each round.
    fn rounds<const N: usize>(
        limit: &mut AdaptiveLimit,
        observation: RouteObservation,
    ) -> [usize; N] {
        std::array::from_fn(|_| {
            let first_start_seq = limit.current_round.first_start_seq;
            let mut start_seq = first_start_seq;
            while limit.current_round.first_start_seq == first_start_seq {
                start_seq += 1;
                limit.record_observation(&observation, start_seq, start_seq, true, Time::default());
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
            limit.record_observation(&HEALTHY, start_seq, start_seq, false, Time::default());
        }
        assert_eq!(limit.current_limit, 16);
    }

    #[test]
    fn trial_halves_a_limit_that_only_adds_latency() {
        let with_latency = |nanos| RouteObservation {
            latency: Some(nanos),
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
