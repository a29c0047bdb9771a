//! Response headers with bytes that are not UTF-8, such as ISO-8859-1 text, over real sockets.

use fanout::{ErrorKind, Fetcher, FollowLimits};

use crate::support::raw_server::{RawResponse, RawServer};

fn response(head: &[u8]) -> RawResponse {
    let head = [b"HTTP/1.1 ", head, b"\r\nContent-Length: 0\r\n\r\n"].concat();
    RawResponse::keep_alive(head)
}

#[tokio::test]
async fn location_bytes_that_are_not_utf_8_are_percent_encoded() {
    for (location, target) in [
        (&b"/caf\xe9"[..], "GET /caf%E9"),
        ("/caf\u{e9}".as_bytes(), "GET /caf%C3%A9"),
        (b"?q=\xb0\xa1&r=1#\xe9", "GET /?q=%B0%A1&r=1"),
    ] {
        let server = RawServer::start(move |request| match request.line().as_str() {
            "GET /" => response(&[b"302 Found\r\nLocation: ", location].concat()),
            _ => response(b"200 OK"),
        });
        let fetched = Fetcher::new().fetch(server.url("/")).await.unwrap();
        assert_eq!(fetched.status(), 200);
        assert_eq!(server.requests()[1].line(), target);
    }
}

#[tokio::test]
async fn pagination_continues_beside_link_bytes_that_are_not_utf_8() {
    let server = RawServer::start(|request| match request.line().as_str() {
        "GET /1" => response(b"200 OK\r\nLink: </2>; title=\"caf\xe9\"; rel=\"next\""),
        "GET /2" => response(b"200 OK\r\nLink: </caf\xe9>; rel=next"),
        _ => response(b"200 OK"),
    });
    let fetcher = Fetcher::new();
    let mut pages = fetcher
        .as_completed([server.url("/1")])
        .follow_next_link(FollowLimits::default());
    let mut targets = Vec::new();
    while let Some(page) = pages.next().await {
        targets.push(page.result.unwrap().url().path().to_owned());
    }
    assert_eq!(targets, ["/1", "/2", "/caf%E9"]);
}

#[tokio::test]
async fn malformed_next_link_is_an_error_of_its_page_for_each_list() {
    let server = RawServer::responding(response(b"200 OK\r\nLink: </2; rel=next"));
    let lists = [server.url("/a"), server.url("/b"), server.url("/a")];
    let fetcher = Fetcher::new();
    let mut pages = fetcher
        .as_completed(&lists)
        .follow_next_link(FollowLimits::default());
    let mut failed = Vec::new();
    while let Some(page) = pages.next().await {
        if page.depth == 1 {
            failed.push(page.request.url_str().to_owned());
            let error = page.result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains("Link header"), "{error}");
        }
    }
    failed.sort();
    let mut expected = lists.to_vec();
    expected.sort();
    assert_eq!(failed, expected);
}

#[tokio::test]
async fn cookie_bytes_that_are_not_utf_8_are_sent_back_unchanged() {
    let server = RawServer::responding(response(b"200 OK\r\nSet-Cookie: a=caf\xe9; Path=/"));
    let fetcher = Fetcher::builder().cookies(true).build().unwrap();
    for _ in 0..2 {
        fetcher.fetch(server.url("/")).await.unwrap();
    }
    let cookie = b"\r\ncookie: a=caf\xe9\r\n";
    let sent = server.requests()[1].bytes.to_ascii_lowercase();
    assert!(sent.windows(cookie.len()).any(|bytes| bytes == cookie));
}
