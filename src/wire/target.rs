//! The destination of a request.

use std::borrow::Cow;

use url::Host;

use crate::proxy::ProxyServer;

/// The server of a request, and the proxy to reach it through.
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
    /// Whether the request is addressed to an HTTP proxy, which needs the absolute form of the
    /// request target (RFC 9112, 3.2.2).
    pub(crate) fn uses_forward_proxy(&self) -> bool {
        self.forward_proxy().is_some()
    }

    /// Returns the HTTP proxy that the request is addressed to, if any.
    pub(super) fn forward_proxy(&self) -> Option<&ProxyServer> {
        self.proxy
            .filter(|server| !self.is_https && server.is_http_proxy())
    }

    /// The key under which connections are pooled.
    ///
    /// Without a proxy, the key is the origin. With a forward proxy, which accepts requests for all
    /// origins on one connection, the key is the proxy. With a tunnel through a proxy, the key is
    /// made of the proxy and the origin.
    pub(super) fn pool_key(&self) -> Cow<'_, str> {
        match self.proxy {
            None => self.origin.into(),
            Some(server) if self.uses_forward_proxy() => (&*server.pool_key).into(),
            Some(server) => format!("{} {}", server.pool_key, self.origin).into(),
        }
    }
}
