//! The only place that knows of sockets, TLS and hyper: one request out, one response in.
//!
//! There is no task behind a connection of HTTP/1.1, and no clock that runs out for a request here.
//! Whoever sends a request drives its connection, reads in [`AttemptClock`] how far it got, and drops
//! the future when it has waited long enough, which closes the connection. A connection of
//! [HTTP/2](http2) is shared, so there a task drives it, and dropping the future resets a stream.

mod attempt_clock;
mod body;
mod connect;
mod connection;
#[cfg_attr(not(feature = "http2"), path = "http2/disabled.rs")]
mod http2;
mod informational;
mod metered;
// Both pools use it.
#[allow(dead_code)]
mod per_runtime;
mod pool;
mod public_address;
mod sockets;
mod stream;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::PROXY_AUTHORIZATION;
use http::response::Parts;
use hyper::client::conn::http1;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;
use url::{Host, Url};

use self::attempt_clock::Reusable;
use self::connect::{Connector, Resolver, TcpConnector, tls};
use self::connection::{Connection, PoolHandle};
use self::http2::{DialTicket, Http2Connections, Negotiated, Route, StreamLease};
use self::pool::{IdleConnection, Pool};
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::proxy::{Proxies, ProxyChoice, ProxyServer};

pub(crate) use self::attempt_clock::{AttemptClock, Phase};
pub(crate) use self::body::IncomingBody;
pub(crate) use self::connect::{AddressFilter, DnsConfig, TlsConfig, is_descriptor_exhaustion};
pub(crate) use self::public_address::is_public;
pub(crate) use self::sockets::default_socket_limit;

/// After so long at rest the reactor may not have been asked yet whether the peer has closed.
const VALIDATE_AFTER_IDLE: Duration = Duration::from_millis(100);

/// Which protocols are spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HttpVersionPolicy {
    /// What TLS agrees on, and HTTP/1.1 without TLS.
    #[default]
    Negotiated,
    /// HTTP/1.1 alone.
    Http1,
    /// What TLS agrees on, and HTTP/2 without TLS.
    #[cfg(feature = "http2")]
    PriorKnowledge,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How long a connection may rest.
    pub(crate) idle_timeout: Duration,
    /// The most sockets open at once, at rest and in use. Connections at rest make way; what is
    /// in use is for the caller to bound.
    pub(crate) max_sockets: Option<usize>,
    /// Whether small writes go out at once.
    pub(crate) tcp_nodelay: bool,
    pub(crate) dns: DnsConfig,
    /// The addresses that sockets may connect to; none: all.
    pub(crate) address_filter: Option<AddressFilter>,
    pub(crate) proxies: Proxies,
    pub(crate) http_versions: HttpVersionPolicy,
    /// How long an HTTP/2 connection may be silent, with streams open, before it is pinged, and
    /// then again before it is given up.
    pub(crate) http2_ping_interval: Duration,
    pub(crate) tls: TlsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(15),
            max_sockets: None,
            tcp_nodelay: true,
            dns: DnsConfig::default(),
            address_filter: None,
            proxies: Proxies::default(),
            http_versions: HttpVersionPolicy::default(),
            http2_ping_interval: Duration::from_secs(10),
            tls: TlsConfig::default(),
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    /// `scheme://host:port`, by which connections are found again.
    pub(crate) origin: &'a str,
    pub(crate) https: bool,
    pub(crate) host: Host<&'a str>,
    pub(crate) port: u16,
    /// The proxy it is reached through.
    pub(crate) proxy: Option<&'a ProxyServer>,
}

