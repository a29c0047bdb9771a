//! Content codings on real sockets.
#![cfg(all(
    feature = "gzip",
    feature = "deflate",
    feature = "brotli",
    feature = "zstd"
))]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::encoding_server::{
    CODINGS, EncodedResponse, Framing, encode, encode_all, serve,
};
use fanout::{ErrorKind, Fetcher, FetcherBuilder, Request, RequestBuilder, Retry};

const FRAMINGS: [Framing; 5] = [
    Framing::Length,
    Framing::Chunks(1),
    Framing::Chunks(7),
    Framing::Chunks(100_000),
    Framing::UntilClose,
];

fn page(length: usize) -> Vec<u8> {
    let lines = (0..).map(|line| format!("{line}: {}\n", "all of it ".repeat(line % 7)));
    let mut page: Vec<u8> = lines
        .take(length / 8 + 1)
        .flat_map(String::into_bytes)
        .collect();
    page.truncate(length);
    page
}

/// Starts a server that always sends `answer`, and returns its URL.
fn serve_always(answer: EncodedResponse) -> String {
    format!("http://{}/", serve(move |_| answer.clone()))
}

fn without_retries() -> FetcherBuilder {
    Fetcher::builder().retry(Retry::off())
}

#[tokio::test]
async fn every_coding_is_decoded_in_every_framing() {
    let page = page(40_000);
    for framing in FRAMINGS {
        for coding in CODINGS.iter().chain(&["x-gzip", "GZIP"]) {
            let body = encode(&coding.to_lowercase(), &page);
            let url = serve_always(EncodedResponse::coded(coding, body, framing));
            let response = Fetcher::new().fetch(url).await.unwrap();
            assert!(response.bytes() == &page[..], "{coding} {framing:?}");
            for gone in ["content-encoding", "content-length"] {
                assert!(!response.headers().contains_key(gone), "{gone}");
            }
        }
    }
}

#[tokio::test]
async fn up_to_five_layered_codings_are_decoded() {
    let page = page(5_000);
    let all = ["br", "deflate", "gzip", "zstd", "gzip", "br"];
    for layers in 1..=6 {
        let body = encode_all(&all[..layers].join(","), &page);
        let one = EncodedResponse::coded(&all[..layers].join(", "), body, Framing::Length);
        let mut several = one.clone();
        several.headers = all[..layers]
            .iter()
            .map(|coding| ("content-encoding", (*coding).to_owned()))
            .collect();
        for answer in [one, several] {
            let result = Fetcher::new().fetch(serve_always(answer)).await;
            match layers {
                ..=5 => assert!(result.unwrap().bytes() == &page[..], "{layers}"),
                _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::ContentEncoding),
            }
        }
    }
}

#[tokio::test]
async fn batch_decodes_mixed_codings() {
    let address = serve(|head| {
        let number: usize = head[5..].split(' ').next().unwrap().parse().unwrap();
        let coding = CODINGS[number % 4];
        let body = encode(coding, &page(number * 100));
        EncodedResponse::coded(coding, body, FRAMINGS[number % 5])
    });
    let urls = (0..200).map(|number| format!("http://{address}/{number}"));
    let results = Fetcher::new().gather(urls).await;
    for (number, result) in results.into_iter().enumerate() {
        assert!(
            result.unwrap().bytes() == &page(number * 100)[..],
            "{number}"
        );
    }
}

#[tokio::test]
async fn corrupt_body_fails_without_retry() {
    let asked = Arc::new(AtomicUsize::new(0));
    for coding in CODINGS {
        let body = encode(coding, &page(3_000));
        let longer = [&body[..], b"more"].concat();
        let shorter = body[..body.len() - 1].to_vec();
        for body in [longer, shorter, b"this is no coded body".to_vec()] {
            for framing in [Framing::Length, Framing::Chunks(50)] {
                let answer = EncodedResponse::coded(coding, body.clone(), framing);
                let count = Arc::clone(&asked);
                count.store(0, Ordering::Relaxed);
                let address = serve(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    answer.clone()
                });
                let url = format!("http://{address}/");
                let error = Fetcher::new().fetch(url).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ContentEncoding, "{coding} {error}");
                assert_eq!(asked.load(Ordering::Relaxed), 1);
            }
        }
    }
}

