//! The settings of the network transport.

use std::time::Duration;

use super::connect::{AddressFilter, DnsConfig, TlsConfig};
use crate::proxy::Proxies;

/// A connection that was idle for at least this long is checked before it is reused. The peer may
/// have closed it without the reactor having reported the close yet.
pub(super) const VALIDATE_AFTER_IDLE: Duration = Duration::from_millis(100);

/// How the HTTP version of a connection is chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HttpVersionPolicy {
    /// Connections with TLS negotiate the version (ALPN). Connections without TLS use HTTP/1.1.
    #[default]
    Negotiate,
    /// All connections use HTTP/1.1.
    Http1Only,
    /// Connections with TLS negotiate the version (ALPN). Connections without TLS use HTTP/2
    /// without negotiation.
    #[cfg(feature = "http2")]
    PriorKnowledge,
}

#[derive(Clone, Debug)]
pub(crate) struct WireConfig {
    /// How long a connection may stay idle before it is closed.
    pub(crate) idle_timeout: Duration,
    /// The soft limit on open sockets. A socket that is opened above the limit closes the longest
    /// idle connection. Above the limit, a used connection is closed after its use.
    pub(crate) max_sockets: Option<usize>,
    /// Whether to disable Nagle's algorithm.
    pub(crate) tcp_nodelay: bool,
    pub(crate) dns_config: DnsConfig,
    /// Decides which addresses sockets may connect to. `None` allows all addresses.
    pub(crate) address_filter: Option<AddressFilter>,
    pub(crate) proxies: Proxies,
    pub(crate) http_version_policy: HttpVersionPolicy,
    /// If an HTTP/2 connection with open streams receives nothing for this long, a ping is sent. If
    /// nothing is received for this long after the ping, the connection is closed.
    pub(crate) http2_silence_limit: Duration,
    pub(crate) tls_config: TlsConfig,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(15),
            max_sockets: None,
            tcp_nodelay: true,
            dns_config: DnsConfig::default(),
            address_filter: None,
            proxies: Proxies::default(),
            http_version_policy: HttpVersionPolicy::default(),
            http2_silence_limit: Duration::from_secs(10),
            tls_config: TlsConfig::default(),
        }
    }
}
