//! Composes a Fetcher from values that each own their defaults.

mod hosts;
mod network;
mod sibling;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};
use url::Url;

use crate::body::Body;
use crate::engine::{Engine, EngineLimits, JobOptions, LimitByFn, RequestPolicy, TokenCells};
use crate::exchange::{CookieJar, DefaultHeaders, ExchangeContext, Transport, TransportService};
use crate::limits::{
    Breaker, Concurrency, Host, HostFn, LimitSettings, Rate, Retry, RetryBudget, Timeouts,
};
use crate::request::origin;
use crate::response_body::{BufferPool, accept_encoding};
use crate::schedule::LaneLimits;
use crate::wire::{self, Wire};
use crate::{Error, ErrorKind, Fetcher, Proxy, Request, Result};
use sibling::Parent;

/// What a batch may have on the wire if nobody says.
const DEFAULT_BATCH_CONCURRENCY: usize = 100;
/// The most bytes of a body.
const MAX_BODY_SIZE: u64 = 32 << 20;
const DEFAULT_MAX_REDIRECTS: u32 = 10;
const DEFAULT_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("fanout/", env!("CARGO_PKG_VERSION")));

/// Sets what a [`Fetcher`] may do and how it does it, from [`Fetcher::builder`].
///
/// A limit set here is a ceiling over everything the Fetcher does: all batches and single fetches share it, in turns.
///
/// ```
/// use std::time::Duration;
/// use fanout::{Fetcher, Host, Rate, Timeouts};
///
/// # fn main() -> fanout::Result<()> {
/// let fetcher = Fetcher::builder()
///     .user_agent("price-watch/1.0 (+https://shop.example/bot)")
///     .concurrency(200)
///     .concurrency_per_host(8)
///     .timeouts(Timeouts::default().response_head(Duration::from_secs(10)))
///     .host("https://api.example.com", Host::new().bearer_auth("s3cr3t").rate(Rate::per_second(5)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct FetcherBuilder {
    limits: LimitSettings,
    limit_by: Option<LimitByFn>,
    host_fn: Option<Arc<HostFn>>,
    breaker: Breaker,
    retry: Retry,
    retry_budget: RetryBudget,
    timeouts: Timeouts,
    max_body_size: u64,
    decode_content: bool,
    respect_rate_limit_headers: bool,
    max_redirects: u32,
    https_only: bool,
    allowed_ports: Option<Box<[u16]>>,
    /// None: those of the environment.
    proxies: Option<Vec<Proxy>>,
    user_agent: Option<HeaderValue>,
    default_headers: HeaderMap,
    hosts: Vec<(String, Host)>,
    cookie_jar: CookieJar,
    wire: wire::Config,
    transport: Option<TransportService>,
    /// The one it shares with, and the first setting of what is shared.
    parent: Option<Parent>,
    shared_setting: Option<&'static str>,
    error: Option<Error>,
}

impl Default for FetcherBuilder {
    fn default() -> Self {
        Self {
            limits: LimitSettings::default(),
            limit_by: None,
            host_fn: None,
            breaker: Breaker::default(),
            retry: Retry::default(),
            retry_budget: RetryBudget::default(),
            timeouts: Timeouts::default(),
            max_body_size: MAX_BODY_SIZE,
            decode_content: true,
            respect_rate_limit_headers: true,
            max_redirects: DEFAULT_MAX_REDIRECTS,
            https_only: false,
            allowed_ports: None,
            proxies: None,
            user_agent: Some(DEFAULT_USER_AGENT),
            default_headers: HeaderMap::new(),
            hosts: Vec::new(),
            cookie_jar: CookieJar::default(),
            wire: wire::Config::default(),
            transport: None,
            parent: None,
            shared_setting: None,
            error: None,
        }
    }
}

