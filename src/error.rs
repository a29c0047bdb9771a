//! The error type of the crate.
//!
//! `Error` is opaque and one pointer wide, so a `Result<Response>` is two pointers wide. The
//! [`ErrorKind`] is set where the failure occurs and never derived from the source afterwards. An
//! error never shows a credential: its URL has no userinfo and is displayed without the values of
//! its query parameters.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::redacted_url::RedactedUrl;
use crate::request::{UrlOrInvalidText, origin};
use crate::response::{Redirect, Response};
use crate::timings::{Attempt, AttemptList, Timings};

/// [`std::result::Result`] with the [`Error`] of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, as [handlers](crate::Batch::read_with) and [token
/// sources](crate::Host::token_source) return it. The operator `?` converts every error into a
/// `BoxError`.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The cause of several errors, shared by them. One failed DNS lookup, for example, fails all
/// requests that wait for it.
pub(crate) type SharedErrorSource = Arc<dyn StdError + Send + Sync>;

/// Why a request has no response, or why its response was rejected.
///
/// [`kind`](Error::kind) says what went wrong. [`source`](StdError::source) is the underlying
/// cause, if there is one; `Display` does not repeat it.
///
/// Neither `Display` nor `Debug` shows a credential. The URL is shown with the names of its query
/// parameters and without their values (`?key=***`), and cut after 512 bytes. [`url`](Error::url)
/// returns the whole URL.
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
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<ErrorData>);

#[derive(thiserror::Error)]
struct ErrorData {
    kind: ErrorKind,
    maybe_sent: bool,
    url_or_invalid_text: Option<UrlOrInvalidText>,
    detail: Option<Cow<'static, str>>,
    source: Option<BoxError>,
    attempt_list: AttemptList,
    redirects: Box<[Redirect]>,
    rejected_response: Option<Response>,
}

