//! Response bodies saved to files, over real sockets.

use std::error::Error as _;
use std::time::Duration;

use crate::support::body_streams::{TempDir, interval_bytes, listen, read_head, write};
use crate::support::server::{FaultServer, expected_body, pattern_bytes};
use fanout::{
    Body, ErrorKind, Fetcher, FetcherBuilder, Request, Response, Result, Retry, Timeouts,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const MODIFIED: &str =
    "last-modified: Fri, 31 Dec 1999 23:59:58 GMT\r\ndate: Fri, 31 Dec 1999 23:59:59 GMT\r\n";

/// Serves one response per connection and closes it. The task returns the heads of the requests.
async fn serve_responses(responses: &[(&str, &str, &str)]) -> (String, JoinHandle<Vec<String>>) {
    let (listener, url) = listen().await;
    let responses: Vec<String> = responses
        .iter()
        .map(|(status, headers, body)| {
            format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n{body}")
        })
        .collect();
    let heads = tokio::spawn(async move {
        let mut heads = Vec::new();
        for response in responses {
            let (mut socket, _) = listener.accept().await.unwrap();
            heads.push(read_head(&mut socket).await.to_lowercase());
            write(&mut socket, response).await;
        }
        heads
    });
    (url, heads)
}

fn builder_with_short_backoff() -> FetcherBuilder {
    Fetcher::builder().retry(Retry::default().base_delay(Duration::from_millis(1)))
}

/// Fetches from a server with these responses, and returns the result, the content of the file and
/// the heads of the requests.
async fn save_from(responses: &[(&str, &str, &str)]) -> (Result<Response>, String, Vec<String>) {
    let directory = TempDir::new();
    let (url, heads) = serve_responses(responses).await;
    let request = Request::get(url).save_to(directory.path("file"));
    let result = builder_with_short_backoff()
        .build()
        .unwrap()
        .fetch(request)
        .await;
    let content = std::fs::read_to_string(directory.path("file")).unwrap_or_default();
    let expected: &[&str] = if result.as_ref().is_ok_and(|r| r.saved_to().is_some()) {
        &["file"]
    } else {
        &[]
    };
    assert_eq!(directory.entry_names(), expected, "no other file is left");
    (result, content, heads.await.unwrap())
}

#[tokio::test]
async fn saved_body_is_only_in_its_file_and_exempt_from_max_body_size() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    std::fs::write(directory.path("old"), "old content").unwrap();
    let fetcher = Fetcher::builder().max_body_size(100).build().unwrap();
    let inputs = [
        ("/bytes/3000000", "old"),
        ("/big/700000", "new"),
        ("/bytes/0", "empty"),
    ];
    let requests =
        inputs.map(|(path, name)| Request::get(server.url(path)).save_to(directory.path(name)));
    let results = fetcher.gather(requests).await;
    for (result, (name, length)) in
        results
            .iter()
            .zip([("old", 3_000_000), ("new", 700_000), ("empty", 0)])
    {
        let response = result.as_ref().unwrap();
        assert!(response.bytes().is_empty());
        assert_eq!(response.saved_to(), Some(&*directory.path(name)));
        assert_eq!(response.saved_bytes(), Some(length as u64));
        assert!(std::fs::read(directory.path(name)).unwrap() == pattern_bytes(length));
    }
    assert_eq!(directory.entry_names(), ["empty", "new", "old"]);
}

#[tokio::test]
async fn non_2xx_body_stays_in_memory_and_creates_no_file() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let request = Request::get(server.url("/gone")).save_to(directory.path("file"));
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.text().as_ref()),
        (410, "gone")
    );
    assert_eq!((response.saved_to(), response.saved_bytes()), (None, None));
    assert!(directory.entry_names().is_empty());
}

#[tokio::test]
async fn body_after_redirects_is_saved() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let request = Request::get(server.url("/hops/2")).save_to(directory.path("file"));
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(response.redirects().len(), 2);
    assert!(std::fs::read(directory.path("file")).unwrap() == expected_body(0));
}

#[tokio::test]
async fn retry_resumes_a_truncated_download() {
    for (validator, condition) in [
        ("etag: \"v1\"\r\n", "if-range: \"v1\"\r\n"),
        (MODIFIED, "if-range: fri, 31 dec 1999 23:59:58 gmt\r\n"),
    ] {
        let first = format!("content-length: 10\r\n{validator}");
        let (result, content, heads) = save_from(&[
            ("200 OK", &first, "0123"),
            ("500 Internal Server Error", "content-length: 0\r\n", ""),
            (
                "206 Partial Content",
                "content-length: 6\r\ncontent-range: bytes 4-9/10\r\n",
                "456789",
            ),
        ])
        .await;
        let response = result.unwrap();
        assert_eq!(content, "0123456789");
        assert_eq!(response.saved_bytes(), Some(10));
        assert_eq!(response.attempts().len(), 3);
        assert!(!heads[0].contains("range"));
        for head in &heads[1..] {
            assert!(head.contains("\r\nrange: bytes=4-\r\n"), "{head}");
            assert!(head.contains(condition), "{head}");
            assert!(head.contains("accept-encoding: identity"), "{head}");
        }
    }
}

