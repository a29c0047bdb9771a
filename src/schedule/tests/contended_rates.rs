//! Tests that a rate is reached beside busy batches and hosts, and not exceeded.

use super::super::{BatchLimits, GateLimits, Time};
use super::gate_meter::check_rate;
use super::simulation::{MS, NO_LIMITS, Outcome, SECOND, Simulation, concurrency, rate};

const SLOTS: usize = 12;
const RESPONSE_TIME: u64 = 50 * MS;
/// The number of starts per second if no slot idles.
const CAPACITY: u64 = SLOTS as u64 * SECOND / RESPONSE_TIME;
/// The starts that may be made up for, in addition to the burst.
const MADE_UP_STARTS: u64 = 2;

/// The gate with the rate.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum RateGate {
    Tenant,
    Batch,
    Share,
    Lane,
}

impl RateGate {
    const ALL: [Self; 4] = [Self::Tenant, Self::Batch, Self::Share, Self::Lane];
}

/// A batch with a rate for the lane `limited`, beside busy ones.
#[derive(Copy, Clone, Debug)]
struct Contention {
    gate: RateGate,
    per_second: u64,
    burst: u64,
    /// The number of other batches, which have no limits.
    busy_batches: usize,
    /// Whether the other batches use the lane of the limited batch.
    is_same_lane: bool,
    /// The variation of the response time in both directions, in percent.
    jitter_percent: u64,
}

/// The outcome of a run in starts per second.
#[derive(Debug)]
struct Throughput {
    limited: f64,
    total: f64,
}

impl Contention {
    /// Whether enough late starts are made up for. If all slots become free at the same instants,
    /// the starts that are due between two of these instants are late.
    fn is_within_made_up_starts(self) -> bool {
        let due = self.per_second * RESPONSE_TIME / SECOND;
        self.jitter_percent > 2 || due <= MADE_UP_STARTS || due < self.burst + MADE_UP_STARTS
    }

    /// Runs for four seconds. Fails if any window has too many starts of the limited batch.
    fn run(self) -> Result<Throughput, String> {
        let limits = rate(self.per_second, self.burst);
        let at = |gate| {
            if self.gate == gate {
                limits
            } else {
                GateLimits::UNLIMITED
            }
        };
        let mut sim = Simulation::new(concurrency(SLOTS));
        sim.set_lane_limits("limited", at(RateGate::Lane));
        let tenant = sim.schedule.add_tenant(at(RateGate::Tenant));
        let limited_batch_limits = BatchLimits {
            overall_limits: at(RateGate::Batch),
            per_lane_limits: at(RateGate::Share),
            deadline: None,
        };
        let limited = sim.add_tenant_batch(tenant, limited_batch_limits);
        let lane = if self.is_same_lane { "limited" } else { "busy" };
        for _ in 0..self.busy_batches {
            let busy = sim.add_batch(NO_LIMITS);
            sim.push_many(busy, lane, CAPACITY as usize * 5);
        }
        sim.push_many(limited, "limited", self.per_second as usize * 5);
        let mut random = fastrand::Rng::with_seed(7);
        let jitter = RESPONSE_TIME * self.jitter_percent / 100;
        let end = Time::from_nanos(4 * SECOND);
        sim.run_until(end, |_| {
            Outcome::Done(RESPONSE_TIME - jitter + random.u64(..=2 * jitter))
        });
        let starts: Vec<Time> = sim.starts_of(limited).map(|start| start.at).collect();
        let rate = limits.rate.ok_or("no rate")?;
        check_rate(&starts, rate, MADE_UP_STARTS * rate.emission_interval_nanos)?;
        // The first second is not measured, because the first requests end at the same instant.
        let since = Time::from_nanos(SECOND);
        let per_second = |count: usize| count as f64 / 3.0;
        Ok(Throughput {
            limited: per_second(starts.iter().filter(|&&at| at >= since).count()),
            total: per_second(sim.starts.iter().filter(|start| start.at >= since).count()),
        })
    }
}

/// All combinations of gates, rates up to nine tenths of the fair share, and competitors.
fn contentions() -> Vec<Contention> {
    let mut all = Vec::new();
    for busy_batches in [1, 2, 5] {
        let fair_share = CAPACITY / (busy_batches as u64 + 1);
        for per_second in [20, 40, 80, 108] {
            for gate in RateGate::ALL {
                for is_same_lane in [false, true] {
                    for burst in [1, 4] {
                        for jitter_percent in [0, 30, 90] {
                            all.push(Contention {
                                gate,
                                per_second,
                                burst,
                                busy_batches,
                                is_same_lane,
                                jitter_percent,
                            });
                        }
                    }
                }
            }
        }
        all.retain(|case| {
            let is_fair = case.per_second <= fair_share * 9 / 10;
            let shares_rate = case.is_same_lane && case.gate == RateGate::Lane;
            case.busy_batches != busy_batches
                || (is_fair && !shares_rate && case.is_within_made_up_starts())
        });
    }
    all
}

#[test]
fn rate_within_the_fair_share_is_reached_and_not_exceeded() {
    let mut failed = Vec::new();
    let contentions = contentions();
    for case in &contentions {
        match case.run() {
            Ok(throughput)
                if throughput.limited >= 0.95 * case.per_second as f64
                    && throughput.total >= 0.97 * CAPACITY as f64 => {}
            other => failed.push(format!("{case:?}: {other:?}")),
        }
    }
    let (count, failures) = (contentions.len(), failed.len());
    assert!(
        failed.is_empty(),
        "{failures} of {count}:\n{}",
        failed.join("\n")
    );
}

/// A rate above the fair share must not take slots from the other batches.
#[test]
fn rate_above_the_fair_share_gets_the_fair_share() {
    for jitter_percent in [30, 90] {
        for gate in RateGate::ALL {
            let case = Contention {
                gate,
                per_second: 200,
                burst: 1,
                busy_batches: 1,
                is_same_lane: false,
                jitter_percent,
            };
            let throughput = case.run().unwrap();
            let fair = CAPACITY as f64 / 2.0;
            assert!(
                (0.95 * fair..=1.05 * fair).contains(&throughput.limited)
                    && throughput.total >= 0.97 * CAPACITY as f64,
                "{case:?}: {throughput:?}"
            );
        }
    }
}
