//! The verdict of a gate.

use super::time::Time;

/// Whether a request may start now, and if not, when to ask again.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Granted,
    /// Refused until an event: a request settles, a hold is released, a probe is answered.
    Blocked,
    /// Refused until this instant, whatever happens before.
    NotBefore(Time),
    /// Refused until an event, but at the latest until this instant.
    NoLaterThan(Time),
}
