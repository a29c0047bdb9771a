//! CR, LF and NUL reach no socket, whichever way they are put in.

mod raw;

use fanout::{ErrorKind, Fetcher, Host, IntoRequest, Request};
use http::{HeaderName, HeaderValue, Method, Uri};
use raw::{RawServer, Reply};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Each would add a line to the head if it were written as it is.
const EVIL: [&str; 6] = [
    "a\r\nInjected: 1",
    "a\nInjected: 1",
    "a\rInjected: 1",
    "a\0Injected: 1",
    "\r\n\r\nGET /injected HTTP/1.1\r\nHost: a\r\n\r\n",
    "a\r\n",
];

fn server() -> RawServer {
    RawServer::answering(Reply::keep_alive(OK))
}

async fn is_invalid(fetcher: &Fetcher, input: impl IntoRequest<Tag = ()>, claim: &str) {
    let error = fetcher.fetch(input).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{claim}");
    assert!(
        !error.maybe_sent() && error.attempts().len() <= 1,
        "{claim}"
    );
    assert!(!error.to_string().contains(['\r', '\n', '\0']), "{claim}");
}

#[tokio::test]
async fn a_request_that_holds_one_is_invalid_and_nothing_is_sent() {
    let server = server();
    let fetcher = Fetcher::new();
    let url = server.url("/");
    for evil in EVIL {
        for request in [
            Request::get(&url).header("x-a", evil),
            Request::get(&url).header(evil, "x"),
            Request::get(&url).header("host", evil),
            Request::get(&url).header("cookie", evil),
            Request::get(&url).header("user-agent", evil.as_bytes()),
            Request::get(&url).header(evil.as_bytes(), HeaderValue::from_static("x")),
            Request::get(&url).bearer(evil),
        ] {
            is_invalid(&fetcher, request, &format!("{evil:?}")).await;
        }
        for text in [
            format!("{url}{evil}"),
            format!("{url}?{evil}"),
            format!("{url}#{evil}"),
            format!("{evil}{url}"),
            url.replace("http://", &format!("http://{evil}@")),
            url.replace("127.0.0.1", &format!("127.0.0.1{evil}")),
            url.replace("http", &format!("ht{evil}tp")),
        ] {
            is_invalid(&fetcher, &text, &text).await;
            is_invalid(&fetcher, text.clone(), &text).await;
            is_invalid(&fetcher, std::borrow::Cow::from(&text), &text).await;
            is_invalid(&fetcher, Request::post(&text).body("x"), &text).await;
            let results = fetcher.gather([&text, &text]).await;
            assert!(results.iter().all(Result::is_err));
        }
    }
    assert_eq!((server.accepted(), server.bytes().len()), (0, 0));
}

#[test]
fn the_types_of_http_hold_none() {
    for evil in EVIL {
        assert!(Method::from_bytes(evil.as_bytes()).is_err());
        assert!(HeaderValue::from_bytes(evil.as_bytes()).is_err());
        assert!(HeaderName::from_bytes(evil.as_bytes()).is_err());
        assert!(format!("http://a.example/{evil}").parse::<Uri>().is_err());
        let request = http::Request::builder()
            .method(evil)
            .uri("http://a.example/")
            .body("");
        assert!(request.is_err());
    }
}

#[tokio::test]
async fn a_fetcher_that_would_send_one_cannot_be_built() {
    let server = server();
    let origin = server.url("");
    for evil in EVIL {
        for builder in [
            Fetcher::builder().default_header("x-a", evil),
            Fetcher::builder().default_header(evil, "x"),
            Fetcher::builder().user_agent(evil),
            Fetcher::builder().host(format!("{origin}{evil}"), Host::new()),
            Fetcher::builder().host(format!("{evil}{origin}"), Host::new()),
            Fetcher::builder().host(&origin, Host::new().header("x-a", evil)),
            Fetcher::builder().host(&origin, Host::new().header(evil, "x")),
            Fetcher::builder().host(&origin, Host::new().header("host", evil)),
            Fetcher::builder().host(&origin, Host::new().bearer(evil)),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{evil:?}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error}");
        }
    }
}

/// Where the text is encoded it does no harm, and is sent.
#[tokio::test]
async fn what_is_encoded_stays_within_its_line() {
    let server = server();
    let fetcher = Fetcher::new();
    let url = server.url("/path");
    let mut sent = 0;
    for evil in EVIL {
        let parsed = |part: &str| url::Url::parse(&format!("{url}{part}{evil}")).unwrap();
        let encoded: String = evil.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for request in [
            Request::get(&url).query([(evil, evil)]),
            Request::get(&url).query([("q", "1")]).query([("q", evil)]),
            Request::post(&url).form([(evil, evil)]),
            Request::get(&url).basic("user", evil),
            Request::get(url.replace("http://", &format!("http://user:{encoded}@"))),
            Request::get(format!("{url}/{encoded}?{encoded}#{encoded}")),
            parsed("/").into_request().1,
            parsed("?").into_request().1,
            parsed("#").into_request().1,
            format!("{url}?{encoded}")
                .parse::<Uri>()
                .unwrap()
                .into_request()
                .1,
        ] {
            fetcher.fetch(request).await.unwrap();
            sent += 1;
        }
    }
    assert_eq!((sent, server.seen().len()), (60, 60));
    for seen in server.seen() {
        let text = seen.text();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!text.contains('\0'), "{text:?}");
        assert!(!body.contains(['\r', '\n']), "{text:?}");
        for line in head.split("\r\n") {
            assert!(!line.contains(['\r', '\n']), "{text:?}");
            assert!(
                !line.to_ascii_lowercase().starts_with("injected"),
                "{text:?}"
            );
        }
        assert!(!seen.line().ends_with("/injected"), "{text:?}");
    }
}

/// Those that a header can hold, and the raw ones, which make the answer no HTTP.
#[tokio::test]
async fn a_location_puts_none_on_the_wire() {
    let target = server();
    for (evil, follows) in [
        ("a%0d%0aInjected: 1", true),
        ("a%00Injected: 1", true),
        ("a\tInjected: 1", true),
        ("a\r\nInjected: 1", true),
        ("a\r\n\tInjected: 1", false),
        ("a\rInjected: 1", false),
        ("a\0Injected: 1", false),
    ] {
        let location = target.url(&format!("/{evil}"));
        let answer =
            format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n");
        let first = RawServer::answering(Reply::keep_alive(answer));
        let before = target.seen().len();
        let result = Fetcher::new().fetch(first.url("/")).await;
        assert_eq!(result.is_ok(), follows, "{evil:?}");
        assert_eq!(
            target.seen().len() - before,
            usize::from(follows),
            "{evil:?}"
        );
    }
    for seen in target.seen() {
        let text = seen.text();
        let mut lines = text.split("\r\n");
        assert!(lines.all(|line| !line.to_ascii_lowercase().starts_with("injected")));
        assert!(
            !text.replace("\r\n", "").contains(['\r', '\n', '\0', '\t']),
            "{text:?}"
        );
    }
}
