//! TLS, through rustls with the ring provider.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use crate::error::{Error, ErrorKind};

pub(super) type Stream = TlsStream<TcpStream>;

/// Whom to trust besides the system's roots.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    roots: RootCertStore,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roots: RootCertStore::empty(),
        }
    }
}

impl Settings {
    /// Trusts every certificate of a PEM text, or the one that is given in DER.
    ///
    /// # Errors
    ///
    /// `Tls` if there is no certificate in it, or a malformed one.
    pub(crate) fn add_roots(&mut self, text: &[u8]) -> Result<(), Error> {
        const PEM: &[u8] = b"-----BEGIN";
        if !text.windows(PEM.len()).any(|window| window == PEM) {
            return self.roots.add(text.to_vec().into()).map_err(error);
        }
        let before = self.roots.len();
        for certificate in CertificateDer::pem_slice_iter(text) {
            self.roots.add(certificate.map_err(error)?).map_err(error)?;
        }
        if self.roots.len() == before {
            return Err(error("there is no certificate in the PEM"));
        }
        Ok(())
    }
}

/// One for each wire, so that sessions are resumed.
pub(super) struct Tls {
    roots: RootCertStore,
    connector: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            roots: settings.roots,
            connector: OnceCell::new(),
        }
    }

    /// Reads the system's roots if that has not been done yet.
    pub(super) async fn prepare(&self) -> Result<&TlsConnector, Error> {
        self.connector
            .get_or_try_init(|| async {
                let roots = self.roots.clone();
                spawn_blocking(|| load(roots)).await.map_err(error)?
            })
            .await
    }
}

pub(super) async fn handshake(
    connector: &TlsConnector,
    host: &Host<&str>,
    stream: TcpStream,
    offers_http2: bool,
) -> Result<Stream, Error> {
    let name = server_name(host)?;
    let http1 = b"http/1.1".to_vec();
    let protocols = match offers_http2 {
        true => vec![b"h2".to_vec(), http1],
        false => vec![http1],
    };
    connector
        .with_alpn(protocols)
        .connect(name, stream)
        .await
        .map_err(|failure| match is_tls(&failure) {
            true => error(failure),
            // The connection broke down: nobody has objected to anything.
            false => Error::new(ErrorKind::Connect, failure),
        })
}

/// The protocol that was agreed on.
pub(super) fn alpn(stream: &Stream) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

fn server_name(host: &Host<&str>) -> Result<ServerName<'static>, Error> {
    match *host {
        Host::Ipv4(ip) => Ok(IpAddr::V4(ip).into()),
        Host::Ipv6(ip) => Ok(IpAddr::V6(ip).into()),
        // The dot that makes a name absolute is no part of it here (RFC 6066, 3).
        Host::Domain(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name))
            .map(|name| name.to_owned())
            .map_err(error),
    }
}

/// Whether an I/O error is TLS's own, such as an alert, and not that of the stream below.
pub(super) fn is_tls(failure: &io::Error) -> bool {
    let inner = failure.get_ref();
    inner
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some()
}

/// Reads files, so it belongs on the blocking pool.
fn load(mut roots: RootCertStore) -> Result<TlsConnector, Error> {
    let system = rustls_native_certs::load_native_certs();
    for failure in &system.errors {
        tracing::warn!(%failure, "some of the system's root certificates could not be read");
    }
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(error("there is no root certificate to trust"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(error)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Tls, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_name_is_asked_for_without_its_dot() {
        for name in ["example.org", "example.org."] {
            let asked = server_name(&Host::Domain(name)).unwrap();
            assert_eq!(asked.to_str(), "example.org");
        }
        let error = server_name(&Host::Domain("example..org")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
    }
}
