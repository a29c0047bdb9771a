//! A host that cannot be reached is left alone for a while, and then asked by one: a circuit breaker (M. Nygard,
//! *Release It!*).

use std::num::NonZeroU32;

use super::{Admission, Health, RunState, Schedulable, Schedule, Time};

/// When a lane's breaker opens, and what it then does; times in nanoseconds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct BreakerConfig {
    /// So many failures in a row open it; none: never.
    pub(crate) failure_threshold: Option<NonZeroU32>,
    /// How long nothing starts.
    pub(crate) cooldown: u64,
    /// Who would wait for longer than this since it opened is refused instead.
    pub(crate) max_wait: u64,
}

impl BreakerConfig {
    pub(crate) const DISABLED: Self = Self {
        failure_threshold: None,
        cooldown: 0,
        max_wait: 0,
    };
}

#[derive(Copy, Clone, Debug)]
enum State {
    Closed,
    /// Nothing starts before this; who starts then is the probe.
    Open(Time),
    /// The probe is on the wire, alone.
    Probing,
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    trip: BreakerConfig,
    state: State,
    /// In a row.
    failures: u32,
    failed_at: Time,
    /// When it opened, if it has not closed since.
    down_since: Time,
    /// While it is not closed: whether those who wait are refused.
    refuses: bool,
    /// The number of the last probe, so that it is told from one before.
    probe: u32,
}

/// What a breaker answers to one who would start now.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum BreakerAdmission {
    Granted,
    Wait(Admission),
    /// There is none, and it is not worth waiting.
    Reject,
}

impl CircuitBreaker {
    pub(super) fn new(trip: BreakerConfig) -> Self {
        Self {
            trip,
            state: State::Closed,
            failures: 0,
            failed_at: Time::default(),
            down_since: Time::default(),
            refuses: false,
            probe: 0,
        }
    }

    pub(super) fn check(&self, now: Time) -> BreakerAdmission {
        match self.state {
            State::Closed => BreakerAdmission::Granted,
            State::Open(until) if until <= now => BreakerAdmission::Granted,
            State::Open(_) | State::Probing if self.refuses => BreakerAdmission::Reject,
            // One of those still on the wire may be answered, and close it.
            State::Open(until) => BreakerAdmission::Wait(Admission::NoLaterThan(until)),
            State::Probing => BreakerAdmission::Wait(Admission::Blocked),
        }
    }

    pub(super) fn is_shut(&self, now: Time) -> bool {
        self.check(now) != BreakerAdmission::Granted
    }

    /// One starts. The caller has seen [`BreakerAdmission::Granted`]. The number of the probe if this one is it, or 0.
    pub(super) fn enter(&mut self) -> u32 {
        if let State::Open(_) = self.state {
            self.state = State::Probing;
            self.probe = self.probe.wrapping_add(1).max(1);
            return self.probe;
        }
        0
    }

    fn awaits(&self, probe: u32) -> bool {
        matches!(self.state, State::Probing) && probe == self.probe
    }

    /// Heeds what came of an exchange. True if who waits before it is to look again.
    ///
    /// What was on the wire before it opened may close it by an answer, but keep it open for no longer by a failure.
    pub(super) fn learn(&mut self, probe: u32, health: Health, now: Time) -> bool {
        let Some(most) = self.trip.failure_threshold else {
            return false;
        };
        let heeded = matches!(self.state, State::Closed) || self.awaits(probe);
        match health {
            Health::Unreachable if heeded => self.failed(most.get(), now),
            Health::Overloaded if heeded => self.close(),
            Health::Healthy => self.close(),
            Health::Unreachable | Health::Overloaded => false,
        }
    }

    fn failed(&mut self, most: u32, now: Time) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        if self.failures < most {
            return false;
        }
        if let State::Closed = self.state {
            self.down_since = now;
        }
        let until = now.plus_nanos(self.trip.cooldown);
        self.refuses = until.nanos_since(self.down_since) > self.trip.max_wait;
        self.state = State::Open(until);
        self.refuses
    }

    fn close(&mut self) -> bool {
        self.failures = 0;
        !matches!(
            std::mem::replace(&mut self.state, State::Closed),
            State::Closed
        )
    }

    /// The probe has got an answer. True if this has closed it.
    pub(super) fn reached(&mut self, probe: u32) -> bool {
        self.awaits(probe) && self.close()
    }

    /// The probe has gone, and if nothing was learned from it the next to come is another.
    pub(super) fn gone(&mut self, probe: u32) {
        if self.awaits(probe) {
            self.state = State::Open(Time::default());
        }
    }

    /// Whether it is as it was made.
    pub(super) fn knows_nothing(&self) -> bool {
        matches!(self.state, State::Closed) && self.failures == 0
    }

    /// Whether forgetting it loses nothing of worth: a host that nothing was heard of for twice the cooldown may be up.
    pub(super) fn is_at_rest(&self, now: Time) -> bool {
        self.knows_nothing() || now.nanos_since(self.failed_at) / 2 >= self.trip.cooldown
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Takes the jobs whose host cannot be reached, and that have waited for it long enough.
    pub(crate) fn take_unreachable(&mut self) -> Vec<J> {
        std::mem::take(&mut self.unreachable)
    }

    /// Whether the lane's breaker lets this queue start now. If not, it is parked, or what it has is answered.
    pub(super) fn passes_breaker(
        &mut self,
        queue: usize,
        lane: usize,
        was_called: bool,
        now: Time,
    ) -> bool {
        match self.lanes[lane].breaker.check(now) {
            BreakerAdmission::Granted => return true,
            BreakerAdmission::Wait(refusal) => self.park_on_lane(queue, refusal, was_called),
            BreakerAdmission::Reject => {
                let before = self.unreachable.len();
                let from = &mut self.queues[queue];
                from.ready.drain(&mut self.unreachable);
                let batch = from.batch;
                self.count(batch, -((self.unreachable.len() - before) as isize));
                self.put_out(queue);
            }
        }
        debug_assert_ne!(self.queues[queue].place, RunState::Runnable);
        false
    }
}
