//! Sends a request body on a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;
use tokio::time::Instant;

use crate::body::Body;
use crate::error::Error;
use crate::hop_clock::HopClock;

/// A request body that is being sent on a stream.
pub(super) struct Upload {
    request_body: Body,
    /// The part of the current frame that has not been sent yet.
    unsent_chunk: Bytes,
    send_stream: SendStream<Bytes>,
}

impl Upload {
    pub(super) fn new(request_body: Body, send_stream: SendStream<Bytes>) -> Self {
        Self {
            request_body,
            unsent_chunk: Bytes::new(),
            send_stream,
        }
    }

    /// Sends as much of the body as the peer's flow-control window allows. Completes when the whole
    /// body is sent or the peer has reset the stream.
    ///
    /// An error of the stream is not returned here, because the response future returns it.
    fn poll(&mut self, cx: &mut Context<'_>, clock: &HopClock) -> Poll<Result<(), Error>> {
        loop {
            if self.unsent_chunk.is_empty() {
                match ready!(Pin::new(&mut self.request_body).poll_frame(cx)) {
                    Some(Ok(frame)) => self.unsent_chunk = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => {
                        let _ = self.send_stream.send_data(Bytes::new(), true);
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            }
            self.send_stream.reserve_capacity(self.unsent_chunk.len());
            let Some(Ok(capacity)) = ready!(self.send_stream.poll_capacity(cx)) else {
                return Poll::Ready(Ok(()));
            };
            // The peer is still reading the request body, so its response is not overdue.
            clock.record_activity(Instant::now());
            let part = self
                .unsent_chunk
                .split_to(capacity.min(self.unsent_chunk.len()));
            let is_last = self.unsent_chunk.is_empty() && self.request_body.is_end_stream();
            if self.send_stream.send_data(part, is_last).is_err() || is_last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Polls an upload if there is one, and removes it when it has ended.
pub(super) fn poll_upload(
    upload: &mut Option<Upload>,
    cx: &mut Context<'_>,
    clock: &HopClock,
) -> Result<(), Error> {
    match upload.as_mut().map(|upload| upload.poll(cx, clock)) {
        None | Some(Poll::Pending) => Ok(()),
        Some(Poll::Ready(result)) => {
            *upload = None;
            result
        }
    }
}