impl Error {
    /// Creates an error with a kind and a cause, for example in the transport of a test.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut error = Self::from_kind(kind);
        error.0.source = Some(source.into());
        error
    }

    /// Creates an error without a cause.
    pub(crate) fn from_kind(kind: ErrorKind) -> Self {
        Self(Box::new(ErrorData {
            kind,
            maybe_sent: !kind.can_only_occur_before_sending(),
            url_or_invalid_text: None,
            detail: None,
            source: None,
            attempt_list: AttemptList::NoAttempt,
            redirects: Box::default(),
            rejected_response: None,
        }))
    }

    /// Sets the detail, which `Display` prints after the kind. The detail must not contain a
    /// credential.
    pub(crate) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Appends to the detail set by [`with_detail`](Self::with_detail).
    pub(crate) fn append_detail(&mut self, more: impl Into<Cow<'static, str>>) {
        let more = more.into();
        self.0.detail = Some(match self.0.detail.take() {
            Some(detail) => format!("{detail}; {more}").into(),
            None => more,
        });
    }

    /// The kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The URL of the request that failed, without userinfo, or the text of an invalid URL. `None`
    /// if the error belongs to no request.
    ///
    /// The query is included, with all values, which may be credentials. `Display` and `Debug` show
    /// only the names of the parameters.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let fetcher = fanout::Fetcher::new();
    /// let error = fetcher.fetch("ftp://a.example/?key=s3cr3t").await.unwrap_err();
    /// assert!(error.to_string().contains("ftp://a.example/?key=***"));
    /// assert_eq!(error.url(), Some("ftp://a.example/?key=s3cr3t"));
    /// # }
    /// ```
    pub fn url(&self) -> Option<&str> {
        self.0
            .url_or_invalid_text
            .as_ref()
            .map(UrlOrInvalidText::as_str)
    }

    /// The scheme, host and port of the URL. `None` if the URL is invalid.
    pub(crate) fn url_origin(&self) -> Option<&str> {
        let url = self.0.url_or_invalid_text.as_ref()?.url()?;
        Some(origin(url))
    }

    /// The attempts of the request, oldest first; empty if there were none.
    pub fn attempts(&self) -> &[Attempt] {
        self.attempt_list().as_slice()
    }

    /// The redirects that were followed before the failure, in order.
    pub fn redirects(&self) -> &[Redirect] {
        match &self.0.rejected_response {
            Some(response) => response.redirects(),
            None => &self.0.redirects,
        }
    }

    /// The time spent queued and in each phase on the wire, summed over all attempts of the
    /// request.
    pub fn timings(&self) -> Timings {
        self.attempt_list().total_timings()
    }

    pub(crate) fn attempt_list(&self) -> &AttemptList {
        self.0.attempt_list()
    }

    /// Whether a server may have processed the request or a part of it.
    ///
    /// If `false`, no server has processed any part of the request: in each attempt, either no byte
    /// was sent, or an HTTP/2 server refused the request unprocessed (RFC 9113 §8.7). Sending the
    /// request again is then safe, whatever its method. If `true`, a server may have processed it.
    pub fn maybe_sent(&self) -> bool {
        self.0.maybe_sent
    }

    /// The response that this error rejects, if there is one. This is the response on which
    /// [`error_for_status`](crate::Response::error_for_status) was called, or the response, without
    /// its body, whose redirect could not be followed.
    pub fn response(&self) -> Option<&Response> {
        self.0.rejected_response.as_ref()
    }

    /// Converts the error into the response that it rejects, if there is one.
    pub fn into_response(self) -> Option<Response> {
        self.0.rejected_response
    }

    /// Whether a timeout expired or the deadline of the batch passed.
    pub fn is_timeout(&self) -> bool {
        self.0.kind.is_timeout()
    }

    /// Whether the failure happened before a connection was established.
    ///
    /// Returns `true` if resolving the host name, connecting (including its timeout), the proxy or
    /// the TLS handshake failed. Also returns `true` for [`ErrorKind::HostDown`], where no
    /// connection was tried.
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

    pub(crate) fn set_url(&mut self, url: impl Into<UrlOrInvalidText>) {
        self.0.url_or_invalid_text = Some(url.into());
    }

    pub(crate) fn set_attempts(&mut self, attempts: AttemptList) {
        match &mut self.0.rejected_response {
            Some(response) => response.set_attempts(attempts),
            None => self.0.attempt_list = attempts,
        }
    }

    pub(crate) fn set_redirects(&mut self, redirects: Box<[Redirect]>) {
        match &mut self.0.rejected_response {
            Some(response) => response.set_redirects(redirects),
            None => self.0.redirects = redirects,
        }
    }

    pub(crate) fn set_maybe_sent(&mut self, maybe_sent: bool) {
        self.0.maybe_sent = maybe_sent;
    }

    /// Stores the rejected response. The error then reports the attempts and redirects of that
    /// response.
    pub(crate) fn set_rejected_response(&mut self, response: Response) {
        self.0.rejected_response = Some(response);
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl ErrorData {
    /// The attempts of the request. An error with a response keeps the attempts in the response, so
    /// that [`Error::into_response`] returns a complete response.
    fn attempt_list(&self) -> &AttemptList {
        match &self.rejected_response {
            Some(response) => response.attempt_list(),
            None => &self.attempt_list,
        }
    }
}

impl fmt::Display for ErrorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(url) = &self.url_or_invalid_text {
            write!(f, " for {url}")?;
        }
        let attempts = self.attempt_list().attempt_count();
        if attempts > 1 {
            write!(f, " ({attempts} attempts)")?;
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ErrorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind);
        if let Some(url) = &self.url_or_invalid_text {
            debug.field("url", &RedactedUrl(url.as_str()));
        }
        if let Some(detail) = &self.detail {
            debug.field("detail", detail);
        }
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.field("maybe_sent", &self.maybe_sent);
        match &self.rejected_response {
            Some(response) => debug.field("response", response),
            None => debug.field("attempts", &self.attempt_list.as_slice()),
        };
        debug.finish()
    }
}

