//! TLS through rustls, with the ring provider.

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
pub(in crate::wire) use tokio_rustls::client::TlsStream;
use url::Host;

use crate::error::{Error, ErrorKind};

/// A TLS connector, and whether it offers HTTP/2 (ALPN).
pub(super) struct AlpnConnector {
    tls_connector: TlsConnector,
    offer_http2: bool,
}

/// The trusted root certificates, the client certificates, and the certificate checks to skip.
#[derive(Clone)]
pub(crate) struct TlsConfig {
    /// Root certificates that are trusted in addition to the system's.
    extra_roots: RootCertStore,
    /// Client certificates by origin. Each certificate is presented only to its origin.
    client_identities: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Accepts every certificate. The server must still prove that it has the private key of the
    /// certificate.
    pub(crate) accept_any_certificate: bool,
    /// Accepts a certificate that is issued for another host name.
    pub(crate) accept_any_host_name: bool,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            extra_roots: RootCertStore::empty(),
            client_identities: HashMap::new(),
            accept_any_certificate: false,
            accept_any_host_name: false,
        }
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Trusts all certificates in a PEM text, or a single certificate in DER.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Tls`] if `text` contains no certificate or a malformed one.
    pub(crate) fn add_roots(&mut self, text: &[u8]) -> Result<(), Error> {
        const PEM_HEADER: &[u8] = b"-----BEGIN";
        if !text
            .windows(PEM_HEADER.len())
            .any(|window| window == PEM_HEADER)
        {
            return self
                .extra_roots
                .add(text.to_vec().into())
                .map_err(tls_error);
        }
        for certificate in parse_pem_certificates(text)? {
            self.extra_roots.add(certificate).map_err(tls_error)?;
        }
        Ok(())
    }

    /// Adds the client certificate that is presented to `origin`.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Tls`] if the certificate or the key is missing or malformed, or if they
    /// do not match.
    pub(crate) fn add_identity(
        &mut self,
        origin: Box<str>,
        certificates: &[u8],
        key: &[u8],
    ) -> Result<(), Error> {
        let chain = parse_pem_certificates(certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(tls_error)?;
        let provider = ring::default_provider();
        let identity = CertifiedKey::from_der(chain, key, &provider).map_err(tls_error)?;
        self.client_identities.insert(origin, Arc::new(identity));
        Ok(())
    }
}

fn parse_pem_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(text);
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(tls_error)?;
    if chain.is_empty() {
        return Err(tls_error("there is no certificate in the PEM"));
    }
    Ok(chain)
}

/// The TLS connectors of one fetcher. Each is created at first use.
///
/// A connector is kept because it stores the TLS sessions that later connections resume.
pub(in crate::wire) struct TlsConnectors {
    tls_config: TlsConfig,
    /// The root certificates of `tls_config` and those of the system.
    all_roots: OnceCell<Arc<RootCertStore>>,
    connector_without_identity: OnceCell<TlsConnector>,
    /// The connectors that present a client certificate, by origin. Each key of
    /// `tls_config.client_identities` has a connector.
    connectors_with_identity: HashMap<Box<str>, OnceCell<TlsConnector>>,
    proxy_connector: OnceCell<TlsConnector>,
}

impl TlsConnectors {
    pub(in crate::wire) fn new(tls_config: TlsConfig) -> Self {
        let origins = tls_config.client_identities.keys();
        Self {
            connectors_with_identity: origins.map(|key| (key.clone(), OnceCell::new())).collect(),
            tls_config,
            all_roots: OnceCell::new(),
            connector_without_identity: OnceCell::new(),
            proxy_connector: OnceCell::new(),
        }
    }

    /// Returns the connector for an origin. Loads the system's root certificates at first use.
    pub(super) async fn connector_for_origin(
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
            let identity = self.tls_config.client_identities.get(origin);
            new_connector(verifier, identity.cloned())
        });
        let tls_connector = connector.await.cloned()?;
        Ok(AlpnConnector {
            tls_connector,
            offer_http2,
        })
    }

    /// Returns the connector for all proxies. It verifies the proxy's certificate and presents no
    /// client certificate. The `accept_any_` settings and the client certificates apply to origins
    /// only.
    pub(super) async fn connector_for_proxies(&self) -> Result<AlpnConnector, Error> {
        let connector = self.proxy_connector.get_or_try_init(|| async {
            let verifier = webpki_verifier(self.load_all_roots().await?)?;
            new_connector(verifier, None)
        });
        let tls_connector = connector.await.cloned()?;
        let offer_http2 = false;
        Ok(AlpnConnector {
            tls_connector,
            offer_http2,
        })
    }

    async fn origin_verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if self.tls_config.accept_any_certificate {
            return Ok(insecure::any_certificate_verifier());
        }
        let strict = webpki_verifier(self.load_all_roots().await?)?;
        Ok(if self.tls_config.accept_any_host_name {
            insecure::any_host_name_verifier(strict)
        } else {
            strict
        })
    }

    async fn load_all_roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let roots = self.all_roots.get_or_try_init(|| async {
            let roots = self.tls_config.extra_roots.clone();
            spawn_blocking(|| add_system_roots(roots))
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
) -> Result<TlsStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = server_name(host)?;
    let http1 = b"http/1.1".to_vec();
    let protocols = if connector.offer_http2 {
        vec![b"h2".to_vec(), http1]
    } else {
        vec![http1]
    };
    connector
        .tls_connector
        .with_alpn(protocols)
        .connect(name, stream)
        .await
        .map_err(|error| {
            if is_tls_error(&error) {
                tls_error(error)
            } else {
                // Not a TLS error: the connection was lost during the handshake.
                Error::new(ErrorKind::Connect, error)
            }
        })
}

pub(in crate::wire) fn alpn_protocol<S>(stream: &TlsStream<S>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

fn server_name(host: &Host<&str>) -> Result<ServerName<'static>, Error> {
    match *host {
        Host::Ipv4(ip) => Ok(IpAddr::V4(ip).into()),
        Host::Ipv6(ip) => Ok(IpAddr::V6(ip).into()),
        // The server name in SNI has no trailing dot (RFC 6066 §3).
        Host::Domain(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name))
            .map(|name| name.to_owned())
            .map_err(tls_error),
    }
}

/// Returns whether an I/O error is from TLS (such as an alert) and not from the underlying stream.
pub(in crate::wire) fn is_tls_error(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some()
}

/// Adds the system's root certificates to `roots`. Blocks the thread, because it reads files.
fn add_system_roots(mut roots: RootCertStore) -> Result<Arc<RootCertStore>, Error> {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "failed to load some of the system's root certificates");
    }
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(tls_error("there is no trusted root certificate"));
    }
    Ok(Arc::new(roots))
}

fn tls_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Tls, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_name_has_no_trailing_dot() {
        for name in ["example.org", "example.org."] {
            let server_name = server_name(&Host::Domain(name)).unwrap();
            assert_eq!(server_name.to_str(), "example.org");
        }
        let error = server_name(&Host::Domain("example..org")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
    }
}
