//! Cookies go back to the site that set them, and nowhere else.

use fanout::{Answer, Fetcher, Host, Mock, Request};

fn over(mock: &Mock) -> Fetcher {
    let builder = Fetcher::builder().transport(mock.clone());
    builder.cookies(true).build().unwrap()
}

fn sets(cookies: &[&'static str]) -> Answer {
    let mut response = http::Response::new("");
    for cookie in cookies {
        let value = http::HeaderValue::from_static(cookie);
        response.headers_mut().append("set-cookie", value);
    }
    response.into()
}

/// What was sent to each URL, in order.
async fn sent_after(setter: &str, cookies: &[&'static str], to: &[&str]) -> Vec<String> {
    let mock = Mock::new()
        .on(setter, sets(cookies))
        .then(200)
        .otherwise(200);
    let fetcher = over(&mock);
    fetcher.fetch(setter).await.unwrap();
    for url in to {
        fetcher.fetch(*url).await.unwrap();
    }
    sent(&mock)[1..].to_vec()
}

fn sent(mock: &Mock) -> Vec<String> {
    let cookie = |request: &fanout::Received| {
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
async fn a_cookie_without_a_domain_is_the_hosts_alone() {
    let to = [
        "http://www.shop.com/",
        "http://shop.com/",
        "http://x.www.shop.com/",
        "http://b.com/",
    ];
    let sent = sent_after("http://www.shop.com/", &["a=1"], &to).await;
    assert_eq!(sent, ["a=1", "", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_domain_covers_what_is_below_it_and_no_other_site() {
    let to = [
        "http://shop.com/",
        "http://x.shop.com/",
        "http://notshop.com/",
        "http://b.com/",
    ];
    let sent = sent_after("http://www.shop.com/", &["a=1; Domain=.Shop.com"], &to).await;
    assert_eq!(sent, ["a=1", "a=1", "", ""]);
}

#[tokio::test(start_paused = true)]
async fn no_cookie_is_set_for_a_public_suffix_or_for_others() {
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
        let sent = sent_after(setter, &[domain], &[&others[..], &[setter]].concat()).await;
        assert_eq!(sent, ["", "", "", "", ""], "{setter} {domain}");
    }
    let sent = sent_after(
        "http://10.0.0.1/",
        &["a=1"],
        &["http://10.0.0.1/", "http://10.0.0.2/"],
    )
    .await;
    assert_eq!(sent, ["a=1", ""]);
    let sent = sent_after("http://localhost/", &["a=1"], &["http://localhost:8080/"]).await;
    assert_eq!(sent, ["a=1"]);
}

#[tokio::test(start_paused = true)]
async fn paths_are_heeded_and_the_longer_come_first() {
    let cookies = ["a=1; Path=/", "b=2; Path=/deep", "c=3; Path=/other"];
    let to = [
        "http://a.com/",
        "http://a.com/deep/x",
        "http://a.com/deeper",
    ];
    let sent = sent_after("http://a.com/", &cookies, &to).await;
    assert_eq!(sent, ["a=1", "b=2; a=1", "a=1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_secure_is_set_and_sent_over_https_alone() {
    let cookies = [
        "a=1; Secure",
        "b=2",
        "__Secure-c=3",
        "__Host-d=4; Secure; Path=/; Domain=a.com",
    ];
    let to = ["https://a.com/", "http://a.com/"];
    assert_eq!(
        sent_after("https://a.com/", &cookies, &to).await,
        ["a=1; b=2", "b=2"]
    );
    assert_eq!(
        sent_after("http://a.com/", &cookies, &to).await,
        ["b=2", "b=2"]
    );

    let mock = Mock::new()
        .on("https://a.com/", sets(&["a=1; Secure"]))
        .then(200)
        .otherwise(sets(&["a=evil"]));
    let fetcher = over(&mock);
    for url in ["https://a.com/", "http://a.com/", "https://a.com/"] {
        fetcher.fetch(url).await.unwrap();
    }
    assert_eq!(sent(&mock), ["", "", "a=1"], "http may not overwrite it");
}

#[tokio::test(start_paused = true)]
async fn the_last_value_counts_and_one_that_expires_is_gone() {
    let url = "http://a.com/";
    let mock = Mock::new()
        .on(url, sets(&["a=1", "b=2", "c=3; Max-Age=0", "broken"]))
        .then(sets(&["a=x", "b=; Max-Age=0"]))
        .then(200);
    let fetcher = over(&mock);
    for _ in 0..3 {
        fetcher.fetch(url).await.unwrap();
    }
    assert_eq!(sent(&mock)[1..], ["a=1; b=2", "a=x"]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_sets_cookies_and_takes_them_along_within_the_site() {
    let to = |url: &'static str, cookie: &'static str| {
        Answer::status(302)
            .header("location", url)
            .header("set-cookie", cookie)
    };
    let mock = Mock::new()
        .on("http://a.com/login", to("http://a.com/home", "id=7"))
        .on("http://a.com/home", to("http://b.com/", "seen=1"))
        .on("http://b.com/", to("http://a.com/end", "b=1"))
        .otherwise(200);
    let response = over(&mock).fetch("http://a.com/login").await.unwrap();
    assert_eq!(response.url().as_str(), "http://a.com/end");
    assert_eq!(sent(&mock), ["", "id=7", "", "id=7; seen=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_of_the_requests_own_wins_and_so_does_that_of_its_host() {
    let mock = Mock::new().otherwise(sets(&["a=1"]));
    let fetcher = over(&mock);
    fetcher.fetch("http://a.com/").await.unwrap();
    let own = Request::get("http://a.com/").header("cookie", "mine=1");
    fetcher.fetch(own).await.unwrap();
    assert_eq!(sent(&mock), ["", "mine=1"]);

    let mock = Mock::new().otherwise(sets(&["a=1"]));
    let builder = Fetcher::builder().transport(mock.clone()).cookies(true);
    let host = Host::new().header("cookie", "host=1");
    let fetcher = builder.host("http://a.com", host).build().unwrap();
    for _ in 0..2 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    assert_eq!(sent(&mock), ["host=1", "host=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_site_cannot_fill_the_memory() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let more = Answer::with(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Answer::status(200).header("set-cookie", format!("n{number}=1"))
    });
    let mock = Mock::new()
        .on(
            "http://a.com/huge",
            Answer::status(200).header("set-cookie", format!("h={}", "x".repeat(5_000))),
        )
        .otherwise(more);
    let fetcher = over(&mock);
    fetcher.fetch("http://a.com/huge").await.unwrap();
    fetcher
        .gather((0..300).map(|n| format!("http://a.com/{n}")))
        .await;
    fetcher.fetch("http://a.com/").await.unwrap();
    let last = sent(&mock).pop().unwrap();
    assert_eq!(last.split("; ").count(), 180);
    assert!(!last.contains("h="));
}

#[tokio::test(start_paused = true)]
async fn none_are_kept_unless_asked_for() {
    let mock = Mock::new().otherwise(sets(&["a=1"]));
    let fetcher = Fetcher::builder().transport(mock.clone()).build().unwrap();
    for _ in 0..2 {
        fetcher.fetch("http://a.com/").await.unwrap();
    }
    assert_eq!(sent(&mock), ["", ""]);
}
