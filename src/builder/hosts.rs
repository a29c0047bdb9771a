//! What is particular to hosts.

use super::FetcherBuilder;
use crate::limits::{Host, HostFn};
#[cfg(doc)]
use crate::{ErrorKind, Fetcher};

impl FetcherBuilder {
    /// Gives one origin (scheme, host and port) its own headers, credentials and limits.
    ///
    /// Its headers go to that origin alone; a request's own header of the same name wins. A limit it sets replaces the
    /// one per host; one that it leaves alone stays.
    ///
    /// In a [sibling](Fetcher::to_builder) it takes the place of what the origin had there, but for the limits.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if `origin` is not a URL with nothing after the port, if it was set before, or if a
    /// header is invalid.
    pub fn host(mut self, origin: impl Into<String>, host: Host) -> Self {
        self.hosts.push((origin.into(), host));
        self
    }

    /// Gives hosts their own headers, credentials and limits by a function of the origin (`https://example.com:8443`,
    /// without the port where it is the scheme's), for those that are known only when they are met. Default: none.
    ///
    /// It is asked when the first request to an origin is handed in or redirected there, and what it says holds for as
    /// long as the host is in use; it is asked again when the host comes back after 4,096 others, so it should say the
    /// same. An origin that was set with [`host`](Self::host) is not asked for. It may be called by several threads at
    /// once, and holds up the one that calls it. A [sibling](Fetcher::to_builder) has that of its parent.
    ///
    /// If it panics that is the request's [`ErrorKind::Panicked`]. A header that is invalid, and a
    /// [token source](Host::token_source), which can be given with [`host`](Self::host) only, is its
    /// [`ErrorKind::InvalidRequest`].
    ///
    /// ```
    /// use fanout::{Fetcher, Host};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let fetcher = Fetcher::builder()
    ///     .concurrency_per_host(8)
    ///     .host_fn(|origin| origin.ends_with(".small.example").then(|| Host::new().concurrency(1)))
    ///     .build()?;
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
