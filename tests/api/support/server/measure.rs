use std::time::{Duration, Instant};

/// The largest number of instants in any half-open window `[t, t + window)`.
///
/// A busy machine may deliver evenly sent requests together, so a bound on arrival times needs a
/// margin.
pub fn max_in_any_window(instants: &[Instant], window: Duration) -> usize {
    let mut sorted = instants.to_vec();
    sorted.sort_unstable();
    let mut start = 0;
    let mut max = 0;
    for (last, &at) in sorted.iter().enumerate() {
        while at - sorted[start] >= window {
            start += 1;
        }
        max = max.max(last + 1 - start);
    }
    max
}

/// The number of open descriptors of this process, its test servers included.
#[cfg(target_os = "linux")]
pub fn open_files() -> usize {
    let listed = std::fs::read_dir("/proc/self/fd")
        .expect("/proc/self/fd is readable")
        .count();
    listed - 1 // the descriptor of the listing itself
}
