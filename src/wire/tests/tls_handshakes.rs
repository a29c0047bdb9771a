//! Failed TLS handshakes, ALPN, and client certificates.

use std::io;
use std::net::TcpListener;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};

use super::*;
use crate::wire::connect::TlsConfig;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn new_root() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(root: &Issuer, name: &str) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, root).unwrap(), key)
}

/// The configuration of a server with a certificate for localhost.
fn server_config(
    root: &Issuer,
    versions: &[&'static SupportedProtocolVersion],
    require_client_certificate: bool,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let (certificate, key) = issue(root, "localhost");
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = if require_client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn tls_server(config: Arc<ServerConfig>) -> Server {
    Server::new(move |stream, _| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while read_head(&mut stream) {
            let presented = stream.conn.peer_certificates().map_or(0, <[_]>::len);
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
            let _ = stream.write_all(format!("{head}{presented}").as_bytes());
        }
        drain(&mut stream.sock);
    })
}

fn trusting_config(root: &Issuer) -> TlsConfig {
    let mut tls = TlsConfig::default();
    tls.add_roots(root.der()).unwrap();
    tls
}

fn client(tls_config: TlsConfig) -> Client {
    Client::with(WireConfig {
        tls_config,
        ..WireConfig::default()
    })
}

fn localhost(origin: &str, port: u16) -> ConnectionTarget<'_> {
    ConnectionTarget {
        origin,
        is_https: true,
        host: Host::Domain("localhost"),
        port,
        proxy: None,
    }
}

async fn fetch(client: &Client, origin: &str, port: u16) -> Result<Bytes, ErrorKind> {
    let sent = client
        .send_to(localhost(origin, port), get(), ConnectionSource::Pooled)
        .await;
    let (_, mut incoming) = sent.map_err(|failure| failure.error.kind())?;
    client
        .read(&mut incoming)
        .await
        .map_err(|error| error.kind())
}

/// Reads the client's first record. Closing with unread bytes would reset the connection, and the
/// client could lose what was sent to it.
fn read_client_hello(stream: &mut TcpStream) {
    let mut head = [0; 5];
    if stream.read_exact(&mut head).is_ok() {
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        let _ = stream.read_exact(&mut hello);
    }
}

/// A TLS record with a fatal alert (RFC 8446 §6).
fn fatal_alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

/// A `ServerHello` with the minor version `version`, a cipher suite of TLS 1.2, and no extensions.
fn server_hello(version: u8) -> Vec<u8> {
    let mut hello = vec![2, 0, 0, 38, 3, version];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2f, 0]);
    let mut record = vec![22, 3, version, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[tokio::test]
async fn an_invalid_handshake_is_a_tls_error() {
    let mut responses = vec![
        ("http", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("smtp", b"220 mail.example ESMTP\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        (
            "an endless record",
            [&[22, 3, 3, 0xff, 0xff][..], &[0; 64]].concat(),
        ),
        ("data first", vec![23, 3, 3, 0, 1, 0]),
        ("cipher change first", vec![20, 3, 3, 0, 1, 1]),
        ("a hello of ours", vec![22, 3, 3, 0, 4, 1, 0, 0, 0]),
        ("finished first", vec![22, 3, 3, 0, 4, 20, 0, 0, 0]),
        ("an empty hello", vec![22, 3, 3, 0, 4, 2, 0, 0, 0]),
        ("tls 1.1", server_hello(2)),
        ("tls 1.0", server_hello(1)),
        ("ssl 3", server_hello(0)),
    ];
    for description in [
        10, 20, 40, 42, 47, 48, 49, 50, 51, 70, 71, 80, 86, 112, 116, 120, 255,
    ] {
        responses.push(("an alert", fatal_alert(description)));
    }
    let root = new_root();
    for (case, response) in responses {
        let server = Server::new({
            let response = response.clone();
            move |mut stream, _| {
                read_client_hello(&mut stream);
                let _ = stream.write_all(&response);
                drain(&mut stream);
            }
        });
        let client = client(trusting_config(&root));
        let kind = fetch(&client, "https://localhost", server.port)
            .await
            .unwrap_err();
        assert_eq!(kind, ErrorKind::Tls, "{case} {response:?}");
        assert!(!client.clock.maybe_sent(), "{case}");
    }
}

/// Starts a proxy that forwards `after` bytes from the server and then closes. Returns its port.
fn truncating_proxy(server: u16, after: usize) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || -> io::Result<()> {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
        let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
        thread::spawn(move || io::copy(&mut from, &mut to));
        io::copy(&mut far.take(after as u64), &mut &near)?;
        near.shutdown(std::net::Shutdown::Write)
    });
    Ok(port)
}

