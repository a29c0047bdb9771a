//! The body of a request.

mod file;
mod source;
mod stream;

use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use self::file::FileRange;
use self::source::BodySource;
use self::stream::BodyStream;
use crate::error::{BoxError, Error};
use crate::hop_clock::HopClock;

pub(crate) use self::stream::BodyErrorSlot;

/// The body of a request. Default: empty.
///
/// | constructor | framing | can be sent again |
/// |---|---|---|
/// | [`From`] bytes or text | `Content-Length` | yes; a clone shares the bytes |
/// | [`file`](Self::file) | `Content-Length` | yes; every attempt opens the file |
/// | [`file_range`](Self::file_range) | `Content-Length` | yes; every attempt opens the file |
/// | [`factory`](Self::factory) | chunked | yes; every attempt makes a stream |
/// | [`sized_factory`](Self::sized_factory) | `Content-Length` | yes; every attempt makes a stream |
/// | [`stream`](Self::stream) | chunked | no |
/// | [`sized_stream`](Self::sized_stream) | `Content-Length` | no |
///
/// A retry sends the body again, and so does a redirect that keeps the method (307, 308). A body
/// that can be sent only once rules both out: the first failure is then the result.
///
/// If a stream yields an error, the request ends with
/// [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody) and that error as its source. If a
/// stream panics, the request ends with [`ErrorKind::Panicked`](crate::ErrorKind::Panicked).
/// Neither is retried.
///
/// # Examples
///
/// ```
/// use fanout::Body;
///
/// assert_eq!(Body::from("hello").as_bytes().unwrap(), "hello");
/// assert!(Body::default().as_bytes().unwrap().is_empty());
/// assert!(Body::file("report.pdf").as_bytes().is_none());
/// ```
#[derive(Clone)]
pub struct Body(BodyRepr);

enum BodyRepr {
    Bytes(Bytes),
    UnopenedSource(BodySource),
    /// A body that is being sent. A clone of the body is sent from the beginning.
    OpenStream(Box<BodyStream>),
}

