//! What a mock remembers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use super::{Received, Shared, lock};

/// The requests received. What happens in it is numbered, so that the order is known where the instants are the same.
pub(super) struct Record {
    kept: VecDeque<Kept>,
    most_kept: usize,
    total: usize,
    in_flight: usize,
    most_in_flight: usize,
    happened: u64,
}

struct Kept {
    received: Received,
    came: u64,
    went: Option<u64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            most_kept: usize::MAX,
            total: 0,
            in_flight: 0,
            most_in_flight: 0,
            happened: 0,
        }
    }
}

impl Record {
    pub(super) fn keep(&mut self, most: usize) {
        self.most_kept = most;
        let surplus = self.kept.len().saturating_sub(most);
        self.kept.drain(..surplus);
    }

    /// Gives the number by which the request [leaves](Self::leave).
    pub(super) fn enter(&mut self, received: Received) -> usize {
        self.happened += 1;
        self.kept.push_back(Kept {
            received,
            came: self.happened,
            went: None,
        });
        if self.kept.len() > self.most_kept {
            self.kept.pop_front();
        }
        self.total += 1;
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        self.total - 1
    }

    fn leave(&mut self, number: usize) {
        self.happened += 1;
        self.in_flight -= 1;
        let forgotten = self.total - self.kept.len();
        let kept = number
            .checked_sub(forgotten)
            .and_then(|place| self.kept.get_mut(place));
        if let Some(kept) = kept {
            kept.went = Some(self.happened);
        }
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &Received> {
        self.kept.iter().map(|kept| &kept.received)
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.most_in_flight
    }

    pub(super) fn most_in_flight_of(&self, is_meant: impl Fn(&Received) -> bool) -> usize {
        let mut changes: Vec<(u64, isize)> = self
            .kept
            .iter()
            .filter(|kept| is_meant(&kept.received))
            .flat_map(|kept| [Some((kept.came, 1)), kept.went.map(|went| (went, -1))])
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
pub(super) struct InFlight {
    shared: Weak<Mutex<Shared>>,
    number: usize,
}

impl InFlight {
    pub(super) fn new(shared: &Arc<Mutex<Shared>>, number: usize) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            number,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            lock(&shared).record.leave(self.number);
        }
    }
}
