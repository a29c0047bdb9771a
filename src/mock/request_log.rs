//! What a mock remembers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use super::{MockRequest, MockState, lock};

/// The requests received. What happens in it is numbered, so that the order is known where the instants are the same.
pub(super) struct RequestLog {
    entries: VecDeque<LogEntry>,
    max_entries: usize,
    request_count: usize,
    in_flight: usize,
    max_in_flight: usize,
    event_count: u64,
}

struct LogEntry {
    request: MockRequest,
    entered: u64,
    left: Option<u64>,
}

impl Default for RequestLog {
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
    pub(super) fn set_max_entries(&mut self, max_entries: usize) {
        self.max_entries = max_entries;
        let surplus = self.entries.len().saturating_sub(max_entries);
        self.entries.drain(..surplus);
    }

    /// Gives the number by which the request [leaves](Self::leave).
    pub(super) fn enter(&mut self, request: MockRequest) -> usize {
        self.event_count += 1;
        self.entries.push_back(LogEntry {
            request,
            entered: self.event_count,
            left: None,
        });
        if self.entries.len() > self.max_entries {
            self.entries.pop_front();
        }
        self.request_count += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        self.request_count - 1
    }

    fn leave(&mut self, request_id: usize) {
        self.event_count += 1;
        self.in_flight -= 1;
        let dropped_count = self.request_count - self.entries.len();
        let entry = request_id
            .checked_sub(dropped_count)
            .and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry {
            entry.left = Some(self.event_count);
        }
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &MockRequest> {
        self.entries.iter().map(|entry| &entry.request)
    }

    pub(super) fn request_count(&self) -> usize {
        self.request_count
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub(super) fn max_in_flight_matching(&self, matches: impl Fn(&MockRequest) -> bool) -> usize {
        let mut changes: Vec<(u64, isize)> = self
            .entries
            .iter()
            .filter(|entry| matches(&entry.request))
            .flat_map(|entry| [Some((entry.entered, 1)), entry.left.map(|left| (left, -1))])
            .flatten()
            .collect();
        changes.sort_unstable();
        let counts = changes.iter().scan(0, |count, (_, change)| {
            *count += change;
            Some(*count)
        });
        counts.max().unwrap_or(0).unsigned_abs()
    }
}

/// A request in flight, until this is dropped.
pub(super) struct InFlightGuard {
    shared: Weak<Mutex<MockState>>,
    request_id: usize,
}

impl InFlightGuard {
    pub(super) fn new(shared: &Arc<Mutex<MockState>>, request_id: usize) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            request_id,
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            lock(&shared).log.leave(self.request_id);
        }
    }
}
