//! Functions that pass arbitrary bytes to the crate and panic if it misbehaves.
//!
//! The fuzz targets in `fuzz/` call them, and so does `mutations.rs`, with mutations of the seeds
//! below. A function uses only the public API of the crate, over a loopback socket or over a
//! transport in this process.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use fanout::{
    Body, Breaker, Completed, ErrorKind, Fetcher, FetcherBuilder, FollowLimits, Proxy, Request,
    RequestBuilder, Response, Retry,
};
use http::{HeaderName, HeaderValue, Method, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// A function under test, with inputs from which mutations start.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: &'static [&'static [u8]],
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "http1_response",
        run: http1_response,
        seeds: &[
            b"GHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            b"GHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nt: 1\r\n\r\n",
            b"GHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil close",
            b"HHTTP/1.1 200 OK\r\ncontent-length: 500\r\nconnection: close\r\n\r\n",
            b"GHTTP/1.0 301 Moved\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n",
            b"GHTTP/1.1 204 No Content\r\nx: a,\r\n b\r\nY : c\r\n\r\n",
            b"GHTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ],
    },
    Target {
        name: "http2_frames",
        run: http2_frames,
        seeds: &[
            // SETTINGS, HEADERS with `:status: 200`, and DATA.
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x05\0\x01\0\0\0\x01hello",
            // HEADERS with `content-length: 5`, then DATA and empty DATA.
            b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x04\0\0\0\x01\x88\x0f\x0d\x015\0\0\x05\0\0\0\0\0\x01hello\0\0\0\0\x01\0\0\0\x01",
            // RST_STREAM, PING, WINDOW_UPDATE and GOAWAY.
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0pingpong\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x01",
            // HEADERS and CONTINUATION.
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x01\0\0\0\x01\x88\0\0\x01\x09\x04\0\0\0\x01\x54",
        ],
    },
    Target {
        name: "headers",
        run: headers,
        seeds: &[
            b"200\nlink: </2>; rel=\"next\", <b>; rel=last; title=\"x, y\"\ncontent-type: text/html; charset=gbk\n",
            b"429\nretry-after: 30\nx-ratelimit-limit: 5\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1700000000\n",
            b"429\nx-ratelimit-limit-tokens: 150000\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 6m0.5s\nx-ratelimit-remaining-requests: 5\nx-ratelimit-reset-requests: 12ms\nretry-after-ms: 40.5\n",
            b"529\nanthropic-ratelimit-requests-remaining: 0\nanthropic-ratelimit-requests-reset: 2025-08-21T14:41:30.5+02:00\nx-should-retry: true\n",
            b"403\nx-github-request-id: A1\nx-ratelimit-limit: 30\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1655120964\nx-ratelimit-resource: search\n",
            b"503\nretry-after: Fri, 31 Dec 1999 23:59:59 GMT\ndate: Fri, 31 Dec 1999 23:59:58 GMT\n",
            b"200\nratelimit: \"default\";r=0;t=10\nratelimit-policy: \"default\";q=100;w=60\n",
            b"200\nset-cookie: a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; Domain=app.test\n",
            b"302\nlocation: //b.test/x?y#z\nset-cookie: c=\"d\"; Max-Age=10; SameSite=Lax\n",
            b"401\nwww-authenticate: Bearer realm=\"x\"\n",
            b"206\ncontent-range: bytes 0-4/10\netag: W/\"v\"\n",
        ],
    },
    Target {
        name: "proxy_reply",
        run: proxy_reply,
        seeds: &[
            b"S\x05\0\x05\0\0\x01\x7f\0\0\x01\0\x50HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            b"S\x05\x02\x01\0\x05\0\0\x03\x04host\0\x50HTTP/1.1 204 No Content\r\n\r\n",
            b"S\x05\0\x05\x05\0\x01\0\0\0\0\0\0",
            b"S\x05\0\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
            b"CHTTP/1.1 200 Connected\r\nvia: x\r\n\r\n\x16\x03\x03\0\x05hello",
            b"CHTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno",
            b"CHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n",
        ],
    },
    Target {
        name: "decoders",
        run: decoders,
        seeds: &[
            // "hello hello hello" in each coding.
            b"\0\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x27\x00\x26\x5f\xf9\x36\x11\0\0\0",
            b"\x01\x78\x9c\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x27\x00\x3a\x41\x06\x5c",
            b"\x01\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x27\x00",
            b"\x02\x0b\x08\x80hello hello hello\x03",
            b"\x03\x28\xb5\x2f\xfd\x20\x11\x89\0\0hello hello hello",
            b"\x04\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0\x03\0\0\0\0\0\0\0\0\0",
        ],
    },
    Target {
        name: "urls",
        run: urls,
        seeds: &[
            b"https://user:p%40ss@host.example:8443/a/../b?q=1&r=%20#frag",
            b"//other.example/x",
            b"?query-only",
            b"http://[::ffff:127.0.0.1]:80/",
            b"http://0x7f.1/",
            b"HTTP://xn--bcher-kva.example/b\xc3\xbccher",
            b" https://a.example/\r\n",
            b"file:///etc/passwd",
        ],
    },
];

