//! Priorities: within a batch, of what may start now a higher one starts first.
//!
//! A queue stands in its batch's turns at the level of the highest job it has. When that rises it gets another place
//! further up, and the one it had is stale: passed over when its turn comes. So nothing is searched for, and a queue has
//! at most one place at each level.

use std::collections::VecDeque;

use super::{RunState, Schedulable, Schedule};

/// How urgent a job is.
#[derive(Copy, Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum PriorityLevel {
    Low,
    #[default]
    Normal,
    High,
}

/// The jobs of a queue that are ready, of one level.
#[derive(Debug)]
struct Jobs<J> {
    again: VecDeque<J>,
    fresh: VecDeque<J>,
}

impl<J> Jobs<J> {
    const fn new() -> Self {
        Self {
            again: VecDeque::new(),
            fresh: VecDeque::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.again.is_empty() && self.fresh.is_empty()
    }

    fn pop(&mut self) -> Option<J> {
        self.again.pop_front().or_else(|| self.fresh.pop_front())
    }

    fn front(&self) -> Option<&J> {
        self.again.front().or_else(|| self.fresh.front())
    }
}

/// The jobs of a queue that are ready.
#[derive(Debug)]
pub(super) struct ReadyJobs<J> {
    normal: Jobs<J>,
    /// The high and the low; none before the first of them.
    others: Option<Box<[Jobs<J>; 2]>>,
}

impl<J> ReadyJobs<J> {
    pub(super) const fn new() -> Self {
        Self {
            normal: Jobs::new(),
            others: None,
        }
    }

    fn at(&mut self, level: PriorityLevel) -> &mut Jobs<J> {
        let new = || Box::new([Jobs::new(), Jobs::new()]);
        match level {
            PriorityLevel::Normal => &mut self.normal,
            PriorityLevel::High => &mut self.others.get_or_insert_with(new)[0],
            PriorityLevel::Low => &mut self.others.get_or_insert_with(new)[1],
        }
    }

    fn each(&self) -> impl Iterator<Item = &Jobs<J>> {
        std::iter::once(&self.normal).chain(self.others.iter().flat_map(|others| others.iter()))
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Jobs<J>> {
        let others = self.others.iter_mut().flat_map(|others| others.iter_mut());
        std::iter::once(&mut self.normal).chain(others)
    }

    /// The level of the highest.
    pub(super) fn top(&self) -> Option<PriorityLevel> {
        if let Some([high, low]) = self.others.as_deref() {
            if !high.is_empty() {
                return Some(PriorityLevel::High);
            }
            if self.normal.is_empty() {
                return (!low.is_empty()).then_some(PriorityLevel::Low);
            }
        }
        (!self.normal.is_empty()).then_some(PriorityLevel::Normal)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.top().is_none()
    }

    pub(super) fn push_fresh(&mut self, job: J, level: PriorityLevel) {
        self.at(level).fresh.push_back(job);
    }

    /// Before the fresh ones of its level.
    pub(super) fn push_requeued(&mut self, job: J, level: PriorityLevel) {
        self.at(level).again.push_back(job);
    }

    /// The first of the highest, and whether it is a fresh one.
    pub(super) fn pop(&mut self) -> Option<(J, bool)> {
        let level = self.top()?;
        let jobs = self.at(level);
        let is_fresh = jobs.again.is_empty();
        Some((jobs.pop()?, is_fresh))
    }

    pub(super) fn front(&self) -> Option<&J> {
        match self.top()? {
            PriorityLevel::Normal => self.normal.front(),
            PriorityLevel::High => self.others.as_deref()?[0].front(),
            PriorityLevel::Low => self.others.as_deref()?[1].front(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.each()
            .map(|jobs| jobs.again.len() + jobs.fresh.len())
            .sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.each()
            .flat_map(|jobs| jobs.again.iter().chain(&jobs.fresh))
    }

    /// Takes those that are meant.
    pub(super) fn take(&mut self, is_meant: impl Fn(&J) -> bool, into: &mut Vec<J>) {
        for jobs in self.each_mut() {
            for jobs in [&mut jobs.again, &mut jobs.fresh] {
                let (meant, kept): (VecDeque<J>, VecDeque<J>) =
                    std::mem::take(jobs).into_iter().partition(&is_meant);
                into.extend(meant);
                *jobs = kept;
            }
        }
    }

    pub(super) fn drain(&mut self, into: &mut Vec<J>) {
        for jobs in self.each_mut() {
            into.extend(jobs.again.drain(..));
            into.extend(jobs.fresh.drain(..));
        }
    }
}

/// A place among the turns of a batch.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct RunQueueKey {
    pub(super) level: PriorityLevel,
    /// Its lane called it up: it goes before the others of its level, and owes the lane to call up the next.
    pub(super) called: bool,
}

impl RunQueueKey {
    /// Its number among all spots: the higher goes first.
    fn index(self) -> usize {
        2 * self.level as usize + usize::from(self.called)
    }

    fn at(index: usize) -> Self {
        Self {
            level: [
                PriorityLevel::Low,
                PriorityLevel::Normal,
                PriorityLevel::High,
            ][index / 2],
            called: index % 2 == 1,
        }
    }

    fn bit(self) -> u8 {
        1 << self.index()
    }
}

const SPOTS: usize = 6;
const CALLED: u8 = 0b10_1010;

/// The turns of a batch's queues.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// By the number of the spot.
    at: [VecDeque<usize>; SPOTS],
    /// The spots where there is any.
    filled: u8,
}

impl RunQueue {
    fn push_back(&mut self, spot: RunQueueKey, queue: usize) {
        self.filled |= spot.bit();
        self.at[spot.index()].push_back(queue);
    }

