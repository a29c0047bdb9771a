//! The clock of one hop (one request and its response): its phase, its timestamps and its pauses.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The phase of a hop, which selects the timeouts that run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// The worker resolves the host name, connects, and performs the proxy and TLS handshakes.
    Connect,
    /// The request is sent, and the response head is not complete.
    ResponseHead,
    /// The body is read into memory.
    Body,
    /// The body is passed to a file or a handler as it arrives. Only the body-idle timeout runs.
    Streaming,
}

/// The timestamps of a hop, in nanoseconds since the clock's epoch.
///
/// Until an event has happened, its timestamp equals the timestamp of the event before it. While a
/// new connection is being opened, `connected_at` is the time at which connecting began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamps {
    pub(crate) started_at: u64,
    pub(crate) connected_at: u64,
    pub(crate) response_head_at: u64,
    /// The time of the last event, such as bytes that the peer sent or accepted.
    pub(crate) last_activity_at: u64,
}

/// Records the phase of a hop and the times of its events.
///
/// The transport records the events of a hop. The worker (the task that runs the hop) reads the
/// clock to decide which timeouts run, and once more at the end of the hop. A worker reuses one
/// clock for all its hops, and calls [`reset_for_new_hop`](Self::reset_for_new_hop) before each
/// hop.
///
/// Only one task uses a clock. The fields are atomic because the future of an exchange holds a
/// shared reference to the clock and is `Send`.
pub(crate) struct HopClock {
    epoch: Instant,
    phase: AtomicU8,
    maybe_sent: AtomicBool,
    started_at: AtomicU64,
    connected_at: AtomicU64,
    response_head_at: AtomicU64,
    last_activity_at: AtomicU64,
    pause_meter: PauseMeter,
    in_hop_queue_wait_nanos: AtomicU64,
}