/// The real time after which a run counts as hung.
const HANG_GUARD: Duration = Duration::from_secs(60);

const MAX_BODY_SIZE: u64 = 1 << 20;

fn builder() -> FetcherBuilder {
    Fetcher::builder()
        .no_proxy()
        .retry(Retry::off())
        .breaker(Breaker::off())
        .max_redirects(2)
        .max_body_size(MAX_BODY_SIZE)
        .cookies(true)
}

/// Bytes from a server for HTTP/1.1. The first byte selects `HEAD` or `GET`.
pub fn http1_response(data: &[u8]) {
    thread_local! {
        static LOOPBACK: Loopback = Loopback::new(builder());
    }
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let method = if first == b'H' {
        Method::HEAD
    } else {
        Method::GET
    };
    LOOPBACK.with(|loopback| {
        let result = loopback.fetch(data, |url| Request::new(method.clone(), url));
        if let Some(response) = check_result(result)
            && method == Method::GET
        {
            check_length(&response);
        }
    });
}

/// Frames from a server for HTTP/2.
pub fn http2_frames(data: &[u8]) {
    thread_local! {
        static LOOPBACK: Loopback = Loopback::new(builder().http2_prior_knowledge());
    }
    LOOPBACK.with(|loopback| {
        if let Some(response) = check_result(loopback.fetch(data, Request::get)) {
            check_length(&response);
        }
    });
}

/// Bytes from a SOCKS5 proxy (first byte `S`) or from an HTTP proxy for `CONNECT`.
pub fn proxy_reply(data: &[u8]) {
    thread_local! {
        static LOOPBACK: Loopback = Loopback::new(builder());
    }
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    LOOPBACK.with(|loopback| {
        let address = &loopback.address;
        let (url, proxy) = match first {
            b'S' => (
                "http://origin.test/",
                Proxy::all(format!("socks5h://{address}")),
            ),
            _ => (
                "https://origin.test/",
                Proxy::all(format!("http://{address}")),
            ),
        };
        let proxy = proxy.expect("a valid proxy");
        check_result(loopback.fetch(data, |_| Request::get(url).proxy(proxy.clone())));
    });
}

/// A status in the first line, and a header in each other line.
pub fn headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut response = http::Response::builder().status(status.unwrap_or(200));
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            response = response.header(name, value);
        }
    }
    let Ok(response) = response.body("caf\u{e9}".into()) else {
        return;
    };
    InProcess::with(|in_process| {
        // The second request sends the cookies of the first and follows its limits.
        for _ in 0..2 {
            in_process.respond_with(&response);
            let request = Request::get("https://app.test/page");
            let pages = in_process
                .fetcher
                .batch([request])
                .deadline(Duration::from_secs(3600));
            let mut pages = pages
                .as_completed()
                .follow_next_link(FollowLimits::default().max_requests(2));
            in_process.runtime.block_on(async {
                while let Some(Completed { result, .. }) = pages.next().await {
                    let Some(response) = check_result(result) else {
                        continue;
                    };
                    let _ = (
                        response.text(),
                        response.retry_after(),
                        response.link("next"),
                    );
                    let _ = format!("{response:?}");
                }
            });
        }
    });
}

/// A body in a content coding, which the first byte selects.
pub fn decoders(data: &[u8]) {
    const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "gzip, br"];
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let coding = CODINGS[usize::from(first) % CODINGS.len()];
    let response = http::Response::builder().header(header::CONTENT_ENCODING, coding);
    let response = response.body(data.to_vec()).expect("a valid response");
    InProcess::with(|in_process| {
        in_process.respond_with(&response);
        let fetch = in_process.fetcher.fetch("https://app.test/body");
        let Some(response) = check_result(in_process.runtime.block_on(fetch)) else {
            return;
        };
        assert!(response.bytes().len() as u64 <= MAX_BODY_SIZE);
        if data.is_empty() {
            return;
        }
        let mut decoded = Vec::new();
        let is_decoded = match coding {
            "gzip" => flate2::read::MultiGzDecoder::new(data).read_to_end(&mut decoded),
            "br" => brotli::Decompressor::new(data, 4096).read_to_end(&mut decoded),
            _ => return,
        };
        // A gzip body may be followed by zeros, which the other decoder rejects.
        if is_decoded.is_ok() {
            assert_eq!(response.bytes()[..], decoded, "{coding}");
        }
    });
}

