//! Opens a byte stream to a target: DNS, TCP, a proxy's handshake and TLS.

mod dns;
mod socks;
mod stream;
mod tcp;
#[cfg_attr(not(feature = "tls"), path = "tls/disabled.rs")]
pub(super) mod tls;
mod tunnel;

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

use super::sockets::SocketCountGuard;
use super::target::ConnectionTarget;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::proxy::{ProxyProtocol, ProxyServer};

pub(super) use self::dns::Resolver;
pub(crate) use self::dns::{DnsConfig, PendingLookup};
pub(super) use self::stream::MaybeTlsStream;
pub(super) use self::tcp::TcpConnector;
pub(crate) use self::tcp::{AddressFilter, is_descriptor_exhaustion};
pub(crate) use self::tls::TlsConfig;

/// Opens byte streams, directly or through a proxy.
pub(super) struct Connector {
    pub(super) tcp_connector: TcpConnector,
    pub(super) tls_connectors: tls::TlsConnectors,
}

impl Connector {
    /// Opens a byte stream to `target`. With `offer_http2`, the TLS handshake offers HTTP/2 (ALPN).
    pub(super) async fn connect(
        &self,
        target: &ConnectionTarget<'_>,
        offer_http2: bool,
        clock: &HopClock,
    ) -> Result<(MaybeTlsStream, SocketCountGuard), Error> {
        // The TLS connector is created first, so that an invalid TLS configuration fails before a
        // connection is opened.
        let tls = if target.is_https {
            Some(
                self.tls_connectors
                    .connector_for_origin(target.origin, offer_http2)
                    .await?,
            )
        } else {
            None
        };
        if let Some(server) = target.proxy {
            // Boxed to keep the future of a direct connection small.
            return Box::pin(self.connect_through_proxy(server, target, tls, clock)).await;
        }
        let (tcp, socket_count_guard) = self
            .tcp_connector
            .connect(&target.host, target.port, clock)
            .await?;
        Ok((
            wrap_in_tls_if_https(tls, &target.host, tcp).await?,
            socket_count_guard,
        ))
    }

    async fn connect_through_proxy(
        &self,
        server: &ProxyServer,
        target: &ConnectionTarget<'_>,
        tls: Option<tls::AlpnConnector>,
        clock: &HopClock,
    ) -> Result<(MaybeTlsStream, SocketCountGuard), Error> {
        let remote_dns = match server.protocol {
            ProxyProtocol::Http => {
                let (mut tcp, socket_count_guard) =
                    self.connect_tcp_to_proxy(server, clock).await?;
                if target.is_https {
                    open_tunnel(&mut tcp, server, target).await?;
                }
                return Ok((
                    wrap_in_tls_if_https(tls, &target.host, tcp).await?,
                    socket_count_guard,
                ));
            }
            ProxyProtocol::Https => {
                let proxy_tls = self.tls_connectors.connector_for_proxies().await?;
                let (tcp, socket_count_guard) = self.connect_tcp_to_proxy(server, clock).await?;
                let outer = tls::handshake(&proxy_tls, &server.host(), tcp).await;
                let mut outer = outer.map_err(to_proxy_connect_error)?;
                let Some(tls) = tls else {
                    return Ok((MaybeTlsStream::Tls(Box::new(outer)), socket_count_guard));
                };
                open_tunnel(&mut outer, server, target).await?;
                let inner = tls::handshake(&tls, &target.host, outer).await?;
                return Ok((
                    MaybeTlsStream::TlsInTls(Box::new(inner)),
                    socket_count_guard,
                ));
            }
            ProxyProtocol::Socks5 { remote_dns } => remote_dns,
        };
        let (tcp, socket_count_guard) = match &target.host {
            Host::Domain(_) if !remote_dns => {
                self.resolve_and_socks_connect(server, target, clock)
                    .await?
            }
            host => self.socks_connect(server, host, target.port, clock).await?,
        };
        Ok((
            wrap_in_tls_if_https(tls, &target.host, tcp).await?,
            socket_count_guard,
        ))
    }

    /// Resolves the target's host locally. The proxy then connects to the addresses one after
    /// another, until one accepts.
    async fn resolve_and_socks_connect(
        &self,
        server: &ProxyServer,
        target: &ConnectionTarget<'_>,
        clock: &HopClock,
    ) -> Result<(TcpStream, SocketCountGuard), Error> {
        let addresses = self
            .tcp_connector
            .resolve_and_filter(&target.host, target.port, clock)
            .await?;
        let mut last_error = Error::from_kind(ErrorKind::Proxy);
        for address in addresses {
            let host = match address.ip() {
                IpAddr::V4(ip) => Host::Ipv4(ip),
                IpAddr::V6(ip) => Host::Ipv6(ip),
            };
            let (mut tcp, socket_count_guard) = self.connect_tcp_to_proxy(server, clock).await?;
            let credentials = server.credentials.as_ref();
            match socks::handshake(&mut tcp, &host, target.port, credentials).await {
                Ok(()) => return Ok((tcp, socket_count_guard)),
                // The proxy refused the kind of request, so it would refuse the other addresses
                // too.
                Err(error) if error.kind() == ErrorKind::ProxyRefused => return Err(error),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    async fn socks_connect(
        &self,
        server: &ProxyServer,
        host: &Host<&str>,
        port: u16,
        clock: &HopClock,
    ) -> Result<(TcpStream, SocketCountGuard), Error> {
        let (mut tcp, socket_count_guard) = self.connect_tcp_to_proxy(server, clock).await?;
        socks::handshake(&mut tcp, host, port, server.credentials.as_ref()).await?;
        Ok((tcp, socket_count_guard))
    }

    async fn connect_tcp_to_proxy(
        &self,
        server: &ProxyServer,
        clock: &HopClock,
    ) -> Result<(TcpStream, SocketCountGuard), Error> {
        let connected = self
            .tcp_connector
            .connect(&server.host(), server.port, clock)
            .await;
        connected.map_err(to_proxy_connect_error)
    }
}

async fn wrap_in_tls_if_https(
    tls: Option<tls::AlpnConnector>,
    host: &Host<&str>,
    tcp: TcpStream,
) -> Result<MaybeTlsStream, Error> {
    Ok(match tls {
        Some(tls) => MaybeTlsStream::Tls(Box::new(tls::handshake(&tls, host, tcp).await?)),
        None => MaybeTlsStream::Plain(tcp),
    })
}

async fn open_tunnel<S>(
    stream: &mut S,
    server: &ProxyServer,
    target: &ConnectionTarget<'_>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tunnel::establish_tunnel(
        stream,
        &target.host,
        target.port,
        server.basic_auth_header(),
    )
    .await
}

/// Converts an error of connecting to a proxy into a `Proxy` error. A TLS error stays a `Tls`
/// error.
fn to_proxy_connect_error(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Tls => Error::new(ErrorKind::Tls, error).with_detail("with the proxy"),
        _ => Error::new(ErrorKind::Proxy, error).with_detail("it cannot be reached"),
    }
}
