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
    Head,
    /// Reading the body.
    Body,
    /// Handing on the body as it comes: of the clocks only that between two bytes runs.
    Stream,
}

/// The instants of an attempt, in nanoseconds since the epoch. One that has not come yet is the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) started: u64,
    pub(crate) connected: u64,
    pub(crate) head: u64,
    /// The latest sign of life: the last byte of the body, or the instant before it.
    pub(crate) touched: u64,
}

/// What can be kept in hand: a connection, of which nothing is known here.
pub(super) trait Keep: Any + Send {
    /// It goes to the others at rest, as one that has been so since then.
    fn rest(self: Box<Self>, since: Instant);
}

/// One that is kept, and since when.
type Kept = (Box<dyn Keep>, Instant);

/// Written by the wire and read by the worker, which owns the only timer.
///
/// One serves a worker for all its exchanges. An instant that has not come yet reads as the
/// latest one before it, so a difference of two neighbours is zero until the later one is set.
pub(crate) struct Progress {
    epoch: Instant,
    phase: AtomicU8,
    sent: AtomicBool,
    started: AtomicU64,
    connected: AtomicU64,
    head: AtomicU64,
    touched: AtomicU64,
    /// Since when the peer is not waited for, and how long it was not before that.
    held_since: AtomicU64,
    held: AtomicU64,
    is_held: AtomicBool,
    /// What the server said it allows: so many more, for so many nanoseconds. None: the greatest number.
    allowed: AtomicU64,
    allowed_for: AtomicU64,
    /// The connection of the exchange before, if one who goes on at once asked to keep it: the next is most likely to the
    /// same server, and then neither has to look for the other.
    in_hand: Option<Mutex<Option<Kept>>>,
}

