//! The cases of httpbin under gunicorn. httpbin describes each received request in JSON.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fanout::{ErrorKind, Request, Response, Retry};
use serde::Deserialize;

use crate::endpoint::{Endpoint, header};
use crate::suite::Suite;

#[derive(Deserialize)]
struct ReceivedRequest {
    #[serde(default)]
    args: HashMap<String, String>,
    #[serde(default)]
    data: String,
    #[serde(default)]
    form: HashMap<String, String>,
    headers: HashMap<String, String>,
}

fn received_request(endpoint: Endpoint, response: &Response) -> ReceivedRequest {
    endpoint.assert_version(response);
    assert_eq!(response.status(), 200);
    response.json().unwrap()
}

pub async fn run(suite: &mut Suite, endpoint: &Endpoint) {
    let endpoint = *endpoint;
    suite
        .case(
            &endpoint,
            "query and headers arrive",
            query_and_headers(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "bodies arrive", bodies(endpoint))
        .await;
    suite
        .case(&endpoint, "bodies are exact", exact_bodies(endpoint))
        .await;
    suite
        .case(&endpoint, "HEAD has no body", head(endpoint))
        .await;
    for status in [204, 400, 404, 418, 451, 501] {
        suite
            .case(
                &endpoint,
                &format!("status {status}"),
                plain_status(endpoint, status),
            )
            .await;
    }
    for status in [500, 502, 503, 504, 429] {
        suite
            .case(
                &endpoint,
                &format!("status {status} is retried"),
                retried_status(endpoint, status),
            )
            .await;
    }
    for coding in ["gzip", "deflate", "brotli"] {
        suite
            .case(
                &endpoint,
                &format!("coding {coding}"),
                content_coding(endpoint, coding),
            )
            .await;
    }
    for status in [301, 302, 303, 307, 308] {
        suite
            .case(
                &endpoint,
                &format!("redirect {status}"),
                redirect(endpoint, status),
            )
            .await;
    }
    suite
        .case(
            &endpoint,
            "too many redirects",
            too_many_redirects(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "304 for a matching ETag", not_modified(endpoint))
        .await;
    suite
        .case(&endpoint, "206 for a range", range(endpoint))
        .await;
    suite.case(&endpoint, "chunked", chunked(endpoint)).await;
    suite
        .case(&endpoint, "basic credentials", basic(endpoint))
        .await;
    suite.case(&endpoint, "bearer", bearer(endpoint)).await;
    suite
        .case(
            &endpoint,
            "slow responses time out",
            slow_response(endpoint),
        )
        .await;
    suite
        .case(
            &endpoint,
            "body in delayed chunks",
            delayed_chunks(endpoint),
        )
        .await;
    suite
        .case(
            &endpoint,
            "2,000 requests, 64 connections",
            connection_reuse(endpoint),
        )
        .await;
}

async fn query_and_headers(endpoint: Endpoint) {
    let request = Request::get(endpoint.url("/get"))
        .query([("a b", "ä&=+"), ("c", "")])
        .header("x-own", "1, 2");
    let received = received_request(endpoint, &endpoint.fetcher().fetch(request).await.unwrap());
    assert_eq!(received.args["a b"], "ä&=+");
    assert_eq!(received.args["c"], "");
    assert_eq!(received.headers["X-Own"], "1, 2");
    assert!(received.headers["User-Agent"].starts_with("fanout/"));
}

async fn bodies(endpoint: Endpoint) {
    let fetcher = endpoint.fetcher();
    let text = "some text, ä\n".repeat(5000);
    for request in [
        Request::post(endpoint.url("/post")),
        Request::put(endpoint.url("/put")),
        Request::patch(endpoint.url("/patch")),
    ] {
        assert_eq!(
            received_request(
                endpoint,
                &fetcher.fetch(request.body(text.clone())).await.unwrap()
            )
            .data,
            text
        );
    }
    let request = Request::post(endpoint.url("/post")).form([("a", "1&2"), ("b", "ä")]);
    let form = received_request(endpoint, &fetcher.fetch(request).await.unwrap()).form;
    assert_eq!((&*form["a"], &*form["b"]), ("1&2", "ä"));
    let request = Request::post(endpoint.url("/post")).body(vec![0_u8, 255, 1, 254]);
    assert!(
        received_request(endpoint, &fetcher.fetch(request).await.unwrap())
            .data
            .ends_with("base64,AP8B/g==")
    );
}

/// Returns the body of `/range/{bytes}`: the alphabet, repeated.
fn alphabet(bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(bytes).collect()
}

async fn exact_bodies(endpoint: Endpoint) {
    for bytes in [1, 1000, 100_000] {
        let response = endpoint
            .fetcher()
            .fetch(endpoint.url(&format!("/range/{bytes}")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.bytes()[..] == alphabet(bytes));
    }
}

async fn head(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(Request::head(endpoint.url("/range/5000")))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.bytes().len()),
        (200, 0)
    );
}

async fn plain_status(endpoint: Endpoint, status: u16) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url(&format!("/status/{status}")))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, 1)
    );
    assert_eq!(response.error_for_status().is_err(), status >= 400);
}

