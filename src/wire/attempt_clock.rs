//! What an exchange has done so far.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The part of an exchange that is under way, and with it the clock that runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Looking the host up, connecting, the TLS handshake.
    Connect,
    /// Sending the request and waiting for a complete response head.
    ResponseHead,
    /// Reading the body.
    Body,
    /// Handing on the body as it comes: of the clocks only that between two bytes runs.
    Streaming,
}

/// The instants of an attempt, in nanoseconds since the epoch. One that has not come yet is the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamps {
    pub(crate) started: u64,
    pub(crate) connected: u64,
    pub(crate) response_head: u64,
    /// The latest sign of life: the last byte of the body, or the instant before it.
    pub(crate) last_activity: u64,
}

/// What can be kept in hand: a connection, of which nothing is known here.
pub(super) trait Reusable: Any + Send {
    /// It goes to the others at rest, as one that has been so since then.
    fn return_to_pool(self: Box<Self>, since: Instant);
}

/// One that is kept, and since when.
type StickyEntry = (Box<dyn Reusable>, Instant);

/// Written by the wire and read by the worker, which owns the only timer.
///
/// One serves a worker for all its exchanges. An instant that has not come yet reads as the
/// latest one before it, so a difference of two neighbours is zero until the later one is set.
pub(crate) struct AttemptClock {
    epoch: Instant,
    phase: AtomicU8,
    sent: AtomicBool,
    started: AtomicU64,
    connected: AtomicU64,
    response_head: AtomicU64,
    last_activity: AtomicU64,
    /// Since when the peer is not waited for, and how long it was not before that.
    paused_since: AtomicU64,
    paused_for: AtomicU64,
    is_paused: AtomicBool,
    /// What the server said it allows: so many more, for so many nanoseconds. None: the greatest number.
    server_limit_remaining: AtomicU64,
    server_limit_reset: AtomicU64,
    /// The connection of the exchange before, if one who goes on at once asked to keep it: the next is most likely to the
    /// same server, and then neither has to look for the other.
    sticky: Option<Mutex<Option<StickyEntry>>>,
}