/// The kind of an [`Error`]. An `ErrorKind` can be the key of a map.
///
/// Each kind is documented as retried or not retried. A retried kind leads to another attempt,
/// within the limits of [`Retry`](crate::Retry), if sending the request again is safe: the request
/// is [idempotent](crate::Request::is_idempotent), or no byte of the request was sent. `Display`
/// prints a short description.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL, a header, the method or the body is invalid. Nothing was sent. Not retried.
    InvalidRequest,
    /// The lookup of the host name failed: the resolver or its servers did not answer. Retried.
    Dns,
    /// The host name does not exist, or it has no address. Not retried.
    HostNotFound,
    /// Connecting failed for every address of the host: the connection was refused, the address was
    /// unreachable, or no file descriptor was left. Retried.
    Connect,
    /// The proxy could not be reached, sent an invalid reply, or could not reach the host. Retried.
    Proxy,
    /// The proxy refused the request: it requires other credentials (407) or forbids the target
    /// (403 and similar). This kind is also used if the request would use the proxy of an
    /// environment variable whose value is not a proxy URL. Not retried.
    ProxyRefused,
    /// The [breaker](crate::Breaker) of the host is open because recent connections to the host
    /// failed. The request has waited for [`Breaker::max_wait`](crate::Breaker::max_wait), or the
    /// deadline of its batch is before the next probe. Nothing was sent. Not retried.
    HostDown,
    /// The cost of the request is above the capacity of a [budget](crate::Budget::burst), or above
    /// what is left of a [total](crate::Budget::total). `Display` names the budget, the cost, and
    /// the capacity or what is left. Nothing was sent, except earlier hops of a redirect. A request
    /// that was queued for a retry ends with the outcome of its last attempt instead. Not retried.
    Budget,
    /// The TLS handshake failed, or the certificate was rejected. Not retried.
    Tls,
    /// The server closed or reset the connection (in HTTP/2 the stream) before the response head
    /// was complete, or refused the HTTP/2 stream. `Display` states whether any byte of the head
    /// arrived. Retried.
    Closed,
    /// The connection (in HTTP/2 the stream) was reset or failed while the body was read. Retried.
    Reset,
    /// The body ended before it was complete. The body of a [saved](crate::RequestBuilder::save_to)
    /// response also fails with this kind if its length is not the announced one, if the response
    /// does not continue the saved part, if the response is a part (206) that was not requested, or
    /// if another download has taken over the part file. Retried.
    Truncated,
    /// The response is not valid HTTP, or its end is ambiguous. The connection is closed. Not
    /// retried.
    ///
    /// In HTTP/1.1 these are rejected:
    ///
    /// - both `Content-Length` and `Transfer-Encoding`; `Content-Length` values that differ or are
    ///   not digits; a transfer coding other than a single `chunked`;
    /// - a `Content-Length`, `Transfer-Encoding` or `Connection` field that is folded, has a space
    ///   before its colon, or is malformed otherwise;
    /// - a NUL or a bare carriage return in the head;
    /// - more than 16 informational responses (1xx), a head of more than 256 KiB, or more than
    ///   64 KiB of body bytes that carry no data. The size of a head includes 32 bytes per field,
    ///   as in HTTP/2; the number of fields has no other limit.
    ///
    /// The source of the error names the invalid line of the head, or the limit that was exceeded.
    ///
    /// These are accepted, as RFC 9112 §2.2 allows: lines of the head that end in a line feed only,
    /// empty lines before the head, and the same `Content-Length` repeated. A line fold becomes a
    /// space (RFC 9112 §5.2), and whitespace before the colon of another field is removed. A line
    /// that is no valid field is skipped: its name is not a token, it has no colon, or its value
    /// contains a control character. Malformed trailers of a complete body are skipped too. Chunks
    /// are parsed by hyper, which requires CRLF and allows 16 KiB of chunk extensions and 16 KiB of
    /// well-formed trailers.
    ///
    /// In HTTP/2 these are rejected: violations of RFC 9113, a body whose length differs from its
    /// `Content-Length`, and a flood of frames without data. The other exchanges on that connection
    /// fail too.
    Protocol,
    /// There were too many redirects, the target of a redirect is not an `http` or `https` URL, or
    /// the [`RedirectPolicy`](crate::RedirectPolicy) refused the redirect. The error quotes the
    /// `Location` and keeps the [response](Error::response) that redirects, without its body. Not
    /// retried.
    Redirect,
    /// A setting of the Fetcher forbids the request:
    /// [`https_only`](crate::FetcherBuilder::https_only),
    /// [`public_addresses_only`](crate::FetcherBuilder::public_addresses_only) or
    /// [`allowed_ports`](crate::FetcherBuilder::allowed_ports). Not retried.
    NotAllowed,
    /// The decoded body is larger than
    /// [`max_body_size`](crate::FetcherBuilder::max_body_size), or decoding it needs more memory
    /// than that limit allows. Not retried.
    BodyTooLarge,
    /// The body cannot be decoded: it is corrupt, incomplete or followed by other data, or
    /// `Content-Encoding` lists more than five codings. Not retried.
    ContentEncoding,
    /// [`Timeouts::connect`](crate::Timeouts::connect) expired. Retried.
    ConnectTimeout,
    /// [`Timeouts::response_head`](crate::Timeouts::response_head) expired. Retried.
    ResponseHeadTimeout,
    /// [`Timeouts::body_idle`](crate::Timeouts::body_idle) expired between two chunks of the body.
    /// Retried.
    BodyIdleTimeout,
    /// [`RequestBuilder::timeout`](crate::RequestBuilder::timeout) or
    /// [`FetcherBuilder::request_timeout`](crate::FetcherBuilder::request_timeout), the limit of
    /// one attempt, expired. Retried.
    RequestTimeout,
    /// [`Timeouts::total`](crate::Timeouts::total), the limit of all attempts, expired. Not
    /// retried.
    TotalTimeout,
    /// The [deadline](crate::Batch::deadline) of the batch passed. Not retried.
    Deadline,
    /// The batch was dropped or cancelled, or its runtime shut down. Not retried.
    Cancelled,
    /// A callback or the transport panicked. Not retried.
    Panicked,
    /// The tokio runtime has no time driver or no I/O driver. `Display` names the missing driver
    /// and the method of [`tokio::runtime::Builder`] that enables it. Nothing was sent. Not
    /// retried.
    MissingRuntimeDriver,
    /// [`error_for_status`](crate::Response::error_for_status) was called on a response whose
    /// status is 4xx or 5xx. Not retried.
    Status,
    /// A [token source](crate::Host::token_source) failed, timed out, or returned an invalid bearer
    /// token. Not retried.
    Token,
    /// The response body is not valid JSON, or does not match the expected type. Not retried.
    Json,
    /// The user's [transport](crate::FetcherBuilder::transport) returned an error that is not an
    /// [`Error`]. Retried.
    Transport,
    /// The file or the stream of the request [`Body`](crate::Body) could not be read. The source is
    /// the error of the file or stream. Not retried.
    RequestBody,
    /// The handler of [`read_with`](crate::Batch::read_with) returned an error. The source is the
    /// error of the handler. Not retried.
    Handler,
    /// The file of [`RequestBuilder::save_to`](crate::RequestBuilder::save_to) could not be
    /// written. The source is the I/O error. Not retried.
    Save,
}

