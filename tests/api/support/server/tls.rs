use super::{
    connection::Socket,
    fault::{Accept, FaultServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    io,
    ops::Deref,
    sync::{Arc, LazyLock},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The certificate a server presents. All but `WrongHost` are for `localhost` and 127.0.0.1.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    Good,
    /// For `elsewhere.example`.
    WrongHost,
    /// Expired in 2001.
    Expired,
    /// Valid from the year 4000.
    NotYetValid,
    /// Self-signed.
    SelfSigned,
    /// Signed by an authority other than the one of [`ca_pem`].
    UnknownIssuer,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Signs the good certificate and most of the bad ones.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| authority("Test Authority"));

/// The PEM certificate of the authority that clients of a [`TlsServer`] trust.
pub fn ca_pem() -> String {
    AUTHORITY.pem()
}

/// A [`FaultServer`] over TLS, with HTTP/1.1 by ALPN.
pub struct TlsServer(FaultServer);

impl TlsServer {
    pub fn start(leaf: ServerCertificate) -> Self {
        let config = Arc::new(server_config(leaf));
        Self(FaultServer::start_with(Tls(TlsAcceptor::from(config))))
    }

    /// `https://localhost:<port>`, without a trailing slash.
    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.address().port())
    }

    /// The URL of `path` with the host name. `path` must begin with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// The URL of `path` with the IP address, for which the certificate is also valid.
    pub fn url_by_address(&self, path: &str) -> String {
        format!("https://{}{path}", self.address())
    }
}

impl Deref for TlsServer {
    type Target = FaultServer;

    fn deref(&self) -> &FaultServer {
        &self.0
    }
}

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl Accept for Tls {
    type Socket = TlsStream<TcpStream>;

    async fn accept(&self, stream: TcpStream) -> io::Result<Self::Socket> {
        self.0.accept(stream).await
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_on_close(&self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}

pub fn server_config(leaf: ServerCertificate) -> ServerConfig {
    let (chain, key) = certificate(leaf);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key matches the certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn certificate(leaf: ServerCertificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let params = leaf_params(leaf);
    let signed = match leaf {
        ServerCertificate::SelfSigned => params.self_signed(&key),
        ServerCertificate::UnknownIssuer => {
            params.signed_by(&key, &*authority("Unknown Authority"))
        }
        _ => params.signed_by(&key, &**AUTHORITY),
    };
    let chain = vec![signed.expect("a certificate").der().clone()];
    (chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn leaf_params(leaf: ServerCertificate) -> CertificateParams {
    let names: &[&str] = match leaf {
        ServerCertificate::WrongHost => &["elsewhere.example"],
        _ => &["localhost", "127.0.0.1"],
    };
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match leaf {
        ServerCertificate::Expired => params.not_after = date_time_ymd(2001, 1, 1),
        ServerCertificate::NotYetValid => params.not_before = date_time_ymd(4000, 1, 1),
        _ => {}
    }
    params
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}
