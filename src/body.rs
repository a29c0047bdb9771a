//! The body of a request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::Error;

/// The body of a request; empty by default.
///
/// It is held in memory and shared, so that a clone (for a retry) copies nothing.
///
/// ```
/// use fanout::Body;
///
/// assert_eq!(Body::from("hello").as_bytes().unwrap(), "hello");
/// assert!(Body::default().as_bytes().unwrap().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Body(Bytes);

impl Body {
    /// What is left of the bytes; `None` if the body is not held in memory, which today it always
    /// is.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        Some(&self.0)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let bytes = std::mem::take(&mut self.get_mut().0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self(Bytes::from_static(bytes))
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
