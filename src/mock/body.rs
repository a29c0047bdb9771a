//! The body of a mock response: its bytes, its delay and its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::time::{Sleep, sleep};

use super::fault::injected_error;
use super::request_log::InFlightGuard;
use crate::error::{Error, ErrorKind};

/// The body that the user set on a [`MockResponse`](super::MockResponse).
#[derive(Clone, Default)]
pub(super) struct MockBodyScript {
    pub(super) body_bytes: Bytes,
    /// The delay between the response head and the first byte.
    pub(super) first_byte_delay: Duration,
    pub(super) body_end: MockBodyEnd,
}

/// How a mock body ends after its last byte.
#[derive(Clone, Copy, Default)]
pub(super) enum MockBodyEnd {
    #[default]
    Complete,
    Stalled,
    Error(ErrorKind),
}

impl<B: Into<Bytes>> From<B> for MockBodyScript {
    fn from(bytes: B) -> Self {
        Self {
            body_bytes: bytes.into(),
            ..Self::default()
        }
    }
}

/// The body of a mock response while the client reads it. The request counts as in flight until the
/// `MockBody` is dropped.
pub(super) struct MockBody {
    first_byte_timer: Option<Pin<Box<Sleep>>>,
    remaining_body: Full<Bytes>,
    body_end: MockBodyEnd,
    _in_flight_guard: InFlightGuard,
}

impl MockBody {
    pub(super) fn new(script: MockBodyScript, in_flight: InFlightGuard) -> Self {
        let MockBodyScript {
            body_bytes,
            first_byte_delay,
            body_end,
        } = script;
        Self {
            first_byte_timer: (first_byte_delay > Duration::ZERO)
                .then(|| Box::pin(sleep(first_byte_delay))),
            remaining_body: Full::new(body_bytes),
            body_end,
            _in_flight_guard: in_flight,
        }
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(delay) = &mut self.first_byte_timer {
            ready!(delay.as_mut().poll(cx));
            self.first_byte_timer = None;
        }
        if let Some(Ok(frame)) = ready!(Pin::new(&mut self.remaining_body).poll_frame(cx)) {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.body_end {
            MockBodyEnd::Complete => Poll::Ready(None),
            MockBodyEnd::Stalled => Poll::Pending,
            MockBodyEnd::Error(kind) => {
                self.body_end = MockBodyEnd::Complete;
                Poll::Ready(Some(Err(injected_error(kind))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_complete = matches!(self.body_end, MockBodyEnd::Complete);
        is_complete && self.first_byte_timer.is_none() && self.remaining_body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body_end {
            MockBodyEnd::Complete => self.remaining_body.size_hint(),
            MockBodyEnd::Stalled | MockBodyEnd::Error(_) => SizeHint::default(),
        }
    }
}
