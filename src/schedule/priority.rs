//! The jobs of a queue that are ready to start, by priority.

use std::collections::VecDeque;

/// The priority of a job within its batch.
#[derive(Copy, Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum PriorityLevel {
    Low,
    #[default]
    Normal,
    High,
}

/// Whether a job is new or has been in flight before. Requeued jobs start before fresh jobs of the
/// same priority.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum JobFreshness {
    Fresh,
    Requeued,
    /// The job carries the charge of its earlier start, and precedes all others of its level.
    RequeuedWithCharge,
}

/// The ready jobs of one priority level.
#[derive(Debug)]
struct PriorityLevelJobs<J> {
    requeued_jobs: VecDeque<J>,
    fresh_jobs: VecDeque<J>,
}

impl<J> PriorityLevelJobs<J> {
    const fn new() -> Self {
        Self {
            requeued_jobs: VecDeque::new(),
            fresh_jobs: VecDeque::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.requeued_jobs.is_empty() && self.fresh_jobs.is_empty()
    }

    fn pop(&mut self) -> Option<J> {
        self.requeued_jobs
            .pop_front()
            .or_else(|| self.fresh_jobs.pop_front())
    }

    fn front(&self) -> Option<&J> {
        self.requeued_jobs
            .front()
            .or_else(|| self.fresh_jobs.front())
    }
}

/// The jobs of a queue that are ready to start.
#[derive(Debug)]
pub(super) struct ReadyJobs<J> {
    normal_jobs: PriorityLevelJobs<J>,
    /// The jobs of high and of low priority. Allocated when the first such job is pushed.
    high_and_low_jobs: Option<Box<[PriorityLevelJobs<J>; 2]>>,
}

impl<J> ReadyJobs<J> {
    pub(super) const fn new() -> Self {
        Self {
            normal_jobs: PriorityLevelJobs::new(),
            high_and_low_jobs: None,
        }
    }

    fn jobs_of_level_mut(&mut self, level: PriorityLevel) -> &mut PriorityLevelJobs<J> {
        let new = || Box::new([PriorityLevelJobs::new(), PriorityLevelJobs::new()]);
        match level {
            PriorityLevel::Normal => &mut self.normal_jobs,
            PriorityLevel::High => &mut self.high_and_low_jobs.get_or_insert_with(new)[0],
            PriorityLevel::Low => &mut self.high_and_low_jobs.get_or_insert_with(new)[1],
        }
    }

    fn iter_level_jobs(&self) -> impl Iterator<Item = &PriorityLevelJobs<J>> {
        let others = self
            .high_and_low_jobs
            .iter()
            .flat_map(|levels| levels.iter());
        std::iter::once(&self.normal_jobs).chain(others)
    }

    fn iter_level_jobs_mut(&mut self) -> impl Iterator<Item = &mut PriorityLevelJobs<J>> {
        let others = self
            .high_and_low_jobs
            .iter_mut()
            .flat_map(|levels| levels.iter_mut());
        std::iter::once(&mut self.normal_jobs).chain(others)
    }

    /// The highest priority level with a job.
    pub(super) fn highest_level(&self) -> Option<PriorityLevel> {
        if let Some([high, low]) = self.high_and_low_jobs.as_deref() {
            if !high.is_empty() {
                return Some(PriorityLevel::High);
            }
            if self.normal_jobs.is_empty() {
                return (!low.is_empty()).then_some(PriorityLevel::Low);
            }
        }
        (!self.normal_jobs.is_empty()).then_some(PriorityLevel::Normal)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.highest_level().is_none()
    }

    pub(super) fn push(&mut self, job: J, level: PriorityLevel, freshness: JobFreshness) {
        let jobs = self.jobs_of_level_mut(level);
        match freshness {
            JobFreshness::Fresh => jobs.fresh_jobs.push_back(job),
            JobFreshness::Requeued => jobs.requeued_jobs.push_back(job),
            JobFreshness::RequeuedWithCharge => jobs.requeued_jobs.push_front(job),
        }
    }

