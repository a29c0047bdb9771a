//! Replaces the module `tls` in a build without the feature `tls`. Requests to `https` URLs fail.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use url::Host;

use crate::error::{Error, ErrorKind};

#[derive(Clone, Debug, Default)]
pub(crate) struct TlsConfig {}

pub(in crate::wire) struct TlsConnectors;

impl TlsConnectors {
    pub(in crate::wire) fn new(_: TlsConfig) -> Self {
        Self
    }

    pub(super) async fn connector_for_origin(
        &self,
        _: &str,
        _: bool,
    ) -> Result<AlpnConnector, Error> {
        self.connector_for_proxies().await
    }

    pub(super) async fn connector_for_proxies(&self) -> Result<AlpnConnector, Error> {
        Err(Error::new(
            ErrorKind::InvalidRequest,
            "https needs the feature `tls` of this crate",
        ))
    }
}

pub(super) type AlpnConnector = Infallible;

pub(super) async fn handshake<S>(
    never: &AlpnConnector,
    _: &Host<&str>,
    _: S,
) -> Result<TlsStream<S>, Error> {
    match *never {}
}

pub(in crate::wire) fn alpn_protocol<S>(stream: &TlsStream<S>) -> Option<&[u8]> {
    match stream.0 {}
}

pub(in crate::wire) fn is_tls_error(_: &io::Error) -> bool {
    false
}

/// A type without values, because TLS streams need the feature `tls`.
pub(in crate::wire) struct TlsStream<S>(Infallible, PhantomData<S>);

impl<S: Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl<S: Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
