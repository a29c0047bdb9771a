//! Using a `Fetcher` from spawned tasks, from a server's handler, and from a `static` that several
//! runtimes share and that outlives them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Barrier, LazyLock};
use std::task::Poll;
use std::thread;

use crate::support::server::{FaultServer, expected_body};
use axum::extract::State;
use axum::routing::get;
use fanout::{ErrorKind, Fetcher, Response, Result, Retry};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn urls(server: &FaultServer, count: usize) -> impl Iterator<Item = String> + Send {
    (0..count).map(|n| server.url(&format!("/ok/{n}")))
}

fn assert_all_ok(results: &[Result<Response>]) {
    for (n, result) in results.iter().enumerate() {
        let response = result
            .as_ref()
            .unwrap_or_else(|error| panic!("{n}: {error:?}"));
        assert_eq!(response.bytes()[..], expected_body(n as u64));
    }
}

#[test]
fn a_batch_runs_in_a_spawned_task_with_inputs_made_by_a_closure() {
    for runtime in [current_thread(), multi_thread()] {
        runtime.block_on(async {
            let server = Arc::new(FaultServer::start());
            let fetcher = Fetcher::new();
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let (server, fetcher) = (Arc::clone(&server), fetcher.clone());
                    tokio::spawn(async move {
                        let inputs = (0..50).map(|n| (n, server.url(&format!("/ok/{n}"))));
                        let mut results = fetcher.as_completed(inputs);
                        let mut count = 0;
                        while let Some(completed) = results.next().await {
                            let body = completed.result.unwrap().into_bytes();
                            assert_eq!(body[..], expected_body(completed.tag));
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap(), 50);
            }
            let one = tokio::spawn(fetcher.fetch(server.url("/ok/1")));
            assert_eq!(one.await.unwrap().unwrap().bytes()[..], expected_body(1));
        });
    }
}

#[derive(Clone)]
struct App {
    fetcher: Fetcher,
    upstream: Arc<FaultServer>,
}

/// Fetches 50 URLs and responds with their number.
async fn fetch_batch(State(app): State<App>) -> String {
    let results = app.fetcher.gather(urls(&app.upstream, 50)).await;
    assert_all_ok(&results);
    results.len().to_string()
}

#[tokio::test]
async fn server_handler_can_run_batches() {
    let app = App {
        fetcher: Fetcher::builder().concurrency(20).build().unwrap(),
        upstream: Arc::new(FaultServer::start()),
    };
    let upstream = Arc::clone(&app.upstream);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .route("/", get(fetch_batch))
        .with_state(app);
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let results = Fetcher::new().gather((0..10).map(|_| &url)).await;
    for result in results {
        assert_eq!(result.unwrap().text(), "50");
    }
    let counts = upstream.counts();
    assert_eq!(counts.requests, 500);
    assert!(counts.max_in_flight <= 20, "{counts:?}");
    serving.abort();
}

#[test]
fn a_static_fetcher_serves_several_runtimes_at_once_within_its_limits() {
    static FETCHER: LazyLock<Fetcher> =
        LazyLock::new(|| Fetcher::builder().concurrency(6).build().unwrap());
    let server = FaultServer::start();
    let all_ready = Barrier::new(6);
    thread::scope(|scope| {
        for runtime in [
            current_thread(),
            multi_thread(),
            current_thread(),
            multi_thread(),
            current_thread(),
            current_thread(),
        ] {
            scope.spawn(|| {
                let runtime = runtime;
                all_ready.wait();
                assert_all_ok(&runtime.block_on(FETCHER.gather(urls(&server, 200))));
                for n in 0..5 {
                    let one = runtime.block_on(FETCHER.fetch(server.url(&format!("/ok/{n}"))));
                    assert_eq!(one.unwrap().bytes()[..], expected_body(n));
                }
            });
        }
    });
    let counts = server.counts();
    assert_eq!(counts.requests, 6 * 205);
    assert!(counts.max_in_flight <= 6, "{counts:?}");
}

#[test]
fn static_fetcher_outlives_runtimes_with_idle_connections() {
    static FETCHER: LazyLock<Fetcher> = LazyLock::new(Fetcher::new);
    let server = FaultServer::start();
    let observer_runtime = current_thread();
    for (round, runtime) in [
        current_thread(),
        multi_thread(),
        current_thread(),
        multi_thread(),
    ]
    .into_iter()
    .enumerate()
    {
        assert_all_ok(&runtime.block_on(FETCHER.gather(urls(&server, 40))));
        assert_eq!(server.counts().requests, 40 * (round + 1));
        assert!(server.counts().open_connections > 0);
        drop(runtime);
        // Idle connections belong to their runtime and are closed with it.
        observer_runtime.block_on(server.wait_for_open_connections(0));
    }
}

#[test]
fn ended_runtime_releases_the_slots_of_its_requests() {
    static FETCHER: LazyLock<Fetcher> =
        LazyLock::new(|| Fetcher::builder().concurrency(4).build().unwrap());
    let server = Arc::new(FaultServer::start());
    let observer_runtime = current_thread();
    for runtime in [current_thread(), multi_thread(), current_thread()] {
        let stalled = Arc::clone(&server);
        runtime.spawn(async move {
            let urls = (0..100).map(|_| stalled.url("/stall-head"));
            FETCHER.gather(urls).await
        });
        runtime.spawn(FETCHER.fetch(server.url("/stall-body")));
        runtime.block_on(server.wait_for_in_flight(4));
        drop(runtime);
        observer_runtime.block_on(server.wait_for_in_flight(0));
        assert_all_ok(&observer_runtime.block_on(FETCHER.gather(urls(&server, 40))));
    }
}

#[test]
fn batch_continues_when_the_runtime_holding_all_slots_ends() {
    let fetcher = Fetcher::builder().concurrency(4).build().unwrap();
    let server = FaultServer::start();
    let ending_runtime = multi_thread();
    ending_runtime.spawn(
        fetcher.gather(
            (0..100)
                .map(|_| server.url("/stall-head"))
                .collect::<Vec<_>>(),
        ),
    );
    let other_runtime = current_thread();
    other_runtime.block_on(server.wait_for_in_flight(4));
    let mut batch = pin!(fetcher.gather(urls(&server, 40)));
    other_runtime.block_on(poll_fn(|cx| {
        assert!(batch.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    drop(ending_runtime);
    assert_all_ok(&other_runtime.block_on(batch));
}

#[test]
fn batch_of_an_ended_runtime_still_returns_its_results() {
    let fetcher = Fetcher::new();
    let server = FaultServer::start();
    let ending_runtime = current_thread();
    let inputs = (0..40).map(|_| server.url("/stall-head"));
    let mut batch = pin!(
        fetcher
            .batch(inputs)
            .concurrency(4)
            .retry(Retry::off())
            .gather()
    );
    ending_runtime.block_on(async {
        tokio::select! {
            _ = &mut batch => panic!("every request is stalled"),
            _ = server.wait_for_in_flight(4) => {}
        }
    });
    drop(ending_runtime);
    let results = current_thread().block_on(batch);
    assert_eq!(results.len(), 40);
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
