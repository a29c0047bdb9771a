//! A budget: a limit on the costs of requests, for example tokens per minute or cents in total.
//!
//! A budget belongs to a lane, to a batch, to a tenant or to the whole schedule. Each start is
//! charged its cost on every budget that applies to it, on all of them together or on none. A
//! charge is an estimate until it is [settled](super::charge).
//!
//! A budget grants a cost if its level covers the cost. There are two kinds: the level of a rate is
//! refilled up to a capacity ([`gcra`](super::gcra)), the level of a total is not. A request whose
//! cost exceeds a capacity never starts. Neither does one whose cost exceeds what is left of a
//! total, once no unsettled charge can be refunded any more. Both leave the schedule at once.
//!
//! # Announcements of servers
//!
//! Many servers announce in each response how many units are left of their own limit, and when they
//! reset it. An announcement lowers the level of the budget with the same name, and never raises
//! it. It does not cover the requests that started after the request of the response, so their
//! costs are subtracted. The reset delays nothing at a server that refills continuously. At a
//! server with fixed windows, nothing beyond the announced rest starts before the reset.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Schedulable;
use super::admission::Admission;
use super::gcra::{BudgetRate, Gcra};
use super::parking::ParkingLot;
use super::time::Time;

/// A budget of a lane, of a batch, of a tenant or of the whole schedule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BudgetConfig {
    pub(crate) name: Arc<str>,
    pub(crate) kind: BudgetKind,
    /// The cost of a job that [states](Schedulable::stated_cost) none.
    pub(crate) default_cost: u64,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum BudgetKind {
    /// The budget is refilled at a rate.
    Rate(BudgetRate),
    /// The budget has this number of units and is never refilled.
    Total(u64),
}

/// The jobs to which a budget applies. Scopes are in ascending order.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum BudgetScopeId {
    /// The jobs of the lane with this slab index.
    Lane(usize),
    /// The jobs of the batch with this slab index.
    Batch(usize),
    /// The jobs of the tenant with this slab index.
    Tenant(usize),
    /// All jobs.
    Overall,
}

/// Why a job can never start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum UnaffordableReason {
    /// The cost is above the capacity of a budget that is refilled.
    AboveCapacity,
    /// The cost is above what is left of a total, even if all unsettled charges were refunded.
    Exhausted,
}

/// A job that can never start, because a budget cannot cover its cost.
#[derive(Debug)]
pub(crate) struct UnaffordableJob<J> {
    pub(crate) job: J,
    pub(crate) budget_name: Arc<str>,
    pub(crate) reason: UnaffordableReason,
    pub(crate) cost: u64,
    /// The capacity of the budget, or what is left of a total.
    pub(crate) available: u64,
}

/// The state of one budget.
pub(super) struct Budget {
    /// Distinguishes the budget from an earlier budget with the same slab index.
    pub(super) serial: u64,
    pub(super) name: Arc<str>,
    pub(super) scope: BudgetScopeId,
    default_cost: u64,
    balance: Balance,
    /// The sum of the charges that are not settled.
    outstanding: u64,
    /// The sum of all charges so far. It may wrap around.
    pub(super) charged_total: u64,
    /// The queues that this budget has refused, in the order of their tickets.
    pub(super) parking_lot: ParkingLot,
    /// The tickets of the queues that have reserved this budget, in ascending order, and the
    /// reserved costs.
    reservations: VecDeque<(Ticket, u64)>,
}

enum Balance {
    Rate(RateBalance),
    Total(TotalBalance),
}

struct RateBalance {
    gcra: Gcra,
    /// The window of the server's own limit that the last announcement described.
    server_window: Option<ServerWindow>,
    /// The start number of the request whose response has announced a level last.
    announcement_start_seq: u64,
}

/// The units that a server has announced as left until it resets its own limit.
#[derive(Copy, Clone, Debug)]
struct ServerWindow {
    remaining: u64,
    resets_at: Time,
}

struct TotalBalance {
    capacity: u64,
    /// The units left after all charges, settled or outstanding. Negative if a settlement exceeded
    /// its estimate.
    remaining: i128,
}

/// The position of a refused queue in the order in which budgets serve queues. A queue keeps its
/// ticket until its first job starts or is removed.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ticket(u64);

impl Ticket {
    /// Comes after all tickets that were issued.
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// The level that a server announced for one of its limits.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BudgetAnnouncement<'a> {
    pub(crate) budget_name: &'a str,
    /// The number of units that the server grants in each of its periods.
    pub(crate) limit: Option<u64>,
    /// The number of units that are left.
    pub(crate) remaining: u64,
    /// The time until the server resets the limit, or until its level is back at the limit.
    pub(crate) reset_after_nanos: Option<u64>,
}

