//! What a batch holds of bodies: those being read, and those that nobody has taken yet.
//!
//! Whoever reads a body asks for room before each piece. When there is none, the oldest body that is being read may go
//! on all the same, unless the reader of the batch has something it could take: so the batch goes on as long as its
//! reader does, and no faster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

pub(crate) struct Buffer {
    cap: u64,
    /// Whether results are taken in the order of the inputs.
    in_order: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: u64,
    /// By the index of the input, with the waker of one that waits for room.
    reading: BTreeMap<usize, Option<Waker>>,
    /// Ended, and not taken.
    ended: BTreeSet<usize>,
    /// How many have been taken.
    taken: usize,
}

impl Buffer {
    pub(crate) fn new(cap: u64, in_order: bool) -> Arc<Self> {
        Arc::new(Self {
            cap,
            in_order,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_read(&self, state: &State, index: usize) -> bool {
        state.bytes < self.cap || (!self.has_result(state) && is_first(&state.reading, index))
    }

    /// Whether the reader of the batch could take a result.
    fn has_result(&self, state: &State) -> bool {
        match self.in_order {
            true => state.ended.contains(&state.taken),
            false => !state.ended.is_empty(),
        }
    }

    /// Changes the state, and wakes those who may read now.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let mut wakers = Vec::new();
        if state.bytes < self.cap {
            wakers.extend(state.reading.values_mut().filter_map(Option::take));
        } else if !self.has_result(&state)
            && let Some(mut first) = state.reading.first_entry()
        {
            wakers.extend(first.get_mut().take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn is_first(reading: &BTreeMap<usize, Option<Waker>>, index: usize) -> bool {
    reading.keys().next() == Some(&index)
}

/// The part that one input has in what its batch holds. Dropped when its result is taken.
pub(crate) struct Charge {
    buffer: Arc<Buffer>,
    index: usize,
    bytes: u64,
}

impl Charge {
    pub(crate) fn new(buffer: &Arc<Buffer>, index: usize) -> Self {
        Self {
            buffer: Arc::clone(buffer),
            index,
            bytes: 0,
        }
    }

    /// Its body is being read.
    pub(super) fn begin(&self) {
        self.buffer.lock().reading.insert(self.index, None);
    }

    /// Whether the next piece may be read. If not, the task is woken when it may.
    pub(super) fn has_room(&self, cx: &Context<'_>) -> bool {
        let mut state = self.buffer.lock();
        let may_read = self.buffer.may_read(&state, self.index);
        if !may_read {
            state.reading.insert(self.index, Some(cx.waker().clone()));
        }
        may_read
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.buffer.lock().bytes += bytes as u64;
    }

    /// An attempt is over. What it has read is kept if it is the result; `is_last` tells whether there is a result.
    pub(crate) fn end(&mut self, is_kept: bool, is_last: bool) {
        let bytes = match is_kept {
            true => 0,
            false => std::mem::take(&mut self.bytes),
        };
        self.buffer.change(|state| {
            state.bytes -= bytes;
            state.reading.remove(&self.index);
            if is_last {
                state.ended.insert(self.index);
            }
        });
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buffer.change(|state| {
            state.bytes -= self.bytes;
            state.reading.remove(&self.index);
            state.ended.remove(&self.index);
            state.taken += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(buffer: &Arc<Buffer>, count: usize) -> Vec<Charge> {
        let charges: Vec<_> = (0..count).map(|index| Charge::new(buffer, index)).collect();
        charges.iter().for_each(Charge::begin);
        charges
    }

    fn with_room(charges: &[Charge]) -> Vec<usize> {
        let cx = Context::from_waker(Waker::noop());
        let with_room = charges.iter().filter(|charge| charge.has_room(&cx));
        with_room.map(|charge| charge.index).collect()
    }

    #[test]
    fn all_may_read_until_it_is_full_and_then_the_oldest() {
        let buffer = Buffer::new(10, false);
        let mut charges = reading(&buffer, 3);
        charges[1].add(9);
        assert_eq!(with_room(&charges), [0, 1, 2]);
        charges[2].add(1);
        assert_eq!(with_room(&charges), [0]);
    }

    #[test]
    fn while_there_is_a_result_to_take_not_even_the_oldest_may() {
        let buffer = Buffer::new(10, false);
        let mut charges = reading(&buffer, 3);
        charges[2].add(10);
        charges[2].end(true, true);
        assert!(with_room(&charges).is_empty());
        drop(charges.pop());
        assert_eq!(with_room(&charges), [0, 1]);
        assert_eq!(buffer.lock().bytes, 0);
    }

    #[test]
    fn in_order_only_the_one_whose_turn_it_is_can_be_taken() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 3);
        charges[2].add(10);
        charges[2].end(true, true);
        assert_eq!(with_room(&charges[..2]), [0]);
        charges[0].add(10);
        charges[0].end(true, true);
        assert!(with_room(&charges[1..2]).is_empty());
        drop(charges.remove(0));
        assert_eq!(with_room(&charges[..1]), [1]);
    }

    #[test]
    fn an_attempt_that_failed_gives_back_its_bytes_and_its_age() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 3);
        charges[0].add(20);
        charges[0].end(false, false);
        assert_eq!(with_room(&charges[1..]), [1, 2]);
        charges[2].add(10);
        assert_eq!(with_room(&charges[1..]), [1], "the oldest that is read");
        charges[0].begin();
        assert_eq!(with_room(&charges), [0]);
        charges[0].end(false, true);
        assert!(with_room(&charges).is_empty(), "its error can be taken");
    }
}
