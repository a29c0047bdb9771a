//! A new connection to a target: directly, or through its proxy.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use url::Host;

use super::connection::{Connection, Home};
use super::http2::{self, Agreed, Dial};
use super::pool::Token;
use super::stream::Stream;
use super::{Target, Wire, socks, tls, tunnel};
use crate::error::{Error, ErrorKind};
use crate::proxy::{Protocol, Server};

/// A new connection; of HTTP/2, a first stream of it.
pub(super) enum Dialed {
    Http1(Box<Connection>),
    Http2(http2::Lease),
}

impl Wire {
    pub(super) async fn dial(&self, target: &Target<'_>, dial: Dial) -> Result<Dialed, Error> {
        if self.pool.lacks_room() {
            self.http2.evict_idle();
        }
        let (stream, token) = match self.reach(target, dial.offers_http2()).await {
            Ok(reached) => reached,
            Err(error) => {
                dial.fail();
                return Err(error);
            }
        };
        tracing::debug!(origin = target.origin, "connected");
        match dial.agree(stream, token).await? {
            Agreed::Http1(stream, token) => {
                let home = Home {
                    pool: Arc::downgrade(&self.pool),
                    runtime: Handle::current().id(),
                    origin: target.key().into(),
                    idle: self.pool.idle(),
                };
                let connection = Connection::open(stream, token, &self.http1, home).await?;
                Ok(Dialed::Http1(connection))
            }
            Agreed::Http2(stream) => Ok(Dialed::Http2(stream)),
        }
    }

    async fn reach(&self, target: &Target<'_>, http2: bool) -> Result<(Stream, Token), Error> {
        // First: without trust in anybody there is no use in connecting.
        let tls = self.tls_for(target, http2).await?;
        if let Some(server) = target.proxy {
            // On the heap: without a proxy its size is of no concern to anybody.
            return Box::pin(self.reach_through(server, target, tls)).await;
        }
        let (tcp, token) = self.connector.connect(&target.host, target.port).await?;
        Ok((over_tcp(tls, &target.host, tcp).await?, token))
    }

    async fn reach_through(
        &self,
        server: &Server,
        target: &Target<'_>,
        tls: Option<tls::Connector>,
    ) -> Result<(Stream, Token), Error> {
        let names = match server.protocol {
            Protocol::Http => {
                let (mut tcp, token) = self.connect_to(server).await?;
                if target.https {
                    open_tunnel(&mut tcp, server, target).await?;
                }
                return Ok((over_tcp(tls, &target.host, tcp).await?, token));
            }
            Protocol::Https => {
                let to_proxy = self.tls.for_proxies().await?;
                let (tcp, token) = self.connect_to(server).await?;
                let outer = tls::handshake(&to_proxy, &server.host(), tcp).await;
                let mut outer = outer.map_err(of_proxy)?;
                let Some(tls) = tls else {
                    return Ok((Stream::Tls(Box::new(outer)), token));
                };
                open_tunnel(&mut outer, server, target).await?;
                let inner = tls::handshake(&tls, &target.host, outer).await?;
                return Ok((Stream::Nested(Box::new(inner)), token));
            }
            Protocol::Socks { names } => names,
        };
        let (tcp, token) = match &target.host {
            Host::Domain(_) if !names => self.socks_to_any(server, target).await?,
            host => self.socks(server, host, target.port).await?,
        };
        Ok((over_tcp(tls, &target.host, tcp).await?, token))
    }

    /// Has a proxy connect to one after another of the addresses of a name, until it gets through.
    async fn socks_to_any(
        &self,
        server: &Server,
        target: &Target<'_>,
    ) -> Result<(TcpStream, Token), Error> {
        let addresses = self.connector.addresses(&target.host, target.port).await?;
        let mut failure = Error::of(ErrorKind::Proxy);
        for address in addresses {
            let host = match address.ip() {
                IpAddr::V4(ip) => Host::Ipv4(ip),
                IpAddr::V6(ip) => Host::Ipv6(ip),
            };
            let (mut tcp, token) = self.connect_to(server).await?;
            let credentials = server.credentials.as_ref();
            match socks::open(&mut tcp, &host, target.port, credentials).await {
                Ok(()) => return Ok((tcp, token)),
                // To be told no once is enough.
                Err(error) if error.kind() == ErrorKind::ProxyRefused => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn socks(
        &self,
        server: &Server,
        host: &Host<&str>,
        port: u16,
    ) -> Result<(TcpStream, Token), Error> {
        let (mut tcp, token) = self.connect_to(server).await?;
        socks::open(&mut tcp, host, port, server.credentials.as_ref()).await?;
        Ok((tcp, token))
    }

    async fn connect_to(&self, server: &Server) -> Result<(TcpStream, Token), Error> {
        let connected = self.connector.connect(&server.host(), server.port).await;
        connected.map_err(of_proxy)
    }

    async fn tls_for(
        &self,
        target: &Target<'_>,
        http2: bool,
    ) -> Result<Option<tls::Connector>, Error> {
        match target.https {
            true => Ok(Some(self.tls.for_origin(target.origin, http2).await?)),
            false => Ok(None),
        }
    }
}

async fn over_tcp(
    tls: Option<tls::Connector>,
    host: &Host<&str>,
    tcp: TcpStream,
) -> Result<Stream, Error> {
    Ok(match tls {
        Some(tls) => Stream::Tls(Box::new(tls::handshake(&tls, host, tcp).await?)),
        None => Stream::Plain(tcp),
    })
}

async fn open_tunnel<S>(stream: &mut S, server: &Server, target: &Target<'_>) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    tunnel::open(stream, &target.host, target.port, server.basic()).await
}

/// What went wrong on the way to the proxy: what concerns its certificate is of the kind it would be with any server.
fn of_proxy(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Tls => Error::new(ErrorKind::Tls, error).because("with the proxy"),
        _ => Error::new(ErrorKind::Proxy, error).because("it cannot be reached"),
    }
}