impl HopClock {
    /// Creates a clock. Instants before `epoch` count as `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            phase: AtomicU8::new(Phase::Connect as u8),
            maybe_sent: AtomicBool::new(false),
            started_at: AtomicU64::new(0),
            connected_at: AtomicU64::new(0),
            response_head_at: AtomicU64::new(0),
            last_activity_at: AtomicU64::new(0),
            pause_meter: PauseMeter::default(),
            in_hop_queue_wait_nanos: AtomicU64::new(0),
        }
    }

    /// Resets the clock for a new hop, which starts at `now`.
    pub(crate) fn reset_for_new_hop(&self, now: Instant) {
        let now = self.nanos_since_epoch(now);
        self.phase.store(Phase::Connect as u8, Relaxed);
        self.maybe_sent.store(false, Relaxed);
        self.pause_meter.clear_pauses();
        self.in_hop_queue_wait_nanos.store(0, Relaxed);
        for timestamp in [
            &self.started_at,
            &self.connected_at,
            &self.response_head_at,
            &self.last_activity_at,
        ] {
            timestamp.store(now, Relaxed);
        }
    }

    /// Records that a new connection is needed. The connect timeout runs from `at`, which also
    /// becomes `connected_at` until the connection is ready.
    pub(crate) fn record_connecting(&self, at: Instant) {
        self.record_connected(at);
        self.phase.store(Phase::Connect as u8, Relaxed);
    }

    /// Records that a connection is ready to send on.
    pub(crate) fn record_connected(&self, at: Instant) {
        let at = self.nanos_since_epoch(at);
        self.phase.store(Phase::ResponseHead as u8, Relaxed);
        for timestamp in [
            &self.connected_at,
            &self.response_head_at,
            &self.last_activity_at,
        ] {
            timestamp.store(at, Relaxed);
        }
    }

    /// Records that a byte of the request may have been sent.
    pub(crate) fn record_maybe_sent(&self) {
        self.maybe_sent.store(true, Relaxed);
    }

    /// Records that the peer did not and will not process the request.
    #[cfg(feature = "http2")]
    pub(crate) fn record_request_unprocessed(&self) {
        self.maybe_sent.store(false, Relaxed);
    }

    /// Records that the response head is complete.
    pub(crate) fn record_response_head(&self, at: Instant) {
        let at = self.nanos_since_epoch(at);
        self.phase.store(Phase::Body as u8, Relaxed);
        self.response_head_at.store(at, Relaxed);
        self.last_activity_at.store(at, Relaxed);
    }

    /// Records that the peer sent or accepted bytes.
    pub(crate) fn record_activity(&self, at: Instant) {
        self.last_activity_at
            .store(self.nanos_since_epoch(at), Relaxed);
    }

    /// Enters [`Phase::Streaming`].
    pub(crate) fn enter_streaming_phase(&self) {
        self.phase.store(Phase::Streaming as u8, Relaxed);
    }

    /// Pauses the wire-time timeouts while the hop waits for something other than the peer, such as
    /// the handler.
    pub(crate) fn pause_timeouts(&self, at: Instant) {
        if !self.is_paused() {
            self.pause_meter.start_pause(self.nanos_since_epoch(at));
        }
    }

    /// Ends a pause in which the hop waited in a queue and not for its peer. The wait is not part
    /// of the hop, so all timestamps move forward by the length of the wait.
    fn resume_after_queue_wait(&self, at: Instant) {
        if !self.is_paused() {
            return;
        }
        let wait = self.pause_meter.end_pause(self.nanos_since_epoch(at));
        self.in_hop_queue_wait_nanos.fetch_add(wait, Relaxed);
        for timestamp in [
            &self.started_at,
            &self.connected_at,
            &self.response_head_at,
            &self.last_activity_at,
        ] {
            timestamp.fetch_add(wait, Relaxed);
        }
    }

    /// The total length of the [queue waits](QueueWaitGuard) that have ended, in nanoseconds.
    pub(crate) fn in_hop_queue_wait_nanos(&self) -> u64 {
        self.in_hop_queue_wait_nanos.load(Relaxed)
    }

    /// Ends the pause, if the clock is paused. The pause does not count as inactivity of the peer.
    pub(crate) fn resume_timeouts(&self, at: Instant) {
        if self.is_paused() {
            self.pause_meter.end_pause(self.nanos_since_epoch(at));
            self.record_activity(at);
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause_meter.is_paused.load(Relaxed)
    }

    /// The total length of the pauses that have ended.
    pub(crate) fn total_pause_time(&self) -> Duration {
        Duration::from_nanos(self.pause_meter.total_paused_nanos.load(Relaxed))
    }

    /// The total length of the ended pauses, without the [queue waits](QueueWaitGuard).
    pub(crate) fn pause_time_without_queue_waits(&self) -> Duration {
        let total = self.pause_meter.total_paused_nanos.load(Relaxed);
        Duration::from_nanos(total - self.in_hop_queue_wait_nanos())
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Connect,
            1 => Phase::ResponseHead,
            2 => Phase::Body,
            _ => Phase::Streaming,
        }
    }

    /// Whether a byte of the request may have reached the server.
    pub(crate) fn maybe_sent(&self) -> bool {
        self.maybe_sent.load(Relaxed)
    }

    pub(crate) fn hop_started_at(&self) -> Instant {
        self.instant_from_nanos(&self.started_at)
    }

    pub(crate) fn timestamps(&self) -> Timestamps {
        Timestamps {
            started_at: self.started_at.load(Relaxed),
            connected_at: self.connected_at.load(Relaxed),
            response_head_at: self.response_head_at.load(Relaxed),
            last_activity_at: self.last_activity_at.load(Relaxed),
        }
    }

    /// The time of the last event, such as bytes that the peer sent or accepted.
    pub(crate) fn last_activity_at(&self) -> Instant {
        self.instant_from_nanos(&self.last_activity_at)
    }

    fn nanos_since_epoch(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant_from_nanos(&self, nanos: &AtomicU64) -> Instant {
        self.epoch + Duration::from_nanos(nanos.load(Relaxed))
    }
}

/// Pauses the clock until the guard is dropped, while the hop waits in a queue, for example for a
/// lookup permit or for a file. The wait does not count as wire time.
pub(crate) struct QueueWaitGuard<'a>(&'a HopClock);

impl<'a> QueueWaitGuard<'a> {
    pub(crate) fn pause_clock(clock: &'a HopClock) -> Self {
        clock.pause_timeouts(Instant::now());
        Self(clock)
    }
}

impl Drop for QueueWaitGuard<'_> {
    fn drop(&mut self) {
        self.0.resume_after_queue_wait(Instant::now());
    }
}

/// Pauses the timeouts of the hop until the guard is dropped, while the hop waits for the disk and
/// not for the server.
pub(crate) struct PauseGuard<'a>(&'a HopClock);

impl<'a> PauseGuard<'a> {
    pub(crate) fn new(clock: &'a HopClock) -> Self {
        clock.pause_timeouts(Instant::now());
        Self(clock)
    }
}

impl Drop for PauseGuard<'_> {
    fn drop(&mut self) {
        self.0.resume_timeouts(Instant::now());
    }
}

/// Measures how long a hop waits for something other than its peer. All times are in
/// nanoseconds.
#[derive(Default)]
struct PauseMeter {
    is_paused: AtomicBool,
    paused_since_nanos: AtomicU64,
    /// The length of all pauses that have ended.
    total_paused_nanos: AtomicU64,
}

impl PauseMeter {
    fn clear_pauses(&self) {
        self.is_paused.store(false, Relaxed);
        self.total_paused_nanos.store(0, Relaxed);
    }

    fn start_pause(&self, at: u64) {
        self.is_paused.store(true, Relaxed);
        self.paused_since_nanos.store(at, Relaxed);
    }