#[tokio::test]
async fn a_truncated_handshake_is_a_connect_error() {
    let root = new_root();
    for version in [&TLS12, &TLS13] {
        let server = tls_server(server_config(&root, &[version], false, &[]));
        for after in [0, 1, 4, 5, 6, 40, 100, 300, 500] {
            let port = truncating_proxy(server.port, after).unwrap();
            let client = client(trusting_config(&root));
            let kind = fetch(&client, "https://localhost", port).await.unwrap_err();
            assert_eq!(kind, ErrorKind::Connect, "{version:?} after {after}");
            assert!(!client.clock.maybe_sent());
        }
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_supported_and_an_unknown_protocol_is_rejected() {
    let root = new_root();
    let client = client(trusting_config(&root));
    for (versions, alpn) in [
        (&[&TLS12][..], &[&b"http/1.1"[..]][..]),
        (&[&TLS13], &[b"http/1.1"]),
        (&[&TLS13, &TLS12], &[]),
    ] {
        let server = tls_server(server_config(&root, versions, false, alpn));
        let origin = format!("https://localhost:{}", server.port);
        assert_eq!(fetch(&client, &origin, server.port).await.unwrap(), "0");
    }
    for version in [&TLS12, &TLS13] {
        let server = tls_server(server_config(&root, &[version], false, &[b"imap"]));
        let origin = format!("https://localhost:{}", server.port);
        let kind = fetch(&client, &origin, server.port).await.unwrap_err();
        assert_eq!(kind, ErrorKind::Tls, "no protocol in common");
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented_only_to_its_origin() {
    let root = new_root();
    let (certificate, key) = issue(&root, "client");
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    let mut tls = trusting_config(&root);
    tls.add_identity("https://localhost".into(), chain.as_bytes(), key.as_bytes())
        .unwrap();
    assert!(!format!("{tls:?}").contains(key.lines().nth(1).unwrap()));
    let client = client(tls);
    for version in [&TLS12, &TLS13] {
        let server = tls_server(server_config(&root, &[version], true, &[]));
        let presented = client
            .send_to(
                localhost("https://localhost", server.port),
                get(),
                ConnectionSource::Fresh,
            )
            .await;
        let (_, mut incoming) = presented.unwrap();
        assert_eq!(client.read(&mut incoming).await.unwrap(), "1");
        drop(incoming);
        // Without a certificate the server rejects the client.
        let kind = fetch(&client, "https://localhost:1", server.port).await;
        assert_eq!(kind.unwrap_err(), ErrorKind::Tls, "{version:?}");
    }
}

#[test]
fn adding_an_invalid_client_certificate_fails() {
    let root = new_root();
    let (certificate, key) = issue(&root, "client");
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    let other = KeyPair::generate().unwrap().serialize_pem();
    let broken = chain.replace("MI", "!!");
    for (case, chain, key) in [
        ("no certificate", "", &*key),
        ("no key", &*chain, ""),
        ("a key for a certificate", &*key, &*key),
        ("a certificate for a key", &*chain, &*chain),
        ("the key of another", &*chain, &*other),
        ("a broken certificate", &*broken, &*key),
    ] {
        let added = TlsConfig::default().add_identity(
            "https://localhost".into(),
            chain.as_bytes(),
            key.as_bytes(),
        );
        assert_eq!(added.unwrap_err().kind(), ErrorKind::Tls, "{case}");
    }
}