impl Budget {
    pub(super) fn new(serial: u64, scope: BudgetScopeId, config: &BudgetConfig) -> Self {
        let balance = match config.kind {
            BudgetKind::Rate(rate) => Balance::Rate(RateBalance {
                gcra: Gcra::new(rate),
                server_window: None,
                announcement_start_seq: 0,
            }),
            BudgetKind::Total(capacity) => Balance::Total(TotalBalance {
                capacity,
                remaining: i128::from(capacity),
            }),
        };
        Self {
            serial,
            name: Arc::clone(&config.name),
            scope,
            default_cost: config.default_cost,
            balance,
            outstanding: 0,
            charged_total: 0,
            parking_lot: ParkingLot::default(),
            reservations: VecDeque::new(),
        }
    }

    pub(super) fn is_total(&self) -> bool {
        matches!(self.balance, Balance::Total(_))
    }

    /// The cost of the next start of a job on this budget.
    pub(super) fn cost_of<J: Schedulable>(&self, job: &J) -> u64 {
        job.stated_cost(&self.name).unwrap_or(self.default_cost)
    }

    /// Whether `cost` may be charged now by the holder of `ticket`. The oldest reservation of
    /// another queue stays covered, if it is older than the ticket.
    pub(super) fn check(&self, ticket: Ticket, cost: u64, now: Time) -> Admission {
        let reserved = self.reserved_before(ticket);
        let needed = cost.saturating_add(reserved);
        match &self.balance {
            Balance::Total(total) if i128::from(needed) <= total.remaining => Admission::Granted,
            // A refund or the end of the reservation may permit the start.
            Balance::Total(_) => Admission::RefusedUntilEvent,
            Balance::Rate(rate) => {
                let is_final = reserved == 0 && self.outstanding == 0;
                rate.check(needed, is_final, now)
            }
        }
    }

    /// The cost of the oldest reservation that is older than `ticket`.
    fn reserved_before(&self, ticket: Ticket) -> u64 {
        match self.reservations.front() {
            Some(&(oldest, cost)) if oldest < ticket => cost,
            _ => 0,
        }
    }

    /// Whether a cost can never be charged.
    pub(super) fn unaffordable_reason(&self, cost: u64) -> Option<UnaffordableReason> {
        if cost == 0 {
            return None;
        }
        match &self.balance {
            Balance::Total(_) => (i128::from(cost) > self.affordable_total())
                .then_some(UnaffordableReason::Exhausted),
            Balance::Rate(_) => {
                (cost > self.capacity()).then_some(UnaffordableReason::AboveCapacity)
            }
        }
    }

    /// Describes a job that this budget can never cover.
    pub(super) fn unaffordable_job<J: Schedulable>(
        &self,
        job: J,
        reason: UnaffordableReason,
    ) -> UnaffordableJob<J> {
        let available = match reason {
            UnaffordableReason::AboveCapacity => self.capacity(),
            UnaffordableReason::Exhausted => self.affordable_total().max(0) as u64,
        };
        UnaffordableJob {
            cost: self.cost_of(&job),
            job,
            budget_name: Arc::clone(&self.name),
            reason,
            available,
        }
    }

    /// The units left of a total if all unsettled charges are refunded. Never rises.
    pub(super) fn affordable_total(&self) -> i128 {
        match &self.balance {
            Balance::Total(total) => total.remaining + i128::from(self.outstanding),
            Balance::Rate(_) => i128::MAX,
        }
    }

    /// Charges the cost of a start.
    pub(super) fn charge(&mut self, cost: u64, now: Time) {
        self.outstanding = self.outstanding.saturating_add(cost);
        self.charged_total = self.charged_total.wrapping_add(cost);
        match &mut self.balance {
            Balance::Rate(rate) => rate.charge(cost, now),
            Balance::Total(total) => total.remaining -= i128::from(cost),
        }
    }

    /// Settles a charge of `cost` units. Its actual cost was `actual`.
    pub(super) fn settle(&mut self, cost: u64, actual: u64, now: Time) {
        self.outstanding = self.outstanding.saturating_sub(cost);
        let extra = actual.saturating_sub(cost);
        self.charged_total = self.charged_total.wrapping_add(extra);
        match &mut self.balance {
            Balance::Total(total) => total.remaining += i128::from(cost) - i128::from(actual),
            Balance::Rate(rate) if extra > 0 => rate.charge(extra, now),
            Balance::Rate(rate) => rate.gcra.refund(cost - actual),
        }
    }

    /// Lowers the level to the one that a server announced, unless the response to a later request
    /// has announced one. `charged_since` is the sum of the charges after the start of the request
    /// with start number `start_seq`. Returns false for a total, which no server announces.
    pub(super) fn apply_announcement(
        &mut self,
        announcement: &BudgetAnnouncement<'_>,
        start_seq: u64,
        charged_since: u64,
        now: Time,
    ) -> bool {
        let Balance::Rate(rate) = &mut self.balance else {
            return false;
        };
        if start_seq >= rate.announcement_start_seq {
            rate.announcement_start_seq = start_seq;
            rate.apply_announcement(announcement, charged_since, now);
        }
        true
    }

