//! Ends jobs that can never start, because a budget cannot cover their costs.
//!
//! A cost above the capacity of a budget is found when the job is pushed. A job that waits for a
//! total ends when the total can no longer cover its cost: at once if nothing is left of the total,
//! and otherwise when the job is the first of its queue.

use super::budget::UnaffordableReason;
use super::state::Queue;
use super::{Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Moves the first jobs of a queue to the unaffordable jobs while a total can no longer cover
    /// their costs. Costs above a capacity were found at the push. Returns true if a job was
    /// removed.
    pub(super) fn remove_unaffordable_front_jobs(&mut self, queue: usize) -> bool {
        let budgets = self.queues[queue].budgets.as_deref();
        let has_total = budgets.is_some_and(|budgets| budgets.has_total);
        let mut has_removed = false;
        while has_total
            && let Some(job) = self.queues[queue].ready_jobs.front()
            && let Some((index, reason)) = self.unaffordable_budget(queue, job)
        {
            has_removed = true;
            if let Some((job, _)) = self.queues[queue].ready_jobs.pop() {
                self.add_unaffordable_job(job, index, reason);
                self.decrement_queued_count(self.queues[queue].batch, 1);
                self.drop_ticket(queue);
            }
        }
        has_removed
    }

    fn add_unaffordable_job(&mut self, job: J, budget: usize, reason: UnaffordableReason) {
        let unaffordable = self.budgets[budget].unaffordable_job(job, reason);
        self.unaffordable_jobs.push(unaffordable);
    }

    /// Returns the job, unless a budget of its queue can never cover its cost. Such a job joins the
    /// unaffordable jobs.
    pub(super) fn reject_if_unaffordable(&mut self, queue: usize, job: J) -> Option<J> {
        let Some((index, reason)) = self.unaffordable_budget(queue, &job) else {
            return Some(job);
        };
        self.add_unaffordable_job(job, index, reason);
        None
    }

    /// The slab index of the budget that can never cover the cost of a job, and the reason.
    fn unaffordable_budget(&self, queue: usize, job: &J) -> Option<(usize, UnaffordableReason)> {
        let budgets = self.queues[queue].budgets.as_deref()?;
        if job.has_carried_charge() {
            return None;
        }
        budgets.indices.iter().find_map(|&index| {
            let budget = &self.budgets[index];
            let reason = budget.unaffordable_reason(budget.cost_of(job))?;
            Some((index, reason))
        })
    }

    /// Ends what waits for a total and has become unaffordable by a settlement. Before it, at most
    /// `affordable_before` units could be charged.
    pub(super) fn end_waits_for_total(&mut self, budget: usize, affordable_before: i128) {
        let total = &self.budgets[budget];
        if total.affordable_total() <= 0 {
            if affordable_before > 0 {
                self.end_all_waits_for_exhausted_total(budget);
            }
            return;
        }
        let is_unaffordable = |&queue: &usize| {
            let job = self.queues[queue].ready_jobs.front();
            job.is_some_and(|job| total.unaffordable_reason(total.cost_of(job)).is_some())
        };
        let parked = total.parking_lot.parked_queues.iter().copied();
        let unaffordable: Vec<usize> = parked.filter(is_unaffordable).collect();
        for queue in unaffordable {
            self.unpark_queue_from_budget(queue);
        }
    }

    /// Moves all ready jobs that cost something on an exhausted total to the unaffordable jobs.
    fn end_all_waits_for_exhausted_total(&mut self, budget: usize) {
        let exhausted = &self.budgets[budget];
        let has_budget = |queue: &Queue<J>| {
            let budgets = queue.budgets.as_deref();
            budgets.is_some_and(|budgets| budgets.indices.contains(&budget))
        };
        let mut changed = Vec::new();
        for (index, queue) in &mut self.queues {
            if !has_budget(queue) {
                continue;
            }
            let mut jobs = Vec::new();
            let is_charged = |job: &J| exhausted.cost_of(job) > 0 && !job.has_carried_charge();
            queue.ready_jobs.move_matching_into(is_charged, &mut jobs);
            if !jobs.is_empty() {
                changed.push((index, queue.batch, jobs.len()));
            }
            let reason = UnaffordableReason::Exhausted;
            let unaffordable = jobs
                .into_iter()
                .map(|job| exhausted.unaffordable_job(job, reason));
            self.unaffordable_jobs.extend(unaffordable);
        }
        for (queue, batch, count) in changed {
            self.decrement_queued_count(batch, count);
            self.drop_ticket(queue);
        }
    }
}
