//! What an exchange says of its host.

use crate::exchange::verdict::is_throttling;
use crate::schedule::{Evidence, Health};
use crate::{Error, ErrorKind, Response, Timings};

impl Evidence {
    /// None if it says nothing of the host. `timings` is what the hop took, `answered` whether its head came.
    pub(super) fn of(
        outcome: &Result<Response, Error>,
        timings: Timings,
        answered: bool,
    ) -> Option<Self> {
        Some(Self {
            health: health(outcome)?,
            latency: answered.then(|| timings.first_byte().as_nanos() as u64),
        })
    }
}

fn health(outcome: &Result<Response, Error>) -> Option<Health> {
    match outcome {
        Ok(response) if is_throttling(response.status()) => Some(Health::Strained),
        Ok(_) => Some(Health::Well),
        Err(error) if error.is_connect() => Some(Health::Unreachable),
        Err(error) => match error.kind() {
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
