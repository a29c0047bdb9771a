//! TLS, through rustls with the ring provider.

mod lenient;

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
pub(super) struct Connector {
    tls: TlsConnector,
    http2: bool,
}

/// Whom to trust besides the system's roots, and who to be.
#[derive(Clone)]
pub(crate) struct Settings {
    roots: RootCertStore,
    /// By origin: to be known to one server is no reason to be known to all.
    identities: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Nothing of a server's certificate counts but that its key is used.
    pub(crate) any_certificate: bool,
    /// A certificate may be for another name.
    pub(crate) any_name: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roots: RootCertStore::empty(),
            identities: HashMap::new(),
            any_certificate: false,
            any_name: false,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
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
        for certificate in chain(text)? {
            self.roots.add(certificate).map_err(error)?;
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
        let key = PrivateKeyDer::from_pem_slice(key).map_err(error)?;
        let provider = ring::default_provider();
        let identity =
            CertifiedKey::from_der(chain(certificates)?, key, &provider).map_err(error)?;
        self.identities.insert(origin, Arc::new(identity));
        Ok(())
    }
}

fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(text);
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(error)?;
    match chain.is_empty() {
        true => Err(error("there is no certificate in the PEM")),
        false => Ok(chain),
    }
}

/// One for each wire, so that sessions are resumed.
pub(super) struct Tls {
    settings: Settings,
    /// With the system's.
    roots: OnceCell<Arc<RootCertStore>>,
    anonymous: OnceCell<TlsConnector>,
    /// For the origins that are shown a certificate.
    known: HashMap<Box<str>, OnceCell<TlsConnector>>,
    proxies: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new(settings: Settings) -> Self {
        let known = settings.identities.keys();
        Self {
            known: known.map(|key| (key.clone(), OnceCell::new())).collect(),
            settings,
            roots: OnceCell::new(),
            anonymous: OnceCell::new(),
            proxies: OnceCell::new(),
        }
    }

    /// How to speak with the server of an origin, which is offered HTTP/2 or is not. Reads the system's roots if that has
    /// not been done yet.
    pub(super) async fn for_origin(&self, origin: &str, http2: bool) -> Result<Connector, Error> {
        let connector = self.known.get(origin).unwrap_or(&self.anonymous);
        let made = connector.get_or_try_init(|| async {
            let trust = self.trust().await?;
            let identity = self.settings.identities.get(origin);
            connector_with(trust, identity.cloned())
        });
        let tls = made.await.cloned()?;
        Ok(Connector { tls, http2 })
    }

    /// How to speak with a proxy: what a server is not asked for is asked of a proxy all the same, and what it is told a
    /// proxy is not.
    pub(super) async fn for_proxies(&self) -> Result<Connector, Error> {
        let made = self.proxies.get_or_try_init(|| async {
            let verifier = verifier(self.roots().await?)?;
            connector_with(verifier, None)
        });
        let tls = made.await.cloned()?;
        let http2 = false;
        Ok(Connector { tls, http2 })
    }

    async fn trust(&self) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        if self.settings.any_certificate {
            return Ok(lenient::any_certificate());
        }
        let strict = verifier(self.roots().await?)?;
        Ok(match self.settings.any_name {
            true => lenient::any_name(strict),
            false => strict,
        })
    }

    async fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let roots = self.roots.get_or_try_init(|| async {
            let given = self.settings.roots.clone();
            spawn_blocking(|| load(given)).await.map_err(error)?
        });
        roots.await.cloned()
    }
}

fn verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    Ok(verifier.map_err(error)?)
}

fn connector_with(
    trust: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<TlsConnector, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(error)?
        .dangerous()
        .with_custom_certificate_verifier(trust);
    let config = match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) async fn handshake<S>(
    connector: &Connector,
    host: &Host<&str>,
    stream: S,
) -> Result<Stream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = server_name(host)?;
    let http1 = b"http/1.1".to_vec();
    let protocols = match connector.http2 {
        true => vec![b"h2".to_vec(), http1],
        false => vec![http1],
    };
    connector
        .tls
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
pub(super) fn alpn<S>(stream: &Stream<S>) -> Option<&[u8]> {
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
fn load(mut roots: RootCertStore) -> Result<Arc<RootCertStore>, Error> {
    let system = rustls_native_certs::load_native_certs();
    for failure in &system.errors {
        tracing::warn!(%failure, "some of the system's root certificates could not be read");
    }
    roots.add_parsable_certificates(system.certs);
    match roots.is_empty() {
        true => Err(error("there is no root certificate to trust")),
        false => Ok(Arc::new(roots)),
    }
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
