//! Proxies of each kind, on real sockets: what they are told, what the servers behind them are told, and what goes wrong.

use crate::support::own_process::{self, test_path};
use crate::support::server::{FaultServer, ProxyBehavior, ProxyServer};
use fanout::{Error, ErrorKind, Fetcher, FetcherBuilder, Proxy, Request, Retry, Timeouts};
use std::{error::Error as _, net::SocketAddr, time::Duration};

const SECRET: &str = "s3cr3t";

fn builder() -> FetcherBuilder {
    Fetcher::builder().retry(Retry::default().base_delay(Duration::from_millis(1)))
}

fn responding(response: impl Into<String>) -> ProxyServer {
    ProxyServer::start(ProxyBehavior {
        fixed_response: Some(response.into()),
        ..ProxyBehavior::default()
    })
}

fn to(upstream: SocketAddr) -> ProxyBehavior {
    ProxyBehavior {
        upstream: Some(upstream),
        ..ProxyBehavior::default()
    }
}

fn all(scheme: &str, user_info: &str, server: &ProxyServer) -> Proxy {
    Proxy::all(format!("{scheme}://{user_info}{}", server.address())).unwrap()
}

/// All that can be seen of an error.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// How often a header is in a request's head.
fn count(head: &str, name: &str) -> usize {
    let head = head.to_ascii_lowercase();
    head.matches(&format!("\r\n{name}: ")).count()
}