    /// Reserves `cost` for the holder of a ticket. Replaces the holder's earlier reservation.
    pub(super) fn reserve(&mut self, ticket: Ticket, cost: u64) {
        match self.find_reservation(ticket) {
            Ok(position) => self.reservations[position].1 = cost,
            Err(position) => self.reservations.insert(position, (ticket, cost)),
        }
    }

    /// Ends the reservation of a ticket. Returns false if there was none.
    pub(super) fn end_reservation(&mut self, ticket: Ticket) -> bool {
        match self.find_reservation(ticket) {
            Ok(position) => self.reservations.remove(position).is_some(),
            Err(_) => false,
        }
    }

    /// The position of a ticket's reservation, or the position where it would be inserted.
    fn find_reservation(&self, ticket: Ticket) -> Result<usize, usize> {
        // Most tickets are the oldest or the youngest.
        match (self.reservations.front(), self.reservations.back()) {
            (Some(&(oldest, _)), _) if oldest == ticket => Ok(0),
            (_, Some(&(youngest, _))) if youngest < ticket => Err(self.reservations.len()),
            (None, _) => Err(0),
            _ => self
                .reservations
                .binary_search_by(|&(other, _)| other.cmp(&ticket)),
        }
    }

    /// The number of units that may be charged now. Negative if the budget is in debt.
    pub(super) fn level(&self, now: Time) -> i64 {
        match &self.balance {
            Balance::Rate(rate) => {
                let remaining = rate
                    .window_at(now)
                    .map_or(u64::MAX, |window| window.remaining);
                let remaining = i64::try_from(remaining).unwrap_or(i64::MAX);
                rate.gcra.level(now).min(remaining)
            }
            Balance::Total(total) => {
                i64::try_from(total.remaining).unwrap_or(if total.remaining < 0 {
                    i64::MIN
                } else {
                    i64::MAX
                })
            }
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        match &self.balance {
            Balance::Rate(rate) => rate.gcra.rate().capacity,
            Balance::Total(total) => total.capacity,
        }
    }

    /// Whether a new budget would behave the same.
    pub(super) fn is_pristine(&self, now: Time) -> bool {
        let is_full = match &self.balance {
            Balance::Rate(rate) => rate.gcra.is_full(now) && rate.window_at(now).is_none(),
            Balance::Total(total) => total.remaining == i128::from(total.capacity),
        };
        is_full && self.outstanding == 0
    }
}

impl RateBalance {
    /// Whether `needed` units may be charged now. `is_final` tells that no event can raise the
    /// level.
    fn check(&self, needed: u64, is_final: bool, now: Time) -> Admission {
        if let Some(window) = self.window_at(now)
            && needed > window.remaining
        {
            return Admission::RefusedUntilEventOrInstant(window.resets_at);
        }
        if needed > self.gcra.rate().capacity {
            return Admission::RefusedUntilEvent;
        }
        match self.gcra.earliest_charge(now, needed) {
            at if at <= now => Admission::Granted,
            at if is_final => Admission::RefusedUntil(at),
            at => Admission::RefusedUntilEventOrInstant(at),
        }
    }

    fn charge(&mut self, cost: u64, now: Time) {
        self.gcra.charge(now, cost);
        if let Some(window) = &mut self.server_window {
            window.remaining = window.remaining.saturating_sub(cost);
        }
    }

    /// The server's window, unless the server has reset it.
    fn window_at(&self, now: Time) -> Option<ServerWindow> {
        self.server_window.filter(|window| now < window.resets_at)
    }

    /// A server refills its limit in one of two ways. With fixed windows, nothing beyond
    /// `remaining` is accepted before the reset. With continuous refill, the reset is the instant
    /// at which the level is back at the limit, and the server accepts requests before. A reset
    /// that comes well before the level could be refilled at this budget's own rate shows a window.
    fn apply_announcement(
        &mut self,
        announcement: &BudgetAnnouncement<'_>,
        charged_since: u64,
        now: Time,
    ) {
        let remaining = announcement.remaining.saturating_sub(charged_since);
        self.gcra.lower_level_to(now, remaining);
        let rate = self.gcra.rate();
        let limit = announcement.limit.unwrap_or(rate.units.get());
        let missing = limit.saturating_sub(announcement.remaining);
        let refill_time = u128::from(missing) * u128::from(rate.period_nanos.get())
            / u128::from(rate.units.get());
        self.server_window = announcement
            .reset_after_nanos
            .filter(|&nanos| u128::from(nanos) < refill_time / 4 * 3)
            .map(|nanos| ServerWindow {
                remaining,
                resets_at: now.plus_nanos(nanos),
            });
    }
}
