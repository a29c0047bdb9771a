//! The look-ahead window: how many inputs are pulled before their results are delivered.
//!
//! The window is bounded by the number of its inputs and, by default, by the bytes of their bodies.
//! The window grows while a slot is idle because host limits hold back all its inputs: a later
//! input may be for another host.

use crate::request::Request;

/// Default upper bound of the window size.
const DEFAULT_MAX_CAPACITY: usize = 65_536;
/// The initial size of the look-ahead window per unit of concurrency. In a batch of 100,000
/// requests, a value of 16 wakes the consumer 270 times. A value of 2 wakes it 30,000 times and
/// takes a third more CPU.
const INITIAL_CAPACITY_PER_SLOT: usize = 16;
/// Default bound of the bytes of in-memory request bodies in the window (64 MiB).
const DEFAULT_MAX_REQUEST_BODY_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct LookAheadWindow {
    /// Largest `undelivered_count` at present, in inputs.
    capacity: usize,
    max_capacity: usize,
    max_request_body_bytes: usize,
    concurrency: usize,
    /// Number of pulled inputs whose result was not delivered.
    undelivered_count: usize,
    /// Bytes of the in-memory bodies of the undelivered inputs.
    request_body_bytes: usize,
    /// Lane key of the first valid input.
    first_lane_key: Option<Box<str>>,
    /// Whether any input was for another lane than the first one.
    has_several_lanes: bool,
}

impl LookAheadWindow {
    /// `look_ahead` is the fixed window size that the user has set. With it, the bytes of request
    /// bodies are not limited.
    pub(super) fn new(concurrency: usize, look_ahead: Option<usize>) -> Self {
        Self {
            capacity: look_ahead.unwrap_or_else(|| initial_capacity(concurrency)),
            max_capacity: look_ahead.unwrap_or(DEFAULT_MAX_CAPACITY),
            max_request_body_bytes: look_ahead
                .map_or(DEFAULT_MAX_REQUEST_BODY_BYTES, |_| usize::MAX),
            concurrency,
            undelivered_count: 0,
            request_body_bytes: 0,
            first_lane_key: None,
            has_several_lanes: false,
        }
    }

    pub(super) fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency = concurrency;
        let capacity = initial_capacity(concurrency).min(self.max_capacity);
        self.capacity = self.capacity.max(capacity);
    }

    pub(super) fn undelivered_count(&self) -> usize {
        self.undelivered_count
    }

    /// Adds a pulled input. `lane` is `None` if the input is invalid.
    pub(super) fn add_input(&mut self, request: &Request, lane: Option<&str>) {
        self.undelivered_count += 1;
        self.request_body_bytes += in_memory_request_body_len(request);
        if self.has_several_lanes {
            return;
        }
        match (&self.first_lane_key, lane) {
            (Some(first), Some(lane)) => self.has_several_lanes = **first != *lane,
            (None, Some(lane)) => self.first_lane_key = Some(lane.into()),
            (_, None) => {}
        }
    }

    /// Removes an input whose result is delivered.
    pub(super) fn remove_delivered_input(&mut self, request: &Request) {
        self.undelivered_count -= 1;
        self.request_body_bytes -= in_memory_request_body_len(request);
    }

    /// Whether another input may be pulled. The limit on body bytes applies only once there is an
    /// input for every slot.
    pub(super) fn has_room(&self) -> bool {
        self.undelivered_count < self.capacity
            && (self.undelivered_count < self.concurrency
                || self.request_body_bytes < self.max_request_body_bytes)
    }

    /// The number of undelivered inputs at which the window is filled again: half the capacity, but
    /// at least enough to keep every slot busy.
    pub(super) fn refill_threshold(&self) -> usize {
        let busy_slots = self.concurrency.min(self.capacity);
        (self.capacity / 2).max(busy_slots - 1)
    }

    /// Whether the window may grow. While all inputs are in one lane, a window that holds request
    /// bodies does not grow, because more inputs of that lane could not start.
    pub(super) fn can_grow(&self) -> bool {
        self.capacity < self.max_capacity
            && self.request_body_bytes < self.max_request_body_bytes
            && (self.has_several_lanes || self.request_body_bytes == 0)
    }

    /// Doubles the capacity if the window is full and may grow.
    pub(super) fn grow_if_full(&mut self) {
        if self.undelivered_count >= self.capacity && self.can_grow() {
            self.capacity = self.capacity.saturating_mul(2).min(self.max_capacity);
        }
    }
}

fn initial_capacity(concurrency: usize) -> usize {
    concurrency
        .saturating_mul(INITIAL_CAPACITY_PER_SLOT)
        .min(DEFAULT_MAX_CAPACITY)
}

fn in_memory_request_body_len(request: &Request) -> usize {
    request.body().as_bytes().map_or(0, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Option<&str> = Some("http://a.example");
    const OTHER_LANE: Option<&str> = Some("http://b.example");

    fn request(body_len: usize) -> Request {
        Request::put("http://a.example/")
            .body(vec![0; body_len])
            .build()
    }

    /// Adds inputs with this body length until there is no room, and returns their number.
    fn fill(window: &mut LookAheadWindow, body_len: usize) -> usize {
        let request = request(body_len);
        let before = window.undelivered_count;
        while window.has_room() {
            window.add_input(&request, LANE);
        }
        window.undelivered_count - before
    }

    #[test]
    fn window_of_one_lane_with_bodies_does_not_grow() {
        let mut window = LookAheadWindow::new(4, None);
        assert_eq!(fill(&mut window, 1), 64);
        window.grow_if_full();
        assert!(!window.can_grow() && !window.has_room());
    }

    #[test]
    fn window_without_bodies_doubles_up_to_its_bound() {
        let mut window = LookAheadWindow::new(4, None);
        let mut sizes = Vec::new();
        while window.can_grow() {
            fill(&mut window, 0);
            window.grow_if_full();
            sizes.push(window.capacity);
        }
        assert_eq!(sizes.first(), Some(&128));
        assert_eq!(sizes.last(), Some(&65_536));
    }

    #[test]
    fn window_with_bodies_grows_after_a_second_lane_was_seen() {
        let mut window = LookAheadWindow::new(4, None);
        window.add_input(&request(1), OTHER_LANE);
        window.remove_delivered_input(&request(1));
        assert_eq!(fill(&mut window, 1), 64);
        window.grow_if_full();
        assert_eq!(fill(&mut window, 1), 64);
    }

    #[test]
    fn bodies_in_the_window_are_bounded_by_bytes() {
        let mut window = LookAheadWindow::new(4, None);
        assert_eq!(fill(&mut window, 16 << 20), 4);
        window.remove_delivered_input(&request(16 << 20));
        assert_eq!(fill(&mut window, 4 << 20), 4);
        assert!(!window.can_grow());
    }

    #[test]
    fn large_bodies_do_not_reduce_the_concurrency() {
        let mut window = LookAheadWindow::new(4, None);
        assert_eq!(fill(&mut window, 64 << 20), 4);
    }

    #[test]
    fn look_ahead_that_was_set_is_not_bounded_by_bytes() {
        let mut window = LookAheadWindow::new(4, Some(20));
        assert_eq!(fill(&mut window, 8 << 20), 20);
        assert!(!window.can_grow());
    }
}
