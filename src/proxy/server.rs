//! The address and credentials of a proxy server.

use std::fmt;

use http::header::HeaderValue;
use url::{Host, Position, Url};

use crate::credentials::{self, InvalidReason};

/// The address and credentials of a proxy.
#[derive(Clone)]
pub(crate) struct ProxyServer {
    pub(crate) protocol: ProxyProtocol,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
    pub(crate) credentials: Option<ProxyCredentials>,
    /// Identifies the proxy and its credentials in the connection pool. The key holds secrets, so
    /// it is never displayed. The key differs from every origin of a URL.
    pub(crate) pool_key: Box<str>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ProxyProtocol {
    Http,
    Https,
    /// With `remote_dns`, the proxy resolves host names. Otherwise, this client resolves them.
    Socks5 {
        remote_dns: bool,
    },
}

#[derive(Clone)]
pub(crate) struct ProxyCredentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
    /// The value of `Proxy-Authorization`. The value is empty for a SOCKS5 proxy, which does not
    /// use it.
    pub(crate) basic_auth_header: HeaderValue,
}

/// Displays the proxy as a URL without userinfo.
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

impl ProxyServer {
    /// Parses the URL of a proxy. As in curl, `http` is the default scheme, and a path, query or
    /// fragment is ignored.
    pub(super) fn parse_proxy_url(text: &str) -> Result<Self, InvalidReason> {
        let text = text.trim();
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("the proxy URL contains a control character".into());
        }
        let url = if text.contains("://") {
            Url::parse(text)
        } else if text.contains(":/") {
            return Err("the proxy URL has one slash after its scheme instead of two".into());
        } else {
            Url::parse(&format!("http://{text}"))
        };
        let url = url.map_err(invalid_url_reason)?;
        let (protocol, default_port) = match url.scheme() {
            "http" => (ProxyProtocol::Http, 80),
            "https" => (ProxyProtocol::Https, 443),
            "socks5" => (ProxyProtocol::Socks5 { remote_dns: false }, 1080),
            "socks5h" => (ProxyProtocol::Socks5 { remote_dns: true }, 1080),
            scheme => return Err(format!("{scheme:?} is not a proxy scheme").into()),
        };
        // `http://user:12/34@proxy.example` has an unencoded slash in the password, so its parsed
        // host is `user` and its parsed port is 12.
        if url[Position::BeforePath..].contains('@') {
            return Err(
                "the proxy URL has an `@` after the host: if its password has one of the \
                 characters `/?#`, percent-encode the character"
                    .into(),
            );
        }
        // The `url` crate parses the host only in URLs with a special scheme, and `socks5` is not
        // special.
        let host = Host::parse(url.host_str().unwrap_or_default()).map_err(invalid_url_reason)?;
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err("the proxy port is 0".into());
        }
        let credentials = match credentials::decoded_user_info(&url) {
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

    pub(crate) fn basic_auth_header(&self) -> Option<&HeaderValue> {
        self.credentials
            .as_ref()
            .map(|credentials| &credentials.basic_auth_header)
    }
}

fn invalid_url_reason(error: url::ParseError) -> InvalidReason {
    format!("the proxy URL is invalid: {error}").into()
}

impl ProxyCredentials {
    fn new(
        protocol: ProxyProtocol,
        user: Vec<u8>,
        password: Vec<u8>,
    ) -> Result<Self, InvalidReason> {
        let basic_auth_header = if matches!(protocol, ProxyProtocol::Socks5 { .. }) {
            check_socks_credential_lengths(&user, &password)?;
            HeaderValue::from_static("")
        } else {
            credentials::basic_authorization(&user, &password)?
        };
        Ok(Self {
            user,
            password,
            basic_auth_header,
        })
    }
}

/// Checks that the user name and the password have lengths that RFC 1929, section 2 allows.
fn check_socks_credential_lengths(user: &[u8], password: &[u8]) -> Result<(), InvalidReason> {
    if user.is_empty() {
        return Err("the SOCKS user name is empty".into());
    }
    if user.len() > 255 || password.len() > 255 {
        return Err("the SOCKS user name or password is longer than 255 bytes".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (ProxyProtocol, String, u16) {
        let server = ProxyServer::parse_proxy_url(text).unwrap();
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
            ("proxy.example:3128/", plain, "proxy.example", 3128),
            ("http://proxy.example/path", plain, "proxy.example", 80),
            (
                "http://user:pass@proxy.example/a/b",
                plain,
                "proxy.example",
                80,
            ),
            (
                "http://user:pass@proxy.example?query",
                plain,
                "proxy.example",
                80,
            ),
            (
                "http://user:p%2F%40s@proxy.example/#x",
                plain,
                "proxy.example",
                80,
            ),
            ("socks5h://tor.example/", socks5h, "tor.example", 1080),
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
}