impl AttemptClock {
    /// Instants before `epoch` read as `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            phase: AtomicU8::new(Phase::Connect as u8),
            sent: AtomicBool::new(false),
            started: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            response_head: AtomicU64::new(0),
            last_activity: AtomicU64::new(0),
            paused_since: AtomicU64::new(0),
            paused_for: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            server_limit_remaining: AtomicU64::new(u64::MAX),
            server_limit_reset: AtomicU64::new(0),
            sticky: None,
        }
    }

    /// Connections are kept in hand from one exchange to the next. Who asks for this stays on one runtime, and must call
    /// [`rest`](Self::rest) before it stops.
    pub(crate) fn with_sticky_connection(self) -> Self {
        Self {
            sticky: Some(Mutex::new(None)),
            ..self
        }
    }

    /// Whether a connection may be kept. While a body is handed on it may not: that may be worked on for long after it has
    /// come.
    pub(super) fn can_stick(&self) -> bool {
        self.sticky.is_some() && self.phase() != Phase::Streaming
    }

    /// Keeps a connection that is in order and at rest.
    pub(super) fn stick(&self, connection: Box<dyn Reusable>) {
        // One on a fresh connection leaves that in hand alone.
        self.release_sticky();
        if let Some(sticky) = &self.sticky {
            let mut kept = sticky.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((connection, self.last_activity()));
        }
    }

    /// What was kept.
    pub(super) fn take_sticky(&self) -> Option<StickyEntry> {
        let sticky = self.sticky.as_ref()?;
        sticky.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A connection in hand goes to the others at rest.
    pub(crate) fn release_sticky(&self) {
        if let Some((connection, since)) = self.take_sticky() {
            connection.return_to_pool(since);
        }
    }

    /// A new attempt starts.
    pub(crate) fn reset(&self, now: Instant) {
        let now = self.nanos(now);
        self.phase.store(Phase::Connect as u8, Relaxed);
        self.sent.store(false, Relaxed);
        self.is_paused.store(false, Relaxed);
        self.paused_for.store(0, Relaxed);
        self.server_limit_remaining.store(u64::MAX, Relaxed);
        for instant in [
            &self.started,
            &self.connected,
            &self.response_head,
            &self.last_activity,
        ] {
            instant.store(now, Relaxed);
        }
    }

    /// No connection at rest would do after all: connecting begins only now, and so does its clock.
    pub(crate) fn record_connecting(&self, at: Instant) {
        self.record_connected(at);
        self.phase.store(Phase::Connect as u8, Relaxed);
    }

    /// There is a connection to send on.
    pub(crate) fn record_connected(&self, at: Instant) {
        let at = self.nanos(at);
        self.phase.store(Phase::ResponseHead as u8, Relaxed);
        for instant in [&self.connected, &self.response_head, &self.last_activity] {
            instant.store(at, Relaxed);
        }
    }

    /// A byte of the request may have left.
    pub(crate) fn record_sent(&self) {
        self.sent.store(true, Relaxed);
    }

    /// The peer says that it has not looked at the request, and will not.
    #[cfg(feature = "http2")]
    pub(crate) fn record_unprocessed(&self) {
        self.sent.store(false, Relaxed);
    }

    /// The response head is complete.
    pub(crate) fn record_head(&self, at: Instant) {
        let at = self.nanos(at);
        self.phase.store(Phase::Body as u8, Relaxed);
        self.response_head.store(at, Relaxed);
        self.last_activity.store(at, Relaxed);
    }

    /// The server says that it allows so many more, and how long that is all.
    pub(crate) fn record_server_limit(&self, more: u64, reset_after: Duration) {
        let nanos = u64::try_from(reset_after.as_nanos()).unwrap_or(u64::MAX);
        self.server_limit_remaining.store(more, Relaxed);
        self.server_limit_reset.store(nanos, Relaxed);
    }

    /// What it said, with the time in nanoseconds.
    pub(crate) fn server_limit(&self) -> Option<(u64, u64)> {
        match self.server_limit_remaining.load(Relaxed) {
            u64::MAX => None,
            more => Some((more, self.server_limit_reset.load(Relaxed))),
        }
    }

    /// Bytes of the body arrived.
    pub(crate) fn record_activity(&self, at: Instant) {
        self.last_activity.store(self.nanos(at), Relaxed);
    }

    /// The body is handed on as it comes.
    pub(crate) fn start_streaming(&self) {
        self.phase.store(Phase::Streaming as u8, Relaxed);
        // That may take long, and others could use it.
        self.release_sticky();
    }

    /// From now on it is not the peer that is waited for.
    pub(crate) fn pause(&self, at: Instant) {
        if !self.is_paused.swap(true, Relaxed) {
            self.paused_since.store(self.nanos(at), Relaxed);
            // As long as the consumer likes.
            self.release_sticky();
        }
    }

    /// The peer is waited for again.
    pub(crate) fn resume(&self, at: Instant) {
        if self.is_paused.swap(false, Relaxed) {
            let since = self.instant(&self.paused_since);
            let paused_for = at.saturating_duration_since(since).as_nanos() as u64;
            self.paused_for.fetch_add(paused_for, Relaxed);
            self.record_activity(at);
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Relaxed)
    }

    /// How long the peer was not waited for, before now.
    pub(crate) fn paused_for(&self) -> Duration {
        Duration::from_nanos(self.paused_for.load(Relaxed))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Connect,
            1 => Phase::ResponseHead,
            2 => Phase::Body,
            _ => Phase::Streaming,
        }
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Relaxed)
    }

    pub(crate) fn started_at(&self) -> Instant {
        self.instant(&self.started)
    }

    /// The instants of this attempt.
    pub(crate) fn timestamps(&self) -> Timestamps {
        Timestamps {
            started: self.started.load(Relaxed),
            connected: self.connected.load(Relaxed),
            response_head: self.response_head.load(Relaxed),
            last_activity: self.last_activity.load(Relaxed),
        }
    }

    /// The latest sign of life: the last byte of the body, or the instant before it.
    pub(crate) fn last_activity(&self) -> Instant {
        self.instant(&self.last_activity)
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, nanos: &AtomicU64) -> Instant {
        self.epoch + Duration::from_nanos(nanos.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(ms: u64) -> u64 {
        ms * 1_000_000
    }

    #[test]
    fn an_instant_that_has_not_come_reads_as_the_one_before() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let clock = AttemptClock::new(epoch);

        clock.reset(at(5));
        assert_eq!(clock.phase(), Phase::Connect);
        assert_eq!(clock.last_activity(), at(5));
        clock.record_connected(at(7));
        assert_eq!(clock.phase(), Phase::ResponseHead);
        assert_eq!(clock.started_at(), at(5));
        assert_eq!(clock.timestamps().response_head, nanos(7));
        clock.record_head(at(9));
        assert_eq!(clock.phase(), Phase::Body);
        let timestamps = clock.timestamps();
        assert_eq!(
            (timestamps.connected, timestamps.response_head),
            (nanos(7), nanos(9))
        );
        clock.record_activity(at(12));
        let timestamps = clock.timestamps();
        assert_eq!(
            (timestamps.response_head, timestamps.last_activity),
            (nanos(9), nanos(12))
        );
    }

    #[test]
    fn what_is_held_is_counted_once_and_is_a_sign_of_life() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let clock = AttemptClock::new(epoch);
        clock.reset(at(0));
        clock.record_head(at(1));
        clock.resume(at(2));
        assert_eq!(clock.last_activity(), at(1));
        clock.pause(at(5));
        clock.pause(at(8));
        assert!(clock.is_paused());
        clock.resume(at(10));
        clock.pause(at(20));
        clock.resume(at(21));
        assert_eq!(clock.paused_for(), Duration::from_millis(6));
        assert_eq!((clock.is_paused(), clock.last_activity()), (false, at(21)));
        clock.reset(at(30));
        assert_eq!(clock.paused_for(), Duration::ZERO);
    }

    #[test]
    fn reset_forgets_the_attempt_before() {
        let epoch = Instant::now();
        let clock = AttemptClock::new(epoch);
        clock.reset(epoch);
        clock.record_sent();
        clock.record_head(epoch + Duration::from_secs(1));
        clock.reset(epoch + Duration::from_secs(2));
        assert!(!clock.is_sent());
        assert_eq!(clock.phase(), Phase::Connect);
        assert_eq!(clock.timestamps().response_head, 2_000_000_000);
    }
}
