//! `BatchHandle` over real sockets and from other threads.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::support::body_streams::{TempDir, wait_until};
use crate::support::server::{FaultServer, expected_body};
use fanout::{
    BatchHandle, Error, ErrorKind, Fetcher, Progress, Rate, Request, Response, Result, Retry,
};
use tokio::runtime::{Builder, Runtime};

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// URLs that the server answers once it is told to.
fn held_urls(server: &FaultServer, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| server.url(&format!("/held/ok/{n}")))
        .collect()
}

fn stalled_urls(server: &FaultServer, count: usize) -> Vec<String> {
    (0..count).map(|_| server.url("/stall-body")).collect()
}

fn is_cancelled_before_start(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled && !error.maybe_sent() && error.attempts().is_empty()
}

/// Returns the number of successful results and checks that the others were never sent.
fn count_successes(results: &[Result<Response>]) -> usize {
    let is_whole = |(n, result): (usize, &Result<Response>)| match result {
        Ok(response) => {
            assert_eq!(response.bytes()[..], expected_body(n as u64));
            true
        }
        Err(error) => {
            assert!(is_cancelled_before_start(error), "{error:?}");
            false
        }
    };
    results
        .iter()
        .enumerate()
        .filter(|one| is_whole(*one))
        .count()
}

#[tokio::test]
async fn drain_finishes_requests_in_flight_and_starts_no_more() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let batch = fetcher.batch(held_urls(&server, 100)).concurrency(10);
    let handle = batch.handle();
    let drain = async {
        server.wait_for_in_flight(10).await;
        handle.drain();
        server.release_held();
        server.counts().requests
    };
    let (results, seen) = tokio::join!(batch.gather(), drain);
    assert_eq!((results.len(), count_successes(&results)), (100, seen));
    assert_eq!(server.counts().requests, seen);
    assert_eq!(seen, 10);
    let progress = handle.progress();
    assert_eq!(
        (
            progress.completed(),
            progress.succeeded(),
            progress.failed()
        ),
        (100, 10, 90)
    );
}

#[tokio::test]
async fn cancel_closes_connections_and_removes_partial_files() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let fetcher = Fetcher::new();
    let inputs = (0..20).map(|n| {
        let url = server.url("/stall-body");
        Request::get(url).save_to(directory.path(&n.to_string()))
    });
    let batch = fetcher.batch(inputs).concurrency(10);
    let handle = batch.handle();
    let cancel = async {
        // All ten have created their files.
        server.wait_for_in_flight(10).await;
        wait_until(|| directory.entry_names().len() >= 10).await;
        handle.cancel();
    };
    let results = tokio::join!(batch.gather(), cancel).0;
    let kinds = results
        .iter()
        .map(|result| result.as_ref().unwrap_err().kind());
    assert!(kinds.eq([ErrorKind::Cancelled; 20]));
    let unsent = results.iter().filter_map(|result| result.as_ref().err());
    assert_eq!(
        unsent
            .filter(|error| is_cancelled_before_start(error))
            .count(),
        10
    );
    server.wait_for_in_flight(0).await;
    server.wait_for_open_connections(0).await;
    wait_until(|| directory.entry_names().is_empty()).await;
}

#[tokio::test]
async fn cancel_ends_a_drain() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let batch = fetcher.batch(stalled_urls(&server, 20)).concurrency(5);
    let handle = batch.handle();
    let mut results = batch.as_completed();
    let order = async {
        server.wait_for_in_flight(5).await;
        handle.drain();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.counts().in_flight, 5);
        handle.cancel();
    };
    let read = async {
        let mut unsent = 0;
        while let Some(completed) = results.next().await {
            unsent += usize::from(is_cancelled_before_start(&completed.result.unwrap_err()));
        }
        unsent
    };
    assert_eq!(tokio::join!(read, order).0, 15);
    server.wait_for_open_connections(0).await;
    assert_eq!(server.counts().requests, 5);
}

#[tokio::test]
async fn cancel_host_leaves_other_hosts_connections_open() {
    let (given_up, kept) = (FaultServer::start(), FaultServer::start());
    let fetcher = Fetcher::new();
    let inputs = stalled_urls(&given_up, 5)
        .into_iter()
        .chain(held_urls(&kept, 5));
    let batch = fetcher.batch(inputs).retry(Retry::off());
    let handle = batch.handle();
    let order = async {
        given_up.wait_for_in_flight(5).await;
        kept.wait_for_in_flight(5).await;
        handle.cancel_host(given_up.origin()).unwrap();
        given_up.wait_for_open_connections(0).await;
        kept.release_held();
    };
    let results = tokio::join!(batch.gather(), order).0;
    assert!(results[..5].iter().all(Result::is_err));
    assert_eq!(count_successes(&results[5..]), 5);
}

