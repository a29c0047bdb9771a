//! The checks of the model: finds the jobs that could start by brute force, and compares with the
//! schedule.

use super::super::admission::Admission;
use super::super::gate::Gate;
use super::super::route::Route;
use super::super::run_state::RunState;
use super::super::state::Queue;
use super::super::{BatchId, PriorityLevel, Schedulable, Slot, Time};
use super::model::{BATCHES, LANES, Model, QueueKey, QueuedJob, ROUTES};
use super::simulation::TestJob;

/// How many others may start while a queue could have started: those of two rounds, each of which
/// is at most twice as long as a round with one start per queue.
const MAX_PASSED_OVER: usize = 4 * BATCHES * LANES * ROUTES;

impl Model {
    pub(super) fn check_start(
        &mut self,
        slot: Slot,
        job: TestJob,
        could_start: &[QueueKey],
    ) -> Result<(), String> {
        let now = self.sim.now;
        let id = job.id;
        let QueuedJob {
            batch,
            lane,
            route,
            not_before,
            is_requeued,
            ..
        } = self
            .queued
            .remove(&id)
            .ok_or(format!("{id} started but was not queued"))?;
        let (pair, queue_key) = ((batch, lane), (batch, lane, route));
        let delays = [("backoff", not_before), ("pause", self.paused_until[lane])];
        if let Some((delay, until)) = delays.into_iter().find(|&(_, until)| now < until) {
            return Err(format!("{id} started in its {delay} until {until:?}"));
        }
        if self.held.contains(&batch)
            || self.is_pair_closed(pair)
            || job.is_abandoned()
            || batch != slot.batch_id()
            || !could_start.contains(&queue_key)
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
        let is_in_queue = |other: &&QueuedJob| other.queue_key() == queue_key;
        let mut queued_jobs = self.queued.values().filter(is_in_queue);
        if let Some(first) = queued_jobs.find(|other| precedes(other)) {
            return Err(format!("{id} started before {}", first.job.id));
        }
        self.start_counts[lane] += 1;
        self.start_seqs.insert(id, self.start_counts[lane]);
        if slot.start_seq == 1 {
            // The lane is new, or was evicted after its limit had ended.
            let evicted = std::mem::take(&mut self.announced_limits[lane]);
            if now < evicted.until {
                return Err("a lane was evicted while the host's limit applied".into());
            }
        }
        self.announced_limits[lane].record_start(self.start_counts[lane], now)?;
        self.outages[lane][route].record_start(id, now)?;
        self.enter_meters(queue_key)?;
        let level = job.level;
        self.in_flight.push((slot, job, lane));
        self.count_passed_over(could_start, queue_key, level)
    }

    /// The schedule's queue and route of a queue key.
    fn find_queue(&self, key: QueueKey) -> Option<(&Queue<TestJob>, &Route)> {
        let (batch, lane, route) = key;
        let schedule = &self.sim.schedule;
        let lane = schedule.lane_by_key.get(&*self.lane_keys[lane])?;
        let share = *schedule.find_batch(batch)?.share_by_lane.get(lane)?;
        let proxy = (route > 0).then(|| route.to_string());
        let queue = schedule.shares[share].queues.index_of(proxy.as_deref())?;
        let queue = &schedule.queues[queue];
        Some((queue, &schedule.routes[queue.route]))
    }

    fn enter_meters(&mut self, key: QueueKey) -> Result<(), String> {
        let now = self.sim.now;
        let (batch, lane, route) = key;
        let (queue, route_state) = self.find_queue(key).ok_or("no such queue")?;
        let queue_limit = queue.concurrency_limit.max_in_flight();
        let route_limit = route_state.concurrency_limit.max_in_flight();
        self.schedule_meter.record_start(now, usize::MAX)?;
        if let Some(tenant) = self.tenant_by_batch.get(&batch) {
            self.tenant_meters
                .get_mut(tenant)
                .ok_or("no such tenant")?
                .record_start(now, usize::MAX)?;
        }
        self.lane_meters[lane].record_start(now, usize::MAX)?;
        self.route_meters[lane][route].record_start(now, route_limit)?;
        self.batch_meters
            .get_mut(&batch)
            .ok_or("no such batch")?
            .record_start(now, usize::MAX)?;
        self.pair_meters
            .get_mut(&(batch, lane))
            .ok_or("no such pair")?
            .record_start(now, usize::MAX)?;
        self.queue_meters
            .get_mut(&key)
            .ok_or("no such queue")?
            .record_start(now, queue_limit)
    }

    /// Whether a queue is in a parking lot and not yet woken.
    fn is_parked(&self, key: QueueKey) -> bool {
        let found = self.find_queue(key);
        found.is_some_and(|(queue, _)| matches!(queue.run_state, RunState::ParkedInLot(_)))
    }

    pub(super) fn note_parked(&mut self, keys: &[QueueKey]) {
        let parked = keys.iter().copied().filter(|&key| self.is_parked(key));
        self.parked = parked.collect();
    }