#[tokio::test]
async fn closed_connection_is_a_truncated_body() {
    for coding in CODINGS {
        let mut answer =
            EncodedResponse::coded(coding, encode(coding, &page(900)), Framing::UntilClose);
        answer.body = answer.body[..answer.body.len() - 5].into();
        let fetcher = without_retries().build().unwrap();
        let error = fetcher
            .fetch(serve_always(answer.clone()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{coding}");

        let length = (answer.body.len() + 5).to_string();
        answer.headers.push(("content-length", length));
        let error = fetcher.fetch(serve_always(answer)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{coding}");
    }
}

#[tokio::test]
async fn empty_bodies_accept_any_coding_and_keep_their_headers() {
    for status in [200, 204, 304] {
        let mut answer = EncodedResponse::coded("gzip", *b"", Framing::Length);
        answer.status = status;
        let url = serve_always(answer);
        for request in [Request::get(&url), Request::head(&url)] {
            let response = Fetcher::new().fetch(request).await.unwrap();
            assert!(response.bytes().is_empty());
            assert_eq!(response.headers()["content-encoding"], "gzip");
        }
    }
    let head = EncodedResponse::coded("gzip", encode("gzip", b"never sent"), Framing::Length);
    let length = head.body.len().to_string();
    let response = Fetcher::new()
        .fetch(Request::head(serve_always(head)))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-length"], length.as_str());

    let empty_chunked = EncodedResponse::coded("gzip, br", *b"", Framing::Chunks(10));
    let url = serve_always(empty_chunked);
    assert!(Fetcher::new().fetch(url).await.unwrap().bytes().is_empty());
}

#[tokio::test]
async fn empty_uncoded_body_until_close_is_accepted() {
    let answer = EncodedResponse::coded("identity", *b"", Framing::UntilClose);
    let response = Fetcher::new().fetch(serve_always(answer)).await.unwrap();
    assert!(response.bytes().is_empty());
}

/// The kinds of the errors of reading the body into memory and in a handler.
async fn read_errors(fetcher: &Fetcher, url: &str) -> [Option<ErrorKind>; 2] {
    let in_memory = fetcher.fetch(url).await.err();
    let read = fetcher.fetch(url).read_with(|mut body| async move {
        while let Some(chunk) = body.next().await {
            chunk?;
        }
        Ok(())
    });
    [in_memory, read.await.err()].map(|error| error.map(|error| error.kind()))
}

#[tokio::test]
async fn body_cut_at_any_byte_is_an_error_in_every_coding_and_framing() {
    let fetcher = without_retries().build().unwrap();
    for coding in CODINGS {
        for codings in [coding.to_owned(), format!("{coding}, br")] {
            let body = encode_all(&codings, &page(60));
            let length = body.len();
            let answer = EncodedResponse::coded(&codings, body, Framing::UntilClose);
            // The path is the framing and the number of bytes that are sent.
            let address = serve(move |head| {
                let mut path = head.split(['/', ' ']).skip(2);
                let (framing, end) = (path.next().unwrap(), path.next().unwrap());
                let mut answer = answer.clone();
                answer.body = answer.body[..end.parse().unwrap()].into();
                match framing {
                    "length" => answer.headers.push(("content-length", length.to_string())),
                    "chunks" => answer.framing = Framing::Chunks(1_000),
                    _ => {}
                }
                answer
            });
            for end in 0..length {
                for framing in ["close", "length", "chunks"] {
                    let expected = match (framing, end) {
                        ("chunks", 0) => None,
                        ("chunks", _) => Some(ErrorKind::ContentEncoding),
                        _ => Some(ErrorKind::Truncated),
                    };
                    let url = format!("http://{address}/{framing}/{end}");
                    let errors = read_errors(&fetcher, &url).await;
                    assert_eq!(errors, [expected; 2], "{codings} {framing} {end}");
                }
            }
        }
    }
}

#[tokio::test]
async fn gzip_followed_by_zero_bytes_is_decoded() {
    for framing in FRAMINGS {
        let body = [encode("gzip", &page(900)), vec![0; 700]].concat();
        let url = serve_always(EncodedResponse::coded("gzip", body, framing));
        let response = Fetcher::new().fetch(url).await.unwrap();
        assert!(response.bytes() == &page(900)[..], "{framing:?}");
    }
}

#[tokio::test]
async fn unknown_codings_are_passed_through() {
    for codings in ["compress", "identity", "gzip, aes128gcm", ""] {
        let url = serve_always(EncodedResponse::coded(
            codings,
            *b"as it came",
            Framing::Length,
        ));
        let response = Fetcher::new().fetch(url).await.unwrap();
        assert_eq!(response.text(), "as it came");
        assert_eq!(response.headers()["content-encoding"], codings);
        assert_eq!(response.headers()["content-length"], "10");
    }
    let mut part = EncodedResponse::coded("gzip", *b"a part", Framing::Length);
    part.status = 206;
    let response = Fetcher::new().fetch(serve_always(part)).await.unwrap();
    assert_eq!(response.text(), "a part");
}

/// Returns the `Accept-Encoding` header that the server receives.
async fn sent_accept_encoding(
    fetcher: &Fetcher,
    request: impl FnOnce(&str) -> RequestBuilder,
) -> Option<String> {
    let seen = Arc::new(Mutex::new(None));
    let seen_by_server = Arc::clone(&seen);
    let address = serve(move |head| {
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("accept-encoding: "));
        *seen_by_server.lock().unwrap() = line.map(str::to_owned);
        EncodedResponse::coded("gzip", encode("gzip", b"decoded"), Framing::Length)
    });
    let url = format!("http://{address}/");
    let response = fetcher.fetch(request(&url)).await.unwrap();
    // The body is decoded unless that is switched off, even if the caller set the header.
    let is_raw = response.headers().contains_key("content-encoding");
    assert_eq!(response.text() == "decoded", !is_raw);
    seen.lock().unwrap().take()
}

#[tokio::test]
async fn accept_encoding_lists_enabled_codings_unless_overridden() {
    let fetcher = Fetcher::new();
    let all = "gzip, deflate, br, zstd";
    let asked = sent_accept_encoding(&fetcher, |url| Request::get(url)).await;
    assert_eq!(asked.as_deref(), Some(all));
    let asked = sent_accept_encoding(&fetcher, |url| {
        Request::get(url).header("accept-encoding", "br")
    })
    .await;
    assert_eq!(asked.as_deref(), Some("br"));
    let asked = sent_accept_encoding(&fetcher, |url| {
        Request::get(url).header("range", "bytes=0-1")
    })
    .await;
    assert_eq!(asked, None);
    let plain = Fetcher::builder().default_header("accept-encoding", "identity");
    let asked = sent_accept_encoding(&plain.build().unwrap(), |url| Request::get(url)).await;
    assert_eq!(asked.as_deref(), Some("identity"));
    let raw = Fetcher::builder().decode_content(false).build().unwrap();
    assert_eq!(
        sent_accept_encoding(&raw, |url| Request::get(url)).await,
        None
    );
}

#[tokio::test]
async fn decode_content_false_returns_the_encoded_body() {
    let body = encode("br", &page(2_000));
    let url = serve_always(EncodedResponse::coded("br", body.clone(), Framing::Length));
    let fetcher = Fetcher::builder().decode_content(false).build().unwrap();
    let response = fetcher.fetch(url).await.unwrap();
    assert!(response.bytes() == &body[..]);
    assert_eq!(response.headers()["content-encoding"], "br");
    assert_eq!(
        response.headers()["content-length"],
        body.len().to_string().as_str()
    );
}

#[tokio::test]
async fn max_body_size_counts_decoded_bytes() {
    let page = page(100_000);
    for coding in CODINGS {
        let body = encode(coding, &page);
        assert!(body.len() < page.len() / 2);
        for framing in [Framing::Length, Framing::Chunks(1_000)] {
            let url = serve_always(EncodedResponse::coded(coding, body.clone(), framing));
            let exact = Fetcher::builder().max_body_size(100_000).build().unwrap();
            assert_eq!(exact.fetch(&url).await.unwrap().bytes().len(), 100_000);
            let less = Fetcher::builder().max_body_size(99_999).build().unwrap();
            let error = less.fetch(&url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BodyTooLarge, "{coding}");
        }
    }
}

#[tokio::test]
async fn error_bodies_are_decoded_and_redirect_bodies_are_not() {
    let address = serve(|head| {
        let mut answer =
            EncodedResponse::coded("gzip", encode("gzip", b"not found"), Framing::Length);
        answer.status = 404;
        if head.starts_with("GET /elsewhere ") {
            answer.status = 302;
            answer.body = (*b"not gzip at all").into();
            answer.headers.push(("location", "/".to_owned()));
        }
        answer
    });
    let url = format!("http://{address}/elsewhere");
    let response = Fetcher::new().fetch(url).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (404, "not found")
    );
    assert_eq!(response.redirects().len(), 1);
}

#[tokio::test]
async fn connection_is_reused_after_an_encoded_body() {
    let connections = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&connections);
    let address = serve(move |_| {
        seen.lock().unwrap().push(std::thread::current().id());
        EncodedResponse::coded("gzip", encode("gzip", &page(50_000)), Framing::Chunks(99))
    });
    let fetcher = Fetcher::new();
    for _ in 0..5 {
        fetcher.fetch(format!("http://{address}/")).await.unwrap();
    }
    let mut connections = connections.lock().unwrap().clone();
    assert_eq!(connections.len(), 5);
    connections.dedup();
    assert_eq!(connections.len(), 1, "each connection has its own thread");
}

