//! Response bodies that a handler reads as they arrive.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::body_streams::{
    CHUNK_SIZE, ChunkCounter, IntervalStream, StreamEnd, chunk_stream, interval_bytes,
};
use crate::support::server::{FaultServer, pattern_bytes};
use fanout::{
    Attempt, Body, BoxError, Error, ErrorKind, Fetcher, Outcome, Request, Result, Retry,
    StreamingResponse, Timeouts, Timings,
};
use tokio::time::sleep;

async fn body_length(mut body: StreamingResponse) -> Result<usize, BoxError> {
    let mut length = 0;
    while let Some(chunk) = body.next().await {
        length += chunk?.len();
    }
    Ok(length)
}

fn fetcher_with_short_backoff() -> Fetcher {
    let retry = Retry::default()
        .base_delay(Duration::from_millis(1))
        .throttled_base_delay(Duration::from_millis(1));
    Fetcher::builder().retry(retry).build().unwrap()
}

/// A `Fetcher` whose transport responds with the body from `body`.
fn fetcher_with_body(
    body: impl Fn() -> Body + Clone + Send + Sync + 'static,
    timeouts: Timeouts,
) -> Fetcher {
    let app = axum::Router::new().fallback(move || {
        let body = body();
        async move { axum::body::Body::new(body) }
    });
    Fetcher::builder()
        .transport(app)
        .timeouts(timeouts)
        .build()
        .unwrap()
}

#[tokio::test]
async fn every_batch_method_returns_the_handler_result() {
    let server = FaultServer::start();
    let urls: Vec<String> = [300_000, 0, 7]
        .iter()
        .map(|n| server.url(&format!("/big/{n}")))
        .collect();
    let fetcher = Fetcher::new();
    let gathered = fetcher.batch(&urls).read_with(body_length).gather().await;
    let gathered: Vec<usize> = gathered.into_iter().map(Result::unwrap).collect();
    assert_eq!(gathered, [300_000, 0, 7]);
    let tried = fetcher
        .batch(&urls)
        .read_with(body_length)
        .concurrency(2)
        .try_gather()
        .await;
    assert_eq!(tried.unwrap(), [300_000, 0, 7]);
    let mut in_order = fetcher.batch(&urls).read_with(body_length).in_order();
    let mut as_completed = fetcher
        .batch(urls.iter().map(|url| (url.len(), url)))
        .read_with(body_length)
        .as_completed();
    for expected in [300_000, 0, 7] {
        assert_eq!(in_order.next().await.unwrap().result.unwrap(), expected);
        let completed = as_completed.next().await.unwrap();
        assert_eq!(completed.tag, urls[completed.index].len());
        assert!(completed.timings().response_head() > Duration::ZERO);
        assert_eq!(completed.result.unwrap(), [300_000, 0, 7][completed.index]);
    }
    assert!(in_order.next().await.is_none() && as_completed.next().await.is_none());
    let fetch = fetcher.fetch(&urls[0]).read_with(body_length);
    assert_eq!(tokio::spawn(fetch).await.unwrap().unwrap(), 300_000);
}

#[tokio::test]
async fn handler_receives_head_and_body_and_the_connection_is_reused() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for path in ["/bytes/200000", "/big/200000"] {
        let read = fetcher
            .fetch(server.url(path))
            .read_with(|mut body| async move {
                let length = body.length();
                assert_eq!((body.status().as_u16(), body.headers().len()), (200, 1));
                let mut bytes = Vec::new();
                while let Some(chunk) = body.next().await {
                    bytes.extend_from_slice(&chunk?);
                }
                assert!(body.next().await.is_none());
                Ok((body.url().path().to_owned(), length, bytes))
            });
        let (seen, length, bytes) = read.await.unwrap();
        assert_eq!(seen, path);
        assert_eq!(length, path.starts_with("/bytes").then_some(200_000));
        assert!(bytes == pattern_bytes(200_000));
    }
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn unread_body_closes_its_connection() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for _ in 0..2 {
        let status = fetcher
            .fetch(server.url("/big/3000000"))
            .read_with(|body| async move { Ok(body.status()) });
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!(server.counts().total_connections, 2);
}