#[tokio::test]
async fn snapshot_counts_batches_fetches_and_connections() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let now = fetcher.snapshot();
    assert_eq!((now.open_batches(), now.open_connections()), (0, 0));
    assert_eq!(now.progress().inputs_pulled(), 0);

    let one = fetcher.batch(stalled_urls(&server, 7)).concurrency(3);
    let other = fetcher.batch(stalled_urls(&server, 5)).concurrency(2);
    let fetches: Vec<_> = stalled_urls(&server, 4)
        .into_iter()
        .map(|url| tokio::spawn(fetcher.fetch(url)))
        .collect();
    let handles = [one.handle(), other.handle()];
    let look = async {
        server.wait_for_in_flight(3 + 2 + 4).await;
        let now = fetcher.snapshot();
        let work = now.progress();
        assert_eq!(now.open_batches(), 2);
        assert_eq!(
            (work.in_flight(), work.waiting().for_concurrency()),
            (9, 4 + 3)
        );
        assert_eq!(
            (work.inputs_pulled(), work.completed(), work.total()),
            (7 + 5 + 4, 0, None)
        );
        assert_eq!((now.open_connections(), now.idle_connections()), (9, 0));
        let [host] = work.busiest_hosts() else {
            panic!("there is one host: {work:?}")
        };
        assert_eq!(host.host(), server.origin());
        assert_eq!((host.waiting(), host.in_flight()), (7, 9));
        for handle in &handles {
            handle.cancel();
        }
    };
    let (one, other, ()) = tokio::join!(one.gather(), other.gather(), look);
    assert_eq!(one.len() + other.len(), 12);
    fetches.into_iter().for_each(|fetch| fetch.abort());
    server.wait_for_open_connections(0).await;

    fetcher.fetch(server.url("/ok/1")).await.unwrap();
    let now = fetcher.snapshot();
    let work = now.progress();
    // Dropped fetches are in no count.
    assert_eq!(
        (work.inputs_pulled(), work.succeeded(), work.failed()),
        (13, 1, 12)
    );
    assert_eq!(work.body_bytes(), expected_body(1).len() as u64);
    assert_eq!((now.open_batches(), now.idle_connections()), (0, 1));
    let line = now.to_string();
    assert!(line.starts_with("0 batches, 13 done (12 failed)"), "{line}");
}

/// Every snapshot of the progress adds up, and each input gets one result.
#[test]
fn random_control_from_threads_loses_no_result() {
    const INPUTS: usize = 2_000;
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let batch = fetcher
        .batch(ok_urls(&server, INPUTS))
        .concurrency(8)
        .look_ahead(100);
    let handle = batch.handle();
    let is_over = AtomicBool::new(false);
    let results = thread::scope(|scope| {
        for seed in 0..2 {
            let (handle, is_over) = (handle.clone(), &is_over);
            scope.spawn(move || {
                let mut random = seed;
                while !is_over.load(Relaxed) {
                    random = (random * 5 + 3) % 64;
                    match random % 8 {
                        0 => handle.pause(),
                        1 | 2 => handle.resume(),
                        3 => handle.set_concurrency(1 + random / 8),
                        4 => handle.set_rate(Rate::per_second(2_000)),
                        5 => handle.set_rate(None),
                        _ => assert_counts_add_up(&handle.progress()),
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                handle.resume();
            });
        }
        let results = multi_thread().block_on(async {
            let mut gather = pin!(batch.gather());
            loop {
                // A thread may have paused the batch and sleep for a while.
                tokio::select! {
                    results = &mut gather => return results,
                    () = tokio::time::sleep(Duration::from_millis(20)) => handle.resume(),
                }
            }
        });
        is_over.store(true, Relaxed);
        results
    });
    assert_eq!((results.len(), count_successes(&results)), (INPUTS, INPUTS));
    assert_eq!(server.counts().requests, INPUTS);
    let progress = handle.progress();
    assert_counts_add_up(&progress);
    assert_eq!(
        (progress.succeeded(), progress.inputs_pulled()),
        (INPUTS, INPUTS)
    );
}

fn assert_counts_add_up(progress: &Progress) {
    let sum = progress.completed() + progress.in_flight() + progress.waiting().total();
    assert_eq!(sum, progress.inputs_pulled(), "{progress:?}");
}

#[tokio::test]
async fn callbacks_of_a_batch_may_use_its_handle() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();

    // The input iterator drains the batch.
    let own = Arc::new(OnceLock::<BatchHandle>::new());
    let inputs = (0..).map({
        let (own, url) = (Arc::clone(&own), server.url("/ok/0"));
        move |n| {
            if let Some(handle) = own.get().filter(|_| n == 100) {
                handle.drain();
                assert_eq!(handle.progress().total(), None);
            }
            url.clone()
        }
    });
    let mut done = fetcher.batch(inputs).concurrency(5).as_completed();
    let _ = own.set(done.handle());
    let mut count = 0;
    while let Some(completed) = done.next().await {
        count += 1;
        let error = completed.result.err();
        assert!(error.is_none_or(|error| is_cancelled_before_start(&error)));
    }
    assert!(count > 100);

    // The handler cancels the batch.
    let own = Arc::new(OnceLock::<BatchHandle>::new());
    let found = Arc::clone(&own);
    let batch = fetcher
        .batch(ok_urls(&server, 100))
        .concurrency(5)
        .read_with(move |body| {
            let found = Arc::clone(&found);
            async move {
                if body.url().path() == "/ok/20"
                    && let Some(handle) = found.get()
                {
                    handle.cancel();
                }
                Ok(())
            }
        });
    let _ = own.set(batch.handle());
    let results = batch.gather().await;
    assert_eq!(results.len(), 100);
    let cancelled = results.iter().filter(|result| result.is_err()).count();
    assert!((70..100).contains(&cancelled), "{cancelled}");
}

fn ok_urls(server: &FaultServer, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| server.url(&format!("/ok/{n}")))
        .collect()
}

#[test]
fn handle_works_from_another_runtime() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let batch = fetcher.batch(held_urls(&server, 50)).concurrency(5);
    let handle = batch.handle();
    handle.pause();
    let results = thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            multi_thread().block_on(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                handle.resume();
                while handle.progress().in_flight() < 5 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                handle.drain();
                server.release_held();
            });
        });
        let results = multi_thread().block_on(batch.gather());
        elsewhere.join().expect("it does not panic");
        results
    });
    assert_eq!(count_successes(&results), server.counts().requests);
    assert_eq!(count_successes(&results), 5);
}
