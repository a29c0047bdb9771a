//! What is secret does not leave its origin, whichever way it is sent: every status, target and kind of secret.
#![cfg(feature = "tls")]

mod server;

use fanout::{Answer, Fetcher, Mock, Request, Response};
use http::{HeaderMap, HeaderValue};
use server::{Entry, FaultServer, Leaf, TlsServer, ca_pem};

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const SECRET: &str = "s3cr3t";
/// `user:s3cr3t` in base64.
const CODED: &str = "dXNlcjpzM2NyM3Q=";

/// One request for each kind of secret.
fn with_secrets(url: &str) -> [(&'static str, Request); 6] {
    let mut marked = HeaderValue::from_static(SECRET);
    marked.set_sensitive(true);
    let rest = url.strip_prefix("http://").unwrap();
    [
        (
            "user-info",
            Request::get(format!("http://user:{SECRET}@{rest}")),
        ),
        (
            "authorization",
            Request::get(url).header("authorization", format!("Digest {SECRET}")),
        ),
        ("bearer", Request::get(url).bearer(SECRET)),
        (
            "cookie",
            Request::get(url).header("cookie", format!("session={SECRET}")),
        ),
        (
            "proxy",
            Request::get(url).header("proxy-authorization", format!("Basic {CODED}")),
        ),
        ("marked", Request::get(url).header("x-plain", marked)),
    ]
}

fn shows_secret(headers: &HeaderMap) -> bool {
    headers.values().any(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.contains(SECRET) || text.contains(CODED)
    })
}

fn arrived(entries: &[Entry], path: &str) -> Entry {
    let mut arrived = entries.iter().filter(|entry| entry.path == path);
    let entry = arrived.next().expect("the redirect was followed").clone();
    assert!(arrived.next().is_none());
    entry
}

/// The secret is shown to the first server, and at the end only if it is still the same origin.
fn judge(cell: &str, stays: bool, first: &Entry, last: &Entry, response: &Response) -> usize {
    assert_eq!(response.status(), 200, "{cell}");
    assert!(
        shows_secret(&first.headers),
        "{cell}: it was not sent at all"
    );
    assert_eq!(shows_secret(&last.headers), stays, "{cell}");
    1
}

#[tokio::test]
async fn no_secret_follows_a_redirect_out_of_its_origin() {
    let home = FaultServer::start();
    let other_port = FaultServer::start();
    let other_scheme = TlsServer::start(Leaf::Good);
    let fetcher = Fetcher::builder()
        .add_root_certificates(ca_pem())
        .build()
        .unwrap();
    let by_name = format!("http://localhost:{}", home.address().port());
    let end = "/ok/1";
    let targets = [
        ("same", format!("{}{end}", home.origin()), true),
        ("path", end.to_owned(), true),
        ("port", other_port.url(end), false),
        ("scheme", other_scheme.url_by_address(end), false),
        ("host", format!("{by_name}{end}"), false),
        (
            "away and back",
            other_port.url(&format!("/redirect/307?to={}", home.url(end))),
            false,
        ),
    ];
    let mut cells = 0;
    for status in STATUSES {
        for (name, target, stays) in &targets {
            let path = format!("/redirect/{status}?to={target}");
            for (kind, request) in with_secrets(&home.url(&path)) {
                for server in [&home, &other_port, &other_scheme] {
                    server.reset();
                }
                let cell = format!("{status} {name} {kind}");
                let response = fetcher.fetch(request).await.unwrap();
                let (home_log, port_log) = (home.log(), other_port.log());
                let last_log = match *name {
                    "port" => port_log.clone(),
                    "scheme" => other_scheme.log(),
                    _ => home_log.clone(),
                };
                let first = arrived(&home_log, &path);
                let last = arrived(&last_log, end);
                cells += judge(&cell, *stays, &first, &last, &response);
                let elsewhere = port_log
                    .iter()
                    .chain(&other_scheme.log())
                    .any(|entry| shows_secret(&entry.headers));
                assert!(!elsewhere, "{cell}");
            }
        }
    }
    cells += to_a_subdomain().await;
    assert_eq!(cells, 5 * 7 * 6);
}

/// A name below the first one's, for which loopback has no server.
async fn to_a_subdomain() -> usize {
    let mut cells = 0;
    for status in STATUSES {
        for (kind, request) in with_secrets("http://a.example/") {
            let onward = Answer::status(status).header("location", "http://sub.a.example/");
            let mock = Mock::new()
                .on("http://a.example/", onward)
                .otherwise(Answer::text("there"));
            let fetcher = Fetcher::builder().transport(mock.clone()).build().unwrap();
            let response = fetcher.fetch(request).await.unwrap();
            let received = mock.requests();
            assert_eq!((received.len(), response.status().as_u16()), (2, 200));
            assert_eq!(received[1].url(), "http://sub.a.example/");
            assert!(shows_secret(received[0].headers()), "{status} {kind}");
            assert!(!shows_secret(received[1].headers()), "{status} {kind}");
            cells += 1;
        }
    }
    cells
}

#[tokio::test]
async fn a_location_chooses_no_credentials_for_anyone() {
    let home = FaultServer::start();
    let other = FaultServer::start();
    for status in STATUSES {
        for server in [&home, &other] {
            server.reset();
            let to = server
                .url("/ok/1")
                .replace("http://", "http://user:s3cr3t@");
            let url = home.url(&format!("/redirect/{status}?to={to}"));
            let response = Fetcher::new().fetch(url).await.unwrap();
            assert_eq!(response.url().as_str(), server.url("/ok/1"));
            let entry = arrived(&server.log(), "/ok/1");
            assert!(!entry.headers.contains_key("authorization"), "{status}");
        }
    }
}
