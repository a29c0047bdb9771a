//! The proxies that requests go through.

mod environment;
mod no_proxy;

use std::fmt;
use std::sync::Arc;

use http::header::HeaderValue;
use url::{Host, Url};

use self::no_proxy::NoProxy;
use crate::credentials::{self, InvalidReason};
use crate::{Error, ErrorKind, Result};

/// A proxy, and the URLs that are fetched through it.
///
/// It is written as a URL: `http://` or `https://` for an HTTP proxy reached in plain or over TLS, `socks5h://` for a
/// SOCKS5 proxy that is given host names, `socks5://` for one that is given the addresses we look up. Without a scheme it
/// is `http://`. Ports default to 80, 443 and 1080. User-info in it is shown to that proxy alone.
///
/// `https` URLs go through a tunnel (`CONNECT`), so that the proxy sees no more of them than host and port; `http` URLs
/// are asked of an HTTP proxy itself, in the absolute form. The headers of its own answer to these, a 407 too, are then
/// a response as any other; what goes wrong in making a tunnel is [`ErrorKind::Proxy`] or [`ErrorKind::ProxyRefused`].
///
/// A clone is cheap. Neither `Debug` nor `Display` shows user-info.
///
/// ```
/// use fanout::{Fetcher, Proxy};
///
/// # fn main() -> fanout::Result<()> {
/// let fetcher = Fetcher::builder()
///     .proxy(Proxy::https("http://user:s3cr3t@proxy.example:3128")?.no_proxy("intranet.example, 10.0.0.0/8"))
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

/// Which schemes go through a proxy.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ProxyScope {
    All,
    Http,
    Https,
}

/// Where a proxy is, and what it is to be told.
#[derive(Clone)]
pub(crate) struct ProxyServer {
    pub(crate) protocol: ProxyProtocol,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
    pub(crate) credentials: Option<ProxyCredentials>,
    /// All of it as text, credentials too, by which its connections are found again. It is never shown, and is the
    /// origin of no URL.
    pub(crate) pool_key: Box<str>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProxyProtocol {
    Http,
    Https,
    /// With addresses, or with names.
    Socks5 {
        remote_dns: bool,
    },
}

#[derive(Clone)]
pub(crate) struct ProxyCredentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
    /// As an HTTP proxy wants them.
    pub(crate) basic_auth: HeaderValue,
}

impl Proxy {
    /// A proxy for all URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is not that of a proxy.
    pub fn all(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxyScope::All, url.as_ref())
    }

    /// A proxy for `http` URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is not that of a proxy.
    pub fn http(url: impl AsRef<str>) -> Result<Self> {
        Self::new(ProxyScope::Http, url.as_ref())
    }

    /// A proxy for `https` URLs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if `url` is not that of a proxy.
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

    /// Leaves out these hosts, which are written as in `NO_PROXY`: with commas between them, each a domain (which stands
    /// for its subdomains too), an address, a network (`10.0.0.0/8`), any of these with a port, or `*`. Default: none.
    ///
    /// What is none of these is passed over.
    #[must_use]
    pub fn no_proxy(mut self, hosts: impl AsRef<str>) -> Self {
        Arc::make_mut(&mut self.0).no_proxy = NoProxy::parse(hosts.as_ref());
        self
    }

    /// The server, if the URL is to be fetched through it.
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

/// Without user-info.
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
            return Err("the URL of a proxy holds a control character".into());
        }
        let url = match text.contains("://") {
            true => Url::parse(text),
            false => Url::parse(&format!("http://{text}")),
        };
        let url = url.map_err(|error| format!("the URL of a proxy is not valid: {error}"))?;
        let (protocol, default_port) = match url.scheme() {
            "http" => (ProxyProtocol::Http, 80),
            "https" => (ProxyProtocol::Https, 443),
            "socks5" => (ProxyProtocol::Socks5 { remote_dns: false }, 1080),
            "socks5h" => (ProxyProtocol::Socks5 { remote_dns: true }, 1080),
            scheme => return Err(format!("{scheme:?} is not the scheme of a proxy").into()),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("the URL of a proxy has something after the port".into());
        }
        // Of a scheme it does not know the URL standard leaves the host as it was written.
        let host = Host::parse(url.host_str().unwrap_or_default())
            .map_err(|error| format!("the URL of a proxy is not valid: {error}"))?;
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err("the port of a proxy is 0".into());
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

    /// Whether it takes requests for other servers.
    pub(crate) fn is_http_proxy(&self) -> bool {
        matches!(self.protocol, ProxyProtocol::Http | ProxyProtocol::Https)
    }

    pub(crate) fn basic_auth(&self) -> Option<&HeaderValue> {
        self.credentials
            .as_ref()
            .map(|credentials| &credentials.basic_auth)
    }
}

impl ProxyCredentials {
    fn new(
        protocol: ProxyProtocol,
        user: Vec<u8>,
        password: Vec<u8>,
    ) -> Result<Self, InvalidReason> {
        let is_socks = matches!(protocol, ProxyProtocol::Socks5 { .. });
        // RFC 1929, 2.
        let fits = |text: &[u8]| text.len() <= 255;
        if is_socks && (user.is_empty() || !fits(&user) || !fits(&password)) {
            return Err("the user or password of a SOCKS proxy is empty or longer than 255".into());
        }
        let basic_auth = match is_socks {
            true => HeaderValue::from_static(""),
            false => credentials::basic_authorization(&user, &password)?,
        };
        Ok(Self {
            user,
            password,
            basic_auth,
        })
    }
}

/// The way a request goes: what it says itself.
#[derive(Clone, Debug, Default)]
pub(crate) enum ProxyChoice {
    #[default]
    Default,
    Direct,
    Proxy(Proxy),
}

/// The proxies of a Fetcher. The first that covers a URL is its proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    list: Vec<Proxy>,
    /// Why the environment's cannot be used: then to send a request past them would be wrong.
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

    /// The proxy that a request goes through, if any.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ProxyRefused`] if the environment names a proxy that is none.
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
    fn a_proxy_is_read_from_a_url_with_its_defaults() {
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
    fn what_is_no_proxy_is_refused_and_no_reason_tells_a_secret() {
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
    fn neither_display_nor_debug_shows_credentials_and_the_key_tells_them_apart() {
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
    fn the_first_proxy_that_covers_a_url_is_taken_and_a_requests_own_before() {
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
