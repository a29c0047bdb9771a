//! How long the wire may take.

use std::time::Duration;

/// How long each part of a request may take, in wire time: what waits in the schedule counts
/// nothing.
///
/// Each takes a `Duration`, or `None` for never. [`RequestBuilder::timeout`](crate::RequestBuilder::timeout)
/// limits one request, the deadline of a batch its wall-clock time.
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
    /// To resolve the name, connect (over all addresses) and finish the TLS handshake: 10 s by
    /// default.
    ///
    /// It ends with [`ErrorKind::ConnectTimeout`](crate::ErrorKind::ConnectTimeout).
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn connect(self, timeout: impl Into<Option<Duration>>) -> Self {
        let connect = nonzero(timeout.into());
        Self { connect, ..self }
    }

    /// From the connection being ready until the response head is complete: 30 s by default.
    ///
    /// While a long body is sent it starts anew with each part that the peer takes.
    ///
    /// It ends with [`ErrorKind::ResponseHeadTimeout`](crate::ErrorKind::ResponseHeadTimeout).
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn response_head(self, timeout: impl Into<Option<Duration>>) -> Self {
        let response_head = nonzero(timeout.into());
        Self {
            response_head,
            ..self
        }
    }

    /// Between one piece of the body and the next, waiting for the peer: 20 s by default.
    ///
    /// While it is not the peer that is waited for (a [handler](crate::Batch::read_with), a disk, room within the
    /// [buffer cap](crate::Batch::max_buffered_bytes)) neither this clock runs nor any other of these.
    ///
    /// It ends with [`ErrorKind::BodyIdleTimeout`](crate::ErrorKind::BodyIdleTimeout).
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn body_idle(self, timeout: impl Into<Option<Duration>>) -> Self {
        let body_idle = nonzero(timeout.into());
        Self { body_idle, ..self }
    }

    /// For all attempts at a request together: 120 s by default.
    ///
    /// The body of a response that is [saved](crate::RequestBuilder::save_to) or read by a
    /// [handler](crate::Batch::read_with) does not count.
    ///
    /// It ends with [`ErrorKind::TotalTimeout`](crate::ErrorKind::TotalTimeout).
    ///
    /// # Panics
    ///
    /// If it is zero.
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
        "a timeout of zero leaves no time; None is never"
    );
    timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setter_sets_its_own_and_none_is_never() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts::default().response_head(second).total(None);
        assert_eq!(timeouts.connect, Some(10 * second));
        assert_eq!(timeouts.response_head, Some(second));
        assert_eq!(timeouts.body_idle, Some(20 * second));
        assert_eq!(timeouts.total, None);
    }

    #[test]
    #[should_panic(expected = "zero leaves no time")]
    fn a_timeout_of_zero_panics() {
        let _ = Timeouts::default().body_idle(Duration::ZERO);
    }
}