#[tokio::test]
async fn handler_runs_after_retries_and_redirects() {
    let server = FaultServer::start();
    let calls = Arc::new(AtomicUsize::new(0));
    for (path, requests, status) in [
        ("/flaky/a/2/503", 3, 200),
        ("/flaky/b/2/reset-before", 3, 200),
        ("/hops/3", 4, 200),
        ("/status/503", 3, 503),
        ("/gone", 1, 410),
    ] {
        server.reset();
        calls.store(0, SeqCst);
        let counted = Arc::clone(&calls);
        let seen = fetcher_with_short_backoff()
            .fetch(server.url(path))
            .read_with(move |body| {
                counted.fetch_add(1, SeqCst);
                async move { Ok(body.status().as_u16()) }
            });
        assert_eq!(seen.await.unwrap(), status, "{path}");
        assert_eq!(
            (calls.load(SeqCst), server.counts().requests),
            (1, requests),
            "{path}"
        );
    }
}

#[tokio::test]
async fn request_is_not_retried_after_the_handler_starts() {
    let server = FaultServer::start();
    for (path, kind) in [
        ("/truncated", ErrorKind::Truncated),
        ("/truncated-chunks", ErrorKind::Truncated),
        ("/reset-after-head", ErrorKind::Reset),
    ] {
        server.reset();
        let error = fetcher_with_short_backoff()
            .fetch(server.url(path))
            .read_with(body_length)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{path}");
        assert_eq!((error.attempts().len(), server.counts().requests), (1, 1));
        assert_eq!(error.url(), Some(&*server.url(path)));
    }
}

#[tokio::test]
async fn handler_error_or_panic_fails_its_own_input() {
    let server = FaultServer::start();
    let urls = ["/ok/0", "/ok/1", "/ok/2", "/ok/3", "/gone"].map(|path| server.url(path));
    let results = Fetcher::new().batch(&urls).read_with(|body| {
        let number = body.url().path().chars().last();
        assert_ne!(number, Some('0'), "before the first await");
        async move {
            match number {
                Some('1') => {
                    sleep(Duration::from_millis(1)).await;
                    panic!("after the first await")
                }
                Some('2') => Err("rejected by the handler".into()),
                _ => body_length(body.error_for_status()?).await,
            }
        }
    });
    let results = results.gather().await;
    let error = |at: usize| results[at].as_ref().unwrap_err();
    assert_eq!(error(0).kind(), ErrorKind::Panicked);
    assert!(error(0).to_string().contains("before the first await"));
    assert_eq!(error(1).kind(), ErrorKind::Panicked);
    assert_eq!(error(2).kind(), ErrorKind::Handler);
    assert_eq!(
        error(2).source().unwrap().to_string(),
        "rejected by the handler"
    );
    assert_eq!(error(2).attempts().len(), 1);
    assert!(results[3].as_ref().is_ok_and(|length| *length > 0));
    assert_eq!(error(4).kind(), ErrorKind::Status);
    assert_eq!(error(4).response().unwrap().status(), 410);
    assert_eq!(error(4).attempts().len(), 1);
}

#[tokio::test]
async fn error_of_another_request_is_a_handler_error() {
    let server = FaultServer::start();
    let other = Fetcher::new();
    let error = Fetcher::new()
        .fetch(server.url("/ok/1"))
        .read_with(move |_| {
            let other = other.clone();
            async move { Ok(other.fetch("not a url").await?) }
        });
    let error = error.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert!(error.source().unwrap().is::<Error>());
}

