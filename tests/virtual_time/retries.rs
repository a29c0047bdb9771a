//! Retries: which outcomes are retried, and when.

use std::time::Duration;

use fanout::{Attempt, ErrorKind, Mock, MockResponse, Outcome, Request, RequestBuilder, Retry};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::{builder, fetcher, ms, received_at_ms, secs};

const URL: &str = "http://a.example/";

async fn attempts_of(request: RequestBuilder, response: impl Into<MockResponse>) -> usize {
    let mock = Mock::new().on("*", response);
    let attempts = match fetcher(&mock).fetch(request).await {
        Ok(response) => response.attempts().len(),
        Err(error) => error.attempts().len(),
    };
    assert_eq!(mock.request_count(), attempts);
    attempts
}

#[tokio::test(start_paused = true)]
async fn non_idempotent_request_is_sent_once() {
    for method in [Method::POST, Method::PATCH] {
        let request = Request::new(method, URL);
        assert_eq!(attempts_of(request.clone(), ErrorKind::Closed).await, 1);
        assert_eq!(attempts_of(request.clone(), ErrorKind::Transport).await, 1);
        assert_eq!(attempts_of(request, 503).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn idempotent_request_is_sent_three_times() {
    let idempotent_methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
    let by_method = idempotent_methods.map(|method| Request::new(method.parse().unwrap(), URL));
    let marked_idempotent = [
        Request::post(URL).header("idempotency-key", "7"),
        Request::post(URL).idempotent(),
        Request::patch(URL).idempotent(),
    ];
    for request in by_method.into_iter().chain(marked_idempotent) {
        assert_eq!(attempts_of(request.clone(), ErrorKind::Closed).await, 3);
        assert_eq!(attempts_of(request, 503).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_repeats_headers_and_body() {
    let mock = Mock::new().on(URL, ErrorKind::Reset).then(200);
    let request = Request::put(URL).body("all of it").header("x-a", "1");
    fetcher(&mock).fetch(request).await.unwrap();
    let requests = mock.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(
            (request.text().as_ref(), &request.headers()["x-a"]),
            ("all of it", &"1".parse().unwrap())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn unsent_request_is_retried_for_any_method() {
    for kind in [
        ErrorKind::Dns,
        ErrorKind::Connect,
        ErrorKind::Proxy,
        ErrorKind::ConnectTimeout,
    ] {
        let mock = Mock::new().on(URL, kind);
        let error = fetcher(&mock).fetch(Request::post(URL)).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (kind, 3));
        assert!(error.is_connect() && !error.maybe_sent(), "{kind}");
    }
    let mock = Mock::new().on(URL, ErrorKind::Tls);
    let error = fetcher(&mock).fetch(Request::post(URL)).await.unwrap_err();
    assert_eq!(error.attempts().len(), 1);
    assert!(!error.maybe_sent());
}

#[tokio::test(start_paused = true)]
async fn maybe_sent_attempt_stops_retries_of_post() {
    let mock = Mock::new()
        .on(URL, ErrorKind::Connect)
        .then(ErrorKind::Closed)
        .then(200);
    let error = fetcher(&mock).fetch(Request::post(URL)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Closed, 2)
    );
    assert!(error.maybe_sent());

    let mock = Mock::new()
        .on(URL, ErrorKind::Closed)
        .then(ErrorKind::Connect);
    let error = fetcher(&mock).fetch(URL).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Connect, 3)
    );
    assert!(error.maybe_sent(), "the first attempt may have been sent");
}

#[tokio::test(start_paused = true)]
async fn only_transient_error_kinds_are_retried() {
    use ErrorKind::*;
    let retried = [
        Dns,
        Connect,
        Proxy,
        Closed,
        Reset,
        Truncated,
        ConnectTimeout,
        ResponseHeadTimeout,
        BodyIdleTimeout,
        RequestTimeout,
        Transport,
    ];
    for kind in retried {
        assert_eq!(attempts_of(Request::get(URL), kind).await, 3, "{kind}");
    }
    for kind in [
        HostNotFound,
        ProxyRefused,
        NotAllowed,
        Tls,
        Protocol,
        BodyTooLarge,
        TotalTimeout,
        Panicked,
        Json,
    ] {
        assert_eq!(attempts_of(Request::get(URL), kind).await, 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_seven_statuses_are_retried() {
    for status in (200..600).filter(|status| status % 100 < 32) {
        let expected = match status {
            408 | 425 | 500 | 502 | 503 | 504 => 3,
            // Ten throttled attempts do not count as retries.
            429 => 13,
            _ => 1,
        };
        assert_eq!(
            attempts_of(Request::get(URL), status).await,
            expected,
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn exhausted_retries_return_last_status() {
    let mock = Mock::new().on(URL, 500).then(502).then(504).then(200);
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    assert_eq!(response.status(), 504);
}

#[tokio::test(start_paused = true)]
async fn backoff_at_most_doubles_with_each_retry() {
    for _ in 0..20 {
        let mock = Mock::new().on(URL, 500);
        let retry = Retry::default().max_retries(4).max_delay(ms(300));
        let started = Instant::now();
        let response = builder(&mock)
            .retry(retry)
            .build()
            .unwrap()
            .fetch(URL)
            .await
            .unwrap();
        let queued_times: Vec<_> = response.attempts().iter().map(Attempt::queued).collect();
        // The timer's resolution is 1 ms.
        for (queued_time, longest) in queued_times.iter().zip([0, 101, 201, 301, 301]) {
            assert!(*queued_time <= ms(longest), "{queued_times:?}");
        }
        assert_eq!(started.elapsed(), queued_times.iter().sum::<Duration>());
    }
}

/// Asserts that `response` to one request pauses its host for 2 s and no other host.
async fn assert_pauses_host_for_two_seconds(response: MockResponse) {
    let mock = Mock::new()
        .on("http://a.example/busy", response)
        .then(200)
        .fallback(200);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let paused = tokio::spawn(fetcher.fetch("http://a.example/busy"));
    sleep(ms(500)).await;
    let other_results = fetcher
        .gather(["http://a.example/other", "http://b.example/other"])
        .await;
    assert!(super::all_ok(&other_results));
    assert_eq!(paused.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        received_at_ms(&mock, "http://a.example/busy", started),
        [0, 2000]
    );
    assert_eq!(
        received_at_ms(&mock, "http://a.example/other", started),
        [2000]
    );
    assert_eq!(
        received_at_ms(&mock, "http://b.example/other", started),
        [500]
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_seconds_pauses_host() {
    for status in [429, 503] {
        assert_pauses_host_for_two_seconds(MockResponse::status(status).header("retry-after", "2"))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_ms_pauses_host() {
    let response = MockResponse::status(429)
        .header("retry-after", "3")
        .header("retry-after-ms", "2000");
    assert_pauses_host_for_two_seconds(response).await;
}

#[tokio::test(start_paused = true)]
async fn x_should_retry_decides_whether_a_post_is_sent_again() {
    for (status, value, attempt_count) in [(500, "true", 3), (429, "false", 1), (500, "no", 1)] {
        let response = MockResponse::status(status).header("x-should-retry", value);
        assert_eq!(
            attempts_of(Request::post(URL), response).await,
            attempt_count,
            "{status} {value}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_date_pauses_host() {
    let response = MockResponse::status(503)
        .header("date", "Sat, 01 Jan 2000 00:00:58 GMT")
        .header("retry-after", "Sat, 01 Jan 2000 00:01:00 GMT");
    assert_pauses_host_for_two_seconds(response).await;
}

#[tokio::test(start_paused = true)]
async fn host_pause_applies_to_other_batches_and_after_last_attempt() {
    let mock = Mock::new()
        .on(
            "http://a.example/busy",
            MockResponse::status(429).header("retry-after", "7"),
        )
        .fallback(200);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let paused = fetcher
        .batch(["http://a.example/busy"])
        .retry(Retry::off())
        .gather()
        .await;
    assert_eq!(paused[0].as_ref().unwrap().status(), 429);
    assert_eq!(started.elapsed(), ms(0));
    fetcher.gather(["http://a.example/other"]).await;
    assert_eq!(started.elapsed(), secs(7));
}

#[tokio::test(start_paused = true)]
async fn retry_after_beyond_maximum_ends_retries() {
    let mock = Mock::new()
        .on(URL, MockResponse::status(503).header("retry-after", "301"))
        .fallback(200);
    let started = Instant::now();
    let fetcher = fetcher(&mock);
    let response = fetcher.fetch(URL).await.unwrap();
    assert_eq!(
        (response.status(), response.attempts().len()),
        (StatusCode::SERVICE_UNAVAILABLE, 1)
    );
    fetcher.fetch("http://a.example/other").await.unwrap();
    assert_eq!(started.elapsed(), ms(0));

    let long_wait = Retry::default()
        .max_retries(1)
        .max_throttled_attempts(0)
        .max_retry_after(secs(301));
    builder(&mock)
        .retry(long_wait)
        .build()
        .unwrap()
        .fetch(URL)
        .await
        .unwrap();
    assert_eq!(started.elapsed(), secs(301));
}

#[tokio::test(start_paused = true)]
async fn attempts_report_outcome_queued_time_and_timings() {
    let mock = Mock::new()
        .on(
            URL,
            MockResponse::status(503)
                .header("retry-after", "2")
                .delay(ms(100)),
        )
        .then(MockResponse::error(ErrorKind::Closed).delay(ms(50)))
        .then(
            MockResponse::text("at last")
                .delay(ms(10))
                .body_delay(ms(5)),
        );
    let retry = Retry::default()
        .base_delay(ms(0))
        .throttled_base_delay(ms(0));
    let response = builder(&mock)
        .retry(retry)
        .build()
        .unwrap()
        .fetch(URL)
        .await
        .unwrap();
    let attempts: Vec<_> = response
        .attempts()
        .iter()
        .map(|attempt| {
            let timings = attempt.timings();
            (
                attempt.outcome(),
                attempt.queued(),
                timings.response_head(),
                timings.body(),
            )
        })
        .collect();
    let expected = [
        (
            Outcome::Status(StatusCode::SERVICE_UNAVAILABLE),
            ms(0),
            ms(100),
            ms(0),
        ),
        (Outcome::Error(ErrorKind::Closed), ms(2000), ms(50), ms(0)),
        (Outcome::Status(StatusCode::OK), ms(0), ms(10), ms(5)),
    ];
    assert_eq!(attempts, expected);
    let timings = response.timings();
    assert_eq!(
        (timings.queued(), timings.wire(), timings.total()),
        (ms(2000), ms(165), ms(2165))
    );
}

#[tokio::test(start_paused = true)]
async fn retry_off_on_fetcher_or_batch_allows_one_attempt() {
    let mock = Mock::new().on(URL, ErrorKind::Closed);
    let error = builder(&mock)
        .retry(Retry::off())
        .build()
        .unwrap()
        .fetch(URL)
        .await
        .unwrap_err();
    assert_eq!(error.attempts().len(), 1);
    let results = fetcher(&mock)
        .batch([URL])
        .retry(Retry::off())
        .gather()
        .await;
    assert_eq!(results[0].as_ref().unwrap_err().attempts().len(), 1);
    assert_eq!(mock.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_starts_before_new_requests() {
    let first = "http://a.example/0";
    let mock = Mock::new()
        .on(first, MockResponse::status(500).delay(ms(10)))
        .then(200)
        .fallback(MockResponse::status(200).delay(ms(10)));
    let retry = Retry::default().base_delay(ms(0));
    fetcher(&mock)
        .batch(super::urls("a", 5))
        .concurrency(1)
        .retry(retry)
        .gather()
        .await;
    let order: Vec<_> = mock
        .requests()
        .iter()
        .map(|request| request.uri().path().to_owned())
        .collect();
    assert_eq!(order, ["/0", "/0", "/1", "/2", "/3", "/4"]);
}

/// GitHub Docs, "Rate limits for the REST API", section "Exceeding the rate limit".
#[tokio::test(start_paused = true)]
async fn forbidden_request_is_sent_again_after_the_reset() {
    let refused = MockResponse::status(403)
        .header("date", "Sun, 09 Sep 2001 01:46:40 GMT")
        .header("x-ratelimit-remaining", "0")
        .header("x-ratelimit-reset", "1000000030");
    let mock = Mock::new().on(URL, refused).then(200);
    let started = Instant::now();
    let response = fetcher(&mock).fetch(Request::post(URL)).await.unwrap();
    assert_eq!(
        (response.status(), started.elapsed()),
        (StatusCode::OK, secs(30))
    );
}

#[tokio::test(start_paused = true)]
async fn secondary_limit_of_github_delays_next_attempt_for_a_minute() {
    let refused = |body: &'static str| {
        MockResponse::status(403)
            .header("x-github-request-id", "A1B2:3C4D")
            .body(body)
    };
    let limited = refused("You have exceeded a secondary rate limit.");
    let mock = Mock::new().on(URL, limited.clone()).then(200);
    let started = Instant::now();
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    assert_eq!(
        (response.status(), started.elapsed()),
        (StatusCode::OK, secs(60))
    );

    assert_eq!(
        attempts_of(Request::get(URL), refused("Must have admin rights.")).await,
        1
    );
    let mock = Mock::new().on(URL, limited).then(200);
    let off = builder(&mock).respect_rate_limit_headers(false);
    let response = off.build().unwrap().fetch(URL).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}
