//! HTTP and SOCKS5 proxies.

mod environment;
mod no_proxy;

use std::fmt;
use std::sync::Arc;

use http::header::HeaderValue;
use url::{Host, Url};

use self::no_proxy::NoProxy;
use crate::credentials::{self, InvalidReason};
use crate::error::{Error, ErrorKind, Result};

/// A proxy and the URLs it applies to.
///
/// A proxy is given as a URL:
///
/// | scheme | proxy | default port |
/// |---|---|---|
/// | `http://`, or none | HTTP proxy | 80 |
/// | `https://` | HTTP proxy over TLS | 443 |
/// | `socks5://` | SOCKS5; the Fetcher resolves host names | 1080 |
/// | `socks5h://` | SOCKS5; the proxy resolves host names | 1080 |
///
/// User info in the URL is sent to this proxy only: as `Proxy-Authorization: Basic` (RFC 7617) to
/// an HTTP proxy, as user name and password (RFC 1929) to a SOCKS5 proxy.
///
/// An `https` request goes through a tunnel. An HTTP proxy opens it with `CONNECT` and sees only
/// the host and port. A failure to open a tunnel is [`ErrorKind::Proxy`] or
/// [`ErrorKind::ProxyRefused`]. An `http` request is sent to an HTTP proxy in absolute form (RFC
/// 9112, section 3.2.2). The response of the proxy itself, such as a 407, is then the result.
///
/// Set proxies with [`FetcherBuilder::proxy`](crate::FetcherBuilder::proxy) or, for one request,
/// [`RequestBuilder::proxy`](crate::RequestBuilder::proxy). A clone is cheap. `Debug` and `Display`
/// omit user info.
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
pub struct Proxy(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    scope: ProxyScope,
    no_proxy: NoProxy,
    server: ProxyServer,
}

/// The URL schemes that a proxy applies to.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ProxyScope {
    All,
    Http,
    Https,
}

/// The address and credentials of a proxy.
#[derive(Clone)]
pub(crate) struct ProxyServer {
    pub(crate) protocol: ProxyProtocol,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
    pub(crate) credentials: Option<ProxyCredentials>,
    /// Identifies the proxy and its credentials in the connection pool. It holds secrets, so it is
    /// never displayed. It differs from the origin of every URL.
    pub(crate) pool_key: Box<str>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProxyProtocol {
    Http,
    Https,
    /// With `remote_dns` the proxy resolves host names.
    Socks5 {
        remote_dns: bool,
    },
}

#[derive(Clone)]
pub(crate) struct ProxyCredentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
    /// The value of `Proxy-Authorization`; empty for a SOCKS5 proxy.
    pub(crate) basic_auth: HeaderValue,
}

impl Proxy {
    /// A proxy for all URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is invalid, has another scheme than those above, has
    /// a path, query or fragment, or has user info that the protocol cannot carry.
    pub fn all(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxyScope::All, url.as_ref())
    }

    /// A proxy for `http` URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is invalid, has another scheme than those above, has
    /// a path, query or fragment, or has user info that the protocol cannot carry.
    pub fn http(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxyScope::Http, url.as_ref())
    }

    /// A proxy for `https` URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is invalid, has another scheme than those above, has
    /// a path, query or fragment, or has user info that the protocol cannot carry.
    pub fn https(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxyScope::Https, url.as_ref())
    }

    fn new(scope: ProxyScope, url: &str) -> Result<Self> {
        let server = ProxyServer::parse(url)
            .map_err(|reason| Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason))?;
        Ok(Self(Arc::new(Inner {
            scope,
            no_proxy: NoProxy::default(),
            server,
        })))
    }

    /// Excludes these hosts from the proxy. Default: none.
    ///
    /// The list has the syntax of `NO_PROXY`: entries separated by commas or blanks. An entry is a
    /// domain, which includes its subdomains, an IP address, a network (`10.0.0.0/8`), one of these
    /// with a port (`example.com:8080`), or `*` for all hosts. Invalid entries are ignored. A
    /// second call replaces the list.
    #[must_use]
    pub fn no_proxy(mut self, hosts: impl AsRef<str>) -> Self {
        Arc::make_mut(&mut self.0).no_proxy = NoProxy::parse(hosts.as_ref());
        self
    }

    /// The server, if the proxy applies to `url`.
    pub(crate) fn server_for(&self, url: &Url) -> Option<&ProxyServer> {
        let in_scope = match self.0.scope {
            ProxyScope::All => true,
            ProxyScope::Http => url.scheme() == "http",
            ProxyScope::Https => url.scheme() == "https",
        };
        (in_scope && !self.0.no_proxy.matches(url)).then_some(&self.0.server)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.server.fmt(f)
    }
}

