//! `Summary`: counts and percentiles of many results.

use std::time::Duration;

use fanout::{ErrorKind, FollowLimits, Mock, MockRequest, MockResponse, Response, Retry, Summary};

use super::{builder, fetcher, ms, secs, urls};

fn is_close(reported: Duration, exact: Duration) -> bool {
    reported.abs_diff(exact) <= exact.mul_f64(0.016)
}

#[tokio::test(start_paused = true)]
async fn summary_of_results_equals_summary_of_completed() {
    let mock = Mock::new()
        .on("http://a.example/3", 503)
        .on("http://a.example/4", 404)
        .on("http://b.example/*", ErrorKind::Tls)
        .fallback(MockResponse::text("hello").delay(ms(20)).body_delay(ms(30)))
        .connect_delay(ms(10));
    let fetcher = builder(&mock)
        .retry(Retry::default().max_retries(2))
        .build()
        .unwrap();
    let inputs = || {
        urls("a", 10)
            .chain(urls("b", 2))
            .chain(["not a URL".to_owned()])
    };
    let results = fetcher.gather(inputs()).await;
    let mut done = fetcher.as_completed(inputs());
    let mut incremental = Summary::default();
    while let Some(completed) = done.next().await {
        incremental.add(&completed);
    }
    for summary in [Summary::of(&results), incremental] {
        assert_eq!(summary.requests(), 13);
        assert_eq!((summary.responses(), summary.failed()), (10, 3));
        let statuses = summary
            .status_counts()
            .map(|(status, count)| (status.as_u16(), count));
        assert!(statuses.eq([(200, 8), (404, 1), (503, 1)]));
        let errors = summary.error_counts();
        assert!(errors.eq([(ErrorKind::InvalidRequest, 1), (ErrorKind::Tls, 2)]));
        assert_eq!((summary.retries(), summary.body_bytes()), (2, 40));
        assert!(is_close(summary.wire_time().p50(), ms(60)));
        assert_eq!(summary.wire_time().max(), ms(60));
        assert_eq!(
            summary.wire_time().count(),
            12,
            "the invalid request has no wire time"
        );
        assert_eq!(summary.body_time().count(), 8);
        assert!(is_close(summary.body_time().p99(), ms(30)));
        assert_eq!(summary.connect_time().max(), ms(30));
        assert!(summary.total_time().max() > summary.wire_time().max());
        assert!(summary.queued_time().max() > Duration::ZERO);
        let hosts: Vec<_> = summary.hosts().collect();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[0].origin(), "http://a.example");
        assert_eq!((hosts[0].requests(), hosts[0].failed()), (10, 0));
        assert_eq!((hosts[0].retries(), hosts[0].body_bytes()), (2, 40));
        assert_eq!((hosts[1].requests(), hosts[1].failed()), (2, 2));
        assert!(summary.other_hosts().is_none() && summary.wall_time().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn percentiles_match_exact_times() {
    let with_varied_delay = |request: &MockRequest| {
        let number = request.url().rsplit('/').next().unwrap_or_default();
        let number: u64 = number.parse().unwrap();
        MockResponse::text("x").delay(ms(number * number % 997 + 1))
    };
    let mock = Mock::new().fallback(MockResponse::from_fn(with_varied_delay));
    let results = fetcher(&mock).gather(urls("a", 500)).await;
    let summary: Summary = results.iter().collect();
    let mut wire: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap().timings().wire())
        .collect();
    wire.sort_unstable();
    assert!(is_close(summary.wire_time().p50(), wire[249]));
    assert!(is_close(summary.wire_time().p90(), wire[449]));
    assert!(is_close(summary.wire_time().p99(), wire[494]));
    assert_eq!(summary.wire_time().max(), wire[499]);
    assert_eq!(
        summary.wire_time().sum(),
        wire.into_iter().sum::<Duration>()
    );
}

#[tokio::test(start_paused = true)]
async fn hosts_beyond_one_thousand_are_counted_together() {
    let fetcher = fetcher(&Mock::new().fallback("hello"));
    let hosts = (0..1_200).map(|n| format!("http://host-{n}.a-name-of-some-length.example:8080/"));
    let repeated_host =
        (0..5).map(|n| format!("http://host-7.a-name-of-some-length.example:8080/{n}"));
    let mut summary = Summary::default();
    for result in fetcher.gather(hosts.chain(repeated_host)).await {
        summary.add(&result);
    }
    assert_eq!(summary.hosts().count(), 1_000);
    let first = summary.hosts().next().unwrap();
    assert_eq!(
        first.origin(),
        "http://host-7.a-name-of-some-length.example:8080"
    );
    assert_eq!(first.requests(), 6);
    let other_hosts = summary.other_hosts().unwrap();
    assert_eq!(
        (
            other_hosts.requests(),
            other_hosts.body_bytes(),
            other_hosts.origin()
        ),
        (200, 1_000, "")
    );
    let text = summary.to_string();
    assert!(text.contains("all others"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn table_fits_80_columns_and_shows_no_secret() {
    let status = |request: &MockRequest| {
        let number: u16 = request.url().rsplit('/').next().unwrap().parse().unwrap();
        MockResponse::status(400 + number % 90).delay(ms(u64::from(number).pow(4)))
    };
    let mock = Mock::new().fallback(MockResponse::from_fn(status));
    let long_name = "a-name-that-is-too-long-for-its-column".repeat(3);
    let url = |n: usize| {
        format!(
            "http://user:s3cr3t@{}.example/s3cr3t/{n}",
            &long_name[..60 - n % 60]
        )
    };
    let inputs = (0..180)
        .map(url)
        .chain(["s3cr3t".to_owned(), "http://s3cr3t:x@[/".to_owned()]);
    let fetcher = builder(&mock)
        .retry(Retry::off())
        .timeouts(fanout::Timeouts::default().response_head(None).total(None))
        .build()
        .unwrap();
    let results = fetcher.gather(inputs).await;
    let summary = Summary::of(&results).with_wall_time(secs(123_456));
    let text = format!("{summary}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(
        !text.contains("s3cr3t") && !format!("{summary:?}").contains("s3cr3t"),
        "{text}"
    );
    for expected in [
        "182 requests in 1.2e5 s",
        "180 responses, 2 failed",
        "489 × 2",
        "invalid request × 2",
        "p99",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let empty = Summary::default().to_string();
    assert_eq!(
        empty,
        "0 requests: 0 responses, 0 failed\n0 retries, 0 B of bodies, 0 s on the wire\n"
    );
}

#[tokio::test(start_paused = true)]
async fn summary_counts_status_errors_and_handler_results() {
    let mock = Mock::new().on("http://a.example/1", 404).fallback("hello");
    let fetcher = fetcher(&mock);
    let results = fetcher.gather(urls("a", 3)).await;
    let status_errors: Vec<_> = results
        .into_iter()
        .map(|result| result.and_then(Response::error_for_status))
        .collect();
    let summary = Summary::of(&status_errors);
    assert!(
        summary
            .status_counts()
            .map(|(status, count)| (status.as_u16(), count))
            .eq([(200, 2), (404, 1)])
    );
    assert!(summary.error_counts().eq([(ErrorKind::Status, 1)]));
    assert_eq!(summary.hosts().next().unwrap().requests(), 3);

    let mut done = fetcher
        .batch(urls("a", 3))
        .read_with(|body| async move { Ok(body.status().is_success()) })
        .as_completed()
        .follow_links(FollowLimits::default(), |_| None::<String>);
    let mut summary = Summary::default();
    while let Some(completed) = done.next().await {
        summary.add(&completed);
    }
    assert!(
        summary
            .status_counts()
            .map(|(status, count)| (status.as_u16(), count))
            .eq([(200, 2), (404, 1)])
    );
    assert_eq!(
        (
            summary.responses(),
            summary.body_bytes(),
            summary.wire_time().count()
        ),
        (3, 0, 3)
    );
    assert_eq!(summary.hosts().next().unwrap().requests(), 3);
}
