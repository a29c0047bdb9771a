//! Each place for a credential has its own canary value. Requests run into every fault. No canary
//! may appear in an error, in `Debug` output or in a log.
#![cfg(all(feature = "http2", feature = "tls"))]

use crate::support::own_process::{self, test_path};
use std::{
    error::Error as StdError,
    fmt::{Debug, Display},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::alpn_server::{AlpnServer, AlpnServerConfig, HTTP2_SERVER, PLAINTEXT_SERVER};
use crate::support::http2_frames::{DATA, HEADERS, Http2Peer};
use crate::support::raw_server::{RawResponse, RawServer};
use crate::support::server::{
    FaultServer, ProxyBehavior, ProxyServer, ServerCertificate, TlsServer, ca_pem, refused_url,
};
use bytes::Bytes;
use fanout::{
    Breaker, Error, ErrorKind, Fetcher, FetcherBuilder, Host, Proxy, Request, RequestBuilder,
    Retry, Timeouts,
};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue};

/// One canary value per place for a credential, so that a leak shows its source.
const CANARIES: [&str; 13] = [
    "canary-user-info",
    "canary-authorization",
    "canary-bearer",
    "canary-basic",
    "canary-cookie",
    "canary-marked",
    "canary-api-key",
    "canary-host-bearer",
    "canary-token",
    "canary-proxy",
    "canary-location",
    QUERY_CANARY,
    LOCATION_QUERY_CANARY,
];

/// A value in the query of each request URL. Only the accessors of a URL return it.
const QUERY_CANARY: &str = "canary-query";
/// A value in the query of each `Location`.
const LOCATION_QUERY_CANARY: &str = "canary-code";

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

/// The encodings of a secret: plain, base64 at each offset, byte values, percent-encoded and hex.
fn encodings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let numbers = format!("{bytes:?}");
    let encode_bytes =
        |encode_byte: fn(&u8) -> String| bytes.iter().map(encode_byte).collect::<String>();
    let mut encodings = vec![
        secret.to_owned(),
        numbers.trim_matches(['[', ']']).to_owned(),
        encode_bytes(|byte| format!("%{byte:02x}")),
        encode_bytes(|byte| format!("{byte:02x}")),
        secret.replace('-', "%2D"),
    ];
    for offset in 0..3 {
        // Skips the characters that also encode the preceding bytes.
        let coded = base64(&[&b"xx"[..offset], bytes].concat());
        let skipped = (offset * 8).div_ceil(6);
        encodings.push(coded[skipped..].to_owned());
    }
    encodings
}

struct LeakSearch {
    encodings: Vec<String>,
    text_count: usize,
    /// The number of URLs with a canary in their query.
    whole_url_count: usize,
}

impl LeakSearch {
    fn new() -> Self {
        let encodings = CANARIES
            .iter()
            .flat_map(|secret| encodings(secret))
            .collect();
        Self {
            encodings,
            text_count: 0,
            whole_url_count: 0,
        }
    }

    /// Searches a URL from an accessor, which includes the values of the query.
    fn url(&mut self, url: &str) {
        let without_query_canaries = url
            .replace(QUERY_CANARY, "")
            .replace(LOCATION_QUERY_CANARY, "");
        self.whole_url_count += usize::from(without_query_canaries != url);
        self.text(&without_query_canaries);
    }

