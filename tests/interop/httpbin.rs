//! The cases of httpbin under gunicorn, which says in JSON what it was sent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fanout::{ErrorKind, Request, Response, Retry};
use serde::Deserialize;

use crate::site::{Site, header};
use crate::suite::Suite;

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    args: HashMap<String, String>,
    #[serde(default)]
    data: String,
    #[serde(default)]
    form: HashMap<String, String>,
    headers: HashMap<String, String>,
}

fn sent(site: Site, response: &Response) -> Sent {
    site.assert_version(response);
    assert_eq!(response.status(), 200);
    response.json().unwrap()
}

pub async fn run(suite: &mut Suite, site: &Site) {
    let site = *site;
    suite
        .case(&site, "query and headers arrive", query(site))
        .await;
    suite.case(&site, "bodies arrive", bodies(site)).await;
    suite.case(&site, "bodies are exact", exact(site)).await;
    suite.case(&site, "HEAD has no body", head(site)).await;
    for status in [204, 400, 404, 418, 451, 501] {
        suite
            .case(
                &site,
                &format!("status {status}"),
                plain_status(site, status),
            )
            .await;
    }
    for status in [500, 502, 503, 504, 429] {
        suite
            .case(
                &site,
                &format!("status {status} is tried again"),
                retried(site, status),
            )
            .await;
    }
    for coding in ["gzip", "deflate", "brotli"] {
        suite
            .case(&site, &format!("coding {coding}"), coded(site, coding))
            .await;
    }
    for status in [301, 302, 303, 307, 308] {
        suite
            .case(&site, &format!("redirect {status}"), redirect(site, status))
            .await;
    }
    suite
        .case(&site, "redirects without end", redirects(site))
        .await;
    suite
        .case(&site, "304 for a tag that is known", not_modified(site))
        .await;
    suite.case(&site, "206 for a range", range(site)).await;
    suite.case(&site, "chunked", chunked(site)).await;
    suite.case(&site, "basic credentials", basic(site)).await;
    suite.case(&site, "bearer", bearer(site)).await;
    suite.case(&site, "slow answers time out", slow(site)).await;
    suite.case(&site, "a body in drips", drip(site)).await;
    suite
        .case(&site, "2,000 requests, 64 connections", reuse(site))
        .await;
}

async fn query(site: Site) {
    let request = Request::get(site.url("/get"))
        .query([("a b", "ä&=+"), ("c", "")])
        .header("x-own", "1, 2");
    let sent = sent(site, &site.fetcher().fetch(request).await.unwrap());
    assert_eq!(sent.args["a b"], "ä&=+");
    assert_eq!(sent.args["c"], "");
    assert_eq!(sent.headers["X-Own"], "1, 2");
    assert!(sent.headers["User-Agent"].starts_with("fanout/"));
}

async fn bodies(site: Site) {
    let fetcher = site.fetcher();
    let text = "exactly this, ä\n".repeat(5000);
    for request in [
        Request::post(site.url("/post")),
        Request::put(site.url("/put")),
        Request::patch(site.url("/patch")),
    ] {
        assert_eq!(
            sent(
                site,
                &fetcher.fetch(request.body(text.clone())).await.unwrap()
            )
            .data,
            text
        );
    }
    let request = Request::post(site.url("/post")).form([("a", "1&2"), ("b", "ä")]);
    let form = sent(site, &fetcher.fetch(request).await.unwrap()).form;
    assert_eq!((&*form["a"], &*form["b"]), ("1&2", "ä"));
    let request = Request::post(site.url("/post")).body(vec![0_u8, 255, 1, 254]);
    assert!(
        sent(site, &fetcher.fetch(request).await.unwrap())
            .data
            .ends_with("base64,AP8B/g==")
    );
}

/// What `/range/` sends: the alphabet, over and over.
fn alphabet(bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(bytes).collect()
}

async fn exact(site: Site) {
    for bytes in [1, 1000, 100_000] {
        let response = site
            .fetcher()
            .fetch(site.url(&format!("/range/{bytes}")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.bytes()[..] == alphabet(bytes));
    }
}

async fn head(site: Site) {
    let response = site
        .fetcher()
        .fetch(Request::head(site.url("/range/5000")))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.bytes().len()),
        (200, 0)
    );
}

