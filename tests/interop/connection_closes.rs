//! Connection closes, rate limits, reloads and restarts, with nginx.

use std::process::Command;
use std::time::Duration;

use fanout::{Breaker, ErrorKind, Fetcher, Rate, Request, Retry};
use tokio::time::sleep;

use crate::endpoint::{Endpoint, header, state_dir};
use crate::suite::Suite;

pub async fn run(suite: &mut Suite, endpoint: &Endpoint) {
    let endpoint = *endpoint;
    suite
        .case(
            &endpoint,
            "closed after each response",
            closed_after_each_response(endpoint),
        )
        .await;
    suite
        .case(
            &endpoint,
            "closed after ten responses",
            closed_after_ten_responses(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "closed while idle", closed_while_idle(endpoint))
        .await;
    suite
        .case(
            &endpoint,
            "POST after idle connections closed",
            post_after_idle_close(endpoint),
        )
        .await;
    for status in [429, 503] {
        suite
            .case(
                &endpoint,
                &format!("{status} with Retry-After"),
                rejected_with_retry_after(endpoint, status),
            )
            .await;
    }
    suite
        .case(
            &endpoint,
            "reloaded during a batch",
            reloaded_during_batch(endpoint),
        )
        .await;
    suite
        .case(
            &endpoint,
            "terminated and restarted during a batch",
            restarted_during_batch(endpoint),
        )
        .await;
    suite.case(&endpoint, "stopped", stopped(endpoint)).await;
}

/// Asserts that `count` requests all succeed on the first attempt.
async fn assert_all_succeed_on_first_attempt(
    endpoint: Endpoint,
    fetcher: &Fetcher,
    path: &str,
    count: usize,
    concurrency: usize,
) {
    let urls = (0..count).map(|_| endpoint.url(path));
    for result in fetcher.batch(urls).concurrency(concurrency).gather().await {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        assert_eq!(response.attempts().len(), 1);
    }
}

async fn closed_after_each_response(endpoint: Endpoint) {
    assert_all_succeed_on_first_attempt(
        endpoint,
        &endpoint.fetcher(),
        "/closing/small.txt",
        200,
        8,
    )
    .await;
}

async fn closed_after_ten_responses(endpoint: Endpoint) {
    let fetcher = endpoint.builder().retry(Retry::off()).build().unwrap();
    assert_all_succeed_on_first_attempt(endpoint, &fetcher, "/ten-requests/small.txt", 500, 8)
        .await;
}

async fn closed_while_idle(endpoint: Endpoint) {
    let fetcher = endpoint.builder().retry(Retry::off()).build().unwrap();
    for pause in [0, 290, 300, 310, 900] {
        sleep(Duration::from_millis(pause)).await;
        assert_all_succeed_on_first_attempt(
            endpoint,
            &fetcher,
            "/short-keep-alive/small.txt",
            32,
            16,
        )
        .await;
    }
}

async fn post_after_idle_close(endpoint: Endpoint) {
    let fetcher = endpoint.builder().retry(Retry::off()).build().unwrap();
    assert_all_succeed_on_first_attempt(endpoint, &fetcher, "/short-keep-alive/small.txt", 16, 16)
        .await;
    // The client sees each close during this pause, so it uses no closed connection.
    sleep(Duration::from_millis(1500)).await;
    let requests = (0..16).map(|n| Request::post(endpoint.url("/app/echo")).body(format!("{n}")));
    for (n, result) in fetcher.gather(requests).await.into_iter().enumerate() {
        assert_eq!(result.unwrap().text(), n.to_string());
    }
}

async fn rejected_with_retry_after(endpoint: Endpoint, status: u16) {
    let url = endpoint.url(&format!("/limited/{status}/small.txt"));
    let fetcher_without_retry = endpoint.builder().retry(Retry::off()).build().unwrap();
    let rejected = fetcher_without_retry.gather((0..40).map(|_| &url)).await;
    let rejected: Vec<_> = rejected
        .into_iter()
        .map(Result::unwrap)
        .filter(|response| response.status() == status)
        .collect();
    assert!(!rejected.is_empty(), "the server never rejected a request");
    for response in rejected {
        assert_eq!(response.retry_after(), Some(Duration::from_secs(1)));
        assert!(!response.text().is_empty());
    }
    let retry = Retry::default()
        .max_retries(30)
        .throttled_base_delay(Duration::from_millis(50));
    let fetcher_with_retry = endpoint.builder().retry(retry).build().unwrap();
    let mut retries = 0;
    for result in fetcher_with_retry.gather((0..40).map(|_| &url)).await {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        retries += response.attempts().len() - 1;
    }
    assert!(retries > 0, "no request was retried");
}

fn signal_nginx(name: &str) {
    let pid = std::fs::read_to_string(state_dir().join("nginx.pid")).unwrap();
    let kill = Command::new("kill").args([name, pid.trim()]).status();
    assert!(kill.unwrap().success());
}

/// Starts nginx with the command that `scripts/interop` recorded.
fn start_nginx() {
    let mut command = Command::new("setsid");
    command
        .args(["--fork", "sh"])
        .arg(state_dir().join("nginx.run"))
        .current_dir(state_dir());
    assert!(command.status().unwrap().success());
}

async fn wait_until_listening(endpoint: Endpoint) {
    let fetcher_without_retry = endpoint.builder().retry(Retry::off()).build().unwrap();
    while fetcher_without_retry
        .fetch(endpoint.url("/small.txt"))
        .await
        .is_err()
    {
        sleep(Duration::from_millis(50)).await;
    }
}

fn retrying_fetcher(endpoint: Endpoint) -> Fetcher {
    let retry = Retry::default()
        .max_retries(30)
        .max_delay(Duration::from_millis(400));
    // The server restarts within a second, so the default cooldown of 15 s is too long.
    let breaker = Breaker::default().cooldown(Duration::from_millis(200));
    let builder = endpoint.builder().retry(retry).breaker(breaker);
    builder.build().unwrap()
}

/// Runs a batch for two seconds while `disturbance` runs. Returns the number of retries.
async fn retries_during(
    endpoint: Endpoint,
    disturbance: impl Future<Output = ()> + Send + 'static,
) -> usize {
    let fetcher = retrying_fetcher(endpoint);
    // Every tenth response is large, so that some responses are always in flight.
    let file = |n| {
        if n % 10 == 0 {
            ("/1m.txt", 1_000_000)
        } else {
            ("/small.txt", 80)
        }
    };
    let requests = (0..1000)
        .map(|n| Request::get(endpoint.url(file(n).0)).header("accept-encoding", "identity"));
    let batch = fetcher
        .batch(requests)
        .concurrency(16)
        .rate(Rate::per_second(500))
        .gather();
    let (results, ()) = tokio::join!(batch, disturbance);
    let retries = results.into_iter().enumerate().map(|(n, result)| {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, file(n).1);
        response.attempts().len() - 1
    });
    retries.sum()
}

