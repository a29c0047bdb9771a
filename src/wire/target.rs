//! The destination of a request.

use std::borrow::Cow;

use url::Host;

use crate::proxy::ProxyServer;

/// The server of a request, and the proxy through which the server is reached.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionTarget<'a> {
    /// The origin of the request as `scheme://host:port`.
    pub(crate) origin: &'a str,
    pub(crate) is_https: bool,
    pub(crate) host: Host<&'a str>,
    pub(crate) port: u16,
    pub(crate) proxy: Option<&'a ProxyServer>,
}

impl ConnectionTarget<'_> {
    /// Whether the request itself is sent to an HTTP proxy (a forward proxy, without a tunnel). The
    /// request target then needs the absolute form (RFC 9112 §3.2.2).
    pub(crate) fn uses_forward_proxy(&self) -> bool {
        self.forward_proxy().is_some()
    }

    /// Returns the HTTP proxy that receives the request itself, or `None` for a direct connection
    /// or a tunnel.
    pub(super) fn forward_proxy(&self) -> Option<&ProxyServer> {
        self.proxy
            .filter(|server| !self.is_https && server.is_http_proxy())
    }

    /// The key under which connections are pooled.
    ///
    /// Without a proxy, the key is the origin. A forward proxy accepts requests for all origins on
    /// one connection, so the key is the proxy. For a tunnel through a proxy, the key consists of
    /// the proxy and the origin.
    pub(super) fn pool_key(&self) -> Cow<'_, str> {
        match self.proxy {
            None => self.origin.into(),
            Some(server) if self.uses_forward_proxy() => (&*server.pool_key).into(),
            Some(server) => format!("{} {}", server.pool_key, self.origin).into(),
        }
    }
}