/// The text of a URL, as an input and as the target of a redirect.
pub fn urls(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let request = Request::get(&text).build();
    if let Some(url) = request.url() {
        assert!(
            url.username().is_empty() && url.password().is_none(),
            "{url}"
        );
        let again = Request::get(url.as_str()).build();
        assert_eq!(again.url(), Some(url));
    }
    InProcess::with(|in_process| {
        in_process.respond_with(&http::Response::new(Vec::new()));
        check_result(
            in_process
                .runtime
                .block_on(in_process.fetcher.fetch(&*text)),
        );
        let Ok(location) = HeaderValue::from_bytes(data) else {
            return;
        };
        let redirect = http::Response::builder()
            .status(302)
            .header(header::LOCATION, location);
        in_process.respond_with(&redirect.body(Vec::new()).expect("a valid response"));
        let fetch = in_process.fetcher.fetch("https://app.test/from");
        check_result(in_process.runtime.block_on(fetch));
    });
}

/// Checks that an error is not a panic, and that it can be printed.
fn check_result(result: fanout::Result<Response>) -> Option<Response> {
    let error = match result {
        Ok(response) => return Some(response),
        Err(error) => error,
    };
    assert_ne!(error.kind(), ErrorKind::Panicked, "{error:?}");
    let _ = (error.to_string(), format!("{error:?}"));
    None
}

/// Checks that a body is as long as its `Content-Length`. A decoded body has none.
fn check_length(response: &Response) {
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length
        && !matches!(response.status().as_u16(), 204 | 304)
    {
        assert_eq!(length, response.bytes().len() as u64, "{response:?}");
    }
}

/// A client and a server on one thread, connected by loopback sockets.
struct Loopback {
    runtime: Runtime,
    listener: TcpListener,
    address: String,
    fetcher: Fetcher,
    runs: Cell<u64>,
}

impl Loopback {
    fn new(builder: FetcherBuilder) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        // A limit that the server announces applies to one run only.
        let fetcher = builder
            .limit_by(|request| request.url_str().to_owned())
            .build();
        Self {
            runtime,
            listener,
            address,
            fetcher: fetcher.expect("valid settings"),
            runs: Cell::new(0),
        }
    }

    /// Fetches from a server that sends `data` on each connection, and closes it.
    fn fetch(
        &self,
        data: &[u8],
        request: impl Fn(String) -> RequestBuilder,
    ) -> fanout::Result<Response> {
        self.runs.set(self.runs.get() + 1);
        let url = format!("http://{}/{}", self.address, self.runs.get());
        let fetch = self.fetcher.fetch(request(url));
        let exchange = async {
            tokio::select! {
                result = fetch => result,
                () = serve(&self.listener, data) => unreachable!("the server does not end"),
            }
        };
        self.runtime.block_on(async {
            let result = tokio::time::timeout(HANG_GUARD, exchange).await;
            result.unwrap_or_else(|_| panic!("hangs"))
        })
    }
}

async fn serve(listener: &TcpListener, data: &[u8]) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(data).await;
        let _ = stream.shutdown().await;
        // Closing with unread bytes would discard `data`.
        while stream
            .read(&mut buffer)
            .await
            .is_ok_and(|length| length > 0)
        {}
    }
}

/// A client whose transport is in this process, on a paused clock.
struct InProcess {
    runtime: Runtime,
    fetcher: Fetcher,
    response: Arc<Mutex<http::Response<Vec<u8>>>>,
    runs: Cell<u64>,
}

impl InProcess {
    fn new() -> Self {
        let response = Arc::default();
        let transport = FixedResponse(Arc::clone(&response));
        Self {
            runtime: Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .expect("a runtime"),
            fetcher: builder()
                .transport(transport)
                .build()
                .expect("valid settings"),
            response,
            runs: Cell::new(0),
        }
    }

    /// Runs `use_client` with the client of this thread. The client is replaced from time to time,
    /// because the clock of its runtime advances by hours.
    fn with(use_client: impl FnOnce(&Self)) {
        thread_local! {
            static CLIENT: RefCell<Rc<InProcess>> = RefCell::new(Rc::new(InProcess::new()));
        }
        let client = CLIENT.with_borrow(Rc::clone);
        client.runs.set(client.runs.get() + 1);
        if client.runs.get() == 1000 {
            CLIENT.set(Rc::new(Self::new()));
        }
        use_client(&client);
    }

    fn respond_with(&self, response: &http::Response<Vec<u8>>) {
        *self.response.lock().expect("not poisoned") = response.clone();
    }
}

/// A transport that responds to every request with the same response.
#[derive(Clone)]
struct FixedResponse(Arc<Mutex<http::Response<Vec<u8>>>>);

impl tower_service::Service<http::Request<Body>> for FixedResponse {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let response = self.0.lock().expect("not poisoned").clone();
        ready(Ok(response.map(Body::from)))
    }
}
