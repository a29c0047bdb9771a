//! The one error of the crate.
//!
//! It is opaque and one word wide, so that a `Result<Response>` is two words. What went wrong is a
//! fieldless [`ErrorKind`], chosen where the failure arises and never guessed from the source
//! afterwards. No credential is ever shown: an error holds the URL without user-info only.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::request::{Target, origin};
use crate::timings::AttemptList;
use crate::{Attempt, Redirect, Response, Timings};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request has no answer, or why its answer was refused.
///
/// [`kind`](Error::kind) says what went wrong; [`source`](StdError::source) is the cause below, if
/// there is one. `Display` prints this level only. Neither `Display` nor `Debug` shows a credential.
///
/// An HTTP status is not an error until
/// [`Response::error_for_status`](crate::Response::error_for_status) makes it one.
///
/// ```
/// use fanout::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Connect, std::io::Error::other("refused"));
/// assert_eq!(error.kind(), ErrorKind::Connect);
/// assert!(error.is_connect() && !error.maybe_sent());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    maybe_sent: bool,
    target: Option<Target>,
    detail: Option<Cow<'static, str>>,
    source: Option<BoxError>,
    attempts: AttemptList,
    redirects: Box<[Redirect]>,
    response: Option<Response>,
}

impl Error {
    /// Makes an error of `kind` with its cause, as a test's transport may want to.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut error = Self::from_kind(kind);
        error.0.source = Some(source.into());
        error
    }

    /// An error without a cause below it.
    pub(crate) fn from_kind(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            maybe_sent: !kind.is_before_sending(),
            target: None,
            detail: None,
            source: None,
            attempts: AttemptList::None,
            redirects: Box::default(),
            response: None,
        }))
    }

    /// Adds what this level has to say, which `Display` shows. It must hold no credential.
    pub(crate) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds to what [`with_detail`](Self::because) said.
    pub(crate) fn append_detail(mut self, more: &'static str) -> Self {
        self.0.detail = Some(match self.0.detail.take() {
            Some(detail) => format!("{detail}; {more}").into(),
            None => more.into(),
        });
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The URL that failed, without user-info; of an invalid one, its text.
    ///
    /// The query is part of it. `None` for an error that belongs to no request.
    pub fn url(&self) -> Option<&str> {
        self.0.target.as_ref().map(Target::as_str)
    }

    /// Scheme, host and port of the URL, if it is one.
    pub(crate) fn origin(&self) -> Option<&str> {
        match &self.0.target {
            Some(Target::Url(url)) => Some(origin(url)),
            _ => None,
        }
    }

    /// The attempts that were made, oldest first; empty if none was.
    pub fn attempts(&self) -> &[Attempt] {
        self.attempt_list().as_slice()
    }

    /// The redirects that were followed before it went wrong, in their order.
    pub fn redirects(&self) -> &[Redirect] {
        match &self.0.response {
            Some(response) => response.redirects(),
            None => &self.0.redirects,
        }
    }

    /// Where the time went, summed over the attempts.
    pub fn timings(&self) -> Timings {
        self.attempt_list().timings()
    }

    // An error with a response leaves the attempts there, for `into_response` to hand out whole.
    pub(crate) fn attempt_list(&self) -> &AttemptList {
        match &self.0.response {
            Some(response) => response.attempt_list(),
            None => &self.0.attempts,
        }
    }

    /// Whether the server may have seen the request.
    ///
    /// `false` only if no byte of it can have reached the server, on any attempt: then to send it
    /// again is safe, whatever its method.
    pub fn maybe_sent(&self) -> bool {
        self.0.maybe_sent
    }

    /// The response that was refused, if there is one, as after
    /// [`error_for_status`](crate::Response::error_for_status).
    pub fn response(&self) -> Option<&Response> {
        self.0.response.as_ref()
    }

    /// Takes the response out of the error.
    pub fn into_response(self) -> Option<Response> {
        self.0.response
    }

    /// Whether a clock ran out: one of the timeouts, or the batch's deadline.
    pub fn is_timeout(&self) -> bool {
        self.0.kind.is_timeout()
    }

    /// Whether no connection came about: name resolution, connecting (also out of time), the way through a proxy, or
    /// TLS; or the host was [down](ErrorKind::HostDown), so that none was tried.
    pub fn is_connect(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Dns
                | ErrorKind::HostNotFound
                | ErrorKind::Connect
                | ErrorKind::Proxy
                | ErrorKind::ProxyRefused
                | ErrorKind::HostDown
                | ErrorKind::Tls
                | ErrorKind::ConnectTimeout
        )
    }

    pub(crate) fn set_url(&mut self, target: impl Into<Target>) {
        self.0.target = Some(target.into());
    }

    pub(crate) fn set_attempts(&mut self, attempts: AttemptList) {
        match &mut self.0.response {
            Some(response) => response.set_attempts(attempts),
            None => self.0.attempts = attempts,
        }
    }

    pub(crate) fn set_redirects(&mut self, redirects: Box<[Redirect]>) {
        self.0.redirects = redirects;
    }

    pub(crate) fn set_maybe_sent(&mut self, maybe_sent: bool) {
        self.0.maybe_sent = maybe_sent;
    }

    /// Keeps the refused response; its attempts are from now on the error's.
    pub(crate) fn set_response(&mut self, response: Response) {
        self.0.response = Some(response);
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)?;
        if let Some(target) = &self.0.target {
            write!(f, " for {target}")?;
        }
        let attempts = self.attempts().len();
        if attempts > 1 {
            write!(f, " ({attempts} attempts)")?;
        }
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind);
        if let Some(url) = self.url() {
            debug.field("url", &url);
        }
        if let Some(detail) = &self.0.detail {
            debug.field("detail", detail);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.field("maybe_sent", &self.0.maybe_sent);
        match &self.0.response {
            Some(response) => debug.field("response", response),
            None => debug.field("attempts", &self.attempts()),
        };
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

/// What went wrong, fit to be the key of a map.
///
/// Each kind says whether it is *retried*: sent again by itself, within the limits of
/// [`Retry`](crate::Retry), if the request is safe to repeat (its method is idempotent, it has an
/// `Idempotency-Key`, or it is marked [`idempotent`](crate::Request::idempotent)) or if no byte of
/// it was sent. `Display` is a short description.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL, a header, the method or the body is not valid; nothing was sent. Not retried.
    InvalidRequest,
    /// The host name could not be looked up: its servers, or the resolver, gave no answer. Retried.
    Dns,
    /// There is no such host, or it has no address. Not retried.
    HostNotFound,
    /// No address accepted a connection: refused, unreachable, or no descriptor left. Retried.
    Connect,
    /// The way through the proxy failed: it could not be reached, or what it said was not what it should, or it could not
    /// reach the host. Retried.
    Proxy,
    /// The proxy refused: it wants credentials or other ones (407), or its rules forbid it (403 and its like); or the
    /// environment names a proxy that is none. Not retried.
    ProxyRefused,
    /// The host could not be reached, time and again, so the request was not sent: its [breaker](crate::Breaker) is open,
    /// and the time to wait for it is over. Not retried.
    HostDown,
    /// The TLS handshake failed, or the certificate was refused. Not retried.
    Tls,
    /// The peer closed or reset the connection, or in HTTP/2 the stream, before a complete response head; or it refused
    /// the request. Retried.
    Closed,
    /// The connection, or in HTTP/2 the stream, was reset or failed while the body was read. Retried.
    Reset,
    /// The peer closed the connection before the body was complete. Retried.
    Truncated,
    /// The answer is not valid HTTP, or where it ends is in doubt. Not retried, and its connection is closed.
    ///
    /// So ends an answer with both `Content-Length` and `Transfer-Encoding`, with lengths that differ or are not digits,
    /// or with any transfer coding but one `chunked`; with a folded header line, a space before a colon, a NUL or a bare
    /// carriage return in its head; with more than 16 informational answers (1xx) before it, a head of more than 256 KiB,
    /// or more than 64 KiB of its body that are no data. Accepted are, as RFC 9112 §2.2 allows, line feeds without a
    /// carriage return in the head, and empty lines before it; and the same length said twice. Chunks are read by
    /// hyper, which is stricter about them (their lines must end with both) and allows 16 KiB of chunk extensions in a
    /// body and 16 KiB of trailers.
    ///
    /// In HTTP/2 so ends what breaks RFC 9113, a body of another length than its `Content-Length`, and a flood of frames
    /// that bring nothing; the other exchanges of that connection then end as well.
    Protocol,
    /// The redirects were too many, or one points to no URL. Not retried.
    Redirect,
    /// The Fetcher was told not to: see [`https_only`](crate::FetcherBuilder::https_only),
    /// [`public_addresses_only`](crate::FetcherBuilder::public_addresses_only) and
    /// [`allowed_ports`](crate::FetcherBuilder::allowed_ports). Not retried.
    NotAllowed,
    /// The body, when decoded, is larger than the [cap](crate::FetcherBuilder::max_body_size), or to decode it takes more memory
    /// than the cap leaves. Not retried.
    BodyTooLarge,
    /// The body does not follow its `Content-Encoding`: it is corrupt, ends too early or goes on after its end; or it
    /// has more than five codings. Not retried.
    ContentEncoding,
    /// [`Timeouts::connect`](crate::Timeouts::connect) ran out. Retried.
    ConnectTimeout,
    /// [`Timeouts::response_head`](crate::Timeouts::response_head) ran out. Retried.
    ResponseHeadTimeout,
    /// [`Timeouts::body_idle`](crate::Timeouts::body_idle) ran out between two bytes. Retried.
    BodyIdleTimeout,
    /// [`Request::timeout`](crate::Request::timeout), that of one attempt, ran out. Retried.
    RequestTimeout,
    /// [`Timeouts::total`](crate::Timeouts::total), that of all attempts, ran out. Not retried.
    TotalTimeout,
    /// The wall-clock deadline of the batch passed. Not retried.
    Deadline,
    /// The batch was dropped or cancelled, or its runtime ended. Not retried.
    Cancelled,
    /// A callback, or the transport, panicked. Not retried.
    Panicked,
    /// The status is 4xx or 5xx, and
    /// [`error_for_status`](crate::Response::error_for_status) was asked. Not retried.
    Status,
    /// A [token source](crate::Host::token_source) failed, took too long, or gave what cannot be a bearer token. Not
    /// retried.
    Token,
    /// The body is not what was asked for, as when it is not the JSON expected. Not retried.
    Json,
    /// A transport of the user's own failed with an error of its own. Retried.
    Transport,
    /// The body of the request could not be had: its file could not be read, or its stream gave an error, which is the
    /// source. See [`Body`](crate::Body). Not retried.
    RequestBody,
    /// The handler of [`read_with`](crate::Batch::read_with) gave an error, which is the source. Not retried.
    Handler,
    /// The file of [`Request::save_to`](crate::Request::save_to) could not be written; the source says why. Not retried.
    Save,
}

