//! The network transport: sends one request and returns one response.
//!
//! Only this module uses sockets, TLS, hyper and h2.
//!
//! The task that sends a request over HTTP/1.1 also drives the connection. An HTTP/2 connection is
//! shared, so a separate task drives it.
//!
//! No request timeout runs in this module. The worker (the task that runs the exchange) reads the
//! [`HopClock`] and drops the future of the exchange when a timeout fires. Dropping the future
//! closes the HTTP/1.1 connection, or resets the HTTP/2 stream.
//!
//! ```text
//! Wire ─┬─ http1 ── connection, exchange, idle pool
//!       ├─ http2 ── connection, exchange, pool, protocol cache
//!       └─ connect ─ DNS, TCP, proxy, TLS
//! ```

mod body;
mod config;
mod connect;
mod http1;
#[cfg_attr(not(feature = "http2"), path = "http2/disabled.rs")]
mod http2;
mod informational;
mod lenient_head;
mod lenient_reader;
mod metered;
mod per_runtime;
mod public_address;
mod response_limits;
mod send_error;
mod sockets;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::Request;
use http::header::PROXY_AUTHORIZATION;
use http::response::Parts;
use tokio::task::yield_now;
use tokio::time::Instant;
use url::{Host, Url};

use self::config::VALIDATE_AFTER_IDLE;
use self::connect::{Connector, Resolver, TcpConnector, tls};
use self::http1::{Connection, Http1Connections, Http1Pool};
use self::http2::{
    DialTicket, Http2Connections, NegotiatedConnection, StreamLease, StreamOrDialTicket,
};
use self::sockets::{SocketCounter, SocketLimit};
use crate::body::Body;
use crate::descriptors;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::HopClock;
use crate::proxy::{Proxies, Proxy, ProxyChoice, ProxyServer};

pub(crate) use self::body::IncomingBody;
pub(crate) use self::config::{HttpVersionPolicy, WireConfig};
pub(crate) use self::connect::{AddressFilter, PendingLookup, is_descriptor_exhaustion};
pub(crate) use self::http1::StickyConnection;
pub(crate) use self::public_address::is_public;
pub(crate) use self::send_error::{Refusal, RefusalReason, SendError, UnsentRequest};
pub(crate) use self::sockets::default_socket_limit;
pub(crate) use self::target::ConnectionTarget;

/// The connections that a request may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConnectionSource {
    /// An idle connection if there is one, else a new one.
    Pooled,
    /// A new HTTP/1.1 connection, or any HTTP/2 connection.
    Fresh,
}

/// The connections of one fetcher.
pub(crate) struct Wire {
    http1: Http1Connections,
    http2: Http2Connections,
    connector: Connector,
    proxies: Proxies,
}

impl Wire {
    /// Creates the transport. Does no I/O and needs no runtime.
    pub(crate) fn new(config: WireConfig) -> Self {
        let socket_limit = SocketLimit::new(config.max_sockets);
        let pool = Http1Pool::new(config.idle_timeout, socket_limit);
        descriptors::register_idle_connection_pool(&pool);
        let tcp_connector = TcpConnector {
            socket_counter: Arc::clone(&pool) as Arc<dyn SocketCounter>,
            resolver: Resolver::new(config.dns_config),
            address_filter: config.address_filter,
            tcp_nodelay: config.tcp_nodelay,
        };
        let tls_connectors = tls::TlsConnectors::new(config.tls_config);
        Self {
            http1: Http1Connections::new(pool),
            http2: Http2Connections::new(
                config.http_version_policy,
                config.idle_timeout,
                config.http2_silence_limit,
            ),
            connector: Connector {
                tcp_connector,
                tls_connectors,
            },
            proxies: config.proxies,
        }
    }

