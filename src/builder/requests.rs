//! The setters for how each request is made: retries, timeouts, bodies, redirects, headers and
//! cookies.

use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};

use super::FetcherBuilder;
use crate::credentials;
use crate::error::{Error, ErrorKind};
#[cfg(feature = "cookies")]
use crate::exchange::CookieJar;
use crate::limits::{Retry, Timeouts};
use crate::redirect_policy::RedirectPolicy;

impl FetcherBuilder {
    /// Sets which failures are retried, how often and when. Default: [`Retry::default`], 2 retries.
    /// [`Retry::off`] disables retries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the timeouts of each request. Default: [`Timeouts::default`]: 10 s to connect, 30 s for
    /// the response head, 20 s between body chunks, 120 s in total.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Limits the wire time of one attempt of each request: connecting, sending, waiting for the
    /// response head and reading the body. Default: no limit.
    ///
    /// A request can have [its own limit](crate::RequestBuilder::timeout), which takes precedence,
    /// even if it is longer. An attempt that exceeds the limit fails with
    /// [`ErrorKind::RequestTimeout`]. [`Timeouts::total`] limits all attempts together.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// use std::time::Duration;
    /// use fanout::Fetcher;
    ///
    /// let fetcher = Fetcher::builder().request_timeout(Duration::from_secs(10)).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.default_attempt_timeout = Some(timeout);
        self
    }

    /// Limits the size of a response body kept in memory, in bytes. A request with a larger
    /// response body fails with [`ErrorKind::BodyTooLarge`]. Default: 32 MiB (33,554,432 bytes).
    ///
    /// For a body with a `Content-Encoding`, the limit applies to the decoded size. Decoding uses
    /// at most 8 MiB of memory in addition to this limit. If a body was compressed with a window of
    /// several MiB, the limit on the body may be lower by up to the size of the window.
    pub fn max_body_size(mut self, bytes: u64) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets whether bodies that have a `Content-Encoding` are decoded. Default: `true`. With
    /// `false`, bodies are returned encoded, as received. A request can have [its own
    /// setting](crate::RequestBuilder::decode_content). A body that is [saved to a
    /// file](crate::RequestBuilder::save_to) is saved as received.
    ///
    /// The features `gzip`, `deflate` and `brotli`, which are enabled by default, and `zstd`
    /// determine which codings are decoded. Requests list these codings in `Accept-Encoding`,
    /// except requests with a `Range`. If `Accept-Encoding` is set on the request or as a default
    /// header, that value is sent instead, and the response is still decoded.
    ///
    /// A decoded response has no `Content-Encoding` and no `Content-Length`, since both describe
    /// the encoded body. A request fails with [`ErrorKind::ContentEncoding`] if the encoded data is
    /// corrupt, truncated or followed by more data, or has more than five nested codings.
    ///
    /// A body with an unknown coding, or a partial body (status 206), is returned encoded, with all
    /// headers.
    pub fn decode_content(mut self, enabled: bool) -> Self {
        self.decode_content = enabled;
        self
    }

    /// Limits how many redirects of a request are followed. After more redirects, the request fails
    /// with [`ErrorKind::Redirect`]. Default: 10 redirects. With 0, the response that redirects is
    /// the result. A request can have [its own limit](crate::RequestBuilder::max_redirects).
    ///
    /// A redirect continues the same attempt with another request. This request is queued under the
    /// limits of its own host, and holds no concurrency slot while it is queued.
    ///
    /// If a redirect changes the origin, credentials are removed from all later requests of the
    /// attempt: `Authorization`, `Cookie`, headers marked sensitive, and headers with names such as
    /// `X-Api-Key`.
    pub fn max_redirects(mut self, redirects: u32) -> Self {
        self.max_redirects = redirects;
        self
    }

    /// Sets which redirects are followed. Default: [`RedirectPolicy::all`]. A request can have
    /// [its own policy](crate::RequestBuilder::redirect_policy).
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, RedirectPolicy};
    ///
    /// let fetcher = Fetcher::builder().redirect_policy(RedirectPolicy::same_host()).build()?;
    /// # let _ = fetcher;
    /// # Ok(())
    /// # }
    /// ```
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.redirect_policy = policy;
        self
    }

    /// Sets whether `http` URLs, in requests and redirects, are refused with
    /// [`ErrorKind::NotAllowed`]. Default: `false`.
    pub fn https_only(mut self, enabled: bool) -> Self {
        self.https_only = enabled;
        self
    }

    /// Allows only `ports`, in requests and redirects. A URL with another port is refused with
    /// [`ErrorKind::NotAllowed`]. Default: all ports.
    ///
    /// # Panics
    ///
    /// Panics if `ports` is empty.
    #[track_caller]
    pub fn allowed_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        let ports: Box<[u16]> = ports.into_iter().collect();
        assert!(
            !ports.is_empty(),
            "a Fetcher without an allowed port could not send anything"
        );
        self.allowed_ports = Some(ports);
        self
    }

    /// Sets the `User-Agent` header of requests that do not set one. Default: `fanout/` and the
    /// version of the crate. With an empty string no `User-Agent` is sent.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `user_agent` is not a valid header value.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(user_agent.as_ref()) {
            Ok(value) => self.user_agent = Some(value).filter(|value| !value.is_empty()),
            Err(error) => {
                let error = Error::new(ErrorKind::InvalidRequest, error);
                self.record_setting_error(
                    error.with_detail("the user agent is not a valid header value"),
                );
            }
        }
        self
    }

    /// Adds a header to every request that has no header of that name. Default: none.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if the name or value is invalid, or if the name is
    /// `Authorization`, `Cookie` or `Proxy-Authorization`: credentials would be sent to every host
    /// of a batch. Set credentials with [`host`](Self::host).
    pub fn default_header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        let invalid = |reason| Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason);
        match credentials::parse_header_name_and_value(name, value) {
            Ok((name, _)) if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) => {
                let reason = format!(
                    "a default `{name}` would be sent to every host; set it with `host` instead"
                );
                self.record_setting_error(invalid(reason.into()));
            }
            Ok((name, value)) => {
                self.default_headers.insert(name, value);
            }
            Err(reason) => self.record_setting_error(invalid(reason)),
        }
        self
    }

    /// Sets whether cookies are stored and sent back. Default: `false`. Each Fetcher has its own
    /// cookie jar, which all its batches and single fetches share. The cookies are lost when the
    /// Fetcher is dropped.
    ///
    /// A cookie is sent where its domain, path and `Secure` attribute allow (RFC 6265), redirects
    /// included. It is never sent to a site other than the one that set it. Sites are determined by
    /// a built-in public-suffix list. `Secure` cookies are accepted from and sent to `https` URLs
    /// and loopback hosts, as in browsers.
    ///
    /// If the request or its [`host`](Self::host) sets a `Cookie` header, that header is sent in
    /// place of stored cookies.
    ///
    /// A cookie larger than 4 KiB is refused. The jar keeps 180 cookies per site and 32 MiB in
    /// total, and evicts the cookies and sites that have not been used for the longest time. If the
    /// cookies of a request exceed 8,000 bytes, the oldest ones are not sent.
    #[cfg(feature = "cookies")]
    pub fn cookies(mut self, enabled: bool) -> Self {
        self.cookie_jar = CookieJar::new(enabled);
        self
    }
}
