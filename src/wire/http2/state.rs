//! The state of an HTTP/2 connection, shared by its driver, its streams and the pool.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Id;
use tokio::time::Instant;

use crate::error::ErrorKind;
use crate::wire::metered::IoCounts;
use crate::wire::send_error::{Refusal, RefusalReason};

pub(super) struct ConnectionState {
    pub(super) origin: Arc<str>,
    pub(super) runtime_id: Id,
    io_counts: Arc<IoCounts>,
    /// When the connection was opened.
    opened_at: Instant,
    open_stream_count: AtomicUsize,
    /// The maximum number of concurrent streams that the peer allows.
    max_streams: AtomicUsize,
    /// How often an exchange on the connection has made progress.
    progress_count: AtomicUsize,
    /// Whether a response head has arrived on any stream.
    has_responded: Arc<AtomicBool>,
    /// When the last stream ended, in nanoseconds since `opened_at`.
    idle_since: AtomicU64,
    /// When bytes were last received, in nanoseconds since `opened_at`.
    last_read_at: AtomicU64,
    is_retired: AtomicBool,
    local_close_reason: OnceLock<(ErrorKind, &'static str)>,
}

impl ConnectionState {
    /// Creates the state of a new connection. The stream of the request that opened the connection
    /// counts as open.
    pub(super) fn new(origin: Arc<str>, runtime_id: Id, io_counts: Arc<IoCounts>) -> Self {
        Self {
            origin,
            runtime_id,
            io_counts,
            opened_at: Instant::now(),
            open_stream_count: AtomicUsize::new(1),
            max_streams: AtomicUsize::new(1),
            progress_count: AtomicUsize::new(0),
            has_responded: Arc::default(),
            idle_since: AtomicU64::new(0),
            last_read_at: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
            local_close_reason: OnceLock::new(),
        }
    }

    /// Counts another stream as open. Returns false if the peer allows no more streams, or if the
    /// connection has been idle for `idle_timeout`.
    ///
    /// The caller must hold the lock of the pool.
    pub(super) fn try_reserve_stream(&self, now: Instant, idle_timeout: Duration) -> bool {
        let open_stream_count = self.open_stream_count();
        let idle_for = || now.saturating_duration_since(self.idle_since());
        let is_expired = open_stream_count == 0 && idle_for() >= idle_timeout;
        let opens = open_stream_count < self.max_streams.load(Relaxed) && !is_expired;
        if opens {
            self.open_stream_count.fetch_add(1, Relaxed);
        }
        opens
    }

    pub(super) fn release_stream(&self) {
        self.count_exchange_progress();
        self.store_current_time(&self.idle_since);
        self.open_stream_count.fetch_sub(1, Relaxed);
    }

    pub(super) fn open_stream_count(&self) -> usize {
        self.open_stream_count.load(Relaxed)
    }

    pub(super) fn set_max_streams(&self, max_streams: usize) {
        self.max_streams.store(max_streams, Relaxed);
    }

    /// Records that an exchange received a response head.
    pub(super) fn record_response(&self) {
        self.has_responded.store(true, Relaxed);
        self.count_exchange_progress();
    }

    /// Creates a refusal of a request by this connection.
    pub(super) fn new_refusal(&self, reason: RefusalReason) -> Refusal {
        Refusal::new(reason, &self.has_responded)
    }

    pub(super) fn has_responded(&self) -> bool {
        self.has_responded.load(Relaxed)
    }

    /// Records that an exchange received a response head or data, or ended.
    pub(super) fn count_exchange_progress(&self) {
        self.progress_count.fetch_add(1, Relaxed);
    }

    pub(super) fn progress_count(&self) -> usize {
        self.progress_count.load(Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.load_instant(&self.idle_since)
    }

    pub(super) fn record_read_time(&self) {
        self.store_current_time(&self.last_read_at);
    }

    /// When bytes were last received.
    pub(super) fn last_read_at(&self) -> Instant {
        self.load_instant(&self.last_read_at)
    }

    /// The number of bytes received so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.io_counts.bytes_read()
    }

    /// Whether reading failed with a TLS error.
    pub(super) fn has_tls_read_failure(&self) -> bool {
        self.io_counts.has_tls_read_failure()
    }

    /// Marks the connection as retired: it gets no more streams and closes after its last one.
    pub(super) fn mark_retired(&self) {
        self.is_retired.store(true, Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }

    /// The reason why this side closed the connection, or `None` if it did not.
    pub(super) fn local_close_reason(&self) -> Option<(ErrorKind, &'static str)> {
        self.local_close_reason.get().copied()
    }

    pub(super) fn set_local_close_reason(&self, kind: ErrorKind, reason: &'static str) {
        // Only the first reason is kept, because it is the cause of any later one.
        let _ = self.local_close_reason.set((kind, reason));
    }

    fn store_current_time(&self, nanos: &AtomicU64) {
        let since_opening = Instant::now().saturating_duration_since(self.opened_at);
        nanos.store(since_opening.as_nanos() as u64, Relaxed);
    }

    fn load_instant(&self, nanos: &AtomicU64) -> Instant {
        self.opened_at + Duration::from_nanos(nanos.load(Relaxed))
    }
}