#[tokio::test]
async fn changed_resource_is_saved_from_its_start() {
    let (result, content, _) = save_from(&[
        ("200 OK", "content-length: 10\r\netag: \"v1\"\r\n", "0123"),
        ("200 OK", "content-length: 3\r\netag: \"v2\"\r\n", "new"),
    ])
    .await;
    assert_eq!(result.unwrap().saved_bytes(), Some(3));
    assert_eq!(content, "new");
}

#[tokio::test]
async fn mismatched_range_is_discarded_and_the_download_restarts() {
    for (status, headers) in [
        (
            "206 Partial Content",
            "content-length: 6\r\ncontent-range: bytes 3-8/10\r\n",
        ),
        (
            "206 Partial Content",
            "content-length: 6\r\ncontent-range: bytes 4-9/11\r\n",
        ),
        (
            "206 Partial Content",
            "content-length: 6\r\ncontent-range: bytes 4-9/10\r\netag: \"v2\"\r\n",
        ),
        ("206 Partial Content", "content-length: 6\r\n"),
        (
            "416 Range Not Satisfiable",
            "content-length: 6\r\ncontent-range: bytes */3\r\n",
        ),
    ] {
        let (result, content, heads) = save_from(&[
            ("200 OK", "content-length: 10\r\netag: \"v1\"\r\n", "0123"),
            (status, headers, "xxxxxx"),
            ("200 OK", "content-length: 3\r\n", "new"),
        ])
        .await;
        assert_eq!(result.unwrap().saved_bytes(), Some(3), "{headers}");
        assert_eq!(content, "new");
        assert!(!heads[2].contains("range"));
    }
}

#[tokio::test]
async fn download_restarts_without_a_strong_validator() {
    for headers in [
        "content-length: 10\r\n",
        "content-length: 10\r\netag: W/\"v1\"\r\n",
        "content-length: 10\r\netag: \"v1\"\r\naccept-ranges: none\r\n",
    ] {
        let (result, content, heads) = save_from(&[
            ("200 OK", headers, "0123"),
            ("200 OK", headers, "abcdefghij"),
        ])
        .await;
        assert!(result.is_ok());
        assert_eq!(content, "abcdefghij");
        assert!(!heads[1].contains("range"), "{}", heads[1]);
    }
}

#[tokio::test]
async fn failed_download_leaves_no_file() {
    let broken = ("200 OK", "content-length: 10\r\netag: \"v1\"\r\n", "0123");
    let rest = (
        "206 Partial Content",
        "content-length: 6\r\ncontent-range: bytes 4-9/10\r\n",
        "45",
    );
    let last = (
        "206 Partial Content",
        "content-length: 4\r\ncontent-range: bytes 6-9/10\r\n",
        "67",
    );
    let (result, _, heads) = save_from(&[broken, rest, last]).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Truncated);
    assert!(heads[2].contains("range: bytes=6-"));
    let (result, _, _) =
        save_from(&[broken, ("404 Not Found", "content-length: 2\r\n", "no")]).await;
    assert_eq!(result.unwrap().text(), "no");
}

#[tokio::test]
async fn file_error_fails_its_input_and_is_not_retried() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    std::fs::create_dir_all(directory.path("full/of/entries")).unwrap();
    for name in ["missing/file", "full"] {
        let request = Request::get(server.url("/ok/1")).save_to(directory.path(name));
        let error = Fetcher::new().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Save, "{name}");
        assert!(error.source().unwrap().is::<std::io::Error>());
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.attempts().len(), 1);
    }
    assert_eq!(directory.entry_names(), ["full"]);
}

#[tokio::test]
async fn dropped_fetch_removes_its_partial_file() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let request = Request::get(server.url("/stall-body")).save_to(directory.path("file"));
    let fetch = tokio::spawn(Fetcher::new().fetch(request));
    while directory.entry_names().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(directory.entry_names()[0].ends_with(".part"));
    fetch.abort();
    let _ = fetch.await;
    while !directory.entry_names().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
}

fn fetcher_with_slow_body(bytes: usize, period: Duration) -> Fetcher {
    let app = axum::Router::new().fallback(move || async move {
        axum::body::Body::new(Body::stream(interval_bytes(period, bytes)))
    });
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::default().total(second).body_idle(10 * second);
    builder_with_short_backoff()
        .transport(app)
        .timeouts(timeouts)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_the_body_idle_timeout_applies_to_a_saved_body() {
    let directory = TempDir::new();
    let request = || {
        Request::get("http://a.example/")
            .timeout(Duration::from_secs(1))
            .save_to(directory.path("file"))
    };
    let slow = fetcher_with_slow_body(30, Duration::from_secs(9));
    let response = slow.fetch(request()).await.unwrap();
    assert_eq!(response.saved_bytes(), Some(30));
    assert_eq!(response.timings().body().as_secs(), 270);
    let too_slow = fetcher_with_slow_body(30, Duration::from_secs(11));
    let error = too_slow.fetch(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyIdleTimeout);
    assert_eq!(
        error.attempts().len(),
        3,
        "body time does not count toward the total timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn batch_deadline_applies_to_a_saved_body() {
    let directory = TempDir::new();
    let request = Request::get("http://a.example/").save_to(directory.path("file"));
    let fetcher = fetcher_with_slow_body(30, Duration::from_secs(9));
    let results = fetcher
        .batch([request])
        .deadline(Duration::from_secs(60))
        .gather()
        .await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Deadline);
    while !directory.entry_names().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
}
