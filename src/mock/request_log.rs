//! The log of requests that a mock received.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::request::MockRequest;

/// A log of received requests. Clones share the entries.
#[derive(Clone, Default)]
pub(super) struct RequestLog(Arc<Mutex<LogState>>);

struct LogState {
    entries: VecDeque<LogEntry>,
    max_entry_count: usize,
    received_request_count: usize,
    in_flight_count: usize,
    max_in_flight_count: usize,
    /// The number of the latest event: the arrival or the departure of a request. The numbers keep
    /// the order of events at the same instant.
    last_event_number: u64,
}

struct LogEntry {
    request: MockRequest,
    /// The number of the arrival, among all events.
    arrival_event_number: u64,
    /// The number of the departure, among all events. `None` while the request is in flight.
    departure_event_number: Option<u64>,
}

impl Default for LogState {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            max_entry_count: usize::MAX,
            received_request_count: 0,
            in_flight_count: 0,
            max_in_flight_count: 0,
            last_event_number: 0,
        }
    }
}

impl RequestLog {
    /// Records the arrival of a request. Its departure is recorded when the returned guard is
    /// dropped.
    pub(super) fn record_arrival(&self, request: MockRequest) -> InFlightGuard {
        let request_index = self.lock_log_state().log_arrival(request);
        InFlightGuard {
            log_state: Arc::downgrade(&self.0),
            request_index,
        }
    }

    /// Sets the maximum number of entries, and drops the oldest entries if there are more.
    pub(super) fn set_max_entry_count(&self, max_entry_count: usize) {
        let mut log = self.lock_log_state();
        log.max_entry_count = max_entry_count;
        let surplus = log.entries.len().saturating_sub(max_entry_count);
        log.entries.drain(..surplus);
    }

    pub(super) fn recorded_requests(&self) -> Vec<MockRequest> {
        let log = self.lock_log_state();
        log.entries
            .iter()
            .map(|entry| entry.request.clone())
            .collect()
    }

    pub(super) fn count_requests_matching(&self, matches: impl Fn(&MockRequest) -> bool) -> usize {
        let log = self.lock_log_state();
        log.entries
            .iter()
            .filter(|entry| matches(&entry.request))
            .count()
    }

    pub(super) fn received_request_count(&self) -> usize {
        self.lock_log_state().received_request_count
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.lock_log_state().in_flight_count
    }

    pub(super) fn max_in_flight_count(&self) -> usize {
        self.lock_log_state().max_in_flight_count
    }

    pub(super) fn max_in_flight_count_matching(
        &self,
        matches: impl Fn(&MockRequest) -> bool,
    ) -> usize {
        let mut changes: Vec<(u64, isize)> = self
            .lock_log_state()
            .entries
            .iter()
            .filter(|entry| matches(&entry.request))
            .flat_map(|entry| {
                [
                    Some((entry.arrival_event_number, 1)),
                    entry
                        .departure_event_number
                        .map(|departure_event_number| (departure_event_number, -1)),
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

    fn lock_log_state(&self) -> MutexGuard<'_, LogState> {
        lock_log_state(&self.0)
    }
}

fn lock_log_state(log: &Mutex<LogState>) -> MutexGuard<'_, LogState> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogState {
    /// Records the arrival of a request. Returns the argument of
    /// [`log_departure`](Self::log_departure).
    fn log_arrival(&mut self, request: MockRequest) -> usize {
        self.last_event_number += 1;
        self.entries.push_back(LogEntry {
            request,
            arrival_event_number: self.last_event_number,
            departure_event_number: None,
        });
        if self.entries.len() > self.max_entry_count {
            self.entries.pop_front();
        }
        self.received_request_count += 1;
        self.in_flight_count += 1;
        self.max_in_flight_count = self.max_in_flight_count.max(self.in_flight_count);
        self.received_request_count - 1
    }

    fn log_departure(&mut self, request_index: usize) {
        self.last_event_number += 1;
        self.in_flight_count -= 1;
        let dropped_count = self.received_request_count - self.entries.len();
        let entry = request_index
            .checked_sub(dropped_count)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry {
            entry.departure_event_number = Some(self.last_event_number);
        }
    }
}

/// Counts a request as in flight until the guard is dropped.
pub(super) struct InFlightGuard {
    log_state: Weak<Mutex<LogState>>,
    request_index: usize,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(log) = self.log_state.upgrade() {
            lock_log_state(&log).log_departure(self.request_index);
        }
    }
}
