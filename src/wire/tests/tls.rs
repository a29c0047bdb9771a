//! Certificates of trusted and untrusted authorities, session resumption, and lost connections.

use std::error::Error as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::wire::connect::TlsConfig;

struct TestCa(CertifiedIssuer<'static, KeyPair>);

impl TestCa {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn server(&self, params: CertificateParams, handler: Handler) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        tls_server(certificate.der().to_vec(), &key, handler)
    }

    fn client(&self) -> Client {
        let mut tls = TlsConfig::default();
        tls.add_roots(self.0.pem().as_bytes()).unwrap();
        Client::with(WireConfig {
            tls_config: tls,
            ..WireConfig::default()
        })
    }
}

type Handler = fn(&mut StreamOwned<ServerConnection, TcpStream>);

fn tls_server(certificate: Vec<u8>, key: &KeyPair, handler: Handler) -> Server {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Server::new(move |stream, _| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        handler(&mut StreamOwned::new(connection, stream));
    })
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
    CertificateParams::new(names).unwrap()
}

fn localhost(port: u16) -> ConnectionTarget<'static> {
    ConnectionTarget {
        origin: "https://localhost",
        is_https: true,
        host: Host::Domain("localhost"),
        port,
        proxy: None,
    }
}

fn respond_ok(stream: &mut StreamOwned<ServerConnection, TcpStream>) {
    while respond(stream, OK) {}
}

async fn assert_rejected(client: &Client, port: u16) -> String {
    let failure = client
        .send_to(localhost(port), get(), ConnectionSource::Pooled)
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Tls);
    assert!(failure.no_response && failure.request.is_some() && !client.clock.maybe_sent());
    format!("{:?}", failure.error.source().unwrap())
}

#[tokio::test]
async fn a_certificate_of_a_trusted_issuer_is_accepted() {
    let ca = TestCa::new();
    let server = ca.server(leaf_params(&["localhost"]), respond_ok);
    let client = ca.client();
    for _ in 0..3 {
        let (_, mut incoming) = client
            .send_to(localhost(server.port), get(), ConnectionSource::Pooled)
            .await
            .unwrap();
        assert_eq!(client.read(&mut incoming).await.unwrap(), "ok");
    }
    assert_eq!((server.accepted(), client.idle_connections()), (1, 1));
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn the_protocol_is_known_after_the_first_connection() {
    let ca = TestCa::new();
    let server = ca.server(leaf_params(&["localhost"]), respond_ok);
    let client = ca.client();
    let target = localhost(server.port);
    assert!(client.wire.is_protocol_unknown(&target));
    let sent = client.send_to(target.clone(), get(), ConnectionSource::Pooled);
    sent.await.unwrap();
    assert!(!client.wire.is_protocol_unknown(&target));
    let plain = plain_target("http://localhost", server.port);
    assert!(
        !client.wire.is_protocol_unknown(&plain),
        "plain HTTP negotiates nothing"
    );
}

#[tokio::test]
async fn a_certificate_for_an_address_is_accepted() {
    let ca = TestCa::new();
    let server = ca.server(leaf_params(&["127.0.0.1"]), respond_ok);
    let target = ConnectionTarget {
        host: Host::Ipv4(Ipv4Addr::LOCALHOST),
        ..localhost(server.port)
    };
    let client = ca.client();
    client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await
        .unwrap();
    assert_rejected(&client, server.port).await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let ca = TestCa::new();
    let server = ca.server(leaf_params(&["localhost"]), |stream| {
        read_head(stream);
        let resumed = stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let body = if resumed { "resumed" } else { "as new!" };
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .unwrap();
    });
    let client = ca.client();
    for expected in ["as new!", "resumed"] {
        let target = localhost(server.port);
        let (_, mut incoming) = client
            .send_to(target, get(), ConnectionSource::Pooled)
            .await
            .unwrap();
        assert_eq!(client.read(&mut incoming).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_rejected() {
    let ca = TestCa::new();
    let server = ca.server(leaf_params(&["example.org"]), respond_ok);
    let source = assert_rejected(&ca.client(), server.port).await;
    assert!(source.contains("NotValidForName"), "{source}");
}

#[tokio::test]
async fn an_expired_certificate_is_rejected() {
    let ca = TestCa::new();
    let mut params = leaf_params(&["localhost"]);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    let server = ca.server(params, respond_ok);
    let source = assert_rejected(&ca.client(), server.port).await;
    assert!(source.contains("Expired"), "{source}");
}

#[tokio::test]
async fn an_unknown_issuer_is_rejected() {
    let server = TestCa::new().server(leaf_params(&["localhost"]), respond_ok);
    let source = assert_rejected(&TestCa::new().client(), server.port).await;
    assert!(
        source.contains("UnknownIssuer") || source.contains("BadSignature"),
        "{source}"
    );
}

#[tokio::test]
async fn a_self_signed_certificate_is_rejected_unless_added() {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(&["localhost"]).self_signed(&key).unwrap();
    let server = tls_server(certificate.der().to_vec(), &key, respond_ok);
    assert_rejected(&TestCa::new().client(), server.port).await;
    let mut tls = TlsConfig::default();
    tls.add_roots(certificate.der()).unwrap();
    let client = Client::with(WireConfig {
        tls_config: tls,
        ..WireConfig::default()
    });
    client
        .send_to(localhost(server.port), get(), ConnectionSource::Pooled)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_a_tls_error() {
    let server = Server::new(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        read_head(&mut stream);
    });
    assert_rejected(&TestCa::new().client(), server.port).await;
}

#[tokio::test]
async fn a_connection_lost_in_the_handshake_is_a_connect_error() {
    let server = Server::new(|stream, _| reset(stream));
    let client = TestCa::new().client();
    let target = localhost(server.port);
    let failure = client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Connect);
}

#[tokio::test]
async fn a_body_ended_by_close_requires_close_notify() {
    fn head(stream: &mut StreamOwned<ServerConnection, TcpStream>) {
        respond(stream, "HTTP/1.1 200 OK\r\n\r\nall of it?");
    }
    let ca = TestCa::new();
    let abrupt = ca.server(leaf_params(&["localhost"]), head);
    let orderly = ca.server(leaf_params(&["localhost"]), |stream| {
        head(stream);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let client = ca.client();
    let target = localhost(orderly.port);
    let (_, mut incoming) = client
        .send_to(target, get(), ConnectionSource::Fresh)
        .await
        .unwrap();
    assert_eq!(client.read(&mut incoming).await.unwrap(), "all of it?");
    let target = localhost(abrupt.port);
    let (_, mut incoming) = client
        .send_to(target, get(), ConnectionSource::Fresh)
        .await
        .unwrap();
    let kind = client.read(&mut incoming).await.unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Truncated);
}

#[test]
fn adding_an_invalid_certificate_fails() {
    for invalid in [
        &b"invalid"[..],
        &[1, 2, 3],
        b"-----BEGIN CERTIFICATE-----",
        b"",
    ] {
        let error = TlsConfig::default().add_roots(invalid).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
    }
}
