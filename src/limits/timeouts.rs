//! Timeouts on the wire.

use std::time::Duration;

/// How long each phase of a request may take, in wire time. Time in the schedule does not count.
///
/// Each setter takes a `Duration`, or `None` for no timeout. In addition,
/// [`RequestBuilder::timeout`](crate::RequestBuilder::timeout) limits each attempt of one request,
/// and [`Batch::deadline`](crate::Batch::deadline) limits the wall-clock time of a batch.
///
/// ```
/// use fanout::Timeouts;
/// use std::time::Duration;
///
/// let timeouts = Timeouts::default()
///     .connect(Duration::from_secs(3))
///     .total(None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub(crate) connect: Option<Duration>,
    pub(crate) response_head: Option<Duration>,
    pub(crate) body_idle: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |count| Some(Duration::from_secs(count));
        Self {
            connect: seconds(10),
            response_head: seconds(30),
            body_idle: seconds(20),
            total: seconds(120),
        }
    }
}

impl Timeouts {
    /// Limits resolving the name, connecting (to all addresses together) and the TLS handshake.
    /// Default: 10 s. A wait for other lookups, before the name can be resolved, does not count.
    ///
    /// On expiry the attempt fails with
    /// [`ErrorKind::ConnectTimeout`](crate::ErrorKind::ConnectTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn connect(self, timeout: impl Into<Option<Duration>>) -> Self {
        let connect = nonzero(timeout.into());
        Self { connect, ..self }
    }

    /// Limits the time from the ready connection to the complete response head. Default: 30 s.
    ///
    /// While a request body is sent, the timeout restarts with each part the server accepts.
    ///
    /// On expiry the attempt fails with
    /// [`ErrorKind::ResponseHeadTimeout`](crate::ErrorKind::ResponseHeadTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn response_head(self, timeout: impl Into<Option<Duration>>) -> Self {
        let response_head = nonzero(timeout.into());
        Self {
            response_head,
            ..self
        }
    }

    /// Limits the wait for the next piece of a response body. Default: 20 s.
    ///
    /// Only waiting for the server counts. All timeouts are paused while reading waits for a
    /// [handler](crate::Batch::read_with), for the disk, or for
    /// [`max_buffered_bytes`](crate::Batch::max_buffered_bytes).
    ///
    /// On expiry the attempt fails with
    /// [`ErrorKind::BodyIdleTimeout`](crate::ErrorKind::BodyIdleTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn body_idle(self, timeout: impl Into<Option<Duration>>) -> Self {
        let body_idle = nonzero(timeout.into());
        Self { body_idle, ..self }
    }

    /// Limits the wire time of all attempts of a request together. Default: 120 s.
    ///
    /// Reading a body that is [saved](crate::RequestBuilder::save_to) or passed to a
    /// [handler](crate::Batch::read_with) does not count.
    ///
    /// On expiry the request fails with
    /// [`ErrorKind::TotalTimeout`](crate::ErrorKind::TotalTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn total(self, timeout: impl Into<Option<Duration>>) -> Self {
        let total = nonzero(timeout.into());
        Self { total, ..self }
    }
}

#[track_caller]
fn nonzero(timeout: Option<Duration>) -> Option<Duration> {
    assert_ne!(
        timeout,
        Some(Duration::ZERO),
        "a timeout of zero leaves no time; use None for no timeout"
    );
    timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setter_changes_only_its_own_timeout() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts::default().response_head(second).total(None);
        assert_eq!(timeouts.connect, Some(10 * second));
        assert_eq!(timeouts.response_head, Some(second));
        assert_eq!(timeouts.body_idle, Some(20 * second));
        assert_eq!(timeouts.total, None);
    }

    #[test]
    #[should_panic(expected = "zero leaves no time")]
    fn zero_timeout_panics() {
        let _ = Timeouts::default().body_idle(Duration::ZERO);
    }
}
