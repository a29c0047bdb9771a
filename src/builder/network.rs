//! The setters for connections: proxies, DNS, HTTP versions, certificates, or a service in place of
//! the network.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use super::FetcherBuilder;
#[cfg(feature = "tls")]
use super::build::parse_origin;
use crate::body::Body;
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::TransportService;
use crate::proxy::{Proxies, Proxy};
use crate::resolve::Resolve;
use crate::wire::{self, HttpVersionPolicy};

impl FetcherBuilder {
    /// Sends requests to `service` instead of the network. Default: the network. `service` can be
    /// an axum `Router`, a tower service, or a `Mock` (feature `test-util`).
    ///
    /// Only connections are replaced: limits, retries, timeouts and scheduling work as usual. The
    /// service is cloned for each exchange (one request and its response). Until the clone is
    /// ready, the exchange counts as connecting.
    ///
    /// If the service returns an [`Error`], the attempt fails with that error, which simulates
    /// network faults. An error of a kind that occurs only before sending, such as
    /// [`ErrorKind::Connect`], means that the request was not sent. Any other error becomes
    /// [`ErrorKind::Transport`].
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
        self.record_change_of_shared_setting("transport");
        self.transport_service = Some(TransportService::new(service));
        self
    }

    /// Sets how long an idle connection stays open. Default: 15 s. If the server's `Keep-Alive`
    /// header announces a shorter time, the shorter time applies.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.record_change_of_shared_setting("idle_timeout");
        self.wire_config.idle_timeout = timeout;
        self
    }

    /// Sets whether connections are made only to addresses of the public internet, for URLs from
    /// untrusted sources. Default: `false`.
    ///
    /// Connections to these addresses are refused with [`ErrorKind::NotAllowed`], before any packet
    /// is sent: private, loopback, link-local, shared (CGNAT), multicast, broadcast, unspecified,
    /// reserved and documentation addresses; cloud metadata addresses; and IPv6 addresses that
    /// embed such an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP).
    ///
    /// The check applies to the address of each connection. Redirects, DNS names whose address
    /// changes, and unusual notations of an address do not bypass it. If a name has several
    /// addresses, only the public ones are tried.
    ///
    /// A proxy hides the address of the server. Combine this setting with
    /// [`no_proxy`](Self::no_proxy); a request with its own proxy is refused. NAT64 prefixes that a
    /// network defines itself are not recognized. The setting has no effect on a
    /// [`transport`](Self::transport).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// use fanout::{ErrorKind, Fetcher};
    ///
    /// let fetcher = Fetcher::builder()
    ///     .public_addresses_only(true)
    ///     .no_proxy()
    ///     .allowed_ports([80, 443])
    ///     .build()?;
    /// let refused = ["http://169.254.169.254/latest", "http://0x7f.1/", "http://[::1]/"];
    /// for url in refused.into_iter().chain(["http://a.example:22/"]) {
    ///     let error = fetcher.fetch(url).await.unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::NotAllowed);
    ///     assert!(!error.maybe_sent());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if a proxy is set, with [`proxy`](Self::proxy) or in
    /// an environment variable.
    pub fn public_addresses_only(mut self, enabled: bool) -> Self {
        self.record_change_of_shared_setting("public_addresses_only");
        self.wire_config.address_filter = enabled.then_some(wire::is_public as wire::AddressFilter);
        self
    }

    /// Replaces the function that decides whether an address is public. For tests.
    #[cfg(test)]
    pub(crate) fn address_filter(mut self, address_filter: wire::AddressFilter) -> Self {
        self.wire_config.address_filter = Some(address_filter);
        self
    }

    /// Adds a proxy. A request is sent through the first proxy that applies to its URL. Default:
    /// the proxies of the environment.
    ///
    /// The environment variables are `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`. Names
    /// in upper case are read too, except `HTTP_PROXY`: in a CGI program, the client sets that
    /// variable with a request header. The variables are read when the Fetcher is built, and
    /// ignored if this method is called. Proxies of the environment are not used for the local
    /// machine (`localhost` and names under it, 127.0.0.0/8, `::1`).
    ///
    /// A variable whose value is not a proxy URL does not make [`build`](Self::build) fail. A
    /// request that would use this variable fails with [`ErrorKind::ProxyRefused`].
    ///
    /// A connection is reused only for requests through the same proxy with the same proxy
    /// credentials.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.record_change_of_shared_setting("proxy");
        self.proxies.get_or_insert_default().push(proxy);
        self
    }

    /// Uses no proxy, and ignores the proxies of the environment. Default: the proxies of the
    /// environment.
    pub fn no_proxy(mut self) -> Self {
        self.record_change_of_shared_setting("no_proxy");
        self.proxies = Some(Vec::new());
        self
    }

    /// Resolves host names with `resolver`. Default: the system's resolver.
    ///
    /// Concurrent lookups of one name are merged, and addresses are [cached](Self::dns_cache_ttl),
    /// as with the system's resolver. At most 128 lookups run at once; lookups that take longer
    /// than half a second are not counted. While a request waits for its lookup to begin, the
    /// request holds no slot and no timeout runs.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.record_change_of_shared_setting("resolver");
        self.wire_config.dns_config.user_resolver = Some(Arc::new(resolver));
        self
    }

    /// Sets how long the addresses of a host name are cached. Default: 30 s. Zero disables the
    /// cache.
    ///
    /// The answer that a host does not exist is cached for at most 5 s. Failed lookups are not
    /// cached. If no connection to any address of a name succeeds, the name is removed from the
    /// cache. The cache holds at most 4,096 names.
    pub fn dns_cache_ttl(mut self, ttl: Duration) -> Self {
        self.record_change_of_shared_setting("dns_cache_ttl");
        self.wire_config.dns_config.cache_ttl = ttl;
        self
    }

    /// Uses HTTP/1.1 only. Default: HTTP/2 if the server selects it in the TLS handshake (ALPN),
    /// else HTTP/1.1.
    ///
    /// If both `http1_only` and `http2_prior_knowledge` are called, the last call applies.
    pub fn http1_only(mut self) -> Self {
        self.record_change_of_shared_setting("http1_only");
        self.wire_config.http_version_policy = HttpVersionPolicy::Http1Only;
        self
    }

    /// Uses HTTP/2 for all `http` URLs, without negotiation (RFC 9113, section 3.3). Default:
    /// HTTP/1.1 for `http` URLs.
    ///
    /// `https` servers still select the version in the TLS handshake. A request that an HTTP proxy
    /// forwards is sent with HTTP/1.1.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// let fetcher = fanout::Fetcher::builder().http2_prior_knowledge().build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "http2")]
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.record_change_of_shared_setting("http2_prior_knowledge");
        self.wire_config.http_version_policy = HttpVersionPolicy::PriorKnowledge;
        self
    }

    /// Trusts `certificates` as root certificates, in addition to the system's. `certificates` is
    /// one or more certificates in PEM, or one certificate in DER. Default: only the system's
    /// certificates.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `certificates` contains no certificate, or a
    /// malformed certificate.
    #[cfg(feature = "tls")]
    pub fn add_root_certificates(mut self, certificates: impl AsRef<[u8]>) -> Self {
        self.record_change_of_shared_setting("add_root_certificates");
        if let Err(error) = self.wire_config.tls_config.add_roots(certificates.as_ref()) {
            self.record_setting_error(error);
        }
        self
    }

    /// Sets the client certificate for one origin. It is sent if the server requests a client
    /// certificate. Default: none.
    ///
    /// `certificates` and `key` are PEM. The first certificate is the client's; each certificate is
    /// signed by the following one. The certificate is sent to the origin only, never to a proxy or
    /// to a redirect target with another origin.
    ///
    /// ```
    /// # fn example(chain: &str, key: &str) -> fanout::Result<()> {
    /// let fetcher = fanout::Fetcher::builder()
    ///     .client_certificate("https://bank.example", chain, key)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `origin` is not a URL that ends after the port,
    /// if the certificate or the key is missing or malformed, or if they do not match.
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        origin: impl AsRef<str>,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Self {
        self.record_change_of_shared_setting("client_certificate");
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let added = parse_origin(origin.as_ref()).and_then(|origin| {
            self.wire_config
                .tls_config
                .add_identity(origin, certificates, key)
        });
        if let Err(error) = added {
            self.record_setting_error(error);
        }
        self
    }

    /// Sets whether any server certificate is accepted, whatever its issuer, host name and expiry
    /// date. Default: `false`.
    ///
    /// # Danger
    ///
    /// If `true`, anyone on the network path can read and change all data, credentials included.
    /// For a test server, use [`add_root_certificates`](Self::add_root_certificates) instead. The
    /// certificate of a proxy is still verified.
    #[cfg(feature = "tls")]
    pub fn danger_accept_invalid_certificates(mut self, accept: bool) -> Self {
        self.record_change_of_shared_setting("danger_accept_invalid_certificates");
        self.wire_config.tls_config.accept_any_certificate = accept;
        self
    }

    /// Sets whether a server certificate for another host name is accepted. Default: `false`.
    ///
    /// # Danger
    ///
    /// If `true`, anyone on the network path with a valid certificate for any name can read and
    /// change all data, credentials included. The certificate of a proxy is still verified.
    #[cfg(feature = "tls")]
    pub fn danger_accept_invalid_host_names(mut self, accept: bool) -> Self {
        self.record_change_of_shared_setting("danger_accept_invalid_host_names");
        self.wire_config.tls_config.accept_any_host_name = accept;
        self
    }

    /// Passes the proxies that are set to the wire, or else the proxies of the environment.
    pub(super) fn apply_set_or_environment_proxies(&mut self) {
        self.wire_config.proxies = match self.proxies.take() {
            Some(list) => Proxies::from(list),
            // A transport service needs no proxy, and a sibling uses the proxies of its parent.
            None if self.transport_service.is_some() || self.parent_fetcher.is_some() => {
                Proxies::default()
            }
            None => Proxies::from_env(),
        };
    }

    pub(super) fn reject_proxies_with_address_filter(&self) -> Result<()> {
        if self.wire_config.address_filter.is_some() && !self.wire_config.proxies.is_empty() {
            let reason =
                "`public_addresses_only` cannot check addresses behind a proxy: set `no_proxy`";
            return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
        }
        Ok(())
    }
}
