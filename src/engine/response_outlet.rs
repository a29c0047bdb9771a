//! Hands a response out to the caller of its fetch, before the body is read.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::result_slot::ResultSlot;
use crate::error::{Error, ErrorKind};
use crate::response_body::{BodyHandler, HandlerFuture, HandlerOutput};
use crate::streaming_response::StreamingResponse;

/// The handler of a fetch whose caller reads the body.
///
/// The handler stores the response in the slot, and ends when the body has been read to its end or
/// to an error. The error is then the result of the request. A response whose body has ended with
/// its head is the output of the handler instead, so that the caller gets it once the request has
/// ended.
pub(super) struct ResponseOutlet(pub(super) Arc<ResultSlot<StreamingResponse>>);

impl BodyHandler for ResponseOutlet {
    fn start_handler(
        &self,
        response: StreamingResponse,
        _cx: &mut Context<'_>,
    ) -> (Option<HandlerFuture>, Poll<Result<HandlerOutput, Error>>) {
        if response.is_finished() {
            return (None, Poll::Ready(Ok(Box::new(response))));
        }
        let Self(response_slot) = self;
        if response_slot.is_abandoned() {
            let error = Error::from_kind(ErrorKind::Cancelled);
            return (None, Poll::Ready(Err(error)));
        }
        let channel = Arc::clone(response.body_channel());
        if let Some(caller) = response_slot.store_result(response) {
            caller.wake();
        }
        // The worker polls the handler after each part of the body that it has sent.
        let end_of_body = poll_fn(move |_| match channel.take_body_end() {
            Some(body_end) => Poll::Ready(body_end.map(|()| Box::new(()) as HandlerOutput)),
            None => Poll::Pending,
        });
        (Some(Box::pin(end_of_body)), Poll::Pending)
    }

    fn close_to_starts(&self) {
        self.0.abandon();
    }
}
