//! The memory budget of a batch's response bodies, which provides backpressure.
//!
//! The budget counts the bytes of the bodies that are being read, and of the bodies of results that
//! are not yet delivered. A worker waits for room in the budget before it reads each chunk. When
//! the budget is full, only the oldest body may grow, and only while the consumer (the task that
//! takes the results) has no result to take. The batch therefore always makes progress, but no
//! faster than its consumer.

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
    delivers_results_in_input_order: bool,
    locked_state: Mutex<BodyBudgetState>,
}

/// The state of a budget. Inputs are identified by their index in the batch.
#[derive(Default)]
struct BodyBudgetState {
    used_bytes: u64,
    /// The inputs whose bodies are being read. The value is the waker of a worker that waits for
    /// room in the budget.
    reader_wakers: BTreeMap<usize, Option<Waker>>,
    /// The end of the backoff of each input that waits for its next attempt, by index of the input.
    backoff_end_by_input: BTreeMap<usize, Instant>,
    /// The inputs whose results are ready but not delivered.
    inputs_with_undelivered_result: BTreeSet<usize>,
    /// The number of delivered results.
    delivered_result_count: usize,
}

impl BodyBudget {
    pub(crate) fn new(max_bytes: u64, delivers_results_in_input_order: bool) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            delivers_results_in_input_order,
            locked_state: Mutex::default(),
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, BodyBudgetState> {
        self.locked_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn may_read_next_chunk(&self, state: &BodyBudgetState, index: usize) -> bool {
        state.used_bytes < self.max_bytes
            || (!self.has_deliverable_result(state)
                && is_oldest_reader(&state.reader_wakers, index))
    }

    /// Returns the end of the backoff of the input whose result is delivered next. Returns `None`
    /// if that input is not backing off, or if results are delivered in any order.
    fn next_result_backoff_end(&self, state: &BodyBudgetState) -> Option<Instant> {
        let backoff_end = state
            .backoff_end_by_input
            .get(&state.delivered_result_count);
        let backoff_end = backoff_end.filter(|_| self.delivers_results_in_input_order)?;
        (*backoff_end > Instant::now()).then_some(*backoff_end)
    }

    /// Whether the consumer could take a result now.
    fn has_deliverable_result(&self, state: &BodyBudgetState) -> bool {
        if self.delivers_results_in_input_order {
            state
                .inputs_with_undelivered_result
                .contains(&state.delivered_result_count)
        } else {
            !state.inputs_with_undelivered_result.is_empty()
        }
    }

    /// Applies `change`, then wakes the workers that may read again. The wakers are called after
    /// the lock is released.
    fn update_and_wake_readers(&self, change: impl FnOnce(&mut BodyBudgetState)) {
        let mut state = self.lock_state();
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

/// The bytes that one input holds in a [`BodyBudget`]. Dropping the reservation releases the bytes
/// and marks the result of the input as delivered.
pub(crate) struct BodyReservation {
    budget: Arc<BodyBudget>,
    input_index: usize,
    reserved_bytes: u64,
    /// The timer of a reader that waits for the end of the backoff of another input: the one whose
    /// result is delivered next.
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
    pub(crate) fn register_body_reader(&self) {
        let mut state = self.budget.lock_state();
        state.reader_wakers.insert(self.input_index, None);
        state.backoff_end_by_input.remove(&self.input_index);
    }

    /// Waits until this input may read the next chunk of its body.
    ///
    /// If results are delivered in input order, and the input of the next result is backing off, a
    /// full budget blocks all readers until the backoff ends: the next attempt of that input may
    /// need the slot that a reader holds.
    pub(crate) fn poll_room_for_next_chunk(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next_result_backoff_end = {
                let mut state = self.budget.lock_state();
                let may_read_next_chunk = self.budget.may_read_next_chunk(&state, self.input_index);
                let next_result_backoff_end = if state.used_bytes < self.budget.max_bytes {
                    None
                } else {
                    self.budget.next_result_backoff_end(&state)
                };
                if may_read_next_chunk && next_result_backoff_end.is_none() {
                    return Poll::Ready(());
                }
                state
                    .reader_wakers
                    .insert(self.input_index, Some(cx.waker().clone()));
                next_result_backoff_end.filter(|_| may_read_next_chunk)
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

    /// Adds bytes of the body, which were read into memory, to the budget.
    pub(crate) fn add_reserved_bytes(&mut self, bytes: usize) {
        self.reserved_bytes += bytes as u64;
        self.budget.lock_state().used_bytes += bytes as u64;
    }

    /// Records how an exchange ended. `end` decides whether the bytes of its body stay in the
    /// budget.
    pub(crate) fn record_exchange_end(&mut self, end: ExchangeEnd) {
        self.next_result_backoff_timer = None;
        let released_bytes = match end {
            ExchangeEnd::ResultIsResponse => 0,
            ExchangeEnd::ResultIsError | ExchangeEnd::RequestContinues { .. } => {
                std::mem::take(&mut self.reserved_bytes)
            }
        };
        self.budget.update_and_wake_readers(|state| {
            state.used_bytes -= released_bytes;
            state.reader_wakers.remove(&self.input_index);
            match end {
                ExchangeEnd::ResultIsResponse | ExchangeEnd::ResultIsError => {
                    state
                        .inputs_with_undelivered_result
                        .insert(self.input_index);
                }
                ExchangeEnd::RequestContinues { backoff_end } => {
                    let backoff_end = backoff_end.map(|at| (self.input_index, at));
                    state.backoff_end_by_input.extend(backoff_end);
                }
            }
        });
    }
}

/// The end of an exchange, which decides whether the bytes of its body stay in the budget.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ExchangeEnd {
    /// The result is a response. The bytes of its body stay in the budget until the result is
    /// delivered.
    ResultIsResponse,
    /// The result is an error. The bytes of the body are released from the budget.
    ResultIsError,
    /// The request continues with another attempt or hop. The bytes of the body are released from
    /// the budget. If the request backs off, the next attempt starts at `backoff_end` or later.
    RequestContinues { backoff_end: Option<Instant> },
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.budget.update_and_wake_readers(|state| {
            state.used_bytes -= self.reserved_bytes;
            state.reader_wakers.remove(&self.input_index);
            state.backoff_end_by_input.remove(&self.input_index);
            state
                .inputs_with_undelivered_result
                .remove(&self.input_index);
            state.delivered_result_count += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    fn register_body_reader(budget: &Arc<BodyBudget>, count: usize) -> Vec<BodyReservation> {
        let reservations: Vec<_> = (0..count)
            .map(|index| BodyReservation::new(budget, index))
            .collect();
        reservations
            .iter()
            .for_each(BodyReservation::register_body_reader);
        reservations
    }

    /// Returns the indexes of the inputs that may read now.
    fn indexes_with_room(reservations: &mut [BodyReservation]) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let has_room = |reservation: &mut BodyReservation| {
            let poll = reservation.poll_room_for_next_chunk(&mut cx);
            poll.is_ready().then_some(reservation.input_index)
        };
        reservations.iter_mut().filter_map(has_room).collect()
    }

    #[test]
    fn all_readers_have_room_until_the_budget_is_full_then_only_the_oldest() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = register_body_reader(&budget, 3);
        reservations[1].add_reserved_bytes(9);
        assert_eq!(indexes_with_room(&mut reservations), [0, 1, 2]);
        reservations[2].add_reserved_bytes(1);
        assert_eq!(indexes_with_room(&mut reservations), [0]);
    }

    #[test]
    fn full_budget_blocks_every_reader_while_a_result_is_ready() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = register_body_reader(&budget, 3);
        reservations[2].add_reserved_bytes(10);
        reservations[2].record_exchange_end(ExchangeEnd::ResultIsResponse);
        assert!(indexes_with_room(&mut reservations).is_empty());
        drop(reservations.pop());
        assert_eq!(indexes_with_room(&mut reservations), [0, 1]);
        assert_eq!(budget.lock_state().used_bytes, 0);
    }

    #[test]
    fn in_order_only_the_next_result_counts_as_ready() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = register_body_reader(&budget, 3);
        reservations[2].add_reserved_bytes(10);
        reservations[2].record_exchange_end(ExchangeEnd::ResultIsResponse);
        assert_eq!(indexes_with_room(&mut reservations[..2]), [0]);
        reservations[0].add_reserved_bytes(10);
        reservations[0].record_exchange_end(ExchangeEnd::ResultIsResponse);
        assert!(indexes_with_room(&mut reservations[1..2]).is_empty());
        drop(reservations.remove(0));
        assert_eq!(indexes_with_room(&mut reservations[..1]), [1]);
    }

    #[test]
    fn failed_attempt_releases_its_bytes_and_its_place_as_oldest_reader() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = register_body_reader(&budget, 3);
        reservations[0].add_reserved_bytes(20);
        reservations[0].record_exchange_end(ExchangeEnd::RequestContinues { backoff_end: None });
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1, 2]);
        reservations[2].add_reserved_bytes(10);
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "the oldest body that is being read"
        );
        reservations[0].register_body_reader();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].record_exchange_end(ExchangeEnd::ResultIsError);
        assert!(
            indexes_with_room(&mut reservations).is_empty(),
            "the error can be delivered"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_order_full_budget_blocks_readers_while_the_next_result_backs_off() {
        let budget = BodyBudget::new(10, true);
        let mut reservations = register_body_reader(&budget, 4);
        reservations[1].add_reserved_bytes(20);
        let soon = Instant::now() + Duration::from_secs(5);
        let later = soon + Duration::from_secs(60);
        reservations[0].record_exchange_end(ExchangeEnd::RequestContinues {
            backoff_end: Some(soon),
        });
        reservations[2].record_exchange_end(ExchangeEnd::RequestContinues {
            backoff_end: Some(later),
        });
        assert!(indexes_with_room(&mut reservations[1..]).is_empty());
        sleep_until(soon).await;
        assert_eq!(
            indexes_with_room(&mut reservations[1..]),
            [1],
            "input 0 may need a slot"
        );
        reservations[0].register_body_reader();
        assert_eq!(indexes_with_room(&mut reservations), [0]);
        reservations[0].record_exchange_end(ExchangeEnd::ResultIsResponse);
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
        let mut reservations = register_body_reader(&budget, 2);
        reservations[1].add_reserved_bytes(20);
        let soon = Instant::now() + Duration::from_secs(5);
        reservations[0].record_exchange_end(ExchangeEnd::RequestContinues {
            backoff_end: Some(soon),
        });
        let waiting = &mut reservations[1];
        poll_fn(|cx| waiting.poll_room_for_next_chunk(cx)).await;
        assert_eq!(Instant::now(), soon);
    }

    #[test]
    fn as_completed_a_backoff_blocks_no_reader() {
        let budget = BodyBudget::new(10, false);
        let mut reservations = register_body_reader(&budget, 2);
        reservations[1].add_reserved_bytes(20);
        let later = Instant::now() + Duration::from_secs(5);
        reservations[0].record_exchange_end(ExchangeEnd::RequestContinues {
            backoff_end: Some(later),
        });
        assert_eq!(indexes_with_room(&mut reservations[1..]), [1]);
    }
}
