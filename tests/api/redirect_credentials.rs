//! Credentials stay at their origin for every redirect status, target and kind of credential.
#![cfg(feature = "tls")]

use crate::support::raw_server::{RawResponse, RawServer};
use crate::support::server::{FaultServer, ReceivedRequest, ServerCertificate, TlsServer, ca_pem};
use fanout::{Fetcher, Proxy, Request, RequestBuilder};
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, Ipv4Addr};

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// The path of the final response.
const FINAL_PATH: &str = "/ok/1";
const SECRET: &str = "s3cr3t";
/// `user:s3cr3t` in base64.
const SECRET_BASE64: &str = "dXNlcjpzM2NyM3Q=";

/// One request for each kind of credential.
fn requests_with_credentials(url: &str) -> [(&'static str, RequestBuilder); 6] {
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
            Request::get(url).header("proxy-authorization", format!("Basic {SECRET_BASE64}")),
        ),
        ("marked", Request::get(url).header("x-plain", marked)),
    ]
}

fn contains_secret(headers: &HeaderMap) -> bool {
    headers.values().any(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.contains(SECRET) || text.contains(SECRET_BASE64)
    })
}

fn received_once(entries: &[ReceivedRequest], path: &str) -> ReceivedRequest {
    let mut matching = entries.iter().filter(|entry| entry.path == path);
    let entry = matching.next().expect("the redirect was followed").clone();
    assert!(matching.next().is_none());
    entry
}

/// The source and the target of a redirect.
struct RedirectCase<'a> {
    name: &'static str,
    from: String,
    to: String,
    final_server: &'a FaultServer,
    is_same_origin: bool,
}

impl<'a> RedirectCase<'a> {
    fn new(name: &'static str, from: &str, to: String, final_server: &'a FaultServer) -> Self {
        Self {
            name,
            from: from.to_owned(),
            to,
            final_server,
            is_same_origin: matches!(name, "same" | "path"),
        }
    }
}

#[tokio::test]
async fn credentials_are_dropped_on_cross_origin_redirects() {
    let home = FaultServer::start();
    let other = FaultServer::start();
    let secure = TlsServer::start(ServerCertificate::Good);
    let loopback_resolver = |_: String| async { Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST)]) };
    let fetcher = Fetcher::builder()
        .add_root_certificates(ca_pem())
        .no_proxy()
        .resolver(loopback_resolver)
        .build()
        .unwrap();
    let port = home.address().port();
    let named = |name: &str| format!("http://{name}:{port}");
    let (here, back) = (home.origin(), home.url(FINAL_PATH));
    let targets = [
        RedirectCase::new("same", &here, back.clone(), &home),
        RedirectCase::new("path", &here, FINAL_PATH.to_owned(), &home),
        RedirectCase::new("port", &here, other.url(FINAL_PATH), &other),
        RedirectCase::new("scheme", &here, secure.url_by_address(FINAL_PATH), &secure),
        RedirectCase::new(
            "subdomain",
            &named("a.test"),
            named("sub.a.test") + FINAL_PATH,
            &home,
        ),
        RedirectCase::new(
            "host",
            &named("a.test"),
            named("b.test") + FINAL_PATH,
            &home,
        ),
        RedirectCase::new(
            "away and back",
            &here,
            other.url(&format!("/redirect/307?to={back}")),
            &home,
        ),
    ];
    let mut case_count = 0;
    for status in STATUSES {
        for target in &targets {
            let path = format!("/redirect/{status}?to={}", target.to);
            for (kind, request) in requests_with_credentials(&format!("{}{path}", target.from)) {
                let case = format!("{status} {} {kind}", target.name);
                for server in [&home, &other, &secure] {
                    server.reset();
                }
                let response = fetcher.fetch(request).await.unwrap();
                assert_eq!(response.status(), 200, "{case}");
                // Proxy credentials are sent to no server.
                let for_server = kind != "proxy";
                let first = received_once(&home.log(), &path);
                assert_eq!(contains_secret(&first.headers), for_server, "{case}");
                let last = received_once(&target.final_server.log(), FINAL_PATH);
                let may_arrive = for_server && target.is_same_origin;
                assert_eq!(contains_secret(&last.headers), may_arrive, "{case}");
                let away = [other.log(), secure.log()].concat();
                assert!(
                    !away.iter().any(|entry| contains_secret(&entry.headers)),
                    "{case}"
                );
                case_count += 1;
            }
        }
    }
    assert_eq!(case_count, 5 * 7 * 6);
}

/// Starts an HTTP proxy that responds for all servers. `/to?<url>` redirects to the URL.
fn redirecting_proxy(status: u16) -> RawServer {
    RawServer::start(move |seen| {
        let line = seen.line();
        if line.starts_with("CONNECT ") {
            return RawResponse::close("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
        let status_and_location = match line.split_once("/to?") {
            Some((_, to)) => format!("{status} Elsewhere\r\nLocation: {to}"),
            None => "200 OK".to_owned(),
        };
        RawResponse::keep_alive(format!(
            "HTTP/1.1 {status_and_location}\r\nContent-Length: 0\r\n\r\n"
        ))
    })
}

/// The proxy receives its credentials on the first hop, and on later hops of the same origin.
#[tokio::test]
async fn proxy_authorization_is_dropped_on_cross_origin_redirects() {
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
        for (target, is_same_origin) in TARGETS {
            let case = format!("{status} {target}");
            let server = redirecting_proxy(status);
            let proxy = Proxy::all(format!("http://{}", server.address())).unwrap();
            let fetcher = Fetcher::builder().proxy(proxy).build().unwrap();
            let request = Request::get(format!("http://a.test/to?{target}"))
                .header("proxy-authorization", SECRET);
            let result = fetcher.fetch(request).await;
            assert_eq!(result.is_err(), target.starts_with("https"), "{case}");
            let seen = server.requests();
            let sent: Vec<_> = seen.iter().map(|it| it.text().contains(SECRET)).collect();
            assert!(sent.len() >= 2 && sent[0], "{case}: {sent:?}");
            assert!(
                sent[1..].iter().all(|&it| it == is_same_origin),
                "{case}: {sent:?}"
            );
        }
    }
}

#[tokio::test]
async fn credentials_in_location_are_ignored() {
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
            let entry = received_once(&server.log(), "/ok/1");
            assert!(!entry.headers.contains_key("authorization"), "{status}");
        }
    }
}
