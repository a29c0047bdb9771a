//! A host's own limits, as it announces them: so many more until it counts anew.
//!
//! The host counted what had started before the answer it says this in; what started since comes off. Then:
//!
//! - what waits here and fits into what is left starts at once;
//! - what does not fit would have to wait for the host to count anew in any case, so what is left is spread over that
//!   time;
//! - when nothing is left nothing starts until then; and then one goes ahead and finds out what is allowed now.
//!
//! So the lane never waits longer than until the host counts anew, which is at most [`MOST`] away.

use super::gate::Admission;
use super::{Schedulable, Schedule, Slot, Time};

/// No announcement is heeded for longer: after that one goes and asks.
const MOST: u64 = 300_000_000_000;
/// Hosts speak in whole seconds, so two announcements of one instant may differ by so much.
const RESOLUTION: u64 = 1_000_000_000;
/// For so long others wait for what the first one is told.
const ASKING: u64 = 2_000_000_000;

#[derive(Clone, Debug, Default)]
pub(super) struct ServerLimit {
    left: u64,
    /// When the host counts anew.
    reset: Time,
    /// The least time between two starts.
    interval: u64,
    last: Time,
    /// The announcement was made to this start.
    number: u64,
    /// Since when one that started after the reset is out to ask.
    asking: Option<Time>,
}

impl ServerLimit {
    /// `waiting` are in line for what is left.
    fn heed(&mut self, left: u64, reset: u64, slot: &Slot, starts: u64, waiting: u64, now: Time) {
        if slot.number < self.number {
            return;
        }
        let mut at = now.plus_nanos(reset.min(MOST));
        let is_same = self.reset > now
            && at.nanos_since(self.reset) <= RESOLUTION
            && self.reset.nanos_since(at) <= RESOLUTION;
        if is_same {
            at = at.min(self.reset);
        }
        self.number = slot.number;
        self.left = left.saturating_sub(starts - slot.number);
        self.reset = match reset {
            // "In no time", by a clock of whole seconds.
            0 => now.plus_nanos(RESOLUTION),
            _ => at,
        };
        self.interval = match self.left {
            0 => 0,
            left if waiting <= left => 0,
            left => self.reset.nanos_since(now) / (left + 1),
        };
        self.asking = None;
    }

    pub(super) fn check(&self, now: Time) -> Admission {
        let next = self.last.plus_nanos(self.interval);
        match self.asking {
            _ if now < self.reset && self.left == 0 => Admission::NotBefore(self.reset),
            _ if now < self.reset && now < next => Admission::NotBefore(next.min(self.reset)),
            Some(since) if now < since.plus_nanos(ASKING) => {
                Admission::NoLaterThan(since.plus_nanos(ASKING))
            }
            _ => Admission::Granted,
        }
    }

    pub(super) fn enter(&mut self, now: Time) {
        self.last = now;
        if now < self.reset {
            self.left -= 1;
        } else {
            self.asking.get_or_insert(now);
        }
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        self.reset <= now
    }
}

impl<J: Schedulable> Schedule<J> {
    /// The host said in its answer to the exchange in this slot, which is about to be settled, that it allows `left` more,
    /// and counts anew after `reset` nanoseconds.
    pub(crate) fn observe_server_limit(&mut self, slot: &Slot, left: u64, reset: u64, now: Time) {
        let queue = &self.queues[slot.queue];
        let waiting = queue.ready.len() + queue.backing_off;
        let lane = &mut self.lanes[slot.lane];
        let quota = lane.gate.quota.get_or_insert_default();
        quota.heed(left, reset, slot, lane.starts, waiting as u64, now);
        self.call_up(slot.lane);
    }

    /// An answer that announces nothing, to one that asked, says that there is no such limit any more.
    pub(super) fn forget_quota(&mut self, slot: &Slot) {
        let gate = &mut self.lanes[slot.lane].gate;
        let asked = |quota: &ServerLimit| quota.asking.is_some() && slot.number > quota.number;
        if gate.quota.as_deref().is_some_and(asked) {
            gate.quota = None;
            self.call_up(slot.lane);
        }
    }
}
