//! Converts URLs, `http::Request` values and tagged pairs into a `Request`.

use std::borrow::Cow;

use http::{Method, Uri};
use url::Url;

use super::{Request, RequestBuilder};
use crate::body::Body;

/// A value that can be fetched: a URL, a [`Request`], a [`RequestBuilder`], or a pair `(tag,
/// value)`.
///
/// A URL may be a `&str`, a `String`, a [`Url`] or an [`http::Uri`], and is fetched with `GET`. An
/// [`http::Request`] is accepted too. The tag of a pair is any value of the caller; a batch returns
/// the tag with the result.
///
/// The conversion never fails. A value that is not a valid request becomes a request whose result
/// is [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest).
///
/// ```
/// use fanout::IntoRequest;
///
/// let ((), request) = "https://a.example/".into_request();
/// assert_eq!(request.method(), "GET");
///
/// let (id, request) = (7, String::from("https://a.example/7")).into_request();
/// assert_eq!((id, request.url_str()), (7, "https://a.example/7"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be fetched",
    label = "not a URL, a request or `(tag, URL or request)`",
    note = "a URL may be a `&str`, `String`, `Url` or `http::Uri`; \
            a request a `fanout::Request`, `fanout::RequestBuilder` or `http::Request`"
)]
pub trait IntoRequest {
    /// The type of the tag, a value of the caller that is returned with the result. The type is
    /// `()` for an input without a tag.
    type Tag;

    /// Splits the value into its tag and its request.
    fn into_request(self) -> (Self::Tag, Request);
}

macro_rules! impl_for_text {
    ($($text:ty),*) => {$(
        impl IntoRequest for $text {
            type Tag = ();

            fn into_request(self) -> ((), Request) {
                ((), Request::from_text(Method::GET, self.as_ref()))
            }
        }
    )*};
}

impl_for_text!(
    &str,
    &&str,
    String,
    &String,
    &&String,
    Cow<'_, str>,
    &Cow<'_, str>
);

impl IntoRequest for Url {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), Request::from_url(self))
    }
}

impl IntoRequest for &Url {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        self.clone().into_request()
    }
}

impl IntoRequest for Uri {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        self.to_string().into_request()
    }
}

impl IntoRequest for &Uri {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        self.to_string().into_request()
    }
}

/// Converts method, URI, headers and body. The version and the extensions are dropped.
impl<B: Into<Body>> IntoRequest for http::Request<B> {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        let (head, body) = self.into_parts();
        Request::new(head.method, head.uri.to_string())
            .headers(head.headers)
            .body(body)
            .into_request()
    }
}

impl IntoRequest for Request {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self)
    }
}

impl IntoRequest for &Request {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self.clone())
    }
}

impl IntoRequest for RequestBuilder {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self.build())
    }
}

impl IntoRequest for &RequestBuilder {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), self.clone().build())
    }
}

impl<T, R: IntoRequest<Tag = ()>> IntoRequest for (T, R) {
    type Tag = T;

    fn into_request(self) -> (T, Request) {
        let (tag, request) = self;
        (tag, request.into_request().1)
    }
}

impl<'a, T, R> IntoRequest for &'a (T, R)
where
    &'a R: IntoRequest<Tag = ()>,
{
    type Tag = &'a T;

    fn into_request(self) -> (&'a T, Request) {
        let (tag, request) = self;
        (tag, request.into_request().1)
    }
}