    /// The highest level among the ready jobs of a queue.
    fn highest_level(&self, key: QueueKey) -> Option<PriorityLevel> {
        let is_ready = |queued: &&QueuedJob| {
            queued.queue_key() == key
                && !queued.is_final_round
                && !queued.job.is_abandoned()
                && queued.not_before <= self.sim.now
        };
        let ready = self.queued.values().filter(is_ready);
        ready.map(|queued| queued.job.level).max()
    }

    /// Checks after a start that no other queue starves, and that none of the same batch has a
    /// ready job of a higher level.
    fn count_passed_over(
        &mut self,
        could_start: &[QueueKey],
        started: QueueKey,
        level: PriorityLevel,
    ) -> Result<(), String> {
        self.passed_over.remove(&started);
        for &key in could_start.iter().filter(|&&key| key != started) {
            if key.0 == started.0 {
                let highest = self.highest_level(key);
                if highest < Some(level) {
                    self.passed_over.remove(&key);
                    continue;
                }
                // A queue of the same share that was woken before the job of the higher level was
                // pushed may start first.
                let is_behind_sibling = key.1 == started.1 && self.parked.contains(&key);
                if highest > Some(level) && !self.is_parked(key) && !is_behind_sibling {
                    return Err(format!("{key:?} has a higher level than {started:?}"));
                }
            }
            let count = self.passed_over.entry(key).or_default();
            *count += 1;
            if *count > MAX_PASSED_OVER {
                return Err(format!("{key:?} starves"));
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
                    .any(|(slot, ..)| slot.batch_id() == batch);
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

    fn gates_of(&self, queued: &QueuedJob) -> Result<Vec<&Gate>, String> {
        let schedule = &self.sim.schedule;
        let no_queue = || format!("{} has no queue", queued.job.id);
        let lane = schedule.lane_by_key.get(&*queued.job.lane);
        let lane = *lane.ok_or_else(no_queue)?;
        let batch = schedule.find_batch(queued.batch).ok_or_else(no_queue)?;
        let share = *batch.share_by_lane.get(&lane).ok_or_else(no_queue)?;
        let tenant_gate = schedule.tenant_of(batch).map(|tenant| &tenant.gate);
        let others = [
            &schedule.gate,
            &batch.gate,
            &schedule.lanes[lane].gate,
            &schedule.shares[share].gate,
        ];
        Ok(others.into_iter().chain(tenant_gate).collect())
    }

    /// The instant at which a job could start if nothing else happened. `None` if an event must
    /// come first, for example because a gate is full.
    fn earliest_start(&self, queued: &QueuedJob) -> Result<Option<Time>, String> {
        let outage = &self.outages[queued.lane][queued.route];
        let Some(breaker_opens_at) = outage.earliest_start(self.sim.now) else {
            return Ok(None);
        };
        let mut at = queued.not_before.max(breaker_opens_at);
        let gates = self.gates_of(queued)?;
        let (queue, route) = self.find_queue(queued.queue_key()).ok_or("no queue")?;
        if gates.iter().any(|gate| gate.is_limit_reached())
            || queue.concurrency_limit.is_limit_reached()
            || route.concurrency_limit.is_limit_reached()
            || self.held.contains(&queued.batch)
        {
            return Ok(None);
        }
        if let Admission::RefusedUntilEventOrInstant(later) = route.scout_gate.check_admission(at) {
            at = later;
        }
        // Without events, each gate stays open once it is open.
        for gate in gates {
            while let Admission::RefusedUntil(later)
            | Admission::RefusedUntilEventOrInstant(later) = gate.clone().check_admission(at)
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
            while gate.is_limit_reached() {
                gate.record_end();
            }
            while let Admission::RefusedUntil(later) = gate.check_admission(at) {
                at = later;
            }
        }
        at
    }

    /// For each queue, the job that may start first as far as its backoff is concerned.
    fn first_jobs_of_queues(&self) -> Vec<&QueuedJob> {
        let mut firsts: Vec<&QueuedJob> = Vec::with_capacity(BATCHES * LANES * ROUTES);
        for queued in self
            .queued
            .values()
            .filter(|queued| !queued.job.is_abandoned() && !queued.is_final_round)
        {
            match firsts
                .iter_mut()
                .find(|first| first.queue_key() == queued.queue_key())
            {
                Some(first) if first.not_before <= queued.not_before => {}
                Some(first) => *first = queued,
                None => firsts.push(queued),
            }
        }
        firsts
    }

    pub(super) fn queues_that_could_start(&self) -> Vec<QueueKey> {
        let could_start = |first: &&QueuedJob| self.earliest_start(first) == Ok(Some(self.sim.now));
        self.first_jobs_of_queues()
            .into_iter()
            .filter(could_start)
            .map(QueuedJob::queue_key)
            .collect()
    }

    /// Checks that no job could start now or before the announced instant.
    pub(super) fn check_wait(&self, announced: Option<Time>) -> Result<(), String> {
        if announced.is_some_and(|at| at <= self.sim.now) {
            return Err("the announced instant is not in the future".into());
        }
        for first in self.first_jobs_of_queues() {
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
