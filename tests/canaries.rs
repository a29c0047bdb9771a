//! One marked secret in each place that takes one; then everything goes wrong that can, and all that is shown is searched.
#![cfg(feature = "tls")]

mod raw;
mod server;

use std::{
    error::Error as StdError,
    fmt::{Debug, Display},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use fanout::{Error, Fetcher, FetcherBuilder, Host, Proxy, Request, Retry, Timeouts};
use http::HeaderValue;
use raw::{RawServer, Reply};
use server::{FaultServer, Leaf, ProxyManners, ProxyServer, TlsServer, ca_pem, refused_url};

/// One for each place, so that a leak tells where it comes from.
const PLACES: [&str; 10] = [
    "canary-user-info",
    "canary-authorization",
    "canary-bearer",
    "canary-basic",
    "canary-cookie",
    "canary-marked",
    "canary-api-key",
    "canary-host-bearer",
    "canary-proxy",
    "canary-location",
];

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let whole = bits.as_bytes().chunks(6).filter(|sextet| sextet.len() == 6);
    whole
        .map(|sextet| {
            let text = str::from_utf8(sextet).unwrap();
            char::from(ALPHABET[usize::from_str_radix(text, 2).unwrap()])
        })
        .collect()
}

/// The looks a secret can have: plain, in base64 wherever it starts, as numbers, percent-encoded and in hex.
fn looks(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let numbers = format!("{bytes:?}");
    let joined = |one: fn(&u8) -> String| bytes.iter().map(one).collect::<String>();
    let mut looks = vec![
        secret.to_owned(),
        numbers.trim_matches(['[', ']']).to_owned(),
        joined(|byte| format!("%{byte:02x}")),
        joined(|byte| format!("{byte:02x}")),
        secret.replace('-', "%2D"),
    ];
    for offset in 0..3 {
        // The characters that the neighbours have a part in are left out.
        let coded = base64(&[&b"xx"[..offset], bytes].concat());
        let skipped = (offset * 8).div_ceil(6);
        looks.push(coded[skipped..].to_owned());
    }
    looks
}

struct Search {
    looks: Vec<String>,
    texts: usize,
}

impl Search {
    fn new() -> Self {
        let looks = PLACES.iter().flat_map(|secret| looks(secret)).collect();
        Self { looks, texts: 0 }
    }

    fn text(&mut self, text: &str) {
        self.texts += 1;
        for look in &self.looks {
            if let Some(at) = text.find(look) {
                let from = (0..=at.saturating_sub(300))
                    .rev()
                    .find(|&from| text.is_char_boundary(from))
                    .unwrap_or(0);
                panic!("{look} is in: {}", &text[from..at + look.len()]);
            }
        }
    }

    fn debug(&mut self, value: &dyn Debug) {
        self.text(&format!("{value:?}"));
        self.text(&format!("{value:#?}"));
    }

    fn both(&mut self, value: &(impl Debug + Display)) {
        self.debug(value);
        self.text(&value.to_string());
    }

    fn error(&mut self, error: &Error) {
        self.text(error.url().unwrap_or_default());
        self.debug(&error.redirects());
        self.debug(&error.attempts());
        let mut level: Option<&dyn StdError> = Some(error);
        while let Some(error) = level {
            self.debug(&error);
            self.text(&error.to_string());
            level = error.source();
        }
    }

    fn result(&mut self, result: fanout::Result<fanout::Response>) {
        self.debug(&result);
        match result {
            Err(error) => self.error(&error),
            Ok(response) => {
                self.debug(&response.redirects());
                self.debug(&response.attempts());
                self.text(response.url().as_str());
                if let Err(error) = response.error_for_status() {
                    self.error(&error);
                }
            }
        }
    }

    async fn batch(&mut self, fetcher: &Fetcher, requests: &[Request]) {
        self.debug(fetcher);
        for request in requests {
            self.both(request);
            self.text(request.as_str());
        }
        self.debug(&fetcher.batch(requests));
        self.debug(&fetcher.fetch(&requests[0]));
        self.debug(&fetcher.gather(requests));
        let mut done = fetcher.as_completed(requests);
        self.debug(&done);
        let mut count = 0;
        while let Some(completed) = done.next().await {
            self.debug(&completed);
            self.both(&completed.request);
            self.result(completed.result);
            count += 1;
        }
        assert_eq!(count, requests.len());
    }
}

/// Everything that is logged at any level: by `tracing`, and by the libraries that use `log`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("log {} {}\n", record.target(), record.args());
        self.0.lock().unwrap().extend_from_slice(line.as_bytes());
    }

    fn flush(&self) {}
}

fn capture() -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log::set_logger(Box::leak(Box::new(lines.clone()))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    lines
}

const PATHS: [&str; 30] = [
    "/ok/1",
    "/chunked/100",
    "/until-close/9",
    "/close/1",
    "/ok-then-close/1",
    "/echo",
    "/gone",
    "/status/401",
    "/status/407",
    "/status/503",
    "/header/300000",
    "/big/9000000",
    "/hops/2",
    "/hops/20",
    "/redirect/302?to=ftp://elsewhere.example/",
    "/redirect/302?to=http://[::1",
    "/reset-before",
    "/close-before",
    "/half-head",
    "/reset-after-head",
    "/truncated",
    "/truncated-chunks",
    "/stall-head",
    "/stall-body",
    "/drip/3/1",
    "/endless",
    "/interim/3",
    "/interim/30",
    "/malformed",
    "/length-and-chunked",
];

