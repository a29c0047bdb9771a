//! The setters for the settings of single hosts.

use super::FetcherBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
#[cfg(doc)]
use crate::fetcher::Fetcher;
use crate::limits::{Host, HostFn};

impl FetcherBuilder {
    /// Sets the headers, credentials and limits of one origin (scheme, host and port). Default:
    /// none.
    ///
    /// The headers are sent to this origin only. A header that a request sets itself takes
    /// precedence. A limit of `host` replaces the limit set for all hosts; for limits that `host`
    /// does not set, the limits for all hosts apply.
    ///
    /// In a [sibling](Fetcher::to_builder), the headers and credentials replace the headers and
    /// credentials that the parent has for this origin.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `origin` is not a URL that ends after the port,
    /// if the origin was already set, or if a header is invalid or is `Proxy-Authorization`.
    pub fn host(mut self, origin: impl Into<String>, host: Host) -> Self {
        self.host_settings_by_origin.push((origin.into(), host));
        self
    }

    /// Sets a function that returns the headers, credentials and limits of an origin, for hosts
    /// that are not known in advance. Default: none.
    ///
    /// `host` is called with an origin such as `https://example.com:8443`; the default port of the
    /// scheme is omitted. The function is called when the first request to the origin is queued, or
    /// redirected to the origin. The returned settings are cached while the host is in use. After
    /// settings of 4,096 other hosts were returned, the function may be called again for the same
    /// host, and should return the same settings. It may be called from several threads at once.
    /// Each call blocks its thread.
    ///
    /// The function is not called for an origin that was set with [`host`](Self::host). A
    /// [sibling](Fetcher::to_builder) uses the function of its parent.
    ///
    /// # Errors
    ///
    /// A request fails with [`ErrorKind::Panicked`] if the function panics. It fails with
    /// [`ErrorKind::InvalidRequest`] if the function returns an invalid header, or a [token
    /// source](Host::token_source), which only [`host`](Self::host) can set.
    ///
    /// # Examples
    ///
    /// ```
    /// use fanout::{Fetcher, Host};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let small_hosts = |origin: &str| {
    ///     let is_small = origin.ends_with(".small.example");
    ///     is_small.then(|| Host::new().concurrency(1))
    /// };
    /// let fetcher = Fetcher::builder().concurrency_per_host(8).host_fn(small_hosts).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn host_fn<F>(mut self, host: F) -> Self
    where
        F: Fn(&str) -> Option<Host> + Send + Sync + 'static,
    {
        self.record_change_of_shared_setting("host_fn");
        self.host_fn = Some(HostFn::new(host));
        self
    }
}
