//! The brute force: who could start, and whether what the schedule did agrees.

use super::super::admission::Admission;
use super::super::gate::Gate;
use super::super::state::RunState;
use super::super::{BatchId, PriorityLevel, Schedulable, Slot, Time};
use super::model::{BATCHES, LANES, Model, Pair, Waiting};
use super::simulation::TestJob;

/// How many others may start while a queue could have: in two rounds, each of which is at most twice as long as one in
/// which each of the others starts once.
const PATIENCE: usize = 4 * BATCHES * LANES;

impl Model {
    pub(super) fn check_start(
        &mut self,
        slot: Slot,
        job: TestJob,
        could: &[Pair],
    ) -> Result<(), String> {
        let now = self.sim.now;
        let started = self
            .waiting
            .remove(&job.id)
            .ok_or(format!("{} started and was not waiting", job.id))?;
        let Waiting {
            batch,
            lane,
            not_before,
            again,
            ..
        } = started;
        let bounds = [("back-off", not_before), ("pause", self.paused[lane])];
        if let Some((bound, until)) = bounds.into_iter().find(|&(_, until)| now < until) {
            return Err(format!("{} started in its {bound} until {until:?}", job.id));
        }
        let is_kept = self.held.contains(&batch) || self.is_closed((batch, lane));
        if is_kept || job.is_abandoned() || batch != slot.batch() || !could.contains(&(batch, lane))
        {
            return Err(format!("{} should not have started", job.id));
        }
        let mut others = self
            .waiting
            .values()
            .filter(|other| other.pair() == (batch, lane));
        let goes_first = |other: &Waiting| {
            !other.job.is_abandoned()
                && !other.last
                && other.not_before <= now
                && other.job.level >= job.level
                && (other.job.level > job.level
                    || (!again && (other.again || other.job.id < job.id)))
        };
        if let Some(first) = others.find(|other| goes_first(other)) {
            return Err(format!("{} started before {}", job.id, first.job.id));
        }
        self.started[lane] += 1;
        self.number_of.insert(job.id, self.started[lane]);
        let allowed = self.allowed[lane];
        if now < allowed.until && self.started[lane] > allowed.last {
            return Err(format!("{} is more than the host allows", job.id));
        }
        self.outages[lane].enter(job.id, now)?;
        self.enter(batch, lane)?;
        let level = job.level;
        self.in_flight.push((slot, job, lane));
        self.pass_over(could, (batch, lane), level)
    }

    /// What the limits of the lane and of the pair are, since they may learn.
    fn enter(&mut self, batch: BatchId, lane: usize) -> Result<(), String> {
        let now = self.sim.now;
        let schedule = &self.sim.schedule;
        let index = schedule.lane_by_key[&*self.names[lane]];
        let of_lane = schedule.lanes[index].gate.concurrency_limit();
        let queues = schedule.find_batch(batch).map(|batch| &batch.queues);
        let queue = queues.and_then(|queues| queues.get(&index));
        let of_pair = queue.map_or(0, |&queue| schedule.queues[queue].gate.concurrency_limit());
        self.whole.enter(now, usize::MAX)?;
        self.per_lane[lane].enter(now, of_lane)?;
        self.per_batch
            .get_mut(&batch)
            .ok_or("no such batch")?
            .enter(now, usize::MAX)?;
        self.per_pair
            .get_mut(&(batch, lane))
            .ok_or("no such pair")?
            .enter(now, of_pair)
    }

    /// Whether this pair is in the line of its lane, and not yet called up.
    fn is_in_line(&self, (batch, lane): Pair) -> bool {
        let schedule = &self.sim.schedule;
        let queue = schedule.find_batch(batch).and_then(|batch| {
            let lane = schedule.lane_by_key.get(&*self.names[lane])?;
            batch.queues.get(lane)
        });
        queue.is_some_and(|&queue| schedule.queues[queue].run_state == RunState::ParkedOnLane)
    }

    /// The highest that may start of a pair, as far as its back-off goes.
    fn highest_of(&self, pair: Pair) -> Option<PriorityLevel> {
        let ready = |waiting: &&Waiting| {
            waiting.pair() == pair
                && !waiting.last
                && !waiting.job.is_abandoned()
                && waiting.not_before <= self.sim.now
        };
        let levels = self.waiting.values().filter(ready);
        levels.map(|waiting| waiting.job.level).max()
    }

    fn pass_over(
        &mut self,
        could: &[Pair],
        started: Pair,
        level: PriorityLevel,
    ) -> Result<(), String> {
        self.passed_over.remove(&started);
        for &pair in could.iter().filter(|&&pair| pair != started) {
            let highest = self.highest_of(pair);
            if pair.0 == started.0 && highest < Some(level) {
                self.passed_over.remove(&pair);
                continue;
            }
            if pair.0 == started.0 && highest > Some(level) && !self.is_in_line(pair) {
                return Err(format!("{pair:?} had a higher one than {started:?}"));
            }
            let passed = self.passed_over.entry(pair).or_default();
            *passed += 1;
            if *passed > PATIENCE {
                return Err(format!("{pair:?} is starved"));
            }
        }
        Ok(())
    }

