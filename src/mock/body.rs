//! The body of an answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::request_log::InFlightGuard;
use super::response::MOCK_FAULT;
use crate::{Error, ErrorKind};

/// What an answer's body is to be.
#[derive(Clone, Default)]
pub(super) struct BodyScript {
    pub(super) bytes: Bytes,
    pub(super) delay: Duration,
    pub(super) end: BodyEnd,
}

/// What comes after the bytes.
#[derive(Clone, Copy, Default)]
pub(super) enum BodyEnd {
    #[default]
    Complete,
    Stalled,
    Error(ErrorKind),
}

impl<B: Into<Bytes>> From<B> for BodyScript {
    fn from(bytes: B) -> Self {
        Self {
            bytes: bytes.into(),
            ..Self::default()
        }
    }
}

/// A body under way. Its request is in flight for as long as it lives.
pub(super) struct MockBody {
    delay: Option<Pin<Box<Sleep>>>,
    bytes: Bytes,
    end: BodyEnd,
    _in_flight: InFlightGuard,
}

impl MockBody {
    pub(super) fn new(script: BodyScript, in_flight: InFlightGuard) -> Self {
        let BodyScript { bytes, delay, end } = script;
        Self {
            delay: (delay > Duration::ZERO).then(|| Box::pin(sleep(delay))),
            bytes,
            end,
            _in_flight: in_flight,
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
        if let Some(delay) = &mut self.delay {
            ready!(delay.as_mut().poll(cx));
            self.delay = None;
        }
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            BodyEnd::Complete => Poll::Ready(None),
            BodyEnd::Stalled => Poll::Pending,
            BodyEnd::Error(kind) => {
                self.end = BodyEnd::Complete;
                Poll::Ready(Some(Err(Error::from_kind(kind).with_detail(MOCK_FAULT))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            BodyEnd::Complete => SizeHint::with_exact(self.bytes.len() as u64),
            BodyEnd::Stalled | BodyEnd::Error(_) => SizeHint::default(),
        }
    }
}
