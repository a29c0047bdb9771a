//! The order of results, and the look-ahead window of inputs.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::server::FaultServer;
use fanout::{ErrorKind, Fetcher, Rate, Retry};
use futures_core::Stream;

/// The initial look-ahead window per unit of concurrency.
const WINDOW_PER_SLOT: usize = 16;

fn one_stalled_then_healthy(server: &FaultServer, count: usize) -> Vec<String> {
    let healthy = (1..count).map(|n| server.url(&format!("/ok/{n}")));
    std::iter::once(server.url("/stall-head"))
        .chain(healthy)
        .collect()
}

#[tokio::test]
async fn in_order_yields_a_slow_first_input_first() {
    let server = FaultServer::start();
    let urls = one_stalled_then_healthy(&server, 100);
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(&urls)
        .concurrency(10)
        .retry(Retry::off())
        .in_order();
    tokio::select! {
        _ = results.next() => panic!("the first request is stalled"),
        _ = server.wait_until(|counts| counts.requests == 100 && counts.in_flight == 1) => {}
    }
    server.close_connections().await;
    for expected_index in 0..100 {
        let completed = results.next().await.expect("one result per input");
        assert_eq!(completed.index, expected_index);
        assert_eq!(completed.result.is_err(), expected_index == 0);
    }
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn as_completed_yields_a_slow_first_input_last() {
    let server = FaultServer::start();
    let urls = one_stalled_then_healthy(&server, 100);
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(&urls)
        .concurrency(10)
        .retry(Retry::off())
        .as_completed();
    let mut healthy = HashSet::new();
    for _ in 1..100 {
        let completed = results.next().await.expect("one result per input");
        completed.result.unwrap();
        healthy.insert(completed.index);
    }
    assert_eq!(healthy, (1..100).collect());
    server.wait_for_in_flight(1).await;
    server.close_connections().await;
    let last = results.next().await.expect("one result per input");
    assert_eq!(last.index, 0);
    assert_eq!(last.result.unwrap_err().kind(), ErrorKind::Closed);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn concurrency_of_one_keeps_the_input_order() {
    let server = FaultServer::start();
    let urls: Vec<String> = (0..50).map(|n| server.url(&format!("/ok/{n}"))).collect();
    let fetcher = Fetcher::new();
    let mut results = fetcher.batch(&urls).concurrency(1).as_completed();
    for expected_index in 0..50 {
        assert_eq!(
            results.next().await.expect("one result per input").index,
            expected_index
        );
    }
    assert_eq!(server.counts().max_in_flight, 1);
    let paths: Vec<String> = server.log().into_iter().map(|entry| entry.path).collect();
    let expected: Vec<String> = (0..50).map(|n| format!("/ok/{n}")).collect();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn endless_iterator_is_read_no_further_than_the_window() {
    let server = FaultServer::start();
    let pulled = AtomicUsize::new(0);
    let urls = (0..).map(|n: u64| {
        pulled.fetch_add(1, Relaxed);
        server.url(&format!("/ok/{n}"))
    });
    let fetcher = Fetcher::new();
    let mut results = fetcher.batch(urls).concurrency(4).as_completed();
    for delivered in 1..=500 {
        results
            .next()
            .await
            .expect("an endless batch")
            .result
            .unwrap();
        let ahead = pulled.load(Relaxed) - delivered;
        assert!(ahead <= 4 * WINDOW_PER_SLOT, "{ahead} ahead");
    }
    assert!(server.counts().max_in_flight <= 4);
}

#[tokio::test]
async fn gather_pulls_an_input_only_when_the_window_has_room() {
    let server = FaultServer::start();
    let urls = (0..1000).map(|n| {
        let max_completed = server.counts().requests;
        assert!(n < max_completed + 4 * WINDOW_PER_SLOT, "input {n}");
        server.url(&format!("/ok/{n}"))
    });
    let results = Fetcher::new().batch(urls).concurrency(4).gather().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1000);
}

#[tokio::test]
async fn results_buffered_by_in_order_count_in_the_window() {
    let server = FaultServer::start();
    let pulled = AtomicUsize::new(0);
    let urls = one_stalled_then_healthy(&server, 1000)
        .into_iter()
        .inspect(|_| {
            pulled.fetch_add(1, Relaxed);
        });
    let fetcher = Fetcher::new();
    let mut results = fetcher.batch(urls).concurrency(4).in_order();
    tokio::select! {
        _ = results.next() => panic!("the first request is stalled"),
        _ = server.wait_until(|counts| {
            counts.requests == 4 * WINDOW_PER_SLOT && counts.in_flight == 1
        }) => {}
    }
    assert_eq!(pulled.load(Relaxed), 4 * WINDOW_PER_SLOT);
}

#[tokio::test]
async fn rate_limited_host_grows_the_window_up_to_look_ahead() {
    let server = FaultServer::start();
    let pulled = AtomicUsize::new(0);
    let urls = (0..).map(|n: u64| {
        pulled.fetch_add(1, Relaxed);
        server.url(&format!("/ok/{n}"))
    });
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(urls)
        .concurrency(4)
        .look_ahead(300)
        .rate_per_host(Rate::per_hour(1))
        .as_completed();
    results.next().await.expect("the first").result.unwrap();
    let mut next = std::pin::pin!(results.next());
    std::future::poll_fn(|cx| {
        assert!(next.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    // The window grew to 300 inputs in search of other hosts, after one delivered result.
    assert_eq!(pulled.load(Relaxed), 301);
    assert_eq!(server.counts().requests, 1);
}

/// An endless stream of inputs that counts its polls.
struct CountingStream {
    polls: Arc<AtomicUsize>,
    first: Option<String>,
    rest: String,
}

impl Stream for CountingStream {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<String>> {
        self.polls.fetch_add(1, Relaxed);
        let first = self.first.take();
        Poll::Ready(Some(first.unwrap_or_else(|| self.rest.clone())))
    }
}

#[tokio::test]
async fn stream_is_not_polled_while_the_window_is_full() {
    let server = FaultServer::start();
    let polls = Arc::new(AtomicUsize::new(0));
    let inputs = CountingStream {
        polls: Arc::clone(&polls),
        first: Some(server.url("/stall-head")),
        rest: server.url("/ok/1"),
    };
    let fetcher = Fetcher::new();
    let mut results = fetcher.batch_from_stream(inputs).concurrency(4).in_order();
    // Each result wakes the consumer, which still waits for the first one.
    tokio::select! {
        _ = results.next() => panic!("the first request is stalled"),
        _ = server.wait_until(|counts| {
            counts.requests == 4 * WINDOW_PER_SLOT && counts.in_flight == 1
        }) => {}
    }
    let next_result = tokio::time::timeout(Duration::from_millis(1), results.next());
    assert!(next_result.await.is_err());
    assert_eq!(polls.load(Relaxed), 4 * WINDOW_PER_SLOT);
}

#[tokio::test]
async fn channel_inputs_complete_as_they_arrive() {
    let server = FaultServer::start();
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch_from_channel(receive)
        .concurrency(4)
        .as_completed();
    for n in 0..20 {
        send.send(server.url(&format!("/ok/{n}"))).unwrap();
        let completed = results.next().await.expect("a result");
        assert_eq!(completed.index, n);
        completed.result.unwrap();
    }
    drop(send);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn bounded_channel_stops_its_sender_until_results_are_taken() {
    let server = FaultServer::start();
    let url = server.url("/ok/1");
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let sent = Arc::new(AtomicUsize::new(0));
    let sent_count = Arc::clone(&sent);
    let sender = tokio::spawn(async move {
        for n in 0..100 {
            send.send((n, url.clone())).await.unwrap();
            sent_count.fetch_add(1, Relaxed);
        }
    });
    let batch = Fetcher::new().batch_from_channel(receive);
    let mut results = batch.concurrency(4).look_ahead(8).as_completed();
    let mut tags = Vec::new();
    while let Some(completed) = results.next().await {
        completed.result.unwrap();
        tags.push(completed.tag);
        // The window, the channel's place, and the result that was just taken.
        assert!(sent.load(Relaxed) <= tags.len() + 8 + 1);
    }
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..100));
    sender.await.unwrap();
}
