//! What is secret does not leave its origin, whichever way it is sent: every status, target and kind of secret.
#![cfg(feature = "tls")]

use crate::support::raw_server::{RawResponse, RawServer};
use crate::support::server::{FaultServer, ReceivedRequest, ServerCertificate, TlsServer, ca_pem};
use fanout::{Fetcher, Proxy, Request, RequestBuilder};
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, Ipv4Addr};

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// The path that redirects lead to.
const END: &str = "/ok/1";
const SECRET: &str = "s3cr3t";
/// `user:s3cr3t` in base64.
const CODED: &str = "dXNlcjpzM2NyM3Q=";

/// One request for each kind of secret.
fn with_secrets(url: &str) -> [(&'static str, RequestBuilder); 6] {
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
        ("bearer", Request::get(url).bearer_auth(SECRET)),
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

fn arrived(entries: &[ReceivedRequest], path: &str) -> ReceivedRequest {
    let mut arrived = entries.iter().filter(|entry| entry.path == path);
    let entry = arrived.next().expect("the redirect was followed").clone();
    assert!(arrived.next().is_none());
    entry
}

/// Where a redirect starts, where it points and whether that is the same origin.
struct Target<'a> {
    name: &'static str,
    from: String,
    to: String,
    last: &'a FaultServer,
    stays: bool,
}

impl<'a> Target<'a> {
    fn new(name: &'static str, from: &str, to: String, last: &'a FaultServer) -> Self {
        Self {
            name,
            from: from.to_owned(),
            to,
            last,
            stays: matches!(name, "same" | "path"),
        }
    }
}

#[tokio::test]
async fn no_secret_follows_a_redirect_out_of_its_origin() {
    let home = FaultServer::start();
    let other = FaultServer::start();
    let secure = TlsServer::start(ServerCertificate::Good);
    let all_here = |_: String| async { Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST)]) };
    let fetcher = Fetcher::builder()
        .add_root_certificates(ca_pem())
        .no_proxy()
        .resolver(all_here)
        .build()
        .unwrap();
    let port = home.address().port();
    let named = |name: &str| format!("http://{name}:{port}");
    let (here, back) = (home.origin(), home.url(END));
    let targets = [
        Target::new("same", &here, back.clone(), &home),
        Target::new("path", &here, END.to_owned(), &home),
        Target::new("port", &here, other.url(END), &other),
        Target::new("scheme", &here, secure.url_by_address(END), &secure),
        Target::new(
            "subdomain",
            &named("a.test"),
            named("sub.a.test") + END,
            &home,
        ),
        Target::new("host", &named("a.test"), named("b.test") + END, &home),
        Target::new(
            "away and back",
            &here,
            other.url(&format!("/redirect/307?to={back}")),
            &home,
        ),
    ];
    let mut cells = 0;
    for status in STATUSES {
        for target in &targets {
            let path = format!("/redirect/{status}?to={}", target.to);
            for (kind, request) in with_secrets(&format!("{}{path}", target.from)) {
                let cell = format!("{status} {} {kind}", target.name);
                for server in [&home, &other, &secure] {
                    server.reset();
                }
                let response = fetcher.fetch(request).await.unwrap();
                assert_eq!(response.status(), 200, "{cell}");
                // What is for a proxy is shown to no server at all.
                let for_server = kind != "proxy";
                let first = arrived(&home.log(), &path);
                assert_eq!(shows_secret(&first.headers), for_server, "{cell}");
                let last = arrived(&target.last.log(), END);
                let may_arrive = for_server && target.stays;
                assert_eq!(shows_secret(&last.headers), may_arrive, "{cell}");
                let away = [other.log(), secure.log()].concat();
                assert!(
                    !away.iter().any(|entry| shows_secret(&entry.headers)),
                    "{cell}"
                );
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 5 * 7 * 6);
}

/// An HTTP proxy that answers for all servers. Every `/to?…` redirects there.
fn redirecting_proxy(status: u16) -> RawServer {
    RawServer::start(move |seen| {
        let line = seen.line();
        if line.starts_with("CONNECT ") {
            return RawResponse::close("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
        let answer = match line.split_once("/to?") {
            Some((_, to)) => format!("{status} Elsewhere\r\nLocation: {to}"),
            None => "200 OK".to_owned(),
        };
        RawResponse::keep_alive(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"))
    })
}

/// The matrix shows that no server is sent what is for a proxy. Here there is a proxy, which is sent it: at the first hop,
/// and at others of the same origin.
#[tokio::test]
async fn what_is_for_a_proxy_is_sent_to_it_and_no_further_than_its_origin() {
    const TARGETS: [(&str, bool); 7] = [
        ("http://a.test/end", true),
        ("/end", true),
        ("http://a.test:81/end", false),
        ("https://a.test/end", false),
        ("http://sub.a.test/end", false),
        ("http://b.test/end", false),
        ("http://b.test/to?http://a.test/end", false),
    ];
    for status in STATUSES {
        for (target, stays) in TARGETS {
            let cell = format!("{status} {target}");
            let server = redirecting_proxy(status);
            let proxy = Proxy::all(format!("http://{}", server.address())).unwrap();
            let fetcher = Fetcher::builder().proxy(proxy).build().unwrap();
            let request = Request::get(format!("http://a.test/to?{target}"))
                .header("proxy-authorization", SECRET);
            let result = fetcher.fetch(request).await;
            assert_eq!(result.is_err(), target.starts_with("https"), "{cell}");
            let seen = server.requests();
            let sent: Vec<_> = seen.iter().map(|it| it.text().contains(SECRET)).collect();
            assert!(sent.len() >= 2 && sent[0], "{cell}: {sent:?}");
            assert!(sent[1..].iter().all(|&it| it == stays), "{cell}: {sent:?}");
        }
    }
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
