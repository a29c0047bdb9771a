//! What a batch holds of bodies: those being read, and those that nobody has delivered yet.
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

pub(crate) struct BodyBudget {
    max_bytes: u64,
    /// Whether results are delivered in the order of the inputs.
    in_order: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: u64,
    /// By the index of the input, with the waker of one that waits for room.
    reading: BTreeMap<usize, Option<Waker>>,
    /// Backing off until then.
    backing_off: BTreeMap<usize, Instant>,
    /// Ended, and not delivered.
    ready_results: BTreeSet<usize>,
    /// How many have been delivered.
    delivered: usize,
}

impl BodyBudget {
    pub(crate) fn new(max_bytes: u64, in_order: bool) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            in_order,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_read(&self, state: &State, index: usize) -> bool {
        state.bytes < self.max_bytes
            || (!self.has_ready_result(state) && is_first(&state.reading, index))
    }

    /// Until when the result that the reader waits for is backing off.
    fn next_result_backoff(&self, state: &State) -> Option<Instant> {
        let at = state
            .backing_off
            .get(&state.delivered)
            .filter(|_| self.in_order)?;
        (*at > Instant::now()).then_some(*at)
    }

    /// Whether the reader of the batch could take a result.
    fn has_ready_result(&self, state: &State) -> bool {
        match self.in_order {
            true => state.ready_results.contains(&state.delivered),
            false => !state.ready_results.is_empty(),
        }
    }

    /// Changes the state, and wakes those who may read now.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let mut wakers = Vec::new();
        if state.bytes < self.max_bytes {
            wakers.extend(state.reading.values_mut().filter_map(Option::take));
        } else if !self.has_ready_result(&state)
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

/// The part that one input has in what its batch holds. Dropped when its result is delivered.
pub(crate) struct Reservation {
    budget: Arc<BodyBudget>,
    index: usize,
    bytes: u64,
    /// For when the one that the reader waits for comes back.
    backoff_timer: Option<Pin<Box<Sleep>>>,
}

impl Reservation {
    pub(crate) fn new(budget: &Arc<BodyBudget>, index: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            index,
            bytes: 0,
            backoff_timer: None,
        }
    }

    /// Its body is being read.
    pub(super) fn start_reading(&self) {
        let mut state = self.budget.lock();
        state.reading.insert(self.index, None);
        state.backing_off.remove(&self.index);
    }

