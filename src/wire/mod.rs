//! The only place that knows of sockets, TLS and hyper: one request out, one response in.
//!
//! There is no task behind a connection of HTTP/1.1, and no clock that runs out for a request here.
//! Whoever sends a request drives its connection, reads in [`Progress`] how far it got, and drops
//! the future when it has waited long enough, which closes the connection. A connection of
//! [HTTP/2](http2) is shared, so there a task drives it, and dropping the future resets a stream.

mod connect;
mod connection;
mod descriptors;
mod dial;
mod guard;
#[cfg_attr(not(feature = "http2"), path = "no_http2.rs")]
mod http2;
mod incoming;
mod interim;
mod meter;
mod pool;
mod progress;
mod resolver;
mod socks;
mod stream;
#[cfg(test)]
mod tests;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;
mod tunnel;

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

use self::connect::Connector;
use self::connection::Connection;
use self::dial::Dialed;
use self::http2::{Http2, Way};
use self::pool::{Pool, Rested};
use self::progress::Keep;
use self::resolver::Resolver;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::proxy::{Proxies, Server, Via};

pub(crate) use self::connect::{Admits, lacks_descriptor};
pub(crate) use self::descriptors::descriptors;
pub(crate) use self::guard::is_public;
pub(crate) use self::incoming::Incoming;
pub(crate) use self::progress::{Phase, Progress};
pub(crate) use self::resolver::Names;

/// After so long at rest the reactor may not have been asked yet whether the peer has closed.
const LONG_REST: Duration = Duration::from_millis(100);

/// Which protocols are spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Protocols {
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
    pub(crate) idle: Duration,
    /// The most sockets open at once, at rest and in use. Connections at rest make way; what is
    /// in use is for the caller to bound.
    pub(crate) descriptors: Option<usize>,
    /// Whether small writes go out at once.
    pub(crate) nodelay: bool,
    pub(crate) names: Names,
    /// The addresses that sockets may connect to; none: all.
    pub(crate) admits: Option<Admits>,
    pub(crate) proxies: Proxies,
    pub(crate) protocols: Protocols,
    /// How long an HTTP/2 connection may be silent, with streams open, before it is pinged, and
    /// then again before it is given up.
    pub(crate) ping: Duration,
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
            proxies: Proxies::default(),
            protocols: Protocols::default(),
            ping: Duration::from_secs(10),
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
    /// The proxy it is reached through.
    pub(crate) proxy: Option<&'a Server>,
}

impl Target<'_> {
    /// Whether the request is asked of a proxy, which wants it in the absolute form, and not of its server.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.forwarding().is_some()
    }

    fn forwarding(&self) -> Option<&Server> {
        self.proxy
            .filter(|server| !self.https && server.speaks_http())
    }

    /// By what connections are found again: the origin; the proxy, which takes requests for all origins on one
    /// connection; or the two, where there is a tunnel from one to the other.
    fn key(&self) -> Cow<'_, str> {
        match self.proxy {
            None => self.origin.into(),
            Some(server) if self.is_forwarded() => (&*server.key).into(),
            Some(server) => format!("{} {}", server.key, self.origin).into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    /// On a connection at rest, if there is one.
    Pooled,
    /// On a connection of its own making.
    Fresh,
}

/// A request on its way out, in one place for all who hand it on: it is large. Whoever sends it takes it out, and puts it
/// back if nothing of it was written.
pub(crate) type Outgoing = Option<Request<Body>>;

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// The connection had served another request before.
    pub(crate) reused: bool,
    /// Nothing of the request was written, or nothing came back.
    pub(crate) unanswered: bool,
    /// The peer says that it has not looked at the request and will not, or it takes no more
    /// requests on this connection: another may take it, whatever it is.
    pub(crate) unprocessed: bool,
    /// And that is because it takes no more requests on this connection, whoever sends them.
    pub(crate) goes_away: bool,
}

impl Failure {
    /// The request was not sent.
    fn unsent(error: Error) -> Self {
        Self {
            error,
            reused: false,
            unanswered: true,
            unprocessed: false,
            goes_away: false,
        }
    }

    /// The server answered, but not in HTTP.
    fn answered(reason: &'static str) -> Self {
        Self::broken_off(Error::new(ErrorKind::Protocol, reason))
    }

    /// The exchange cannot go on, though the server may have done its part.
    fn broken_off(error: Error) -> Self {
        Self {
            error,
            reused: false,
            unanswered: false,
            unprocessed: false,
            goes_away: false,
        }
    }
}

/// The connections of one fetcher.
pub(crate) struct Wire {
    pool: Arc<Pool>,
    tls: tls::Tls,
    http1: http1::Builder,
    http2: Http2,
    connector: Connector,
    proxies: Proxies,
}

