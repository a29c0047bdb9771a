//! The body of an answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::answer::TOLD;
use super::record::InFlight;
use crate::{Error, ErrorKind};

/// What an answer's body is to be.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) delay: Duration,
    pub(super) end: End,
}

/// What comes after the bytes.
#[derive(Clone, Copy, Default)]
pub(super) enum End {
    #[default]
    Whole,
    Never,
    Fault(ErrorKind),
}

impl<B: Into<Bytes>> From<B> for Content {
    fn from(bytes: B) -> Self {
        Self {
            bytes: bytes.into(),
            ..Self::default()
        }
    }
}

/// A body under way. Its request is in flight for as long as it lives.
pub(super) struct AnswerBody {
    delay: Option<Pin<Box<Sleep>>>,
    bytes: Bytes,
    end: End,
    _in_flight: InFlight,
}

impl AnswerBody {
    pub(super) fn new(content: Content, in_flight: InFlight) -> Self {
        let Content { bytes, delay, end } = content;
        Self {
            delay: (delay > Duration::ZERO).then(|| Box::pin(sleep(delay))),
            bytes,
            end,
            _in_flight: in_flight,
        }
    }
}

impl Body for AnswerBody {
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
            End::Whole => Poll::Ready(None),
            End::Never => Poll::Pending,
            End::Fault(kind) => {
                self.end = End::Whole;
                Poll::Ready(Some(Err(Error::of(kind).because(TOLD))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Whole => SizeHint::with_exact(self.bytes.len() as u64),
            End::Never | End::Fault(_) => SizeHint::default(),
        }
    }
}
