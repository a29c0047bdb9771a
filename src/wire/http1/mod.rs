//! HTTP/1.1, through hyper: one exchange at a time on a connection.
//!
//! The task that sends a request drives its connection. No task drives an idle connection, except
//! for a periodic sweep of the [pool] that closes connections that expired or were closed by the
//! server.

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

    /// Takes an idle connection for `pool_key`: the worker's sticky connection if it has this key,
    /// else the newest connection of the pool.
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
