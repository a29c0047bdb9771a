//! Response bodies saved to files, over real sockets.

use std::error::Error as _;
use std::time::Duration;

use crate::support::body_streams::{TempDir, interval_bytes, listen, read_head, wait_until, write};
#[cfg(unix)]
use crate::support::own_process::{self, test_path};
use crate::support::server::{FaultServer, expected_body, pattern_bytes};
use fanout::{
    Body, ErrorKind, Fetcher, FetcherBuilder, Request, Response, Result, Retry, Timeouts,
};
use tokio::task::JoinHandle;

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
    save_with(builder_with_short_backoff(), responses).await
}

/// Like [`save_from`], with another Fetcher.
async fn save_with(
    builder: FetcherBuilder,
    responses: &[(&str, &str, &str)],
) -> (Result<Response>, String, Vec<String>) {
    let directory = TempDir::new();
    let (url, heads) = serve_responses(responses).await;
    let request = Request::get(url).save_to(directory.path("file"));
    let result = builder.build().unwrap().fetch(request).await;
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
async fn failed_download_that_cannot_be_resumed_leaves_no_file() {
    let broken = ("200 OK", "content-length: 10\r\netag: W/\"v1\"\r\n", "0123");
    let (result, _, _) = save_from(&[broken, broken, broken]).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(error.attempts().len(), 3);
}

#[tokio::test]
async fn download_of_a_resource_that_is_gone_leaves_no_file() {
    for status in ["404 Not Found", "410 Gone"] {
        let gone = (status, "content-length: 2\r\n", "no");
        let (result, _, _) = save_from(&[FIRST_PART, gone]).await;
        assert_eq!(result.unwrap().text(), "no");
    }
}

#[tokio::test]
async fn failed_download_is_resumed_by_the_next_run() {
    let directory = TempDir::new();
    let rest = "content-length: 6\r\ncontent-range: bytes 4-9/10\r\n";
    let last = "content-length: 4\r\ncontent-range: bytes 6-9/10\r\n";
    let no_progress = "content-length: 2\r\ncontent-range: bytes 8-9/10\r\n";
    let (url, heads) = serve_responses(&[
        FIRST_PART,
        (PARTIAL, rest, "45"),
        (PARTIAL, last, "67"),
        (PARTIAL, no_progress, ""),
        (PARTIAL, no_progress, ""),
        (PARTIAL, no_progress, "89"),
    ])
    .await;
    let fetch = || {
        let fetcher = builder_with_short_backoff().build().unwrap();
        fetcher.fetch(Request::get(&url).save_to(directory.path("file")))
    };
    let error = fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(directory.entry_names(), ["file.part", "file.part-info"]);
    let part = std::fs::read_to_string(directory.path("file.part")).unwrap();
    assert_eq!(part, "01234567");
    let response = fetch().await.unwrap();
    assert_eq!(response.saved_bytes(), Some(10));
    assert_eq!(response.attempts().len(), 1);
    assert_eq!(directory.entry_names(), ["file"]);
    let content = std::fs::read_to_string(directory.path("file")).unwrap();
    assert_eq!(content, "0123456789");
    let heads = heads.await.unwrap();
    assert!(heads[2].contains("range: bytes=6-"));
    assert!(heads[5].contains("\r\nrange: bytes=8-\r\n"), "{}", heads[5]);
    assert!(heads[5].contains("if-range: \"v1\"\r\n"));
}

#[tokio::test]
async fn body_that_is_saved_with_its_coding_is_resumed() {
    let first = "content-length: 10\r\netag: \"v1\"\r\ncontent-encoding: gzip\r\n";
    let (result, content, heads) =
        save_from(&[("200 OK", first, "0123"), (PARTIAL, REST, "456789")]).await;
    let response = result.unwrap();
    assert_eq!(content, "0123456789");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    for head in &heads {
        assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    }
}

#[tokio::test]
async fn own_accept_encoding_is_sent_with_a_range_request() {
    let first = "content-length: 10\r\netag: \"v1\"\r\ncontent-encoding: gzip\r\n";
    let (url, heads) =
        serve_responses(&[("200 OK", first, "0123"), (PARTIAL, REST, "456789")]).await;
    let directory = TempDir::new();
    let request = Request::get(url)
        .header("accept-encoding", "gzip")
        .save_to(directory.path("file"));
    let fetcher = builder_with_short_backoff().build().unwrap();
    assert_eq!(
        fetcher.fetch(request).await.unwrap().saved_bytes(),
        Some(10)
    );
    for head in heads.await.unwrap() {
        assert!(head.contains("accept-encoding: gzip\r\n"), "{head}");
    }
}

/// Leaves a part file with `0123` and its record.
async fn fail_once(url: &str, directory: &TempDir) {
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    let request = Request::get(url).save_to(directory.path("file"));
    fetcher.fetch(request).await.unwrap_err();
    assert_eq!(directory.entry_names(), ["file.part", "file.part-info"]);
}

#[tokio::test]
async fn part_file_is_replaced_if_the_next_run_gets_another_body() {
    let new = ("200 OK", "content-length: 3\r\netag: \"v2\"\r\n", "new");
    let (url, heads) = serve_responses(&[FIRST_PART, new, FIRST_PART, new, FIRST_PART, new]).await;
    let directory = TempDir::new();
    let other_url = format!("{url}other");
    let ranged = Request::get(&url).header("range", "bytes=0-").build();
    for (request, expects_range) in [
        (Request::get(&url).build(), true),
        (Request::get(&other_url).build(), false),
        (ranged, false),
    ] {
        fail_once(&url, &directory).await;
        let request = request.into_builder().save_to(directory.path("file"));
        let response = Fetcher::new().fetch(request).await.unwrap();
        assert_eq!(response.saved_bytes(), Some(3), "{expects_range}");
        assert_eq!(directory.entry_names(), ["file"]);
        std::fs::remove_file(directory.path("file")).unwrap();
    }
    let heads = heads.await.unwrap();
    assert!(heads[1].contains("range: bytes=4-"));
    assert!(!heads[3].contains("range"));
    assert!(heads[5].contains("range: bytes=0-") && !heads[5].contains("if-range"));
}

#[tokio::test]
async fn complete_part_file_needs_no_more_data() {
    let unknown_total = "transfer-encoding: chunked\r\netag: \"v1\"\r\n";
    let complete = "content-range: bytes */4\r\ncontent-length: 0\r\n";
    let (url, _) = serve_responses(&[
        ("200 OK", unknown_total, "4\r\n0123\r\n"),
        ("416 Range Not Satisfiable", complete, ""),
    ])
    .await;
    let directory = TempDir::new();
    fail_once(&url, &directory).await;
    let request = Request::get(&url).save_to(directory.path("file"));
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(response.saved_bytes(), Some(4));
    assert_eq!(directory.entry_names(), ["file"]);
}

#[tokio::test]
async fn part_file_of_another_program_is_not_touched() {
    let directory = TempDir::new();
    std::fs::write(directory.path("file.part"), "theirs").unwrap();
    let rest = (PARTIAL, REST, "456789");
    let (url, _) = serve_responses(&[FIRST_PART, rest]).await;
    let request = Request::get(url).save_to(directory.path("file"));
    let fetcher = builder_with_short_backoff().build().unwrap();
    assert_eq!(
        fetcher.fetch(request).await.unwrap().saved_bytes(),
        Some(10)
    );
    assert_eq!(directory.entry_names(), ["file", "file.part"]);
    let part = std::fs::read_to_string(directory.path("file.part")).unwrap();
    assert_eq!(part, "theirs");
}

#[tokio::test]
async fn progress_renews_the_retries() {
    let directory = TempDir::new();
    let ranges: Vec<String> = (1..10)
        .map(|first| format!("content-range: bytes {first}-9/10\r\n"))
        .collect();
    let mut responses = vec![("200 OK", "content-length: 10\r\netag: \"v1\"\r\n", "x")];
    responses.extend(ranges.iter().map(|range| (PARTIAL, range.as_str(), "x")));
    let (url, _) = serve_responses(&responses).await;
    let retry = Retry::default().max_retries(1).base_delay(Duration::ZERO);
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let request = Request::get(url).save_to(directory.path("file"));
    let response = fetcher.fetch(request).await.unwrap();
    assert_eq!(response.saved_bytes(), Some(10));
    assert_eq!(response.attempts().len(), 10);
}

/// A server that sends `FIRST_PART` on the first connections, and waits for a message before the
/// rest of each body. Later connections get the whole body at once.
async fn serve_halves(first_connections: usize) -> (String, tokio::sync::watch::Sender<bool>) {
    let (listener, url) = listen().await;
    let (release, released) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut released = released.clone();
            tokio::spawn(async move {
                read_head(&mut socket).await;
                let (status, headers, body) = FIRST_PART;
                write(
                    &mut socket,
                    format!("HTTP/1.1 {status}\r\n{headers}\r\n{body}"),
                )
                .await;
                if connection < first_connections {
                    // An error means that the test has ended.
                    let _ = released.wait_for(|is_released| *is_released).await;
                }
                write(&mut socket, "456789").await;
                read_head(&mut socket).await;
            });
        }
    });
    (url, release)
}

