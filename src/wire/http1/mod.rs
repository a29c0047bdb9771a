//! HTTP/1.1, through hyper: one exchange at a time on a connection.
//!
//! The task that sends a request drives its connection. No task drives an idle connection, but a
//! periodic sweep of the [pool] closes the connections that have expired or that the server has
//! closed.

mod connection;
mod exchange;
mod idle_list;
mod pool;
mod rejected_head;
mod response_head;
mod sticky;
mod trailers;

use std::sync::Arc;

use hyper::client::conn::http1;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(super) use self::connection::Connection;
pub(crate) use self::exchange::Http1Body;
use self::idle_list::IdleConnection;
pub(crate) use self::sticky::StickyConnection;
use super::connect::MaybeTlsStream;
use super::sockets::SocketCountGuard;
use crate::error::Error;

/// The idle HTTP/1.1 connections of one fetcher.
pub(super) type Http1Pool = pool::IdlePool<Connection>;

/// Opens and reuses the HTTP/1.1 connections of one fetcher.
pub(super) struct Http1Connections {
    pub(super) pool: Arc<Http1Pool>,
    builder: http1::Builder,
}

impl Http1Connections {
    pub(super) fn new(pool: Arc<Http1Pool>) -> Self {
        Self {
            pool,
            builder: http1::Builder::new(),
        }
    }

    /// Opens a connection over `stream`. After use, the connection returns to the pool under
    /// `pool_key`.
    pub(super) async fn open(
        &self,
        stream: MaybeTlsStream,
        socket_count_guard: SocketCountGuard,
        pool_key: Arc<str>,
    ) -> Result<Box<Connection>, Error> {
        Connection::open(
            stream,
            socket_count_guard,
            &self.builder,
            &self.pool,
            pool_key,
        )
        .await
    }

    /// Takes the connection that the worker has kept if its key is `pool_key`. Otherwise, takes the
    /// newest idle connection of the pool with this key.
    pub(super) fn take_sticky_or_pooled(
        &self,
        pool_key: &str,
        sticky_connection: &mut StickyConnection,
        now: Instant,
    ) -> Option<IdleConnection<Connection>> {
        let idle = sticky_connection.take_for_key(pool_key, now);
        idle.or_else(|| self.pool.take_newest(Handle::current().id(), pool_key, now))
    }
}
