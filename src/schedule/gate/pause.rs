//! Refuses all starts until an instant.

use super::super::admission::Admission;
use super::super::time::Time;

#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Pause {
    paused_until: Time,
}

impl Pause {
    pub(super) fn check_admission(self, now: Time) -> Admission {
        if now < self.paused_until {
            Admission::RefusedUntil(self.paused_until)
        } else {
            Admission::Granted
        }
    }

    /// Extends the pause until `until`. Never shortens a pause.
    pub(super) fn extend_until(&mut self, until: Time) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Whether the pause has passed.
    pub(super) fn is_over(self, now: Time) -> bool {
        self.paused_until <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_refuses_until_its_end_and_is_never_shortened() {
        let at = Time::from_nanos;
        let mut pause = Pause::default();
        assert!(pause.is_over(at(0)));
        pause.extend_until(at(50));
        pause.extend_until(at(20));
        assert_eq!(
            pause.check_admission(at(49)),
            Admission::RefusedUntil(at(50))
        );
        assert_eq!(pause.check_admission(at(50)), Admission::Granted);
        assert!(!pause.is_over(at(49)) && pause.is_over(at(50)));
    }
}
