//! The way to the servers: what may be connected to, through what, and who is trusted there.

use std::sync::Arc;
use std::time::Duration;

use super::FetcherBuilder;
#[cfg(feature = "tls")]
use super::parse_origin;
use crate::proxy::Proxies;
use crate::wire::HttpVersionPolicy;
use crate::{Error, ErrorKind, Proxy, Resolve, Result, wire};

impl FetcherBuilder {
    /// Whether only hosts of the public internet are connected to: for URLs that somebody else chose. Default: no.
    ///
    /// Refused, as [`ErrorKind::NotAllowed`] and without a packet sent, are private, loopback, link-local, shared
    /// (CGNAT), multicast, broadcast, unspecified, reserved and documentation addresses, those where clouds keep their
    /// metadata, and the IPv6 forms in which such an IPv4 address can hide (mapped, NAT64, 6to4, Teredo, ISATAP).
    ///
    /// The address is checked where it is connected to, at every hop and attempt, so neither a redirect nor a name that
    /// changes its address gets past, nor an address in an unusual notation. Of a name with several addresses only those
    /// that may be are tried.
    ///
    /// Behind a proxy addresses cannot be seen, so this goes with [`no_proxy`](Self::no_proxy), and a request with a proxy
    /// of its own is refused.
    ///
    /// Not known to it are NAT64 prefixes of a network's own, and what a [`transport`](Self::transport) does.
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
    /// for url in ["http://169.254.169.254/latest", "http://0x7f.1/", "http://[::1]/", "http://a.example:22/"] {
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
    /// [`build`](Self::build) fails if there is a proxy, from the environment too.
    pub fn public_addresses_only(mut self, enabled: bool) -> Self {
        self.mark_shared("public_addresses_only");
        self.wire.address_filter = enabled.then_some(wire::is_public as wire::AddressFilter);
        self
    }

    /// Another meaning of "public", so that tests have addresses that are and that are not.
    #[cfg(test)]
    pub(crate) fn address_filter(mut self, address_filter: wire::AddressFilter) -> Self {
        self.wire.address_filter = Some(address_filter);
        self
    }

    /// The only ports that are asked, at every hop; a URL with another is [`ErrorKind::NotAllowed`]. Default: all.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[track_caller]
    pub fn allowed_ports(mut self, allowed_ports: impl IntoIterator<Item = u16>) -> Self {
        let allowed_ports: Box<[u16]> = allowed_ports.into_iter().collect();
        assert!(
            !allowed_ports.is_empty(),
            "a Fetcher that is allowed no port could never ask anything"
        );
        self.allowed_ports = Some(allowed_ports);
        self
    }

