//! What a breaker is to do, seen from outside: by the jobs that started, and what was learned of them.

use super::super::{BreakerConfig, Health, Time};
use super::simulation::MS;

pub(super) struct Outage {
    trip: BreakerConfig,
    failures: u32,
    failed_at: Time,
    pub(super) down: Option<Down>,
}

pub(super) struct Down {
    since: Time,
    until: Time,
    /// Whether that is longer than anybody waits.
    past: bool,
    /// The job that asks whether the host is back.
    probe: Option<usize>,
}

impl Outage {
    pub(super) fn new(trip: BreakerConfig) -> Self {
        Self {
            trip,
            failures: 0,
            failed_at: Time::default(),
            down: None,
        }
    }

    pub(super) fn some_trip(random: &mut fastrand::Rng) -> BreakerConfig {
        match random.bool() {
            true => BreakerConfig::DISABLED,
            false => BreakerConfig {
                failure_threshold: std::num::NonZeroU32::new(random.u32(1..4)),
                cooldown: 20 * MS,
                max_wait: [0, 20 * MS, 50 * MS][random.usize(..3)],
            },
        }
    }

    pub(super) fn enter(&mut self, id: usize, now: Time) -> Result<(), String> {
        match &mut self.down {
            Some(down) if down.probe.is_some() => Err(format!("{id} started beside the probe")),
            Some(down) if now < down.until => Err(format!("{id} started while the host was down")),
            Some(down) => {
                down.probe = Some(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn awaits(&self, id: usize) -> bool {
        self.down
            .as_ref()
            .is_some_and(|down| down.probe == Some(id))
    }

    pub(super) fn learn(&mut self, id: usize, health: Health, now: Time) {
        let Some(most) = self.trip.failure_threshold else {
            return;
        };
        let counts = self.down.is_none() || self.awaits(id);
        match health {
            Health::Unreachable if counts => {
                self.failures += 1;
                self.failed_at = now;
                if self.failures >= most.get() {
                    let since = self.down.as_ref().map_or(now, |down| down.since);
                    let until = now.plus_nanos(self.trip.cooldown);
                    self.down = Some(Down {
                        since,
                        until,
                        past: until.nanos_since(since) > self.trip.max_wait,
                        probe: None,
                    });
                }
            }
            Health::Overloaded if !counts => {}
            Health::Unreachable => {}
            Health::Healthy | Health::Overloaded => (self.failures, self.down) = (0, None),
        }
    }

    /// The head of its answer has come.
    pub(super) fn answered(&mut self, id: usize) {
        if self.awaits(id) {
            (self.failures, self.down) = (0, None);
        }
    }

    /// It has left the wire, and nothing was learned of it if it is still awaited.
    pub(super) fn gone(&mut self, id: usize) {
        if self.awaits(id)
            && let Some(down) = &mut self.down
        {
            (down.probe, down.until) = (None, Time::default());
        }
    }

    /// Its lane was at rest and is another now.
    pub(super) fn forgotten(&mut self, now: Time) -> Result<(), String> {
        if now.nanos_since(self.failed_at) < 2 * self.trip.cooldown {
            return Err("a lane was forgotten while its host was down".into());
        }
        (self.failures, self.down) = (0, None);
        Ok(())
    }

    pub(super) fn is_pristine(&self) -> bool {
        self.failures == 0
    }

    /// When another may start, if nothing more is learned; never while a probe is out, or for who would be refused.
    pub(super) fn earliest(&self, now: Time) -> Option<Time> {
        match &self.down {
            None => Some(now),
            Some(down) if down.probe.is_some() || self.refuses(now) => None,
            Some(down) => Some(now.max(down.until)),
        }
    }

    pub(super) fn refuses(&self, now: Time) -> bool {
        self.down.as_ref().is_some_and(|down| {
            let is_shut = down.probe.is_some() || now < down.until;
            is_shut && down.past
        })
    }
}