#[tokio::test]
async fn response_of_a_custom_transport_is_decoded() {
    let app = axum::Router::new().route(
        "/",
        axum::routing::get(|| async {
            (
                [("content-encoding", "zstd, gzip")],
                encode_all("zstd,gzip", b"hello"),
            )
        }),
    );
    let fetcher = Fetcher::builder().transport(app).build().unwrap();
    let response = fetcher.fetch("http://any.example/").await.unwrap();
    assert_eq!(response.text(), "hello");
}

#[tokio::test]
async fn handler_and_file_receive_decoded_bodies_beyond_max_body_size() {
    let page = page(300_000);
    let fetcher = Fetcher::builder().max_body_size(1_000).build().unwrap();
    let path = std::env::temp_dir().join(format!("fanout-decoded-{}", std::process::id()));
    for framing in FRAMINGS.into_iter().skip(2) {
        for coding in CODINGS {
            let url = serve_always(EncodedResponse::coded(
                coding,
                encode(coding, &page),
                framing,
            ));
            let read = fetcher.fetch(&url).read_with(|mut body| async move {
                assert_eq!(body.length(), None);
                assert!(!body.headers().contains_key("content-encoding"));
                let mut bytes = Vec::new();
                while let Some(piece) = body.next().await {
                    bytes.extend_from_slice(&piece?);
                }
                Ok(bytes)
            });
            assert!(read.await.unwrap() == page, "{coding} {framing:?}");
            let saved = fetcher
                .fetch(Request::get(url).save_to(&path).decode_content(true))
                .await
                .unwrap();
            assert_eq!(saved.saved_bytes(), Some(300_000));
            assert!(
                std::fs::read(&path).unwrap() == page,
                "{coding} {framing:?}"
            );
        }
    }
    std::fs::remove_file(path).unwrap();
}