#[tokio::test]
async fn dropping_a_batch_drops_running_handlers_and_starts_no_other() {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let server = FaultServer::start();
    let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&running), Arc::clone(&started));
    let urls = (0..64).map(|n| server.url(&format!("/delay/{}/stall-body", n * 4)));
    let batch = Fetcher::new().batch(urls).read_with(move |body| {
        counts.0.fetch_add(1, SeqCst);
        counts.1.fetch_add(1, SeqCst);
        let guard = Guard(Arc::clone(&counts.0));
        async move {
            let _guard = guard;
            body_length(body).await
        }
    });
    let mut done = batch.as_completed();
    let eight_started = async {
        while started.load(SeqCst) < 8 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = done.next() => panic!("every body is stalled"),
        () = eight_started => {}
    }
    drop(done);
    let before = started.load(SeqCst);
    server.wait_for_in_flight(0).await;
    assert_eq!(started.load(SeqCst), before);
    while running.load(SeqCst) > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_dropped_fetch_drops_its_handler() {
    let server = FaultServer::start();
    let (alive, watched) = (Arc::new(()), Arc::new(()));
    let inside = Arc::clone(&alive);
    let fetch = Fetcher::new()
        .fetch(server.url("/stall-body"))
        .read_with(move |body| {
            let inside = Arc::clone(&inside);
            async move {
                let _inside = inside;
                body_length(body).await
            }
        });
    drop(watched);
    let task = tokio::spawn(fetch);
    while Arc::strong_count(&alive) < 3 {
        sleep(Duration::from_millis(1)).await;
    }
    task.abort();
    while Arc::strong_count(&alive) > 1 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_exclude_handler_time_and_include_peer_time() {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::default().total(second).body_idle(10 * second);
    let slow_peer = |every_secs: u32| {
        fetcher_with_body(
            move || Body::stream(interval_bytes(every_secs * second, 4)),
            timeouts.clone(),
        )
    };
    let slow_handler = |mut body: StreamingResponse| async move {
        let mut chunks = 0;
        while let Some(chunk) = body.next().await {
            chunk?;
            chunks += 1;
            sleep(Duration::from_secs(3600)).await;
        }
        Ok(chunks)
    };
    let request = || Request::get("http://a.example/").timeout(second);
    let chunks = slow_peer(9).fetch(request()).read_with(slow_handler).await;
    assert_eq!(chunks.unwrap(), 4);
    let error = slow_peer(11)
        .fetch(request())
        .read_with(slow_handler)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::BodyIdleTimeout, 1)
    );
    let results = slow_peer(9)
        .batch([request()])
        .deadline(60 * second)
        .read_with(slow_handler)
        .gather()
        .await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn deadline_before_a_retry_keeps_the_last_response() {
    let app = axum::Router::new().fallback(|| async {
        (
            http::StatusCode::SERVICE_UNAVAILABLE,
            [("retry-after", "100")],
        )
    });
    let fetcher = Fetcher::builder().transport(app).build().unwrap();
    let batch = fetcher
        .batch(["http://a.example/"])
        .deadline(Duration::from_secs(10));
    let results = batch.read_with(body_length).gather().await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert_eq!(error.response().unwrap().status(), 503);
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn body_used_outside_its_handler_yields_one_error() {
    let server = FaultServer::start();
    let leaked = Fetcher::new()
        .fetch(server.url("/big/3000000"))
        .read_with(|body| async { Ok(body) });
    let mut leaked = leaked.await.unwrap();
    assert_eq!(
        leaked.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert!(leaked.next().await.is_none());
}

#[tokio::test]
async fn a_handler_may_read_in_another_task() {
    let server = FaultServer::start();
    let read = Fetcher::new()
        .fetch(server.url("/big/500000"))
        .read_with(|body| async { tokio::spawn(body_length(body)).await.unwrap() });
    assert_eq!(read.await.unwrap(), 500_000);
}

#[tokio::test]
async fn handler_holds_the_slot_until_it_returns() {
    let server = FaultServer::start();
    let (running, max_running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&running), Arc::clone(&max_running));
    let urls = vec![server.url("/ok/1"); 12];
    let results = Fetcher::new()
        .batch(urls)
        .concurrency(3)
        .read_with(move |body| {
            let (running, max_running) = counts.clone();
            async move {
                max_running.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                let length = body_length(body).await;
                sleep(Duration::from_millis(50)).await;
                running.fetch_sub(1, SeqCst);
                length
            }
        });
    assert!(results.gather().await.iter().all(Result::is_ok));
    assert_eq!(max_running.load(SeqCst), 3);
}

#[tokio::test]
async fn large_bodies_are_streamed_with_few_chunks_in_memory() {
    let chunks = ChunkCounter::default();
    let counter = chunks.clone();
    let body = move || {
        let counter = counter.clone();
        Body::stream(IntervalStream::new(Duration::ZERO, 256, move || {
            counter.make_chunk()
        }))
    };
    let fetcher = fetcher_with_body(body, Timeouts::default());
    let urls = (0..1000).map(|n| format!("http://a.example/{n}"));
    let mut done = fetcher
        .batch(urls)
        .concurrency(8)
        .read_with(body_length)
        .as_completed();
    while let Some(completed) = done.next().await {
        assert_eq!(completed.result.unwrap(), 256 * CHUNK_SIZE);
    }
    let max_alive = chunks.max_alive();
    assert!(max_alive <= 2 * 8, "{max_alive}");
}

#[tokio::test]
async fn a_body_cannot_be_both_saved_and_read() {
    let request = Request::get("http://127.0.0.1:1/").save_to("never");
    let error = Fetcher::new()
        .fetch(request)
        .read_with(body_length)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("read by a handler"), "{error}");
}

