//! The circuit breaker, which decides when a host counts as down.

use std::num::NonZeroU32;
use std::time::Duration;

/// A circuit breaker: stops sending to a host that cannot be reached.
///
/// The breaker of a host opens after repeated failures to connect. During the following cooldown,
/// nothing is sent to the host. Its requests stay queued, and their timeouts do not run. After the
/// cooldown, one request is sent as a probe. If the host responds, with any status, the breaker
/// closes and the queued requests start. If the probe cannot connect, another cooldown begins. If
/// the host stays down for longer than [`max_wait`](Self::max_wait), its requests fail with
/// [`ErrorKind::HostDown`](crate::ErrorKind::HostDown). 10,000 URLs of a dead host thus fail within
/// seconds, not after 10,000 timeouts. The defaults are 5 failures, a cooldown of 15 s and a
/// maximum wait of 15 s.
///
/// These failures count: a failed name lookup, a refused or timed-out connection (any timeout on
/// the wire), and a failed proxy. These do not count:
/// [`HostNotFound`](crate::ErrorKind::HostNotFound) and
/// [`ProxyRefused`](crate::ErrorKind::ProxyRefused), which are permanent, and a lack of file
/// descriptors in this process. A response resets the count, and so does any failure after the
/// connection was established, including a failed TLS handshake. Requests in flight when the
/// breaker opens continue. A response to such a request closes the breaker; a failure of such a
/// request has no effect.
///
/// Each route has its own breaker, shared by all batches and fetches of a Fetcher. A route is an
/// origin (scheme, host and port), reached directly or through one proxy. A dead proxy therefore
/// delays no request that uses another proxy or none. If
/// [`limit_by`](crate::FetcherBuilder::limit_by) is set there are no breakers, because one key may
/// stand for several hosts. The state of a route that is unused for two cooldowns may be dropped.
///
/// ```
/// use std::time::Duration;
/// use fanout::{Breaker, Fetcher, Host};
///
/// # fn main() -> fanout::Result<()> {
/// let fetcher = Fetcher::builder()
///     .breaker(Breaker::default().failure_threshold(3).cooldown(Duration::from_secs(5)))
///     .host("https://flaky.example.com", Host::new().breaker(Breaker::off()))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    pub(crate) failure_threshold: Option<NonZeroU32>,
    pub(crate) cooldown: Duration,
    pub(crate) max_wait: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failure_threshold: NonZeroU32::new(5),
            cooldown: Duration::from_secs(15),
            max_wait: Duration::from_secs(15),
        }
    }
}

impl Breaker {
    /// A breaker that never opens: every request is sent. Use it for health checks.
    #[must_use]
    pub fn off() -> Self {
        Self {
            failure_threshold: None,
            ..Self::default()
        }
    }

    /// Sets how many consecutive failures open the breaker. Default: 5 failures.
    ///
    /// # Panics
    ///
    /// Panics if the threshold is zero.
    #[must_use]
    #[track_caller]
    pub fn failure_threshold(self, failure_threshold: u32) -> Self {
        assert_ne!(
            failure_threshold, 0,
            "a breaker with a failure threshold of zero would never close; see `Breaker::off`"
        );
        Self {
            failure_threshold: NonZeroU32::new(failure_threshold),
            ..self
        }
    }

    /// Sets how long the breaker stays open before it sends a probe. Default: 15 s.
    #[must_use]
    pub fn cooldown(self, cooldown: Duration) -> Self {
        Self { cooldown, ..self }
    }

    /// Sets how long requests stay queued for a host that is down, counted from the first time its
    /// breaker opened during the outage. Default: 15 s.
    ///
    /// A breaker that stays open has one cooldown after another. Once the current cooldown ends
    /// later than the maximum wait, requests no longer wait for it: queued and new requests fail at
    /// once. A request that has had an attempt ends with the outcome of its last attempt. Any other
    /// request fails with [`ErrorKind::HostDown`](crate::ErrorKind::HostDown). Only the first
    /// request after each cooldown is sent, as the probe.
    ///
    /// With the defaults, requests wait only for the first cooldown and its probe. With a maximum
    /// wait of zero, they never wait.
    ///
    /// If the [deadline](crate::Batch::deadline) of a batch passes before the cooldown ends, the
    /// requests of the batch fail in the same way. They fail only when no request that could close
    /// the breaker is in flight.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "never close")]
    fn zero_failure_threshold_panics() {
        let _ = Breaker::default().failure_threshold(0);
    }

    #[test]
    fn off_has_no_failure_threshold() {
        assert_eq!(Breaker::off().failure_threshold, None);
    }
}
