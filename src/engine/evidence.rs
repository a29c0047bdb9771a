//! What an exchange says of its host.

use crate::exchange::verdict::is_throttling;
use crate::schedule::{Evidence, Health};
use crate::wire::Phase;
use crate::{Error, ErrorKind, Response, Timings};

impl Evidence {
    /// None if it says nothing of the host. `timings` is what the hop took, `phase` where it ended.
    pub(super) fn of(
        outcome: &Result<Response, Error>,
        timings: Timings,
        phase: Phase,
    ) -> Option<Self> {
        let answered = matches!(phase, Phase::Body | Phase::Stream);
        Some(Self {
            health: health(outcome, phase)?,
            latency: answered.then(|| timings.first_byte().as_nanos() as u64),
        })
    }
}

fn health(outcome: &Result<Response, Error>, phase: Phase) -> Option<Health> {
    match outcome {
        Ok(response) if is_throttling(response.status()) => Some(Health::Strained),
        Ok(_) => Some(Health::Well),
        Err(error) => match error.kind() {
            ErrorKind::RequestTimeout | ErrorKind::TotalTimeout if phase == Phase::Connect => {
                Some(Health::Unreachable)
            }
            // What is certain for good, as that there is no such name, is no outage, and best told to each.
            kind if error.is_connect() && kind.is_transient() => Some(Health::Unreachable),
            // The host was there to fail in it.
            ErrorKind::Tls => Some(Health::Strained),
            ErrorKind::Closed
            | ErrorKind::Reset
            | ErrorKind::Truncated
            | ErrorKind::FirstByteTimeout
            | ErrorKind::BodyIdleTimeout
            | ErrorKind::RequestTimeout
            | ErrorKind::TotalTimeout => Some(Health::Strained),
            _ => None,
        },
    }
}