/// Each place of a request that can hold a secret has one; `Authorization` is one place with four ways to it.
fn with_canaries(url: &str) -> Vec<Request> {
    let mut marked = HeaderValue::from_static("canary-marked");
    marked.set_sensitive(true);
    let in_url = url.replacen("://", "://user:canary-user-info@", 1);
    [
        Request::get(&in_url),
        Request::get(url).header("authorization", "Digest canary-authorization"),
        Request::get(url).bearer("canary-bearer"),
        Request::get(url).basic("user", "canary-basic"),
        Request::get(url),
        Request::post(url).body("canary-cookie").idempotent(),
    ]
    .into_iter()
    .map(|request| {
        request
            .header("cookie", "session=canary-cookie")
            .header("x-plain", marked.clone())
            .header("x-api-key", "canary-api-key")
            .header("proxy-authorization", "Bearer canary-authorization")
    })
    .collect()
}

/// Faults end soon, and are tried twice.
fn builder(origins: &[String]) -> FetcherBuilder {
    let timeouts = Timeouts::default()
        .connect(Duration::from_secs(20))
        .first_byte(Duration::from_millis(500))
        .body_idle(Duration::from_millis(500));
    let retry = Retry::default()
        .max_retries(1)
        .base(Duration::from_millis(1))
        .throttled_base(Duration::from_millis(1));
    let builder = Fetcher::builder()
        .timeouts(timeouts)
        .retry(retry)
        .body_cap(1 << 20)
        .default_header("x-auth-token", "canary-api-key")
        .add_root_certificates(ca_pem());
    origins.iter().fold(builder, |builder, origin| {
        let host = Host::new()
            .bearer("canary-host-bearer")
            .header("x-secret", "canary-host-bearer");
        builder.host(origin, host)
    })
}

fn to_all(origins: &[String]) -> Vec<Request> {
    let urls = origins
        .iter()
        .flat_map(|origin| PATHS.map(|path| format!("{origin}{path}")));
    urls.flat_map(|url| with_canaries(&url)).collect()
}

#[tokio::test]
async fn no_canary_is_ever_shown() {
    let lines = capture();
    let mut search = Search::new();
    let plain = FaultServer::start();
    let secure = TlsServer::start(Leaf::Good);
    let untrusted = TlsServer::start(Leaf::SelfSigned);

    let origins = [plain.origin(), secure.origin()];
    let direct = builder(&origins).no_proxy();
    search.debug(&direct);
    let direct = direct.build().unwrap();
    search.batch(&direct, &to_all(&origins)).await;
    let unreachable = [
        refused_url(),
        untrusted.url("/"),
        "http://nowhere.invalid/".to_owned(),
    ];
    for url in &unreachable {
        search.batch(&direct, &with_canaries(url)).await;
    }
    let seen = plain.counts().requests + secure.counts().requests;
    assert!(seen >= 2 * PATHS.len() * 6, "{seen}");

    let location =
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://user:canary-location@";
    for target in ["127.0.0.1:1/", "[::1", "a b/", "127.0.0.1:99999/"] {
        let server = RawServer::answering(Reply::keep_alive(format!("{location}{target}\r\n\r\n")));
        let request = Request::get(server.url("/"));
        let requests = [request.clone(), request.max_redirects(0)];
        search.batch(&direct, &requests).await;
    }
    through_proxies(&mut search).await;

    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for target in ["fanout::request", "fanout::attempt", "log rustls"] {
        assert!(lines.contains(target), "nothing is logged by {target}");
    }
    let count = lines.lines().count();
    assert!(count > 1000, "{count}");
    search.text(&lines);
    assert!(search.texts > 8_000, "{}", search.texts);
}

async fn through_proxies(search: &mut Search) {
    let answering = |answer: &str| ProxyManners {
        answer: Some(answer.to_owned()),
        ..ProxyManners::default()
    };
    let socks = ProxyManners {
        socks: true,
        wants_password: true,
        ..ProxyManners::default()
    };
    let manners = [
        (ProxyManners::default(), "http"),
        (
            answering("HTTP/1.1 407 No\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n"),
            "http",
        ),
        (answering("HTTP/1.1 403 No\r\n"), "http"),
        (answering("nonsense\r\n\r\n"), "http"),
        (socks.clone(), "socks5"),
        (socks, "http"),
    ];
    for (manners, scheme) in manners {
        let server = ProxyServer::start(manners);
        let address = server.address();
        through(search, &format!("{scheme}://user:canary-proxy@{address}")).await;
    }
    through(
        search,
        &refused_url().replacen("://", "://user:canary-proxy@", 1),
    )
    .await;
    for invalid in [
        "ftp://user:canary-proxy@a.example",
        "http://user:canary-proxy@a example",
        "http://user:canary-proxy\n@a.example",
        "http://user:canary-proxy@a.example:99999",
    ] {
        let error = Proxy::all(invalid).unwrap_err();
        search.error(&error);
    }
}

async fn through(search: &mut Search, url: &str) {
    let proxy = Proxy::all(url).unwrap();
    search.debug(&proxy);
    let builder = builder(&[]).proxy(proxy);
    search.debug(&builder);
    let fetcher = builder.build().unwrap();
    let requests: Vec<_> = ["http://a.example/", "https://a.example/"]
        .into_iter()
        .flat_map(with_canaries)
        .collect();
    search.batch(&fetcher, &requests).await;
}

/// The search finds what it is to find: else it would prove nothing.
#[test]
fn a_canary_is_found_in_every_disguise() {
    let search = Search::new();
    let found = |text: String| search.looks.iter().any(|look| text.contains(look));
    for secret in PLACES {
        for around in ["", "u:", "user:", "longer user:"] {
            let text = format!("{around}{secret}");
            assert!(found(text.clone()));
            assert!(found(base64(text.as_bytes())), "{text}");
            assert!(found(format!("{:?}", text.as_bytes())));
        }
    }
    assert!(!found("nothing to be found here".to_owned()));
}
