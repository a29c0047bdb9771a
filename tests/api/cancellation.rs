//! A batch that is dropped, fails or meets its deadline closes its connections and frees its
//! limits.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::support::server::{FaultServer, expected_body, refused_url};
use fanout::{ErrorKind, Fetcher, Rate, Retry};

fn stalled_urls(server: &FaultServer, count: usize) -> Vec<String> {
    (0..count).map(|_| server.url("/stall-head")).collect()
}

fn ok_urls(server: &FaultServer, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| server.url(&format!("/ok/{n}")))
        .collect()
}

/// Checks that all slots are free, with a batch that needs them all.
async fn assert_limits_are_free(fetcher: &Fetcher, server: &FaultServer) {
    for (n, result) in fetcher.gather(ok_urls(server, 30)).await.iter().enumerate() {
        let response = result.as_ref().unwrap();
        assert_eq!(response.bytes()[..], expected_body(n as u64));
    }
}

async fn wait_until_disconnected(server: &FaultServer) {
    server.wait_for_in_flight(0).await;
    server.wait_for_open_connections(0).await;
}

fn fetcher_with_10_slots() -> Fetcher {
    Fetcher::builder().concurrency(10).build().unwrap()
}

#[tokio::test]
async fn dropping_gather_closes_connections_and_frees_limits() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let batch = fetcher.gather(stalled_urls(&server, 100));
    tokio::select! {
        _ = batch => panic!("nothing is ever answered"),
        _ = server.wait_for_in_flight(10) => {}
    }
    wait_until_disconnected(&server).await;
    assert_eq!(server.counts().requests, 10);
    assert_limits_are_free(&fetcher, &server).await;
}

#[tokio::test]
async fn dropping_a_result_stream_closes_connections_and_frees_limits() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let inputs = |server: &FaultServer| {
        let mut inputs = stalled_urls(server, 100);
        inputs[0] = server.url("/ok/1");
        inputs
    };
    let mut completed = fetcher.as_completed(inputs(&server));
    completed.next().await.expect("one").result.unwrap();
    server.wait_for_in_flight(10).await;
    drop(completed);
    wait_until_disconnected(&server).await;

    let mut in_order = fetcher.batch(inputs(&server)).in_order();
    in_order.next().await.expect("one").result.unwrap();
    server.wait_for_in_flight(10).await;
    drop(in_order);
    wait_until_disconnected(&server).await;
    assert_limits_are_free(&fetcher, &server).await;
}

#[tokio::test]
async fn dropping_a_fetch_closes_its_connection_and_frees_its_slot() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().concurrency(1).build().unwrap();
    let on_the_wire = fetcher.fetch(server.url("/stall-body"));
    let mut queued = pin!(fetcher.fetch(server.url("/ok/1")));
    tokio::select! {
        biased;
        _ = on_the_wire => panic!("its body never ends"),
        _ = &mut queued => panic!("there is one place, and it is taken"),
        _ = server.wait_for_in_flight(1) => {}
    }
    // The select has dropped the first future.
    assert_eq!(queued.await.unwrap().bytes()[..], expected_body(1));
    server.wait_for_in_flight(0).await;
    // The idle connection of the second request.
    server.wait_for_open_connections(1).await;
}

#[tokio::test]
async fn dropping_a_batch_leaves_other_batches_running() {
    let server = FaultServer::start();
    let other = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let mut stays = pin!(
        fetcher
            .batch(stalled_urls(&other, 5))
            .retry(Retry::off())
            .gather()
    );
    let goes = fetcher.gather(stalled_urls(&server, 100));
    tokio::select! {
        biased;
        _ = &mut stays => panic!("nothing is answered yet"),
        _ = goes => panic!("nothing is ever answered"),
        _ = async { tokio::join!(server.wait_for_in_flight(5), other.wait_for_in_flight(5)) } => {}
    }
    wait_until_disconnected(&server).await;
    assert_eq!(other.counts().in_flight, 5);
    other.close_connections().await;
    for result in stays.await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn dropping_a_batch_that_waits_for_its_rate_removes_its_requests() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(ok_urls(&server, 100))
        .rate(Rate::per_hour(1))
        .as_completed();
    results.next().await.expect("the first").result.unwrap();
    poll_fn(|cx| {
        assert!(pin!(results.next()).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(results);
    assert_limits_are_free(&fetcher, &server).await;
    assert_eq!(server.counts().requests, 31);
}

#[tokio::test]
async fn try_gather_returns_the_first_error_and_cancels_the_rest() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let mut inputs = stalled_urls(&server, 100);
    inputs[9] = refused_url();
    let batch = fetcher.batch(inputs).retry(Retry::off());
    let error = batch.try_gather().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    wait_until_disconnected(&server).await;
    assert!(server.counts().requests <= 10);
    assert_limits_are_free(&fetcher, &server).await;
}

#[tokio::test]
async fn try_gather_returns_all_responses_in_input_order() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let responses = fetcher.batch(ok_urls(&server, 100)).try_gather().await;
    for (n, response) in responses.unwrap().iter().enumerate() {
        assert_eq!(response.bytes()[..], expected_body(n as u64));
    }
}

#[tokio::test]
async fn deadline_gives_every_input_a_result() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_10_slots();
    let limit = Duration::from_millis(300);
    let begun = Instant::now();
    let results = fetcher
        .batch(stalled_urls(&server, 1000))
        .deadline(limit)
        .gather()
        .await;
    assert!(begun.elapsed() >= limit);
    assert_eq!(results.len(), 1000);
    let errors: Vec<_> = results
        .into_iter()
        .map(|result| result.unwrap_err())
        .collect();
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::Deadline)
    );
    // At most ten were on the wire. The others had no attempt.
    let sent = errors.iter().filter(|error| error.maybe_sent()).count();
    let attempted = errors
        .iter()
        .filter(|error| !error.attempts().is_empty())
        .count();
    assert!(sent <= 10 && attempted <= 10, "{sent} {attempted}");
    wait_until_disconnected(&server).await;
    assert!(server.counts().requests <= 10);
    assert_limits_are_free(&fetcher, &server).await;
}

#[tokio::test]
async fn backoff_beyond_the_deadline_ends_with_the_last_result() {
    let server = FaultServer::start();
    let months = Duration::from_secs(10_000_000);
    let results = Fetcher::new()
        .batch([server.url("/close-before"), server.url("/status/503")])
        .retry(
            Retry::default()
                .throttled_base_delay(months)
                .base_delay(months)
                .max_delay(months),
        )
        .deadline(Duration::from_secs(100))
        .gather()
        .await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(results[1].as_ref().unwrap().status(), 503);
    assert_eq!(server.counts().requests, 2);
}

#[tokio::test]
async fn result_stream_pulls_no_inputs_after_the_deadline() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch((0..).map(|_: u64| server.url("/stall-head")))
        .concurrency(2)
        .deadline(Duration::from_millis(200))
        .as_completed();
    let mut taken = 0;
    while let Some(completed) = results.next().await {
        assert_eq!(completed.result.unwrap_err().kind(), ErrorKind::Deadline);
        taken += 1;
    }
    // The look-ahead window is 16 per slot, and each of its inputs gets a result.
    assert_eq!(taken, 32);
    wait_until_disconnected(&server).await;
}
