//! The resource usage of the process: CPU time from the kernel, and wall time.

use std::ops::Sub;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    at: Instant,
}

pub struct Used {
    pub user: Duration,
    pub system: Duration,
    pub wall: Duration,
}

impl Usage {
    pub fn now() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel keeps books");
        Self {
            user: duration(usage.user_time()),
            system: duration(usage.system_time()),
            at: Instant::now(),
        }
    }
}

impl Sub for Usage {
    type Output = Used;

    fn sub(self, before: Self) -> Used {
        Used {
            user: self.user - before.user,
            system: self.system - before.system,
            wall: self.at - before.at,
        }
    }
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1_000)
}

/// Returns the peak resident memory of this process in KiB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|peak| peak.trim().strip_suffix("kB")?.trim().parse().ok())
        .expect("a line VmHWM")
}