fn part_length(directory: &TempDir) -> u64 {
    std::fs::metadata(directory.path("file.part")).map_or(0, |part| part.len())
}

#[tokio::test]
async fn two_downloads_to_one_file_do_not_share_a_part_file() {
    let directory = TempDir::new();
    let (url, release) = serve_halves(2).await;
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    let fetch = || fetcher.fetch(Request::get(&url).save_to(directory.path("file")));
    let downloads = [tokio::spawn(fetch()), tokio::spawn(fetch())];
    wait_until(|| directory.entry_names().len() == 3).await;
    let names = directory.entry_names();
    assert!(names[0].starts_with(".fanout-"), "{names:?}");
    assert_eq!(names[1..], ["file.part", "file.part-info"]);
    release.send(true).unwrap();
    for download in downloads {
        assert_eq!(download.await.unwrap().unwrap().saved_bytes(), Some(10));
    }
    assert_eq!(directory.entry_names(), ["file"]);
    let content = std::fs::read_to_string(directory.path("file")).unwrap();
    assert_eq!(content, "0123456789");
}

#[tokio::test]
async fn part_file_that_another_process_has_taken_over_is_left_to_it() {
    let directory = TempDir::new();
    let (url, release) = serve_halves(1).await;
    let fetcher = builder_with_short_backoff().build().unwrap();
    let fetch = fetcher.fetch(Request::get(&url).save_to(directory.path("file")));
    let download = tokio::spawn(fetch);
    let part_path = directory.path("file.part");
    wait_until(|| part_length(&directory) >= 4).await;
    let record_path = directory.path("file.part-info");
    let record = std::fs::read_to_string(&record_path).unwrap();
    let owner = record.find("owner ").unwrap() + "owner ".len();
    let other_owner = format!(
        "{}0123456789abcdef{}",
        &record[..owner],
        &record[owner + 16..]
    );
    std::fs::write(&record_path, other_owner).unwrap();
    release.send(true).unwrap();
    let response = download.await.unwrap().unwrap();
    assert_eq!(response.saved_bytes(), Some(10));
    assert_eq!(response.attempts().len(), 2);
    let names = directory.entry_names();
    assert_eq!(names, ["file", "file.part", "file.part-info"]);
    assert_eq!(std::fs::read_to_string(&part_path).unwrap(), "0123");
}