impl Target<'_> {
    /// Whether the request is asked of a proxy, which wants it in the absolute form, and not of its server.
    pub(crate) fn uses_forward_proxy(&self) -> bool {
        self.forward_proxy().is_some()
    }

    fn forward_proxy(&self) -> Option<&ProxyServer> {
        self.proxy
            .filter(|server| !self.https && server.is_http_proxy())
    }

    /// By what connections are found again: the origin; the proxy, which takes requests for all origins on one
    /// connection; or the two, where there is a tunnel from one to the other.
    fn pool_key(&self) -> Cow<'_, str> {
        match self.proxy {
            None => self.origin.into(),
            Some(server) if self.uses_forward_proxy() => (&*server.pool_key).into(),
            Some(server) => format!("{} {}", server.pool_key, self.origin).into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConnectionSource {
    /// On a connection at rest, if there is one.
    Pooled,
    /// On a connection of its own making.
    Fresh,
}

/// A request on its way out, in one place for all who hand it on: it is large. Whoever sends it takes it out, and puts it
/// back if nothing of it was written.
pub(crate) type UnsentRequest = Option<Request<Body>>;

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: Error,
    /// The connection had served another request before.
    pub(crate) on_reused_connection: bool,
    /// Nothing of the request was written, or nothing came back.
    pub(crate) no_response: bool,
    /// The peer says that it has not looked at the request and will not, or it takes no more
    /// requests on this connection: another may take it, whatever it is.
    pub(crate) unprocessed: bool,
    /// And that is because it takes no more requests on this connection, whoever sends them.
    pub(crate) goaway: bool,
}

impl SendError {
    /// The request was not sent.
    fn not_sent(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: true,
            unprocessed: false,
            goaway: false,
        }
    }

    /// The server response, but not in HTTP.
    fn protocol(reason: &'static str) -> Self {
        Self::interrupted(Error::new(ErrorKind::Protocol, reason))
    }

    /// The exchange cannot go on, though the server may have done its part.
    fn interrupted(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: false,
            unprocessed: false,
            goaway: false,
        }
    }
}

/// The connections of one fetcher.
pub(crate) struct Wire {
    pool: Arc<Pool>,
    http1: http1::Builder,
    http2: Http2Connections,
    connector: Connector,
    proxies: Proxies,
}

impl Wire {
    /// Does no I/O, and needs no runtime.
    pub(crate) fn new(config: Config) -> Self {
        let pool = Pool::new(config.idle_timeout, config.max_sockets);
        let tcp = TcpConnector {
            pool: Arc::clone(&pool),
            resolver: Resolver::new(config.dns),
            address_filter: config.address_filter,
            tcp_nodelay: config.tcp_nodelay,
        };
        let tls = tls::TlsConnectors::new(config.tls);
        Self {
            pool,
            http1: http1::Builder::new(),
            http2: Http2Connections::new(
                config.http_versions,
                config.idle_timeout,
                config.http2_ping_interval,
            ),
            connector: Connector { tcp, tls },
            proxies: config.proxies,
        }
    }

