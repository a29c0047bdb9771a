//! The body of a response as it comes from the transport, before decoding.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::task::coop::poll_proceed;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::wire;
use crate::wire::StickyConnection;

/// The body of a response from the network or from a service in this process.
pub(crate) enum TransportBody {
    Wire(wire::IncomingBody),
    Service(ServiceBody),
}

impl TransportBody {
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            TransportBody::Wire(body) => body.poll_chunk(cx, clock, sticky_connection),
            TransportBody::Service(body) => {
                let chunk = ready!(body.poll_chunk(cx));
                if chunk.is_some() {
                    clock.record_activity(Instant::now());
                }
                Poll::Ready(chunk)
            }
        }
    }

    /// The length of the body; `None` if it is unknown. Call only before the first chunk is read.
    pub(super) fn exact_body_length(&self) -> Option<u64> {
        match self {
            TransportBody::Wire(body) => body.remaining_length(),
            TransportBody::Service(body) => body.exact_body_length,
        }
    }

    /// Whether the body is known to have ended.
    pub(super) fn is_known_to_have_ended(&self) -> bool {
        match self {
            TransportBody::Wire(body) => body.is_known_to_have_ended(),
            TransportBody::Service(body) => body.body.is_end_stream(),
        }
    }
}

/// The body of a response from a tower service in this process, with its type erased. Trailers are
/// skipped.
pub(crate) struct ServiceBody {
    body: UnsyncBoxBody<Bytes, Error>,
    exact_body_length: Option<u64>,
}

impl ServiceBody {
    /// Polls for the next chunk that is not empty. Each frame consumes tokio's cooperative budget,
    /// so that a body that is always ready cannot block other tasks.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let coop_budget = ready!(poll_proceed(cx));
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            coop_budget.made_progress();
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) if !chunk.is_empty() => return Poll::Ready(Some(Ok(chunk))),
                    Ok(_) | Err(_) => {}
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn new<B>(body: B) -> Self
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let exact_body_length = body.size_hint().exact();
        let body = body
            .map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            .map_err(service_error)
            .boxed_unsync();
        Self {
            body,
            exact_body_length,
        }
    }
}

/// Converts the error of a tower service or of its response body. A service may return this crate's
/// own [`Error`] to simulate a network fault. Any other error becomes [`ErrorKind::Transport`].
pub(crate) fn service_error(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => Error::new(ErrorKind::Transport, other),
    }
}
