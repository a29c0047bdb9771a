//! The only place that knows of sockets, TLS and hyper: one request out, one response in.
//!
//! There is no task behind a connection and no clock that runs out here. Whoever sends a request
//! drives its connection, reads in [`Progress`] how far it got, and drops the future when it has
//! waited long enough, which closes the connection.

mod connect;
mod connection;
mod descriptors;
mod guard;
mod meter;
mod pool;
mod progress;
mod resolver;
mod stream;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::response::Parts;
use hyper::client::conn::http1;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;
use url::Host;

use self::connect::Connector;
use self::connection::{Connection, Home, MAX_HEAD};
use self::pool::{Pool, Rested};
use self::resolver::Resolver;
use self::stream::Stream;
use crate::body::Body;
use crate::error::{Error, ErrorKind};

pub(crate) use self::connect::Admits;
pub(crate) use self::connection::Incoming;
pub(crate) use self::descriptors::descriptors;
pub(crate) use self::guard::is_public;
pub(crate) use self::progress::{Phase, Progress};
pub(crate) use self::resolver::Names;

/// After so long at rest the reactor may not have been asked yet whether the peer has closed.
const LONG_REST: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How long a connection may rest.
    pub(crate) idle: Duration,
    /// The most sockets open at once, at rest and in use. Connections at rest make way; what is
    /// in use is for the caller to bound.
    pub(crate) descriptors: Option<usize>,
    /// Whether small writes go out at once.
    pub(crate) nodelay: bool,
    pub(crate) names: Names,
    /// The addresses that sockets may connect to; none: all.
    pub(crate) admits: Option<Admits>,
    pub(crate) tls: tls::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(15),
            descriptors: None,
            nodelay: true,
            names: Names::default(),
            admits: None,
            tls: tls::Settings::default(),
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
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    /// On a connection at rest, if there is one.
    Pooled,
    /// On a connection of its own making.
    Fresh,
}

/// Why there is no response.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The connection had served another request before.
    pub(crate) reused: bool,
    /// Nothing of the request was written, or nothing came back.
    pub(crate) unanswered: bool,
    /// The request, if nothing of it was written.
    pub(crate) request: Option<Request<Body>>,
}

impl Failure {
    fn unsent(error: Error, request: Request<Body>) -> Self {
        Self {
            error,
            reused: false,
            unanswered: true,
            request: Some(request),
        }
    }

    /// The server answered, but not in HTTP.
    fn answered(reason: &'static str) -> Self {
        Self {
            error: Error::new(ErrorKind::Protocol, reason),
            reused: false,
            unanswered: false,
            request: None,
        }
    }
}

impl fmt::Debug for Failure {
    /// Without the request, whose headers may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("error", &self.error)
            .field("reused", &self.reused)
            .field("unanswered", &self.unanswered)
            .finish_non_exhaustive()
    }
}

/// The connections of one fetcher.
pub(crate) struct Wire {
    pool: Arc<Pool>,
    tls: tls::Tls,
    http1: http1::Builder,
    connector: Connector,
}

impl Wire {
    /// Does no I/O, and needs no runtime.
    pub(crate) fn new(config: Config) -> Self {
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(MAX_HEAD);
        let pool = Pool::new(config.idle, config.descriptors);
        let connector = Connector {
            pool: Arc::clone(&pool),
            resolver: Resolver::new(config.names),
            admits: config.admits,
            nodelay: config.nodelay,
        };
        Self {
            pool,
            tls: tls::Tls::new(config.tls),
            http1,
            connector,
        }
    }

    /// Sends one request and answers when the response head is complete.
    ///
    /// The request is sent as it is: it needs a `Host`, and a URI in the form the server expects.
    /// `progress` must have been reset for this attempt.
    ///
    /// HTTP/2 will be another kind of connection behind this function and [`Incoming`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection it used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that drives I/O and time.
    pub(crate) async fn send(
        &self,
        target: Target<'_>,
        mut request: Request<Body>,
        reuse: Reuse,
        progress: &Progress,
    ) -> Result<(Parts, Incoming), Failure> {
        if reuse == Reuse::Pooled {
            match self.send_pooled(&target, request, progress).await {
                Pooled::Done(result) => return result,
                Pooled::None(unsent) => request = unsent,
            }
        }
        progress.connecting();
        let connection = match self.dial(&target).await {
            Ok(connection) => connection,
            Err(error) => return Err(Failure::unsent(error, request)),
        };
        progress.connected(Instant::now());
        connection.exchange(request, progress).await
    }

    /// Sends a request on the first connection at rest that turns out to be alive.
    async fn send_pooled(
        &self,
        target: &Target<'_>,
        mut request: Request<Body>,
        progress: &Progress,
    ) -> Pooled {
        let runtime = Handle::current().id();
        // Recent enough, and saves a look at the clock.
        let now = progress.touched_at();
        let mut yielded = false;
        while let Some(Rested { connection, since }) = self.pool.take(runtime, target.origin, now) {
            if !yielded && now.saturating_duration_since(since) >= LONG_REST {
                yield_now().await;
                yielded = true;
            }
            progress.connected(now);
            match connection.exchange(request, progress).await {
                Err(Failure {
                    request: Some(unsent),
                    ..
                }) => request = unsent,
                Err(failure) => {
                    return Pooled::Done(Err(Failure {
                        reused: true,
                        ..failure
                    }));
                }
                answered => return Pooled::Done(answered),
            }
        }
        Pooled::None(request)
    }

    async fn dial(&self, target: &Target<'_>) -> Result<Box<Connection>, Error> {
        let connector = match target.https {
            true => Some(self.tls.prepare().await?),
            false => None,
        };
        let (tcp, token) = self.connector.connect(&target.host, target.port).await?;
        let stream = match connector {
            Some(connector) => Stream::Tls(Box::new(
                tls::handshake(connector, &target.host, tcp).await?,
            )),
            None => Stream::Plain(tcp),
        };
        tracing::debug!(origin = target.origin, "connected");
        let home = Home {
            pool: Arc::downgrade(&self.pool),
            runtime: Handle::current().id(),
            origin: target.origin.into(),
            idle: self.pool.idle(),
        };
        Connection::open(stream, token, &self.http1, home).await
    }
}

/// What came of trying the connections at rest.
enum Pooled {
    Done(Result<(Parts, Incoming), Failure>),
    /// None was alive; here is the request again.
    None(Request<Body>),
}
