//! How durations are spread, in little memory.

use std::fmt;
use std::time::Duration;

/// Each power of two has so many buckets, as a power of two itself.
const STEP_BITS: u32 = 5;

/// How a time was spread over the requests: its percentiles, within 1.6 % of the exact ones.
///
/// From a [`Summary`](crate::Summary). A time of zero counts as any other. Its memory does not grow with the number of
/// requests: it is 8 bytes for each 3 % between the least and the most, 2.5 KB from 1 ms to 1 s.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Those of zero, which is far from all others.
    zeros: u64,
    count: u64,
    sum: Duration,
    most: u64,
    /// The bucket that the first of `counts` is for.
    first: usize,
    counts: Vec<u64>,
}

impl Spread {
    /// How many requests there are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The time that so many per cent of the requests took at most; zero if there are none.
    ///
    /// # Panics
    ///
    /// If `percent` is not from 0 to 100.
    #[track_caller]
    pub fn percentile(&self, percent: f64) -> Duration {
        assert!(
            (0.0..=100.0).contains(&percent),
            "there is no percentile beyond 0 and 100"
        );
        let rank = (percent / 100.0 * self.count as f64).ceil() as u64;
        Duration::from_nanos(self.at_rank(rank.clamp(1, self.count.max(1))))
    }

    /// The time that half of the requests took at most.
    pub fn p50(&self) -> Duration {
        self.percentile(50.0)
    }

    /// The time that nine of ten requests took at most.
    pub fn p90(&self) -> Duration {
        self.percentile(90.0)
    }

    /// The time that 99 of 100 requests took at most.
    pub fn p99(&self) -> Duration {
        self.percentile(99.0)
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// All of them together, exactly.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    pub(super) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
        self.most = self.most.max(nanos);
        if nanos == 0 {
            self.zeros += 1;
            return;
        }
        let bucket = bucket_of(nanos);
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = self.first - bucket;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let place = bucket - self.first;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
    }

    fn at_rank(&self, rank: u64) -> u64 {
        if rank == self.count {
            return self.most;
        }
        let mut passed = self.zeros;
        if rank <= passed {
            return 0;
        }
        for (place, count) in self.counts.iter().enumerate() {
            passed += count;
            if rank <= passed {
                return middle_of(self.first + place).min(self.most);
            }
        }
        self.most
    }
}

/// Up to 63 each number has its own; from there on each power of two is divided into 32.
fn bucket_of(nanos: u64) -> usize {
    let shift = nanos.max(1).ilog2().saturating_sub(STEP_BITS);
    ((shift as usize) << STEP_BITS) + (nanos >> shift) as usize
}

fn middle_of(bucket: usize) -> u64 {
    let shift = (bucket >> STEP_BITS).saturating_sub(1);
    let least = ((bucket - (shift << STEP_BITS)) as u64) << shift;
    least + ((1 << shift) >> 1)
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread")
            .field("count", &self.count)
            .field("p50", &self.p50())
            .field("p90", &self.p90())
            .field("p99", &self.p99())
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: &[u64]) -> Spread {
        let mut spread = Spread::default();
        for &nanos in times {
            spread.add(Duration::from_nanos(nanos));
        }
        spread
    }

    /// Times of all magnitudes.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift);
        prop::collection::vec(prop_oneof![4 => time, 1 => Just(0)], 1..300)
    }

    proptest! {
        #[test]
        fn percentiles_are_within_1_6_per_cent_of_the_exact_ones(mut times in times(), percent in 0.0..=100.0) {
            let spread = of(&times);
            times.sort_unstable();
            for percent in [percent, 50.0, 90.0, 99.0] {
                let rank = (percent / 100.0 * times.len() as f64).ceil() as usize;
                let exact = times[rank.max(1) - 1];
                let said = spread.percentile(percent).as_nanos() as u64;
                prop_assert!(said.abs_diff(exact) as f64 <= exact as f64 * 0.016, "{said} for {exact}");
            }
            let sum: u128 = times.iter().map(|&nanos| u128::from(nanos)).sum();
            prop_assert_eq!(spread.sum().as_nanos(), sum);
            prop_assert_eq!(spread.max().as_nanos() as u64, times[times.len() - 1]);
            prop_assert_eq!(spread.count(), times.len() as u64);
        }

        #[test]
        fn a_bucket_holds_its_own_middle(nanos in any::<u64>()) {
            let bucket = bucket_of(nanos);
            prop_assert_eq!(bucket_of(middle_of(bucket)), bucket);
            prop_assert!(bucket_of(nanos.saturating_add(1)) - bucket <= 1);
        }
    }

    #[test]
    fn nothing_has_percentiles_of_zero() {
        let nothing = Spread::default();
        assert_eq!(
            (nothing.p50(), nothing.max(), nothing.count()),
            (Duration::ZERO, Duration::ZERO, 0)
        );
        assert_eq!(nothing.percentile(0.0), Duration::ZERO);
    }

    #[test]
    fn its_memory_is_that_of_its_range() {
        let mut spread = Spread::default();
        for nanos in (1_000_000..1_000_000_000).step_by(9_973) {
            spread.add(Duration::from_nanos(nanos));
        }
        assert!(spread.counts.len() <= 330, "{}", spread.counts.len());
        assert!(of(&[1, u64::MAX]).counts.len() < 2_000);
    }

    #[test]
    #[should_panic(expected = "no percentile beyond")]
    fn a_percentile_beyond_100_panics() {
        let _ = Spread::default().percentile(101.0);
    }
}