#[tokio::test]
async fn dropped_fetch_keeps_a_part_file_that_can_be_resumed() {
    let directory = TempDir::new();
    let (url, _release) = serve_halves(1).await;
    let fetch = Fetcher::new().fetch(Request::get(&url).save_to(directory.path("file")));
    let download = tokio::spawn(fetch);
    let part_path = directory.path("file.part");
    wait_until(|| part_length(&directory) >= 4).await;
    download.abort();
    let _ = download.await;
    let response = loop {
        // Until the dropped fetch has ended, its claim keeps the part file from being resumed.
        let request = Request::get(&url).save_to(directory.path("file"));
        let response = Fetcher::new().fetch(request).await.unwrap();
        if !part_path.exists() {
            break response;
        }
    };
    assert_eq!(response.saved_bytes(), Some(10));
    assert_eq!(directory.entry_names(), ["file"]);
}

#[cfg(unix)]
#[tokio::test]
async fn download_of_a_killed_process_is_resumed() {
    /// The URL and the path of the download, in the process that is killed.
    const KILLED_DOWNLOAD: &str = "FANOUT_TEST_DOWNLOAD";
    if let Ok(download) = std::env::var(KILLED_DOWNLOAD) {
        let (url, path) = download.split_once(' ').unwrap();
        let _ = Fetcher::new().fetch(Request::get(url).save_to(path)).await;
        return;
    }
    const LENGTH: usize = 600_000;
    const FIRST_LENGTH: usize = 300_001;
    let (listener, url) = listen().await;
    let directory = TempDir::new();
    let target = directory.path("file");
    let path = test_path!(download_of_a_killed_process_is_resumed);
    let mut killed = own_process::command(path)
        .env(KILLED_DOWNLOAD, format!("{url} {}", target.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let body = pattern_bytes(LENGTH);
    let (mut socket, _) = listener.accept().await.unwrap();
    read_head(&mut socket).await;
    let head = format!("HTTP/1.1 200 OK\r\netag: \"v1\"\r\ncontent-length: {LENGTH}\r\n\r\n");
    write(&mut socket, head).await;
    write(&mut socket, &body[..FIRST_LENGTH]).await;
    wait_until(|| part_length(&directory) >= FIRST_LENGTH as u64).await;
    killed.kill().unwrap();
    killed.wait().unwrap();

    let rest = body[FIRST_LENGTH..].to_vec();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = read_head(&mut socket).await.to_lowercase();
        let response = format!(
            "HTTP/1.1 206 Partial Content\r\netag: \"v1\"\r\ncontent-length: {}\r\n\
             content-range: bytes {FIRST_LENGTH}-{}/{LENGTH}\r\n\r\n",
            rest.len(),
            LENGTH - 1
        );
        write(&mut socket, response).await;
        write(&mut socket, rest).await;
        head
    });
    let request = Request::get(&url).save_to(&target);
    let response = Fetcher::new().fetch(request).await.unwrap();
    let head = server.await.unwrap();
    assert!(
        head.contains(&format!("range: bytes={FIRST_LENGTH}-\r\n")),
        "{head}"
    );
    assert!(head.contains("if-range: \"v1\"\r\n"), "{head}");
    assert_eq!(response.saved_bytes(), Some(LENGTH as u64));
    assert!(std::fs::read(&target).unwrap() == body);
    assert_eq!(directory.entry_names(), ["file"]);
}