impl ErrorKind {
    /// Whether another attempt may fare better.
    pub(crate) fn is_transient(self) -> bool {
        use ErrorKind::{
            BodyIdleTimeout, Closed, Connect, ConnectTimeout, Dns, Proxy, RequestTimeout, Reset,
            ResponseHeadTimeout, Transport, Truncated,
        };
        matches!(
            self,
            Dns | Connect
                | Proxy
                | Closed
                | Reset
                | Truncated
                | ConnectTimeout
                | ResponseHeadTimeout
                | BodyIdleTimeout
                | RequestTimeout
                | Transport
        )
    }

    fn is_timeout(self) -> bool {
        use ErrorKind::{
            BodyIdleTimeout, ConnectTimeout, Deadline, RequestTimeout, ResponseHeadTimeout,
            TotalTimeout,
        };
        matches!(
            self,
            ConnectTimeout
                | ResponseHeadTimeout
                | BodyIdleTimeout
                | RequestTimeout
                | TotalTimeout
                | Deadline
        )
    }

    /// Whether it can only arise before a byte of the request is written.
    fn is_before_sending(self) -> bool {
        use ErrorKind::{
            Connect, ConnectTimeout, Dns, HostDown, HostNotFound, InvalidRequest, NotAllowed,
            Proxy, ProxyRefused, Tls,
        };
        matches!(
            self,
            InvalidRequest
                | Dns
                | HostNotFound
                | Connect
                | Proxy
                | ProxyRefused
                | HostDown
                | Tls
                | NotAllowed
                | ConnectTimeout
        )
    }