impl FetcherBuilder {
    /// At most so many requests are on the wire at once, over all batches and fetches. Default: no ceiling, and 100 for
    /// each batch.
    ///
    /// The number is fitted to the system's limit on open files, with a warning in the log when it must be lowered.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.mark_shared("concurrency");
        self.limits.set_concurrency(limit);
        self
    }

    /// At most so many requests start in a time, retries included, over all batches and fetches. Default: no limit.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.mark_shared("rate");
        self.limits.rate = Some(rate);
        self
    }

    /// At most so many requests are on the wire to one host at once: a number, or [`Concurrency::adaptive`]. Default: no
    /// limit.
    ///
    /// A host is an origin (scheme, host and port), or what [`limit_by`](Self::limit_by) says.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency_per_host(mut self, limit: impl Into<Concurrency>) -> Self {
        self.mark_shared("concurrency_per_host");
        self.limits.set_concurrency_per_host(limit.into());
        self
    }

    /// At most so many requests to one host start in a time, retries included. Default: no limit.
    pub fn rate_per_host(mut self, rate: Rate) -> Self {
        self.mark_shared("rate_per_host");
        self.limits.rate_per_host = Some(rate);
        self
    }

    /// Whether the limits that a server announces with its answers are heeded, so that its host is slowed before it says
    /// 429. Default: yes.
    ///
    /// They are read from `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), from
    /// `RateLimit-Remaining` and `-Reset` of its older drafts, and from the common `X-RateLimit-Remaining` and `-Reset`,
    /// with the reset in seconds or as an instant. What is malformed is passed over.
    ///
    /// As long as what waits for the host fits into what remains, nothing is slowed. What does not fit has to wait for the
    /// reset in any case: so what remains is spread over the time until then, and when nothing remains the host is paused.
    /// After the reset one request goes ahead, for at most 2 s, to be told what is allowed now. The host waits for no
    /// reset longer than 5 min; after that it is asked again. A server that says how much remains in whole seconds may so
    /// cost up to one second a window.
    ///
    /// What a server says holds for the whole host. If it has several limits for parts of it, tell them apart with
    /// [`limit_by`](Self::limit_by).
    pub fn respect_rate_limit_headers(mut self, respect: bool) -> Self {
        self.respect_rate_limit_headers = respect;
        self
    }

    /// What shares one host's limits and pauses: requests for which this gives the same key. Default: the origin, that
    /// is scheme, host and port.
    ///
    /// It is called once a request, when the request is handed in. A panic in it is that request's
    /// [`ErrorKind::Panicked`]. The limits of a [`host`](Self::host) hold for the key that is its origin.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// // All subdomains of a site together.
    /// let site = |request: &fanout::Request| {
    ///     let host = request.url().and_then(|url| url.domain()).unwrap_or_default();
    ///     host.rsplitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    /// };
    /// let fetcher = fanout::Fetcher::builder().concurrency_per_host(2).limit_by(site).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limit_by<F, K>(mut self, key: F) -> Self
    where
        F: Fn(&Request) -> K + Send + Sync + 'static,
        K: Into<String>,
    {
        self.mark_shared("limit_by");
        self.limit_by = Some(Arc::new(move |request| key(request).into()));
        self
    }

    /// When a host is taken to be down, and what then becomes of its requests. Default: [`Breaker::default`], after 5
    /// failures in a row; [`Breaker::off`] for never. A [`Host`] may have its own.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.mark_shared("breaker");
        self.breaker = breaker;
        self
    }

    /// What is tried again, and when. Default: [`Retry::default`], two retries; [`Retry::off`] for none.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// How many retries one host is sent, whatever each request is allowed. Default: [`RetryBudget::default`], a fifth of
    /// the fresh requests and 10 a second; [`RetryBudget::off`] for no bound.
    ///
    /// One budget a host is shared by all batches and fetches, also those with a [`retry`](crate::Batch::retry) of their
    /// own.
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.mark_shared("retry_budget");
        self.retry_budget = budget;
        self
    }

    /// How long each phase on the wire may take. Default: [`Timeouts::default`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The most bytes a body may have; one that has more is [`ErrorKind::BodyTooLarge`]. Default 32 MiB (33,554,432).
    ///
    /// Of a body with a `Content-Encoding` the decoded bytes count, and to decode it takes no more memory than the cap and
    /// 8 MiB. So one whose server compressed it with a window of several MiB may be refused for some MiB less.
    pub fn max_body_size(mut self, bytes: u64) -> Self {
        self.max_body_size = bytes;
        self
    }

    /// Whether bodies are decoded that a server sent with a `Content-Encoding`. Default: yes; with `false` they are handed
    /// over as they came.
    ///
    /// The codings are those built in by the features `gzip`, `deflate`, `brotli` (these by default) and `zstd`. Requests
    /// say so in `Accept-Encoding`, unless they or the default headers bring one of their own, or ask for a `Range`; what
    /// comes is decoded all the same. A decoded response has no `Content-Encoding` and no `Content-Length`, which would
    /// speak of the coded body. Data that are corrupt, end too early or go on after their end, and more than five codings
    /// one inside the other, are [`ErrorKind::ContentEncoding`].
    ///
    /// A body with a coding that is not built in, and a part of a body (status 206), are handed over as they came, with
    /// all headers.
    pub fn decode_content(mut self, decode_content: bool) -> Self {
        self.decode_content = decode_content;
        self
    }

    /// How many redirects of a request are followed; one more is [`ErrorKind::Redirect`]. Default 10; with 0 the first
    /// redirect is the result. A [request](crate::RequestBuilder::max_redirects) may say otherwise.
    ///
    /// A redirect is another hop of the same attempt. It goes through the schedule: a hop to another host takes that
    /// host's limits, and waits for them without holding a slot. On a change of scheme, host or port all credentials of
    /// the request are left behind and stay behind: `Authorization`, `Cookie`, headers marked sensitive, and those whose
    /// names say so, such as `X-Api-Key`.
    pub fn max_redirects(mut self, max_redirects: u32) -> Self {
        self.max_redirects = max_redirects;
        self
    }

    /// Whether `http` URLs are refused, at every hop, as [`ErrorKind::NotAllowed`]. Default: no.
    pub fn https_only(mut self, https_only: bool) -> Self {
        self.https_only = https_only;
        self
    }

    /// The `User-Agent` of requests that bring none. Default `fanout/` and the version; an empty one sends none.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if it is not a header value.
    pub fn user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(user_agent.as_ref()) {
            Ok(value) => self.user_agent = Some(value).filter(|value| !value.is_empty()),
            Err(error) => self.record_error(invalid_setting(
                "the user agent is not a header value",
                error,
            )),
        }
        self
    }

    /// A header for every request that brings none of that name. Default: none.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if the name or value is invalid; or if it is `Authorization`, `Cookie` or
    /// `Proxy-Authorization`, which would go to every host of a batch: give those to the [`host`](Self::host) they are
    /// for.
    pub fn default_header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match crate::credentials::parse_header(name, value) {
            Ok((name, _)) if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) => {
                let reason = format!(
                    "a default `{name}` would go to every host; set it with `host` for the one it is for"
                );
                self.record_error(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
            Ok((name, value)) => {
                self.default_headers.insert(name, value);
            }
            Err(reason) => {
                self.record_error(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
        }
        self
    }

    /// Whether cookies are kept and sent back. Default: no; each Fetcher has a cookie_jar of its own, which all its batches and
    /// fetches share, and which is gone with it.
    ///
    /// A cookie goes where its domain, path and `Secure` say (RFC 6265), on redirects too, and never to another site than
    /// the one that set it; a site is what is one below a public suffix, by the list built in. A request's own `Cookie`
    /// wins, and so does that of a [`host`](Self::host). Cookies are refused that are larger than 4 KiB, more than 180 of
    /// a site, or `Secure` without https.
    #[cfg(feature = "cookies")]
    pub fn cookies(mut self, enabled: bool) -> Self {
        self.cookie_jar = CookieJar::new(enabled);
        self
    }

    /// How long a connection may rest before it is closed. Default 15 s, or what the server's `Keep-Alive` says if that
    /// is less.
    pub fn idle_timeout(mut self, timeout: std::time::Duration) -> Self {
        self.mark_shared("idle_timeout");
        self.wire.idle_timeout = timeout;
        self
    }

    /// Answers with `service` instead of the network: an axum `Router`, a tower service, a `Mock` (feature
    /// `test-util`).
    ///
    /// It replaces the connections and nothing else: limits, retries, timeouts and the schedule stay as they are. The
    /// service is cloned for each exchange, and counts as connecting until it is ready. It may fail with an [`Error`] of
    /// its own making to stand for a fault of the network; if that is of a kind that comes before sending, such as
    /// [`ErrorKind::Connect`], the request was never sent. Any other error is [`ErrorKind::Transport`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// let app = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
    /// let fetcher = fanout::Fetcher::builder().transport(app).build()?;
    /// assert_eq!(fetcher.fetch("http://any.example/hello").await?.text(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn transport<S, B>(mut self, service: S) -> Self
    where
        S: tower_service::Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.mark_shared("transport");
        self.transport = Some(TransportService::new(service));
        self
    }

    /// Makes the Fetcher.
    ///
    /// # Errors
    ///
    /// The first mistake in what was set: a header, an origin, a certificate, a proxy of the environment; of a
    /// [sibling](Fetcher::to_builder), a setting of what is shared.
    pub fn build(mut self) -> Result<Fetcher> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.resolve_proxies();
        self.check_proxies()?;
        self.check_shared()?;
        let mut by_origin = HashMap::new();
        let (mut by_origin_headers, mut token_cells) = self.inherited_credentials();
        for (text, host) in std::mem::take(&mut self.hosts) {
            let key = parse_origin(&text)?;
            if let Some(reason) = &host.header_error {
                let reason = format!("for host {key}: {reason}");
                return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
            if host.headers.contains_key(PROXY_AUTHORIZATION) {
                let reason = format!(
                    "for host {key}: `proxy-authorization` is for a proxy; give it in the URL of the `Proxy`"
                );
                return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
            if by_origin.contains_key(&key) {
                let reason = format!("the host {key} was set twice");
                return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
            if self.parent.is_some() && host.has_limits() {
                return Err(sibling::shared_setting_error(&format!(
                    "the limits of the host {key} are"
                )));
            }
            if host.token_source.is_some() && host.headers.contains_key(AUTHORIZATION) {
                let reason = format!("the host {key} has a token source and an authorization");
                return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
            }
            by_origin.insert(key.clone(), self.lane_limits().with_host_settings(&host));
            token_cells.set(&key, host.token_source, self.timeouts.total);
            by_origin_headers.insert(key, host.headers);
        }
        Ok(self.assemble(by_origin, by_origin_headers, token_cells))
    }

    /// What cannot fail: there is nothing in it that anyone has set.
    pub(crate) fn build_default(mut self) -> Fetcher {
        self.resolve_proxies();
        self.assemble(HashMap::new(), HashMap::new(), TokenCells::default())
    }

    /// The limits of a host without settings of its own.
    fn lane_limits(&self) -> LaneLimits {
        LaneLimits {
            gate: self.limits.host_limits(),
            breaker: self.breaker.into(),
            retry_budget: self.retry_budget.into(),
        }
    }

    fn assemble(
        self,
        by_origin: HashMap<Box<str>, LaneLimits>,
        by_origin_headers: HashMap<Box<str>, HeaderMap>,
        token_cells: TokenCells,
    ) -> Fetcher {
        let per_lane = self.lane_limits();
        let default_headers = DefaultHeaders {
            user_agent: self.user_agent,
            accept_encoding: self.decode_content.then(accept_encoding).flatten(),
            for_all: self.default_headers,
            by_origin: by_origin_headers,
            host_fn: self.host_fn.clone(),
            cookie_jar: self.cookie_jar,
            ..DefaultHeaders::default()
        };
        let policy = RequestPolicy {
            exchange: ExchangeContext {
                default_headers,
                max_body_size: self.max_body_size,
                decode: self.decode_content,
                respect_rate_limit_headers: self.respect_rate_limit_headers,
                buffer_pool: BufferPool::default(),
            },
            token_cells,
            max_redirects: self.max_redirects,
            https_only: self.https_only,
            allowed_ports: self.allowed_ports,
        };
        let options = Arc::new(JobOptions {
            policy: Arc::new(policy),
            retry: self.retry,
            timeouts: self.timeouts,
            deadline: None,
            handler: None,
            body_budget: None,
        });
        if let Some(parent) = self.parent {
            return Fetcher::from_parts(parent.engine, options);
        }
        let descriptors = wire::default_socket_limit();
        let mut limits = EngineLimits {
            total: self.limits.total_limits(),
            per_lane,
            by_origin,
            host_fn: self.host_fn,
            limit_by: self.limit_by,
            default_batch_concurrency: self.limits.concurrency.unwrap_or(DEFAULT_BATCH_CONCURRENCY),
            max_sockets: descriptors,
        };
        let transport = match self.transport {
            Some(service) => {
                // It opens no sockets.
                limits.max_sockets = None;
                Transport::Service(service)
            }
            None => {
                limits.clamp_to_sockets();
                let config = wire::Config {
                    max_sockets: descriptors,
                    ..self.wire
                };
                Transport::Wire(Box::new(Wire::new(config)))
            }
        };
        Fetcher::from_parts(Arc::new(Engine::new(transport, limits)), options)
    }

    fn record_error(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

fn invalid_setting(
    reason: &'static str,
    source: impl Into<Box<dyn StdError + Send + Sync>>,
) -> Error {
    Error::new(ErrorKind::InvalidRequest, source).with_detail(reason)
}

/// Reads an origin: a URL with nothing after the port.
fn parse_origin(text: &str) -> Result<Box<str>> {
    let request = Request::get(text).build();
    let url: &Url = request.checked_url()?;
    let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    if has_more || !request.headers().is_empty() {
        let reason = format!(
            "a host is given by its origin, here {}, with nothing before or after it",
            origin(url)
        );
        return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
    }
    Ok(origin(url).into())
}

/// Shows no header's value, and no user-info in what should be an origin.
impl fmt::Debug for FetcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redacted = |text| Request::get(text).build().url_str().to_owned();
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .map(|(text, host)| (redacted(text), host))
            .collect();
        f.debug_struct("FetcherBuilder")
            .field("concurrency", &self.limits.concurrency)
            .field("rate", &self.limits.rate)
            .field("concurrency_per_host", &self.limits.concurrency_per_host)
            .field("rate_per_host", &self.limits.rate_per_host)
            .field("breaker", &self.breaker)
            .field("retry", &self.retry)
            .field("retry_budget", &self.retry_budget)
            .field("timeouts", &self.timeouts)
            .field("max_body_size", &self.max_body_size)
            .field("decode_content", &self.decode_content)
            .field("hosts", &hosts)
            .finish_non_exhaustive()
    }
}
