//! What a batch holds of bodies: those being read, and those that nobody has taken yet.
//!
//! Whoever reads a body asks for room before each piece. When there is none, the oldest body that is being read may go
//! on all the same, unless the reader of the batch has something it could take: so the batch goes on as long as its
//! reader does, and no faster.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

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
    /// Backing off until then.
    away: BTreeMap<usize, Instant>,
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

    /// Until when the result that the reader waits for is backing off.
    fn away_until(&self, state: &State) -> Option<Instant> {
        let at = state.away.get(&state.taken).filter(|_| self.in_order)?;
        (*at > Instant::now()).then_some(*at)
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
    /// For when the one that the reader waits for comes back.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Charge {
    pub(crate) fn new(buffer: &Arc<Buffer>, index: usize) -> Self {
        Self {
            buffer: Arc::clone(buffer),
            index,
            bytes: 0,
            alarm: None,
        }
    }

    /// Its body is being read.
    pub(super) fn begin(&self) {
        let mut state = self.buffer.lock();
        state.reading.insert(self.index, None);
        state.away.remove(&self.index);
    }

    /// Whether the next piece may be read. If not, the task is woken when it may.
    pub(super) fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        let away_until = {
            let mut state = self.buffer.lock();
            let may_read = self.buffer.may_read(&state, self.index);
            let away_until = match state.bytes < self.buffer.cap {
                true => None,
                false => self.buffer.away_until(&state),
            };
            if may_read && away_until.is_none() {
                return true;
            }
            state.reading.insert(self.index, Some(cx.waker().clone()));
            away_until.filter(|_| may_read)
        };
        let Some(until) = away_until else {
            self.alarm = None;
            return false;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        // Where the clock has just struck, it is looked at again.
        alarm.as_mut().poll(cx).is_ready() && {
            self.alarm = None;
            self.has_room(cx)
        }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.buffer.lock().bytes += bytes as u64;
    }

    /// An attempt is over. What it has read is kept if it is the result; `is_last` tells whether there is a result, and
    /// `again` when there is another attempt that backs off.
    pub(crate) fn end(&mut self, is_kept: bool, is_last: bool, again: Option<Instant>) {
        self.alarm = None;
        let bytes = match is_kept {
            true => 0,
            false => std::mem::take(&mut self.bytes),
        };
        self.buffer.change(|state| {
            state.bytes -= bytes;
            state.reading.remove(&self.index);
            if is_last {
                state.ended.insert(self.index);
            } else if let Some(again) = again {
                state.away.insert(self.index, again);
            }
        });
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buffer.change(|state| {
            state.bytes -= self.bytes;
            state.reading.remove(&self.index);
            state.away.remove(&self.index);
            state.ended.remove(&self.index);
            state.taken += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn reading(buffer: &Arc<Buffer>, count: usize) -> Vec<Charge> {
        let charges: Vec<_> = (0..count).map(|index| Charge::new(buffer, index)).collect();
        charges.iter().for_each(Charge::begin);
        charges
    }

    fn with_room(charges: &mut [Charge]) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let charges = charges.iter_mut();
        let with_room =
            charges.filter_map(|charge| charge.has_room(&mut cx).then_some(charge.index));
        with_room.collect()
    }

    #[test]
    fn all_may_read_until_it_is_full_and_then_the_oldest() {
        let buffer = Buffer::new(10, false);
        let mut charges = reading(&buffer, 3);
        charges[1].add(9);
        assert_eq!(with_room(&mut charges), [0, 1, 2]);
        charges[2].add(1);
        assert_eq!(with_room(&mut charges), [0]);
    }

    #[test]
    fn while_there_is_a_result_to_take_not_even_the_oldest_may() {
        let buffer = Buffer::new(10, false);
        let mut charges = reading(&buffer, 3);
        charges[2].add(10);
        charges[2].end(true, true, None);
        assert!(with_room(&mut charges).is_empty());
        drop(charges.pop());
        assert_eq!(with_room(&mut charges), [0, 1]);
        assert_eq!(buffer.lock().bytes, 0);
    }

    #[test]
    fn in_order_only_the_one_whose_turn_it_is_can_be_taken() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 3);
        charges[2].add(10);
        charges[2].end(true, true, None);
        assert_eq!(with_room(&mut charges[..2]), [0]);
        charges[0].add(10);
        charges[0].end(true, true, None);
        assert!(with_room(&mut charges[1..2]).is_empty());
        drop(charges.remove(0));
        assert_eq!(with_room(&mut charges[..1]), [1]);
    }

    #[test]
    fn an_attempt_that_failed_gives_back_its_bytes_and_its_age() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 3);
        charges[0].add(20);
        charges[0].end(false, false, None);
        assert_eq!(with_room(&mut charges[1..]), [1, 2]);
        charges[2].add(10);
        assert_eq!(with_room(&mut charges[1..]), [1], "the oldest that is read");
        charges[0].begin();
        assert_eq!(with_room(&mut charges), [0]);
        charges[0].end(false, true, None);
        assert!(with_room(&mut charges).is_empty(), "its error can be taken");
    }

    #[tokio::test(start_paused = true)]
    async fn in_order_nobody_goes_on_while_the_one_whose_turn_it_is_backs_off() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 4);
        charges[1].add(20);
        let soon = Instant::now() + Duration::from_secs(5);
        charges[0].end(false, false, Some(soon));
        charges[2].end(false, false, Some(soon + Duration::from_secs(60)));
        assert!(with_room(&mut charges[1..]).is_empty());
        sleep_until(soon).await;
        assert_eq!(with_room(&mut charges[1..]), [1], "it may need a slot");
        charges[0].begin();
        assert_eq!(with_room(&mut charges), [0]);
        charges[0].end(true, true, None);
        drop(charges.remove(0));
        assert_eq!(with_room(&mut charges), [1], "it is its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_back_off_to_end_is_woken_then() {
        let buffer = Buffer::new(10, true);
        let mut charges = reading(&buffer, 2);
        charges[1].add(20);
        let soon = Instant::now() + Duration::from_secs(5);
        charges[0].end(false, false, Some(soon));
        let waiting = &mut charges[1];
        poll_fn(|cx| match waiting.has_room(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert_eq!(Instant::now(), soon);
    }

    #[test]
    fn as_they_finish_a_back_off_keeps_nobody() {
        let buffer = Buffer::new(10, false);
        let mut charges = reading(&buffer, 2);
        charges[1].add(20);
        let later = Instant::now() + Duration::from_secs(5);
        charges[0].end(false, false, Some(later));
        assert_eq!(with_room(&mut charges[1..]), [1]);
    }
}
