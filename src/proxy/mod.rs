//! HTTP and SOCKS5 proxies.

mod environment;
mod no_proxy;
mod selection;
mod server;

use std::fmt;
use std::sync::Arc;

use url::Url;

use self::no_proxy::NoProxy;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use self::selection::{Proxies, ProxyChoice};
pub(crate) use self::server::{ProxyCredentials, ProxyProtocol, ProxyServer};

/// A proxy and the URLs it applies to.
///
/// The URL of a proxy has one of these forms:
///
/// | scheme | proxy | default port |
/// |---|---|---|
/// | `http://`, or none | HTTP proxy | 80 |
/// | `https://` | HTTP proxy over TLS | 443 |
/// | `socks5://` | SOCKS5; the Fetcher resolves host names | 1080 |
/// | `socks5h://` | SOCKS5; the proxy resolves host names | 1080 |
///
/// Userinfo in the URL is sent to this proxy only. An HTTP proxy gets it as `Proxy-Authorization:
/// Basic` (RFC 7617), a SOCKS5 proxy as user name and password (RFC 1929). The characters `/`, `?`,
/// `#` and `@` in a password must be percent-encoded. A path, query or fragment is ignored.
///
/// An `https` request goes through a tunnel. An HTTP proxy opens the tunnel with `CONNECT` and sees
/// only the host and port. If the tunnel cannot be opened, the request ends with
/// [`ErrorKind::Proxy`] or [`ErrorKind::ProxyRefused`]. An `http` request is sent to an HTTP proxy
/// in absolute form (RFC 9112, section 3.2.2). If the proxy itself responds to such a request, for
/// example with a 407, its response is the result.
///
/// Set proxies with [`FetcherBuilder::proxy`](crate::FetcherBuilder::proxy) or, for one request,
/// [`RequestBuilder::proxy`](crate::RequestBuilder::proxy). A clone is cheap. `Debug` and `Display`
/// omit userinfo.
///
/// # Examples
///
/// ```
/// use fanout::{Fetcher, Proxy};
///
/// # fn main() -> fanout::Result<()> {
/// let corporate = Proxy::https("http://user:s3cr3t@proxy.example:3128")?;
/// let fetcher = Fetcher::builder()
///     .proxy(corporate.no_proxy("intranet.example, 10.0.0.0/8"))
///     .proxy(Proxy::http("socks5h://127.0.0.1:9050")?)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Proxy(Arc<ProxySettings>);

#[derive(Clone)]
struct ProxySettings {
    proxied_urls: ProxiedUrls,
    server: ProxyServer,
}

/// The URLs that a proxy applies to.
#[derive(Clone, Debug)]
struct ProxiedUrls {
    schemes: ProxiedSchemes,
    no_proxy: NoProxy,
}

impl ProxiedUrls {
    fn contains_url(&self, url: &Url) -> bool {
        let has_proxied_scheme = match self.schemes {
            ProxiedSchemes::HttpAndHttps => true,
            ProxiedSchemes::OnlyHttp => url.scheme() == "http",
            ProxiedSchemes::OnlyHttps => url.scheme() == "https",
        };
        has_proxied_scheme && !self.no_proxy.matches_url(url)
    }
}

/// The URL schemes that a proxy applies to.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ProxiedSchemes {
    HttpAndHttps,
    OnlyHttp,
    OnlyHttps,
}