    /// Whether a job would precede all jobs that are ready.
    pub(super) fn would_be_first(&self, level: PriorityLevel, freshness: JobFreshness) -> bool {
        let jobs = match (level, self.high_and_low_jobs.as_deref()) {
            (PriorityLevel::Normal, _) => Some(&self.normal_jobs),
            (PriorityLevel::High, Some([high, _])) => Some(high),
            (PriorityLevel::Low, Some([_, low])) => Some(low),
            (PriorityLevel::High | PriorityLevel::Low, None) => None,
        };
        let precedes_its_level = jobs.is_none_or(|jobs| match freshness {
            JobFreshness::Fresh => jobs.is_empty(),
            JobFreshness::Requeued => jobs.requeued_jobs.is_empty(),
            JobFreshness::RequeuedWithCharge => true,
        });
        self.highest_level() <= Some(level) && precedes_its_level
    }

    /// Removes the first job of the highest level with a job. The returned flag tells whether the
    /// job is fresh.
    pub(super) fn pop(&mut self) -> Option<(J, bool)> {
        let level = self.highest_level()?;
        let jobs = self.jobs_of_level_mut(level);
        let is_fresh = jobs.requeued_jobs.is_empty();
        Some((jobs.pop()?, is_fresh))
    }

    pub(super) fn front(&self) -> Option<&J> {
        match self.highest_level()? {
            PriorityLevel::Normal => self.normal_jobs.front(),
            PriorityLevel::High => self.high_and_low_jobs.as_deref()?[0].front(),
            PriorityLevel::Low => self.high_and_low_jobs.as_deref()?[1].front(),
        }
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut J> {
        let level = self.highest_level()?;
        let jobs = self.jobs_of_level_mut(level);
        let requeued = jobs.requeued_jobs.front_mut();
        requeued.or_else(|| jobs.fresh_jobs.front_mut())
    }

    pub(super) fn len(&self) -> usize {
        self.iter_level_jobs()
            .map(|jobs| jobs.requeued_jobs.len() + jobs.fresh_jobs.len())
            .sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.iter_level_jobs()
            .flat_map(|jobs| jobs.requeued_jobs.iter().chain(&jobs.fresh_jobs))
    }

    /// Moves the jobs that match `predicate` to `into`.
    pub(super) fn move_matching_into(&mut self, predicate: impl Fn(&J) -> bool, into: &mut Vec<J>) {
        for level in self.iter_level_jobs_mut() {
            for jobs in [&mut level.requeued_jobs, &mut level.fresh_jobs] {
                let (extracted, kept): (VecDeque<J>, VecDeque<J>) =
                    std::mem::take(jobs).into_iter().partition(&predicate);
                into.extend(extracted);
                *jobs = kept;
            }
        }
    }

    /// Moves all jobs to `into`.
    pub(super) fn move_all_into(&mut self, into: &mut Vec<J>) {
        for level in self.iter_level_jobs_mut() {
            into.extend(level.requeued_jobs.drain(..));
            into.extend(level.fresh_jobs.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_pop_by_level_and_requeued_before_fresh() {
        use JobFreshness::{Fresh, Requeued};
        use PriorityLevel::{High, Low, Normal};

        let mut ready = ReadyJobs::new();
        for (job, level, freshness) in [
            (1, Low, Fresh),
            (2, Normal, Fresh),
            (3, High, Fresh),
            (4, Normal, Requeued),
            (5, High, Requeued),
            (6, Normal, Fresh),
        ] {
            ready.push(job, level, freshness);
        }
        assert_eq!((ready.len(), ready.front()), (6, Some(&5)));
        assert!(!ready.would_be_first(High, Requeued) && !ready.would_be_first(Normal, Requeued));
        let mut extracted = Vec::new();
        ready.move_matching_into(|&job| job == 6, &mut extracted);
        assert_eq!(extracted, [6]);
        let popped: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        let expected = [(5, false), (3, true), (4, false), (2, true), (1, true)];
        assert_eq!(popped, expected);
        assert!(ready.is_empty());
        ready.push(1, Normal, Fresh);
        let firsts = [
            (Normal, Requeued),
            (High, Fresh),
            (Normal, Fresh),
            (Low, Requeued),
        ]
        .map(|(level, freshness)| ready.would_be_first(level, freshness));
        assert_eq!(firsts, [true, true, false, false]);
    }
}
