use std::borrow::Cow;

use http::Uri;
use http::header::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn reason(request: &Request) -> String {
    let error = request.url_if_sendable().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(!error.maybe_sent());
    assert_eq!(error.url(), Some(request.url_str()));
    error.to_string()
}

fn as_get(input: impl IntoRequest<Tag = ()>) -> Request {
    input.into_request().1
}

#[test]
fn invalid_url_keeps_its_text_and_names_the_reason() {
    for (text, why) in [
        ("", "does not begin"),
        ("example.com", "does not begin"),
        ("/path", "does not begin"),
        ("//example.com/", "does not begin"),
        ("example.com:8080/x", "does not begin"),
        ("localhost:8080", "does not begin"),
        ("mailto:joe", "does not begin"),
        ("ftp://example.com/", "\"ftp\" is not supported"),
        ("file:///etc/passwd", "does not begin"),
        ("http://", "empty host"),
        ("https://?x", "empty host"),
        ("http://exa mple.com/", "domain"),
        ("http://a.example:99999/", "port"),
        ("http://a.example/\r\nHost: b.example", "line break"),
        ("http://a.\nexample", "line break"),
        ("http://a.example/\nb\n", "line break"),
        ("\n\r\n", "does not begin"),
        ("http://a.example/\0", "NUL"),
    ] {
        let request = Request::get(text).build();
        assert_eq!(request.url_str(), text);
        assert!(request.url().is_none());
        let reason = reason(&request);
        assert!(reason.contains(why), "{text:?}: {reason}");
        assert!(!reason.contains(['\n', '\r', '\0']));
    }
}

#[test]
fn whitespace_around_a_url_is_removed() {
    for text in [
        "http://a.example/x\r\n",
        "\nhttp://a.example/x",
        " \t http://a.example/x \t\x0c",
        "\r\n http://a.example/x \r\n\r\n",
    ] {
        // The second request reuses the parsed origin of the first.
        for _ in 0..2 {
            let request = Request::get(text).build();
            assert_eq!(request.url_str(), "http://a.example/x", "{text:?}");
            assert!(request.url_if_sendable().is_ok(), "{text:?}");
        }
    }
    let with_space = Request::get(" http://a.example/a b ").build();
    assert_eq!(with_space.url_str(), "http://a.example/a%20b");
}

#[test]
fn other_invalid_parts_name_the_reason() {
    let post = || Request::post("http://a.example/");
    for (request, why) in [
        (post().header("", "x"), "name of a header"),
        (post().header("a b", "x"), "name of a header"),
        (post().header("x-a", "1\r\nx-b: 2"), "\"x-a\""),
        (post().header("x-a", "\0"), "\"x-a\""),
        (post().bearer_auth(""), "empty"),
        (post().bearer_auth("a\n"), "bearer token"),
        (post().basic_auth("a:b", "c"), "colon"),
        (post().timeout(Duration::ZERO), "timeout is zero"),
        (
            post().header("content-length", 3).body("four"),
            "Content-Length",
        ),
        (
            Request::new(Method::CONNECT, "http://a.example/"),
            "CONNECT",
        ),
        (Request::get("http://a%3Ab:c@a.example/"), "colon"),
        (post().query([("q", "x".repeat(66_000))]), "longer"),
    ] {
        let reason = reason(&request.build());
        assert!(reason.contains(why), "{reason}");
        assert!(reason.contains("http://a.example/"), "{reason}");
    }
}

#[test]
fn first_error_is_reported() {
    let request = Request::get("example.com")
        .header("a b", "x")
        .bearer_auth("")
        .build();
    assert!(reason(&request).contains("does not begin"));
}

#[test]
fn correct_content_length_is_accepted() {
    let request = Request::post("http://a.example/")
        .header("content-length", 4)
        .body("four")
        .build();
    assert!(request.url_if_sendable().is_ok());
}

#[test]
fn user_info_becomes_basic_authorization_unless_it_is_set() {
    let request = Request::get("http://Aladdin:open%20sesame@a.example/x?y#z").build();
    assert_eq!(request.url_str(), "http://a.example/x?y#z");
    let value = &request.headers()["authorization"];
    assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert!(value.is_sensitive());

    let request = http::Request::get("http://user:pass@a.example/")
        .header("authorization", "Own")
        .body(())
        .unwrap();
    let request = as_get(request);
    assert_eq!(request.url_str(), "http://a.example/");
    assert_eq!(request.headers()["authorization"], "Own");
    assert!(request.headers()["authorization"].is_sensitive());
}

