//! What a request is made of: a URL in any form, or a request.

use std::borrow::Cow;

use http::Uri;
use url::Url;

use super::Request;
use crate::Body;

/// What can be fetched: a URL in any form, a [`Request`], or one of these with a tag.
///
/// It never fails: what is not a valid request becomes one that ends with
/// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest). A pair `(tag, request)` carries the tag through the batch to its
/// result.
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
    label = "neither a URL, nor a request, nor `(tag, one of these)`",
    note = "a URL may be a `&str`, `String`, `Url` or `http::Uri`; a request a `fanout::Request` or `http::Request`"
)]
pub trait IntoRequest {
    /// What is carried along; `()` where there is nothing.
    type Tag;

    /// The tag and the request.
    fn into_request(self) -> (Self::Tag, Request);
}

macro_rules! get_text {
    ($($text:ty),*) => {$(
        impl IntoRequest for $text {
            type Tag = ();

            fn into_request(self) -> ((), Request) {
                ((), Request::get(self))
            }
        }
    )*};
}

get_text!(
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
        ((), Request::get(self.to_string()))
    }
}

impl IntoRequest for &Uri {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        ((), Request::get(self.to_string()))
    }
}

/// The version and the extensions are left behind.
impl<B: Into<Body>> IntoRequest for http::Request<B> {
    type Tag = ();

    fn into_request(self) -> ((), Request) {
        let (head, body) = self.into_parts();
        let request = Request::new(head.method, head.uri.to_string());
        ((), request.headers(head.headers).body(body))
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
