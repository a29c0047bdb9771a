//! A reverse proxy: an axum handler that forwards each request, and returns the response of the
//! origin server while its body still arrives.
//!
//! aiohttp: `async for chunk in upstream.content.iter_any(): await response.write(chunk)`.
//!
//! ```text
//! cargo run --release --example reverse_proxy
//! ```

mod demo;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fanout::{Fetcher, RedirectPolicy};

#[derive(Clone)]
struct Proxy {
    fetcher: Fetcher,
    origin: String,
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut headers = end_to_end_headers(&head.headers);
    // These two are those of the request to the origin.
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    let body = match body.size_hint().exact() {
        Some(0) => fanout::Body::default(),
        Some(length) => fanout::Body::sized_stream(length, body.into_data_stream()),
        None => fanout::Body::stream(body.into_data_stream()),
    };
    let request = fanout::Request::new(head.method, format!("{}{target}", proxy.origin))
        .headers(headers)
        .body(body)
        // The body and its headers are passed on as received.
        .decode_content(false);
    match proxy.fetcher.fetch(request).stream_body().await {
        Ok(upstream) => {
            let (status, headers) = (upstream.status(), end_to_end_headers(upstream.headers()));
            (status, headers, Body::new(upstream)).into_response()
        }
        Err(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT.into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// The headers without those of the connection (RFC 9110 §7.6.1).
fn end_to_end_headers(headers: &HeaderMap) -> HeaderMap {
    let mut end_to_end = headers.clone();
    for value in headers.get_all(header::CONNECTION) {
        for name in value.to_str().unwrap_or_default().split(',') {
            if let Ok(name) = name.trim().parse::<HeaderName>() {
                end_to_end.remove(name);
            }
        }
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        end_to_end.remove(name);
    }
    end_to_end
}

async fn start_proxy(origin: String) -> Result<String, Box<dyn std::error::Error>> {
    // The client follows redirects, not the proxy. Each open response holds one of the slots.
    let fetcher = Fetcher::builder()
        .redirect_policy(RedirectPolicy::none())
        .concurrency(1000)
        .build()?;
    let proxy = Proxy { fetcher, origin };
    let app = axum::Router::new().fallback(forward).with_state(proxy);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proxy = start_proxy(demo::start().await).await?;
    let client = Fetcher::new();

    const LARGE: usize = 16 << 20;
    let fetch = client.fetch(format!("{proxy}/bytes/{LARGE}"));
    let mut response = fetch.stream_body().await?;
    println!("{} {:?} bytes", response.status(), response.length());
    let mut length = 0;
    while let Some(chunk) = response.next().await {
        let chunk = chunk?;
        assert!(chunk.iter().all(|byte| *byte == b'x'));
        length += chunk.len();
    }
    assert_eq!(length, LARGE);

    let post = fanout::Request::post(format!("{proxy}/post")).body("a request body");
    assert_eq!(client.fetch(post).await?.text(), "a request body");
    let response = client.fetch(format!("{proxy}/status/404")).await?;
    assert_eq!(response.status(), 404);
    println!("{length} bytes, a request body and a status passed through");
    Ok(())
}
