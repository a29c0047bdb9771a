//! HTTPS with valid and invalid certificates.
#![cfg(feature = "tls")]

use crate::support::server::{ServerCertificate, TlsServer, ca_pem, expected_body};
use fanout::{ErrorKind, Fetcher, FetcherBuilder, Request};

fn fetcher_trusting_test_ca() -> Fetcher {
    let builder: FetcherBuilder = Fetcher::builder().add_root_certificates(ca_pem());
    builder.build().unwrap()
}

#[tokio::test]
async fn a_good_certificate_is_accepted_by_name_and_by_address() {
    let server = TlsServer::start(ServerCertificate::Good);
    let fetcher = fetcher_trusting_test_ca();
    for url in [server.url("/ok/1"), server.url_by_address("/ok/1")] {
        let response = fetcher.fetch(url).await.unwrap();
        assert_eq!(response.bytes()[..], expected_body(1));
        assert!(response.timings().connect() > std::time::Duration::ZERO);
    }
}

#[tokio::test]
async fn tls_connection_is_reused() {
    let server = TlsServer::start(ServerCertificate::Good);
    let fetcher = fetcher_trusting_test_ca();
    for n in 0..10 {
        let url = server.url(&format!("/ok/{n}"));
        let response = fetcher.fetch(url).await.unwrap();
        assert_eq!(response.bytes()[..], expected_body(n));
    }
    assert_eq!(server.counts().total_connections, 1);
    let urls = (0..200).map(|n| server.url(&format!("/ok/{n}")));
    let results = fetcher.batch(urls).concurrency(5).gather().await;
    for (n, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap();
        assert_eq!(response.bytes()[..], expected_body(n as u64));
    }
    assert!(server.counts().total_connections <= 5);
}

#[tokio::test]
async fn bad_certificate_is_an_unsent_error_and_is_not_retried() {
    for certificate in [
        ServerCertificate::WrongHost,
        ServerCertificate::Expired,
        ServerCertificate::NotYetValid,
        ServerCertificate::SelfSigned,
        ServerCertificate::UnknownIssuer,
    ] {
        let server = TlsServer::start(certificate);
        let request = Request::get(server.url("/ok/1")).bearer_auth("s3cr3t");
        let error = fetcher_trusting_test_ca().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{certificate:?}: {error:?}");
        assert!(error.is_connect() && !error.maybe_sent(), "{certificate:?}");
        assert_eq!(error.attempts().len(), 1, "{certificate:?}");
        let counts = server.wait_for_open_connections(0).await;
        assert_eq!(
            (counts.total_connections, counts.requests),
            (1, 0),
            "{certificate:?}"
        );
    }
}

#[tokio::test]
async fn unknown_authority_is_not_trusted() {
    let server = TlsServer::start(ServerCertificate::Good);
    let error = Fetcher::new().fetch(server.url("/ok/1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_eq!(server.counts().requests, 0);
}

#[tokio::test]
async fn bad_certificate_fails_only_its_own_inputs() {
    let (good, bad) = (
        TlsServer::start(ServerCertificate::Good),
        TlsServer::start(ServerCertificate::Expired),
    );
    let urls = (0..100).map(|n| match n % 5 {
        4 => bad.url(&format!("/ok/{n}")),
        _ => good.url(&format!("/ok/{n}")),
    });
    let results = fetcher_trusting_test_ca()
        .batch(urls)
        .concurrency(10)
        .gather()
        .await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(response) => assert_eq!(response.bytes()[..], expected_body(n as u64)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Tls),
        }
        assert_eq!(result.is_err(), n % 5 == 4, "input {n}");
    }
    assert_eq!((good.counts().requests, bad.counts().requests), (80, 0));
}

#[tokio::test]
async fn faults_over_tls_have_the_same_error_kinds() {
    let server = TlsServer::start(ServerCertificate::Good);
    for (path, kind) in [
        ("/close-before", ErrorKind::Closed),
        ("/reset-before", ErrorKind::Closed),
        ("/half-head", ErrorKind::Closed),
        ("/reset-after-head", ErrorKind::Reset),
        ("/truncated", ErrorKind::Truncated),
        ("/malformed", ErrorKind::Protocol),
    ] {
        let error = fetcher_trusting_test_ca()
            .fetch(server.url(path))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{path}: {error:?}");
        assert!(error.maybe_sent(), "{path}");
    }
    assert_eq!(
        fetcher_trusting_test_ca()
            .fetch(server.url("/until-close/1"))
            .await
            .unwrap()
            .bytes()[..],
        expected_body(1)
    );
}

#[test]
fn invalid_certificate_pem_fails_in_build() {
    for pem in ["", "no certificate at all"] {
        let error = Fetcher::builder().add_root_certificates(pem).build();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Tls);
    }
}