impl ErrorKind {
    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Dns
                | Self::Connect
                | Self::Proxy
                | Self::Closed
                | Self::Reset
                | Self::Truncated
                | Self::ConnectTimeout
                | Self::ResponseHeadTimeout
                | Self::BodyIdleTimeout
                | Self::RequestTimeout
                | Self::Transport
        )
    }

    fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout
                | Self::ResponseHeadTimeout
                | Self::BodyIdleTimeout
                | Self::RequestTimeout
                | Self::TotalTimeout
                | Self::Deadline
        )
    }

    /// Whether a failure of this kind happens only before the first byte of the request is written.
    fn can_only_occur_before_sending(self) -> bool {
        matches!(
            self,
            Self::InvalidRequest
                | Self::Dns
                | Self::HostNotFound
                | Self::Connect
                | Self::Proxy
                | Self::ProxyRefused
                | Self::HostDown
                | Self::Budget
                | Self::Tls
                | Self::NotAllowed
                | Self::ConnectTimeout
                | Self::MissingRuntimeDriver
        )
    }

    fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid request",
            Self::Dns => "host name lookup failed",
            Self::HostNotFound => "no such host",
            Self::Connect => "connection failed",
            Self::Proxy => "proxy failed",
            Self::ProxyRefused => "refused by the proxy",
            Self::HostDown => "host is down",
            Self::Budget => "cost exceeds a budget",
            Self::Tls => "tls handshake failed",
            Self::Closed => "connection closed before the response",
            Self::Reset => "connection lost within the response body",
            Self::Truncated => "response body cut short",
            Self::Protocol => "invalid http response",
            Self::Redirect => "redirect not followed",
            Self::NotAllowed => "not allowed",
            Self::BodyTooLarge => "response body too large",
            Self::ContentEncoding => "invalid content encoding",
            Self::ConnectTimeout => "connect timeout",
            Self::ResponseHeadTimeout => "response head timeout",
            Self::BodyIdleTimeout => "body-idle timeout",
            Self::RequestTimeout => "request timeout",
            Self::TotalTimeout => "total timeout",
            Self::Deadline => "batch deadline passed",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
            Self::MissingRuntimeDriver => "the tokio runtime lacks a driver",
            Self::Status => "error status",
            Self::Token => "no bearer token",
            Self::Json => "invalid JSON in the response body",
            Self::Transport => "transport failed",
            Self::RequestBody => "no request body",
            Self::Handler => "body handler failed",
            Self::Save => "response body not saved",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.description())
    }
}

