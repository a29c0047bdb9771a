//! Building a Fetcher.
//!
//! The setters are grouped by subject in the modules below. [`build`](FetcherBuilder::build) puts
//! the values together.

mod build;
mod hosts;
mod limits;
mod network;
mod requests;
mod sibling;

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};

use crate::engine::LimitByFn;
use crate::error::Error;
use crate::exchange::{CookieJar, TransportService};
use crate::limits::{Breaker, Host, HostFn, LimitSettings, Retry, RetryBudget, Timeouts};
use crate::proxy::Proxy;
use crate::request::Request;
use crate::wire;
use sibling::Parent;

const DEFAULT_MAX_BODY_SIZE: u64 = 32 << 20;
const DEFAULT_MAX_REDIRECTS: u32 = 10;
const DEFAULT_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("fanout/", env!("CARGO_PKG_VERSION")));

/// Configures a [`Fetcher`](crate::Fetcher); from [`Fetcher::builder`](crate::Fetcher::builder).
///
/// A limit set here applies to the whole Fetcher. All its batches and single fetches share it
/// fairly.
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
///     .host(
///         "https://api.example.com",
///         Host::new().bearer_auth("s3cr3t").rate(Rate::per_second(5)),
///     )
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
    /// `None` uses the proxies of the environment.
    proxies: Option<Vec<Proxy>>,
    user_agent: Option<HeaderValue>,
    default_headers: HeaderMap,
    /// Settings by the text of an origin, which `build` parses.
    hosts: Vec<(String, Host)>,
    cookie_jar: CookieJar,
    wire: wire::Config,
    transport: Option<TransportService>,
    /// The Fetcher of which this builds a sibling.
    parent: Option<Parent>,
    /// The first setting that siblings share and that was set here.
    shared_setting: Option<&'static str>,
    /// The first invalid value that was set.
    first_error: Option<Error>,
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
            max_body_size: DEFAULT_MAX_BODY_SIZE,
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
            first_error: None,
        }
    }
}

impl FetcherBuilder {
    /// Keeps the first error for [`build`](Self::build) to return.
    fn record_error(&mut self, error: Error) {
        self.first_error.get_or_insert(error);
    }
}

/// Shows no header value, and no user-info of an origin.
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
