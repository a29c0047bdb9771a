//! A new connection to a target: directly, or through its proxy.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use url::Host;

use super::connection::{Connection, PoolHandle};
use super::http2::{self, DialTicket, Negotiated};
use super::pool::SocketPermit;
use super::stream::MaybeTlsStream;
use super::{Target, Wire, socks, tls, tunnel};
use crate::error::{Error, ErrorKind};
use crate::proxy::{ProxyProtocol, ProxyServer};

/// A new connection; of HTTP/2, a first stream of it.
pub(super) enum DialedConnection {
    Http1(Box<Connection>),
    Http2(http2::StreamLease),
}

impl Wire {
    pub(super) async fn dial(
        &self,
        target: &Target<'_>,
        dial: DialTicket,
    ) -> Result<DialedConnection, Error> {
        if self.pool.is_full() {
            self.http2.evict_oldest_idle();
        }
        let (stream, permit) = match self.connect_stream(target, dial.offers_http2()).await {
            Ok(connected) => connected,
            Err(error) => {
                dial.notify_failure();
                return Err(error);
            }
        };
        tracing::debug!(origin = target.origin, "connected");
        match dial.complete(stream, permit).await? {
            Negotiated::Http1(stream, permit) => {
                let pool_handle = PoolHandle {
                    pool: Arc::downgrade(&self.pool),
                    runtime: Handle::current().id(),
                    origin: target.pool_key().into(),
                    idle_timeout: self.pool.idle_timeout(),
                };
                let connection = Connection::open(stream, permit, &self.http1, pool_handle).await?;
                Ok(DialedConnection::Http1(connection))
            }
            Negotiated::Http2(stream) => Ok(DialedConnection::Http2(stream)),
        }
    }

    async fn connect_stream(
        &self,
        target: &Target<'_>,
        http2: bool,
    ) -> Result<(MaybeTlsStream, SocketPermit), Error> {
        // First: without trust in anybody there is no use in connecting.
        let tls = self.tls_connector(target, http2).await?;
        if let Some(server) = target.proxy {
            // On the heap: without a proxy its size is of no concern to anybody.
            return Box::pin(self.connect_through_proxy(server, target, tls)).await;
        }
        let (tcp, permit) = self.connector.connect(&target.host, target.port).await?;
        Ok((wrap_in_tls(tls, &target.host, tcp).await?, permit))
    }

    async fn connect_through_proxy(
        &self,
        server: &ProxyServer,
        target: &Target<'_>,
        tls: Option<tls::AlpnConnector>,
    ) -> Result<(MaybeTlsStream, SocketPermit), Error> {
        let remote_dns = match server.protocol {
            ProxyProtocol::Http => {
                let (mut tcp, permit) = self.connect_to_proxy(server).await?;
                if target.https {
                    open_tunnel(&mut tcp, server, target).await?;
                }
                return Ok((wrap_in_tls(tls, &target.host, tcp).await?, permit));
            }
            ProxyProtocol::Https => {
                let to_proxy = self.tls.for_proxies().await?;
                let (tcp, permit) = self.connect_to_proxy(server).await?;
                let outer = tls::handshake(&to_proxy, &server.host(), tcp).await;
                let mut outer = outer.map_err(proxy_connect_error)?;
                let Some(tls) = tls else {
                    return Ok((MaybeTlsStream::Tls(Box::new(outer)), permit));
                };
                open_tunnel(&mut outer, server, target).await?;
                let inner = tls::handshake(&tls, &target.host, outer).await?;
                return Ok((MaybeTlsStream::TlsInTls(Box::new(inner)), permit));
            }
            ProxyProtocol::Socks5 { remote_dns } => remote_dns,
        };
        let (tcp, permit) = match &target.host {
            Host::Domain(_) if !remote_dns => {
                self.socks_connect_any_address(server, target).await?
            }
            host => self.socks_connect(server, host, target.port).await?,
        };
        Ok((wrap_in_tls(tls, &target.host, tcp).await?, permit))
    }

    /// Has a proxy connect to one after another of the addresses of a name, until it gets through.
    async fn socks_connect_any_address(
        &self,
        server: &ProxyServer,
        target: &Target<'_>,
    ) -> Result<(TcpStream, SocketPermit), Error> {
        let addresses = self.connector.resolve(&target.host, target.port).await?;
        let mut failure = Error::from_kind(ErrorKind::Proxy);
        for address in addresses {
            let host = match address.ip() {
                IpAddr::V4(ip) => Host::Ipv4(ip),
                IpAddr::V6(ip) => Host::Ipv6(ip),
            };
            let (mut tcp, permit) = self.connect_to_proxy(server).await?;
            let credentials = server.credentials.as_ref();
            match socks::handshake(&mut tcp, &host, target.port, credentials).await {
                Ok(()) => return Ok((tcp, permit)),
                // To be told no once is enough.
                Err(error) if error.kind() == ErrorKind::ProxyRefused => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn socks_connect(
        &self,
        server: &ProxyServer,
        host: &Host<&str>,
        port: u16,
    ) -> Result<(TcpStream, SocketPermit), Error> {
        let (mut tcp, permit) = self.connect_to_proxy(server).await?;
        socks::handshake(&mut tcp, host, port, server.credentials.as_ref()).await?;
        Ok((tcp, permit))
    }

    async fn connect_to_proxy(
        &self,
        server: &ProxyServer,
    ) -> Result<(TcpStream, SocketPermit), Error> {
        let connected = self.connector.connect(&server.host(), server.port).await;
        connected.map_err(proxy_connect_error)
    }

    async fn tls_connector(
        &self,
        target: &Target<'_>,
        http2: bool,
    ) -> Result<Option<tls::AlpnConnector>, Error> {
        match target.https {
            true => Ok(Some(self.tls.for_origin(target.origin, http2).await?)),
            false => Ok(None),
        }
    }
}

async fn wrap_in_tls(
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
    target: &Target<'_>,
) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    tunnel::establish(stream, &target.host, target.port, server.basic_auth()).await
}

/// What went wrong on the way to the proxy: what concerns its certificate is of the kind it would be with any server.
fn proxy_connect_error(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Tls => Error::new(ErrorKind::Tls, error).with_detail("with the proxy"),
        _ => Error::new(ErrorKind::Proxy, error).with_detail("it cannot be reached"),
    }
}