/// A server that sends a gzip body with any request. The status is 404 if the path is `/404`.
/// Returns the URL of the server, and the `Accept-Encoding` of each request.
fn serve_gzip(body: &[u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&accepted);
    let coded = encode("gzip", body);
    let address = serve(move |head| {
        let head = head.to_lowercase();
        let accept_encoding = head
            .lines()
            .find_map(|line| line.strip_prefix("accept-encoding: "))
            .unwrap_or_default();
        seen.lock().unwrap().push(accept_encoding.to_owned());
        let mut response = EncodedResponse::coded("gzip", coded.clone(), Framing::Length);
        if head.starts_with("get /404 ") {
            response.status = 404;
        }
        response
    });
    (format!("http://{address}/"), accepted)
}

#[tokio::test]
async fn saved_body_keeps_its_coding_and_other_bodies_of_the_request_do_not() {
    let (url, accepted) = serve_gzip(b"archive");
    let path = std::env::temp_dir().join(format!("fanout-coded-{}", std::process::id()));
    let fetcher = Fetcher::new();
    let saved = fetcher
        .fetch(Request::get(&url).save_to(&path))
        .await
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), encode("gzip", b"archive"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(saved.headers()["content-encoding"], "gzip");
    let missing = Request::get(format!("{url}404")).save_to(&path);
    let missing = fetcher.fetch(missing).await.unwrap();
    assert_eq!(missing.saved_to(), None);
    assert_eq!(missing.text(), "archive");
    assert_eq!(*accepted.lock().unwrap(), ["identity", "identity"]);
}

#[tokio::test]
async fn request_decides_whether_its_response_is_decoded() {
    let (url, accepted) = serve_gzip(b"text");
    let decoding = Fetcher::new();
    let raw = Fetcher::builder().decode_content(false).build().unwrap();
    let get = || Request::get(&url);
    let by_default = Fetcher::new().fetch(get()).await.unwrap();
    assert_eq!(by_default.text(), "text");
    let own_header = get().header("accept-encoding", "gzip;q=0.5");
    for (fetcher, request, is_decoded) in [
        (&decoding, get().decode_content(false), false),
        (&raw, get().decode_content(true), true),
        (&raw, get(), false),
        (&decoding, own_header.clone().decode_content(false), false),
        (&decoding, own_header.decode_content(true), true),
    ] {
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.bytes() == "text", is_decoded);
        assert_eq!(
            response.headers().contains_key("content-encoding"),
            !is_decoded
        );
    }
    let accepted = accepted.lock().unwrap();
    let all_codings = &accepted[0];
    assert!(all_codings.contains("gzip"));
    let expected = ["identity", all_codings, "", "gzip;q=0.5", "gzip;q=0.5"];
    assert_eq!(accepted[1..], expected);
}

#[tokio::test]
async fn truncated_encoded_body_fails_in_the_handler() {
    let coded = encode("gzip", &page(300_000));
    let half = coded[..coded.len() / 2].to_vec();
    let url = serve_always(EncodedResponse::coded("gzip", half, Framing::Chunks(1000)));
    let read = without_retries()
        .build()
        .unwrap()
        .fetch(url)
        .read_with(|mut body| async move {
            let mut length = 0;
            while let Some(piece) = body.next().await {
                length += piece?.len();
            }
            Ok(length)
        });
    assert_eq!(read.await.unwrap_err().kind(), ErrorKind::ContentEncoding);
}