    /// Notes which last rounds begin: before a step those that must, and after it those that did, since what was refused
    /// in it may have made way for them.
    pub(super) fn begin_last_rounds(&mut self, is_after: bool) -> Result<bool, String> {
        let mut has_begun = false;
        let batches: Vec<BatchId> = self.batches.iter().map(|(batch, _)| *batch).collect();
        for batch in batches {
            let of_batch = |waiting: &&Waiting| waiting.batch == batch;
            let mut waiting = self.waiting.values().filter(of_batch);
            if !waiting.clone().any(|waiting| waiting.last) {
                continue;
            }
            let keeps = |waiting: &Waiting| !(is_after && waiting.job.is_abandoned());
            let is_due = !waiting.any(|waiting| !waiting.last && keeps(waiting))
                && !self
                    .in_flight
                    .iter()
                    .any(|(slot, ..)| slot.batch() == batch);
            let begins = match is_after {
                true => self.sim.schedule.batches[batch.index()]
                    .final_round_jobs
                    .is_empty(),
                false => is_due,
            };
            if begins && !is_due {
                return Err(format!("the last round of {batch:?} began too early"));
            }
            let lasts = self.waiting.values_mut();
            for waiting in lasts.filter(|waiting| begins && waiting.batch == batch) {
                waiting.last = false;
            }
            has_begun |= begins;
        }
        Ok(has_begun)
    }

    pub(super) fn deadline_of(&self, batch: BatchId) -> Option<Time> {
        self.batches
            .iter()
            .find(|(id, _)| *id == batch)
            .and_then(|(_, limits)| limits.deadline)
    }

    fn gates_of(&self, waiting: &Waiting) -> Result<[&Gate; 4], String> {
        let schedule = &self.sim.schedule;
        let lost = || format!("{} has no queue", waiting.job.id);
        let lane = *schedule
            .lane_by_key
            .get(&*waiting.job.lane)
            .ok_or_else(lost)?;
        let batch = schedule.find_batch(waiting.batch).ok_or_else(lost)?;
        let queue = &schedule.queues[*batch.queues.get(&lane).ok_or_else(lost)?];
        Ok([
            &schedule.gate,
            &batch.gate,
            &schedule.lanes[lane].gate,
            &queue.gate,
        ])
    }

    /// When this one could start if nothing else happens; never while a gate is full, or a probe is out.
    fn earliest_start(&self, waiting: &Waiting) -> Result<Option<Time>, String> {
        let Some(up) = self.outages[waiting.lane].earliest(self.sim.now) else {
            return Ok(None);
        };
        let mut at = waiting.not_before.max(up);
        let gates = self.gates_of(waiting)?;
        if gates.iter().any(|gate| gate.is_full()) || self.held.contains(&waiting.batch) {
            return Ok(None);
        }
        // Each is open for good from some instant on.
        for gate in gates {
            while let Admission::NotBefore(later) | Admission::NoLaterThan(later) =
                gate.clone().check(at)
            {
                at = later;
            }
        }
        Ok(Some(at))
    }

    /// The same if all that is in flight settled at once.
    pub(super) fn best_start(&self, waiting: &Waiting) -> Time {
        let mut at = waiting.not_before.max(self.sim.now);
        for gate in self.gates_of(waiting).into_iter().flatten() {
            let mut gate = gate.clone();
            while gate.is_full() {
                gate.leave();
            }
            while let Admission::NotBefore(later) = gate.check(at) {
                at = later;
            }
        }
        at
    }

    /// Of each pair that has any, the one that may start first as far as its back-off goes.
    fn first_of_pairs(&self) -> Vec<&Waiting> {
        let mut firsts: Vec<&Waiting> = Vec::with_capacity(BATCHES * LANES);
        for waiting in self
            .waiting
            .values()
            .filter(|waiting| !waiting.job.is_abandoned() && !waiting.last)
        {
            match firsts
                .iter_mut()
                .find(|first| first.pair() == waiting.pair())
            {
                Some(first) if first.not_before <= waiting.not_before => {}
                Some(first) => *first = waiting,
                None => firsts.push(waiting),
            }
        }
        firsts
    }

    pub(super) fn pairs_that_could_start(&self) -> Vec<Pair> {
        let could = |first: &&Waiting| self.earliest_start(first) == Ok(Some(self.sim.now));
        self.first_of_pairs()
            .into_iter()
            .filter(could)
            .map(Waiting::pair)
            .collect()
    }

    /// Nothing could start now, nor before the instant that was told.
    pub(super) fn check_wait(&self, told: Option<Time>) -> Result<(), String> {
        if told.is_some_and(|told| told <= self.sim.now) {
            return Err("told to wait for what has come".into());
        }
        for first in self.first_of_pairs() {
            let id = first.job.id;
            let event = self
                .earliest_start(first)?
                .into_iter()
                .chain(self.deadline_of(first.batch))
                .min();
            if let Some(event) = event.filter(|&event| told.is_none_or(|told| event < told)) {
                return Err(format!(
                    "told {told:?} at {:?}, but {id} had something at {event:?}",
                    self.sim.now
                ));
            }
        }
        Ok(())
    }
}
