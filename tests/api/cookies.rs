//! The cookie jar: cookies are sent only to the site that set them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{Fetcher, Host, Mock, MockResponse, Request};

fn fetcher_over(mock: &Mock) -> Fetcher {
    let builder = Fetcher::builder().transport(mock.clone());
    builder.cookies(true).build().unwrap()
}

fn set_cookie_response(cookies: &[&'static str]) -> MockResponse {
    let mut response = http::Response::new("");
    for cookie in cookies {
        let value = http::HeaderValue::from_static(cookie);
        response.headers_mut().append("set-cookie", value);
    }
    response.into()
}

/// Stores `cookies` from `setter` and returns the cookies sent to each URL of `to`.
async fn cookies_sent_after(setter: &str, cookies: &[&'static str], to: &[&str]) -> Vec<String> {
    let mock = Mock::new()
        .on(setter, set_cookie_response(cookies))
        .then(200)
        .fallback(200);
    let fetcher = fetcher_over(&mock);
    fetcher.fetch(setter).await.unwrap();
    for url in to {
        fetcher.fetch(*url).await.unwrap();
    }
    sent_cookies(&mock)[1..].to_vec()
}

fn sent_cookies(mock: &Mock) -> Vec<String> {
    let cookie = |request: &fanout::MockRequest| {
        let value = request.headers().get("cookie")?;
        assert!(value.is_sensitive());
        Some(value.to_str().unwrap().to_owned())
    };
    mock.requests()
        .iter()
        .map(|request| cookie(request).unwrap_or_default())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn cookie_without_domain_is_sent_to_its_host_only() {
    let to = [
        "http://www.shop.com/",
        "http://shop.com/",
        "http://x.www.shop.com/",
        "http://b.com/",
    ];
    let sent = cookies_sent_after("http://www.shop.com/", &["a=1"], &to).await;
    assert_eq!(sent, ["a=1", "", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn domain_cookie_covers_the_domain_and_its_subdomains() {
    let to = [
        "http://shop.com/",
        "http://x.shop.com/",
        "http://notshop.com/",
        "http://b.com/",
    ];
    let sent = cookies_sent_after("http://www.shop.com/", &["a=1; Domain=.Shop.com"], &to).await;
    assert_eq!(sent, ["a=1", "a=1", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn cookies_for_public_suffixes_and_foreign_domains_are_rejected() {
    for (setter, domain) in [
        ("http://a.co.uk/", "a=1; Domain=co.uk"),
        ("http://a.com/", "a=1; Domain=com"),
        ("http://me.github.io/", "a=1; Domain=github.io"),
        ("http://a.com/", "a=1; Domain=b.com"),
        ("http://a.com/", "a=1; Domain=x.a.com"),
        ("http://10.0.0.1/", "a=1; Domain=0.0.1"),
        ("http://intranet/", "a=1; Domain=local"),
    ] {
        let others = [
            "http://b.co.uk/",
            "http://b.com/",
            "http://you.github.io/",
            "http://9.0.0.1/",
        ];
        let sent = cookies_sent_after(setter, &[domain], &[&others[..], &[setter]].concat()).await;
        assert_eq!(sent, ["", "", "", "", ""], "{setter} {domain}");
    }
    let sent = cookies_sent_after(
        "http://10.0.0.1/",
        &["a=1"],
        &["http://10.0.0.1/", "http://10.0.0.2/"],
    )
    .await;
    assert_eq!(sent, ["a=1", ""]);
    let sent = cookies_sent_after("http://localhost/", &["a=1"], &["http://localhost:8080/"]).await;
    assert_eq!(sent, ["a=1"]);
}

#[tokio::test(start_paused = true)]
async fn cookies_match_paths_and_longer_paths_come_first() {
    let cookies = ["a=1; Path=/", "b=2; Path=/deep", "c=3; Path=/other"];
    let to = [
        "http://a.com/",
        "http://a.com/deep/x",
        "http://a.com/deeper",
    ];
    let sent = cookies_sent_after("http://a.com/", &cookies, &to).await;
    assert_eq!(sent, ["a=1", "b=2; a=1", "a=1"]);
}

#[tokio::test(start_paused = true)]
async fn secure_cookies_require_https() {
    let cookies = [
        "a=1; Secure",
        "b=2",
        "__Secure-c=3",
        "__Host-d=4; Secure; Path=/; Domain=a.com",
    ];
    let to = ["https://a.com/", "http://a.com/"];
    assert_eq!(
        cookies_sent_after("https://a.com/", &cookies, &to).await,
        ["a=1; b=2", "b=2"]
    );
    assert_eq!(
        cookies_sent_after("http://a.com/", &cookies, &to).await,
        ["b=2", "b=2"]
    );

    let mock = Mock::new()
        .on("https://a.com/", set_cookie_response(&["a=1; Secure"]))
        .then(200)
        .fallback(set_cookie_response(&["a=evil"]));
    let fetcher = fetcher_over(&mock);
    for url in ["https://a.com/", "http://a.com/", "https://a.com/"] {
        fetcher.fetch(url).await.unwrap();
    }
    assert_eq!(
        sent_cookies(&mock),
        ["", "", "a=1"],
        "http may not overwrite it"
    );
}

#[tokio::test(start_paused = true)]
async fn last_value_wins_and_expired_cookies_are_removed() {
    let url = "http://a.com/";
    let mock = Mock::new()
        .on(
            url,
            set_cookie_response(&["a=1", "b=2", "c=3; Max-Age=0", "broken"]),
        )
        .then(set_cookie_response(&["a=x", "b=; Max-Age=0"]))
        .then(200);
    let fetcher = fetcher_over(&mock);
    for _ in 0..3 {
        fetcher.fetch(url).await.unwrap();
    }
    assert_eq!(sent_cookies(&mock)[1..], ["a=1; b=2", "a=x"]);
}

#[tokio::test(start_paused = true)]
async fn redirects_store_and_send_cookies() {
    let to = |url: &'static str, cookie: &'static str| {
        MockResponse::status(302)
            .header("location", url)
            .header("set-cookie", cookie)
    };
    let mock = Mock::new()
        .on("http://a.com/login", to("http://a.com/home", "id=7"))
        .on("http://a.com/home", to("http://b.com/", "seen=1"))
        .on("http://b.com/", to("http://a.com/end", "b=1"))
        .fallback(200);
    let response = fetcher_over(&mock)
        .fetch("http://a.com/login")
        .await
        .unwrap();
    assert_eq!(response.url().as_str(), "http://a.com/end");
    assert_eq!(sent_cookies(&mock), ["", "id=7", "", "id=7; seen=1"]);
}

#[tokio::test(start_paused = true)]
async fn explicit_cookie_headers_override_the_jar() {
    let mock = Mock::new().fallback(set_cookie_response(&["a=1"]));
    let fetcher = fetcher_over(&mock);
    fetcher.fetch("http://a.com/").await.unwrap();
    let own = Request::get("http://a.com/").header("cookie", "mine=1");
    fetcher.fetch(own).await.unwrap();
    assert_eq!(sent_cookies(&mock), ["", "mine=1"]);

    let mock = Mock::new().fallback(set_cookie_response(&["a=1"]));
    let builder = Fetcher::builder().transport(mock.clone()).cookies(true);
    let host = Host::new().header("cookie", "host=1");
    let fetcher = builder.host("http://a.com", host).build().unwrap();
    for _ in 0..2 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    assert_eq!(sent_cookies(&mock), ["host=1", "host=1"]);
}

/// Sets another cookie with each response.
fn numbered_cookies(cookie: impl Fn(usize) -> String + Send + Sync + 'static) -> MockResponse {
    let count = AtomicUsize::new(0);
    MockResponse::from_fn(move |_| {
        let number = count.fetch_add(1, Relaxed);
        MockResponse::status(200).header("set-cookie", cookie(number))
    })
}

#[tokio::test(start_paused = true)]
async fn cookies_per_site_are_bounded() {
    let more = numbered_cookies(|n| format!("n{n}=1"));
    let mock = Mock::new()
        .on(
            "http://a.com/huge",
            MockResponse::status(200).header("set-cookie", format!("h={}", "x".repeat(5_000))),
        )
        .fallback(more);
    let fetcher = fetcher_over(&mock);
    fetcher.fetch("http://a.com/huge").await.unwrap();
    fetcher
        .gather((0..300).map(|n| format!("http://a.com/{n}")))
        .await;
    fetcher.fetch("http://a.com/").await.unwrap();
    let last = sent_cookies(&mock).pop().unwrap();
    assert_eq!(last.split("; ").count(), 180);
    assert!(!last.contains("h="));
}

#[tokio::test(start_paused = true)]
async fn cookies_are_off_by_default() {
    let mock = Mock::new().fallback(set_cookie_response(&["a=1"]));
    let fetcher = Fetcher::builder().transport(mock.clone()).build().unwrap();
    for _ in 0..2 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    assert_eq!(sent_cookies(&mock), ["", ""]);
}

#[tokio::test(start_paused = true)]
async fn cookies_are_sent_in_order_of_creation() {
    let cookies = ["z=1", "a=2", "m=3"];
    let sent = cookies_sent_after("http://a.com/", &cookies, &["http://a.com/"; 5]).await;
    assert_eq!(sent, ["z=1; a=2; m=3"; 5]);
}

#[tokio::test(start_paused = true)]
async fn cookies_with_past_expiry_dates_are_deleted() {
    for expires in [
        "Expires=Thursday, 01-Jan-1970 00:00:00 GMT",
        "Expires=Thu, 01 Jan 1970 00:00:00 UTC",
        "Expires=Thu Jan 01 1970 00:00:00 GMT+0000",
        "Expires=Thu, 1 Jan 1970 0:0:0 GMT; Max-Age=",
        "Expires=Sat, 15-Apr-17 21:01:22 GMT",
        "Max-Age=-1",
    ] {
        let mock = Mock::new()
            .on("http://a.com/", set_cookie_response(&["sid=1", "b=2"]))
            .then(MockResponse::status(200).header("set-cookie", format!("sid=; {expires}")))
            .then(200);
        let fetcher = fetcher_over(&mock);
        for _ in 0..3 {
            fetcher.fetch("http://a.com/").await.unwrap();
        }
        assert_eq!(sent_cookies(&mock)[1..], ["sid=1; b=2", "b=2"], "{expires}");
    }
}

#[tokio::test(start_paused = true)]
async fn newest_of_181_cookies_replaces_the_oldest() {
    let set = |n: usize| match n {
        180 => "sid=1".to_owned(),
        n => format!("n{n}=1"),
    };
    let mock = Mock::new().fallback(numbered_cookies(set));
    let fetcher = fetcher_over(&mock);
    for _ in 0..182 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    let last = sent_cookies(&mock).pop().unwrap();
    assert_eq!(last.split("; ").count(), 180);
    assert!(
        last.starts_with("n1=1; n2=1") && last.ends_with("; sid=1"),
        "{last}"
    );
}

#[tokio::test(start_paused = true)]
async fn cookie_header_is_bounded() {
    let fill = |n: usize| format!("n{n}={}", "x".repeat(4_000));
    let mock = Mock::new().fallback(numbered_cookies(fill));
    let fetcher = fetcher_over(&mock);
    for _ in 0..50 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    let sent = sent_cookies(&mock);
    assert!(sent.iter().all(|cookies| cookies.len() <= 8_000));
    assert!(sent[49].starts_with("n48="));
}

#[tokio::test(start_paused = true)]
async fn secure_cookies_of_loopback_hosts_are_kept_and_sent_over_http() {
    for url in [
        "http://localhost:8080/",
        "http://app.localhost/",
        "http://127.0.0.1:3000/",
        "http://[::1]/",
    ] {
        let cookies = ["a=1; Secure", "__Host-b=2; Secure; Path=/"];
        let sent = cookies_sent_after(url, &cookies, &[url]).await;
        assert_eq!(sent, ["a=1; __Host-b=2"], "{url}");
    }
}
