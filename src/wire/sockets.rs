//! Counts open sockets and checks their limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::descriptors::{IdleConnectionPool, descriptor_limit};

/// The default limit on open sockets: three quarters of the soft limit on open files.
///
/// The last quarter is for files and for connection attempts, which may hold two sockets for a
/// moment. Returns `None` if the system does not limit open files.
pub(crate) fn default_socket_limit() -> Option<usize> {
    Some((descriptor_limit()? / 4 * 3).max(1))
}

/// The number of sockets that are open or being opened, and its limit.
///
/// The limit is soft: sockets above the limit are still opened, because the schedule already bounds
/// the requests in flight. While the limit is exceeded, connections are closed after use instead of
/// returned to the pool.
pub(super) struct SocketLimit {
    open_socket_count: AtomicUsize,
    max_sockets: usize,
}

impl SocketLimit {
    pub(super) fn new(max_sockets: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            open_socket_count: AtomicUsize::new(0),
            max_sockets: max_sockets.unwrap_or(usize::MAX),
        })
    }

    /// Counts a socket that is about to be opened, until the returned guard is dropped.
    pub(super) fn count_socket(self: &Arc<Self>) -> SocketCountGuard {
        self.open_socket_count.fetch_add(1, Relaxed);
        SocketCountGuard(Arc::clone(self))
    }

    pub(super) fn open_socket_count(&self) -> usize {
        self.open_socket_count.load(Relaxed)
    }

    /// Whether another socket would exceed the limit.
    pub(super) fn is_limit_reached(&self) -> bool {
        self.open_socket_count() >= self.max_sockets
    }

    pub(super) fn is_limit_exceeded(&self) -> bool {
        self.open_socket_count() > self.max_sockets
    }
}

/// Counts new sockets. Implemented by the pool of idle connections, which can close idle
/// connections to make room.
pub(super) trait SocketCounter: IdleConnectionPool {
    /// Counts a socket that is about to be opened. If the limit is exceeded, closes the connection
    /// that has been idle for the longest time.
    fn count_socket(&self) -> SocketCountGuard;
}

/// Counts one open socket until dropped. The guard is stored next to its socket.
pub(super) struct SocketCountGuard(Arc<SocketLimit>);

impl SocketCountGuard {
    pub(super) fn is_limit_exceeded(&self) -> bool {
        self.0.is_limit_exceeded()
    }
}

impl Drop for SocketCountGuard {
    fn drop(&mut self) {
        self.0.open_socket_count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_counts_until_its_guard_is_dropped() {
        let limit = SocketLimit::new(Some(1));
        assert!(!limit.is_limit_reached());
        let first = limit.count_socket();
        assert!(limit.is_limit_reached() && !limit.is_limit_exceeded());
        let second = limit.count_socket();
        assert!(first.is_limit_exceeded() && limit.open_socket_count() == 2);
        drop(second);
        assert!(!first.is_limit_exceeded() && limit.open_socket_count() == 1);
    }
}