/// The start of a download that can be resumed: 4 of 10 bytes.
const FIRST_PART: (&str, &str, &str) = ("200 OK", "content-length: 10\r\netag: \"v1\"\r\n", "0123");
const REST: &str = "content-range: bytes 4-9/10\r\netag: \"v1\"\r\n";
const CHUNKED_REST: &str =
    "content-range: bytes 4-9/10\r\netag: \"v1\"\r\ntransfer-encoding: chunked\r\n";
const PARTIAL: &str = "206 Partial Content";

#[tokio::test]
async fn resumed_download_that_is_cut_again_is_resumed_again() {
    for (headers, body) in [
        (REST, "4"),
        (CHUNKED_REST, "1\r\n4\r\n0\r\n\r\n"),
        (CHUNKED_REST, "1\r\n4\r\n"),
    ] {
        let (result, content, heads) = save_from(&[
            FIRST_PART,
            (PARTIAL, headers, body),
            (PARTIAL, "content-range: bytes 5-9/10\r\n", "56789"),
        ])
        .await;
        assert_eq!(result.unwrap().saved_bytes(), Some(10), "{body:?}");
        assert_eq!(content, "0123456789");
        assert!(heads[2].contains("\r\nrange: bytes=5-\r\n"), "{}", heads[2]);
    }
}

