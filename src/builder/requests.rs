//! Settings of how each request is made.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};

use super::FetcherBuilder;
use crate::credentials;
use crate::error::{Error, ErrorKind};
#[cfg(feature = "cookies")]
use crate::exchange::CookieJar;
use crate::limits::{Retry, Timeouts};

impl FetcherBuilder {
    /// Sets which failures are retried, how often and when. Default: [`Retry::default`], two
    /// retries. [`Retry::off`] disables retries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the timeouts of each request. Default: [`Timeouts::default`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Limits the size of a response body kept in memory, in bytes. A larger body is
    /// [`ErrorKind::BodyTooLarge`]. Default: 32 MiB (33,554,432).
    ///
    /// For a body with a `Content-Encoding`, the decoded size counts. Decoding uses no more memory
    /// than this limit plus 8 MiB. A body compressed with a window of several MiB may therefore be
    /// refused when it is that much smaller than the limit.
    pub fn max_body_size(mut self, bytes: u64) -> Self {
        self.max_body_size = bytes;
        self
    }

    /// Whether to decode bodies that have a `Content-Encoding`. Default: `true`. With `false`,
    /// bodies are returned as received.
    ///
    /// The codings are those of the features `gzip`, `deflate` and `brotli`, which are enabled by
    /// default, and `zstd`. Requests list them in `Accept-Encoding`, except a request with a
    /// `Range`. An `Accept-Encoding` that is set on the request or as a default header is sent
    /// instead, and the response is decoded all the same.
    ///
    /// A decoded response has no `Content-Encoding` and no `Content-Length`, since both describe
    /// the encoded body. Encoded data that is corrupt, truncated or followed by more data is
    /// [`ErrorKind::ContentEncoding`], and so are more than five nested codings.
    ///
    /// A body with an unknown coding and a partial body (status 206) are returned as received, with
    /// all headers.
    pub fn decode_content(mut self, enabled: bool) -> Self {
        self.decode_content = enabled;
        self
    }

    /// Limits how many redirects of a request are followed. One more is [`ErrorKind::Redirect`].
    /// Default: 10. With 0, the first redirect is the result. A request can have
    /// [its own limit](crate::RequestBuilder::max_redirects).
    ///
    /// A redirect is another hop of the same attempt. It is queued again: a hop to another host is
    /// subject to that host's limits, and holds no slot while it waits.
    ///
    /// When the origin changes, credentials are removed from the request for this and all later
    /// hops: `Authorization`, `Cookie`, headers marked sensitive, and headers with names such as
    /// `X-Api-Key`.
    pub fn max_redirects(mut self, redirects: u32) -> Self {
        self.max_redirects = redirects;
        self
    }

    /// Whether to refuse `http` URLs with [`ErrorKind::NotAllowed`], in requests and redirects.
    /// Default: `false`.
    pub fn https_only(mut self, enabled: bool) -> Self {
        self.https_only = enabled;
        self
    }

    /// Allows only these ports, in requests and redirects. A URL with another port is
    /// [`ErrorKind::NotAllowed`]. Default: all ports.
    ///
    /// # Panics
    ///
    /// If `ports` is empty.
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

    /// Sets the `User-Agent` of requests that have none. Default: `fanout/` and the version. An
    /// empty string sends none.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if it is not a valid header value.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(user_agent.as_ref()) {
            Ok(value) => self.user_agent = Some(value).filter(|value| !value.is_empty()),
            Err(error) => {
                let error = Error::new(ErrorKind::InvalidRequest, error);
                self.record_error(error.with_detail("the user agent is not a valid header value"));
            }
        }
        self
    }

    /// Adds a header to every request that has none of that name. Default: none.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if the name or value is invalid. It also fails for
    /// `Authorization`, `Cookie` and `Proxy-Authorization`, which would be sent to every host of a
    /// batch. Set these with [`host`](Self::host).
    pub fn default_header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        let invalid = |reason| Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason);
        match credentials::parse_header(name, value) {
            Ok((name, _)) if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) => {
                let reason = format!(
                    "a default `{name}` would be sent to every host; set it with `host` instead"
                );
                self.record_error(invalid(reason.into()));
            }
            Ok((name, value)) => {
                self.default_headers.insert(name, value);
            }
            Err(reason) => self.record_error(invalid(reason)),
        }
        self
    }

    /// Whether to store cookies and send them back. Default: `false`. Each Fetcher has its own
    /// cookie jar, which all its batches and single fetches share. It is lost when the Fetcher is
    /// dropped.
    ///
    /// A cookie is sent where its domain, path and `Secure` attribute allow (RFC 6265), redirects
    /// included. It is never sent to a site other than the one that set it. Sites are determined by
    /// a built-in public-suffix list.
    ///
    /// A `Cookie` header that is set on the request or a [`host`](Self::host) is sent instead.
    /// Cookies larger than 4 KiB, more than 180 of one site, and `Secure` cookies without https are
    /// refused.
    #[cfg(feature = "cookies")]
    pub fn cookies(mut self, enabled: bool) -> Self {
        self.cookie_jar = CookieJar::new(enabled);
        self
    }
}
