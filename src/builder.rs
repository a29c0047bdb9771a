//! The builder of a Fetcher.
//!
//! The setters are grouped by subject in submodules. [`build`](FetcherBuilder::build) makes a
//! Fetcher from the values.

mod build;
mod host_tables;
mod hosts;
mod limits;
mod network;
mod parent_fetcher;
mod requests;
mod sibling;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};

use crate::engine::LimitByFn;
use crate::error::Error;
use crate::exchange::{CookieJar, TransportService};
use crate::limits::{
    Breaker, Budget, Host, HostFn, KeyLimits, LimitSettings, Retry, RetryBudget, Timeouts,
};
use crate::proxy::Proxy;
use crate::redacted_url::RedactedUrl;
use crate::redirect_policy::RedirectPolicy;
use crate::request::Request;
use crate::wire;
use parent_fetcher::ParentFetcher;

const DEFAULT_MAX_BODY_BYTES: u64 = 32 << 20;
const DEFAULT_MAX_REDIRECTS: u32 = 10;
const DEFAULT_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("fanout/", env!("CARGO_PKG_VERSION")));

/// Configures a [`Fetcher`](crate::Fetcher). [`Fetcher::builder`](crate::Fetcher::builder) returns
/// a builder.
///
/// A limit set on the builder applies to the whole Fetcher. All batches and single fetches of the
/// Fetcher share the limit fairly.
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
    limit_settings: LimitSettings,
    limit_by_fn: Option<LimitByFn>,
    limits_by_key: Vec<(String, KeyLimits)>,
    host_fn: Option<Arc<HostFn>>,
    breaker: Breaker,
    /// The budgets of all requests of the Fetcher together.
    budgets: Vec<Budget>,
    retry: Retry,
    retry_budget: RetryBudget,
    timeouts: Timeouts,
    default_attempt_timeout: Option<Duration>,
    max_body_bytes: u64,
    decode_content: bool,
    respect_rate_limit_headers: bool,
    max_redirects: u32,
    redirect_policy: RedirectPolicy,
    https_only: bool,
    allowed_ports: Option<Box<[u16]>>,
    /// The proxies set by the user. `None`: the proxies of the environment variables are used.
    proxies: Option<Vec<Proxy>>,
    user_agent: Option<HeaderValue>,
    default_headers: HeaderMap,
    /// The settings of single hosts, by origin as passed to `host`. `build` parses the origins.
    host_settings_by_origin: Vec<(String, Host)>,
    cookie_jar: CookieJar,
    wire_config: wire::WireConfig,
    transport_service: Option<TransportService>,
    /// The Fetcher with which the new Fetcher shares connections and limits. `None` unless the new
    /// Fetcher is a sibling.
    parent_fetcher: Option<ParentFetcher>,
    /// The name of the first called setter of a setting that siblings share.
    first_changed_shared_setting: Option<&'static str>,
    /// The error of the first invalid setting. `build` returns this error.
    first_setting_error: Option<Error>,
}

impl Default for FetcherBuilder {
    fn default() -> Self {
        Self {
            limit_settings: LimitSettings::default(),
            limit_by_fn: None,
            limits_by_key: Vec::new(),
            host_fn: None,
            breaker: Breaker::default(),
            budgets: Vec::new(),
            retry: Retry::default(),
            retry_budget: RetryBudget::default(),
            timeouts: Timeouts::default(),
            default_attempt_timeout: None,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            decode_content: true,
            respect_rate_limit_headers: true,
            max_redirects: DEFAULT_MAX_REDIRECTS,
            redirect_policy: RedirectPolicy::default(),
            https_only: false,
            allowed_ports: None,
            proxies: None,
            user_agent: Some(DEFAULT_USER_AGENT),
            default_headers: HeaderMap::new(),
            host_settings_by_origin: Vec::new(),
            cookie_jar: CookieJar::default(),
            wire_config: wire::WireConfig::default(),
            transport_service: None,
            parent_fetcher: None,
            first_changed_shared_setting: None,
            first_setting_error: None,
        }
    }
}

impl FetcherBuilder {
    /// Stores an error for [`build`](Self::build) to return. Keeps only the first error.
    fn record_setting_error(&mut self, error: Error) {
        self.first_setting_error.get_or_insert(error);
    }
}

/// The `Debug` output hides header values, userinfo in origins, and the values of URL queries.
impl fmt::Debug for FetcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redacted = |text| RedactedUrl(Request::get(text).build().url_str()).to_string();
        let hosts: Vec<_> = self
            .host_settings_by_origin
            .iter()
            .map(|(text, host)| (redacted(text), host))
            .collect();
        f.debug_struct("FetcherBuilder")
            .field("concurrency", &self.limit_settings.concurrency)
            .field("rate", &self.limit_settings.rate)
            .field(
                "concurrency_per_host",
                &self.limit_settings.concurrency_per_host,
            )
            .field("rate_per_host", &self.limit_settings.rate_per_host)
            .field("breaker", &self.breaker)
            .field("budgets", &self.budgets)
            .field("retry", &self.retry)
            .field("retry_budget", &self.retry_budget)
            .field("timeouts", &self.timeouts)
            .field("request_timeout", &self.default_attempt_timeout)
            .field("max_body_size", &self.max_body_bytes)
            .field("decode_content", &self.decode_content)
            .field("hosts", &hosts)
            .finish_non_exhaustive()
    }
}