    /// The proxy that a request goes through, if any.
    pub(crate) fn proxy_for<'a>(
        &'a self,
        url: &Url,
        proxy_choice: &'a ProxyChoice,
    ) -> Result<Option<&'a ProxyServer>, Error> {
        if self.proxies.is_empty() && matches!(proxy_choice, ProxyChoice::Default) {
            return Ok(None);
        }
        let server = self.proxies.server_for(url, proxy_choice)?;
        if server.is_some() && self.connector.tcp.address_filter.is_some() {
            let reason = "behind a proxy it cannot be seen whether its address is public";
            return Err(Error::from_kind(ErrorKind::NotAllowed).with_detail(reason));
        }
        Ok(server)
    }

    /// Sends one request and answers when the response head is complete.
    ///
    /// The request is sent as it is: it needs a `Host`, and a URI in the form the server expects. When this fails, it is
    /// back if nothing of it was written and it could be got back.
    /// `clock` must have been reset for this attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection it used, or resets the stream.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that drives I/O and time.
    pub(crate) async fn send(
        &self,
        target: &Target<'_>,
        unsent: &mut UnsentRequest,
        source: ConnectionSource,
        clock: &AttemptClock,
    ) -> Result<(Parts, IncomingBody), SendError> {
        if let Some(authorization) = target.forward_proxy().and_then(ProxyServer::basic_auth)
            && let Some(request) = unsent
        {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        if source == ConnectionSource::Pooled
            && let Some(result) = self.send_pooled(target, unsent, clock).await
        {
            return result;
        }
        let dial = match self.http2.route(target, clock).await {
            Route::Dial(dial) => dial,
            Route::Stream(stream) => return send_on_http2(stream, target, unsent, clock).await,
        };
        // Boxed, so that its size is no burden to the many requests that find a connection.
        match Box::pin(self.dial(target, dial)).await {
            Ok(DialedConnection::Http1(connection)) => {
                clock.record_connected(Instant::now());
                let response = connection.exchange(unsent, clock).await?;
                Ok((response.0, IncomingBody::Http1(response.1)))
            }
            Ok(DialedConnection::Http2(stream)) => {
                clock.record_connected(Instant::now());
                send_on_http2(stream, target, unsent, clock).await
            }
            Err(error) => Err(SendError::not_sent(error)),
        }
    }

    /// Opens a connection, and an HTTP/2 stream on it if HTTP/2 was negotiated.
    async fn dial(
        &self,
        target: &Target<'_>,
        ticket: DialTicket,
    ) -> Result<DialedConnection, Error> {
        if self.pool.is_full() {
            self.http2.evict_oldest_idle();
        }
        let connected = self.connector.connect(target, ticket.offers_http2()).await;
        let (stream, permit) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                ticket.notify_failure();
                return Err(error);
            }
        };
        tracing::debug!(origin = target.origin, "connected");
        match ticket.complete(stream, permit).await? {
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
            Negotiated::Http2(lease) => Ok(DialedConnection::Http2(lease)),
        }
    }

    /// Whether it is not known yet if one connection to this origin would do for many requests.
    pub(crate) fn is_protocol_unknown(&self, target: &Target<'_>) -> bool {
        self.http2.is_protocol_unknown(target)
    }

    /// How many sockets are open, and how many connections of HTTP/1.1 at rest.
    pub(crate) fn connection_counts(&self) -> (usize, usize) {
        (self.pool.open_sockets(), self.pool.idle_count())
    }

    /// Sends a request on the first connection at rest that turns out to be alive; none if there is none.
    async fn send_pooled(
        &self,
        target: &Target<'_>,
        unsent: &mut UnsentRequest,
        clock: &AttemptClock,
    ) -> Option<Result<(Parts, IncomingBody), SendError>> {
        // Recent enough, and saves a look at the clock.
        let now = clock.last_activity();
        let mut yielded = false;
        let key = target.pool_key();
        while let Some(IdleConnection {
            connection,
            idle_since,
        }) = self.take_idle(&key, clock, now)
        {
            let may_be_stale = now.saturating_duration_since(idle_since) >= VALIDATE_AFTER_IDLE;
            let is_idempotent = |request: &Request<Body>| request.method().is_idempotent();
            // What may not be sent twice should not be lost to a close that has come but was not seen.
            if !yielded && (may_be_stale || !unsent.as_ref().is_some_and(is_idempotent)) {
                yield_now().await;
                yielded = true;
            }
            clock.record_connected(now);
            match connection.exchange(unsent, clock).await {
                Err(_) if unsent.is_some() => {}
                Err(failure) => {
                    return Some(Err(SendError {
                        on_reused_connection: true,
                        ..failure
                    }));
                }
                Ok((head, body)) => return Some(Ok((head, IncomingBody::Http1(body)))),
            }
        }
        None
    }

    /// A connection at rest: that in hand, if it leads there, else one of the pool.
    fn take_idle(&self, key: &str, clock: &AttemptClock, now: Instant) -> Option<IdleConnection> {
        if let Some((kept, idle_since)) = clock.take_sticky()
            && let Ok(connection) = (kept as Box<dyn Any>).downcast::<Connection>()
        {
            let kept = IdleConnection {
                connection,
                idle_since,
            };
            if kept.is_usable_for(key, now) {
                return Some(kept);
            }
            kept.connection.return_to_pool(idle_since);
        }
        self.pool.take(Handle::current().id(), key, now)
    }
}

/// A new connection that is ready for one exchange.
enum DialedConnection {
    Http1(Box<Connection>),
    Http2(StreamLease),
}

async fn send_on_http2(
    lease: StreamLease,
    target: &Target<'_>,
    unsent: &mut UnsentRequest,
    clock: &AttemptClock,
) -> Result<(Parts, IncomingBody), SendError> {
    let (head, body) = http2::exchange(lease, unsent, target.https, clock).await?;
    Ok((head, IncomingBody::Http2(body)))
}
