//! The number of open sockets and its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The default limit on open sockets: three quarters of the soft limit on open files.
///
/// The rest is for other files of the program, and for connection attempts, which may hold two
/// sockets for a moment. `None` where the system has no such limit.
pub(crate) fn default_socket_limit() -> Option<usize> {
    #[cfg(unix)]
    {
        let soft = rlimit::Resource::NOFILE.get_soft().ok()?;
        let soft = usize::try_from(soft)
            .ok()
            .filter(|soft| *soft < usize::MAX / 4)?;
        Some((soft / 4 * 3).max(1))
    }
    #[cfg(not(unix))]
    None
}

/// Counts the sockets that are open or being opened.
///
/// The limit is soft. A permit is always granted, since the schedule bounds the requests in
/// flight. While the limit is exceeded, a connection is closed after use instead of pooled.
pub(super) struct SocketLimit {
    open: AtomicUsize,
    max_open: usize,
}

impl SocketLimit {
    pub(super) fn new(max_open: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max_open: max_open.unwrap_or(usize::MAX),
        })
    }

    /// Counts a socket that is about to be opened.
    pub(super) fn acquire(self: &Arc<Self>) -> SocketPermit {
        self.open.fetch_add(1, Relaxed);
        SocketPermit(Arc::clone(self))
    }

    pub(super) fn open_sockets(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether another socket would exceed the limit.
    pub(super) fn is_reached(&self) -> bool {
        self.open_sockets() >= self.max_open
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.open_sockets() > self.max_open
    }
}

/// Grants permits for new sockets. The pool of idle connections does, because it can close some.
pub(super) trait SocketPermitSource: Send + Sync {
    /// Returns a permit for a new socket. Closes the oldest idle connection if the limit is
    /// exceeded.
    fn acquire_permit(&self) -> SocketPermit;

    /// Closes some idle connections because the process is out of descriptors. Returns whether
    /// there were any.
    fn evict_for_descriptors(&self) -> bool;
}

/// Held by a socket for as long as it is open.
pub(super) struct SocketPermit(Arc<SocketLimit>);

impl SocketPermit {
    pub(super) fn is_limit_exceeded(&self) -> bool {
        self.0.is_exceeded()
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permit_counts_while_it_is_held() {
        let limit = SocketLimit::new(Some(1));
        assert!(!limit.is_reached());
        let first = limit.acquire();
        assert!(limit.is_reached() && !limit.is_exceeded());
        let second = limit.acquire();
        assert!(first.is_limit_exceeded() && limit.open_sockets() == 2);
        drop(second);
        assert!(!first.is_limit_exceeded() && limit.open_sockets() == 1);
    }
}
