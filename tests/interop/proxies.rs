//! The cases of every proxy, in front of nginx.

use fanout::{ErrorKind, Fetcher, Proxy, Request, Retry};

use crate::site::{Site, numbers, setting};
use crate::suite::Suite;

/// A proxy as it is written in a URL: its scheme, and the credentials it wants.
#[derive(Copy, Clone)]
struct Way {
    scheme: &'static str,
    address: &'static str,
    secured: bool,
}

pub async fn run(suite: &mut Suite, servers: &[Site]) {
    for proxy in setting("FANOUT_INTEROP_PROXIES").split_whitespace() {
        let (name, url) = proxy.split_once('=').unwrap();
        let (scheme, address) = url.split_once("://").unwrap();
        let schemes: &[_] = if scheme == "http" {
            &["http"]
        } else {
            &["socks5", "socks5h"]
        };
        let secured = ["squid", "microsocks"].contains(&name);
        for &scheme in schemes {
            let way = Way {
                scheme,
                address,
                secured,
            };
            // Who forwards requests is asked in HTTP/1.1.
            let speaks = |site: &&Site| site.is_tls() || !site.is_http2() || scheme != "http";
            for site in servers.iter().filter(speaks) {
                through(suite, &site.behind(name, scheme), way).await;
            }
        }
    }
}

async fn through(suite: &mut Suite, site: &Site, way: Way) {
    let site = *site;
    suite
        .case(&site, "bodies are exact", bodies(site, way))
        .await;
    suite.case(&site, "POST comes back", echo(site, way)).await;
    suite.case(&site, "redirects", redirects(site, way)).await;
    suite
        .case(&site, "credentials for the server", credentials(site, way))
        .await;
    suite
        .case(&site, "500 requests, 16 at a time", reuse(site, way))
        .await;
    suite
        .case(&site, "nobody behind it", nobody(site, way))
        .await;
    if way.secured {
        suite
            .case(&site, "no or bad credentials", refused(site, way))
            .await;
    }
}

impl Way {
    fn fetcher(self, site: Site, user_info: &str) -> Fetcher {
        let proxy = Proxy::all(format!("{}://{user_info}{}", self.scheme, self.address)).unwrap();
        site.builder()
            .proxy(proxy)
            .retry(Retry::off())
            .build()
            .unwrap()
    }

    fn open(self, site: Site) -> Fetcher {
        self.fetcher(site, if self.secured { "user:pass@" } else { "" })
    }
}

async fn bodies(site: Site, way: Way) {
    for (path, bytes) in [
        ("/small.txt", 80),
        ("/1m.txt", 1_000_000),
        ("/10m.txt", 10_000_000),
    ] {
        let request = Request::get(site.url(path)).header("accept-encoding", "identity");
        site.assert_numbers(&way.open(site).fetch(request).await.unwrap(), bytes);
    }
    site.assert_numbers(
        &way.open(site).fetch(site.url("/1m.txt")).await.unwrap(),
        1_000_000,
    );
}

async fn echo(site: Site, way: Way) {
    let request = Request::post(site.url("/app/echo")).body(numbers(800_000));
    site.assert_numbers(&way.open(site).fetch(request).await.unwrap(), 800_000);
}

async fn redirects(site: Site, way: Way) {
    for status in [301, 302, 303] {
        let response = way
            .open(site)
            .fetch(site.url(&format!("/{status}")))
            .await
            .unwrap();
        site.assert_numbers(&response, 80);
        assert_eq!(response.redirects()[0].status(), status);
    }
}

async fn credentials(site: Site, way: Way) {
    let request = || Request::get(site.url("/auth/small.txt"));
    let response = way
        .open(site)
        .fetch(request().basic_auth("user", "pass"))
        .await;
    site.assert_numbers(&response.unwrap(), 80);
    assert_eq!(way.open(site).fetch(request()).await.unwrap().status(), 401);
}

async fn reuse(site: Site, way: Way) {
    let urls = (0..500).map(|_| site.url("/small.txt"));
    let mut made = 0;
    for result in way.open(site).batch(urls).concurrency(16).gather().await {
        let response = result.unwrap();
        site.assert_numbers(&response, 80);
        made += usize::from(!response.timings().connect().is_zero());
    }
    if site.name == "tinyproxy" && !site.is_tls() {
        assert_eq!(made, 500, "it closes after each answer that it forwards");
    } else {
        assert!(made <= 16, "{made} connections");
    }
}

/// An HTTP proxy says so in an answer of its own, unless it was asked for a tunnel.
async fn nobody(site: Site, way: Way) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let url = if site.is_tls() {
        format!("https://localhost:{port}/")
    } else {
        format!("http://127.0.0.1:{port}/")
    };
    match way.open(site).fetch(url).await {
        Ok(response) => {
            assert!(way.scheme == "http" && !site.is_tls());
            assert!(response.status().is_server_error(), "{response:?}");
        }
        Err(error) => {
            assert!(way.scheme != "http" || site.is_tls());
            assert_eq!(
                (error.kind(), error.maybe_sent()),
                (ErrorKind::Proxy, false),
                "{error:?}"
            );
        }
    }
}

async fn refused(site: Site, way: Way) {
    for user_info in ["", "user:wrong@"] {
        match way
            .fetcher(site, user_info)
            .fetch(site.url("/small.txt"))
            .await
        {
            Ok(response) => {
                assert!(way.scheme == "http" && !site.is_tls());
                assert_eq!(response.status(), 407);
            }
            Err(error) => {
                assert!(way.scheme != "http" || site.is_tls());
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