async fn retried_status(endpoint: Endpoint, status: u16) {
    let backoff = Duration::from_millis(5);
    let retry = Retry::default()
        .max_retries(3)
        .max_throttled_attempts(0)
        .base_delay(backoff)
        .throttled_base_delay(backoff);
    let fetcher = endpoint.builder().retry(retry).build().unwrap();
    let url = endpoint.url(&format!("/status/{status}"));
    let response = fetcher.fetch(&url).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, 4)
    );
    // A 429 says that the server did not process the request.
    let post_attempts = if status == 429 { 4 } else { 1 };
    let response = fetcher.fetch(Request::post(&url)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, post_attempts)
    );
}

async fn content_coding(endpoint: Endpoint, coding: &str) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url(&format!("/{coding}")))
        .await
        .unwrap();
    assert_eq!(header(&response, "content-encoding"), "");
    assert!(received_request(endpoint, &response).headers["Accept-Encoding"].contains("gzip"));
}

async fn redirect(endpoint: Endpoint, status: u16) {
    let url = endpoint.url(&format!("/redirect-to?status_code={status}&url=/anything"));
    let response = endpoint
        .fetcher()
        .fetch(Request::post(url).body("kept"))
        .await
        .unwrap();
    let data = if status >= 307 { "kept" } else { "" };
    assert_eq!(received_request(endpoint, &response).data, data);
    assert_eq!(response.redirects()[0].status(), status);
    assert_eq!(response.url().path(), "/anything");
}

async fn too_many_redirects(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url("/absolute-redirect/10"))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.redirects().len()),
        (200, 10)
    );
    let error = endpoint
        .fetcher()
        .fetch(endpoint.url("/relative-redirect/11"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
}

async fn not_modified(endpoint: Endpoint) {
    let request = Request::get(endpoint.url("/etag/known")).header("if-none-match", "known");
    assert_eq!(
        endpoint.fetcher().fetch(request).await.unwrap().status(),
        304
    );
    assert_eq!(
        endpoint
            .fetcher()
            .fetch(endpoint.url("/etag/known"))
            .await
            .unwrap()
            .status(),
        200
    );
}

async fn range(endpoint: Endpoint) {
    let request = Request::get(endpoint.url("/range/1024")).header("range", "bytes=26-51");
    let response = endpoint.fetcher().fetch(request).await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.bytes()[..], alphabet(26));
}

async fn chunked(endpoint: Endpoint) {
    let url = endpoint.url("/stream-bytes/100000?seed=7&chunk_size=999");
    let [first, second] = [(); 2].map(|()| endpoint.fetcher().fetch(&url));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(
        (first.bytes().len(), header(&first, "content-length")),
        (100_000, "")
    );
    assert!(first.bytes() == second.bytes());
}

async fn basic(endpoint: Endpoint) {
    let fetcher = endpoint.fetcher();
    let request = || Request::get(endpoint.url("/basic-auth/user/p%40ss"));
    assert_eq!(
        fetcher
            .fetch(request().basic_auth("user", "p@ss"))
            .await
            .unwrap()
            .status(),
        200
    );
    for wrong in [request(), request().basic_auth("user", "other")] {
        assert_eq!(fetcher.fetch(wrong).await.unwrap().status(), 401);
    }
}

async fn bearer(endpoint: Endpoint) {
    let request = || Request::get(endpoint.url("/bearer"));
    let response = endpoint
        .fetcher()
        .fetch(request().bearer_auth("t0ken"))
        .await
        .unwrap();
    assert!(response.text().contains("t0ken"));
    assert_eq!(
        endpoint.fetcher().fetch(request()).await.unwrap().status(),
        401
    );
}

async fn slow_response(endpoint: Endpoint) {
    let fetcher = endpoint.builder().retry(Retry::off()).build().unwrap();
    let request = || Request::get(endpoint.url("/delay/1"));
    assert_eq!(
        fetcher
            .fetch(request().timeout(Duration::from_secs(20)))
            .await
            .unwrap()
            .status(),
        200
    );
    let error = fetcher
        .fetch(request().timeout(Duration::from_millis(100)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
}

async fn delayed_chunks(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url("/drip?numbytes=5&duration=1"))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (200, "*****")
    );
}

async fn connection_reuse(endpoint: Endpoint) {
    let urls = (0..2000).map(|n| endpoint.url(&format!("/range/{}", n % 50 + 1)));
    let (mut connection_count, mut tags) = (0, HashSet::new());
    for (n, result) in endpoint
        .fetcher()
        .batch(urls)
        .concurrency(64)
        .gather()
        .await
        .into_iter()
        .enumerate()
    {
        let response = result.unwrap();
        assert_eq!(response.bytes()[..], alphabet(n % 50 + 1));
        connection_count += usize::from(response.timings().connect() > Duration::ZERO);
        tags.insert(header(&response, "etag").to_owned());
    }
    assert!(connection_count <= 64, "{connection_count} connections");
    assert_eq!(tags.len(), 50);
}
