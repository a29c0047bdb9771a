//! The order in which the queues of a batch are checked for a start. A queue holds the jobs of the
//! batch for one route (a way to reach a host).
//!
//! A run queue orders queues by the highest priority of their ready jobs, and round-robin within
//! one priority. If a job of a higher priority is added, its queue gets a second entry at the
//! higher priority. The older entry becomes stale, and is skipped when its turn comes. No operation
//! thus searches the run queue. A queue has at most one entry per [`RunQueueRank`].

use std::collections::VecDeque;

use super::parking::ParkingLotId;
use super::priority::PriorityLevel;
use super::run_state::RunState;
use super::{Schedulable, Schedule};

/// The rank of an entry in a run queue. Entries with the same rank take turns.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct RunQueueRank {
    /// The highest level of the queue's ready jobs.
    pub(super) level: PriorityLevel,
    /// Whether a parking lot has woken the queue. A woken queue goes before other queues of its
    /// level. After it has been checked, the parking lot wakes its next queue.
    pub(super) is_woken: bool,
}

/// The number of different [`RunQueueRank`]s.
const RANK_COUNT: usize = 6;
/// The [`RunQueueRank::rank_bit`]s of all ranks whose `is_woken` is true.
const WOKEN_RANK_BITS: u8 = 0b10_1010;

impl RunQueueRank {
    /// The position of the rank in ascending order.
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

    fn rank_bit(self) -> u8 {
        1 << self.index()
    }
}

/// The runnable queues of a batch, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// One list per rank: the slab indices of the queues of that rank, in the order of their turns.
    entries_by_rank: [VecDeque<usize>; RANK_COUNT],
    /// The [`RunQueueRank::rank_bit`]s of the ranks that have an entry.
    occupied_rank_bits: u8,
}

impl RunQueue {
    fn push_back(&mut self, rank: RunQueueRank, queue: usize) {
        self.occupied_rank_bits |= rank.rank_bit();
        self.entries_by_rank[rank.index()].push_back(queue);
    }

    fn push_front(&mut self, rank: RunQueueRank, queue: usize) {
        self.occupied_rank_bits |= rank.rank_bit();
        self.entries_by_rank[rank.index()].push_front(queue);
    }

    fn entry_count_of_rank(&self, rank: RunQueueRank) -> usize {
        self.entries_by_rank[rank.index()].len()
    }

    /// Whether the run queue has no entry, not even a stale one.
    pub(super) fn is_empty(&self) -> bool {
        self.occupied_rank_bits == 0
    }

    /// The number of entries, including stale ones.
    #[cfg(test)]
    pub(super) fn entry_count(&self) -> usize {
        self.entries_by_rank.iter().map(VecDeque::len).sum()
    }

    fn pop(&mut self) -> Option<(usize, RunQueueRank)> {
        self.pop_highest_among_ranks(self.occupied_rank_bits)
    }

    fn pop_woken(&mut self) -> Option<(usize, RunQueueRank)> {
        self.pop_highest_among_ranks(self.occupied_rank_bits & WOKEN_RANK_BITS)
    }

