//! The order in which the queues of a batch are checked for a start. A queue holds the jobs of the
//! batch for one lane (usually a host).
//!
//! A run queue orders queues by the highest priority among their ready jobs, and round-robin within
//! one priority. When the highest priority of a queue rises, the queue gets a second entry at the
//! higher priority. The older entry becomes stale and is skipped when its turn comes, so no
//! operation searches the run queue. A queue has at most one entry per [`RunQueueKey`].

use std::collections::VecDeque;

use super::parking::LotId;
use super::priority::PriorityLevel;
use super::run_state::RunState;
use super::{Schedulable, Schedule};

/// The rank of an entry in a run queue. Entries with the same key take turns.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct RunQueueKey {
    /// The highest level of the queue's ready jobs.
    pub(super) level: PriorityLevel,
    /// Whether a parking lot has woken the queue, because its gate may have opened. Such a queue
    /// precedes other queues of its level. After it has been checked, the next queue of the lot is
    /// woken.
    pub(super) is_woken: bool,
}

/// The number of different [`RunQueueKey`]s.
const KEY_COUNT: usize = 6;
/// The [`RunQueueKey::bit`]s of the keys with `is_woken`.
const WOKEN_BITS: u8 = 0b10_1010;

impl RunQueueKey {
    /// The rank among all keys. Entries with the highest rank come first.
    fn index(self) -> usize {
        2 * self.level as usize + usize::from(self.is_woken)
    }

    fn from_index(index: usize) -> Self {
        Self {
            level: [
                PriorityLevel::Low,
                PriorityLevel::Normal,
                PriorityLevel::High,
            ][index / 2],
            is_woken: index % 2 == 1,
        }
    }

    fn bit(self) -> u8 {
        1 << self.index()
    }
}

/// The runnable queues of a batch, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// The slab indices of the queues with each key, by [`RunQueueKey::index`].
    entries: [VecDeque<usize>; KEY_COUNT],
    /// The [`RunQueueKey::bit`]s of the keys that have an entry.
    occupied_keys: u8,
}

impl RunQueue {
    fn push_back(&mut self, key: RunQueueKey, queue: usize) {
        self.occupied_keys |= key.bit();
        self.entries[key.index()].push_back(queue);
    }

    fn push_front(&mut self, key: RunQueueKey, queue: usize) {
        self.occupied_keys |= key.bit();
        self.entries[key.index()].push_front(queue);
    }

    fn len(&self, key: RunQueueKey) -> usize {
        self.entries[key.index()].len()
    }

    /// Whether the run queue has no entry, not even a stale one.
    pub(super) fn is_empty(&self) -> bool {
        self.occupied_keys == 0
    }

    /// The number of entries, including stale ones.
    #[cfg(test)]
    pub(super) fn entry_count(&self) -> usize {
        self.entries.iter().map(VecDeque::len).sum()
    }

    fn pop(&mut self) -> Option<(usize, RunQueueKey)> {
        self.pop_among(self.occupied_keys)
    }

    fn pop_woken(&mut self) -> Option<(usize, RunQueueKey)> {
        self.pop_among(self.occupied_keys & WOKEN_BITS)
    }

    /// Removes the first entry with the highest key among those whose bit is set in `key_bits`.
    fn pop_among(&mut self, key_bits: u8) -> Option<(usize, RunQueueKey)> {
        let index = key_bits.checked_ilog2()? as usize;
        let entries = &mut self.entries[index];
        let queue = entries.pop_front()?;
        if entries.is_empty() {
            self.occupied_keys &= !(1 << index);
        }
        Some((queue, RunQueueKey::from_index(index)))
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Makes a queue runnable at the level of its highest job. `woken_by` is the lot that has woken
    /// it, if any.
    pub(super) fn enqueue(&mut self, queue: usize, woken_by: Option<LotId>) {
        let enqueued = &mut self.queues[queue];
        let key = RunQueueKey {
            level: enqueued.ready_jobs.highest_level().unwrap_or_default(),
            is_woken: woken_by.is_some(),
        };
        enqueued.woken_by = woken_by;
        enqueued.run_state = RunState::Runnable;
        enqueued.run_queue_key = key;
        if enqueued.run_queue_entries & key.bit() == 0 {
            enqueued.run_queue_entries |= key.bit();
            self.batches[enqueued.batch].run_queue.push_back(key, queue);
        }
    }

    /// Makes a queue runnable again after one of its jobs has started.
    ///
    /// In each round over the queues of a batch, a queue has turns in proportion to its share of
    /// the batch's queued jobs, and at least one turn. A round is thus at most twice as long as
    /// with one turn per queue, and the lanes with the most jobs are not left for the end.
    pub(super) fn enqueue_after_start(&mut self, queue: usize) {
        let enqueued = &mut self.queues[queue];
        let key = RunQueueKey {
            level: enqueued.ready_jobs.highest_level().unwrap_or_default(),
            is_woken: false,
        };
        let batch = &mut self.batches[enqueued.batch];
        if enqueued.turns_left > 0 && enqueued.run_queue_entries & key.bit() == 0 {
            enqueued.turns_left -= 1;
            enqueued.woken_by = None;
            enqueued.run_state = RunState::Runnable;
            enqueued.run_queue_key = key;
            enqueued.run_queue_entries |= key.bit();
            batch.run_queue.push_front(key, queue);
            return;
        }
        // The queue's turns in a round over all runnable queues, multiplied by the batch's number
        // of queued jobs.
        let weighted_jobs = enqueued.ready_jobs.len() * (batch.run_queue.len(key) + 1);
        enqueued.turns_left = if weighted_jobs >= 2 * batch.queued_count {
            weighted_jobs / batch.queued_count.max(1) - 1
        } else {
            0
        };
        self.enqueue(queue, None);
    }

    /// Makes a queue runnable after a job was added, or raises its rank if the job has a higher
    /// priority level than the jobs before.
    pub(super) fn update_run_queue(&mut self, queue: usize) {
        let updated = &self.queues[queue];
        match updated.run_state {
            RunState::Idle => self.make_queue_runnable(queue),
            RunState::Runnable
                if updated.ready_jobs.highest_level() > Some(updated.run_queue_key.level) =>
            {
                self.enqueue(queue, updated.woken_by);
            }
            RunState::Runnable | RunState::Parked | RunState::ParkedIn(_) => {}
        }
    }

    /// Removes the queue whose turn it is, and returns the lot that has woken it, if any.
    pub(super) fn pop_runnable_queue(&mut self, batch: usize) -> Option<(usize, Option<LotId>)> {
        loop {
            let (queue, key) = self.batches[batch].run_queue.pop()?;
            if self.remove_entry(queue, key) {
                return Some((queue, self.queues[queue].woken_by));
            }
        }
    }

    /// Removes the first queue that a lot has woken, and returns that lot.
    pub(super) fn pop_woken_queue(&mut self, batch: usize) -> Option<(usize, LotId)> {
        loop {
            let (queue, key) = self.batches[batch].run_queue.pop_woken()?;
            if self.remove_entry(queue, key)
                && let Some(lot) = self.queues[queue].woken_by
            {
                return Some((queue, lot));
            }
        }
    }

    /// Records that an entry was removed. Returns false if the entry was stale.
    fn remove_entry(&mut self, queue: usize, key: RunQueueKey) -> bool {
        let removed = &mut self.queues[queue];
        removed.run_queue_entries &= !key.bit();
        removed.run_state == RunState::Runnable && removed.run_queue_key == key
    }
}