#[tokio::test]
async fn download_whose_length_differs_from_its_content_range_is_not_complete() {
    let short = "content-length: 1\r\ncontent-range: bytes 4-9/10\r\n";
    let long = "content-length: 7\r\ncontent-range: bytes 4-9/10\r\n";
    for (headers, body) in [
        (short, "4"),
        (long, "456789x"),
        (REST, "456789x"),
        (CHUNKED_REST, "7\r\n456789x\r\n0\r\n\r\n"),
    ] {
        let responses = [FIRST_PART, (PARTIAL, headers, body)];
        let (result, content, heads) = save_from(&[
            responses[0],
            responses[1],
            ("200 OK", "content-length: 3\r\n", "new"),
        ])
        .await;
        assert_eq!(result.unwrap().saved_bytes(), Some(3), "{headers}");
        assert_eq!(content, "new");
        assert!(!heads[2].contains("range"), "{}", heads[2]);

        let fetcher = || Fetcher::builder().retry(Retry::default().max_retries(1));
        let (result, content, _) = save_with(fetcher(), &responses).await;
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::Truncated,
            "{headers}"
        );
        assert_eq!(content, "");
    }
}

#[tokio::test]
async fn total_of_the_first_content_range_applies_to_the_next_one() {
    let unknown_total = "transfer-encoding: chunked\r\netag: \"v1\"\r\n";
    for (range, body, expected) in [
        ("bytes 5-9/10", "56789", "0123456789"),
        ("bytes 5-10/11", "56789x", "new"),
    ] {
        let headers = format!("content-range: {range}\r\n");
        let responses = [
            ("200 OK", unknown_total, "4\r\n0123\r\n"),
            (PARTIAL, REST, "4"),
            (PARTIAL, &headers, body),
            ("200 OK", "content-length: 3\r\n", "new"),
        ];
        let count = if expected == "new" { 4 } else { 3 };
        let retry = Retry::default().max_retries(3).base_delay(Duration::ZERO);
        let builder = Fetcher::builder().retry(retry);
        let (result, content, heads) = save_with(builder, &responses[..count]).await;
        assert_eq!(content, expected, "{range}");
        assert_eq!(result.unwrap().saved_bytes(), Some(expected.len() as u64));
        assert!(heads[2].contains("range: bytes=5-"));
    }
}

#[tokio::test]
async fn unsatisfied_range_completes_a_download_of_that_size() {
    let unknown_total = "transfer-encoding: chunked\r\netag: \"v1\"\r\n";
    let first = ("200 OK", unknown_total, "4\r\n0123\r\n");
    let unsatisfied = "416 Range Not Satisfiable";
    let complete = "content-range: bytes */4\r\ncontent-length: 2\r\ncontent-type: a/b\r\n";
    let (result, content, _) = save_from(&[first, (unsatisfied, complete, "no")]).await;
    let response = result.unwrap();
    assert_eq!(
        (response.status().as_u16(), content.as_str()),
        (200, "0123")
    );
    assert_eq!(response.headers()["content-length"], "4");
    assert!(!response.headers().contains_key("content-type"));
    for range in ["bytes */5", "bytes */3", "bytes */0", "bytes 0-3/4"] {
        let headers = format!("content-range: {range}\r\ncontent-length: 2\r\n");
        let (result, content, heads) = save_from(&[
            first,
            (unsatisfied, &headers, "no"),
            ("200 OK", "content-length: 3\r\n", "new"),
        ])
        .await;
        assert_eq!(result.unwrap().saved_bytes(), Some(3), "{range}");
        assert_eq!(content, "new");
        assert!(!heads[2].contains("range"));
    }
}

#[tokio::test]
async fn resumed_download_has_the_head_of_the_whole_body() {
    let (result, _, _) = save_from(&[FIRST_PART, (PARTIAL, REST, "456789")]).await;
    let response = result.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-length"], "10");
    assert_eq!(response.headers()["etag"], "\"v1\"");
    assert!(!response.headers().contains_key("content-range"));
}