async fn plain_status(site: Site, status: u16) {
    let response = site
        .fetcher()
        .fetch(site.url(&format!("/status/{status}")))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, 1)
    );
    assert_eq!(response.error_for_status().is_err(), status >= 400);
}

async fn retried(site: Site, status: u16) {
    let quick = Duration::from_millis(5);
    let retry = Retry::default()
        .max_retries(3)
        .max_throttled_attempts(0)
        .base_delay(quick)
        .throttled_base_delay(quick);
    let fetcher = site.builder().retry(retry).build().unwrap();
    let url = site.url(&format!("/status/{status}"));
    let response = fetcher.fetch(&url).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, 4)
    );
    let response = fetcher.fetch(Request::post(&url)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (status, 1)
    );
}

async fn coded(site: Site, coding: &str) {
    let response = site
        .fetcher()
        .fetch(site.url(&format!("/{coding}")))
        .await
        .unwrap();
    assert_eq!(header(&response, "content-encoding"), "");
    assert!(sent(site, &response).headers["Accept-Encoding"].contains("gzip"));
}

async fn redirect(site: Site, status: u16) {
    let url = site.url(&format!("/redirect-to?status_code={status}&url=/anything"));
    let response = site
        .fetcher()
        .fetch(Request::post(url).body("kept"))
        .await
        .unwrap();
    let data = if status >= 307 { "kept" } else { "" };
    assert_eq!(sent(site, &response).data, data);
    assert_eq!(response.redirects()[0].status(), status);
    assert_eq!(response.url().path(), "/anything");
}

async fn redirects(site: Site) {
    let response = site
        .fetcher()
        .fetch(site.url("/absolute-redirect/10"))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.redirects().len()),
        (200, 10)
    );
    let error = site
        .fetcher()
        .fetch(site.url("/relative-redirect/11"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
}

async fn not_modified(site: Site) {
    let request = Request::get(site.url("/etag/known")).header("if-none-match", "known");
    assert_eq!(site.fetcher().fetch(request).await.unwrap().status(), 304);
    assert_eq!(
        site.fetcher()
            .fetch(site.url("/etag/known"))
            .await
            .unwrap()
            .status(),
        200
    );
}

async fn range(site: Site) {
    let request = Request::get(site.url("/range/1024")).header("range", "bytes=26-51");
    let response = site.fetcher().fetch(request).await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.bytes()[..], alphabet(26));
}

async fn chunked(site: Site) {
    let url = site.url("/stream-bytes/100000?seed=7&chunk_size=999");
    let [one, other] = [(); 2].map(|()| site.fetcher().fetch(&url));
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(
        (one.bytes().len(), header(&one, "content-length")),
        (100_000, "")
    );
    assert!(one.bytes() == other.bytes());
}

async fn basic(site: Site) {
    let fetcher = site.fetcher();
    let request = || Request::get(site.url("/basic-auth/user/p%40ss"));
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

async fn bearer(site: Site) {
    let request = || Request::get(site.url("/bearer"));
    let response = site
        .fetcher()
        .fetch(request().bearer_auth("t0ken"))
        .await
        .unwrap();
    assert!(response.text().contains("t0ken"));
    assert_eq!(site.fetcher().fetch(request()).await.unwrap().status(), 401);
}

async fn slow(site: Site) {
    let fetcher = site.builder().retry(Retry::off()).build().unwrap();
    let request = || Request::get(site.url("/delay/1"));
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

async fn drip(site: Site) {
    let response = site
        .fetcher()
        .fetch(site.url("/drip?numbytes=5&duration=1"))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (200, "*****")
    );
}

async fn reuse(site: Site) {
    let urls = (0..2000).map(|n| site.url(&format!("/range/{}", n % 50 + 1)));
    let (mut made, mut tags) = (0, HashSet::new());
    for (n, result) in site
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
        made += usize::from(response.timings().connect() > Duration::ZERO);
        tags.insert(header(&response, "etag").to_owned());
    }
    assert!(made <= 64, "{made} connections");
    assert_eq!(tags.len(), 50);
}
