//! The inputs of a batch: a boxed iterator or stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::task::coop::poll_proceed;

use crate::request::{IntoRequest, Request};

pub(super) enum Inputs<'a, T> {
    Iter(Box<dyn Iterator<Item = (T, Request)> + Send + 'a>),
    Stream(Pin<Box<dyn Stream<Item = (T, Request)> + Send + 'a>>),
}

impl<'a, T: 'a> Inputs<'a, T> {
    pub(super) fn from_iter<I>(inputs: I) -> Self
    where
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        Self::Iter(Box::new(inputs.into_iter().map(IntoRequest::into_request)))
    }

    pub(super) fn from_stream<S>(inputs: S) -> Self
    where
        S: Stream<Item: IntoRequest<Tag = T>> + Send + 'a,
    {
        Self::Stream(Box::pin(IntoRequestStream(Box::pin(inputs))))
    }

    /// Drops the tags of the inputs.
    pub(super) fn without_tags(self) -> Inputs<'a, ()> {
        match self {
            Self::Iter(inputs) => Inputs::Iter(Box::new(inputs.map(|(_, request)| ((), request)))),
            Self::Stream(inputs) => Inputs::Stream(Box::pin(UntaggedStream(inputs))),
        }
    }
}

impl<T> Inputs<'_, T> {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(T, Request)>> {
        match self {
            Self::Iter(inputs) => Poll::Ready(inputs.next()),
            Self::Stream(inputs) => {
                // Without this, a stream that is always ready would starve other tasks.
                let coop_budget = ready!(poll_proceed(cx));
                let input = ready!(inputs.as_mut().poll_next(cx));
                coop_budget.made_progress();
                Poll::Ready(input)
            }
        }
    }

    /// Number of inputs; `None` for a stream, and for an iterator without an exact size hint.
    pub(super) fn exact_input_count(&self) -> Option<usize> {
        match self {
            Self::Iter(inputs) => match inputs.size_hint() {
                (min, Some(max)) if min == max => Some(min),
                _ => None,
            },
            Self::Stream(_) => None,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

struct IntoRequestStream<S>(Pin<Box<S>>);

impl<S: Stream<Item: IntoRequest>> Stream for IntoRequestStream<S> {
    type Item = (<S::Item as IntoRequest>::Tag, Request);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let input = self.0.as_mut().poll_next(cx);
        input.map(|input| input.map(IntoRequest::into_request))
    }
}

struct UntaggedStream<'a, T>(Pin<Box<dyn Stream<Item = (T, Request)> + Send + 'a>>);

impl<T> Stream for UntaggedStream<'_, T> {
    type Item = ((), Request);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let input = self.0.as_mut().poll_next(cx);
        input.map(|input| input.map(|(_, request)| ((), request)))
    }
}
