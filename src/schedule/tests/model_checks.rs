//! The checks of the model: finds the jobs that could start by brute force, and compares with the
//! schedule.

use super::super::admission::Admission;
use super::super::gate::Gate;
use super::super::run_state::RunState;
use super::super::{BatchId, PriorityLevel, Schedulable, Slot, Time};
use super::model::{BATCHES, BatchLanePair, LANES, Model, QueuedJob};
use super::simulation::TestJob;

/// The maximum number of starts in other queues while a queue could have started: two rounds, each
/// at most twice as long as a round with one start per queue.
const MAX_PASSED_OVER: usize = 4 * BATCHES * LANES;

impl Model {
    pub(super) fn check_start(
        &mut self,
        slot: Slot,
        job: TestJob,
        could_start: &[BatchLanePair],
    ) -> Result<(), String> {
        let now = self.sim.now;
        let id = job.id;
        let QueuedJob {
            batch,
            lane,
            not_before,
            is_requeued,
            ..
        } = self
            .queued
            .remove(&id)
            .ok_or(format!("{id} started but was not queued"))?;
        let pair = (batch, lane);
        let delays = [("backoff", not_before), ("pause", self.paused_until[lane])];
        if let Some((delay, until)) = delays.into_iter().find(|&(_, until)| now < until) {
            return Err(format!("{id} started in its {delay} until {until:?}"));
        }
        if self.held.contains(&batch)
            || self.is_pair_closed(pair)
            || job.is_abandoned()
            || batch != slot.batch()
            || !could_start.contains(&pair)
        {
            return Err(format!("{id} should not have started"));
        }
        let precedes = |other: &QueuedJob| {
            !other.job.is_abandoned()
                && !other.is_final_round
                && other.not_before <= now
                && other.job.level >= job.level
                && (other.job.level > job.level
                    || (!is_requeued && (other.is_requeued || other.job.id < id)))
        };
        let mut queued_in_pair = self.queued.values().filter(|other| other.pair() == pair);
        if let Some(first) = queued_in_pair.find(|other| precedes(other)) {
            return Err(format!("{id} started before {}", first.job.id));
        }
        self.start_counts[lane] += 1;
        self.start_seqs.insert(id, self.start_counts[lane]);
        let announced = self.announced_limits[lane];
        if now < announced.until && self.start_counts[lane] > announced.last_allowed {
            return Err(format!("{id} exceeds the host's limit"));
        }
        self.outages[lane].enter(id, now)?;
        self.enter_meters(pair)?;
        let level = job.level;
        self.in_flight.push((slot, job, lane));
        self.count_passed_over(could_start, pair, level)
    }

    fn enter_meters(&mut self, pair: BatchLanePair) -> Result<(), String> {
        let now = self.sim.now;
        let (batch, lane) = pair;
        let schedule = &self.sim.schedule;
        let index = schedule.lane_by_key[&*self.lane_keys[lane]];
        let lane_limit = schedule.lanes[index].gate.concurrency_limit();
        let queues = schedule.find_batch(batch).map(|batch| &batch.queues);
        let queue = queues.and_then(|queues| queues.get(&index));
        let pair_limit = queue.map_or(0, |&queue| schedule.queues[queue].gate.concurrency_limit());
        self.schedule_meter.enter(now, usize::MAX)?;
        self.lane_meters[lane].enter(now, lane_limit)?;
        self.batch_meters
            .get_mut(&batch)
            .ok_or("no such batch")?
            .enter(now, usize::MAX)?;
        self.pair_meters
            .get_mut(&pair)
            .ok_or("no such pair")?
            .enter(now, pair_limit)
    }

    /// Whether the queue of this pair is parked on its lane and the lane has not woken it.
    fn is_parked_on_lane(&self, (batch, lane): BatchLanePair) -> bool {
        let schedule = &self.sim.schedule;
        let queue = schedule.find_batch(batch).and_then(|batch| {
            let lane = schedule.lane_by_key.get(&*self.lane_keys[lane])?;
            batch.queues.get(lane)
        });
        queue.is_some_and(|&queue| schedule.queues[queue].run_state == RunState::ParkedOnLane)
    }

    /// The highest priority level among the ready jobs of a pair.
    fn highest_level(&self, pair: BatchLanePair) -> Option<PriorityLevel> {
        let is_ready = |queued: &&QueuedJob| {
            queued.pair() == pair
                && !queued.is_final_round
                && !queued.job.is_abandoned()
                && queued.not_before <= self.sim.now
        };
        let ready = self.queued.values().filter(is_ready);
        ready.map(|queued| queued.job.level).max()
    }

    /// Checks after a start that no other pair starves, and that no other pair of the same batch
    /// has a ready job of a higher priority level.
    fn count_passed_over(
        &mut self,
        could_start: &[BatchLanePair],
        started: BatchLanePair,
        level: PriorityLevel,
    ) -> Result<(), String> {
        self.passed_over.remove(&started);
        for &pair in could_start.iter().filter(|&&pair| pair != started) {
            if pair.0 == started.0 {
                let highest = self.highest_level(pair);
                if highest < Some(level) {
                    self.passed_over.remove(&pair);
                    continue;
                }
                if highest > Some(level) && !self.is_parked_on_lane(pair) {
                    return Err(format!("{pair:?} has a higher level than {started:?}"));
                }
            }
            let count = self.passed_over.entry(pair).or_default();
            *count += 1;
            if *count > MAX_PASSED_OVER {
                return Err(format!("{pair:?} starves"));
            }
        }
        Ok(())
    }

