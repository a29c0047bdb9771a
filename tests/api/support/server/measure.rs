use std::time::{Duration, Instant};

/// The most instants that lie in any half-open window `[t, t + window)`.
///
/// A server's instants are those of arrival: a busy machine may bunch what was sent evenly, so allow
/// for that, or check the lower bound of the whole span instead.
pub fn max_in_any_window(instants: &[Instant], window: Duration) -> usize {
    let mut sorted = instants.to_vec();
    sorted.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, &at) in sorted.iter().enumerate() {
        while at - sorted[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

/// How many descriptors this process has open, those of its own test servers included.
#[cfg(target_os = "linux")]
pub fn open_files() -> usize {
    let listed = std::fs::read_dir("/proc/self/fd")
        .expect("/proc/self/fd is readable")
        .count();
    listed - 1 // the listing's own
}
