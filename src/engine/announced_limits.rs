//! Applies the rate limits that a server announced in a response.

use std::time::Duration;

use crate::exchange::AnnouncedLimits;
use crate::schedule::{BudgetAnnouncement, Schedulable, Schedule, Slot, Time};

/// Lowers the budgets of the slot's lane, and the rate of all starts in the lane. Called after the
/// costs of the slot are settled.
pub(super) fn apply_announced_limits<J: Schedulable>(
    schedule: &mut Schedule<J>,
    slot: &Slot,
    limits: &AnnouncedLimits,
    now: Time,
) {
    let host_limit = limits.host_limit_after_lowering(|budget| {
        let announcement = BudgetAnnouncement {
            budget_name: &budget.name,
            limit: budget.limit,
            remaining: budget.remaining,
            reset_after_nanos: budget.reset_after.map(nanos),
        };
        schedule.apply_budget_announcement(slot, &announcement, now)
    });
    if let Some(host_limit) = host_limit {
        let reset_after = nanos(host_limit.reset_after);
        schedule.apply_rate_limit_announcement(
            slot,
            host_limit.remaining_requests,
            reset_after,
            now,
        );
    }
}

fn nanos(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)
}