#[test]
fn header_replaces_and_headers_keeps_all_values_of_a_name() {
    let mut map = HeaderMap::new();
    map.append("x-a", HeaderValue::from_static("2"));
    map.append("x-a", HeaderValue::from_static("3"));
    map.append("cookie", HeaderValue::from_static("s=1"));
    let request = Request::get("http://a.example/")
        .header("X-A", "0")
        .header("x-a", "1")
        .build();
    assert_eq!(request.headers().get_all("x-a").iter().count(), 1);
    let request = request.into_builder().header("x-b", 4).headers(map).build();
    let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["2", "3"]);
    assert_eq!(request.headers()["x-b"], "4");
    assert!(request.headers()["cookie"].is_sensitive());
}

#[test]
fn query_is_appended_before_the_fragment() {
    let none: [(&str, &str); 0] = [];
    for (url, expected) in [
        ("http://a.example", "http://a.example/?a+b=1%262"),
        ("http://a.example/?", "http://a.example/?a+b=1%262"),
        (
            "http://a.example/?x=y#f",
            "http://a.example/?x=y&a+b=1%262#f",
        ),
    ] {
        let request = Request::get(url)
            .query([("a b", "1&2")])
            .query(none)
            .build();
        assert_eq!(request.url_str(), expected);
    }
    assert_eq!(
        Request::get("http://a.example")
            .query(none)
            .build()
            .url_str(),
        "http://a.example/"
    );
}

#[test]
fn query_of_a_clone_does_not_change_the_original() {
    let original = Request::get("http://a.example/").build();
    let page = original.clone().into_builder().query([("page", 2)]).build();
    assert_eq!(original.url_str(), "http://a.example/");
    assert_eq!(page.url_str(), "http://a.example/?page=2");
}

#[test]
fn form_sets_an_encoded_body_and_content_type() {
    let request = Request::post("http://a.example/")
        .form([("a", "ä"), ("b", "c d")])
        .build();
    assert_eq!(request.body().as_bytes().unwrap(), "a=%C3%A4&b=c+d");
    let content_type = &request.headers()["content-type"];
    assert_eq!(content_type, "application/x-www-form-urlencoded");
}

#[test]
fn last_stated_cost_of_a_name_counts() {
    let request = Request::get("http://a.example/")
        .cost("tokens", 5)
        .cost(format!("cen{}", "ts"), 2)
        .cost("tokens", 7)
        .build();
    assert_eq!(request.cost("tokens"), Some(7));
    assert_eq!(request.cost("cents"), Some(2));
    assert_eq!(request.cost("requests"), None);
    assert_eq!(
        Request::get("http://a.example/").build().cost("tokens"),
        None
    );
}

#[test]
fn is_idempotent_follows_rfc_9110_or_the_explicit_mark() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert!(
            Request::new(method, "http://a.example/")
                .build()
                .is_idempotent()
        );
    }
    let post = Request::post("http://a.example/");
    assert!(!post.clone().build().is_idempotent());
    assert!(!Request::patch("http://a.example/").build().is_idempotent());
    assert!(post.clone().idempotent().build().is_idempotent());
    assert!(post.header("Idempotency-Key", "7").build().is_idempotent());
}

#[test]
fn every_url_type_makes_the_same_request() {
    let text = "http://a.example/x";
    let owned = String::from(text);
    let url = Url::parse(text).unwrap();
    let uri: Uri = text.parse().unwrap();
    let (borrowed, builder) = (&text, &Request::get(text));
    let request = &builder.clone().build();
    for request in [
        as_get(text),
        as_get(borrowed),
        as_get(&owned),
        as_get(owned.clone()),
        as_get(Cow::Borrowed(text)),
        as_get(&url),
        as_get(url.clone()),
        as_get(&uri),
        as_get(uri.clone()),
        as_get(Request::get(&url)),
        as_get(Request::get(&url).build()),
        as_get(builder),
        as_get(request),
        as_get(http::Request::get(text).body(()).unwrap()),
    ] {
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.url_if_sendable().unwrap().as_str(), text);
    }
}

