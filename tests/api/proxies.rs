//! HTTP and SOCKS5 proxies over real sockets: requests to proxies and servers, credentials, errors.

use crate::support::own_process::{self, test_path};
use crate::support::server::{FaultServer, ProxyBehavior, ProxyServer};
use fanout::{
    Breaker, Error, ErrorKind, Fetcher, FetcherBuilder, Proxy, Rate, Request, Retry, Timeouts,
};
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

fn with_upstream(upstream: SocketAddr) -> ProxyBehavior {
    ProxyBehavior {
        upstream: Some(upstream),
        ..ProxyBehavior::default()
    }
}

fn proxy_for_all(scheme: &str, user_info: &str, server: &ProxyServer) -> Proxy {
    Proxy::all(format!("{scheme}://{user_info}{}", server.address())).unwrap()
}

/// The `Display` and `Debug` output of an error and its sources.
fn error_text(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// The number of occurrences of a header in the head of a request.
fn header_count(head: &str, name: &str) -> usize {
    let head = head.to_ascii_lowercase();
    head.matches(&format!("\r\n{name}: ")).count()
}

#[tokio::test]
async fn http_proxy_receives_absolute_urls_on_one_connection_for_all_origins() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder()
        .proxy(proxy_for_all("http", "user:s3cr3t@", &proxy))
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
async fn every_batch_method_uses_the_proxy() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder()
        .proxy(proxy_for_all("http", "", &proxy))
        .build()
        .unwrap();
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
async fn proxy_authorization_header_is_not_sent_to_servers() {
    let server = FaultServer::start();
    let socks = ProxyServer::start(ProxyBehavior {
        socks: true,
        ..with_upstream(server.address())
    });
    let plain = ProxyServer::start(ProxyBehavior::default());
    let fetcher = builder().no_proxy().build().unwrap();
    let request = Request::get(server.url("/ok/1")).header("proxy-authorization", SECRET);
    let through_socks = request.clone().proxy(proxy_for_all("socks5", "", &socks));
    for request in [request.clone(), through_socks] {
        fetcher.fetch(request).await.unwrap();
    }
    for entry in server.log() {
        assert!(!entry.headers.contains_key("proxy-authorization"));
    }
    for (user_info, value) in [("", SECRET), ("user:s3cr3t@", "Basic dXNlcjpzM2NyM3Q=")] {
        let request = request
            .clone()
            .proxy(proxy_for_all("http", user_info, &plain));
        fetcher.fetch(request).await.unwrap();
        let head = plain.log().requests.pop().unwrap();
        assert_eq!(header_count(&head, "proxy-authorization"), 1, "{head}");
        assert!(
            head.contains(&format!("proxy-authorization: {value}\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn connections_are_not_shared_between_proxies_or_credentials() {
    let server = FaultServer::start();
    let behavior = || ProxyBehavior {
        socks: true,
        requires_password: true,
        ..with_upstream(server.address())
    };
    let (one, other) = (
        ProxyServer::start(behavior()),
        ProxyServer::start(behavior()),
    );
    let fetcher = builder().no_proxy().build().unwrap();
    let routes = [
        None,
        Some(proxy_for_all("socks5", "ann:1@", &one)),
        Some(proxy_for_all("socks5", "ann:2@", &one)),
        Some(proxy_for_all("socks5", "bob:1@", &one)),
        Some(proxy_for_all("socks5h", "ann:1@", &one)),
        Some(proxy_for_all("socks5", "ann:1@", &other)),
    ];
    for _ in 0..3 {
        for route in &routes {
            let request = Request::get(server.url("/ok/1")).proxy(route.clone());
            fetcher.fetch(request).await.unwrap();
        }
    }
    assert_eq!((one.log().connections, other.log().connections), (4, 1));
    assert_eq!(server.counts().total_connections, routes.len());
}

#[tokio::test]
async fn socks5_sends_addresses_and_socks5h_sends_names() {
    let server = FaultServer::start();
    let proxy = ProxyServer::start(ProxyBehavior {
        socks: true,
        requires_password: true,
        ..with_upstream(server.address())
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
        let request = Request::get(url).proxy(proxy_for_all(scheme, "us%20er:p%40ss@", &proxy));
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
    assert_eq!(entry.path, "/ok/1", "the server receives the origin form");
    assert_eq!(entry.headers["host"], "a.example:81");
}

#[tokio::test]
async fn unreachable_proxy_is_retried_and_reported_as_unsent() {
    let dead = crate::support::server::refused_url();
    let secret = dead.replace("http://", "http://user:s3cr3t@");
    for proxy in [&secret, &secret.replace("http:", "socks5h:")] {
        let fetcher = builder().proxy(Proxy::all(proxy).unwrap()).build().unwrap();
        let request = Request::post("http://a.example/").body("once");
        let error = fetcher.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy);
        assert_eq!(error.attempts().len(), 3);
        assert!(error.is_connect() && !error.maybe_sent());
        assert!(
            !error_text(&error).contains(SECRET),
            "{}",
            error_text(&error)
        );
    }
}

#[tokio::test]
async fn unknown_proxy_host_is_a_proxy_error() {
    let proxy = Proxy::all("http://proxy.invalid").unwrap();
    let fetcher = builder().proxy(proxy).build().unwrap();
    let error = fetcher.fetch("http://a.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxy);
    let source = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(source.kind(), ErrorKind::HostNotFound);
}

#[tokio::test]
async fn proxy_response_to_an_http_url_is_returned() {
    let proxy = responding("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    let fetcher = builder()
        .proxy(proxy_for_all("http", "", &proxy))
        .build()
        .unwrap();
    let response = fetcher.fetch("http://a.example/").await.unwrap();
    assert_eq!(response.status(), 407);
}

#[tokio::test]
async fn public_addresses_only_rejects_proxies() {
    let proxy = ProxyServer::start(ProxyBehavior::default());
    let guarded = || builder().public_addresses_only(true);
    let refused = guarded()
        .proxy(proxy_for_all("http", "user:s3cr3t@", &proxy))
        .build()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert!(!error_text(&refused).contains(SECRET));
    let fetcher = guarded().no_proxy().build().unwrap();
    let request = Request::get("http://a.example/").proxy(proxy_for_all("http", "", &proxy));
    let error = fetcher.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert_eq!(proxy.log().connections, 0);
}

#[test]
fn proxy_authorization_is_rejected_as_a_host_header() {
    let host = fanout::Host::new().header("proxy-authorization", SECRET);
    let error = Fetcher::builder()
        .host("http://a.example", host)
        .build()
        .unwrap_err();
    assert!(!error_text(&error).contains(SECRET));
}

/// Runs in its own process, with its own environment.
#[test]
fn environment_proxies_apply_unless_no_proxy_is_set() {
    if own_process::is_child() {
        return check_environment_proxies();
    }
    let proxy = ProxyServer::start(ProxyBehavior::default());
    own_process::run_with(
        test_path!(environment_proxies_apply_unless_no_proxy_is_set),
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
    assert_eq!(header_count(&requests[0], "proxy-authorization"), 1);
}

/// Runs in its own process, with its own environment.
#[test]
fn invalid_proxy_variable_fails_only_the_requests_that_would_use_it() {
    if own_process::is_child() {
        return check_invalid_proxy_variable();
    }
    let proxy = ProxyServer::start(ProxyBehavior::default());
    own_process::run_with(
        test_path!(invalid_proxy_variable_fails_only_the_requests_that_would_use_it),
        &[
            ("http_proxy", &format!("http://{}/path", proxy.address())),
            ("HTTP_PROXY", &crate::support::server::refused_url()),
            ("ALL_PROXY", "socks://user:s3cr3t@127.0.0.1:1/"),
            ("no_proxy", " .direct.invalid,\t[::1]:8080"),
        ],
    );
    let requests = proxy.log().requests;
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with("GET http://a.example/ HTTP/1.1\r\n"));
}

#[tokio::main(flavor = "current_thread")]
async fn check_invalid_proxy_variable() {
    let fetcher = builder().build().unwrap();
    let server = FaultServer::start();
    let loopback = server.url("/ok/1");
    let urls = [
        "http://a.example/",
        &loopback,
        "https://direct.invalid/",
        "https://a.example/",
    ];
    let mut results = fetcher.gather(urls).await;
    let refused = results.pop().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ProxyRefused);
    assert!(refused.to_string().contains("ALL_PROXY"), "{refused}");
    assert!(!error_text(&refused).contains(SECRET));
    let direct = results.pop().unwrap().unwrap_err();
    assert_eq!(direct.kind(), ErrorKind::HostNotFound);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let own = Request::get("https://direct.invalid/").proxy(None);
    let own = fetcher.fetch(own).await.unwrap_err();
    assert_eq!(own.kind(), ErrorKind::HostNotFound);
}

#[tokio::test]
async fn names_under_localhost_are_resolved_by_a_proxy_that_resolves_names() {
    let server = FaultServer::start();
    let port = server.address().port();
    let direct = builder().no_proxy().build().unwrap();
    for host in ["localhost", "foo.localhost", "a.b.localhost."] {
        let url = format!("http://{host}:{port}/ok/1");
        assert_eq!(direct.fetch(&url).await.unwrap().status(), 200, "{url}");
    }
    let http = ProxyServer::start(ProxyBehavior::default());
    let socks = ProxyServer::start(ProxyBehavior {
        socks: true,
        ..with_upstream(server.address())
    });
    let url = format!("http://foo.localhost:{port}/ok/1");
    for (scheme, proxy) in [("http", &http), ("socks5h", &socks)] {
        let request = Request::get(&url).proxy(proxy_for_all(scheme, "", proxy));
        direct.fetch(request).await.unwrap();
        let requests = proxy.log().requests;
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert!(requests[0].contains("foo.localhost"), "{requests:?}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_environment_proxies() {
    let fetcher = Fetcher::new();
    let response = fetcher.fetch("http://a.example/").await.unwrap();
    assert_eq!(response.text(), "http://a.example/");
    let kind = async |fetcher: &Fetcher, url| fetcher.fetch(url).await.unwrap_err().kind();
    let direct = "http://direct.invalid/";
    assert_eq!(kind(&fetcher, direct).await, ErrorKind::HostNotFound);
    // Loopback addresses bypass the environment's proxies.
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

/// A builder of a Fetcher that neither retries nor waits for a host that is down.
fn impatient_builder() -> FetcherBuilder {
    let breaker = Breaker::default().max_wait(Duration::ZERO);
    builder().retry(Retry::off()).no_proxy().breaker(breaker)
}

/// Opens the breaker of the route of `failing`, and checks that the requests in `live` succeed
/// before and after, one at a time and in one batch.
async fn assert_only_one_route_is_down(fetcher: &Fetcher, failing: &Request, live: &[Request]) {
    for _ in 0..5 {
        let error = fetcher.fetch(failing.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Proxy);
        for request in live {
            let response = fetcher.fetch(request.clone()).await.unwrap();
            assert_eq!(response.status(), 200);
        }
    }
    let error = fetcher.fetch(failing.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    let mixed = (0..10).flat_map(|_| live.iter().chain([failing]).cloned());
    let results = fetcher.gather(mixed).await;
    for (index, result) in results.into_iter().enumerate() {
        if index % (live.len() + 1) == live.len() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::HostDown);
        } else {
            assert_eq!(result.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn dead_proxy_does_not_affect_requests_through_another_proxy_or_none() {
    let server = FaultServer::start();
    let socks = ProxyServer::start(ProxyBehavior {
        socks: true,
        ..with_upstream(server.address())
    });
    let plain = ProxyServer::start(ProxyBehavior::default());
    let dead = crate::support::server::refused_url();
    let request = Request::get(server.url("/ok/1"));
    let through = |proxy| request.clone().proxy(proxy).build();
    for dead in [dead.clone(), dead.replace("http:", "socks5h:")] {
        let fetcher = impatient_builder().build().unwrap();
        let live = [
            request.clone().build(),
            through(proxy_for_all("http", "", &plain)),
            through(proxy_for_all("socks5", "", &socks)),
        ];
        let failing = through(Proxy::all(&dead).unwrap());
        assert_only_one_route_is_down(&fetcher, &failing, &live).await;
    }
}

#[tokio::test]
async fn dead_proxy_of_a_fetcher_does_not_affect_its_direct_requests() {
    let server = FaultServer::start();
    let dead = Proxy::all(crate::support::server::refused_url()).unwrap();
    let fetcher = impatient_builder().proxy(dead).build().unwrap();
    let failing = Request::get(server.url("/ok/1"));
    let direct = failing.clone().proxy(None);
    assert_only_one_route_is_down(&fetcher, &failing.build(), &[direct.build()]).await;
}

#[tokio::test]
async fn rate_per_host_is_shared_by_all_proxies() {
    let server = FaultServer::start();
    let proxies = [
        ProxyServer::start(ProxyBehavior::default()),
        ProxyServer::start(ProxyBehavior::default()),
    ];
    let fetcher = builder().no_proxy().build().unwrap();
    let inputs = (0..4).flat_map(|_| {
        let request = Request::get(server.url("/ok/1"));
        let through = |proxy| request.clone().proxy(proxy_for_all("http", "", proxy));
        [request.clone(), through(&proxies[0]), through(&proxies[1])]
    });
    let started = std::time::Instant::now();
    let batch = fetcher.batch(inputs).rate_per_host(Rate::per_second(50));
    assert!(batch.gather().await.iter().all(Result::is_ok));
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(11 * 20 - 2), "{elapsed:?}");
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
            .proxy(proxy_for_all(scheme, "user:s3cr3t@", &proxy))
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

    fn builder_trusting_test_ca() -> FetcherBuilder {
        builder().add_root_certificates(ca_pem())
    }

    #[tokio::test]
    async fn proxy_that_refuses_tunnels_does_not_affect_other_routes() {
        let server = TlsServer::start(ServerCertificate::Good);
        let good = ProxyServer::start(with_upstream(server.address()));
        let fetcher = impatient_builder()
            .add_root_certificates(ca_pem())
            .build()
            .unwrap();
        let request = Request::get(server.url("/ok/1"));
        let through = |proxy| {
            request
                .clone()
                .proxy(proxy_for_all("http", "", proxy))
                .build()
        };
        let live = [request.clone().build(), through(&good)];
        let refusing = responding("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
        for _ in 0..10 {
            let error = fetcher.fetch(through(&refusing)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProxyRefused, "opens no breaker");
        }
        let broken = responding("HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n");
        assert_only_one_route_is_down(&fetcher, &through(&broken), &live).await;
    }

    #[tokio::test]
    async fn dead_target_does_not_affect_other_targets_of_its_proxy() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start(ProxyBehavior {
            unreachable_host: Some("dead.example"),
            ..with_upstream(server.address())
        });
        let fetcher = impatient_builder()
            .add_root_certificates(ca_pem())
            .build()
            .unwrap();
        let proxy = proxy_for_all("http", "", &proxy);
        let through = |url: &str| Request::get(url).proxy(proxy.clone()).build();
        let port = server.address().port();
        let live = [
            through(&server.url("/ok/1")),
            through(&format!("https://127.0.0.1:{port}/ok/2")),
        ];
        let failing = through("https://dead.example/");
        assert_only_one_route_is_down(&fetcher, &failing, &live).await;
    }

    #[tokio::test]
    async fn https_tunnel_is_reused_for_its_origin() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start(with_upstream(server.address()));
        let fetcher = builder_trusting_test_ca()
            .proxy(proxy_for_all("http", "user:s3cr3t@", &proxy))
            .build()
            .unwrap();
        let port = server.address().port();
        for host in ["localhost", "127.0.0.1"] {
            for _ in 0..3 {
                let request = Request::get(format!("https://{host}:{port}/ok/1"))
                    .header("proxy-authorization", "proxy-only");
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
    async fn tls_proxy_serves_both_schemes_by_name_and_by_address() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy =
            ProxyServer::start_tls(with_upstream(server.address()), ServerCertificate::Good);
        let port = proxy.address().port();
        for host in ["localhost", "127.0.0.1"] {
            let proxy = Proxy::all(format!("https://{host}:{port}")).unwrap();
            let fetcher = builder_trusting_test_ca().proxy(proxy).build().unwrap();
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
                ..with_upstream(server.address())
            });
            let fetcher = builder_trusting_test_ca()
                .proxy(proxy_for_all(scheme, "", &proxy))
                .build()
                .unwrap();
            for _ in 0..2 {
                fetcher.fetch(server.url("/ok/1")).await.unwrap();
            }
            assert_eq!(proxy.log().connections, 1);
        }
    }

    #[tokio::test]
    async fn certificates_of_proxy_and_server_are_checked() {
        let server = TlsServer::start(ServerCertificate::Good);
        let proxy = ProxyServer::start_tls(
            with_upstream(server.address()),
            ServerCertificate::UnknownIssuer,
        );
        let fetcher = builder_trusting_test_ca()
            .proxy(proxy_for_all("https", "user:s3cr3t@", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch(server.url("/ok/1")).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Tls, 1));
        assert!(error.to_string().contains("proxy"), "{error}");
        assert!(proxy.log().requests.is_empty(), "no request was sent");

        let bad = TlsServer::start(ServerCertificate::WrongHost);
        let proxy = ProxyServer::start(with_upstream(bad.address()));
        let fetcher = builder_trusting_test_ca()
            .proxy(proxy_for_all("http", "", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch(bad.url("/ok/1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(bad.counts().requests, 0);
    }

    #[tokio::test]
    async fn failed_tunnel_error_names_the_cause_and_hides_credentials() {
        let (proxy, refused) = (ErrorKind::Proxy, ErrorKind::ProxyRefused);
        for (proxy_response, kind, cause) in [
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
            let server = responding(proxy_response);
            let fetcher = builder()
                .proxy(proxy_for_all("http", "user:s3cr3t@", &server))
                .build()
                .unwrap();
            let request = Request::post("https://a.example/").body("once");
            let error = fetcher.fetch(request).await.unwrap_err();
            let attempts = if kind == proxy { 3 } else { 1 };
            assert_eq!(
                (error.kind(), error.attempts().len()),
                (kind, attempts),
                "{proxy_response}: {error}"
            );
            assert!(error.to_string().contains(cause), "{error}");
            assert!(!error.maybe_sent() && error.is_connect());
            let text = error_text(&error);
            assert!(!text.contains(SECRET) && !text.contains("dXNlcjpzM2NyM3Q"));
            assert_eq!(server.log().requests.len(), attempts);
        }
    }

    #[tokio::test]
    async fn silence_after_connect_request_is_a_connect_timeout() {
        let proxy = ProxyServer::start(ProxyBehavior {
            silent: true,
            ..ProxyBehavior::default()
        });
        let fetcher = builder_trusting_test_ca()
            .timeouts(Timeouts::default().connect(Duration::from_millis(50)))
            .proxy(proxy_for_all("http", "", &proxy))
            .build()
            .unwrap();
        let error = fetcher.fetch("https://a.example/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert!(!error.maybe_sent());
    }

    #[tokio::test]
    async fn redirect_from_proxied_to_direct_url_drops_credentials() {
        let server = TlsServer::start(ServerCertificate::Good);
        let location = server.url("/ok/1");
        let proxy = responding(format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        let proxied = Proxy::http(format!("http://user:s3cr3t@{}", proxy.address())).unwrap();
        let fetcher = builder_trusting_test_ca().proxy(proxied).build().unwrap();
        let request = Request::get("http://a.example/").header("proxy-authorization", SECRET);
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.redirects().len(), 1);
        let entry = &server.log()[0];
        assert!(!format!("{:?}", entry.headers).contains(SECRET));
        assert!(!entry.headers.contains_key("proxy-authorization"));
    }
}
