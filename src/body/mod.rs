//! The body of a request.

mod file;
mod source;
mod stream;

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use crate::Error;
use crate::error::BoxError;
use source::BodySource;
use stream::BodyStream;
pub(crate) use stream::ErrorSlot;

/// The body of a request; empty by default.
///
/// | made by | sent with | can be sent again |
/// |---|---|---|
/// | [`From`] bytes or text | its length | yes; a clone copies nothing |
/// | [`file`](Self::file) | its length | yes; it is opened anew for each attempt |
/// | [`factory`](Self::factory) | chunks | yes; each attempt gets a stream of its own |
/// | [`stream`](Self::stream) | chunks | no |
///
/// A retry, and a redirect that keeps the method, need a body that can be sent again. Without one the first failure is
/// the result, and says so.
///
/// A stream that gives an error ends its request with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody), whose
/// source is that error; one that panics, with [`ErrorKind::Panicked`](crate::ErrorKind::Panicked). Neither is retried.
///
/// ```
/// use fanout::Body;
///
/// assert_eq!(Body::from("hello").as_bytes().unwrap(), "hello");
/// assert!(Body::default().as_bytes().unwrap().is_empty());
/// assert!(Body::file("report.pdf").as_bytes().is_none());
/// ```
#[derive(Clone)]
pub struct Body(Repr);

enum Repr {
    Bytes(Bytes),
    Source(BodySource),
    /// One that is being read. Its clone starts over.
    Stream(Box<BodyStream>),
}

impl Body {
    /// The content of a file, read as it is sent.
    ///
    /// It is opened when the request is on the wire, anew for each attempt; nothing is done here. Its length is that
    /// which it has when it is opened. A file that cannot be opened, is no regular file, or becomes shorter while it is
    /// sent, ends the request with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody).
    ///
    /// ```
    /// use fanout::{Body, Request};
    ///
    /// let request = Request::put("https://store.example/report.pdf").body(Body::file("report.pdf"));
    /// ```
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Repr::Source(BodySource::File(Arc::from(path.as_ref()))))
    }

    /// What a stream gives, as it gives it. Its length is not known, so it is sent in chunks.
    ///
    /// It can be sent once. Of several clones the first to be sent takes it, and the others end with
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest). An attempt that ends before the stream was first
    /// polled, as when no connection came about, leaves it for the next one.
    ///
    /// Each time a part of it is sent, [`Timeouts::response_head`](crate::Timeouts::response_head) starts anew; a stream
    /// that gives nothing for longer than that ends its request.
    pub fn stream<S, D, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Self(Repr::Source(BodySource::once(source::into_chunks(stream))))
    }

    /// What the stream that `make` returns gives: a new one for each attempt, so that it can be sent again.
    ///
    /// ```
    /// # use std::{pin::Pin, task::{Context, Poll}};
    /// # struct Lines(u32);
    /// # impl futures_core::Stream for Lines {
    /// #     type Item = Result<String, std::io::Error>;
    /// #     fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
    /// #         self.0 += 1;
    /// #         Poll::Ready((self.0 < 3).then(|| Ok(format!("line {}\n", self.0))))
    /// #     }
    /// # }
    /// use fanout::{Body, Request};
    ///
    /// let request = Request::put("https://store.example/lines").body(Body::factory(|| Lines(0)));
    /// ```
    pub fn factory<F, S, D, E>(make: F) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let make = move || source::into_chunks(make());
        Self(Repr::Source(BodySource::Factory(Arc::new(make))))
    }

    /// What is left of the bytes; `None` if the body is not held in memory.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Bytes(bytes) => Some(bytes),
            Repr::Source(_) | Repr::Stream(_) => None,
        }
    }

    /// Its length, where that is known before it is sent.
    pub(crate) fn len(&self) -> Option<u64> {
        match &self.0 {
            Repr::Bytes(bytes) => Some(bytes.len() as u64),
            Repr::Source(_) => None,
            Repr::Stream(stream) => stream.remaining(),
        }
    }

    /// Whether it is a stream that has been sent.
    pub(crate) fn is_consumed(&self) -> bool {
        match &self.0 {
            Repr::Source(source) => source.is_consumed(),
            Repr::Bytes(_) | Repr::Stream(_) => false,
        }
    }

    /// Where to learn of its error_slot; none if it cannot fail.
    pub(crate) fn error_slot(&self) -> Option<ErrorSlot> {
        (!matches!(self.0, Repr::Bytes(_))).then(ErrorSlot::default)
    }

    /// The body of one attempt. What goes wrong with it later is told to `failure`.
    ///
    /// # Errors
    ///
    /// If it is a stream that has been sent, or a file that cannot be opened.
    pub(crate) async fn open(&self, error_slot: Option<&ErrorSlot>) -> Result<Self, Error> {
        match &self.0 {
            Repr::Bytes(bytes) => Ok(Self(Repr::Bytes(bytes.clone()))),
            Repr::Source(source) => Self::open_stream(source, error_slot).await,
            Repr::Stream(stream) => Self::open_stream(stream.source(), error_slot).await,
        }
    }

    async fn open_stream(
        source: &BodySource,
        error_slot: Option<&ErrorSlot>,
    ) -> Result<Self, Error> {
        let stream = BodyStream::open(source, error_slot.cloned()).await?;
        Ok(Self(Repr::Stream(Box::new(stream))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.get_mut();
        match &mut body.0 {
            Repr::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Repr::Stream(stream) => stream.poll_frame(cx),
            Repr::Source(source) => match BodyStream::open_lazily(source) {
                Ok(mut stream) => {
                    let frame = stream.poll_frame(cx);
                    body.0 = Repr::Stream(Box::new(stream));
                    frame
                }
                Err(error) => {
                    body.0 = Repr::Bytes(Bytes::new());
                    Poll::Ready(Some(Err(error)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.len() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.len()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Clone for Repr {
    fn clone(&self) -> Self {
        match self {
            Repr::Bytes(bytes) => Repr::Bytes(bytes.clone()),
            Repr::Source(source) => Repr::Source(source.clone()),
            Repr::Stream(stream) => Repr::Source(stream.source().clone()),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self(Repr::Bytes(Bytes::new()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Repr::Source(source) => write!(f, "Body({source:?})"),
            Repr::Stream(stream) => write!(f, "Body({:?})", stream.source()),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

/// The empty body, so that an `http::Request<()>` is accepted.
impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn frames(mut body: Body) -> Vec<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut frames = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        frames
    }

    #[test]
    fn a_body_is_one_frame_of_known_length() {
        let body = Body::from(vec![1, 2, 3]);
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(frames(body), [&[1, 2, 3][..]]);
    }

    #[test]
    fn an_empty_body_has_no_frame_and_is_at_its_end() {
        assert!(Body::from("").is_end_stream());
        assert_eq!(Body::from(()).size_hint().exact(), Some(0));
        assert!(frames(Body::from(b"")).is_empty());
    }

    #[test]
    fn a_clone_is_whole_after_the_original_was_read() {
        let body = Body::from("again");
        let kept = body.clone();
        assert_eq!(frames(body), ["again"]);
        assert_eq!(frames(kept), ["again"]);
    }
}
