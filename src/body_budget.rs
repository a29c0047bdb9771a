//! The memory budget of a batch's response bodies, which provides backpressure.
//!
//! The budget counts the bodies that are being read and the bodies of results that were not yet
//! delivered. A worker waits for room before it reads each chunk. When the budget is full, only the
//! oldest body may still grow, and only while the consumer has no result to take. So the batch
//! always makes progress, but no faster than its consumer (the task that takes the results).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The memory budget of one batch.
pub(crate) struct BodyBudget {
    max_bytes: u64,
    /// Whether results are delivered in input order.
    delivers_in_order: bool,
    state: Mutex<BudgetState>,
}

/// The state of a budget. Inputs are identified by their index in the batch.
#[derive(Default)]
struct BudgetState {
    used_bytes: u64,
    /// The inputs whose bodies are being read, each with the waker of a worker that waits for room.
    reader_wakers: BTreeMap<usize, Option<Waker>>,
    /// The inputs between two exchanges, each with the end of its backoff.
    backoff_ends: BTreeMap<usize, Instant>,
    /// The inputs whose results are ready but not delivered.
    undelivered_results: BTreeSet<usize>,
    /// The number of delivered results.
    delivered_count: usize,
}

impl BodyBudget {
    pub(crate) fn new(max_bytes: u64, delivers_in_order: bool) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            delivers_in_order,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn can_read(&self, state: &BudgetState, index: usize) -> bool {
        state.used_bytes < self.max_bytes
            || (!self.has_deliverable_result(state)
                && is_oldest_reader(&state.reader_wakers, index))
    }

    /// Returns when the input whose result is delivered next has backed off, if results are
    /// delivered in input order and this input is backing off.
    fn next_result_backoff_end(&self, state: &BudgetState) -> Option<Instant> {
        let backoff_end = state.backoff_ends.get(&state.delivered_count);
        let backoff_end = backoff_end.filter(|_| self.delivers_in_order)?;
        (*backoff_end > Instant::now()).then_some(*backoff_end)
    }

    /// Whether the consumer could take a result now.
    fn has_deliverable_result(&self, state: &BudgetState) -> bool {
        if self.delivers_in_order {
            state.undelivered_results.contains(&state.delivered_count)
        } else {
            !state.undelivered_results.is_empty()
        }
    }

    /// Applies `change`, then wakes the workers that may read again. The wakers are called after
    /// the lock is released.
    fn update_and_wake_readers(&self, change: impl FnOnce(&mut BudgetState)) {
        let mut state = self.lock();
        change(&mut state);
        let mut wakers = Vec::new();
        if state.used_bytes < self.max_bytes {
            wakers.extend(state.reader_wakers.values_mut().filter_map(Option::take));
        } else if !self.has_deliverable_result(&state)
            && let Some(mut oldest) = state.reader_wakers.first_entry()
        {
            wakers.extend(oldest.get_mut().take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn is_oldest_reader(reader_wakers: &BTreeMap<usize, Option<Waker>>, index: usize) -> bool {
    reader_wakers.keys().next() == Some(&index)
}

/// One input's share of a [`BodyBudget`]. Dropping a reservation counts the result of its input as
/// delivered.
pub(crate) struct BodyReservation {
    budget: Arc<BodyBudget>,
    input_index: usize,
    reserved_bytes: u64,
    /// The timer with which this reader waits until the input of the next result has backed off.
    next_result_backoff_timer: Option<Pin<Box<Sleep>>>,
}

impl BodyReservation {
    pub(crate) fn new(budget: &Arc<BodyBudget>, index: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            input_index: index,
            reserved_bytes: 0,
            next_result_backoff_timer: None,
        }
    }

    /// Registers this input's body as being read.
    pub(crate) fn start_reading(&self) {
        let mut state = self.budget.lock();
        state.reader_wakers.insert(self.input_index, None);
        state.backoff_ends.remove(&self.input_index);
    }

    /// Waits until the next chunk may be read.
    ///
    /// Also waits in one more case. If results are delivered in input order, the budget is full and
    /// the input of the next result is backing off, this reader waits until that backoff ends: the
    /// next attempt of that input may need the slot that this reader holds.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next_result_backoff_end = {
                let mut state = self.budget.lock();
                let can_read = self.budget.can_read(&state, self.input_index);
                let next_result_backoff_end = if state.used_bytes < self.budget.max_bytes {
                    None
                } else {
                    self.budget.next_result_backoff_end(&state)
                };
                if can_read && next_result_backoff_end.is_none() {
                    return Poll::Ready(());
                }
                state
                    .reader_wakers
                    .insert(self.input_index, Some(cx.waker().clone()));
                next_result_backoff_end.filter(|_| can_read)
            };
            let Some(backoff_end) = next_result_backoff_end else {
                self.next_result_backoff_timer = None;
                return Poll::Pending;
            };
            let timer = self
                .next_result_backoff_timer
                .get_or_insert_with(|| Box::pin(sleep_until(backoff_end)));
            if timer.deadline() != backoff_end {
                timer.as_mut().reset(backoff_end);
            }
            ready!(timer.as_mut().poll(cx));
            self.next_result_backoff_timer = None;
        }
    }