/// Omits user info.
impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 { remote_dns: false } => "socks5",
            ProxyProtocol::Socks5 { remote_dns: true } => "socks5h",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyServer({self})")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("scope", &self.0.scope)
            .field("url", &format_args!("{self}"))
            .finish_non_exhaustive()
    }
}

impl ProxyServer {
    fn parse(text: &str) -> Result<Self, InvalidReason> {
        let text = text.trim();
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("the proxy URL contains a control character".into());
        }
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("http://{text}"))
        };
        let url = url.map_err(invalid_url)?;
        let (protocol, default_port) = match url.scheme() {
            "http" => (ProxyProtocol::Http, 80),
            "https" => (ProxyProtocol::Https, 443),
            "socks5" => (ProxyProtocol::Socks5 { remote_dns: false }, 1080),
            "socks5h" => (ProxyProtocol::Socks5 { remote_dns: true }, 1080),
            scheme => return Err(format!("{scheme:?} is not a proxy scheme").into()),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("the proxy URL has a path, a query or a fragment".into());
        }
        // The `url` crate does not parse the host of a scheme it does not know.
        let host = Host::parse(url.host_str().unwrap_or_default()).map_err(invalid_url)?;
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err("the proxy port is 0".into());
        }
        let credentials = match credentials::user_info(&url) {
            Some((user, password)) => Some(ProxyCredentials::new(protocol, user, password)?),
            None => None,
        };
        let pool_key = format!(
            "proxy {}://{}:{}@{host}:{port}",
            url.scheme(),
            url.username(),
            url.password().unwrap_or_default()
        );
        Ok(Self {
            protocol,
            host,
            port,
            credentials,
            pool_key: pool_key.into(),
        })
    }

    pub(crate) fn host(&self) -> Host<&str> {
        match &self.host {
            Host::Domain(name) => Host::Domain(name),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        }
    }

    /// Whether the proxy accepts `CONNECT` and requests in absolute form.
    pub(crate) fn is_http_proxy(&self) -> bool {
        matches!(self.protocol, ProxyProtocol::Http | ProxyProtocol::Https)
    }

    pub(crate) fn basic_auth(&self) -> Option<&HeaderValue> {
        self.credentials
            .as_ref()
            .map(|credentials| &credentials.basic_auth)
    }
}

fn invalid_url(error: url::ParseError) -> InvalidReason {
    format!("the proxy URL is invalid: {error}").into()
}

impl ProxyCredentials {
    fn new(
        protocol: ProxyProtocol,
        user: Vec<u8>,
        password: Vec<u8>,
    ) -> Result<Self, InvalidReason> {
        let basic_auth = if matches!(protocol, ProxyProtocol::Socks5 { .. }) {
            check_socks_credentials(&user, &password)?;
            HeaderValue::from_static("")
        } else {
            credentials::basic_authorization(&user, &password)?
        };
        Ok(Self {
            user,
            password,
            basic_auth,
        })
    }
}

/// Checks the lengths that RFC 1929, section 2 allows.
fn check_socks_credentials(user: &[u8], password: &[u8]) -> Result<(), InvalidReason> {
    if user.is_empty() {
        return Err("the SOCKS user name is empty".into());
    }
    if user.len() > 255 || password.len() > 255 {
        return Err("the SOCKS user name or password is longer than 255 bytes".into());
    }
    Ok(())
}

/// The proxy setting of one request.
#[derive(Clone, Debug, Default)]
pub(crate) enum ProxyChoice {
    /// Uses the proxies of the Fetcher.
    #[default]
    Default,
    /// Uses no proxy.
    Direct,
    /// Uses this proxy, or those of the Fetcher if it does not apply to the URL.
    Proxy(Proxy),
}

/// The proxies of a Fetcher. The first one that applies to a URL is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    list: Vec<Proxy>,
    /// The reason why a proxy variable of the environment is invalid. Requests then fail, because
    /// connecting directly could expose them.
    environment_error: Option<InvalidReason>,
}

