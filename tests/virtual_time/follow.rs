//! Requests that are found in results and followed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{Completed, ErrorKind, FollowLimits, Mock, MockRequest, MockResponse, Request, Retry};
use tokio::time::{Instant, sleep, timeout};

use super::{builder, fetcher, ms, received_at_ms, responding_after_ms, secs, urls};

/// Returns a mock of a paginated list. Each page links to the next one, up to page `last`.
fn pages(last: usize) -> Mock {
    let page = move |request: &MockRequest| {
        let number = request.url().rsplit('=').next().unwrap_or_default();
        let number: usize = number.parse().unwrap();
        let response = MockResponse::text(format!("page {number}")).delay(ms(10));
        if number < last {
            response.header("link", format!("<?page={}>; rel=\"next\"", number + 1))
        } else {
            response
        }
    };
    Mock::new().on("http://*/list?page=*", MockResponse::from_fn(page))
}

/// Returns a callback that links each node of a tree to `width` children. Node 5 links to nodes 50,
/// 51 and so on.
fn children(width: usize) -> impl FnMut(&Completed) -> Vec<String> + Send + Clone {
    move |node| {
        let children = (0..width).map(|n| format!("{}{n}", node.request.url_str()));
        children.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn next_links_are_followed_to_last_page() {
    let mock = pages(30);
    let mut done = fetcher(&mock)
        .as_completed(["http://a.example/list?page=1"])
        .follow_next_link(FollowLimits::default());
    for n in 0..30 {
        let page = done.next().await.unwrap();
        assert_eq!((page.index, page.depth), (n, n));
        assert_eq!(page.parent_index, n.checked_sub(1));
        assert_eq!(page.result.unwrap().text(), format!("page {}", n + 1));
    }
    assert!(done.next().await.is_none() && done.next().await.is_none());
    assert_eq!((mock.request_count(), done.skipped_requests()), (30, 0));
}

#[tokio::test(start_paused = true)]
async fn lists_are_followed_concurrently_and_keep_their_tags() {
    let mock = pages(5);
    let started = Instant::now();
    let lists = ["a", "b", "c"].map(|host| (host, format!("http://{host}.example/list?page=1")));
    let mut done = fetcher(&mock)
        .as_completed(lists)
        .follow_next_link(FollowLimits::default());
    let mut seen = BTreeMap::<_, usize>::new();
    let mut indices = BTreeSet::new();
    while let Some(page) = done.next().await {
        assert!(
            page.request
                .url_str()
                .starts_with(&format!("http://{}.", page.tag))
        );
        *seen.entry(page.tag).or_default() += 1;
        indices.insert(page.index);
    }
    assert_eq!(seen, BTreeMap::from([("a", 5), ("b", 5), ("c", 5)]));
    assert!(indices.into_iter().eq(0..15));
    assert_eq!(started.elapsed(), ms(50));
}

#[tokio::test(start_paused = true)]
async fn next_link_keeps_headers_but_sends_no_credentials_to_another_origin() {
    let link =
        |to: &'static str| MockResponse::text("x").header("link", format!("<{to}>; rel=next"));
    let mock = Mock::new()
        .on("http://a.example/1", link("http://user:pass@a.example/2"))
        .on("http://a.example/2", link("http://b.example/3"))
        .on("http://b.example/3", link("http://a.example/4"))
        .on("http://a.example/4", 200)
        .on(
            "http://a.example/moved",
            MockResponse::status(302).header("location", "http://c.example/5"),
        )
        .on("http://c.example/5", link("http://a.example/6"))
        .on("http://a.example/6", 200);
    let request_with_credentials = |url| {
        Request::post(url)
            .body("query")
            .bearer_auth("s3cr3t")
            .header("accept", "x/y")
    };
    let start = [
        request_with_credentials("http://a.example/1"),
        request_with_credentials("http://a.example/moved"),
    ];
    let mut done = fetcher(&mock)
        .as_completed(&start)
        .follow_next_link(FollowLimits::default());
    while let Some(page) = done.next().await {
        assert_eq!(page.result.unwrap().status(), 200, "{}", page.request);
    }
    for request in mock.requests() {
        let headers = request.headers();
        let is_first = ["/1", "/moved"]
            .iter()
            .any(|end| request.url().ends_with(end));
        let has_credentials = is_first || request.url().ends_with("/2");
        assert_eq!(
            headers.contains_key("authorization"),
            has_credentials,
            "{}",
            request.url()
        );
        assert_eq!(*request.method() == "POST", is_first, "{}", request.url());
        assert_eq!(headers["accept"], "x/y");
    }
    assert_eq!(mock.request_count_to("http://a.example/4"), 1);
    assert_eq!(mock.request_count_to("http://a.example/6"), 1);
}

#[tokio::test(start_paused = true)]
async fn next_page_does_not_overwrite_saved_page() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("first-page");
    let first = Request::get("http://a.example/list?page=1").save_to(&file);
    let mut done = fetcher(&pages(3))
        .as_completed([first])
        .follow_next_link(FollowLimits::default());
    while let Some(page) = done.next().await {
        let response = page.result.unwrap();
        assert_eq!(response.saved_to().is_some(), page.depth == 0);
        assert_eq!(response.bytes().is_empty(), page.depth == 0);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "page 1");
}

#[tokio::test(start_paused = true)]
async fn next_link_of_error_status_is_ignored_and_invalid_link_is_a_result() {
    let mock = Mock::new()
        .on(
            "http://a.example/bad",
            MockResponse::text("x").header("link", "<http://[>; rel=next"),
        )
        .on(
            "http://a.example/mail",
            MockResponse::text("x").header("link", "<mailto:a@b>; rel=next"),
        )
        .on(
            "http://a.example/gone",
            MockResponse::status(404).header("link", "</x>; rel=next"),
        );
    let start = ["bad", "mail", "gone", "none"].map(|path| format!("http://a.example/{path}"));
    let mut done = fetcher(&mock)
        .as_completed(&start)
        .follow_next_link(FollowLimits::default());
    let mut invalid = 0;
    while let Some(page) = done.next().await {
        if page.depth == 1 {
            assert_eq!(page.result.unwrap_err().kind(), ErrorKind::InvalidRequest);
            assert!(page.parent_index.unwrap() < 2);
            invalid += 1;
        }
    }
    assert_eq!((invalid, mock.request_count()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn followed_request_has_one_result_with_parent_and_depth() {
    let mock = responding_after_ms(10);
    let fetcher = builder(&mock).concurrency(7).build().unwrap();
    let start = ["http://a.example/0", "http://a.example/1"];
    let mut done = fetcher
        .as_completed(start)
        .follow_links(FollowLimits::default().max_depth(4), children(3));
    let mut by_index = BTreeMap::new();
    while let Some(node) = done.next().await {
        assert!(node.result.is_ok());
        let path = node.request.url_str()["http://a.example/".len()..].to_owned();
        assert_eq!(path.len(), node.depth + 1);
        if let Some(parent) = node.parent_index {
            assert_eq!(by_index[&parent], path[..path.len() - 1]);
        }
        assert!(by_index.insert(node.index, path).is_none());
    }
    let nodes = 2 * (1 + 3 + 9 + 27 + 81);
    assert!(by_index.keys().copied().eq(0..nodes));
    assert_eq!(by_index.values().collect::<BTreeSet<_>>().len(), nodes);
    assert_eq!((mock.request_count(), mock.max_in_flight()), (nodes, 7));
    assert_eq!(done.skipped_requests(), 2 * 243);
}

#[tokio::test(start_paused = true)]
async fn max_requests_bounds_followed_requests_and_counts_skipped() {
    let mock = responding_after_ms(10);
    for (max_requests, skipped) in [(0, 1), (1, 1), (9, 10), (10, 20)] {
        let limits = FollowLimits::default()
            .max_requests(max_requests)
            .max_depth(2);
        let mut done = fetcher(&mock)
            .as_completed(["http://a.example/0"])
            .follow_links(limits, children(10));
        let mut delivered = 0;
        while done.next().await.is_some() {
            delivered += 1;
        }
        assert_eq!(delivered, 1 + max_requests);
        assert!(
            done.skipped_requests() >= skipped,
            "{max_requests}: {}",
            done.skipped_requests()
        );
    }
    let endless = |_: &Completed| (0..).map(|n| format!("http://a.example/{n}"));
    let limits = FollowLimits::default().max_requests(50);
    let mut done = fetcher(&mock)
        .as_completed(["http://a.example/x"])
        .follow_links(limits, endless);
    let mut delivered = 0;
    while done.next().await.is_some() {
        delivered += 1;
    }
    assert!(delivered == 51 && done.skipped_requests() > 0);
}

#[tokio::test(start_paused = true)]
async fn duplicate_followed_requests_are_skipped_but_duplicate_inputs_are_not() {
    let mock = responding_after_ms(10);
    let links = |_: &Completed| {
        let gets = ["a#x", "a#y", "b", "", "a", "b?q"]
            .map(|path| Request::get(format!("http://a.example/{path}")));
        let other = [
            Request::head("http://a.example/a"),
            Request::get("not a URL"),
        ];
        let body = Request::post("http://a.example/a").body("x");
        gets.into_iter()
            .chain(other)
            .chain([body.clone(), body])
            .collect::<Vec<_>>()
    };
    let inputs = [
        "http://a.example/a",
        "http://a.example/a",
        "http://a.example",
    ];
    let limits = FollowLimits::default().max_depth(1);
    let mut done = fetcher(&mock)
        .as_completed(inputs)
        .follow_links(limits, links);
    let mut seen = BTreeMap::<_, usize>::new();
    while let Some(done) = done.next().await {
        *seen
            .entry((
                done.depth,
                format!("{} {}", done.request.method(), done.request.url_str()),
            ))
            .or_default() += 1;
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|((depth, text), count)| (*depth, text.as_str(), *count))
        .collect();
    assert_eq!(
        seen,
        [
            (0, "GET http://a.example/", 1),
            (0, "GET http://a.example/a", 2),
            (1, "GET http://a.example/b", 1),
            (1, "GET http://a.example/b?q", 1),
            (1, "GET not a URL", 1),
            (1, "HEAD http://a.example/a", 1),
            (1, "POST http://a.example/a", 6),
        ]
    );
    assert!(done.skipped_requests() >= 12, "duplicates found at depth 1");

    let limits = FollowLimits::default().max_depth(5).dedupe(false);
    let mut done = fetcher(&mock)
        .as_completed(["http://a.example/a"])
        .follow_links(limits, |_| ["http://a.example/a"]);
    let mut delivered = 0;
    while done.next().await.is_some() {
        delivered += 1;
    }
    assert_eq!((delivered, done.skipped_requests()), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn callback_panic_is_an_error_of_its_result_and_discards_its_links() {
    let mock = responding_after_ms(10);
    let panicking_callback = |done: &Completed| {
        let url = done.request.url_str().to_owned();
        let (depth, index) = (done.depth, done.index);
        (0..2).map(move |n| {
            assert!(
                depth > 0 || index != 3 || n == 0,
                "the second link of input 3"
            );
            format!("{url}/{n}")
        })
    };
    let mut done = fetcher(&mock)
        .as_completed(urls("a", 10))
        .follow_links(FollowLimits::default().max_depth(1), panicking_callback);
    let mut delivered = 0;
    while let Some(done) = done.next().await {
        delivered += 1;
        if done.depth == 0 && done.index == 3 {
            let timings = done.timings();
            let error = done.result.unwrap_err();
            assert_eq!(
                (error.kind(), error.maybe_sent()),
                (ErrorKind::Panicked, true)
            );
            assert_eq!(error.url(), Some("http://a.example/3"));
            assert_eq!((error.attempts().len(), error.timings()), (1, timings));
        } else {
            assert!(done.result.is_ok());
        }
    }
    assert_eq!((delivered, mock.request_count()), (28, 28));

    let always_panicking = |_: &Completed| -> Option<Request> { panic!("callback") };
    let inputs = ["not a URL".to_owned(), "http://a.example/".to_owned()];
    let mut done = fetcher(&mock)
        .as_completed(inputs)
        .follow_links(FollowLimits::default(), always_panicking);
    while let Some(done) = done.next().await {
        let error = done.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert_eq!(error.maybe_sent(), done.index == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn callback_follows_errors() {
    let mock = Mock::new()
        .on("http://down.example/*", ErrorKind::Tls)
        .on("http://mirror.example/*", "here");
    let mirror = |done: &Completed| {
        let url = done.request.url_str().replace("//down.", "//mirror.");
        done.result.is_err().then_some(url)
    };
    let mut done = fetcher(&mock)
        .as_completed(urls("down", 5))
        .follow_links(FollowLimits::default(), mirror);
    let mut followed = 0;
    while let Some(done) = done.next().await {
        assert_eq!(done.result.is_ok(), done.depth == 1);
        followed += done.depth;
    }
    assert_eq!(followed, 5);
}

#[tokio::test(start_paused = true)]
async fn followed_requests_precede_inputs_and_count_toward_look_ahead() {
    let mock = responding_after_ms(10);
    let pulled = Arc::new(AtomicUsize::new(0));
    let inputs = {
        let pulled = Arc::clone(&pulled);
        urls("a", 1000).inspect(move |_| {
            pulled.fetch_add(1, Relaxed);
        })
    };
    let links = |done: &Completed| {
        let is_first = done.index == 0;
        let followed = (0..10_000).map(|n| format!("http://b.example/{n}"));
        followed
            .take(if is_first { 10_000 } else { 0 })
            .collect::<Vec<_>>()
    };
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(4)
        .look_ahead(16)
        .as_completed()
        .follow_links(FollowLimits::default(), links);
    let first = done.next().await.unwrap();
    assert_eq!((first.index, pulled.load(Relaxed)), (0, 16));
    sleep(secs(3600)).await;
    assert_eq!(
        mock.request_count(),
        17,
        "a stopped consumer delays followed requests"
    );
    let mut followed = 0;
    while followed < 10_000 {
        let next = done.next().await.unwrap();
        followed += next.depth;
        assert!(
            followed == 10_000 || pulled.load(Relaxed) <= 16 + 16,
            "{followed}"
        );
    }
    let mut remaining = 0;
    while done.next().await.is_some() {
        remaining += 1;
    }
    assert!(remaining > 900);
    assert_eq!((pulled.load(Relaxed), mock.request_count()), (1000, 11_000));
}

#[tokio::test(start_paused = true)]
async fn followed_requests_start_before_next_poll() {
    let mock = responding_after_ms(10);
    let started = Instant::now();
    let mut done = fetcher(&mock)
        .as_completed(["http://a.example/0"])
        .follow_links(FollowLimits::default().max_depth(1), children(2));
    done.next().await.unwrap();
    sleep(secs(1)).await;
    assert_eq!(
        received_at_ms(&mock, "http://a.example/0", started),
        [0, 10, 10]
    );
    assert!(done.next().await.is_some() && done.next().await.is_some());
    assert!(done.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn after_deadline_nothing_is_followed_and_no_result_is_lost() {
    let mock = responding_after_ms(40);
    let started = Instant::now();
    let mut done = fetcher(&mock)
        .batch(["http://a.example/0"])
        .deadline(ms(100))
        .as_completed()
        .follow_links(FollowLimits::default(), children(3));
    let mut by_depth = [0; 4];
    while let Some(node) = done.next().await {
        by_depth[node.depth] += 1;
        let in_time = node.depth < 2;
        assert_eq!(node.result.is_ok(), in_time);
        if let Err(error) = node.result {
            assert_eq!(error.kind(), ErrorKind::Deadline);
        }
    }
    assert_eq!(by_depth, [1, 3, 9, 0]);
    assert_eq!((started.elapsed(), done.skipped_requests()), (ms(100), 27));
    assert_eq!(mock.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_stream_cancels_followed_requests() {
    let mock = responding_after_ms(1000);
    let mut done = fetcher(&mock)
        .as_completed(["http://a.example/0"])
        .follow_links(FollowLimits::default(), children(5));
    done.next().await.unwrap();
    sleep(ms(1)).await;
    assert_eq!(mock.in_flight(), 5);
    drop(done);
    sleep(ms(1)).await;
    assert_eq!((mock.in_flight(), mock.request_count()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn pending_input_stream_does_not_delay_followed_requests() {
    struct PendingStream;
    impl futures_core::Stream for PendingStream {
        type Item = String;

        fn poll_next(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<String>> {
            std::task::Poll::Pending
        }
    }
    struct FirstThenPending(Option<String>, PendingStream);
    impl futures_core::Stream for FirstThenPending {
        type Item = String;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<String>> {
            match self.0.take() {
                Some(first) => std::task::Poll::Ready(Some(first)),
                None => std::pin::Pin::new(&mut self.1).poll_next(cx),
            }
        }
    }
    let mock = pages(20);
    let inputs = FirstThenPending(
        Some("http://a.example/list?page=1".to_owned()),
        PendingStream,
    );
    let mut done = fetcher(&mock)
        .batch_from_stream(inputs)
        .as_completed()
        .follow_next_link(FollowLimits::default());
    for _ in 0..20 {
        done.next().await.unwrap();
    }
    assert!(timeout(secs(60), done.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn callback_may_borrow_locals_and_stream_may_be_spawned() {
    let mock = responding_after_ms(10);
    let names = ["x".to_owned(), "y".to_owned()];
    let mut calls = 0;
    let callback = |done: &Completed<&str>| {
        calls += 1;
        let name = &*names[done.index % 2];
        [(name, format!("{}{name}", done.request.url_str()))]
    };
    let fetcher = fetcher(&mock);
    let inputs = names.iter().map(|name| (&**name, "http://a.example/"));
    let mut done = fetcher
        .as_completed(inputs)
        .follow_links(FollowLimits::default().max_depth(2), callback);
    while let Some(next) = done.next().await {
        assert!(names.iter().any(|name| name == next.tag));
    }
    drop(done);
    assert!(calls >= 4);

    let spawned = tokio::spawn(async move {
        let mut done = fetcher
            .batch(urls("a", 3))
            .read_with(|body| async move { Ok(body.status().as_u16()) })
            .as_completed()
            .follow_links(FollowLimits::default(), |done| {
                assert_eq!(done.result.as_ref().ok(), Some(&200));
                done.parent_index
                    .is_none()
                    .then(|| format!("{}/more", done.request.url_str()))
            });
        let mut delivered = 0;
        while done.next().await.is_some() {
            delivered += 1;
        }
        delivered
    });
    assert_eq!(spawned.await.unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn follow_on_started_batch_panics() {
    let mock = responding_after_ms(10);
    let mut done = fetcher(&mock).as_completed(urls("a", 2));
    done.next().await.unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        done.follow_next_link(FollowLimits::default())
    }));
    assert!(panic.is_err());
}

#[tokio::test(start_paused = true)]
async fn drain_and_cancel_follow_nothing_and_lose_no_result() {
    for is_drain in [true, false] {
        let mock = responding_after_ms(100);
        let mut done = fetcher(&mock)
            .batch(["http://a.example/0"])
            .concurrency(3)
            .as_completed()
            .follow_links(FollowLimits::default(), children(4));
        let handle = done.handle();
        let command = async {
            sleep(ms(150)).await;
            if is_drain {
                handle.drain();
            } else {
                handle.cancel();
            }
        };
        let consume = async {
            let mut counts = [0; 3];
            while let Some(node) = done.next().await {
                match node.result {
                    Ok(_) => counts[0] += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Cancelled);
                        counts[1 + usize::from(error.maybe_sent())] += 1;
                    }
                }
            }
            counts
        };
        let (counts, ()) = tokio::join!(consume, command);
        // The first result, three requests on the wire, and one queued request.
        assert_eq!(counts, if is_drain { [4, 1, 0] } else { [1, 1, 3] });
        assert!(done.skipped_requests() >= 12);
        assert_eq!((mock.request_count(), mock.in_flight()), (4, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn progress_total_includes_followed_requests() {
    let mock = responding_after_ms(10);
    let mut done = fetcher(&mock)
        .as_completed(urls("a", 2))
        .follow_links(FollowLimits::default().max_depth(1), children(3));
    let handle = done.handle();
    assert_eq!(handle.progress().total(), Some(2));
    done.next().await.unwrap();
    assert_eq!(handle.progress().total(), Some(5));
    while done.next().await.is_some() {}
    let progress = handle.progress();
    assert_eq!((progress.total(), progress.completed()), (Some(8), 8));
}

#[tokio::test(start_paused = true)]
async fn final_round_success_is_followed() {
    let page = |n: usize| {
        let response = MockResponse::text(format!("page {n}")).delay(ms(10));
        response.header("link", format!("</{}>; rel=next", n + 1))
    };
    let mut mock = Mock::new();
    for n in 0..9 {
        mock = mock.on(
            format!("http://a.example/{n}"),
            if n % 2 == 0 {
                page(n)
            } else {
                MockResponse::status(503)
            },
        );
        if n % 2 == 1 {
            mock = mock.then(503).then(page(n));
        }
    }
    let retry = Retry::default().max_retries(1).final_round(true);
    let mut done = fetcher(&mock)
        .batch(["http://a.example/0"])
        .retry(retry)
        .as_completed()
        .follow_next_link(FollowLimits::default());
    for n in 0..9 {
        let page = done.next().await.unwrap();
        assert_eq!(
            (page.index, page.result.unwrap().text().into_owned()),
            (n, format!("page {n}"))
        );
    }
    assert_eq!(done.next().await.unwrap().result.unwrap().status(), 404);
    assert!(done.next().await.is_none());
    assert_eq!(mock.request_count(), 9 + 4 * 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn redirect_target_is_not_followed_again() {
    let to = |location: &'static str| MockResponse::status(302).header("location", location);
    let mock = Mock::new()
        .on("http://a.example/old", to("/middle"))
        .on("http://a.example/middle", to("/new#part"))
        .fallback(200);
    let links = |page: &Completed| -> Vec<&'static str> {
        if page.request.url_str() == "http://a.example/start" {
            vec!["http://a.example/old"]
        } else {
            vec![
                "http://a.example/new",
                "http://a.example/new#other",
                "http://a.example/middle",
                "http://a.example/old",
                "http://a.example/third",
            ]
        }
    };
    let mut pages = fetcher(&mock)
        .as_completed(["http://a.example/start"])
        .follow_links(FollowLimits::default(), links);
    let mut urls = Vec::new();
    while let Some(page) = pages.next().await {
        urls.push(page.result.unwrap().url().path().to_owned());
    }
    assert_eq!(urls, ["/start", "/new", "/third"]);
    assert_eq!((mock.request_count(), pages.skipped_requests()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn followed_requests_are_compared_and_reported_without_fragments() {
    let mock = responding_after_ms(10);
    let links = |page: &Completed| {
        let fragments = ["x#1", "x#2", "x", "y#3", "y#4"];
        fragments.map(|path| page.result.as_ref().unwrap().url().join(path).unwrap())
    };
    for dedupe in [true, false] {
        let mut pages = fetcher(&mock)
            .as_completed(["http://a.example/#top"])
            .follow_links(FollowLimits::default().max_depth(1).dedupe(dedupe), links);
        let mut urls = Vec::new();
        while let Some(page) = pages.next().await {
            urls.push(page.request.url_str().replace("http://a.example/", ""));
        }
        let expected: &[&str] = if dedupe {
            &["#top", "x", "y"]
        } else {
            &["#top", "x#1", "x#2", "x", "y#3", "y#4"]
        };
        assert_eq!(urls, expected);
    }
}
