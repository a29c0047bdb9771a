//! A gate: so many at once, and so many in a time.
//!
//! The rate is the generic cell rate algorithm (ITU-T I.371, virtual scheduling form): one instant of state, and a
//! decision that is a function of the parameters, that instant and *now*.

use super::adaptive::{Adaptive, ConcurrencyBounds};
use super::server_limit::ServerLimit;
use super::{BlockReason, HostObservation, Time};

/// How late the caller's timer may be and still be made up for: a start that was told to come at `t` and comes at most
/// this much later counts as having come at `t`. A millisecond timer would otherwise cost a rate of 100/s a tenth of
/// itself. So in no window are there more starts than burst + rate × (window + this); for a caller that comes on time,
/// at a gate that no other gate delays, than burst + rate × window.
const LATENESS: u64 = 2_000_000;

/// A rate as two numbers of nanoseconds: the time between starts, and how far ahead of that pace a burst may run.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GcraRate {
    pub(crate) emission_interval: u64,
    pub(crate) burst_tolerance: u64,
}

/// The limits a gate may have.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GateLimits {
    pub(crate) concurrency: usize,
    /// If the concurrency is only where it begins, and learns.
    pub(crate) adaptive: Option<ConcurrencyBounds>,
    pub(crate) rate: Option<GcraRate>,
    /// For so many nanoseconds the first to start is alone, unless it reports or ends before: what it finds out is worth
    /// knowing for those who come after. Only a lane's gate sends scouts.
    pub(crate) scout_timeout: u64,
}

impl GateLimits {
    pub(crate) const UNLIMITED: Self = Self {
        concurrency: usize::MAX,
        adaptive: None,
        rate: None,
        scout_timeout: 0,
    };
}

/// What a gate answers to one who would start now.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Granted,
    /// Until one that is in flight settles, or who holds it lets go.
    Blocked,
    /// Not before this instant.
    NotBefore(Time),
    /// Until the scout reports, and no later than at this instant.
    NoLaterThan(Time),
}

#[derive(Copy, Clone, Debug)]
enum Scout {
    /// The next to start is one.
    Due,
    /// It is alone until then.
    Out(Time),
    /// None is needed any more.
    Back,
}

#[derive(Clone, Debug)]
pub(super) struct Gate {
    limits: GateLimits,
    adaptive: Option<Box<Adaptive>>,
    /// What the host says it allows. Only a lane's gate has one.
    pub(super) quota: Option<Box<ServerLimit>>,
    in_flight: usize,
    /// The theoretical arrival time: when the next start is due if none runs ahead.
    due: Time,
    /// The instant last given out with [`Admission::NotBefore`] by the pace, so that lateness is told from idleness.
    promised: Option<Time>,
    /// How late the start was that had been promised. Those behind it that it kept waiting are as late.
    late: u64,
    paused_until: Time,
    /// How many hold it closed until they let go.
    holds: usize,
    scout: Scout,
}

