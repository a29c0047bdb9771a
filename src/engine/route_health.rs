//! Derives the health of a route from the outcome of an exchange. A route leads to a host, directly
//! or through a proxy.

use crate::error::{Error, ErrorKind};
use crate::hop_clock::Phase;
use crate::response::Response;
use crate::retry::is_overload_status;
use crate::schedule::{RouteHealth, RouteObservation};
use crate::timings::Timings;
use crate::wire::is_descriptor_exhaustion;

impl RouteObservation {
    /// Returns `None` if the outcome says nothing about the route. `timings` are the timings of the
    /// hop, and `phase` is the phase in which the hop ended.
    pub(super) fn observation_from_outcome(
        outcome: &Result<Response, Error>,
        timings: Timings,
        phase: Phase,
    ) -> Option<Self> {
        let has_response_head = matches!(phase, Phase::Body | Phase::Streaming);
        Some(Self {
            health: health_from_outcome(outcome, phase)?,
            response_head_latency_nanos: has_response_head
                .then(|| timings.response_head().as_nanos() as u64),
        })
    }
}

fn health_from_outcome(outcome: &Result<Response, Error>, phase: Phase) -> Option<RouteHealth> {
    match outcome {
        Ok(response) if is_overload_status(response.status()) => Some(RouteHealth::Overloaded),
        Ok(_) => Some(RouteHealth::Healthy),
        Err(error) => match error.kind() {
            ErrorKind::RequestTimeout | ErrorKind::TotalTimeout if phase == Phase::Connect => {
                Some(RouteHealth::Unreachable)
            }
            ErrorKind::Connect if is_descriptor_exhaustion(error) => None,
            // Permanent errors, such as an unknown host name, do not trip the breaker.
            kind if error.is_connect() && kind.is_transient() => Some(RouteHealth::Unreachable),
            // A TLS handshake fails only after the host was reached. The failure therefore counts
            // as an overload, not as an unreachable host.
            ErrorKind::Tls => Some(RouteHealth::Overloaded),
            ErrorKind::Closed
            | ErrorKind::Reset
            | ErrorKind::Truncated
            | ErrorKind::ResponseHeadTimeout
            | ErrorKind::BodyIdleTimeout
            | ErrorKind::RequestTimeout
            | ErrorKind::TotalTimeout => Some(RouteHealth::Overloaded),
            _ => None,
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn descriptor_exhaustion_says_nothing_about_the_route() {
        let health_of = |code| {
            let error = Error::new(ErrorKind::Connect, io::Error::from_raw_os_error(code));
            health_from_outcome(&Err(error), Phase::Connect)
        };
        assert_eq!(health_of(24), None);
        assert_eq!(health_of(111), Some(RouteHealth::Unreachable));
    }
}
