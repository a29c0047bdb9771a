//! The cases of every proxy, with nginx as the server.

use fanout::{ErrorKind, Fetcher, Proxy, Request, Retry};

use crate::endpoint::{Endpoint, environment_setting, numbered_lines};
use crate::suite::Suite;

/// The URL scheme and address of a proxy, and whether it requires credentials.
#[derive(Copy, Clone)]
struct ProxyConfig {
    scheme: &'static str,
    address: &'static str,
    requires_credentials: bool,
}

pub async fn run(suite: &mut Suite, servers: &[Endpoint]) {
    for proxy in environment_setting("FANOUT_INTEROP_PROXIES").split_whitespace() {
        let (name, url) = proxy.split_once('=').unwrap();
        let (scheme, address) = url.split_once("://").unwrap();
        let schemes: &[_] = if scheme == "http" {
            &["http"]
        } else {
            &["socks5", "socks5h"]
        };
        let requires_credentials = ["squid", "microsocks"].contains(&name);
        for &scheme in schemes {
            let proxy_config = ProxyConfig {
                scheme,
                address,
                requires_credentials,
            };
            // An HTTP proxy forwards requests without TLS in HTTP/1.1 only.
            let is_supported = |endpoint: &&Endpoint| {
                endpoint.is_tls() || !endpoint.is_http2() || scheme != "http"
            };
            for endpoint in servers.iter().filter(is_supported) {
                run_through_proxy(suite, &endpoint.through_proxy(name, scheme), proxy_config).await;
            }
        }
    }
}

async fn run_through_proxy(suite: &mut Suite, endpoint: &Endpoint, proxy_config: ProxyConfig) {
    let endpoint = *endpoint;
    suite
        .case(
            &endpoint,
            "bodies are exact",
            bodies(endpoint, proxy_config),
        )
        .await;
    suite
        .case(&endpoint, "POST is echoed", echo(endpoint, proxy_config))
        .await;
    suite
        .case(&endpoint, "redirects", redirects(endpoint, proxy_config))
        .await;
    suite
        .case(
            &endpoint,
            "credentials for the server",
            credentials(endpoint, proxy_config),
        )
        .await;
    suite
        .case(
            &endpoint,
            "500 requests, concurrency 16",
            connection_reuse(endpoint, proxy_config),
        )
        .await;
    suite
        .case(
            &endpoint,
            "unreachable server",
            unreachable_server(endpoint, proxy_config),
        )
        .await;
    if proxy_config.requires_credentials {
        suite
            .case(
                &endpoint,
                "missing or wrong credentials",
                rejected_credentials(endpoint, proxy_config),
            )
            .await;
    }
}

impl ProxyConfig {
    fn fetcher(self, endpoint: Endpoint, user_info: &str) -> Fetcher {
        let proxy = Proxy::all(format!("{}://{user_info}{}", self.scheme, self.address)).unwrap();
        endpoint
            .builder()
            .proxy(proxy)
            .retry(Retry::off())
            .build()
            .unwrap()
    }

    fn fetcher_with_credentials(self, endpoint: Endpoint) -> Fetcher {
        self.fetcher(
            endpoint,
            if self.requires_credentials {
                "user:pass@"
            } else {
                ""
            },
        )
    }
}

async fn bodies(endpoint: Endpoint, proxy_config: ProxyConfig) {
    for (path, bytes) in [
        ("/small.txt", 80),
        ("/1m.txt", 1_000_000),
        ("/10m.txt", 10_000_000),
    ] {
        let request = Request::get(endpoint.url(path)).header("accept-encoding", "identity");
        endpoint.assert_numbered_lines(
            &proxy_config
                .fetcher_with_credentials(endpoint)
                .fetch(request)
                .await
                .unwrap(),
            bytes,
        );
    }
    endpoint.assert_numbered_lines(
        &proxy_config
            .fetcher_with_credentials(endpoint)
            .fetch(endpoint.url("/1m.txt"))
            .await
            .unwrap(),
        1_000_000,
    );
}

async fn echo(endpoint: Endpoint, proxy_config: ProxyConfig) {
    let request = Request::post(endpoint.url("/app/echo")).body(numbered_lines(800_000));
    endpoint.assert_numbered_lines(
        &proxy_config
            .fetcher_with_credentials(endpoint)
            .fetch(request)
            .await
            .unwrap(),
        800_000,
    );
}

async fn redirects(endpoint: Endpoint, proxy_config: ProxyConfig) {
    for status in [301, 302, 303] {
        let response = proxy_config
            .fetcher_with_credentials(endpoint)
            .fetch(endpoint.url(&format!("/{status}")))
            .await
            .unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        assert_eq!(response.redirects()[0].status(), status);
    }
}

async fn credentials(endpoint: Endpoint, proxy_config: ProxyConfig) {
    let request = || Request::get(endpoint.url("/auth/small.txt"));
    let response = proxy_config
        .fetcher_with_credentials(endpoint)
        .fetch(request().basic_auth("user", "pass"))
        .await;
    endpoint.assert_numbered_lines(&response.unwrap(), 80);
    assert_eq!(
        proxy_config
            .fetcher_with_credentials(endpoint)
            .fetch(request())
            .await
            .unwrap()
            .status(),
        401
    );
}

async fn connection_reuse(endpoint: Endpoint, proxy_config: ProxyConfig) {
    let urls = (0..500).map(|_| endpoint.url("/small.txt"));
    let mut connection_count = 0;
    for result in proxy_config
        .fetcher_with_credentials(endpoint)
        .batch(urls)
        .concurrency(16)
        .gather()
        .await
    {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        connection_count += usize::from(!response.timings().connect().is_zero());
    }
    if endpoint.name == "tinyproxy" && !endpoint.is_tls() {
        assert_eq!(
            connection_count, 500,
            "tinyproxy closes after each forwarded response"
        );
    } else {
        assert!(connection_count <= 16, "{connection_count} connections");
    }
}

/// An HTTP proxy reports an unreachable server with an error response, or refuses the tunnel.
async fn unreachable_server(endpoint: Endpoint, proxy_config: ProxyConfig) {
    let unused_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused_listener.local_addr().unwrap().port();
    drop(unused_listener);
    let url = if endpoint.is_tls() {
        format!("https://localhost:{port}/")
    } else {
        format!("http://127.0.0.1:{port}/")
    };
    match proxy_config
        .fetcher_with_credentials(endpoint)
        .fetch(url)
        .await
    {
        Ok(response) => {
            assert!(proxy_config.scheme == "http" && !endpoint.is_tls());
            assert!(response.status().is_server_error(), "{response:?}");
        }
        Err(error) => {
            assert!(proxy_config.scheme != "http" || endpoint.is_tls());
            assert_eq!(
                (error.kind(), error.maybe_sent()),
                (ErrorKind::Proxy, false),
                "{error:?}"
            );
        }
    }
}

async fn rejected_credentials(endpoint: Endpoint, proxy_config: ProxyConfig) {
    for user_info in ["", "user:wrong@"] {
        match proxy_config
            .fetcher(endpoint, user_info)
            .fetch(endpoint.url("/small.txt"))
            .await
        {
            Ok(response) => {
                assert!(proxy_config.scheme == "http" && !endpoint.is_tls());
                assert_eq!(response.status(), 407);
            }
            Err(error) => {
                assert!(proxy_config.scheme != "http" || endpoint.is_tls());
                assert_eq!(
                    (error.kind(), error.maybe_sent()),
                    (ErrorKind::ProxyRefused, false),
                    "{error:?}"
                );
                assert!(!format!("{error} {error:?}").contains("wrong"));
            }
        }
    }
}
