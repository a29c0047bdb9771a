//! When a host that cannot be reached is left alone.

use std::num::NonZeroU32;
use std::time::Duration;

/// When a host counts as down, and how long its requests wait for it.
///
/// After so many failures in a row to connect to one host the breaker opens: for the cooldown nothing is sent there, and
/// its requests wait without a slot, a connection or a clock. Then one goes as a probe. If the host answers it, whatever
/// it answers, the breaker closes and the others follow; if it cannot be reached either, the breaker is open for another
/// cooldown. By default that is 5 failures, 15 s of cooldown and 15 s of waiting: a host that is down for a moment costs
/// its requests a moment, and one that is down for good costs a batch of ten thousand of its URLs seconds and not ten
/// thousand timeouts.
///
/// Counted are failures by which no connection came about and that another attempt may mend: the name could not be
/// looked up, the connection was refused or took too long (by any of the clocks on the wire), or the proxy on the way
/// failed. That there is [no such host](crate::ErrorKind::HostNotFound), or that a [proxy
/// refused](crate::ErrorKind::ProxyRefused), is not counted: it is certain, and each request is told so. Nor is it
/// that this process has no descriptor left. Any answer of the host starts the count anew, and so does a failure
/// after it was connected to, that of a TLS handshake included. Requests that were on the wire when the breaker
/// opened go on; if the host answers one of them it closes, and their failures change nothing.
///
/// Each origin (scheme, host, port) has one, which all batches and fetches of the Fetcher share. With
/// [`limit_by`](crate::FetcherBuilder::limit_by) there is none, since one key may then be many hosts. A host that nothing
/// was sent to for twice the cooldown may be forgotten, and its count with it.
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
    /// One that never opens, as a health checker wants it: every request is sent.
    #[must_use]
    pub fn off() -> Self {
        Self {
            failure_threshold: None,
            ..Self::default()
        }
    }

    /// How many failures in a row open it: 5 by default.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn failure_threshold(self, failure_threshold: u32) -> Self {
        assert_ne!(
            failure_threshold, 0,
            "a breaker that no failure opens would never close; see `Breaker::off`"
        );
        Self {
            failure_threshold: NonZeroU32::new(failure_threshold),
            ..self
        }
    }

    /// How long it stays open before one request goes as a probe: 15 s by default.
    #[must_use]
    pub fn cooldown(self, cooldown: Duration) -> Self {
        Self { cooldown, ..self }
    }

    /// How long requests wait for a host that is down: 15 s by default, counted from when its breaker first opened.
    ///
    /// Once a cooldown would end later than this, those that wait, and those that come before the host is back, end at
    /// once as [`ErrorKind::HostDown`](crate::ErrorKind::HostDown), or with their last result if they had an attempt. The
    /// first to come after each cooldown is the probe. With the defaults they wait through the first cooldown and its
    /// probe, and for no second one; with zero they never wait.
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
    fn a_breaker_of_no_failures_panics() {
        let _ = Breaker::default().failure_threshold(0);
    }

    #[test]
    fn off_is_no_number_of_failures() {
        assert_eq!(Breaker::off().failure_threshold, None);
    }
}
