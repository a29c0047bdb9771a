//! Settings of single hosts.

use super::FetcherBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
#[cfg(doc)]
use crate::fetcher::Fetcher;
use crate::limits::{Host, HostFn};

impl FetcherBuilder {
    /// Sets the headers, credentials and limits of one origin (scheme, host and port).
    ///
    /// The headers are sent to this origin only, unless a request sets the same header itself. A
    /// limit replaces the one set for all hosts; a limit that `host` does not set stays as it is.
    ///
    /// In a [sibling](Fetcher::to_builder), the headers and credentials replace those the parent
    /// has for this origin.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if `origin` is not a URL that ends after the port, if the
    /// origin was already set, or if a header is invalid.
    pub fn host(mut self, origin: impl Into<String>, host: Host) -> Self {
        self.hosts.push((origin.into(), host));
        self
    }

    /// Sets the headers, credentials and limits of hosts that are not known in advance, by a
    /// function of the origin. Default: none.
    ///
    /// `host` is called with an origin such as `https://example.com:8443`; the default port of the
    /// scheme is omitted. It is called when the first request to the origin is queued or redirected
    /// there. The return value is cached while the host is in use: the function may be called again
    /// for a host after 4,096 others, and should then return the same. It may be called from
    /// several threads at once, and blocks the caller.
    ///
    /// It is not called for an origin that was set with [`host`](Self::host). A
    /// [sibling](Fetcher::to_builder) uses the function of its parent.
    ///
    /// # Errors
    ///
    /// A panic in the function is the request's [`ErrorKind::Panicked`]. An invalid header is its
    /// [`ErrorKind::InvalidRequest`], and so is a [token source](Host::token_source), which only
    /// [`host`](Self::host) can set.
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
        self.mark_shared("host_fn");
        self.host_fn = Some(HostFn::new(host));
        self
    }
}
