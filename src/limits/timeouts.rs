//! The timeouts of a request, which count wire time only.

use std::time::Duration;

/// How long each phase of a request may take on the wire. Time that a request is queued does not
/// count.
///
/// Each setter takes a `Duration`, or `None` for no timeout. In addition,
/// [`FetcherBuilder::request_timeout`](crate::FetcherBuilder::request_timeout) and
/// [`RequestBuilder::timeout`](crate::RequestBuilder::timeout) limit each attempt of a request, and
/// [`Batch::deadline`](crate::Batch::deadline) limits the wall-clock time of a batch.
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
    /// Limits the time to resolve the host name, connect (to all addresses together) and complete
    /// the TLS handshake. Default: 10 s. The wait until the lookup of the name begins does not
    /// count.
    ///
    /// An attempt that exceeds the limit fails with
    /// [`ErrorKind::ConnectTimeout`](crate::ErrorKind::ConnectTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn connect(self, timeout: impl Into<Option<Duration>>) -> Self {
        let connect = assert_nonzero_timeout(timeout.into());
        Self { connect, ..self }
    }

    /// Limits the time to send the request and receive the complete response head. Default: 30 s.
    ///
    /// While a request body is sent, the timeout restarts with each chunk that the server accepts.
    ///
    /// An attempt that exceeds the limit fails with
    /// [`ErrorKind::ResponseHeadTimeout`](crate::ErrorKind::ResponseHeadTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn response_head(self, timeout: impl Into<Option<Duration>>) -> Self {
        let response_head = assert_nonzero_timeout(timeout.into());
        Self {
            response_head,
            ..self
        }
    }

    /// Limits the time to wait for the next chunk of a response body. Default: 20 s.
    ///
    /// Only the wait for the server counts. All timeouts are paused while the read is blocked by a
    /// [handler](crate::Batch::read_with), by the reader of a [streamed
    /// body](crate::Fetch::stream_body), by the disk, or by
    /// [`max_buffered_bytes`](crate::Batch::max_buffered_bytes).
    ///
    /// An attempt that exceeds the limit fails with
    /// [`ErrorKind::BodyIdleTimeout`](crate::ErrorKind::BodyIdleTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn body_idle(self, timeout: impl Into<Option<Duration>>) -> Self {
        let body_idle = assert_nonzero_timeout(timeout.into());
        Self { body_idle, ..self }
    }

    /// Limits the total wire time of all attempts of a request. Default: 120 s.
    ///
    /// Time spent reading a body that is [saved to a file](crate::RequestBuilder::save_to) or
    /// passed to a [handler](crate::Batch::read_with) or to the reader of a [streamed
    /// body](crate::Fetch::stream_body) does not count.
    ///
    /// A request that exceeds the limit fails with
    /// [`ErrorKind::TotalTimeout`](crate::ErrorKind::TotalTimeout).
    ///
    /// # Panics
    ///
    /// Panics if the timeout is zero.
    #[must_use]
    #[track_caller]
    pub fn total(self, timeout: impl Into<Option<Duration>>) -> Self {
        let total = assert_nonzero_timeout(timeout.into());
        Self { total, ..self }
    }
}

#[track_caller]
fn assert_nonzero_timeout(timeout: Option<Duration>) -> Option<Duration> {
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
