//! TLS, through rustls with the ring provider.

use std::io;
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
    /// Trusts every certificate of a PEM file.
    ///
    /// # Errors
    ///
    /// `Tls` if it is not PEM, or holds no certificate or a malformed one.
    pub(crate) fn add_pem(&mut self, pem: &[u8]) -> Result<(), Error> {
        let before = self.roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
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
) -> Result<Stream, Error> {
    let name = match *host {
        Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::V4(ip)),
        Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::V6(ip)),
        // The dot that makes a name absolute is no part of it here (RFC 6066, 3).
        Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.'))
            .map_err(error)?
            .to_owned(),
    };
    connector
        .connect(name, stream)
        .await
        .map_err(|failure| match is_tls(&failure) {
            true => error(failure),
            // The connection broke down: nobody has objected to anything.
            false => Error::new(ErrorKind::Connect, failure),
        })
}

/// Whether an I/O error is TLS's own, such as an alert, and not that of the stream below.
pub(super) fn is_tls(failure: &io::Error) -> bool {
    failure
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
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
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(error)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Tls, source)
}