#[tokio::test]
async fn an_http_proxy_is_asked_for_the_whole_url_and_one_connection_serves_all_origins() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder()
        .proxy(all("http", "user:s3cr3t@", &proxy))
        .build()
        .unwrap();
    for url in [
        "http://a.example/x?y=z",
        "http://b.example:8080/",
        "http://10.1.2.3/",
    ] {
        let request = Request::get(format!("{url}#part"));
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.text(), url);
    }
    let log = proxy.log();
    assert_eq!(log.connections, 1);
    for (head, host) in log
        .requests
        .iter()
        .zip(["a.example", "b.example:8080", "10.1.2.3"])
    {
        assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
        assert!(
            head.contains("\r\nproxy-authorization: Basic dXNlcjpzM2NyM3Q=\r\n"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn every_ending_of_a_batch_goes_through_the_proxy() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder().proxy(all("http", "", &proxy)).build().unwrap();
    let urls = ["http://a.example/", "http://b.example/"];
    for (response, url) in fetcher.gather(urls).await.into_iter().zip(urls) {
        assert_eq!(response.unwrap().text(), url);
    }
    let mut done = fetcher.as_completed(urls);
    while let Some(completed) = done.next().await {
        let response = completed.result.unwrap();
        assert_eq!(response.text(), urls[completed.index]);
    }
    let mut done = fetcher.batch(urls).in_order();
    while let Some(completed) = done.next().await {
        assert!(completed.result.is_ok());
    }
    assert_eq!(proxy.log().requests.len(), 6);
}

#[tokio::test]
async fn a_requests_own_credentials_for_a_proxy_are_sent_to_no_server() {
    let server = FaultServer::start();
    let socks = ProxyServer::start(ProxyBehavior {
        socks: true,
        ..to(server.address())
    });
    let plain = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder().no_proxy().build().unwrap();
    let request = Request::get(server.url("/ok/1")).header("proxy-authorization", SECRET);
    let through_socks = request.clone().proxy(all("socks5", "", &socks));
    for request in [request.clone(), through_socks] {
        fetcher.fetch(request).await.unwrap();
    }
    for entry in server.log() {
        assert!(!entry.headers.contains_key("proxy-authorization"));
    }
    for (user_info, value) in [("", SECRET), ("user:s3cr3t@", "Basic dXNlcjpzM2NyM3Q=")] {
        let request = request.clone().proxy(all("http", user_info, &plain));
        fetcher.fetch(request).await.unwrap();
        let head = plain.log().requests.pop().unwrap();
        assert_eq!(count(&head, "proxy-authorization"), 1, "{head}");
        assert!(
            head.contains(&format!("proxy-authorization: {value}\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn connections_through_a_proxy_or_with_its_credentials_serve_no_other() {
    let server = FaultServer::start();
    let behavior = || ProxyBehavior {
        socks: true,
        requires_password: true,
        ..to(server.address())
    };
    let (one, other) = (
        ProxyServer::start(behavior()),
        ProxyServer::start(behavior()),
    );
    let fetcher = builder().no_proxy().build().unwrap();
    let ways = [
        None,
        Some(all("socks5", "ann:1@", &one)),
        Some(all("socks5", "ann:2@", &one)),
        Some(all("socks5", "bob:1@", &one)),
        Some(all("socks5h", "ann:1@", &one)),
        Some(all("socks5", "ann:1@", &other)),
    ];
    for _ in 0..3 {
        for way in &ways {
            let request = Request::get(server.url("/ok/1")).proxy(way.clone());
            fetcher.fetch(request).await.unwrap();
        }
    }
    assert_eq!((one.log().connections, other.log().connections), (4, 1));
    assert_eq!(server.counts().total_connections, ways.len());
}

#[tokio::test]
async fn a_socks_proxy_is_given_names_or_addresses_as_its_scheme_says() {
    let server = FaultServer::start();
    let proxy = ProxyServer::start(ProxyBehavior {
        socks: true,
        requires_password: true,
        ..to(server.address())
    });
    let address = std::net::IpAddr::from([10, 1, 2, 3]);
    let fetcher = builder()
        .no_proxy()
        .resolver(move |_: String| async move { Ok(vec![address]) })
        .build()
        .unwrap();
    for (scheme, url) in [
        ("socks5", "http://a.example:81/ok/1"),
        ("socks5h", "http://a.example:82/ok/1"),
        ("socks5h", "http://[2001:db8::1]:83/ok/1"),
    ] {
        let request = Request::get(url).proxy(all(scheme, "us%20er:p%40ss@", &proxy));
        fetcher.fetch(request).await.unwrap();
    }
    assert_eq!(
        proxy.log().requests,
        [
            "us er:p@ss@10.1.2.3:81",
            "us er:p@ss@a.example:82",
            "us er:p@ss@2001:db8::1:83"
        ]
    );
    let entry = &server.log()[0];
    assert_eq!(entry.path, "/ok/1", "the server is asked in its own form");
    assert_eq!(entry.headers["host"], "a.example:81");
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_tried_again_and_nothing_was_sent() {
    let dead = crate::support::server::refused_url();
    let secret = dead.replace("http://", "http://user:s3cr3t@");
    for proxy in [&secret, &secret.replace("http:", "socks5h:")] {
        let fetcher = builder().proxy(Proxy::all(proxy).unwrap()).build().unwrap();
        let request = Request::post("http://a.example/").body("once");
        let error = fetcher.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy);
        assert_eq!(error.attempts().len(), 3);
        assert!(error.is_connect() && !error.maybe_sent());
        assert!(!shown(&error).contains(SECRET), "{}", shown(&error));
    }
}

#[tokio::test]
async fn a_proxy_whose_name_does_not_exist_is_a_failed_proxy() {
    let proxy = Proxy::all("http://proxy.invalid").unwrap();
    let fetcher = builder().proxy(proxy).build().unwrap();
    let error = fetcher.fetch("http://a.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxy);
    let source = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(source.kind(), ErrorKind::HostNotFound);
}

#[tokio::test]
async fn the_answer_of_a_proxy_to_an_http_url_is_the_response() {
    let proxy = responding("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    let fetcher = builder().proxy(all("http", "", &proxy)).build().unwrap();
    let response = fetcher.fetch("http://a.example/").await.unwrap();
    assert_eq!(response.status(), 407);
}

#[tokio::test]
async fn where_only_public_addresses_are_allowed_there_is_no_proxy() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let guarded = || builder().public_addresses_only(true);
    let refused = guarded()
        .proxy(all("http", "user:s3cr3t@", &proxy))
        .build()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert!(!shown(&refused).contains(SECRET));
    let fetcher = guarded().no_proxy().build().unwrap();
    let request = Request::get("http://a.example/").proxy(all("http", "", &proxy));
    let error = fetcher.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert_eq!(proxy.log().connections, 0);
}

#[test]
fn credentials_for_a_proxy_belong_in_its_url() {
    let host = fanout::Host::new().header("proxy-authorization", SECRET);
    let error = Fetcher::builder()
        .host("http://a.example", host)
        .build()
        .unwrap_err();
    assert!(!shown(&error).contains(SECRET));
}

/// Runs itself again in a process of its own, with an environment of its own.
#[test]
fn the_environments_proxies_are_used_unless_others_or_none_are_named() {
    if own_process::is_child() {
        return in_that_environment();
    }
    let proxy = ProxyServer::start(ProxyBehavior::default());
    own_process::run_with(
        test_path!(the_environments_proxies_are_used_unless_others_or_none_are_named),
        &[
            (
                "http_proxy",
                &format!("http://user:s3cr3t@{}", proxy.address()),
            ),
            ("https_proxy", &crate::support::server::refused_url()),
            ("no_proxy", "direct.invalid"),
        ],
    );
    let requests = proxy.log().requests;
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with("GET http://a.example/ HTTP/1.1\r\n"));
    assert_eq!(count(&requests[0], "proxy-authorization"), 1);
}

#[tokio::main(flavor = "current_thread")]
async fn in_that_environment() {
    let fetcher = Fetcher::new();
    let response = fetcher.fetch("http://a.example/").await.unwrap();
    assert_eq!(response.text(), "http://a.example/");
    let kind = async |fetcher: &Fetcher, url| fetcher.fetch(url).await.unwrap_err().kind();
    let direct = "http://direct.invalid/";
    assert_eq!(kind(&fetcher, direct).await, ErrorKind::HostNotFound);
    // This machine is asked directly.
    let server = FaultServer::start();
    fetcher.fetch(server.url("/ok/1")).await.unwrap();
    let without = Fetcher::builder().no_proxy().build().unwrap();
    let other = "http://other.invalid/";
    assert_eq!(kind(&without, other).await, ErrorKind::HostNotFound);
    assert!(
        Fetcher::builder()
            .public_addresses_only(true)
            .build()
            .is_err()
    );
}

#[tokio::test]
async fn an_unresponsive_proxy_is_a_connect_timeout() {
    for scheme in ["https", "socks5h"] {
        let proxy = ProxyServer::start(ProxyBehavior {
            silent: true,
            ..ProxyBehavior::default()
        });
        let timeouts = Timeouts::default().connect(Duration::from_millis(50));
        let fetcher = builder()
            .timeouts(timeouts)
            .proxy(all(scheme, "user:s3cr3t@", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch("http://a.example/").await.unwrap_err();
        let expected = match (scheme, cfg!(feature = "tls")) {
            ("https", false) => ErrorKind::InvalidRequest,
            _ => ErrorKind::ConnectTimeout,
        };
        assert_eq!(error.kind(), expected, "{scheme}");
        assert!(!error.maybe_sent());
    }
}

#[cfg(feature = "tls")]
mod tunnels {
    use super::*;
    use crate::support::server::{ServerCertificate, TlsServer, ca_pem};

    fn trusting() -> FetcherBuilder {
        builder().add_root_certificates(ca_pem())
    }

    #[tokio::test]
    async fn https_goes_through_a_tunnel_which_is_used_again_for_its_origin() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start(to(server.address()));
        let fetcher = trusting()
            .proxy(all("http", "user:s3cr3t@", &proxy))
            .build()
            .unwrap();
        let port = server.address().port();
        for host in ["localhost", "127.0.0.1"] {
            for _ in 0..3 {
                let request = Request::get(format!("https://{host}:{port}/ok/1"))
                    .header("proxy-authorization", "for no server");
                fetcher.fetch(request).await.unwrap();
            }
        }
        let log = proxy.log();
        assert_eq!((log.connections, log.requests.len()), (2, 2));
        for (head, host) in log.requests.iter().zip(["localhost", "127.0.0.1"]) {
            let target = format!("{host}:{port}");
            assert_eq!(
                *head,
                format!(
                    "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
                     Proxy-Authorization: Basic dXNlcjpzM2NyM3Q=\r\n\r\n"
                )
            );
        }
        for entry in server.log() {
            assert_eq!(entry.path, "/ok/1");
            assert!(!entry.headers.contains_key("proxy-authorization"));
        }
    }

    #[tokio::test]
    async fn a_proxy_over_tls_takes_both_schemes_in_its_name_or_address() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start_tls(to(server.address()), ServerCertificate::Good);
        let port = proxy.address().port();
        for host in ["localhost", "127.0.0.1"] {
            let proxy = Proxy::all(format!("https://{host}:{port}")).unwrap();
            let fetcher = trusting().proxy(proxy).build().unwrap();
            for _ in 0..2 {
                fetcher.fetch(server.url("/bytes/100000")).await.unwrap();
                let response = fetcher.fetch("http://a.example/").await.unwrap();
                assert_eq!(response.text(), "http://a.example/");
            }
        }
        assert_eq!(proxy.log().connections, 4);
        assert_eq!(server.log().len(), 4);
    }

    #[tokio::test]
    async fn https_goes_through_socks() {
        let server = TlsServer::start(ServerCertificate::Good);
        for scheme in ["socks5", "socks5h"] {
            let proxy = ProxyServer::start(ProxyBehavior {
                socks: true,
                ..to(server.address())
            });
            let fetcher = trusting().proxy(all(scheme, "", &proxy)).build().unwrap();
            for _ in 0..2 {
                fetcher.fetch(server.url("/ok/1")).await.unwrap();
            }
            assert_eq!(proxy.log().connections, 1);
        }
    }

    #[tokio::test]
    async fn the_certificate_of_each_end_is_checked() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start_tls(to(server.address()), ServerCertificate::UnknownIssuer);
        let fetcher = trusting()
            .proxy(all("https", "user:s3cr3t@", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch(server.url("/ok/1")).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Tls, 1));
        assert!(error.to_string().contains("proxy"), "{error}");
        assert!(proxy.log().requests.is_empty(), "it was told nothing");

        let bad = TlsServer::start(ServerCertificate::WrongHost);
        let proxy = ProxyServer::start(to(bad.address()));
        let fetcher = trusting().proxy(all("http", "", &proxy)).build().unwrap();
        let error = fetcher.fetch(bad.url("/ok/1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(bad.counts().requests, 0);
    }

    #[tokio::test]
    async fn a_tunnel_that_is_not_made_is_an_error_that_says_why_and_shows_no_secret() {
        let (proxy, refused) = (ErrorKind::Proxy, ErrorKind::ProxyRefused);
        for (answer, kind, why) in [
            (
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n",
                refused,
                "407",
            ),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", refused, "403"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", proxy, "502"),
            ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", proxy, "504"),
            ("garbage\r\n\r\n", proxy, "not HTTP"),
            ("HTTP/1.1 200 OK\r\n\r\nmore", proxy, "more"),
            ("HTTP/1.1 200", proxy, "closed"),
            ("", proxy, "closed"),
        ] {
            let server = responding(answer);
            let fetcher = builder()
                .proxy(all("http", "user:s3cr3t@", &server))
                .build()
                .unwrap();
            let request = Request::post("https://a.example/").body("once");
            let error = fetcher.fetch(request).await.unwrap_err();
            let attempts = if kind == proxy { 3 } else { 1 };
            assert_eq!(
                (error.kind(), error.attempts().len()),
                (kind, attempts),
                "{answer}: {error}"
            );
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.maybe_sent() && error.is_connect());
            let shown = shown(&error);
            assert!(!shown.contains(SECRET) && !shown.contains("dXNlcjpzM2NyM3Q"));
            assert_eq!(server.log().requests.len(), attempts);
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_silent_after_connect_is_a_connect_timeout() {
        let proxy = ProxyServer::start(ProxyBehavior {
            silent: true,
            ..ProxyBehavior::default()
        });
        let fetcher = trusting()
            .timeouts(Timeouts::default().connect(Duration::from_millis(50)))
            .proxy(all("http", "", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch("https://a.example/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert!(!error.maybe_sent());
    }

    #[tokio::test]
    async fn a_redirect_from_a_proxied_url_to_a_direct_one_brings_no_credentials() {
        let server = TlsServer::start(ServerCertificate::Good);
        let location = server.url("/ok/1");
        let proxy = responding(format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let proxied = Proxy::http(format!("http://user:s3cr3t@{}", proxy.address())).unwrap();
        let fetcher = trusting().proxy(proxied).build().unwrap();
        let request = Request::get("http://a.example/").header("proxy-authorization", SECRET);
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.redirects().len(), 1);
        let entry = &server.log()[0];
        assert!(!format!("{:?}", entry.headers).contains(SECRET));
        assert!(!entry.headers.contains_key("proxy-authorization"));
    }
}