    /// Removes the first entry of the highest rank that is in `rank_bits`.
    fn pop_highest_among_ranks(&mut self, rank_bits: u8) -> Option<(usize, RunQueueRank)> {
        let index = rank_bits.checked_ilog2()? as usize;
        let entries = &mut self.entries_by_rank[index];
        let queue = entries.pop_front()?;
        if entries.is_empty() {
            self.occupied_rank_bits &= !(1 << index);
        }
        Some((queue, RunQueueRank::from_index(index)))
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Makes a queue runnable at the level of its highest-priority job. `woken_by` is the parking
    /// lot that has woken the queue.
    pub(super) fn add_to_run_queue(&mut self, queue: usize, woken_by: Option<ParkingLotId>) {
        let enqueued = &mut self.queues[queue];
        let rank = RunQueueRank {
            level: enqueued.ready_jobs.highest_level().unwrap_or_default(),
            is_woken: woken_by.is_some(),
        };
        enqueued.woken_by_lot = woken_by;
        enqueued.run_state = RunState::Runnable;
        enqueued.run_queue_rank = rank;
        if enqueued.run_queue_rank_bits & rank.rank_bit() == 0 {
            enqueued.run_queue_rank_bits |= rank.rank_bit();
            self.batches[enqueued.batch]
                .run_queue
                .push_back(rank, queue);
        }
    }

    /// Makes a queue runnable again after one of its jobs has started.
    ///
    /// In each round over the queues of a batch, a queue gets at least one turn. A queue with a
    /// large part of the batch's queued jobs gets proportionally more turns, so large lanes are not
    /// left for the end. A round is at most twice as long as with one turn per queue.
    pub(super) fn add_to_run_queue_after_start(&mut self, queue: usize) {
        let enqueued = &mut self.queues[queue];
        let rank = RunQueueRank {
            level: enqueued.ready_jobs.highest_level().unwrap_or_default(),
            is_woken: false,
        };
        let batch = &mut self.batches[enqueued.batch];
        if enqueued.turns_left > 0 && enqueued.run_queue_rank_bits & rank.rank_bit() == 0 {
            enqueued.turns_left -= 1;
            enqueued.woken_by_lot = None;
            enqueued.run_state = RunState::Runnable;
            enqueued.run_queue_rank = rank;
            enqueued.run_queue_rank_bits |= rank.rank_bit();
            batch.run_queue.push_front(rank, queue);
            return;
        }
        // The number of turns of the queue in a round over all runnable queues, multiplied by the
        // number of queued jobs of the batch.
        let weighted_jobs =
            enqueued.ready_jobs.len() * (batch.run_queue.entry_count_of_rank(rank) + 1);
        enqueued.turns_left = if weighted_jobs >= 2 * batch.queued_count {
            weighted_jobs / batch.queued_count.max(1) - 1
        } else {
            0
        };
        self.add_to_run_queue(queue, None);
    }

    /// Makes an idle queue runnable after a job was added to it. Raises the rank of a runnable
    /// queue if the job has a higher level than the rank.
    pub(super) fn add_to_run_queue_or_raise_rank(&mut self, queue: usize) {
        let updated = &self.queues[queue];
        match updated.run_state {
            RunState::Idle => self.make_queue_runnable(queue),
            RunState::Runnable
                if updated.ready_jobs.highest_level() > Some(updated.run_queue_rank.level) =>
            {
                self.add_to_run_queue(queue, updated.woken_by_lot);
            }
            RunState::Runnable
            | RunState::ParkedOnOwnLimit
            | RunState::ParkedAtTenant
            | RunState::ParkedInLot(_) => {}
        }
    }

    /// Removes and returns the queue whose turn it is, with the parking lot that has woken the
    /// queue.
    pub(super) fn pop_runnable_queue(
        &mut self,
        batch: usize,
    ) -> Option<(usize, Option<ParkingLotId>)> {
        loop {
            let (queue, rank) = self.batches[batch].run_queue.pop()?;
            if self.note_popped_entry_and_check_valid(queue, rank) {
                return Some((queue, self.queues[queue].woken_by_lot));
            }
        }
    }

    /// Removes and returns the first woken queue, with the parking lot that has woken the queue.
    pub(super) fn pop_woken_queue(&mut self, batch: usize) -> Option<(usize, ParkingLotId)> {
        loop {
            let (queue, rank) = self.batches[batch].run_queue.pop_woken()?;
            if self.note_popped_entry_and_check_valid(queue, rank)
                && let Some(lot) = self.queues[queue].woken_by_lot
            {
                return Some((queue, lot));
            }
        }
    }

    /// Records that an entry was popped. Returns true if the entry is valid, false if it is stale.
    fn note_popped_entry_and_check_valid(&mut self, queue: usize, rank: RunQueueRank) -> bool {
        let removed = &mut self.queues[queue];
        removed.run_queue_rank_bits &= !rank.rank_bit();
        removed.run_state == RunState::Runnable && removed.run_queue_rank == rank
    }
}