impl Wire {
    /// Does no I/O, and needs no runtime.
    pub(crate) fn new(config: Config) -> Self {
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
            http1: http1::Builder::new(),
            http2: Http2::new(config.protocols, config.idle, config.ping),
            connector,
            proxies: config.proxies,
        }
    }

    /// The proxy that a request goes through, if any.
    pub(crate) fn proxy_for<'a>(
        &'a self,
        url: &Url,
        via: &'a Via,
    ) -> Result<Option<&'a Server>, Error> {
        if self.proxies.is_empty() && matches!(via, Via::AsFetcher) {
            return Ok(None);
        }
        let server = self.proxies.server_for(url, via)?;
        if server.is_some() && self.connector.admits.is_some() {
            let reason = "behind a proxy it cannot be seen whether its address is public";
            return Err(Error::of(ErrorKind::NotAllowed).because(reason));
        }
        Ok(server)
    }

    /// Sends one request and answers when the response head is complete.
    ///
    /// The request is sent as it is: it needs a `Host`, and a URI in the form the server expects. When this fails, it is
    /// back if nothing of it was written and it could be got back.
    /// `progress` must have been reset for this attempt.
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
        outgoing: &mut Outgoing,
        reuse: Reuse,
        progress: &Progress,
    ) -> Result<(Parts, Incoming), Failure> {
        if let Some(authorization) = target.forwarding().and_then(Server::basic)
            && let Some(request) = outgoing
        {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        if reuse == Reuse::Pooled
            && let Some(result) = self.send_pooled(target, outgoing, progress).await
        {
            return result;
        }
        let dial = match self.http2.way(target, progress).await {
            Way::Dial(dial) => dial,
            Way::Stream(stream) => return on_stream(stream, target, outgoing, progress).await,
        };
        // Boxed, so that its size is no burden to the many requests that find a connection.
        match Box::pin(self.dial(target, dial)).await {
            Ok(Dialed::Http1(connection)) => {
                progress.connected(Instant::now());
                let answered = connection.exchange(outgoing, progress).await?;
                Ok((answered.0, Incoming::Http1(answered.1)))
            }
            Ok(Dialed::Http2(stream)) => {
                progress.connected(Instant::now());
                on_stream(stream, target, outgoing, progress).await
            }
            Err(error) => Err(Failure::unsent(error)),
        }
    }

    /// Whether it is not known yet if one connection to this origin would do for many requests.
    pub(crate) fn is_unknown(&self, target: &Target<'_>) -> bool {
        self.http2.is_unknown(target)
    }

    /// How many sockets are open, and how many connections of HTTP/1.1 at rest.
    pub(crate) fn connections(&self) -> (usize, usize) {
        (self.pool.open(), self.pool.resting())
    }

    /// Sends a request on the first connection at rest that turns out to be alive; none if there is none.
    async fn send_pooled(
        &self,
        target: &Target<'_>,
        outgoing: &mut Outgoing,
        progress: &Progress,
    ) -> Option<Result<(Parts, Incoming), Failure>> {
        // Recent enough, and saves a look at the clock.
        let now = progress.touched_at();
        let mut yielded = false;
        let key = target.key();
        while let Some(Rested { connection, since }) = self.rested(&key, progress, now) {
            let is_long = now.saturating_duration_since(since) >= LONG_REST;
            let is_safe = |request: &Request<Body>| request.method().is_idempotent();
            // What may not be sent twice should not be lost to a close that has come but was not seen.
            if !yielded && (is_long || !outgoing.as_ref().is_some_and(is_safe)) {
                yield_now().await;
                yielded = true;
            }
            progress.connected(now);
            match connection.exchange(outgoing, progress).await {
                Err(_) if outgoing.is_some() => {}
                Err(failure) => {
                    return Some(Err(Failure {
                        reused: true,
                        ..failure
                    }));
                }
                Ok((head, body)) => return Some(Ok((head, Incoming::Http1(body)))),
            }
        }
        None
    }

    /// A connection at rest: that in hand, if it leads there, else one of the pool.
    fn rested(&self, key: &str, progress: &Progress, now: Instant) -> Option<Rested> {
        if let Some((kept, since)) = progress.take_kept()
            && let Ok(connection) = (kept as Box<dyn Any>).downcast::<Connection>()
        {
            let kept = Rested { connection, since };
            if kept.serves(key, now) {
                return Some(kept);
            }
            kept.connection.rest(since);
        }
        self.pool.take(Handle::current().id(), key, now)
    }
}

async fn on_stream(
    stream: http2::Lease,
    target: &Target<'_>,
    outgoing: &mut Outgoing,
    progress: &Progress,
) -> Result<(Parts, Incoming), Failure> {
    let (head, body) = stream.exchange(outgoing, target.https, progress).await?;
    Ok((head, Incoming::Http2(body)))
}