impl Proxies {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.environment_error.is_none()
    }

    pub(crate) fn check_environment(&self) -> Result<()> {
        match &self.environment_error {
            Some(reason) => {
                Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason.clone()))
            }
            None => Ok(()),
        }
    }

    /// The proxy to use for a request to `url`, or `None` to connect directly.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ProxyRefused`] if a proxy variable of the environment is invalid.
    pub(crate) fn server_for<'a>(
        &'a self,
        url: &Url,
        choice: &'a ProxyChoice,
    ) -> Result<Option<&'a ProxyServer>, Error> {
        match choice {
            ProxyChoice::Direct => return Ok(None),
            ProxyChoice::Proxy(proxy) => {
                if let Some(server) = proxy.server_for(url) {
                    return Ok(Some(server));
                }
            }
            ProxyChoice::Default => {}
        }
        if let Some(reason) = &self.environment_error
            && !no_proxy::is_localhost(url)
        {
            return Err(Error::from_kind(ErrorKind::ProxyRefused).with_detail(reason.clone()));
        }
        Ok(self.list.iter().find_map(|proxy| proxy.server_for(url)))
    }
}

impl From<Vec<Proxy>> for Proxies {
    fn from(list: Vec<Proxy>) -> Self {
        Self {
            list,
            environment_error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (ProxyProtocol, String, u16) {
        let server = ProxyServer::parse(text).unwrap();
        (server.protocol, server.host.to_string(), server.port)
    }

    #[test]
    fn proxy_urls_are_parsed_with_default_schemes_and_ports() {
        let (plain, tls) = (ProxyProtocol::Http, ProxyProtocol::Https);
        let (socks5, socks5h) = (
            ProxyProtocol::Socks5 { remote_dns: false },
            ProxyProtocol::Socks5 { remote_dns: true },
        );
        for (text, protocol, host, port) in [
            ("http://proxy.example", plain, "proxy.example", 80),
            ("http://proxy.example:3128/", plain, "proxy.example", 3128),
            ("proxy.example:3128", plain, "proxy.example", 3128),
            (" 10.0.0.1:80 ", plain, "10.0.0.1", 80),
            ("user:pass@proxy.example", plain, "proxy.example", 80),
            ("HTTPS://Proxy.Example", tls, "proxy.example", 443),
            ("https://[::1]:8443", tls, "[::1]", 8443),
            ("socks5://127.0.0.1", socks5, "127.0.0.1", 1080),
            ("socks5://127.0.0.1:80", socks5, "127.0.0.1", 80),
            ("socks5h://Tor.Example:9050", socks5h, "tor.example", 9050),
        ] {
            assert_eq!(parsed(text), (protocol, host.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn invalid_proxy_urls_are_rejected_without_showing_the_password() {
        for text in [
            "",
            "http://",
            "ftp://user:s3cr3t@proxy.example",
            "socks4://proxy.example",
            "http://user:s3cr3t@proxy.example/path",
            "http://user:s3cr3t@proxy.example?query",
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
        assert!(!format!("{proxy:?} {:?}", ProxyChoice::Proxy(proxy.clone())).contains("s3cr3t"));
        assert_ne!(proxy.0.server.pool_key, other.0.server.pool_key);
        let basic_auth = proxy.0.server.basic_auth().unwrap();
        assert_eq!(
            *basic_auth,
            credentials::basic_authorization(b"us er", b"s3cr3t").unwrap()
        );
        assert!(basic_auth.is_sensitive());
    }

    #[test]
    fn the_requests_proxy_then_the_first_matching_proxy_is_used() {
        let proxies = Proxies::from(vec![
            Proxy::https("http://a.example").unwrap(),
            Proxy::all("http://b.example")
                .unwrap()
                .no_proxy("c.example, 10.0.0.0/8"),
        ]);
        let own = ProxyChoice::Proxy(Proxy::http("http://own.example").unwrap());
        for (url, choice, host) in [
            (
                "https://x.example/",
                &ProxyChoice::Default,
                Some("a.example"),
            ),
            (
                "http://x.example/",
                &ProxyChoice::Default,
                Some("b.example"),
            ),
            (
                "https://c.example/",
                &ProxyChoice::Default,
                Some("a.example"),
            ),
            ("http://sub.c.example/", &ProxyChoice::Default, None),
            ("http://10.1.2.3/", &ProxyChoice::Default, None),
            ("http://x.example/", &ProxyChoice::Direct, None),
            ("http://x.example/", &own, Some("own.example")),
            ("https://x.example/", &own, Some("a.example")),
        ] {
            let url = Url::parse(url).unwrap();
            let server = proxies.server_for(&url, choice).unwrap();
            let found = server.map(|server| server.host.to_string());
            assert_eq!(found.as_deref(), host, "{url}");
        }
    }
}