    /// Whether the next piece may be read. If not, the task is woken when it may.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> bool {
        let next_result_backoff = {
            let mut state = self.budget.lock();
            let may_read = self.budget.may_read(&state, self.index);
            let next_result_backoff = match state.bytes < self.budget.max_bytes {
                true => None,
                false => self.budget.next_result_backoff(&state),
            };
            if may_read && next_result_backoff.is_none() {
                return true;
            }
            state.reading.insert(self.index, Some(cx.waker().clone()));
            next_result_backoff.filter(|_| may_read)
        };
        let Some(until) = next_result_backoff else {
            self.backoff_timer = None;
            return false;
        };
        let backoff_timer = self
            .backoff_timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if backoff_timer.deadline() != until {
            backoff_timer.as_mut().reset(until);
        }
        // Where the clock has just struck, it is looked at again.
        backoff_timer.as_mut().poll(cx).is_ready() && {
            self.backoff_timer = None;
            self.poll_room(cx)
        }
    }

    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.budget.lock().bytes += bytes as u64;
    }

    /// An attempt is over. What it has read is kept if it is the result; `is_last` tells whether there is a result, and
    /// `again` when there is another attempt that backs off.
    pub(crate) fn end_attempt(&mut self, is_kept: bool, is_last: bool, retry_at: Option<Instant>) {
        self.backoff_timer = None;
        let bytes = match is_kept {
            true => 0,
            false => std::mem::take(&mut self.bytes),
        };
        self.budget.update(|state| {
            state.bytes -= bytes;
            state.reading.remove(&self.index);
            if is_last {
                state.ready_results.insert(self.index);
            } else if let Some(retry_at) = retry_at {
                state.backing_off.insert(self.index, retry_at);
            }
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.update(|state| {
            state.bytes -= self.bytes;
            state.reading.remove(&self.index);
            state.backing_off.remove(&self.index);
            state.ready_results.remove(&self.index);
            state.delivered += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn start_all(budget: &Arc<BodyBudget>, count: usize) -> Vec<Reservation> {
        let reservations: Vec<_> = (0..count)
            .map(|index| Reservation::new(budget, index))
            .collect();
        reservations.iter().for_each(Reservation::start_reading);
        reservations
    }

    fn indexes_with_room(reservations: &mut [Reservation]) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let reservations = reservations.iter_mut();
        let indexes_with_room = reservations
            .filter_map(|reservation| reservation.poll_room(&mut cx).then_some(reservation.index));
        indexes_with_room.collect()
    }

    #[test]
    fn all_may_read_until_it_is_full_and_then_the_oldest() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_all(&budget, 3);
        reservations[1].reserve(9);
        assert_eq!(indexes_with_room(&mut reservations), [0, 1, 2]);
        reservations[2].reserve(1);
        assert_eq!(indexes_with_room(&mut reservations), [0]);
    }

    #[test]
    fn while_there_is_a_result_to_take_not_even_the_oldest_may() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_all(&budget, 3);
        reservations[2].reserve(10);
        reservations[2].end_attempt(true, true, None);
        assert!(indexes_with_room(&mut reservations).is_empty());
        drop(reservations.pop());
        assert_eq!(indexes_with_room(&mut reservations), [0, 1]);
        assert_eq!(budget.lock().bytes, 0);
    }

    #[test]
    fn in_order_only_the_one_whose_turn_it_is_can_be_taken() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_all(&budget, 3);
        reservations[2].reserve(10);
        reservations[2].end_attempt(true, true, None);
        assert_eq!(indexes_with_room(&mut reservations[..2]), [0]);
        reservations[0].reserve(10);
        reservations[0].end_attempt(true, true, None);
        assert!(indexes_with_room(&mut reservations[1..2]).is_empty());
        drop(reservations.remove(0));
        assert_eq!(indexes_with_room(&mut reservations[..1]), [1]);
    }

    #[test]
    fn an_attempt_that_failed_gives_back_its_bytes_and_its_age() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_all(&budget, 3);
        reservations[0].reserve(20);
        reservations[0].end_attempt(false, false, None);
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1, 2]);
        reservations[2].reserve(10);
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "the oldest that is read"
        );
        reservations[0].start_reading();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].end_attempt(false, true, None);
        assert!(
            indexes_with_room(&mut reservations).is_empty(),
            "its error can be delivered"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_order_nobody_goes_on_while_the_one_whose_turn_it_is_backs_off() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_all(&budget, 4);
        reservations[1].reserve(20);
        let soon = Instant::now() + Duration::from_secs(5);
        reservations[0].end_attempt(false, false, Some(soon));
        reservations[2].end_attempt(false, false, Some(soon + Duration::from_secs(60)));
        assert!(indexes_with_room(&mut reservations[1..]).is_empty());
        sleep_until(soon).await;
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "it may need a slot"
        );
        reservations[0].start_reading();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].end_attempt(true, true, None);
        drop(reservations.remove(0));
        assert_eq!(indexes_with_room(&mut reservations), [1], "it is its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_back_off_to_end_is_woken_then() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_all(&budget, 2);
        reservations[1].reserve(20);
        let soon = Instant::now() + Duration::from_secs(5);
        reservations[0].end_attempt(false, false, Some(soon));
        let waiting = &mut reservations[1];
        poll_fn(|cx| match waiting.poll_room(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert_eq!(Instant::now(), soon);
    }

    #[test]
    fn as_they_finish_a_back_off_keeps_nobody() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_all(&budget, 2);
        reservations[1].reserve(20);
        let later = Instant::now() + Duration::from_secs(5);
        reservations[0].end_attempt(false, false, Some(later));
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1]);
    }
}
