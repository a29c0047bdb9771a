//! The log of requests that a mock received.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::request::MockRequest;

/// A log of received requests. Clones share the entries.
#[derive(Clone, Default)]
pub(super) struct RequestLog(Arc<Mutex<LogState>>);

struct LogState {
    entries: VecDeque<LogEntry>,
    max_entries: usize,
    request_count: usize,
    in_flight: usize,
    max_in_flight: usize,
    /// The number of the latest event: the arrival or the departure of a request. The numbers keep
    /// the order of events at the same instant.
    event_count: u64,
}

struct LogEntry {
    request: MockRequest,
    /// The number of the arrival, among all events.
    arrival_number: u64,
    /// The number of the departure, among all events. `None` while the request is in flight.
    departure_number: Option<u64>,
}

impl Default for LogState {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            max_entries: usize::MAX,
            request_count: 0,
            in_flight: 0,
            max_in_flight: 0,
            event_count: 0,
        }
    }
}

impl RequestLog {
    /// Records the arrival of a request. Its departure is recorded when the returned guard is
    /// dropped.
    pub(super) fn record_arrival(&self, request: MockRequest) -> InFlightGuard {
        let request_id = self.lock().record_arrival(request);
        InFlightGuard {
            log_state: Arc::downgrade(&self.0),
            request_id,
        }
    }

    /// Sets the maximum number of entries, and drops the oldest entries if there are more.
    pub(super) fn set_max_entries(&self, max_entries: usize) {
        let mut log = self.lock();
        log.max_entries = max_entries;
        let surplus = log.entries.len().saturating_sub(max_entries);
        log.entries.drain(..surplus);
    }

    pub(super) fn requests(&self) -> Vec<MockRequest> {
        let log = self.lock();
        log.entries
            .iter()
            .map(|entry| entry.request.clone())
            .collect()
    }

    pub(super) fn count_matching(&self, matches: impl Fn(&MockRequest) -> bool) -> usize {
        let log = self.lock();
        log.entries
            .iter()
            .filter(|entry| matches(&entry.request))
            .count()
    }

    pub(super) fn request_count(&self) -> usize {
        self.lock().request_count
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.lock().max_in_flight
    }

    pub(super) fn max_in_flight_matching(&self, matches: impl Fn(&MockRequest) -> bool) -> usize {
        let mut changes: Vec<(u64, isize)> = self
            .lock()
            .entries
            .iter()
            .filter(|entry| matches(&entry.request))
            .flat_map(|entry| {
                [
                    Some((entry.arrival_number, 1)),
                    entry
                        .departure_number
                        .map(|departure_number| (departure_number, -1)),
                ]
            })
            .flatten()
            .collect();
        changes.sort_unstable();
        let counts = changes.iter().scan(0, |count, (_, change)| {
            *count += change;
            Some(*count)
        });
        counts.max().unwrap_or(0).unsigned_abs()
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        lock(&self.0)
    }
}

fn lock(log: &Mutex<LogState>) -> MutexGuard<'_, LogState> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogState {
    /// Records the arrival of a request. Returns the argument of
    /// [`record_departure`](Self::record_departure).
    fn record_arrival(&mut self, request: MockRequest) -> usize {
        self.event_count += 1;
        self.entries.push_back(LogEntry {
            request,
            arrival_number: self.event_count,
            departure_number: None,
        });
        if self.entries.len() > self.max_entries {
            self.entries.pop_front();
        }
        self.request_count += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        self.request_count - 1
    }

    fn record_departure(&mut self, request_id: usize) {
        self.event_count += 1;
        self.in_flight -= 1;
        let dropped_count = self.request_count - self.entries.len();
        let entry = request_id
            .checked_sub(dropped_count)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry {
            entry.departure_number = Some(self.event_count);
        }
    }
}

/// Counts a request as in flight until the guard is dropped.
pub(super) struct InFlightGuard {
    log_state: Weak<Mutex<LogState>>,
    request_id: usize,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(log) = self.log_state.upgrade() {
            lock(&log).record_departure(self.request_id);
        }
    }
}
