//! TLS, through rustls with the ring provider.

mod insecure;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use crate::error::{Error, ErrorKind};

pub(super) type Stream<S> = TlsStream<S>;
/// How to speak with one peer, and in what.
pub(super) struct AlpnConnector {
    tls: TlsConnector,
    offer_http2: bool,
}

/// Whom to trust besides the system's roots, and who to be.
#[derive(Clone)]
pub(crate) struct TlsConfig {
    roots: RootCertStore,
    /// By origin: to be known to one server is no reason to be known to all.
    identities: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Nothing of a server's certificate counts but that its key is used.
    pub(crate) accept_any_certificate: bool,
    /// A certificate may be for another name.
    pub(crate) accept_any_name: bool,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            roots: RootCertStore::empty(),
            identities: HashMap::new(),
            accept_any_certificate: false,
            accept_any_name: false,
        }
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Trusts every certificate of a PEM text, or the one that is given in DER.
    ///
    /// # Errors
    ///
    /// `Tls` if there is no certificate in it, or a malformed one.
    pub(crate) fn add_roots(&mut self, text: &[u8]) -> Result<(), Error> {
        const PEM: &[u8] = b"-----BEGIN";
        if !text.windows(PEM.len()).any(|window| window == PEM) {
            return self.roots.add(text.to_vec().into()).map_err(tls_error);
        }
        for certificate in parse_chain(text)? {
            self.roots.add(certificate).map_err(tls_error)?;
        }
        Ok(())
    }

    /// Shows this certificate, of which this is the key, to the server of `origin`.
    ///
    /// # Errors
    ///
    /// `Tls` if either is missing or malformed, or they do not belong together.
    pub(crate) fn add_identity(
        &mut self,
        origin: Box<str>,
        certificates: &[u8],
        key: &[u8],
    ) -> Result<(), Error> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(tls_error)?;
        let provider = ring::default_provider();
        let identity = CertifiedKey::from_der(parse_chain(certificates)?, key, &provider)
            .map_err(tls_error)?;
        self.identities.insert(origin, Arc::new(identity));
        Ok(())
    }
}

fn parse_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(text);
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(tls_error)?;
    match chain.is_empty() {
        true => Err(tls_error("there is no certificate in the PEM")),
        false => Ok(chain),
    }
}

/// One for each wire, so that sessions are resumed.
pub(super) struct TlsConnectors {
    config: TlsConfig,
    /// With the system's.
    roots: OnceCell<Arc<RootCertStore>>,
    connector_without_identity: OnceCell<TlsConnector>,
    /// For the origins that are shown a certificate.
    connectors_with_identity: HashMap<Box<str>, OnceCell<TlsConnector>>,
    proxy_connector: OnceCell<TlsConnector>,
}

impl TlsConnectors {
    pub(super) fn new(config: TlsConfig) -> Self {
        let origins = config.identities.keys();
        Self {
            connectors_with_identity: origins.map(|key| (key.clone(), OnceCell::new())).collect(),
            config,
            roots: OnceCell::new(),
            connector_without_identity: OnceCell::new(),
            proxy_connector: OnceCell::new(),
        }
    }

    /// How to speak with the server of an origin, which is offered HTTP/2 or is not. Reads the system's roots if that has
    /// not been done yet.
    pub(super) async fn for_origin(
        &self,
        origin: &str,
        offer_http2: bool,
    ) -> Result<AlpnConnector, Error> {
        let connector = self
            .connectors_with_identity
            .get(origin)
            .unwrap_or(&self.connector_without_identity);
        let connector = connector.get_or_try_init(|| async {
            let verifier = self.origin_verifier().await?;
            let identity = self.config.identities.get(origin);
            new_connector(verifier, identity.cloned())
        });
        let tls = connector.await.cloned()?;
        Ok(AlpnConnector { tls, offer_http2 })
    }

    /// How to speak with a proxy: what a server is not asked for is asked of a proxy all the same, and what it is told a
    /// proxy is not.
    pub(super) async fn for_proxies(&self) -> Result<AlpnConnector, Error> {
        let connector = self.proxy_connector.get_or_try_init(|| async {
            let verifier = webpki_verifier(self.roots().await?)?;
            new_connector(verifier, None)
        });
        let tls = connector.await.cloned()?;
        let offer_http2 = false;
        Ok(AlpnConnector { tls, offer_http2 })
    }

    async fn origin_verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if self.config.accept_any_certificate {
            return Ok(insecure::accept_any_certificate());
        }
        let strict = webpki_verifier(self.roots().await?)?;
        Ok(match self.config.accept_any_name {
            true => insecure::accept_any_name(strict),
            false => strict,
        })
    }

    async fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let roots = self.roots.get_or_try_init(|| async {
            let added = self.config.roots.clone();
            spawn_blocking(|| load_system_roots(added))
                .await
                .map_err(tls_error)?
        });
        roots.await.cloned()
    }
}

fn webpki_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    Ok(verifier.map_err(tls_error)?)
}

fn new_connector(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<TlsConnector, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) async fn handshake<S>(
    connector: &AlpnConnector,
    host: &Host<&str>,
    stream: S,
) -> Result<Stream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = server_name(host)?;
    let http1 = b"http/1.1".to_vec();
    let protocols = match connector.offer_http2 {
        true => vec![b"h2".to_vec(), http1],
        false => vec![http1],
    };
    connector
        .tls
        .with_alpn(protocols)
        .connect(name, stream)
        .await
        .map_err(|failure| match is_tls_error(&failure) {
            true => tls_error(failure),
            // The connection broke down: nobody has objected to anything.
            false => Error::new(ErrorKind::Connect, failure),
        })
}

/// The protocol that was agreed on.
pub(super) fn alpn_protocol<S>(stream: &Stream<S>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

fn server_name(host: &Host<&str>) -> Result<ServerName<'static>, Error> {
    match *host {
        Host::Ipv4(ip) => Ok(IpAddr::V4(ip).into()),
        Host::Ipv6(ip) => Ok(IpAddr::V6(ip).into()),
        // The dot that makes a name absolute is no part of it here (RFC 6066, 3).
        Host::Domain(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name))
            .map(|name| name.to_owned())
            .map_err(tls_error),
    }
}

/// Whether an I/O error is TLS's own, such as an alert, and not that of the stream below.
pub(super) fn is_tls_error(failure: &io::Error) -> bool {
    let inner = failure.get_ref();
    inner
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some()
}

/// Reads files, so it belongs on the blocking pool.
fn load_system_roots(mut roots: RootCertStore) -> Result<Arc<RootCertStore>, Error> {
    let system = rustls_native_certs::load_native_certs();
    for failure in &system.errors {
        tracing::warn!(%failure, "some of the system's root certificates could not be read");
    }
    roots.add_parsable_certificates(system.certs);
    match roots.is_empty() {
        true => Err(tls_error("there is no root certificate to trust")),
        false => Ok(Arc::new(roots)),
    }
}

fn tls_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
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
