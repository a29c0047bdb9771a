//! What a mock answers with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::sleep;

use super::MockRequest;
use super::body::{BodyEnd, BodyScript};
use crate::{Error, ErrorKind};

/// What a [`Mock`](crate::Mock) answers a request with: a response, a fault, or silence.
///
/// A status code, a text, bytes, an [`ErrorKind`] and an `http::Response` are each an answer, wherever one is wanted.
///
/// ```
/// use std::time::Duration;
/// use fanout::{MockResponse, ErrorKind, Mock};
///
/// let mock = Mock::new()
///     .on("http://api.example/slow", MockResponse::text("at last").delay(Duration::from_secs(3)))
///     .on("http://api.example/busy", MockResponse::status(429).header("retry-after", "2")).then("free")
///     .on("http://api.example/echo", MockResponse::from_fn(|request| MockResponse::from(request.body().clone())))
///     .on("http://api.example/gone", ErrorKind::Closed);
/// ```
#[derive(Clone)]
#[must_use = "an answer does nothing until a Mock is given it"]
pub struct MockResponse {
    delay: Duration,
    kind: ResponseKind,
}

#[derive(Clone)]
enum ResponseKind {
    Response(http::Response<BodyScript>),
    Error(ErrorKind),
    Hang,
    Function(Arc<dyn Fn(&MockRequest) -> MockResponse + Send + Sync>),
}

impl MockResponse {
    /// A response with this status, and no headers or body.
    ///
    /// # Panics
    ///
    /// If it is not a status code, that is from 100 to 999.
    #[track_caller]
    pub fn status(status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(status) => Self::from(status),
            Err(_) => panic!("{status} is not a status code"),
        }
    }

    /// 200 and this text, as `text/plain`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::status(200)
            .body(text.into())
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// Whatever this function makes of the request. A panic in it is that of a transport, and so the request's
    /// [`ErrorKind::Panicked`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{MockResponse, Fetcher, Mock};
    ///
    /// let path = MockResponse::from_fn(|request| request.uri().path().to_owned());
    /// let mock = Mock::new().on("http://a.example/*", path);
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://a.example/x/y?z").await?.text(), "/x/y");
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<F, A>(function: F) -> Self
    where
        F: Fn(&MockRequest) -> A + Send + Sync + 'static,
        A: Into<MockResponse>,
    {
        Self::from_kind(ResponseKind::Function(Arc::new(move |request| {
            function(request).into()
        })))
    }

    /// The failure of this kind, where the network would have it.
    ///
    /// What fails to connect (`Dns`, `HostNotFound`, `Connect`, `Proxy`, `ProxyRefused`, `Tls`, `ConnectTimeout`) or is
    /// `NotAllowed` was never sent; `Reset`, `Truncated` and
    /// `BodyIdleTimeout` come within the body of a 200; with `Panicked` the transport panics; the rest come in place of
    /// the response head. A timeout comes at once, without the clock: for one that takes its time there are
    /// [`hang`](Self::hang), [`stall_body`](Self::stall_body) and [`Mock::connect_delay`](crate::Mock::connect_delay).
    pub fn error(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Reset | ErrorKind::Truncated | ErrorKind::BodyIdleTimeout => {
                let mut response = Self::status(200);
                response.response_mut().body_mut().end = BodyEnd::Error(kind);
                response
            }
            kind => Self::from_kind(ResponseKind::Error(kind)),
        }
    }

    /// No answer at all: it is for a timeout, a deadline or the caller to end the wait.
    pub fn hang() -> Self {
        Self::from_kind(ResponseKind::Hang)
    }

    /// What a rule that is missing looks like.
    pub(super) fn not_found(request: &MockRequest) -> Self {
        let text = format!(
            "no rule of this Mock matches {} {}",
            request.method(),
            request.url()
        );
        Self::status(404).body(text)
    }

    /// Waits so long before it answers, on tokio's clock. Default: not at all.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the body.
    ///
    /// # Panics
    ///
    /// If this is not a response.
    #[track_caller]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.response_mut().body_mut().bytes = body.into();
        self
    }

    /// Adds a header; one of the same name stays.
    ///
    /// # Panics
    ///
    /// If the name or value is invalid, or this is not a response.
    #[track_caller]
    pub fn header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match crate::credentials::header(name, value) {
            Ok((name, value)) => self.response_mut().headers_mut().append(name, value),
            Err(reason) => panic!("{reason}"),
        };
        self
    }

    /// Waits so long between the head of the response and its body. Default: not at all.
    ///
    /// # Panics
    ///
    /// If this is not a response.
    #[track_caller]
    pub fn body_delay(mut self, delay: Duration) -> Self {
        self.response_mut().body_mut().delay = delay;
        self
    }

    /// Never ends the body: all its bytes come, but not its end.
    ///
    /// # Panics
    ///
    /// If this is not a response.
    #[track_caller]
    pub fn stall_body(mut self) -> Self {
        self.response_mut().body_mut().end = BodyEnd::Stalled;
        self
    }

    fn from_kind(kind: ResponseKind) -> Self {
        Self {
            delay: Duration::ZERO,
            kind,
        }
    }

    #[track_caller]
    fn response_mut(&mut self) -> &mut http::Response<BodyScript> {
        match &mut self.kind {
            ResponseKind::Response(response) => response,
            _ => panic!("only a response has headers and a body, and this answer is none"),
        }
    }

    pub(super) async fn produce(
        mut self,
        request: &MockRequest,
    ) -> Result<http::Response<BodyScript>, Error> {
        loop {
            if self.delay > Duration::ZERO {
                sleep(self.delay).await;
            }
            match self.kind {
                ResponseKind::Response(response) => return Ok(response),
                ResponseKind::Error(ErrorKind::Panicked) => panic!("{MOCK_FAULT}"),
                ResponseKind::Error(kind) => {
                    return Err(Error::from_kind(kind).with_detail(MOCK_FAULT));
                }
                ResponseKind::Hang => std::future::pending().await,
                ResponseKind::Function(function) => self = function(request),
            }
        }
    }
}

/// Why a fault came.
pub(super) const MOCK_FAULT: &str = "as the Mock was told to";

impl From<StatusCode> for MockResponse {
    fn from(status: StatusCode) -> Self {
        let mut response = http::Response::new(BodyScript::default());
        *response.status_mut() = status;
        Self::from_kind(ResponseKind::Response(response))
    }
}

/// As [`MockResponse::status`], panics included.
impl From<u16> for MockResponse {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

impl From<&str> for MockResponse {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for MockResponse {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// 200 and these bytes.
impl From<Bytes> for MockResponse {
    fn from(body: Bytes) -> Self {
        Self::status(200).body(body)
    }
}

/// As [`MockResponse::error`].
impl From<ErrorKind> for MockResponse {
    fn from(kind: ErrorKind) -> Self {
        Self::error(kind)
    }
}

impl<B: Into<Bytes>> From<http::Response<B>> for MockResponse {
    fn from(response: http::Response<B>) -> Self {
        Self::from_kind(ResponseKind::Response(response.map(BodyScript::from)))
    }
}

impl fmt::Debug for MockResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ResponseKind::Response(response) => write!(f, "MockResponse({})", response.status()),
            ResponseKind::Error(kind) => write!(f, "MockResponse({kind})"),
            ResponseKind::Hang => f.write_str("MockResponse(never)"),
            ResponseKind::Function(_) => f.write_str("MockResponse(a function)"),
        }
    }
}
