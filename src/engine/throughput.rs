//! The recent throughput of a batch or of the whole engine.

use std::collections::VecDeque;
use std::time::Duration;

use crate::schedule::Time;

/// Calculates how many requests completed per second in the last 10 s, from samples of the
/// completed count.
#[derive(Debug)]
pub(super) struct Throughput {
    started_at: Time,
    /// The instant of each sample, and the number of requests completed by that instant. The first
    /// sample is at least as old as the window, or was taken at the start.
    completed_count_samples: VecDeque<(Time, usize)>,
}

impl Throughput {
    /// Length of the window over which throughput is measured, in nanoseconds.
    const MEASUREMENT_WINDOW_NANOS: u64 = 10_000_000_000;
    /// Least time between two samples, in nanoseconds.
    const MIN_SAMPLE_INTERVAL_NANOS: u64 = 1_000_000_000;

    pub(super) fn starting_at(now: Time) -> Self {
        Self {
            started_at: now,
            completed_count_samples: [(now, 0)].into(),
        }
    }

    pub(super) fn started_at(&self) -> Time {
        self.started_at
    }

    pub(super) fn elapsed(&self, now: Time) -> Duration {
        Duration::from_nanos(now.nanos_since(self.started_at))
    }

    /// The number of requests completed per second. Stores a sample if the last one is at least 1 s
    /// old. `completed` is the number of all requests completed so far.
    pub(super) fn completed_per_second(&mut self, now: Time, completed: usize) -> f64 {
        let is_old =
            |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::MEASUREMENT_WINDOW_NANOS;
        while self.completed_count_samples.get(1).is_some_and(is_old) {
            self.completed_count_samples.pop_front();
        }
        let oldest = self.completed_count_samples.front().copied();
        let (from, completed_before) = oldest.unwrap_or((self.started_at, 0));
        let is_due =
            |(at, _): &(Time, usize)| now.nanos_since(*at) >= Self::MIN_SAMPLE_INTERVAL_NANOS;
        if self.completed_count_samples.back().is_none_or(is_due) {
            self.completed_count_samples.push_back((now, completed));
        }
        match now.nanos_since(from) {
            0 => 0.0,
            nanos => completed.saturating_sub(completed_before) as f64 * 1e9 / nanos as f64,
        }
    }
}
