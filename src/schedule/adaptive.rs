//! How many at once a host can use, learned from how it does.
//!
//! The limit is judged by **rounds**: as many exchanges as the limit, all of them started under it. So what it does
//! shows before it changes again, and one overload is one decrease, whatever was in flight.
//!
//! - After a round that went well the limit grows: it doubles until the first setback; then it goes half the way to where
//!   that came, and stays below for a while before it tries more. A limit that is not in use does not grow.
//! - A round with too many failures sends it back to what last went well, or to three quarters if that was this limit
//!   (additive increase and multiplicative decrease, as in TCP, with CUBIC's memory of where the last loss was).
//! - A round in which answers took half as long again as usual is followed by a **trial**: a round at half the limit. By
//!   Little's law the times at both tell what the other half is worth. If half does as much work, the other half only
//!   stands in line at the server, and half of it is the limit. If the times at half are as long, the host is slower, or
//!   the requests are other ones, and the limit is not to blame. So what is usual is measured anew whenever it is
//!   doubted, and a host that has become slower is not throttled for ever.

use super::{Health, HostObservation, Time};

/// A round has at least so many exchanges, so that the mean of their times says something.
const ROUND: usize = 16;
/// Of a round, one in so many may fail, and one in any case: a host may have failures that are not of our making.
const BEARABLE: usize = 16;
/// So many rounds at first it stays at a limit that more was too much for; twice as many each time it is so again.
const PATIENCE: u32 = 2;
const MOST_PATIENCE: u32 = 16;
/// For so many nanoseconds what was learned is kept for a host that is asked nothing.
const MEMORY: u64 = 60_000_000_000;

/// Where an adaptive limit may be.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct ConcurrencyBounds {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Adaptive {
    bounds: ConcurrencyBounds,
    limit: usize,
    /// What the last round was that went well.
    good: usize,
    /// More was too much, when it was last tried.
    ceiling: Option<usize>,
    /// By how much it grows where nothing is known; twice as much the next time.
    step: usize,
    /// How many rounds there were since a setback or a trial.
    calm: u32,
    patience: u32,
    /// The mean time of an answer as long as it does not wait for others of ours, in nanoseconds.
    usual: u64,
    trial: Option<Trial>,
    round: Round,
    /// Until then what was learned is worth its memory.
    keep_until: Time,
}

/// What there was before a trial at half of it.
#[derive(Copy, Clone, Debug)]
struct Trial {
    limit: usize,
    time: u64,
}

#[derive(Copy, Clone, Debug, Default)]
struct Round {
    /// Those that started before the start of this number are not of it.
    first: u64,
    well: usize,
    failed: usize,
    /// At the end of how many the limit was in use.
    used: usize,
    /// The sum of the times, and of how many.
    time: u64,
    timed: u64,
}

impl Adaptive {
    pub(super) fn new(limit: usize, bounds: ConcurrencyBounds) -> Self {
        Self {
            bounds,
            limit,
            good: limit,
            ceiling: None,
            step: limit,
            calm: PATIENCE,
            patience: PATIENCE,
            usual: u64::MAX,
            trial: None,
            round: Round::default(),
            keep_until: Time::default(),
        }
    }

    /// Heeds what came of the exchange that was start number `number` of `starts`, and says what the limit is now. `used`
    /// tells whether all of it was in use.
    pub(super) fn learn(
        &mut self,
        evidence: &HostObservation,
        number: u64,
        starts: u64,
        used: bool,
        now: Time,
    ) -> usize {
        let round = &mut self.round;
        if number < round.first {
            return self.limit;
        }
        if evidence.health == Health::Healthy {
            round.well += 1;
            round.used += usize::from(used);
            round.time = round.time.saturating_add(evidence.latency.unwrap_or(0));
            round.timed += u64::from(evidence.latency.is_some());
        } else {
            round.failed += 1;
        }
        let length = self.limit.max(ROUND);
        let failed = round.failed > (length / BEARABLE).max(1);
        if failed || round.well + round.failed >= length {
            let round = std::mem::take(round);
            self.round.first = starts + 1;
            self.keep_until = now.plus_nanos(MEMORY);
            match failed {
                true => self.step_back(),
                false => self.end(round),
            }
        }
        self.limit
    }

    /// Whether what it has learned is not worth its memory any more.
    pub(super) fn is_stale(&self, now: Time) -> bool {
        self.keep_until <= now
    }

    fn step_back(&mut self) {
        let limit = self.limit;
        self.calm = 0;
        if self.good < limit {
            if self.ceiling.is_none() {
                self.be_patient();
            }
            self.limit = self.good;
        } else {
            self.patience = PATIENCE;
            self.limit = (limit - limit.div_ceil(4)).max(self.bounds.min);
        }
        self.good = self.limit;
        self.ceiling = Some((limit - 1).max(self.bounds.min));
        self.trial = None;
    }

    fn be_patient(&mut self) {
        self.calm = 0;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }

    fn end(&mut self, round: Round) {
        self.calm = self.calm.saturating_add(1);
        let time = round.time.checked_div(round.timed).unwrap_or(self.usual);
        if let Some(before) = self.trial.take() {
            return self.judge(before, time);
        }
        self.usual = self.usual.min(time);
        if round.used <= round.well / 2 {
            return;
        }
        if time <= half_more(self.usual) {
            self.good = self.limit;
            self.grow();
        } else if self.calm >= self.patience {
            self.try_half(time);
        }
    }

    fn grow(&mut self) {
        let by = match self.ceiling {
            Some(ceiling) if self.limit < ceiling => (ceiling - self.limit).div_ceil(2),
            Some(_) if self.calm < self.patience => 0,
            Some(_) => {
                self.ceiling = None;
                self.step = 2;
                1
            }
            None => {
                let step = self.step;
                self.step = step.saturating_mul(2);
                step
            }
        };
        self.limit = self.limit.saturating_add(by).min(self.bounds.max);
    }

    /// Answers took `time`. False if half is less than it may be.
    fn try_half(&mut self, time: u64) -> bool {
        let half = self.limit.div_ceil(2);
        let may = (self.bounds.min..self.limit).contains(&half);
        if may {
            let limit = self.limit;
            self.trial = Some(Trial { limit, time });
            self.limit = half;
        }
        may
    }

    /// A round at half of what was `before` has ended, in which answers took `time`.
    fn judge(&mut self, before: Trial, time: u64) {
        self.usual = time;
        self.be_patient();
        let half = self.limit;
        let work = |limit: usize, time: u64| limit as u128 * u128::from(time);
        if work(half, before.time) * 20 >= work(before.limit, time) * 19 {
            self.ceiling = Some(half);
            self.good = half;
            // Perhaps half of this does it too.
            self.try_half(time);
            return;
        }
        self.limit = before.limit;
        if before.time > half_more(time) {
            let in_time = work(before.limit, half_more(time)) / u128::from(before.time);
            self.limit = half.max(in_time as usize);
            self.ceiling = Some(self.limit);
        }
        self.good = self.limit;
    }
}

fn half_more(time: u64) -> u64 {
    time.saturating_add(time / 2)
}