    /// Sends requests through a proxy; of several the first that covers a URL is taken. Default: those of the environment.
    ///
    /// The environment's proxies are `http_proxy`, `https_proxy` and `all_proxy`, less `no_proxy`; the names may be in
    /// upper case. They are read when the Fetcher is made, and are not used once this is called. Nor are they for this
    /// machine itself (`localhost`, 127.0.0.0/8, `::1`).
    ///
    /// Connections through one proxy, or with one user and password, serve no other.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.mark_shared("proxy");
        self.proxies.get_or_insert_default().push(proxy);
        self
    }

    /// Uses no proxy, nor the environment's. Default: the environment's.
    pub fn no_proxy(mut self) -> Self {
        self.mark_shared("no_proxy");
        self.proxies = Some(Vec::new());
        self
    }

    /// Looks host names up with `resolver` instead of the system's. Default: the system's.
    ///
    /// Before it stands what stands before the system's too: a name is asked for by one at a time, at most 128 names are
    /// asked for at once, and answers are [kept](Self::dns_cache_ttl).
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.mark_shared("resolver");
        self.wire.dns.resolver = Some(Arc::new(resolver));
        self
    }

    /// How long the addresses of a name are kept before it is looked up again. Default 30 s; zero keeps none.
    ///
    /// That there is no such host is kept 5 s at most. A failed lookup is not kept, nor are addresses none of which
    /// would connect. At most 4,096 names are kept.
    pub fn dns_cache_ttl(mut self, ttl: Duration) -> Self {
        self.mark_shared("dns_cache_ttl");
        self.wire.dns.cache_ttl = ttl;
        self
    }

    /// Speaks HTTP/1.1 and nothing else. Default: HTTP/2 with servers that choose it in the TLS handshake.
    ///
    /// Of this and `http2_prior_knowledge` the last one called holds.
    pub fn http1_only(mut self) -> Self {
        self.mark_shared("http1_only");
        self.wire.http_versions = HttpVersionPolicy::Http1;
        self
    }

    /// Speaks HTTP/2 with every `http` server, which must know of it: nothing is negotiated. Default: HTTP/1.1.
    ///
    /// An `https` server is still asked in the TLS handshake, and what an HTTP proxy forwards goes to it in HTTP/1.1.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// let fetcher = fanout::Fetcher::builder().http2_prior_knowledge().build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "http2")]
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.mark_shared("http2_prior_knowledge");
        self.wire.http_versions = HttpVersionPolicy::PriorKnowledge;
        self
    }

    /// Trusts the certificates in this PEM text, or the one in DER, as well as the system's. Default: the system's alone.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails if there is no certificate in it, or a malformed one.
    #[cfg(feature = "tls")]
    pub fn add_root_certificates(mut self, certificates: impl AsRef<[u8]>) -> Self {
        self.mark_shared("add_root_certificates");
        if let Err(error) = self.wire.tls.add_roots(certificates.as_ref()) {
            self.record_error(error);
        }
        self
    }

    /// Shows this certificate to the server of one origin, if it asks who we are. Default: none.
    ///
    /// `certificates` and `key` are PEM; of several certificates each is signed by the next. Other servers are not shown
    /// it, nor is a proxy, nor a host that the origin redirects to.
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
    /// [`build`](Self::build) fails if `origin` is not a URL with nothing after the port, if the certificate or the key is
    /// missing or malformed, or if they do not belong together.
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        origin: impl AsRef<str>,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Self {
        self.mark_shared("client_certificate");
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let added = parse_origin(origin.as_ref())
            .and_then(|origin| self.wire.tls.add_identity(origin, certificates, key));
        if let Err(error) = added {
            self.record_error(error);
        }
        self
    }

    /// Whether any certificate will do, whoever signed it, whatever its name and however old. Default: no.
    ///
    /// Then anybody on the way can read and change everything, credentials too. A test's own authority is better
    /// [added](Self::add_root_certificates). The certificate of a proxy is checked all the same.
    #[cfg(feature = "tls")]
    pub fn danger_accept_invalid_certificates(mut self, accept: bool) -> Self {
        self.mark_shared("danger_accept_invalid_certificates");
        self.wire.tls.accept_any_certificate = accept;
        self
    }

    /// Whether a certificate will do that is for another name. Default: no.
    ///
    /// Then whoever has a certificate for any name can read and change everything, credentials too. The certificate of a
    /// proxy is checked all the same.
    #[cfg(feature = "tls")]
    pub fn danger_accept_invalid_host_names(mut self, accept: bool) -> Self {
        self.mark_shared("danger_accept_invalid_host_names");
        self.wire.tls.accept_any_host_name = accept;
        self
    }

    /// Takes the environment's, if no others were named.
    pub(super) fn resolve_proxies(&mut self) {
        self.wire.proxies = match self.proxies.take() {
            Some(list) => Proxies::from(list),
            // A service in place of the network is asked directly.
            // A sibling's are those it shares.
            None if self.transport.is_some() || self.parent.is_some() => Proxies::default(),
            None => Proxies::from_env(),
        };
    }

    pub(super) fn check_proxies(&self) -> Result<()> {
        self.wire.proxies.check_environment()?;
        if self.wire.address_filter.is_some() && !self.wire.proxies.is_empty() {
            let reason = "behind a proxy no address can be seen to be public: set `no_proxy`";
            return Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason));
        }
        Ok(())
    }
}
