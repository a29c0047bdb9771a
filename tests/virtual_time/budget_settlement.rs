//! The costs of requests are settled after each exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{
    Budget, ErrorKind, Fetcher, Host, Mock, MockRequest, MockResponse, Request, Response, Retry,
    Timeouts,
};
use tokio::time::{Instant, sleep};

use super::{
    all_ok, budget_level, builder, ms, one_per_second, received_at_ms, requests_with_cost,
    responding_after_ms, secs,
};

const HOST: &str = "http://a.example";

/// Returns a Fetcher whose host `a` has this budget, and which does not retry.
fn fetcher_with_budget(mock: &Mock, budget: Budget) -> Fetcher {
    let host = Host::new().budget(budget);
    let builder = builder(mock).retry(Retry::off());
    builder.host(HOST, host).build().unwrap()
}

/// Returns the number in the body.
fn body_number(response: &Response) -> Option<u64> {
    response.text().parse().ok()
}

fn request_with_cost(cost: u64) -> Request {
    Request::get(HOST).cost("tokens", cost).build()
}

#[tokio::test(start_paused = true)]
async fn response_settles_the_difference_in_either_direction() {
    for (body, level) in [
        ("2", 8),
        ("6", 4),
        ("9", 1),
        ("25", -15),
        ("0", 10),
        ("?", 4),
    ] {
        let mock = Mock::new().fallback(body);
        let budget = one_per_second("tokens").settle(body_number);
        let fetcher = fetcher_with_budget(&mock, budget);
        fetcher.fetch(request_with_cost(6)).await.unwrap();
        assert_eq!(budget_level(&fetcher, "tokens"), level, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn enormous_actual_cost_is_a_debt_that_is_never_paid_off() {
    let mock = Mock::new().fallback("x");
    let budget = one_per_second("tokens").settle(|_| Some(u64::MAX));
    let fetcher = fetcher_with_budget(&mock, budget);
    fetcher.fetch(request_with_cost(6)).await.unwrap();
    assert!(budget_level(&fetcher, "tokens") < -1_000_000_000_000);
    let batch = fetcher.batch([request_with_cost(6)]).deadline(secs(86_400));
    let error = batch.gather().await.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
    fetcher.fetch(HOST).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn debt_is_paid_off_before_the_next_request_starts() {
    let mock = Mock::new().on("*", "25").then("1");
    let budget = one_per_second("tokens").settle(body_number);
    let fetcher = fetcher_with_budget(&mock, budget);
    let started = Instant::now();
    for _ in 0..2 {
        fetcher.fetch(request_with_cost(1)).await.unwrap();
    }
    // A level of -15 becomes 1 after 16 s.
    assert_eq!(received_at_ms(&mock, HOST, started), [0, 16_000]);
}

#[tokio::test(start_paused = true)]
async fn refund_starts_the_next_request_at_once() {
    let mock = Mock::new().fallback(MockResponse::text("1").delay(ms(500)));
    let budget = one_per_second("tokens").settle(body_number);
    let fetcher = fetcher_with_budget(&mock, budget);
    let started = Instant::now();
    let results = fetcher
        .gather(requests_with_cost("a", 3, "tokens", 8))
        .await;
    assert!(all_ok(&results));
    assert_eq!(received_at_ms(&mock, HOST, started), [0, 500, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn level_is_never_above_the_capacity() {
    let mock = Mock::new().fallback(MockResponse::text("0").delay(secs(20)));
    let budget = one_per_second("tokens").settle(body_number);
    let fetcher = fetcher_with_budget(&mock, budget);
    fetcher.fetch(request_with_cost(10)).await.unwrap();
    assert_eq!(budget_level(&fetcher, "tokens"), 10);
}

#[tokio::test(start_paused = true)]
async fn unsent_request_is_refunded_and_a_sent_one_without_response_is_not() {
    for (kind, level) in [
        (ErrorKind::Connect, 10),
        (ErrorKind::HostNotFound, 10),
        (ErrorKind::Tls, 10),
        (ErrorKind::Closed, 4),
        (ErrorKind::Reset, 4),
        (ErrorKind::Protocol, 4),
    ] {
        let mock = Mock::new().fallback(MockResponse::error(kind));
        let budget = one_per_second("tokens").settle(|_| Some(1));
        let fetcher = fetcher_with_budget(&mock, budget);
        let error = fetcher.fetch(request_with_cost(6)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(budget_level(&fetcher, "tokens"), level, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_is_refunded_and_a_response_timeout_is_not() {
    let connecting = responding_after_ms(1).connect_delay(secs(60));
    let hanging = Mock::new().fallback(MockResponse::hang());
    for (mock, kind, level) in [
        (connecting, ErrorKind::ConnectTimeout, 10),
        (hanging, ErrorKind::ResponseHeadTimeout, 4),
    ] {
        let timeouts = Timeouts::default().connect(ms(100)).response_head(ms(100));
        let fetcher = builder(&mock)
            .retry(Retry::off())
            .timeouts(timeouts)
            .budget(one_per_second("tokens"))
            .build()
            .unwrap();
        let error = fetcher.fetch(request_with_cost(6)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(budget_level(&fetcher, "tokens"), level, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_request_is_refunded_only_if_it_was_not_sent() {
    let connecting = responding_after_ms(1).connect_delay(secs(60));
    let hanging = Mock::new().fallback(MockResponse::hang());
    for (mock, left) in [(connecting, 10), (hanging, 4)] {
        let budget = Budget::total("tokens", 10);
        let fetcher = fetcher_with_budget(&mock, budget);
        let fetch = tokio::spawn(fetcher.fetch(request_with_cost(6)));
        sleep(ms(100)).await;
        fetch.abort();
        sleep(ms(100)).await;
        assert_eq!(budget_level(&fetcher, "tokens"), left);

        let fetcher = fetcher_with_budget(&mock, Budget::total("tokens", 10));
        let mut batch = fetcher.batch([request_with_cost(6)]).as_completed();
        tokio::select! {
            _ = batch.next() => unreachable!(),
            () = sleep(ms(100)) => drop(batch),
        }
        sleep(ms(100)).await;
        assert_eq!(budget_level(&fetcher, "tokens"), left);
    }
}

#[test]
fn worker_dropped_with_its_runtime_settles_its_costs() {
    let mock = Mock::new().fallback(MockResponse::hang());
    let fetcher = fetcher_with_budget(&mock, Budget::total("tokens", 10));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fetch = fetcher.fetch(request_with_cost(6));
    let waiting = fetcher.fetch(request_with_cost(5));
    runtime.block_on(async {
        tokio::spawn(fetch);
        tokio::spawn(waiting);
        while mock.request_count() == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    assert_eq!(budget_level(&fetcher, "tokens"), 4);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Nothing is outstanding, so the request does not wait for a refund.
    let error = runtime
        .block_on(fetcher.fetch(request_with_cost(5)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
}

#[tokio::test(start_paused = true)]
async fn total_waits_for_refunds_of_requests_in_flight() {
    let mock = Mock::new().fallback(MockResponse::text("1").delay(ms(100)));
    let budget = Budget::total("tokens", 10).settle(body_number);
    let fetcher = fetcher_with_budget(&mock, budget);
    let started = Instant::now();
    let results = fetcher
        .gather(requests_with_cost("a", 4, "tokens", 7))
        .await;
    assert!(all_ok(&results));
    assert_eq!(received_at_ms(&mock, HOST, started), [0, 100, 200, 300]);
    assert_eq!(budget_level(&fetcher, "tokens"), 6);
}

#[tokio::test(start_paused = true)]
async fn total_settled_upward_ends_waiting_requests() {
    let mock = Mock::new().fallback(MockResponse::text("12").delay(ms(100)));
    let budget = Budget::total("tokens", 10).settle(body_number);
    let fetcher = fetcher_with_budget(&mock, budget);
    let results = fetcher
        .gather(requests_with_cost("a", 4, "tokens", 6))
        .await;
    assert!(results[0].is_ok());
    for result in &results[1..] {
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Budget);
    }
    assert_eq!(budget_level(&fetcher, "tokens"), -2);
    let error = results[3].as_ref().unwrap_err();
    assert!(error.to_string().ends_with("which has 0 left"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn retry_and_redirect_to_the_same_host_pay_again() {
    let mock = Mock::new()
        .on("*/retried", MockResponse::status(503))
        .then(MockResponse::error(ErrorKind::Connect))
        .then("x")
        .on(
            "*/redirected",
            MockResponse::status(302).header("location", "/retried"),
        )
        .on(
            "*/leaving",
            MockResponse::status(302).header("location", "http://b.example/"),
        )
        .fallback("x");
    let host = Host::new().budget(Budget::total("tokens", 100));
    let fetcher = builder(&mock).host(HOST, host).build().unwrap();
    let fetch = |path| fetcher.fetch(Request::get(format!("{HOST}{path}")).cost("tokens", 10));
    // Three attempts, one of which was not sent.
    assert_eq!(fetch("/retried").await.unwrap().attempts().len(), 3);
    assert_eq!(budget_level(&fetcher, "tokens"), 80);
    fetch("/redirected").await.unwrap();
    assert_eq!(budget_level(&fetcher, "tokens"), 60);
    // The other host has no budget, so the cost is ignored there.
    fetch("/leaving").await.unwrap();
    assert_eq!(budget_level(&fetcher, "tokens"), 50);
}

/// Responds with 401 to the first token.
fn refusing_the_first_token() -> Mock {
    Mock::new().fallback(MockResponse::from_fn(|request: &MockRequest| {
        match request.headers()["authorization"].to_str() {
            Ok("Bearer t0") => MockResponse::status(401),
            _ => MockResponse::text("3"),
        }
    }))
}

/// Returns the settings of a host with a token source, which fails after the first
/// `valid_tokens` tokens.
fn host_with_tokens(valid_tokens: usize) -> Host {
    let calls = Arc::new(AtomicUsize::new(0));
    Host::new().token_source(move || {
        let call = calls.fetch_add(1, Relaxed);
        async move {
            if call < valid_tokens {
                Ok(format!("t{call}"))
            } else {
                Err("no token".into())
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn repetition_with_a_new_token_does_not_pay_again() {
    let mock = refusing_the_first_token();
    let total = Budget::total("tokens", 10).settle(body_number);
    let host = host_with_tokens(2).budget(total);
    let fetcher = builder(&mock).host(HOST, host).build().unwrap();
    // The total covers the cost only once.
    let response = fetcher.fetch(request_with_cost(7)).await.unwrap();
    assert_eq!((response.status().as_u16(), mock.request_count()), (200, 2));
    assert_eq!(budget_level(&fetcher, "tokens"), 7);
}

#[tokio::test(start_paused = true)]
async fn request_without_a_new_token_pays_once_and_is_settled() {
    let mock = refusing_the_first_token();
    let host = host_with_tokens(1).budget(Budget::total("tokens", 10));
    let fetcher = builder(&mock).host(HOST, host).build().unwrap();
    let error = fetcher.fetch(request_with_cost(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Token);
    assert_eq!(budget_level(&fetcher, "tokens"), 3);
    // Nothing is outstanding, so the request fails before it waits for a token.
    let error = fetcher.fetch(request_with_cost(4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
}

#[tokio::test(start_paused = true)]
async fn panic_in_the_settle_function_fails_only_its_request() {
    let mock = Mock::new().fallback(MockResponse::from_fn(|request: &MockRequest| {
        MockResponse::text(request.uri().path().trim_start_matches('/'))
    }));
    let budget = Budget::total("tokens", 1_000).settle(|response| {
        let number = body_number(response)?;
        assert_ne!(number, 3, "a panic in `settle`");
        Some(number)
    });
    let fetcher = fetcher_with_budget(&mock, budget);
    let results = fetcher
        .gather(requests_with_cost("a", 10, "tokens", 20))
        .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    let error = results[3].as_ref().unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.url(),
            error.maybe_sent(),
            error.attempts().len()
        ),
        (ErrorKind::Panicked, Some("http://a.example/3"), true, 1)
    );
    assert!(error.to_string().contains("`settle`"), "{error}");
    assert_eq!(error.response().unwrap().text(), "3");
    // The cost of that request is the estimate.
    let actual: i64 = (0..10).map(|n| if n == 3 { 20 } else { n }).sum();
    assert_eq!(budget_level(&fetcher, "tokens"), 1_000 - actual);
}

#[tokio::test(start_paused = true)]
async fn settle_function_sees_every_response_and_no_streamed_body() {
    let mock = Mock::new()
        .on("*", MockResponse::status(503).body("11"))
        .then(
            MockResponse::status(302)
                .header("location", "/next")
                .body("22"),
        )
        .then("33");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let budget = Budget::total("tokens", 1_000).settle(move |response| {
        let text = response.text().into_owned();
        record
            .lock()
            .unwrap()
            .push((response.status().as_u16(), text));
        Some(5)
    });
    let fetcher = builder(&mock).budget(budget).build().unwrap();
    fetcher.fetch(request_with_cost(6)).await.unwrap();
    let statuses: Vec<u16> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(status, _)| *status)
        .collect();
    assert_eq!(statuses, [503, 302, 200]);
    assert_eq!(seen.lock().unwrap()[2].1, "33");
    assert_eq!(budget_level(&fetcher, "tokens"), 1_000 - 3 * 5);

    let batch = fetcher.batch([request_with_cost(6)]);
    let texts = batch.read_with(|mut body| async move {
        let mut text = Vec::new();
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk?);
        }
        Ok(text)
    });
    assert_eq!(texts.gather().await.pop().unwrap().unwrap(), b"33");
    assert_eq!(*seen.lock().unwrap().last().unwrap(), (200, String::new()));
    assert_eq!(budget_level(&fetcher, "tokens"), 1_000 - 4 * 5);
}