async fn reloaded_during_batch(endpoint: Endpoint) {
    let retries = retries_during(endpoint, async {
        for _ in 0..3 {
            sleep(Duration::from_millis(400)).await;
            signal_nginx("-HUP");
        }
    });
    // The old workers finish their responses. A few requests may be sent on a closing connection.
    assert!(retries.await < 50);
}

async fn restarted_during_batch(endpoint: Endpoint) {
    let retries = retries_during(endpoint, async {
        sleep(Duration::from_millis(500)).await;
        signal_nginx("-TERM");
        sleep(Duration::from_millis(500)).await;
        start_nginx();
    });
    assert!(retries.await > 0, "no request met a stopped server");
}

async fn stopped(endpoint: Endpoint) {
    let builder = endpoint.builder().retry(Retry::off());
    let fetcher = builder.breaker(Breaker::off()).build().unwrap();
    assert_all_succeed_on_first_attempt(endpoint, &fetcher, "/small.txt", 8, 8).await;
    signal_nginx("-TERM");
    while fetcher.fetch(endpoint.url("/small.txt")).await.is_ok() {
        sleep(Duration::from_millis(50)).await;
    }
    for result in fetcher
        .gather((0..50).map(|_| endpoint.url("/small.txt")))
        .await
    {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.maybe_sent()),
            (ErrorKind::Connect, false)
        );
    }
    start_nginx();
    wait_until_listening(endpoint).await;
    assert_eq!(
        header(
            &fetcher.fetch(endpoint.url("/small.txt")).await.unwrap(),
            "content-type"
        ),
        "text/plain"
    );
}
