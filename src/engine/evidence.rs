//! What an exchange says of its host.

use crate::exchange::verdict::is_throttling;
use crate::schedule::{Evidence, Health};
use crate::wire::{Phase, lacks_descriptor};
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
            ErrorKind::Connect if lacks_descriptor(error) => None,
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
