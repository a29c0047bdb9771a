//! Stands in for `tls` when the feature is off: there are no settings and no streams, and an
//! `https` URL is an invalid request.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use url::Host;

use crate::error::{Error, ErrorKind};

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {}

pub(super) struct Tls;

impl Tls {
    pub(super) fn new(_: Settings) -> Self {
        Self
    }

    pub(super) async fn prepare(&self) -> Result<&Infallible, Error> {
        Err(Error::new(
            ErrorKind::InvalidRequest,
            "https needs the feature `tls` of this crate",
        ))
    }
}

pub(super) async fn handshake(
    never: &Infallible,
    _: &Host<&str>,
    _: TcpStream,
    _: bool,
) -> Result<Stream, Error> {
    match *never {}
}

pub(super) fn alpn(stream: &Stream) -> Option<&[u8]> {
    match stream.0 {}
}

pub(super) fn is_tls(_: &io::Error) -> bool {
    false
}

pub(super) struct Stream(Infallible);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for Stream {
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