    fn push_front(&mut self, spot: RunQueueKey, queue: usize) {
        self.filled |= spot.bit();
        self.at[spot.index()].push_front(queue);
    }

    fn len(&self, spot: RunQueueKey) -> usize {
        self.at[spot.index()].len()
    }

    /// Whether there is none, not even a stale one.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// How many places there are, stale ones included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.at.iter().map(VecDeque::len).sum()
    }

    fn pop(&mut self) -> Option<(usize, RunQueueKey)> {
        self.pop_of(self.filled)
    }

    fn pop_called(&mut self) -> Option<(usize, RunQueueKey)> {
        self.pop_of(self.filled & CALLED)
    }

    /// The first of the highest of these spots.
    fn pop_of(&mut self, spots: u8) -> Option<(usize, RunQueueKey)> {
        let index = spots.checked_ilog2()? as usize;
        let queues = &mut self.at[index];
        let queue = queues.pop_front()?;
        if queues.is_empty() {
            self.filled &= !(1 << index);
        }
        Some((queue, RunQueueKey::at(index)))
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Gives a queue its turn, by the highest it has.
    pub(super) fn give_turn(&mut self, queue: usize, called: bool) {
        let of = &mut self.queues[queue];
        let spot = RunQueueKey {
            level: of.ready.top().unwrap_or_default(),
            called,
        };
        of.place = RunState::Runnable;
        of.spot = spot;
        if of.spots & spot.bit() == 0 {
            of.spots |= spot.bit();
            self.batches[of.batch].turns.push_back(spot, queue);
        }
    }

    /// One of a queue has started, and more are ready. In each round through a batch a queue has turns in proportion to
    /// what waits in it, and one at least; so a round is at most twice as long as with one turn each, and the hosts with
    /// the most to do are not left for the end.
    pub(super) fn give_turn_after_start(&mut self, queue: usize) {
        let of = &mut self.queues[queue];
        let level = of.ready.top().unwrap_or_default();
        let spot = RunQueueKey {
            level,
            called: false,
        };
        let batch = &mut self.batches[of.batch];
        if of.turns > 0 && of.spots & spot.bit() == 0 {
            of.turns -= 1;
            of.place = RunState::Runnable;
            of.spot = spot;
            of.spots |= spot.bit();
            batch.turns.push_front(spot, queue);
            return;
        }
        let waiting = of.ready.len() * (batch.turns.len(spot) + 1);
        of.turns = match waiting >= 2 * batch.queued {
            true => waiting / batch.queued.max(1) - 1,
            false => 0,
        };
        self.give_turn(queue, false);
    }

    /// Something was added to a queue: it is to be looked at, and no later than its highest is due.
    pub(super) fn rouse(&mut self, queue: usize) {
        let of = &self.queues[queue];
        match of.place {
            RunState::Idle => self.arm(queue),
            RunState::Runnable if of.ready.top() > Some(of.spot.level) => {
                self.give_turn(queue, of.spot.called);
            }
            RunState::Runnable | RunState::Parked | RunState::ParkedOnLane => {}
        }
    }

    /// The queue whose turn it is, and whether its lane called it up.
    pub(super) fn take_turn(&mut self, batch: usize) -> Option<(usize, bool)> {
        loop {
            let (queue, spot) = self.batches[batch].turns.pop()?;
            if self.is_its_turn(queue, spot) {
                return Some((queue, spot.called));
            }
        }
    }

    /// The same of those that their lanes called up.
    pub(super) fn take_called(&mut self, batch: usize) -> Option<usize> {
        loop {
            let (queue, spot) = self.batches[batch].turns.pop_called()?;
            if self.is_its_turn(queue, spot) {
                return Some(queue);
            }
        }
    }

    fn is_its_turn(&mut self, queue: usize, spot: RunQueueKey) -> bool {
        let of = &mut self.queues[queue];
        of.spots &= !spot.bit();
        of.place == RunState::Runnable && of.spot == spot
    }
}
