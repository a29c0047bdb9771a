//! What a mock answers with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::sleep;

use super::Received;
use super::body::{Content, End};
use crate::{Error, ErrorKind};

/// What a [`Mock`](crate::Mock) answers a request with: a response, a fault, or silence.
///
/// A status code, a text, bytes, an [`ErrorKind`] and an `http::Response` are each an answer, wherever one is wanted.
///
/// ```
/// use std::time::Duration;
/// use fanout::{Answer, ErrorKind, Mock};
///
/// let mock = Mock::new()
///     .on("http://api.example/slow", Answer::text("at last").delay(Duration::from_secs(3)))
///     .on("http://api.example/busy", Answer::status(429).header("retry-after", "2")).then("free")
///     .on("http://api.example/echo", Answer::with(|request| Answer::from(request.body().clone())))
///     .on("http://api.example/gone", ErrorKind::Closed);
/// ```
#[derive(Clone)]
#[must_use = "an answer does nothing until a Mock is given it"]
pub struct Answer {
    delay: Duration,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Response(http::Response<Content>),
    Fault(ErrorKind),
    Never,
    Function(Arc<dyn Fn(&Received) -> Answer + Send + Sync>),
}

impl Answer {
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
    /// use fanout::{Answer, Fetcher, Mock};
    ///
    /// let path = Answer::with(|request| request.uri().path().to_owned());
    /// let mock = Mock::new().on("http://a.example/*", path);
    /// let fetcher = Fetcher::builder().transport(mock).build()?;
    /// assert_eq!(fetcher.fetch("http://a.example/x/y?z").await?.text(), "/x/y");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with<F, A>(function: F) -> Self
    where
        F: Fn(&Received) -> A + Send + Sync + 'static,
        A: Into<Answer>,
    {
        Self::of(Kind::Function(Arc::new(move |received| {
            function(received).into()
        })))
    }

    /// The failure of this kind, where the network would have it.
    ///
    /// What fails to connect (`Dns`, `HostNotFound`, `Connect`, `Proxy`, `ProxyRefused`, `Tls`, `ConnectTimeout`) or is
    /// `NotAllowed` was never sent; `Reset`, `Truncated` and
    /// `BodyIdleTimeout` come within the body of a 200; with `Panicked` the transport panics; the rest come in place of
    /// the response head. A timeout comes at once, without the clock: for one that takes its time there are
    /// [`never`](Self::never), [`stall`](Self::stall) and [`Mock::connect_delay`](crate::Mock::connect_delay).
    pub fn fault(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Reset | ErrorKind::Truncated | ErrorKind::BodyIdleTimeout => {
                let mut answer = Self::status(200);
                answer.response_mut().body_mut().end = End::Fault(kind);
                answer
            }
            kind => Self::of(Kind::Fault(kind)),
        }
    }

    /// No answer at all: it is for a timeout, a deadline or the caller to end the wait.
    pub fn never() -> Self {
        Self::of(Kind::Never)
    }

    /// What a rule that is missing looks like.
    pub(super) fn not_found(received: &Received) -> Self {
        let text = format!(
            "no rule of this Mock matches {} {}",
            received.method(),
            received.url()
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
    pub fn stall(mut self) -> Self {
        self.response_mut().body_mut().end = End::Never;
        self
    }

    fn of(kind: Kind) -> Self {
        Self {
            delay: Duration::ZERO,
            kind,
        }
    }

    #[track_caller]
    fn response_mut(&mut self) -> &mut http::Response<Content> {
        match &mut self.kind {
            Kind::Response(response) => response,
            _ => panic!("only a response has headers and a body, and this answer is none"),
        }
    }

    pub(super) async fn give(
        mut self,
        received: &Received,
    ) -> Result<http::Response<Content>, Error> {
        loop {
            if self.delay > Duration::ZERO {
                sleep(self.delay).await;
            }
            match self.kind {
                Kind::Response(response) => return Ok(response),
                Kind::Fault(ErrorKind::Panicked) => panic!("{TOLD}"),
                Kind::Fault(kind) => return Err(Error::of(kind).because(TOLD)),
                Kind::Never => std::future::pending().await,
                Kind::Function(function) => self = function(received),
            }
        }
    }
}

/// Why a fault came.
pub(super) const TOLD: &str = "as the Mock was told to";

impl From<StatusCode> for Answer {
    fn from(status: StatusCode) -> Self {
        let mut response = http::Response::new(Content::default());
        *response.status_mut() = status;
        Self::of(Kind::Response(response))
    }
}

/// As [`Answer::status`], panics included.
impl From<u16> for Answer {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// 200 and these bytes.
impl From<Bytes> for Answer {
    fn from(body: Bytes) -> Self {
        Self::status(200).body(body)
    }
}

/// As [`Answer::fault`].
impl From<ErrorKind> for Answer {
    fn from(kind: ErrorKind) -> Self {
        Self::fault(kind)
    }
}

impl<B: Into<Bytes>> From<http::Response<B>> for Answer {
    fn from(response: http::Response<B>) -> Self {
        Self::of(Kind::Response(response.map(Content::from)))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Response(response) => write!(f, "Answer({})", response.status()),
            Kind::Fault(kind) => write!(f, "Answer({kind})"),
            Kind::Never => f.write_str("Answer(never)"),
            Kind::Function(_) => f.write_str("Answer(a function)"),
        }
    }
}