    fn description(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "invalid request",
            ErrorKind::Dns => "host name lookup failed",
            ErrorKind::HostNotFound => "no such host",
            ErrorKind::Connect => "connection failed",
            ErrorKind::Proxy => "proxy failed",
            ErrorKind::ProxyRefused => "refused by the proxy",
            ErrorKind::HostDown => "host is down",
            ErrorKind::Tls => "tls handshake failed",
            ErrorKind::Closed => "connection closed before the response",
            ErrorKind::Reset => "connection lost within the response body",
            ErrorKind::Truncated => "response body cut short",
            ErrorKind::Protocol => "invalid http response",
            ErrorKind::Redirect => "redirect not followed",
            ErrorKind::NotAllowed => "not allowed",
            ErrorKind::BodyTooLarge => "response body too large",
            ErrorKind::ContentEncoding => "invalid content encoding",
            ErrorKind::ConnectTimeout => "connect timeout",
            ErrorKind::ResponseHeadTimeout => "response head timeout",
            ErrorKind::BodyIdleTimeout => "body-idle timeout",
            ErrorKind::RequestTimeout => "request timeout",
            ErrorKind::TotalTimeout => "total timeout",
            ErrorKind::Deadline => "batch deadline passed",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Panicked => "panicked",
            ErrorKind::Status => "error status",
            ErrorKind::Token => "no bearer token",
            ErrorKind::Json => "invalid JSON in the response body",
            ErrorKind::Transport => "transport failed",
            ErrorKind::RequestBody => "no request body",
            ErrorKind::Handler => "body handler failed",
            ErrorKind::Save => "response body not saved",
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.description())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Request};

    #[test]
    fn an_error_is_one_word_and_a_result_two() {
        let word = size_of::<usize>();
        assert_eq!(size_of::<Error>(), word);
        assert_eq!(size_of::<Result<Response>>(), 2 * word);
    }

    #[test]
    fn an_error_can_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn display_prints_its_own_level_the_url_and_the_attempts() {
        let mut error = Error::new(ErrorKind::Closed, "the cause below");
        assert_eq!(error.to_string(), "connection closed before the response");
        assert_eq!(error.source().unwrap().to_string(), "the cause below");

        let request = Request::get("http://user:secret@a.example/x");
        error.set_url(request.target().clone());
        let mut attempts = AttemptList::default();
        for _ in 0..3 {
            let outcome = Outcome::Error(ErrorKind::Closed);
            attempts.push(Attempt::new(outcome, Timings::default()));
        }
        error.set_attempts(attempts);
        assert_eq!(error.url(), Some("http://a.example/x"));
        assert_eq!(
            error.to_string(),
            "connection closed before the response for http://a.example/x (3 attempts)"
        );
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn the_detail_of_a_timeout_follows_its_clock() {
        let error = Error::from_kind(ErrorKind::ResponseHeadTimeout)
            .with_detail("no response head within 30 s");
        assert_eq!(
            error.to_string(),
            "response head timeout: no response head within 30 s"
        );
        assert!(error.is_timeout() && !error.is_connect());
    }

    #[test]
    fn only_what_fails_before_sending_is_surely_unsent() {
        assert!(!Error::from_kind(ErrorKind::Dns).maybe_sent());
        assert!(!Error::from_kind(ErrorKind::ConnectTimeout).maybe_sent());
        assert!(Error::from_kind(ErrorKind::Closed).maybe_sent());
        assert!(Error::from_kind(ErrorKind::Cancelled).maybe_sent());
    }

    #[test]
    fn what_another_attempt_cannot_mend_is_not_transient() {
        for kind in [
            ErrorKind::InvalidRequest,
            ErrorKind::HostNotFound,
            ErrorKind::ProxyRefused,
            ErrorKind::HostDown,
            ErrorKind::Tls,
            ErrorKind::Protocol,
            ErrorKind::NotAllowed,
            ErrorKind::BodyTooLarge,
            ErrorKind::ContentEncoding,
            ErrorKind::TotalTimeout,
            ErrorKind::Deadline,
            ErrorKind::Cancelled,
            ErrorKind::Panicked,
            ErrorKind::Status,
            ErrorKind::Json,
            ErrorKind::RequestBody,
            ErrorKind::Save,
            ErrorKind::Handler,
        ] {
            assert!(!kind.is_transient(), "{kind}");
        }
        assert!(ErrorKind::Dns.is_transient() && ErrorKind::Transport.is_transient());
    }
}