    /// Counts bytes of the body that were read into memory.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved_bytes += bytes as u64;
        self.budget.lock().used_bytes += bytes as u64;
    }

    /// Ends an exchange. `end` decides whether the memory of its body stays reserved.
    pub(crate) fn end_exchange(&mut self, end: ExchangeEnd) {
        self.next_result_backoff_timer = None;
        let released_bytes = match end {
            ExchangeEnd::Response => 0,
            ExchangeEnd::Error | ExchangeEnd::Continues { .. } => {
                std::mem::take(&mut self.reserved_bytes)
            }
        };
        self.budget.update_and_wake_readers(|state| {
            state.used_bytes -= released_bytes;
            state.reader_wakers.remove(&self.input_index);
            match end {
                ExchangeEnd::Response | ExchangeEnd::Error => {
                    state.undelivered_results.insert(self.input_index);
                }
                ExchangeEnd::Continues { backoff_end } => {
                    let backoff_end = backoff_end.map(|at| (self.input_index, at));
                    state.backoff_ends.extend(backoff_end);
                }
            }
        });
    }
}

/// How an exchange ended, which decides whether the memory of its body stays reserved.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ExchangeEnd {
    /// The result is a response. The memory of its body stays reserved until the result is
    /// delivered.
    Response,
    /// The result is an error, so the memory of the body is released.
    Error,
    /// The request continues with another attempt or hop, so the memory of the body is released. If
    /// the request backs off, the next attempt may start at `backoff_end`.
    Continues { backoff_end: Option<Instant> },
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.budget.update_and_wake_readers(|state| {
            state.used_bytes -= self.reserved_bytes;
            state.reader_wakers.remove(&self.input_index);
            state.backoff_ends.remove(&self.input_index);
            state.undelivered_results.remove(&self.input_index);
            state.delivered_count += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    fn start_reading(budget: &Arc<BodyBudget>, count: usize) -> Vec<BodyReservation> {
        let reservations: Vec<_> = (0..count)
            .map(|index| BodyReservation::new(budget, index))
            .collect();
        reservations.iter().for_each(BodyReservation::start_reading);
        reservations
    }

    /// Returns the indexes of the inputs that may read now.
    fn indexes_with_room(reservations: &mut [BodyReservation]) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let has_room = |reservation: &mut BodyReservation| {
            let poll = reservation.poll_room(&mut cx);
            poll.is_ready().then_some(reservation.input_index)
        };
        reservations.iter_mut().filter_map(has_room).collect()
    }

    #[test]
    fn all_readers_have_room_until_the_budget_is_full_then_only_the_oldest() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_reading(&budget, 3);
        reservations[1].reserve(9);
        assert_eq!(indexes_with_room(&mut reservations), [0, 1, 2]);
        reservations[2].reserve(1);
        assert_eq!(indexes_with_room(&mut reservations), [0]);
    }

    #[test]
    fn full_budget_blocks_every_reader_while_a_result_is_ready() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_reading(&budget, 3);
        reservations[2].reserve(10);
        reservations[2].end_exchange(ExchangeEnd::Response);
        assert!(indexes_with_room(&mut reservations).is_empty());
        drop(reservations.pop());
        assert_eq!(indexes_with_room(&mut reservations), [0, 1]);
        assert_eq!(budget.lock().used_bytes, 0);
    }

    #[test]
    fn in_order_only_the_next_result_counts_as_ready() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_reading(&budget, 3);
        reservations[2].reserve(10);
        reservations[2].end_exchange(ExchangeEnd::Response);
        assert_eq!(indexes_with_room(&mut reservations[..2]), [0]);
        reservations[0].reserve(10);
        reservations[0].end_exchange(ExchangeEnd::Response);
        assert!(indexes_with_room(&mut reservations[1..2]).is_empty());
        drop(reservations.remove(0));
        assert_eq!(indexes_with_room(&mut reservations[..1]), [1]);
    }

    #[test]
    fn failed_attempt_releases_its_bytes_and_its_place_as_oldest_reader() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_reading(&budget, 3);
        reservations[0].reserve(20);
        reservations[0].end_exchange(ExchangeEnd::Continues { backoff_end: None });
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1, 2]);
        reservations[2].reserve(10);
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "the oldest body that is being read"
        );
        reservations[0].start_reading();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].end_exchange(ExchangeEnd::Error);
        assert!(
            indexes_with_room(&mut reservations).is_empty(),
            "the error can be delivered"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_order_full_budget_blocks_readers_while_the_next_result_backs_off() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_reading(&budget, 4);
        reservations[1].reserve(20);
        let soon = Instant::now() + Duration::from_secs(5);
        let later = soon + Duration::from_secs(60);
        reservations[0].end_exchange(ExchangeEnd::Continues {
            backoff_end: Some(soon),
        });
        reservations[2].end_exchange(ExchangeEnd::Continues {
            backoff_end: Some(later),
        });
        assert!(indexes_with_room(&mut reservations[1..]).is_empty());
        sleep_until(soon).await;
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "input 0 may need a slot"
        );
        reservations[0].start_reading();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].end_exchange(ExchangeEnd::Response);
        drop(reservations.remove(0));
        assert_eq!(
            indexes_with_room(&mut reservations),
            [1],
            "input 1 is next in order"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn reader_is_woken_when_the_backoff_of_the_next_result_ends() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = start_reading(&budget, 2);
        reservations[1].reserve(20);
        let soon = Instant::now() + Duration::from_secs(5);
        reservations[0].end_exchange(ExchangeEnd::Continues {
            backoff_end: Some(soon),
        });
        let waiting = &mut reservations[1];
        poll_fn(|cx| waiting.poll_room(cx)).await;
        assert_eq!(Instant::now(), soon);
    }

    #[test]
    fn as_completed_a_backoff_blocks_no_reader() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = start_reading(&budget, 2);
        reservations[1].reserve(20);
        let later = Instant::now() + Duration::from_secs(5);
        reservations[0].end_exchange(ExchangeEnd::Continues {
            backoff_end: Some(later),
        });
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1]);
    }
}