#[tokio::test]
async fn request_body_error_precedes_the_handler() {
    let server = FaultServer::start();
    let request =
        Request::put(server.url("/ok/1")).body(Body::stream(chunk_stream(&["a"], StreamEnd::Fail)));
    let error = Fetcher::new()
        .fetch(request)
        .read_with(body_length)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
}

#[tokio::test]
async fn streaming_response_has_the_attempts_redirects_and_timings_until_the_handler() {
    let server = FaultServer::start();
    let retry = Retry::default().base_delay(Duration::from_millis(20));
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    for (path, statuses, redirects) in [
        ("/ok/1", &[200][..], 0),
        ("/flaky/read/2/500", &[500, 500, 200], 0),
        ("/redirect/302?to=/ok/1", &[200], 1),
        ("/status/404", &[404], 0),
    ] {
        let url = server.url(path);
        let read = fetcher.fetch(&url).read_with(|mut response| async move {
            let history = (
                response.attempts().to_vec(),
                response.redirects().len(),
                response.timings(),
            );
            while let Some(chunk) = response.next().await {
                chunk?;
            }
            Ok(history)
        });
        let (attempts, redirect_count, timings) = read.await.unwrap();
        let expected: Vec<_> = statuses
            .iter()
            .map(|status| Outcome::Status(http::StatusCode::from_u16(*status).unwrap()))
            .collect();
        let outcomes: Vec<_> = attempts.iter().map(Attempt::outcome).collect();
        assert_eq!(outcomes, expected, "{path}");
        assert_eq!(redirect_count, redirects, "{path}");
        assert!(timings.response_head() > Duration::ZERO, "{path}");
        let sum: Timings = attempts.iter().map(Attempt::timings).sum();
        assert_eq!(timings, sum, "{path}");
    }
}

#[tokio::test]
async fn error_for_status_in_a_handler_has_each_attempt_once() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    let fetch = fetcher.fetch(server.url("/status/404"));
    let read = fetch.read_with(|response| async move { Ok(response.error_for_status()?.status()) });
    let error = read.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status);
    assert_eq!(error.attempts().len(), 1);
}