impl Progress {
    /// Instants before `epoch` read as `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            phase: AtomicU8::new(Phase::Connect as u8),
            sent: AtomicBool::new(false),
            started: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            head: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
            held: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            allowed: AtomicU64::new(u64::MAX),
            allowed_for: AtomicU64::new(0),
            in_hand: None,
        }
    }

    /// Connections are kept in hand from one exchange to the next. Who asks for this stays on one runtime, and must call
    /// [`rest`](Self::rest) before it stops.
    pub(crate) fn keeping_connections(self) -> Self {
        Self {
            in_hand: Some(Mutex::new(None)),
            ..self
        }
    }

    /// Whether a connection may be kept. While a body is handed on it may not: that may be worked on for long after it has
    /// come.
    pub(super) fn keeps(&self) -> bool {
        self.in_hand.is_some() && self.phase() != Phase::Stream
    }

    /// Keeps a connection that is in order and at rest.
    pub(super) fn keep(&self, connection: Box<dyn Keep>) {
        // One on a fresh connection leaves that in hand alone.
        self.rest();
        if let Some(in_hand) = &self.in_hand {
            let mut kept = in_hand.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((connection, self.touched_at()));
        }
    }

    /// What was kept.
    pub(super) fn take_kept(&self) -> Option<Kept> {
        let in_hand = self.in_hand.as_ref()?;
        in_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// A connection in hand goes to the others at rest.
    pub(crate) fn rest(&self) {
        if let Some((connection, since)) = self.take_kept() {
            connection.rest(since);
        }
    }

    /// A new attempt starts.
    pub(crate) fn reset(&self, now: Instant) {
        let now = self.nanos(now);
        self.phase.store(Phase::Connect as u8, Relaxed);
        self.sent.store(false, Relaxed);
        self.is_held.store(false, Relaxed);
        self.held.store(0, Relaxed);
        self.allowed.store(u64::MAX, Relaxed);
        for instant in [&self.started, &self.connected, &self.head, &self.touched] {
            instant.store(now, Relaxed);
        }
    }

    /// No connection at rest would do after all: connecting begins only now, and so does its clock.
    pub(crate) fn connecting(&self, at: Instant) {
        self.connected(at);
        self.phase.store(Phase::Connect as u8, Relaxed);
    }

    /// There is a connection to send on.
    pub(crate) fn connected(&self, at: Instant) {
        let at = self.nanos(at);
        self.phase.store(Phase::Head as u8, Relaxed);
        for instant in [&self.connected, &self.head, &self.touched] {
            instant.store(at, Relaxed);
        }
    }

    /// A byte of the request may have left.
    pub(crate) fn sent(&self) {
        self.sent.store(true, Relaxed);
    }

    /// The peer says that it has not looked at the request, and will not.
    #[cfg(feature = "http2")]
    pub(crate) fn unsent(&self) {
        self.sent.store(false, Relaxed);
    }

    /// The response head is complete.
    pub(crate) fn head(&self, at: Instant) {
        let at = self.nanos(at);
        self.phase.store(Phase::Body as u8, Relaxed);
        self.head.store(at, Relaxed);
        self.touched.store(at, Relaxed);
    }

    /// The server says that it allows so many more, and how long that is all.
    pub(crate) fn allow(&self, more: u64, reset_after: Duration) {
        let nanos = u64::try_from(reset_after.as_nanos()).unwrap_or(u64::MAX);
        self.allowed.store(more, Relaxed);
        self.allowed_for.store(nanos, Relaxed);
    }

    /// What it said, with the time in nanoseconds.
    pub(crate) fn allowed(&self) -> Option<(u64, u64)> {
        match self.allowed.load(Relaxed) {
            u64::MAX => None,
            more => Some((more, self.allowed_for.load(Relaxed))),
        }
    }

    /// Bytes of the body arrived.
    pub(crate) fn touched(&self, at: Instant) {
        self.touched.store(self.nanos(at), Relaxed);
    }

    /// The body is handed on as it comes.
    pub(crate) fn streams(&self) {
        self.phase.store(Phase::Stream as u8, Relaxed);
        // That may take long, and others could use it.
        self.rest();
    }

    /// From now on it is not the peer that is waited for.
    pub(crate) fn hold(&self, at: Instant) {
        if !self.is_held.swap(true, Relaxed) {
            self.held_since.store(self.nanos(at), Relaxed);
            // As long as the consumer likes.
            self.rest();
        }
    }

    /// The peer is waited for again.
    pub(crate) fn release(&self, at: Instant) {
        if self.is_held.swap(false, Relaxed) {
            let since = self.instant(&self.held_since);
            let held = at.saturating_duration_since(since).as_nanos() as u64;
            self.held.fetch_add(held, Relaxed);
            self.touched(at);
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Relaxed)
    }

    /// How long the peer was not waited for, before now.
    pub(crate) fn held(&self) -> Duration {
        Duration::from_nanos(self.held.load(Relaxed))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Connect,
            1 => Phase::Head,
            2 => Phase::Body,
            _ => Phase::Stream,
        }
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Relaxed)
    }

    pub(crate) fn started_at(&self) -> Instant {
        self.instant(&self.started)
    }

    /// The instants of this attempt.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            started: self.started.load(Relaxed),
            connected: self.connected.load(Relaxed),
            head: self.head.load(Relaxed),
            touched: self.touched.load(Relaxed),
        }
    }

    /// The latest sign of life: the last byte of the body, or the instant before it.
    pub(crate) fn touched_at(&self) -> Instant {
        self.instant(&self.touched)
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
        let progress = Progress::new(epoch);

        progress.reset(at(5));
        assert_eq!(progress.phase(), Phase::Connect);
        assert_eq!(progress.touched_at(), at(5));
        progress.connected(at(7));
        assert_eq!(progress.phase(), Phase::Head);
        assert_eq!(progress.started_at(), at(5));
        assert_eq!(progress.marks().head, nanos(7));
        progress.head(at(9));
        assert_eq!(progress.phase(), Phase::Body);
        let marks = progress.marks();
        assert_eq!((marks.connected, marks.head), (nanos(7), nanos(9)));
        progress.touched(at(12));
        let marks = progress.marks();
        assert_eq!((marks.head, marks.touched), (nanos(9), nanos(12)));
    }

    #[test]
    fn what_is_held_is_counted_once_and_is_a_sign_of_life() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let progress = Progress::new(epoch);
        progress.reset(at(0));
        progress.head(at(1));
        progress.release(at(2));
        assert_eq!(progress.touched_at(), at(1));
        progress.hold(at(5));
        progress.hold(at(8));
        assert!(progress.is_held());
        progress.release(at(10));
        progress.hold(at(20));
        progress.release(at(21));
        assert_eq!(progress.held(), Duration::from_millis(6));
        assert_eq!((progress.is_held(), progress.touched_at()), (false, at(21)));
        progress.reset(at(30));
        assert_eq!(progress.held(), Duration::ZERO);
    }

    #[test]
    fn reset_forgets_the_attempt_before() {
        let epoch = Instant::now();
        let progress = Progress::new(epoch);
        progress.reset(epoch);
        progress.sent();
        progress.head(epoch + Duration::from_secs(1));
        progress.reset(epoch + Duration::from_secs(2));
        assert!(!progress.is_sent());
        assert_eq!(progress.phase(), Phase::Connect);
        assert_eq!(progress.marks().head, 2_000_000_000);
    }
}