#[tokio::test]
async fn partial_response_to_a_request_without_range_is_saved_only_if_it_is_whole() {
    let whole = "content-range: bytes 0-3/4\r\n";
    let (result, content, _) = save_from(&[(PARTIAL, whole, "0123")]).await;
    assert_eq!(
        (result.unwrap().saved_bytes(), content.as_str()),
        (Some(4), "0123")
    );
    let multipart = "content-type: multipart/byteranges; boundary=x\r\n";
    for (headers, body) in [
        ("content-range: bytes 0-3/10\r\n", "0123"),
        ("content-range: bytes 6-9/10\r\n", "6789"),
        ("content-range: bytes 0-3/*\r\n", "0123"),
        (whole, "012"),
        ("", "0123"),
        (multipart, "--x--\r\n"),
    ] {
        let fetcher = Fetcher::builder().retry(Retry::off());
        let (result, _, _) = save_with(fetcher, &[(PARTIAL, headers, body)]).await;
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::Truncated,
            "{headers}"
        );
    }
}

#[tokio::test]
async fn range_that_the_caller_requests_is_saved_only_if_it_is_whole() {
    for (body, is_saved) in [("2345", true), ("234", false), ("23456", false)] {
        let directory = TempDir::new();
        let range = "content-range: bytes 2-5/10\r\n";
        let (url, _) = serve_responses(&[(PARTIAL, range, body)]).await;
        let request = Request::get(url).header("range", "bytes=2-5");
        let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
        let result = fetcher.fetch(request.save_to(directory.path("file"))).await;
        assert_eq!(result.is_ok(), is_saved, "{body}");
        assert_eq!(directory.path("file").exists(), is_saved);
        if let Ok(response) = result {
            assert_eq!(response.status(), 206);
        }
    }
}

/// A response over HTTP/2, whose body is cut by a reset or ends without a length.
#[cfg(feature = "http2")]
struct Http2Response {
    status: u16,
    content_range: &'static str,
    body: &'static str,
    is_reset: bool,
}

/// Serves responses over HTTP/2 with prior knowledge. The task returns the `Range` of each request.
#[cfg(feature = "http2")]
async fn serve_http2(responses: Vec<Http2Response>) -> (String, JoinHandle<Vec<String>>) {
    let (listener, url) = listen().await;
    let ranges = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut ranges = Vec::new();
        for response in responses {
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let range = request.headers().get("range");
            ranges.push(range.map_or("", |range| range.to_str().unwrap()).to_owned());
            let head = http::Response::builder()
                .status(response.status)
                .header("etag", "\"v1\"")
                .header("content-range", response.content_range)
                .body(())
                .unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let data = response.body.into();
            stream.send_data(data, !response.is_reset).unwrap();
            if response.is_reset {
                // Lets the data leave before the reset, which discards queued data.
                let closed = std::future::poll_fn(|cx| connection.poll_closed(cx));
                let _ = tokio::time::timeout(Duration::from_millis(100), closed).await;
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        }
        let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
        ranges
    });
    (url, ranges)
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn http2_download_that_ends_before_its_content_range_is_resumed() {
    let response = |status, content_range, body, is_reset| Http2Response {
        status,
        content_range,
        body,
        is_reset,
    };
    let directory = TempDir::new();
    let (url, ranges) = serve_http2(vec![
        response(200, "", "0123", true),
        response(206, "bytes 4-9/10", "4", false),
        response(206, "bytes 5-9/10", "56789", false),
    ])
    .await;
    let builder = builder_with_short_backoff().http2_prior_knowledge();
    let fetcher = builder.build().unwrap();
    let request = Request::get(url).save_to(directory.path("file"));
    let response = fetcher.fetch(request).await.unwrap();
    drop(fetcher);
    assert_eq!(response.saved_bytes(), Some(10));
    let content = std::fs::read_to_string(directory.path("file")).unwrap();
    assert_eq!(content, "0123456789");
    assert_eq!(ranges.await.unwrap(), ["", "bytes=4-", "bytes=5-"]);
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
    wait_until(|| !directory.entry_names().is_empty()).await;
    assert!(directory.entry_names()[0].ends_with(".part"));
    fetch.abort();
    let _ = fetch.await;
    wait_until(|| directory.entry_names().is_empty()).await;
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
    wait_until(|| directory.entry_names().is_empty()).await;
}