    /// Returns the proxy for a request to `url`, or `None` for a direct connection.
    pub(crate) fn proxy_for<'a>(
        &'a self,
        url: &Url,
        proxy_choice: &'a ProxyChoice,
    ) -> Result<Option<&'a Proxy>, Error> {
        if self.proxies.is_empty() && matches!(proxy_choice, ProxyChoice::FetcherProxies) {
            return Ok(None);
        }
        let proxy = self.proxies.select_proxy(url, proxy_choice)?;
        if proxy.is_some() && self.connector.tcp_connector.address_filter.is_some() {
            let reason = "the proxy connects to the host, so its address cannot be checked";
            return Err(Error::from_kind(ErrorKind::NotAllowed).with_detail(reason));
        }
        Ok(proxy)
    }

    /// Sends one request and waits for the complete head of its response.
    ///
    /// The request must have a `Host` header and a URI in the form that the server expects, because
    /// the transport sends both unchanged. After an error, `unsent` holds the request again if none
    /// of its bytes were written and the connection returned it.
    ///
    /// `clock` must have been reset for this attempt. The worker passes the same
    /// `sticky_connection` to all its exchanges.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the HTTP/1.1 connection, or resets the HTTP/2 stream.
    ///
    /// # Panics
    ///
    /// Panics if called outside a tokio runtime with I/O and time enabled.
    pub(crate) async fn send(
        &self,
        target: &ConnectionTarget<'_>,
        unsent: &mut UnsentRequest,
        source: ConnectionSource,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Result<(Parts, IncomingBody), SendError> {
        if let Some(authorization) = target
            .forward_proxy()
            .and_then(ProxyServer::basic_auth_header)
            && let Some(request) = unsent
        {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        if source == ConnectionSource::Pooled
            && let Some(result) = self
                .send_on_idle(target, unsent, clock, sticky_connection)
                .await
        {
            return result;
        }
        let dial = match self.http2.take_stream_or_dial_ticket(target, clock).await {
            StreamOrDialTicket::Dial(dial) => dial,
            StreamOrDialTicket::Stream(lease) => {
                return send_on_http2(lease, target, unsent, clock).await;
            }
        };
        // Boxed to keep this future small, since most requests find an open connection.
        match Box::pin(self.dial(target, dial, clock)).await {
            Ok(DialedConnection::Http1(connection)) => {
                clock.record_connected(Instant::now());
                let (head, body) = connection
                    .exchange(unsent, clock, sticky_connection)
                    .await?;
                Ok((head, IncomingBody::Http1(body)))
            }
            Ok(DialedConnection::Http2(lease)) => {
                clock.record_connected(Instant::now());
                send_on_http2(lease, target, unsent, clock).await
            }
            Err(error) => Err(SendError::not_sent(error)),
        }
    }

    /// Opens a connection. If HTTP/2 is negotiated, opens a stream on the connection too.
    async fn dial(
        &self,
        target: &ConnectionTarget<'_>,
        ticket: DialTicket,
        clock: &HopClock,
    ) -> Result<DialedConnection, Error> {
        if self.http1.pool.is_out_of_sockets() {
            self.http2.evict_longest_idle();
        }
        let connect = self
            .connector
            .connect(target, ticket.offers_http2_in_alpn(), clock);
        let (stream, socket_count_guard) = match connect.await {
            Ok(connected) => connected,
            Err(error) => {
                ticket.notify_waiters_of_failure();
                return Err(error);
            }
        };
        tracing::debug!(origin = target.origin, "connected");
        match ticket
            .start_negotiated_protocol(stream, socket_count_guard)
            .await?
        {
            NegotiatedConnection::Http1(stream, socket_count_guard) => {
                let pool_key = target.pool_key().into();
                let connection = self
                    .http1
                    .open(stream, socket_count_guard, pool_key)
                    .await?;
                Ok(DialedConnection::Http1(connection))
            }
            NegotiatedConnection::Http2(lease) => Ok(DialedConnection::Http2(lease)),
        }
    }

    /// Whether name lookups that start now have to wait for a permit.
    pub(crate) fn is_out_of_lookup_permits(&self) -> bool {
        self.connector
            .tcp_connector
            .resolver
            .is_out_of_lookup_permits()
    }

    /// Starts or joins the lookup of the target's name if no permit is free. Returns the lookup if
    /// it waits for a permit.
    pub(crate) fn lookup_awaiting_permit(
        &self,
        target: &ConnectionTarget<'_>,
    ) -> Option<PendingLookup> {
        match (target.proxy, &target.host) {
            (None, Host::Domain(name)) => self
                .connector
                .tcp_connector
                .resolver
                .join_lookup_if_out_of_permits(name),
            _ => None,
        }
    }

    /// Whether the protocol of the origin is still unknown. The first connection to the origin
    /// finds out whether the origin supports HTTP/2 (ALPN). If so, the connection can serve many
    /// requests.
    pub(crate) fn is_protocol_unknown(&self, target: &ConnectionTarget<'_>) -> bool {
        self.http2.is_protocol_unknown(target)
    }

    /// Returns the number of open sockets, and the number of idle connections among them.
    pub(crate) fn connection_counts(&self) -> (usize, usize) {
        let pool = &self.http1.pool;
        let idle_count = pool.idle_count() + self.http2.idle_count();
        (pool.open_socket_count(), idle_count)
    }

    /// Sends a request on the first idle connection that is still open. Returns `None` if no idle
    /// connection is open.
    async fn send_on_idle(
        &self,
        target: &ConnectionTarget<'_>,
        unsent: &mut UnsentRequest,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Option<Result<(Parts, IncomingBody), SendError>> {
        // The time of the last activity is precise enough for the checks of idle connections, and
        // reading it needs no system call.
        let now = clock.last_activity_at();
        let mut yielded = false;
        let pool_key = target.pool_key();
        while let Some(idle) = self
            .http1
            .take_sticky_or_pooled(&pool_key, sticky_connection, now)
        {
            let idle_time = now.saturating_duration_since(idle.idle_since);
            let is_idempotent = |request: &Request<Body>| request.method().is_idempotent();
            // The reactor runs during the yield, so that the connection reports a close that has
            // already arrived. On a closed connection, a request that must not be sent twice would
            // be lost.
            let must_validate =
                idle_time >= VALIDATE_AFTER_IDLE || !unsent.as_ref().is_some_and(is_idempotent);
            if !yielded && must_validate {
                yield_now().await;
                yielded = true;
            }
            clock.record_connected(now);
            match idle
                .connection
                .exchange(unsent, clock, sticky_connection)
                .await
            {
                Err(_) if unsent.is_some() => {}
                Err(error) => {
                    return Some(Err(SendError {
                        on_reused_connection: true,
                        ..error
                    }));
                }
                Ok((head, body)) => return Some(Ok((head, IncomingBody::Http1(body)))),
            }
        }
        None
    }
}

/// A new connection that is ready for one exchange.
enum DialedConnection {
    Http1(Box<Connection>),
    Http2(StreamLease),
}

async fn send_on_http2(
    lease: StreamLease,
    target: &ConnectionTarget<'_>,
    unsent: &mut UnsentRequest,
    clock: &HopClock,
) -> Result<(Parts, IncomingBody), SendError> {
    let (head, body) = http2::exchange(lease, unsent, target.is_https, clock).await?;
    Ok((head, IncomingBody::Http2(body)))
}