#[test]
fn tags_pass_through_by_value_and_by_reference() {
    let pairs = [(1, "http://a.example/1"), (2, "http://a.example/2")];
    let tags: Vec<i32> = pairs.iter().map(|pair| *pair.into_request().0).collect();
    assert_eq!(tags, [1, 2]);
    let (tag, request) = ("one", &pairs[0].1).into_request();
    assert_eq!((tag, request.url_str()), ("one", "http://a.example/1"));
}

#[test]
fn http_request_keeps_method_headers_and_body() {
    let request = http::Request::put("http://a.example/")
        .header("x-a", "1")
        .header("x-a", "2")
        .body("text")
        .unwrap();
    let request = as_get(request);
    assert_eq!(request.method(), Method::PUT);
    assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
    assert_eq!(request.body().as_bytes().unwrap(), "text");
    assert!(
        as_get(http::Request::get("/path").body(()).unwrap())
            .url_if_sendable()
            .is_err()
    );
}

#[test]
fn origin_is_scheme_host_and_port() {
    for (url, expected) in [
        ("http://A.example:80/x?y", "http://a.example"),
        ("https://a.example:444", "https://a.example:444"),
        ("http://[::1]:8/x", "http://[::1]:8"),
    ] {
        assert_eq!(origin(Request::get(url).build().url().unwrap()), expected);
    }
}

#[test]
fn parsed_url_has_its_scheme_checked() {
    let url = Url::parse("ftp://user:s3cr3t@a.example/").unwrap();
    let request = as_get(url);
    assert_eq!(request.url_str(), "ftp://***@a.example/");
    assert!(reason(&request).contains("\"ftp\""));
}

#[test]
fn debug_and_display_hide_credentials_and_show_the_rest() {
    let request = Request::post("http://user:s3cr3t@a.example/")
        .header("x-api-key", "s3cr3t")
        .header("cookie", "s3cr3t")
        .header("accept", "text/html")
        .body("s3cr3t");
    for builder in [
        request.clone(),
        request.clone().bearer_auth("s3cr3t"),
        request.basic_auth("u", "s3cr3t"),
    ] {
        let request = builder.clone().build();
        let shown = format!("{request} {request:?} {builder:?}");
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("czNjcjN0"),
            "{shown}"
        );
        assert!(shown.contains("POST http://a.example/") && shown.contains("text/html"));
    }
}

proptest! {
    #[test]
    fn building_never_panics(a in "\\PC*|.*", b in ".*", c in ".*") {
        let request = Request::post(&a)
            .header(&b, &c)
            .bearer_auth(&b)
            .basic_auth(&b, &c)
            .query([(&b, &c)])
            .form([(&b, &c)])
            .body(c)
            .build();
        let _ = (request.url_if_sendable().is_ok(), format!("{request:?} {request}"));
        let _ = Request::get(format!("http://{a}")).query([(&b, 1)]).build().url_if_sendable().is_ok();
    }

    #[test]
    fn user_info_is_never_shown(
        scheme in "(http://|https://|HTTP://|http:|//|ftp://|x:|)",
        user in "[a-z%]{0,5}",
        rest in "\\PC{0,10}",
        host in "(a\\.example|[^\\\\/?#@]{0,8}|\\PC{0,8})",
    ) {
        let request = Request::get(format!("{scheme}{user}:S3CR3T{rest}@{host}")).build();
        let error = request.clone().into_builder().header("", "").build().url_if_sendable().unwrap_err();
        let shown = format!("{} {request} {request:?} {error} {error:?}", request.url_str());
        prop_assert!(!shown.contains("S3CR3T") && !shown.contains("s3cr3t"), "{}", shown);
    }

    #[test]
    fn checked_url_is_a_valid_request_target(
        path in "[ -~]{0,30}|\\PC{0,30}",
        query in "[ -~]{0,30}|\\PC{0,30}",
    ) {
        let url = format!("http://a.example/{path}");
        let request = Request::get(url).query([(&query, &query)]).build();
        if let Ok(url) = request.url_if_sendable() {
            let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
            prop_assert!(http::uri::PathAndQuery::try_from(target).is_ok(), "{}", target);
        }
    }
}
