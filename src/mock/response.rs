//! A response of a mock, scripted by a test.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::sleep;

use super::body::{MockBodyEnd, MockBodyScript};
use super::fault::{INJECTED_ERROR_DETAIL, injected_error};
use super::request::MockRequest;
use crate::credentials;
use crate::error::{Error, ErrorKind};

/// The reaction of a [`Mock`](crate::Mock) to a request: a response, an error, or no response at
/// all.
///
/// [`Mock::on`](crate::Mock::on) also accepts anything that converts into a `MockResponse`: a
/// status code (`u16` or `StatusCode`), a text, [`Bytes`], an [`ErrorKind`] or an `http::Response`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use fanout::{ErrorKind, Mock, MockResponse};
///
/// let mock = Mock::new()
///     .on("http://api.example/slow", MockResponse::text("done").delay(Duration::from_secs(3)))
///     .on("http://api.example/busy", MockResponse::status(429).header("retry-after", "2"))
///     .then("free")
///     .on("http://api.example/echo", MockResponse::from_fn(|request| request.body().clone()))
///     .on("http://api.example/gone", ErrorKind::Closed);
/// ```
#[derive(Clone)]
#[must_use = "a response does nothing until a Mock is given it"]
pub struct MockResponse {
    head_delay: Duration,
    reaction: MockReaction,
}

#[derive(Clone)]
enum MockReaction {
    Respond(http::Response<MockBodyScript>),
    Fail(ErrorKind),
    Hang,
    CallFunction(Arc<dyn Fn(&MockRequest) -> MockResponse + Send + Sync>),
}

impl MockResponse {
    /// Creates a response with this status and without headers or body.
    ///
    /// # Panics
    ///
    /// Panics if `status` is not from 100 to 999.
    #[track_caller]
    pub fn status(status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(status) => Self::from(status),
            Err(_) => panic!("{status} is not a status code"),
        }
    }

    /// Creates a response with status 200, this text, and `Content-Type: text/plain;
    /// charset=utf-8`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::status(200)
            .body(text.into())
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// Creates a response that `function` computes from each request.
    ///
    /// A panic in `function` counts as a panic of the transport: the request ends with
    /// [`ErrorKind::Panicked`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Mock, MockResponse};
    ///
    /// let path = MockResponse::from_fn(|request| request.uri().path().to_owned());
    /// let mock = Mock::new().on("http://a.example/*", path);
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://a.example/x/y?z").await?.text(), "/x/y");
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<F, R>(function: F) -> Self
    where
        F: Fn(&MockRequest) -> R + Send + Sync + 'static,
        R: Into<MockResponse>,
    {
        Self::from_reaction(MockReaction::CallFunction(Arc::new(move |request| {
            function(request).into()
        })))
    }

    /// Creates a failure of this kind. The failure occurs at the point of the exchange at which the
    /// network would cause it.
    ///
    /// | kind | effect |
    /// |---|---|
    /// | `Dns`, `HostNotFound`, `Connect`, `ConnectTimeout`, `Tls`, `Proxy`, `ProxyRefused`, `NotAllowed` | no byte was sent: [`Error::maybe_sent`](crate::Error::maybe_sent) is false |
    /// | `Reset`, `Truncated`, `BodyIdleTimeout` | a 200 whose body fails |
    /// | `Panicked` | the transport panics |
    /// | any other | an error instead of the response head |
    ///
    /// A timeout error occurs at once, without any delay. To let a real timeout expire, use
    /// [`hang`](Self::hang), [`stall_body`](Self::stall_body) or
    /// [`Mock::connect_delay`](crate::Mock::connect_delay).
    pub fn error(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Reset | ErrorKind::Truncated | ErrorKind::BodyIdleTimeout => {
                let mut response = Self::status(200);
                response.scripted_response_mut().body_mut().body_end = MockBodyEnd::Error(kind);
                response
            }
            kind => Self::from_reaction(MockReaction::Fail(kind)),
        }
    }

    /// Creates a reaction without a response: the request stays in flight until a timeout, a
    /// deadline or the caller ends it.
    pub fn hang() -> Self {
        Self::from_reaction(MockReaction::Hang)
    }

    /// Creates the default response to a request that matches no rule.
    pub(super) fn unmatched_request_response(request: &MockRequest) -> Self {
        let text = format!(
            "no rule of this Mock matches {} {}",
            request.method(),
            request.url()
        );
        Self::status(404).body(text)
    }

    /// Sets the delay before the response head, on tokio's clock. Default: 0 s.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.head_delay = delay;
        self
    }

    /// Sets the body. Default: empty.
    ///
    /// # Panics
    ///
    /// Panics if this `MockResponse` is an error, a hang or a function.
    #[track_caller]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.scripted_response_mut().body_mut().body_bytes = body.into();
        self
    }

    /// Appends a header. Earlier headers of the same name are kept.
    ///
    /// # Panics
    ///
    /// Panics if the name or the value is invalid, or if this `MockResponse` is an error, a hang or
    /// a function.
    #[track_caller]
    pub fn header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match credentials::parse_header_name_and_value(name, value) {
            Ok((name, value)) => self
                .scripted_response_mut()
                .headers_mut()
                .append(name, value),
            Err(reason) => panic!("{reason}"),
        };
        self
    }

    /// Sets the delay between the response head and the body, on tokio's clock. Default: 0 s.
    ///
    /// # Panics
    ///
    /// Panics if this `MockResponse` is an error, a hang or a function.
    #[track_caller]
    pub fn body_delay(mut self, delay: Duration) -> Self {
        self.scripted_response_mut().body_mut().first_byte_delay = delay;
        self
    }

    /// Makes the body stall: all bytes are sent, but the end of the body never is. By default, the
    /// end follows the last byte.
    ///
    /// # Panics
    ///
    /// Panics if this `MockResponse` is an error, a hang or a function.
    #[track_caller]
    pub fn stall_body(mut self) -> Self {
        self.scripted_response_mut().body_mut().body_end = MockBodyEnd::Stalled;
        self
    }

    fn from_reaction(reaction: MockReaction) -> Self {
        Self {
            head_delay: Duration::ZERO,
            reaction,
        }
    }

    #[track_caller]
    fn scripted_response_mut(&mut self) -> &mut http::Response<MockBodyScript> {
        match &mut self.reaction {
            MockReaction::Respond(response) => response,
            _ => panic!("this MockResponse is not a response, so it has no headers and no body"),
        }
    }

    /// Waits for the configured delays, calls the configured functions, and returns the response or
    /// the injected error.
    pub(super) async fn produce_response(
        mut self,
        request: &MockRequest,
    ) -> Result<http::Response<MockBodyScript>, Error> {
        loop {
            if self.head_delay > Duration::ZERO {
                sleep(self.head_delay).await;
            }
            match self.reaction {
                MockReaction::Respond(response) => return Ok(response),
                MockReaction::Fail(ErrorKind::Panicked) => panic!("{INJECTED_ERROR_DETAIL}"),
                MockReaction::Fail(kind) => return Err(injected_error(kind)),
                MockReaction::Hang => std::future::pending().await,
                MockReaction::CallFunction(function) => self = function(request),
            }
        }
    }
}