    /// Begins the final rounds that are due before a step of the schedule.
    pub(super) fn begin_due_final_rounds(&mut self) -> Result<bool, String> {
        self.begin_final_rounds(false)
    }

    /// Begins the final rounds that the schedule has begun during a step, because the step rejected
    /// the last other jobs of the batch.
    pub(super) fn note_begun_final_rounds(&mut self) -> Result<bool, String> {
        self.begin_final_rounds(true)
    }

    fn begin_final_rounds(&mut self, is_after_step: bool) -> Result<bool, String> {
        let mut has_begun = false;
        let batches: Vec<BatchId> = self.batches.iter().map(|(batch, _)| *batch).collect();
        for batch in batches {
            let is_of_batch = |queued: &&QueuedJob| queued.batch == batch;
            let mut queued = self.queued.values().filter(is_of_batch);
            if !queued.clone().any(|queued| queued.is_final_round) {
                continue;
            }
            let is_ignored = |queued: &QueuedJob| {
                queued.is_final_round || is_after_step && queued.job.is_abandoned()
            };
            let is_due = queued.all(is_ignored)
                && !self
                    .in_flight
                    .iter()
                    .any(|(slot, ..)| slot.batch() == batch);
            let begins = if is_after_step {
                self.sim.schedule.batches[batch.index()]
                    .final_round_jobs
                    .is_empty()
            } else {
                is_due
            };
            if begins && !is_due {
                return Err(format!("the final round of {batch:?} began too early"));
            }
            if begins {
                for queued in self.queued.values_mut() {
                    queued.is_final_round &= queued.batch != batch;
                }
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

    fn gates_of(&self, queued: &QueuedJob) -> Result<[&Gate; 4], String> {
        let schedule = &self.sim.schedule;
        let no_queue = || format!("{} has no queue", queued.job.id);
        let lane = schedule.lane_by_key.get(&*queued.job.lane);
        let lane = *lane.ok_or_else(no_queue)?;
        let batch = schedule.find_batch(queued.batch).ok_or_else(no_queue)?;
        let queue = *batch.queues.get(&lane).ok_or_else(no_queue)?;
        Ok([
            &schedule.gate,
            &batch.gate,
            &schedule.lanes[lane].gate,
            &schedule.queues[queue].gate,
        ])
    }

    /// The instant at which a job could start if nothing else happened. `None` if an event must
    /// come first, for example because a gate is full.
    fn earliest_start(&self, queued: &QueuedJob) -> Result<Option<Time>, String> {
        let Some(breaker_opens_at) = self.outages[queued.lane].earliest_start(self.sim.now) else {
            return Ok(None);
        };
        let mut at = queued.not_before.max(breaker_opens_at);
        let gates = self.gates_of(queued)?;
        if gates.iter().any(|gate| gate.is_full()) || self.held.contains(&queued.batch) {
            return Ok(None);
        }
        // Without an event, an open gate stays open.
        for gate in gates {
            while let Admission::NotBefore(later) | Admission::NoLaterThan(later) =
                gate.clone().check(at)
            {
                at = later;
            }
        }
        Ok(Some(at))
    }

    /// The instant at which a job could start if all slots were settled now.
    pub(super) fn best_start(&self, queued: &QueuedJob) -> Time {
        let mut at = queued.not_before.max(self.sim.now);
        for gate in self.gates_of(queued).into_iter().flatten() {
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

    /// The job of each pair whose backoff ends first.
    fn first_jobs_of_pairs(&self) -> Vec<&QueuedJob> {
        let mut firsts: Vec<&QueuedJob> = Vec::with_capacity(BATCHES * LANES);
        for queued in self
            .queued
            .values()
            .filter(|queued| !queued.job.is_abandoned() && !queued.is_final_round)
        {
            match firsts
                .iter_mut()
                .find(|first| first.pair() == queued.pair())
            {
                Some(first) if first.not_before <= queued.not_before => {}
                Some(first) => *first = queued,
                None => firsts.push(queued),
            }
        }
        firsts
    }

    pub(super) fn pairs_that_could_start(&self) -> Vec<BatchLanePair> {
        let could_start = |first: &&QueuedJob| self.earliest_start(first) == Ok(Some(self.sim.now));
        self.first_jobs_of_pairs()
            .into_iter()
            .filter(could_start)
            .map(QueuedJob::pair)
            .collect()
    }

    /// Checks that no job could start now or before the announced instant.
    pub(super) fn check_wait(&self, announced: Option<Time>) -> Result<(), String> {
        if announced.is_some_and(|at| at <= self.sim.now) {
            return Err("the announced instant is not in the future".into());
        }
        for first in self.first_jobs_of_pairs() {
            let id = first.job.id;
            let event = self
                .earliest_start(first)?
                .into_iter()
                .chain(self.deadline_of(first.batch))
                .min();
            if let Some(event) = event.filter(|&event| announced.is_none_or(|at| event < at)) {
                return Err(format!(
                    "announced {announced:?} at {:?}, but {id} has an event at {event:?}",
                    self.sim.now
                ));
            }
        }
        Ok(())
    }
}