    fn text(&mut self, text: &str) {
        self.text_count += 1;
        for encoding in &self.encodings {
            if let Some(at) = text.find(encoding) {
                let from = (0..=at.saturating_sub(300))
                    .rev()
                    .find(|&from| text.is_char_boundary(from))
                    .unwrap_or(0);
                panic!("{encoding} is in: {}", &text[from..at + encoding.len()]);
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
        self.url(error.url().unwrap_or_default());
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
                self.url(response.url().as_str());
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
            self.url(request.url_str());
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

/// The log of all levels, from `tracing` and `log`.
#[derive(Clone, Default)]
struct LogText(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogText {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl log::Log for LogText {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("log {} {}\n", record.target(), record.args());
        self.0.lock().unwrap().extend_from_slice(line.as_bytes());
    }

    fn flush(&self) {}
}

fn capture_logs() -> LogText {
    let lines = LogText::default();
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

/// Requests with a canary in every place for a credential. One request per way to set
/// `Authorization`.
fn requests_with_canaries(url: &str) -> Vec<Request> {
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = &format!("{url}{separator}key={QUERY_CANARY}");
    let mut marked = HeaderValue::from_static("canary-marked");
    marked.set_sensitive(true);
    let url_with_user_info = url.replacen("://", "://user:canary-user-info@", 1);
    [
        Request::get(&url_with_user_info),
        Request::get(url).header("authorization", "Digest canary-authorization"),
        Request::get(url).bearer_auth("canary-bearer"),
        Request::get(url).basic_auth("user", "canary-basic"),
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
            .build()
    })
    .collect()
}

/// A builder with short timeouts and a single retry.
fn builder_with_short_timeouts(origins: &[String]) -> FetcherBuilder {
    let timeouts = Timeouts::default()
        .connect(Duration::from_secs(20))
        .response_head(Duration::from_millis(500))
        .body_idle(Duration::from_millis(500));
    let retry = Retry::default()
        .max_retries(1)
        .base_delay(Duration::from_millis(1))
        .throttled_base_delay(Duration::from_millis(1));
    let breaker = Breaker::default().cooldown(Duration::from_millis(1));
    let builder = Fetcher::builder()
        .timeouts(timeouts)
        .breaker(breaker)
        .retry(retry)
        .max_body_size(1 << 20)
        .default_header("x-auth-token", "canary-api-key")
        .add_root_certificates(ca_pem());
    origins.iter().fold(builder, |builder, origin| {
        let host = Host::new()
            .bearer_auth("canary-host-bearer")
            .header("x-secret", "canary-host-bearer");
        builder.host(origin, host)
    })
}

fn requests_to_all_paths(origins: &[String]) -> Vec<Request> {
    let urls = origins
        .iter()
        .flat_map(|origin| PATHS.map(|path| format!("{origin}{path}")));
    urls.flat_map(|url| requests_with_canaries(&url)).collect()
}

#[tokio::test]
async fn canaries_appear_in_no_output() {
    if !own_process::is_child() {
        return own_process::run(test_path!(canaries_appear_in_no_output));
    }
    let log_text = capture_logs();
    let mut search = LeakSearch::new();
    let plain = FaultServer::start();
    let secure = TlsServer::start(ServerCertificate::Good);
    let untrusted = TlsServer::start(ServerCertificate::SelfSigned);

    let origins = [plain.origin(), secure.origin()];
    let direct = builder_with_short_timeouts(&origins).no_proxy();
    search.debug(&direct);
    let direct = direct.build().unwrap();
    search
        .batch(&direct, &requests_to_all_paths(&origins))
        .await;
    let unreachable = [
        refused_url(),
        untrusted.url("/"),
        "http://nowhere.invalid/".to_owned(),
    ];
    for url in &unreachable {
        search.batch(&direct, &requests_with_canaries(url)).await;
    }
    let seen = plain.counts().requests + secure.counts().requests;
    assert!(seen >= 2 * PATHS.len() * 6, "{seen}");

    let location =
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://user:canary-location@";
    for target in ["127.0.0.1:1/", "[::1/", "a b/", "127.0.0.1:99999/"] {
        let target = format!("{target}?code={LOCATION_QUERY_CANARY}");
        let server = RawServer::responding(RawResponse::keep_alive(format!(
            "{location}{target}\r\n\r\n"
        )));
        let request = Request::get(server.url("/")).query([("key", QUERY_CANARY)]);
        let requests = [request.clone().build(), request.max_redirects(0).build()];
        search.batch(&direct, &requests).await;
    }
    search_proxies(&mut search).await;
    search_token_sources(&mut search).await;
    search_http2(&mut search).await;

    let lines = String::from_utf8(log_text.0.lock().unwrap().clone()).unwrap();
    for target in ["fanout::request", "fanout::attempt", "log rustls", " h2::"] {
        assert!(lines.contains(target), "no log line of {target}");
    }
    let count = lines.lines().count();
    assert!(count > 1000, "{count}");
    search.text(&lines);
    assert!(search.text_count > 8_000, "{}", search.text_count);
    assert!(search.whole_url_count > 1_000, "{}", search.whole_url_count);
}

async fn search_proxies(search: &mut LeakSearch) {
    let responding = |response: &str| ProxyBehavior {
        fixed_response: Some(response.to_owned()),
        ..ProxyBehavior::default()
    };
    let socks = ProxyBehavior {
        socks: true,
        requires_password: true,
        ..ProxyBehavior::default()
    };
    let behavior = [
        (ProxyBehavior::default(), "http"),
        (
            responding("HTTP/1.1 407 No\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n"),
            "http",
        ),
        (responding("HTTP/1.1 403 No\r\n"), "http"),
        (responding("nonsense\r\n\r\n"), "http"),
        (socks.clone(), "socks5h"),
        (socks, "http"),
    ];
    for (behavior, scheme) in behavior {
        let is_understood = (scheme == "socks5h") == behavior.socks;
        let server = ProxyServer::start(behavior);
        let address = server.address();
        search_proxy(search, &format!("{scheme}://user:canary-proxy@{address}")).await;
        let heads = server.log().requests;
        let sent = heads.iter().filter(|head| has_proxy_password(head)).count();
        // A proxy of the other protocol cannot parse the request.
        if is_understood {
            assert!(sent > 0 && sent == heads.len(), "{heads:?}");
        }
    }
    search_proxy(
        search,
        &refused_url().replacen("://", "://user:canary-proxy@", 1),
    )
    .await;
    for invalid in [
        "ftp://user:canary-proxy@a.example",
        "ftp://a.example/?key=canary-query",
        "http://user:canary-proxy@a example",
        "http://user:canary-proxy\n@a.example",
        "http://user:canary-proxy@a.example:99999",
    ] {
        let error = Proxy::all(invalid).unwrap_err();
        search.error(&error);
    }
}

/// Whether a recorded request to an HTTP or SOCKS proxy contains the password.
fn has_proxy_password(head: &str) -> bool {
    let basic = format!("Basic {}", base64(b"user:canary-proxy"));
    head.starts_with("user:canary-proxy@")
        || head.lines().any(|line| match line.split_once(": ") {
            Some((name, value)) => {
                name.eq_ignore_ascii_case("proxy-authorization") && value.starts_with(&basic)
            }
            None => false,
        })
}

async fn search_proxy(search: &mut LeakSearch, url: &str) {
    let proxy = Proxy::all(url).unwrap();
    search.debug(&proxy);
    let builder = builder_with_short_timeouts(&[]).proxy(proxy);
    search.debug(&builder);
    let fetcher = builder.build().unwrap();
    let requests: Vec<_> = ["http://a.example/", "https://a.example/"]
        .into_iter()
        .flat_map(requests_with_canaries)
        .collect();
    search.batch(&fetcher, &requests).await;
}

/// Searches with a source of a valid token, and with sources that fail or return invalid tokens.
async fn search_token_sources(search: &mut LeakSearch) {
    type TokenResult = Result<String, io::Error>;
    let sources: [(fn() -> TokenResult, _); 5] = [
        (|| Ok("canary-token".to_owned()), None),
        (|| Ok("canary-token\n".to_owned()), Some(ErrorKind::Token)),
        (
            || Ok("canary-token and more".to_owned()),
            Some(ErrorKind::Token),
        ),
        (
            || Err(io::Error::other("unavailable")),
            Some(ErrorKind::Token),
        ),
        (
            || std::panic::panic_any("canary-token".to_owned()),
            Some(ErrorKind::Panicked),
        ),
    ];
    for (source, failure) in sources {
        let server = FaultServer::start();
        let origin = server.origin();
        let host = Host::new().token_source(move || async move { Ok(source()?) });
        search.debug(&host);
        let builder = || {
            builder_with_short_timeouts(&[])
                .no_proxy()
                .host(&origin, host.clone())
        };
        search.debug(&builder());
        let fetcher = builder().build().unwrap();
        let requests: Vec<_> = PATHS
            .iter()
            .map(|path| Request::get(format!("{origin}{path}")).header("cookie", "canary-cookie"))
            .map(RequestBuilder::build)
            .collect();
        search.batch(&fetcher, &requests).await;
        let fetcher = builder().timeouts(Timeouts::default()).build().unwrap();
        let result = fetcher.fetch(server.url("/ok/1")).await;
        assert_eq!(result.as_ref().err().map(Error::kind), failure);
        search.result(result);
        let was_sent = |headers: &HeaderMap| headers["authorization"] == "Bearer canary-token";
        let log = server.log();
        assert!(log.iter().all(|entry| was_sent(&entry.headers)));
        assert_eq!(log.len() > PATHS.len(), failure.is_none());
    }
}

const HTTP2_PATHS: [&str; 16] = [
    "/ok",
    "/status/401",
    "/status/503",
    "/hop",
    "/elsewhere",
    "/stall",
    "/stall-body",
    "/reset/1",
    "/reset/2",
    "/reset/7",
    "/reset/8",
    "/reset/11",
    "/reset/13",
    "/reset-body/8",
    "/short",
    "/long",
];

/// Sends the response or the fault that a path stands for.
async fn respond_to_path(path: &str, mut respond: SendResponse<Bytes>) {
    let code = |text: &str| text.parse::<u32>().unwrap();
    let response = |status: u16| http::Response::builder().status(status);
    let head = match path.rsplit_once('/').unwrap() {
        ("/reset", reason) => return respond.send_reset(code(reason).into()),
        ("/status", status) => response(status.parse().unwrap()),
        ("", "stall") => return tokio::time::sleep(Duration::from_secs(2)).await,
        ("", "hop") => response(302).header("location", "/ok?code=canary-code"),
        ("", "elsewhere") => response(302).header(
            "location",
            "http://user:canary-location@a b/?code=canary-code",
        ),
        ("", "short") => response(200).header("content-length", 100),
        ("", "long") => response(200).header("x-long", "x".repeat(300_000)),
        _ => response(200),
    };
    let Ok(mut body) = respond.send_response(head.body(()).unwrap(), false) else {
        return;
    };
    match path.rsplit_once('/').unwrap() {
        ("/reset-body", reason) => return body.send_reset(code(reason).into()),
        ("", "stall-body") => tokio::time::sleep(Duration::from_secs(2)).await,
        _ => {}
    }
    let _ = body.send_data(Bytes::from_static(b"body"), true);
}

/// The headers of each request, as the server received them.
type ReceivedHeaders = Arc<Mutex<Vec<HeaderMap>>>;

fn start_http2_fault_server(config: AlpnServerConfig) -> (AlpnServer, ReceivedHeaders) {
    let received = ReceivedHeaders::default();
    let log = Arc::clone(&received);
    let server = AlpnServer::with_handler(config, move |socket, _| {
        let log = Arc::clone(&log);
        async move {
            let Ok(mut connection) = h2::server::handshake(socket).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                log.lock().unwrap().push(request.headers().clone());
                let path = request.uri().path().to_owned();
                tokio::spawn(async move { respond_to_path(&path, respond).await });
            }
        }
    });
    (server, received)
}

/// Type, flags, stream ID and payload.
type Frame = (u8, u8, u32, &'static [u8]);

/// Starts servers that read one request and then end the connection, each in another way.
fn start_http2_closing_servers(config: AlpnServerConfig) -> Vec<AlpnServer> {
    let endings: [&[Frame]; 7] = [
        &[],
        &[(7, 0, 0, &[0; 8])],
        &[(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2])],
        &[(DATA, 0, 0, b"on stream zero")],
        &[(HEADERS, 4, 1, &[0xff; 40])],
        &[
            (HEADERS, 4, 1, &[0x88]),
            (HEADERS, 0, 1, &[0x88]),
            (DATA, 0, 1, b"between"),
        ],
        &[(4, 0, 0, &[0; 5])],
    ];
    let start = |frames: &'static [Frame]| {
        AlpnServer::with_handler(config.clone(), move |socket, _| async move {
            let mut peer = Http2Peer::handshake(socket).await;
            if peer.read_until(HEADERS).await.is_some() {
                for (kind, flags, stream, payload) in frames {
                    peer.write_frame(*kind, *flags, *stream, payload).await;
                }
            }
        })
    };
    endings.into_iter().map(start).collect()
}

async fn search_http2(search: &mut LeakSearch) {
    for config in [HTTP2_SERVER, PLAINTEXT_SERVER] {
        let (server, received) = start_http2_fault_server(config.clone());
        let endings = start_http2_closing_servers(config);
        let source = || async { Ok("canary-token".to_owned()) };
        let origins: Vec<_> = endings.iter().map(AlpnServer::origin).collect();
        let with_host = builder_with_short_timeouts(&origins)
            .no_proxy()
            .http2_prior_knowledge();
        let with_host = with_host.build().unwrap();
        let with_source = builder_with_short_timeouts(&[])
            .no_proxy()
            .http2_prior_knowledge();
        let with_source = with_source.host(server.origin(), Host::new().token_source(source));
        let with_source = with_source.build().unwrap();
        let urls = HTTP2_PATHS.map(|path| server.url(path));
        let requests: Vec<_> = urls
            .iter()
            .flat_map(|url| requests_with_canaries(url))
            .collect();
        search.batch(&with_source, &requests).await;
        let requests: Vec<_> = endings
            .iter()
            .flat_map(|server| requests_with_canaries(&server.url("/")))
            .collect();
        search.batch(&with_host, &requests).await;
        let received = received.lock().unwrap();
        let sent = |name: &str, value: &str| {
            let has_value = |headers: &&HeaderMap| headers.get(name).is_some_and(|it| it == value);
            received.iter().filter(has_value).count()
        };
        // Two of the six requests per path have no `Authorization` of their own.
        assert!(sent("authorization", "Bearer canary-token") >= 2 * HTTP2_PATHS.len());
        assert!(sent("authorization", "Bearer canary-bearer") >= HTTP2_PATHS.len());
        assert!(sent("cookie", "session=canary-cookie") >= 6 * HTTP2_PATHS.len());
        assert!(sent("x-plain", "canary-marked") >= 6 * HTTP2_PATHS.len());
    }
}

/// Checks the search itself: it finds a canary in every encoding.
#[test]
fn search_finds_a_canary_in_every_encoding() {
    let search = LeakSearch::new();
    let found = |text: String| {
        search
            .encodings
            .iter()
            .any(|encoding| text.contains(encoding))
    };
    for secret in CANARIES {
        for prefix in ["", "u:", "user:", "longer user:"] {
            let text = format!("{prefix}{secret}");
            assert!(found(text.clone()));
            assert!(found(base64(text.as_bytes())), "{text}");
            assert!(found(format!("{:?}", text.as_bytes())));
        }
    }
    assert!(!found("no canary".to_owned()));
}
