//! CR, LF and NUL in any input never reach a socket.

use crate::support::raw_server::{RawResponse, RawServer};
use fanout::{ErrorKind, Fetcher, Host, IntoRequest, Request};
use http::{HeaderName, HeaderValue, Method, Uri};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Strings that would add a header line if they were written without checks.
const INJECTIONS: [&str; 6] = [
    "a\r\nInjected: 1",
    "a\nInjected: 1",
    "a\rInjected: 1",
    "a\0Injected: 1",
    "\r\n\r\nGET /injected HTTP/1.1\r\nHost: a\r\n\r\n",
    "a\r\n",
];

fn server() -> RawServer {
    RawServer::responding(RawResponse::keep_alive(OK))
}

async fn assert_invalid(fetcher: &Fetcher, input: impl IntoRequest<Tag = ()>, claim: &str) {
    let error = fetcher.fetch(input).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{claim}");
    assert!(
        !error.maybe_sent() && error.attempts().len() <= 1,
        "{claim}"
    );
    assert!(!error.to_string().contains(['\r', '\n', '\0']), "{claim}");
}

#[tokio::test]
async fn request_with_line_break_is_invalid_and_not_sent() {
    let server = server();
    let fetcher = Fetcher::new();
    let url = server.url("/");
    for injection in INJECTIONS {
        for request in [
            Request::get(&url).header("x-a", injection),
            Request::get(&url).header(injection, "x"),
            Request::get(&url).header("host", injection),
            Request::get(&url).header("cookie", injection),
            Request::get(&url).header("user-agent", injection.as_bytes()),
            Request::get(&url).header(injection.as_bytes(), HeaderValue::from_static("x")),
            Request::get(&url).bearer_auth(injection),
        ] {
            assert_invalid(&fetcher, request, &format!("{injection:?}")).await;
        }
        for text in [
            format!("{url}{injection}"),
            format!("{url}?{injection}"),
            format!("{url}#{injection}"),
            format!("{injection}{url}"),
            url.replace("http://", &format!("http://{injection}@")),
            url.replace("127.0.0.1", &format!("127.0.0.1{injection}")),
            url.replace("http", &format!("ht{injection}tp")),
        ] {
            // A line break around a URL is removed, so it cannot reach the socket.
            if !text.trim().contains(['\r', '\n', '\0']) {
                assert!(!Request::get(&text).build().url_str().contains(['\r', '\n']));
                continue;
            }
            assert_invalid(&fetcher, &text, &text).await;
            assert_invalid(&fetcher, text.clone(), &text).await;
            assert_invalid(&fetcher, std::borrow::Cow::from(&text), &text).await;
            assert_invalid(&fetcher, Request::post(&text).body("x"), &text).await;
            let results = fetcher.gather([&text, &text]).await;
            assert!(results.iter().all(Result::is_err));
        }
    }
    assert_eq!(
        (server.accepted_connections(), server.bytes().len()),
        (0, 0)
    );
}

#[test]
fn http_types_reject_line_breaks() {
    for injection in INJECTIONS {
        assert!(Method::from_bytes(injection.as_bytes()).is_err());
        assert!(HeaderValue::from_bytes(injection.as_bytes()).is_err());
        assert!(HeaderName::from_bytes(injection.as_bytes()).is_err());
        assert!(
            format!("http://a.example/{injection}")
                .parse::<Uri>()
                .is_err()
        );
        let request = http::Request::builder()
            .method(injection)
            .uri("http://a.example/")
            .body("");
        assert!(request.is_err());
    }
}

#[tokio::test]
async fn fetcher_with_line_break_in_a_setting_cannot_be_built() {
    let server = server();
    let origin = server.url("");
    for injection in INJECTIONS {
        for builder in [
            Fetcher::builder().default_header("x-a", injection),
            Fetcher::builder().default_header(injection, "x"),
            Fetcher::builder().user_agent(injection),
            Fetcher::builder().host(format!("{origin}{injection}"), Host::new()),
            Fetcher::builder().host(format!("{injection}{origin}"), Host::new()),
            Fetcher::builder().host(&origin, Host::new().header("x-a", injection)),
            Fetcher::builder().host(&origin, Host::new().header(injection, "x")),
            Fetcher::builder().host(&origin, Host::new().header("host", injection)),
            Fetcher::builder().host(&origin, Host::new().bearer_auth(injection)),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{injection:?}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error}");
        }
    }
}

/// Encoded text is harmless and is sent.
#[tokio::test]
async fn encoded_line_breaks_stay_encoded() {
    let server = server();
    let fetcher = Fetcher::new();
    let url = server.url("/path");
    let mut sent = 0;
    for injection in INJECTIONS {
        let parsed = |part: &str| url::Url::parse(&format!("{url}{part}{injection}")).unwrap();
        let encoded: String = injection
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        for request in [
            Request::get(&url).query([(injection, injection)]).build(),
            Request::get(&url)
                .query([("q", "1")])
                .query([("q", injection)])
                .build(),
            Request::post(&url).form([(injection, injection)]).build(),
            Request::get(&url).basic_auth("user", injection).build(),
            Request::get(url.replace("http://", &format!("http://user:{encoded}@"))).build(),
            Request::get(format!("{url}/{encoded}?{encoded}#{encoded}")).build(),
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
    assert_eq!((sent, server.requests().len()), (60, 60));
    for seen in server.requests() {
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

/// Encoded line breaks are followed. A line break before whitespace folds a header line (RFC 9112
/// §5.2). Other raw line breaks and null bytes make the response invalid.
#[tokio::test]
async fn redirect_location_puts_no_line_break_on_the_wire() {
    let target = server();
    for (injection, follows) in [
        ("a%0d%0aInjected: 1", true),
        ("a%00Injected: 1", true),
        ("a\tInjected: 1", true),
        ("a\r\nInjected: 1", true),
        ("a\r\n\tInjected: 1", true),
        ("a\rInjected: 1", false),
        ("a\0Injected: 1", false),
    ] {
        let location = target.url(&format!("/{injection}"));
        let answer =
            format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n");
        let first = RawServer::responding(RawResponse::keep_alive(answer));
        let before = target.requests().len();
        let result = Fetcher::new().fetch(first.url("/")).await;
        assert_eq!(result.is_ok(), follows, "{injection:?}");
        assert_eq!(
            target.requests().len() - before,
            usize::from(follows),
            "{injection:?}"
        );
    }
    for seen in target.requests() {
        let text = seen.text();
        let mut lines = text.split("\r\n");
        assert!(lines.all(|line| !line.to_ascii_lowercase().starts_with("injected")));
        assert!(
            !text.replace("\r\n", "").contains(['\r', '\n', '\0', '\t']),
            "{text:?}"
        );
    }
}
