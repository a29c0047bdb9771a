//! What an exchange says of its host.

use crate::exchange::decision::is_throttling_status;
use crate::schedule::{Health, HostObservation};
use crate::wire::{Phase, is_descriptor_exhaustion};
use crate::{Error, ErrorKind, Response, Timings};

impl HostObservation {
    /// None if it says nothing of the host. `timings` is what the hop took, `phase` where it ended.
    pub(super) fn of(
        outcome: &Result<Response, Error>,
        timings: Timings,
        phase: Phase,
    ) -> Option<Self> {
        let head_received = matches!(phase, Phase::Body | Phase::Streaming);
        Some(Self {
            health: health(outcome, phase)?,
            latency: head_received.then(|| timings.response_head().as_nanos() as u64),
        })
    }
}

fn health(outcome: &Result<Response, Error>, phase: Phase) -> Option<Health> {
    match outcome {
        Ok(response) if is_throttling_status(response.status()) => Some(Health::Overloaded),
        Ok(_) => Some(Health::Healthy),
        Err(error) => match error.kind() {
            ErrorKind::RequestTimeout | ErrorKind::TotalTimeout if phase == Phase::Connect => {
                Some(Health::Unreachable)
            }
            ErrorKind::Connect if is_descriptor_exhaustion(error) => None,
            // What is certain for good, as that there is no such name, is no outage, and best told to each.
            kind if error.is_connect() && kind.is_transient() => Some(Health::Unreachable),
            // The host was there to fail in it.
            ErrorKind::Tls => Some(Health::Overloaded),
            ErrorKind::Closed
            | ErrorKind::Reset
            | ErrorKind::Truncated
            | ErrorKind::ResponseHeadTimeout
            | ErrorKind::BodyIdleTimeout
            | ErrorKind::RequestTimeout
            | ErrorKind::TotalTimeout => Some(Health::Overloaded),
            _ => None,
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_want_of_descriptors_is_ours_and_no_outage_of_the_host() {
        let health_of = |code| {
            let error = Error::new(ErrorKind::Connect, io::Error::from_raw_os_error(code));
            health(&Err(error), Phase::Connect)
        };
        assert_eq!(health_of(24), None);
        assert_eq!(health_of(111), Some(Health::Unreachable));
    }
}