impl Gate {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            adaptive: limits
                .adaptive
                .map(|bounds| Box::new(Adaptive::new(limits.concurrency, bounds))),
            quota: None,
            in_flight: 0,
            due: Time::default(),
            promised: None,
            late: 0,
            paused_until: Time::default(),
            holds: 0,
            scout: match limits.scout_timeout {
                0 => Scout::Back,
                _ => Scout::Due,
            },
        }
    }

    pub(super) fn check(&mut self, now: Time) -> Admission {
        if self.is_full() {
            return Admission::Blocked;
        }
        if self.is_held() {
            self.promised = None;
            return Admission::Blocked;
        }
        if now < self.paused_until {
            // Who waits for the pause is not late for the pace.
            self.promised = None;
            return Admission::NotBefore(self.paused_until);
        }
        if let Some(quota) = &self.quota {
            let pass = quota.check(now);
            if pass != Admission::Granted {
                self.promised = None;
                return pass;
            }
        }
        if let Some(pace) = self.limits.rate {
            // It is never further ahead than this, unless the clock went back: another runtime's clock may be a test's,
            // paused and wound on.
            let ahead = pace.burst_tolerance.saturating_add(pace.emission_interval);
            self.due = self.due.min(now.plus_nanos(ahead));
            let earliest = self.due.minus_nanos(pace.burst_tolerance);
            if now < earliest {
                self.promised = Some(earliest);
                return Admission::NotBefore(earliest);
            }
        }
        match self.scout {
            Scout::Out(until) if now < until => Admission::NoLaterThan(until),
            _ => Admission::Granted,
        }
    }

    /// One starts. The caller has seen [`Admission::Granted`] at this `now`. If this one is a scout, until when it is alone.
    pub(super) fn enter(&mut self, now: Time) -> Option<Time> {
        self.in_flight += 1;
        if let Some(quota) = &mut self.quota {
            quota.enter(now);
        }
        if let Some(pace) = self.limits.rate {
            match self.promised.take() {
                Some(at) => self.late = now.nanos_since(at).min(LATENESS),
                None if self.due < now.minus_nanos(self.late) => self.late = 0,
                None => {}
            }
            self.due = self
                .due
                .max(now.minus_nanos(self.late))
                .plus_nanos(pace.emission_interval);
        }
        let is_scout = matches!(self.scout, Scout::Due);
        let until = now.plus_nanos(self.limits.scout_timeout);
        self.scout = match is_scout {
            true => Scout::Out(until),
            false => Scout::Back,
        };
        is_scout.then_some(until)
    }

    /// The scout is back.
    pub(super) fn finish_scout(&mut self) {
        self.scout = Scout::Back;
    }

    /// One has ended. True if this may have opened the gate.
    pub(super) fn leave(&mut self) -> bool {
        let was_full = self.is_full();
        self.in_flight -= 1;
        was_full && !self.is_full()
    }

    /// What came of start number `number` of `starts`, for a limit that learns. True if this has opened the gate.
    pub(super) fn learn(
        &mut self,
        evidence: &HostObservation,
        number: u64,
        starts: u64,
        now: Time,
    ) -> bool {
        let was_full = self.is_full();
        if let Some(adaptive) = &mut self.adaptive {
            self.limits.concurrency = adaptive.learn(evidence, number, starts, was_full, now);
        }
        was_full && !self.is_full()
    }

    /// Nothing starts here before `until`; a pause is never shortened by a later, shorter one.
    pub(super) fn pause(&mut self, until: Time) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Nothing starts here until it is released as often as it was held.
    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    /// True if this may have opened the gate.
    pub(super) fn release(&mut self) -> bool {
        self.holds -= 1;
        self.holds == 0
    }

    /// How many may be in flight, as things stand.
    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.limits.concurrency
    }

    pub(super) fn is_held(&self) -> bool {
        self.holds > 0
    }

    /// Those in flight beyond a lower limit stay; nothing starts until they are fewer.
    pub(super) fn set_concurrency(&mut self, concurrency: usize) {
        self.limits.concurrency = concurrency;
    }

    /// The starts so far count at the new pace, too: from now on there are no more than its burst and rate allow.
    pub(super) fn set_rate(&mut self, rate: Option<GcraRate>) {
        self.limits.rate = rate;
        self.promised = None;
        self.late = 0;
    }

    /// What keeps it closed; none if it is open.
    pub(super) fn why(&self, now: Time) -> Option<BlockReason> {
        if self.is_held() {
            return Some(BlockReason::LaneHeld);
        }
        if now < self.paused_until {
            return Some(BlockReason::Backoff);
        }
        if self.is_full() || matches!(self.scout, Scout::Out(until) if now < until) {
            return Some(BlockReason::Concurrency);
        }
        let is_open = |quota: &ServerLimit| quota.check(now) == Admission::Granted;
        if !self.quota.as_deref().is_none_or(is_open) {
            return Some(BlockReason::Rate);
        }
        let pace = self.limits.rate?;
        (now < self.due.minus_nanos(pace.burst_tolerance)).then_some(BlockReason::Rate)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.limits.concurrency
    }

    /// Whether forgetting this gate and making it anew would change nothing.
    pub(super) fn is_at_rest(&self, now: Time) -> bool {
        let is_stale = |adaptive: &Adaptive| adaptive.is_stale(now);
        self.in_flight == 0
            && self.holds == 0
            && self.due <= now
            && self.paused_until <= now
            && self.quota.as_deref().is_none_or(|quota| quota.is_over(now))
            && self.adaptive.as_deref().is_none_or(is_stale)
    }
}