/// Creates a response with this status and without headers or body.
impl From<StatusCode> for MockResponse {
    fn from(status: StatusCode) -> Self {
        let mut response = http::Response::new(MockBodyScript::default());
        *response.status_mut() = status;
        Self::from_reaction(MockReaction::Respond(response))
    }
}

/// Makes a response with this status, like [`MockResponse::status`]. Panics if the status is
/// invalid.
impl From<u16> for MockResponse {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

/// Makes a response with this text, like [`MockResponse::text`].
impl From<&str> for MockResponse {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

/// Makes a response with this text, like [`MockResponse::text`].
impl From<String> for MockResponse {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// Makes a response with status 200 and this body.
impl From<Bytes> for MockResponse {
    fn from(body: Bytes) -> Self {
        Self::status(200).body(body)
    }
}

/// Makes a failure of this kind, like [`MockResponse::error`].
impl From<ErrorKind> for MockResponse {
    fn from(kind: ErrorKind) -> Self {
        Self::error(kind)
    }
}

impl<B: Into<Bytes>> From<http::Response<B>> for MockResponse {
    fn from(response: http::Response<B>) -> Self {
        Self::from_reaction(MockReaction::Respond(response.map(MockBodyScript::from)))
    }
}

impl fmt::Debug for MockResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reaction {
            MockReaction::Respond(response) => write!(f, "MockResponse({})", response.status()),
            MockReaction::Fail(kind) => write!(f, "MockResponse({kind})"),
            MockReaction::Hang => f.write_str("MockResponse(hang)"),
            MockReaction::CallFunction(_) => f.write_str("MockResponse(function)"),
        }
    }
}