/// Calls a function of the user and catches its panic. `place` describes the function in the error.
///
/// # Errors
///
/// Returns [`ErrorKind::Panicked`] if the function panics.
pub(crate) fn catch_user_panic<T>(place: &'static str, call: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| Error::from_kind(ErrorKind::Panicked).with_detail(place))
}

/// Replaces an outcome by the error of a user's function that panicked. The error keeps the
/// response, if there is one.
pub(crate) fn replace_outcome_by_panic(outcome: &mut Result<Response>, panicked: Error) {
    let replaced = std::mem::replace(outcome, Err(panicked));
    if let (Err(panicked), Ok(response)) = (outcome, replaced) {
        panicked.set_rejected_response(response);
    }
}

/// The message of a panic caught with `catch_unwind`.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::timings::Outcome;

    #[test]
    fn error_is_one_word_and_result_two() {
        let word = size_of::<usize>();
        assert_eq!(size_of::<Error>(), word);
        assert_eq!(size_of::<Result<Response>>(), 2 * word);
    }

    #[test]
    fn error_is_send_and_sync() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn display_prints_the_kind_the_url_and_the_attempts_but_not_the_source() {
        let mut error = Error::new(ErrorKind::Closed, "the cause below");
        assert_eq!(error.to_string(), "connection closed before the response");
        assert_eq!(error.source().unwrap().to_string(), "the cause below");

        let request = Request::get("http://user:secret@a.example/x").build();
        error.set_url(request.url_or_invalid_text().clone());
        let mut attempts = AttemptList::default();
        for _ in 0..3 {
            let outcome = Outcome::Error(ErrorKind::Closed);
            attempts.push_attempt(Attempt::new(outcome, Timings::default()));
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
    fn display_prints_the_detail_after_the_kind() {
        let error = Error::from_kind(ErrorKind::ResponseHeadTimeout)
            .with_detail("no response head within 30 s");
        assert_eq!(
            error.to_string(),
            "response head timeout: no response head within 30 s"
        );
        assert!(error.is_timeout() && !error.is_connect());
    }

    #[test]
    fn maybe_sent_is_false_only_for_kinds_that_fail_before_sending() {
        assert!(!Error::from_kind(ErrorKind::Dns).maybe_sent());
        assert!(!Error::from_kind(ErrorKind::ConnectTimeout).maybe_sent());
        assert!(!Error::from_kind(ErrorKind::Budget).maybe_sent());
        assert!(Error::from_kind(ErrorKind::Closed).maybe_sent());
        assert!(Error::from_kind(ErrorKind::Cancelled).maybe_sent());
    }

    #[test]
    fn permanent_kinds_are_not_transient() {
        for kind in [
            ErrorKind::InvalidRequest,
            ErrorKind::HostNotFound,
            ErrorKind::ProxyRefused,
            ErrorKind::HostDown,
            ErrorKind::Budget,
            ErrorKind::Tls,
            ErrorKind::Protocol,
            ErrorKind::NotAllowed,
            ErrorKind::BodyTooLarge,
            ErrorKind::ContentEncoding,
            ErrorKind::TotalTimeout,
            ErrorKind::Deadline,
            ErrorKind::Cancelled,
            ErrorKind::Panicked,
            ErrorKind::MissingRuntimeDriver,
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
