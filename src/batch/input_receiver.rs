//! Channels as inputs of a batch.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

/// The receiver of a tokio channel, from which
/// [`batch_from_channel`](crate::Fetcher::batch_from_channel) takes inputs.
///
/// The trait is implemented for [`tokio::sync::mpsc::Receiver`] and
/// [`tokio::sync::mpsc::UnboundedReceiver`]. The trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the receiver of a `tokio::sync::mpsc` channel",
    note = "a batch takes inputs from another kind of channel with `Fetcher::batch_from_stream`"
)]
pub trait InputReceiver: Sealed {}

impl<C: Sealed> InputReceiver for C {}

pub trait Sealed: Unpin {
    type Input;

    fn poll_recv_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Input>>;
}

impl<I> Sealed for Receiver<I> {
    type Input = I;

    fn poll_recv_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<I>> {
        self.poll_recv(cx)
    }
}

impl<I> Sealed for UnboundedReceiver<I> {
    type Input = I;

    fn poll_recv_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<I>> {
        self.poll_recv(cx)
    }
}

/// A stream of the inputs that a channel's receiver yields.
pub(crate) struct ReceiverStream<C>(pub(crate) C);

impl<C: InputReceiver> Stream for ReceiverStream<C> {
    type Item = C::Input;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<C::Input>> {
        self.0.poll_recv_input(cx)
    }
}