    /// Ends the pause and returns its length.
    fn end_pause(&self, at: u64) -> u64 {
        self.is_paused.store(false, Relaxed);
        let pause = at.saturating_sub(self.paused_since_nanos.load(Relaxed));
        self.total_paused_nanos.fetch_add(pause, Relaxed);
        pause
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Drops a future after 50 ms in which it waits for a blocking thread. Asserts that the wait is
    /// not part of the hop.
    pub(crate) fn assert_dropped_wait_is_queue_wait(wait: impl AsyncFnOnce(&HopClock)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (_release, released) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || released.recv());
        runtime.block_on(async {
            let begin = Instant::now();
            let clock = HopClock::new(begin);
            clock.reset_for_new_hop(begin);
            {
                let mut wait = pin!(wait(&clock));
                let mut context = Context::from_waker(Waker::noop());
                assert!(wait.as_mut().poll(&mut context).is_pending());
                assert!(clock.is_paused());
                tokio::time::advance(Duration::from_millis(50)).await;
            }
            assert!(!clock.is_paused());
            assert_eq!(clock.in_hop_queue_wait_nanos(), nanos(50));
            assert_eq!(clock.hop_started_at(), begin + Duration::from_millis(50));
            assert_eq!(clock.pause_time_without_queue_waits(), Duration::ZERO);
        });
    }

    fn nanos(ms: u64) -> u64 {
        ms * 1_000_000
    }

    #[test]
    fn timestamp_not_reached_equals_the_one_before() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let clock = HopClock::new(epoch);

        clock.reset_for_new_hop(at(5));
        assert_eq!(clock.phase(), Phase::Connect);
        assert_eq!(clock.last_activity_at(), at(5));
        clock.record_connected(at(7));
        assert_eq!(clock.phase(), Phase::ResponseHead);
        assert_eq!(clock.hop_started_at(), at(5));
        assert_eq!(clock.timestamps().response_head_at, nanos(7));
        clock.record_response_head(at(9));
        assert_eq!(clock.phase(), Phase::Body);
        let timestamps = clock.timestamps();
        assert_eq!(
            (timestamps.connected_at, timestamps.response_head_at),
            (nanos(7), nanos(9))
        );
        clock.record_activity(at(12));
        let timestamps = clock.timestamps();
        assert_eq!(
            (timestamps.response_head_at, timestamps.last_activity_at),
            (nanos(9), nanos(12))
        );
    }

    #[test]
    fn pauses_are_counted_once_and_end_with_activity() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let clock = HopClock::new(epoch);
        clock.reset_for_new_hop(at(0));
        clock.record_response_head(at(1));
        clock.resume_timeouts(at(2));
        assert_eq!(clock.last_activity_at(), at(1));
        clock.pause_timeouts(at(5));
        clock.pause_timeouts(at(8));
        assert!(clock.is_paused());
        clock.resume_timeouts(at(10));
        clock.pause_timeouts(at(20));
        clock.resume_timeouts(at(21));
        assert_eq!(clock.total_pause_time(), Duration::from_millis(6));
        assert_eq!(
            (clock.is_paused(), clock.last_activity_at()),
            (false, at(21))
        );
        clock.reset_for_new_hop(at(30));
        assert_eq!(clock.total_pause_time(), Duration::ZERO);
    }

    #[test]
    fn queue_wait_moves_the_timestamps_and_is_not_part_of_the_hop() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let clock = HopClock::new(epoch);
        clock.reset_for_new_hop(at(5));
        clock.pause_timeouts(at(7));
        clock.resume_after_queue_wait(at(17));
        clock.resume_after_queue_wait(at(18));
        assert_eq!(clock.in_hop_queue_wait_nanos(), nanos(10));
        assert_eq!(clock.total_pause_time(), Duration::from_millis(10));
        assert_eq!(clock.pause_time_without_queue_waits(), Duration::ZERO);
        let timestamps = clock.timestamps();
        assert_eq!(
            (timestamps.started_at, timestamps.connected_at),
            (nanos(15), nanos(15))
        );
        assert_eq!((clock.phase(), clock.is_paused()), (Phase::Connect, false));
        clock.reset_for_new_hop(at(30));
        assert_eq!(clock.in_hop_queue_wait_nanos(), 0);
    }

    #[test]
    fn reset_clears_the_previous_hop() {
        let epoch = Instant::now();
        let clock = HopClock::new(epoch);
        clock.reset_for_new_hop(epoch);
        clock.record_maybe_sent();
        clock.record_response_head(epoch + Duration::from_secs(1));
        clock.reset_for_new_hop(epoch + Duration::from_secs(2));
        assert!(!clock.maybe_sent());
        assert_eq!(clock.phase(), Phase::Connect);
        assert_eq!(clock.timestamps().response_head_at, 2_000_000_000);
    }
}