impl Proxy {
    /// Creates a proxy for all URLs.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if `url` is invalid, has a scheme that is not listed
    /// at [`Proxy`], has an `@` after the host, or has userinfo that the proxy protocol cannot
    /// transmit.
    pub fn all(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxiedSchemes::HttpAndHttps, url.as_ref())
    }

    /// Creates a proxy for `http` URLs.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if `url` is invalid, has a scheme that is not listed
    /// at [`Proxy`], has an `@` after the host, or has userinfo that the proxy protocol cannot
    /// transmit.
    pub fn http(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxiedSchemes::OnlyHttp, url.as_ref())
    }

    /// Creates a proxy for `https` URLs.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if `url` is invalid, has a scheme that is not listed
    /// at [`Proxy`], has an `@` after the host, or has userinfo that the proxy protocol cannot
    /// transmit.
    pub fn https(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxiedSchemes::OnlyHttps, url.as_ref())
    }

    fn new(schemes: ProxiedSchemes, url: &str) -> Result<Self> {
        let server = ProxyServer::parse_proxy_url(url)
            .map_err(|reason| Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason))?;
        let no_proxy = NoProxy::default();
        Ok(Self::from_server(ProxiedUrls { schemes, no_proxy }, server))
    }

    fn from_server(proxied_urls: ProxiedUrls, server: ProxyServer) -> Self {
        Self(Arc::new(ProxySettings {
            proxied_urls,
            server,
        }))
    }

    /// Sets the hosts that are reached directly, without the proxy. Default: none.
    ///
    /// The list has the syntax of `NO_PROXY`: entries separated by commas or white space. An entry
    /// is `*` for all hosts, a domain, an IP address or a network (`10.0.0.0/8`). A domain may
    /// begin with a dot and includes its subdomains. Every entry except `*` may have a port
    /// (`example.com:8080`). An IPv6 address with a port needs brackets. Invalid entries are
    /// ignored. A second call replaces the list.
    #[must_use]
    pub fn no_proxy(mut self, hosts: impl AsRef<str>) -> Self {
        Arc::make_mut(&mut self.0).proxied_urls.no_proxy = NoProxy::parse_list(hosts.as_ref());
        self
    }

    pub(crate) fn server(&self) -> &ProxyServer {
        &self.0.server
    }

    /// Whether the proxy applies to `url`.
    fn applies_to_url(&self, url: &Url) -> bool {
        self.0.proxied_urls.contains_url(url)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.server.fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("scope", &self.0.proxied_urls.schemes)
            .field("url", &format_args!("{self}"))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials;

    #[test]
    fn invalid_proxy_urls_are_rejected_without_showing_the_password() {
        for text in [
            "",
            "http://",
            "ftp://user:s3cr3t@proxy.example",
            "socks4://proxy.example",
            "http://user:s3cr3t/3@proxy.example/path",
            "http://user:12/s3cr3t@proxy.example",
            "http://user:12?s3cr3t@proxy.example",
            "http://user:12#s3cr3t@proxy.example",
            "http://user:12\\s3cr3t@proxy.example",
            "socks5://user:12/s3cr3t@proxy.example",
            "user:12/s3cr3t@proxy.example",
            "http:/proxy.example",
            "http://user:s3cr3t@proxy.example:0",
            "http://user:s3cr3t@proxy.example:99999",
            "http://user:s3cr3t@proxy\r\n.example",
            "http://us%3Aer:s3cr3t@proxy.example",
            "socks5://:s3cr3t@proxy.example",
            "socks5://user:s3cr3t@",
        ] {
            let error = Proxy::all(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
        }
        let long = format!("socks5://user:{}@proxy.example", "x".repeat(256));
        assert!(Proxy::all(long).is_err());
    }

    #[test]
    fn display_and_debug_omit_credentials_and_pool_keys_include_them() {
        let proxy = Proxy::all("http://us%20er:s3cr3t@proxy.example:3128").unwrap();
        let other = Proxy::all("http://us%20er:other@proxy.example:3128").unwrap();
        assert_eq!(proxy.to_string(), "http://proxy.example:3128");
        assert!(
            !format!("{proxy:?} {:?}", ProxyChoice::RequestProxy(proxy.clone())).contains("s3cr3t")
        );
        assert_ne!(proxy.0.server.pool_key, other.0.server.pool_key);
        let basic_auth = proxy.0.server.basic_auth_header().unwrap();
        assert_eq!(
            *basic_auth,
            credentials::basic_authorization(b"us er", b"s3cr3t").unwrap()
        );
        assert!(basic_auth.is_sensitive());
    }
}