impl Body {
    /// Creates a body from a file, which is read while the body is sent.
    ///
    /// This call does no I/O. Each attempt opens the file, and sends the content that the file has
    /// at that time. The file is read in chunks of up to 128 KiB on the runtime's blocking threads.
    ///
    /// # Errors
    ///
    /// The request ends with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody) if the file
    /// cannot be opened or read, is not a regular file, or shrinks while it is sent. A pipe or a
    /// device can be sent with [`stream`](Self::stream).
    ///
    /// # Examples
    ///
    /// ```
    /// use fanout::{Body, Request};
    ///
    /// let report = Body::file("report.pdf");
    /// let request = Request::put("https://store.example/report.pdf").body(report);
    /// # let _ = request;
    /// ```
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::file_range(path, ..)
    }

    /// Creates a body from a part of a file, for example one part of a multipart upload.
    ///
    /// `range` is in bytes from the beginning of the file. A range without an end extends to the
    /// end of the file. In all other respects, the body is like that of [`file`](Self::file).
    ///
    /// # Errors
    ///
    /// The request ends with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody) if the range
    /// is not within the file, and for the reasons that [`file`](Self::file) lists.
    ///
    /// # Panics
    ///
    /// Panics if the range ends before it starts.
    ///
    /// # Examples
    ///
    /// ```
    /// use fanout::{Body, Request};
    ///
    /// const PART_SIZE: u64 = 8 << 20;
    ///
    /// fn part_requests(path: &str, size: u64) -> Vec<Request> {
    ///     let part = |number: u64| {
    ///         let start = number * PART_SIZE;
    ///         let range = start..size.min(start + PART_SIZE);
    ///         Request::put("https://store.example/backup.tar")
    ///             .query([("partNumber", number + 1)])
    ///             .body(Body::file_range(path, range))
    ///             .build()
    ///     };
    ///     (0..size.div_ceil(PART_SIZE)).map(part).collect()
    /// }
    ///
    /// assert_eq!(part_requests("backup.tar", 20 << 20).len(), 3);
    /// ```
    #[track_caller]
    pub fn file_range(path: impl AsRef<Path>, range: impl RangeBounds<u64>) -> Self {
        let path = Arc::from(path.as_ref());
        let range = FileRange::new(range);
        Self(BodyRepr::UnopenedSource(BodySource::File(path, range)))
    }

    /// Creates a body from a stream, whose chunks are sent as the stream yields them.
    ///
    /// The length is unknown, so HTTP/1.1 sends the body chunked. The clones of the body share the
    /// stream, which can be sent only once. If an attempt ends before it polls the stream, for
    /// example because it cannot connect, the next attempt sends the stream.
    ///
    /// Empty chunks are skipped. Every other chunk restarts the timeout
    /// [`Timeouts::response_head`](crate::Timeouts::response_head), so the request ends if the
    /// stream yields no byte for the duration of this timeout.
    ///
    /// # Errors
    ///
    /// Only one request can send the stream. A request with another clone of the body ends with
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{pin::Pin, task::{Context, Poll}};
    /// # struct Receiver(tokio::sync::mpsc::Receiver<Result<String, std::io::Error>>);
    /// # impl futures_core::Stream for Receiver {
    /// #     type Item = Result<String, std::io::Error>;
    /// #     fn poll_next(
    /// #         mut self: Pin<&mut Self>,
    /// #         cx: &mut Context<'_>,
    /// #     ) -> Poll<Option<Self::Item>> {
    /// #         self.0.poll_recv(cx)
    /// #     }
    /// # }
    /// use fanout::{Body, Request};
    ///
    /// let (sender, receiver) = tokio::sync::mpsc::channel(8);
    /// # let receiver = Receiver(receiver);
    /// let request = Request::post("https://store.example/lines").body(Body::stream(receiver));
    /// # let _ = (sender, request);
    /// ```
    pub fn stream<S, D, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        let chunks = source::into_chunk_stream(stream);
        Self(BodyRepr::UnopenedSource(BodySource::one_shot(chunks, None)))
    }

    /// Creates a body of `length` bytes from a stream.
    ///
    /// The request states the length in `Content-Length`, which some servers require. In all other
    /// respects, the body is like that of [`stream`](Self::stream).
    ///
    /// The last chunk is sent only when the stream has ended. A stream must therefore end after its
    /// last byte without waiting for the response.
    ///
    /// # Errors
    ///
    /// The request ends with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody) if the
    /// stream yields fewer or more bytes than `length`. In this case, the server has not received a
    /// complete body, and the connection is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{pin::Pin, task::{Context, Poll}};
    /// # struct Zeros(u32);
    /// # impl futures_core::Stream for Zeros {
    /// #     type Item = Result<Vec<u8>, std::io::Error>;
    /// #     fn poll_next(
    /// #         mut self: Pin<&mut Self>,
    /// #         _: &mut Context<'_>,
    /// #     ) -> Poll<Option<Self::Item>> {
    /// #         self.0 += 1;
    /// #         Poll::Ready((self.0 <= 3).then(|| Ok(vec![0; 1000])))
    /// #     }
    /// # }
    /// use fanout::{Body, Request};
    ///
    /// # let stream = Zeros(0);
    /// let body = Body::sized_stream(3000, stream);
    /// let request = Request::put("https://store.example/object").body(body);
    /// # let _ = request;
    /// ```
    pub fn sized_stream<S, D, E>(length: u64, stream: S) -> Self
    where
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        let chunks = source::into_chunk_stream(stream);
        Self(BodyRepr::UnopenedSource(BodySource::one_shot(
            chunks,
            Some(length),
        )))
    }

    /// Creates a body from a function that returns a new stream for every attempt.
    ///
    /// The chunks are sent like those of [`stream`](Self::stream), but the body can be sent again.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{pin::Pin, task::{Context, Poll}};
    /// # struct Lines(u32);
    /// # impl futures_core::Stream for Lines {
    /// #     type Item = Result<String, std::io::Error>;
    /// #     fn poll_next(
    /// #         mut self: Pin<&mut Self>,
    /// #         _: &mut Context<'_>,
    /// #     ) -> Poll<Option<Self::Item>> {
    /// #         self.0 += 1;
    /// #         Poll::Ready((self.0 < 3).then(|| Ok(format!("line {}\n", self.0))))
    /// #     }
    /// # }
    /// use fanout::{Body, Request};
    ///
    /// let request = Request::put("https://store.example/lines").body(Body::factory(|| Lines(0)));
    /// # let _ = request;
    /// ```
    pub fn factory<F, S, D, E>(make_stream: F) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        Self(BodyRepr::UnopenedSource(BodySource::stream_factory(
            make_stream,
            None,
        )))
    }

    /// Creates a body of `length` bytes from a function that returns a new stream for every
    /// attempt.
    ///
    /// The chunks are sent like those of [`sized_stream`](Self::sized_stream), but the body can be
    /// sent again.
    ///
    /// # Errors
    ///
    /// The request ends with [`ErrorKind::RequestBody`](crate::ErrorKind::RequestBody) if a stream
    /// yields fewer or more bytes than `length`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{pin::Pin, task::{Context, Poll}};
    /// # struct Zeros(u32);
    /// # impl futures_core::Stream for Zeros {
    /// #     type Item = Result<Vec<u8>, std::io::Error>;
    /// #     fn poll_next(
    /// #         mut self: Pin<&mut Self>,
    /// #         _: &mut Context<'_>,
    /// #     ) -> Poll<Option<Self::Item>> {
    /// #         self.0 += 1;
    /// #         Poll::Ready((self.0 <= 3).then(|| Ok(vec![0; 1000])))
    /// #     }
    /// # }
    /// use fanout::{Body, Request};
    ///
    /// let body = Body::sized_factory(3000, || Zeros(0));
    /// let request = Request::put("https://store.example/object").body(body);
    /// # let _ = request;
    /// ```
    pub fn sized_factory<F, S, D, E>(length: u64, make_stream: F) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: Stream<Item = Result<D, E>> + Send + 'static,
        D: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        let source = BodySource::stream_factory(make_stream, Some(length));
        Self(BodyRepr::UnopenedSource(source))
    }

    /// Returns the bytes of a body in memory, or `None` for a file or a stream.
    ///
    /// While a body in memory is being sent, returns the bytes that are not sent yet.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            BodyRepr::Bytes(bytes) => Some(bytes),
            BodyRepr::UnopenedSource(_) | BodyRepr::OpenStream(_) => None,
        }
    }

    /// The length in bytes, if it is known before the body is sent.
    pub(crate) fn known_length(&self) -> Option<u64> {
        match &self.0 {
            BodyRepr::Bytes(bytes) => Some(bytes.len() as u64),
            BodyRepr::UnopenedSource(source) => source.announced_length(),
            BodyRepr::OpenStream(stream) => stream.unsent_length(),
        }
    }

    /// Whether the body is a stream that an attempt has already taken.
    pub(crate) fn is_stream_already_taken(&self) -> bool {
        match &self.0 {
            BodyRepr::UnopenedSource(source) => source.is_stream_already_taken(),
            BodyRepr::Bytes(_) | BodyRepr::OpenStream(_) => false,
        }
    }

    /// Returns a new slot for the error of this body, or `None` for a body in memory, which cannot
    /// fail.
    pub(crate) fn new_body_error_slot(&self) -> Option<BodyErrorSlot> {
        (!matches!(self.0, BodyRepr::Bytes(_))).then(BodyErrorSlot::default)
    }

    /// Opens the body for one attempt. An error that occurs while the body is sent goes into
    /// `error_slot`. The clock is paused while a file waits to be opened.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is a stream that was sent already or a file that cannot be
    /// opened.
    pub(crate) async fn open_for_attempt(
        &self,
        error_slot: Option<&BodyErrorSlot>,
        clock: &HopClock,
    ) -> Result<Self, Error> {
        match &self.0 {
            BodyRepr::Bytes(bytes) => Ok(Self(BodyRepr::Bytes(bytes.clone()))),
            BodyRepr::UnopenedSource(source) => {
                Self::open_source_for_attempt(source, error_slot, clock).await
            }
            BodyRepr::OpenStream(stream) => {
                Self::open_source_for_attempt(stream.body_source(), error_slot, clock).await
            }
        }
    }

    async fn open_source_for_attempt(
        source: &BodySource,
        error_slot: Option<&BodyErrorSlot>,
        clock: &HopClock,
    ) -> Result<Self, Error> {
        let stream = BodyStream::open_source(source, error_slot.cloned(), clock).await?;
        Ok(Self(BodyRepr::OpenStream(Box::new(stream))))
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
            BodyRepr::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            BodyRepr::OpenStream(stream) => stream.poll_frame(cx),
            BodyRepr::UnopenedSource(source) => match BodyStream::open_without_io(source) {
                Ok(mut stream) => {
                    let frame = stream.poll_frame(cx);
                    body.0 = BodyRepr::OpenStream(Box::new(stream));
                    frame
                }
                Err(error) => {
                    body.0 = BodyRepr::Bytes(Bytes::new());
                    Poll::Ready(Some(Err(error)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.known_length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.known_length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Clone for BodyRepr {
    fn clone(&self) -> Self {
        match self {
            BodyRepr::Bytes(bytes) => BodyRepr::Bytes(bytes.clone()),
            BodyRepr::UnopenedSource(source) => BodyRepr::UnopenedSource(source.clone()),
            BodyRepr::OpenStream(stream) => BodyRepr::UnopenedSource(stream.body_source().clone()),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self(BodyRepr::Bytes(Bytes::new()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            BodyRepr::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            BodyRepr::UnopenedSource(source) => write!(f, "Body({source:?})"),
            BodyRepr::OpenStream(stream) => write!(f, "Body({:?})", stream.body_source()),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(BodyRepr::Bytes(bytes))
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

/// Creates an empty body, so that an `http::Request<()>` can be converted.
impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::hop_clock::tests::assert_dropped_wait_is_queue_wait;

    fn frames(mut body: Body) -> Vec<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut frames = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        frames
    }

    #[test]
    fn bytes_are_one_frame_of_known_length() {
        let body = Body::from(vec![1, 2, 3]);
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(frames(body), [&[1, 2, 3][..]]);
    }

    #[test]
    fn only_an_announced_length_is_known_before_the_body_is_opened() {
        let chunks = || {
            file::stream_opened_on_first_poll(Arc::from(Path::new("missing")), FileRange::new(..))
        };
        for (body, length) in [
            (Body::file("missing"), None),
            (Body::file_range("missing", ..), None),
            (Body::file_range("missing", 7..), None),
            (Body::file_range("missing", 7..9), Some(2)),
            (Body::file_range("missing", ..=9), Some(10)),
            (Body::file_range("missing", 9..9), Some(0)),
            (Body::stream(chunks()), None),
            (Body::sized_stream(3, chunks()), Some(3)),
            (Body::factory(chunks), None),
            (Body::sized_factory(4, chunks), Some(4)),
        ] {
            assert_eq!(body.size_hint().exact(), length, "{body:?}");
            assert_eq!(body.clone().known_length(), length, "{body:?}");
        }
    }

    #[test]
    fn dropped_wait_for_a_file_is_queued_time() {
        assert_dropped_wait_is_queue_wait(async |clock| {
            let _opened = Body::file("missing").open_for_attempt(None, clock).await;
        });
    }

    #[test]
    #[should_panic = "the file range ends before it starts"]
    #[allow(clippy::reversed_empty_ranges)]
    fn file_range_that_ends_before_it_starts_panics() {
        let _ = Body::file_range("file", 2..1);
    }

    #[test]
    fn an_empty_body_has_no_frame_and_is_at_its_end() {
        assert!(Body::from("").is_end_stream());
        assert_eq!(Body::from(()).size_hint().exact(), Some(0));
        assert!(frames(Body::from(b"")).is_empty());
    }

    #[test]
    fn a_clone_is_unread_after_the_original_was_read() {
        let body = Body::from("again");
        let clone = body.clone();
        assert_eq!(frames(body), ["again"]);
        assert_eq!(frames(clone), ["again"]);
    }
}
