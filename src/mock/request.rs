//! A request that a mock received.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Uri};
use tokio::time::Instant;

use crate::body::Body;
use crate::credentials::RedactedHeaders;
use crate::redacted_url::RedactedUrl;

/// A request that a [`Mock`](crate::Mock) received, with all headers that the `Fetcher` and the
/// [`Host`](crate::Host) settings added.
///
/// A clone is cheap. `Debug` redacts header values that may be secret, and the values of query
/// parameters.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> fanout::Result<()> {
/// use fanout::{Fetcher, Mock, Request};
///
/// let mock = Mock::new().on("http://api.example/orders", 201);
/// let fetcher = Fetcher::builder().transport(mock.clone()).user_agent("shop/1").build()?;
/// fetcher.fetch(Request::post("http://api.example/orders").body("2 crabs")).await?;
///
/// let order = &mock.requests()[0];
/// assert_eq!((order.method().as_str(), order.uri().path()), ("POST", "/orders"));
/// assert_eq!(order.headers()["user-agent"], "shop/1");
/// assert_eq!(order.text(), "2 crabs");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MockRequest(Arc<MockRequestData>);

struct MockRequestData {
    head: http::request::Parts,
    url: String,
    body: Bytes,
    received_at: Instant,
}

impl MockRequest {
    /// Records a request that arrives now. The body of the request must be in memory.
    pub(super) fn new(request: http::Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        Self(Arc::new(MockRequestData {
            url: head.uri.to_string(),
            head,
            body: body.as_bytes().cloned().unwrap_or_default(),
            received_at: Instant::now(),
        }))
    }

    /// The request method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.head.method
    }

    /// The absolute URL as text, without userinfo and fragment.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The URL in parsed form, for its [`path`](Uri::path), [`query`](Uri::query) or
    /// [`host`](Uri::host).
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0.head.uri
    }

    /// The request headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.head.headers
    }

    /// The complete request body; empty if the request has none.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The request body as UTF-8 text. Invalid sequences become U+FFFD.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0.body)
    }

    /// The instant at which the mock received the request, on tokio's clock.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.0.received_at
    }
}

/// Shows `***` for header values that may be secret and for the values of query parameters, and
/// only the length of the body.
impl fmt::Debug for MockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockRequest")
            .field("method", self.method())
            .field("url", &RedactedUrl(self.url()))
            .field("headers", &RedactedHeaders(self.headers()))
            .field("body", &format_args!("{} bytes", self.body().len()))
            .finish_non_exhaustive()
    }
}
