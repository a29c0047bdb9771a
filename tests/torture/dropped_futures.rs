//! Futures and streams that are dropped after their n-th poll, for every n until they complete.
//!
//! After each drop, no request is in flight, no connection is in use, no batch is left, and the
//! Fetcher still has all of its slots.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::any;
use bytes::Bytes;
use fanout::{
    Body, BoxError, Fetcher, FetcherBuilder, FollowLimits, Host, Rate, Request, RequestBuilder,
    Retry, StreamingResponse,
};
use futures_core::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Barrier;
use tokio::task::yield_now;

use crate::support::body_streams::{StreamEnd, TempDir, chunk_stream};
use crate::support::server::pattern_bytes;

/// The limit of concurrent requests of each Fetcher, in total and per host.
const SLOTS: usize = 4;

/// The real or virtual time after which a wait counts as hung.
const HANG_GUARD: Duration = Duration::from_secs(120);

const LARGE: usize = 100_000;

/// The origin of the server in this process, which needs no network.
const IN_PROCESS_ORIGIN: &str = "http://app.test";

type MakeFuture = fn(Setup) -> BoxFuture;
type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server whose responses take several turns of the scheduler.
fn app() -> Router {
    let barrier = Arc::new(Barrier::new(SLOTS));
    let flaky = Arc::new(AtomicUsize::new(0));
    Router::new()
        .route(
            "/ok/{n}",
            any(async |Path(n): Path<u32>| {
                yield_now().await;
                n.to_string()
            }),
        )
        .route("/redirect", any(async || Redirect::temporary("/ok/1")))
        .route(
            "/page/{n}",
            any(async |Path(n): Path<u32>| match n {
                3.. => "last".into_response(),
                n => (
                    [(header::LINK, format!("</page/{}>; rel=\"next\"", n + 1))],
                    "page",
                )
                    .into_response(),
            }),
        )
        .route(
            "/flaky",
            any(async move || {
                let is_failing = flaky.fetch_add(1, SeqCst).is_multiple_of(2);
                if is_failing {
                    StatusCode::INTERNAL_SERVER_ERROR
                } else {
                    StatusCode::OK
                }
            }),
        )
        .route(
            "/large",
            any(async || axum::body::Body::new(Body::stream(YieldingChunks::new()))),
        )
        .route("/echo", any(async |body: Bytes| body))
        .route("/stall", any(std::future::pending::<StatusCode>))
        // Responds once all slots of the client are in use at the same time.
        .route(
            "/barrier",
            any(move || {
                let barrier = Arc::clone(&barrier);
                async move {
                    barrier.wait().await;
                }
            }),
        )
}

/// A body of [`LARGE`] bytes that is pending before each chunk.
struct YieldingChunks {
    remaining: usize,
    is_ready: bool,
}

impl YieldingChunks {
    fn new() -> Self {
        Self {
            remaining: LARGE,
            is_ready: false,
        }
    }
}

impl Stream for YieldingChunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self.remaining.min(LARGE / 5);
        self.remaining -= length;
        Poll::Ready((length > 0).then(|| Ok(Bytes::from(pattern_bytes(length)))))
    }
}

/// The client, the server and the directory that the futures of a test use.
#[derive(Clone)]
struct Setup {
    fetcher: Fetcher,
    origin: String,
    directory: Arc<TempDir>,
}

impl Setup {
    fn get(&self, path: &str) -> RequestBuilder {
        Request::get(format!("{}{path}", self.origin))
    }

    /// Requests with every kind of outcome that takes more than one hop or attempt.
    fn mixed_requests(&self) -> Vec<RequestBuilder> {
        let paths = ["/ok/0", "/redirect", "/flaky", "/large", "/ok/4", "/ok/5"];
        let mut requests: Vec<_> = paths.iter().map(|path| self.get(path)).collect();
        requests.push(Request::get("not a URL"));
        requests
    }
}

async fn read_all(mut response: StreamingResponse) -> Result<usize, BoxError> {
    let mut length = 0;
    while let Some(chunk) = response.next().await {
        length += chunk?.len();
    }
    Ok(length)
}

/// Every public future and stream, by name. Each checks its results if it completes.
fn futures() -> Vec<(&'static str, MakeFuture)> {
    vec![
        ("fetch", |s| {
            Box::pin(async move {
                s.fetcher
                    .fetch(s.get("/redirect"))
                    .await
                    .expect("a response");
            })
        }),
        ("fetch of a large body", |s| {
            Box::pin(async move {
                let response = s.fetcher.fetch(s.get("/large")).await.expect("a response");
                assert_eq!(response.bytes().len(), LARGE);
            })
        }),
        ("fetch with a handler", |s| {
            Box::pin(async move {
                let length = s.fetcher.fetch(s.get("/large")).read_with(read_all).await;
                assert_eq!(length.expect("a length"), LARGE);
            })
        }),
        ("fetch with a streamed response body", |s| {
            Box::pin(async move {
                let fetch = s.fetcher.fetch(s.get("/large")).stream_body();
                let response = fetch.await.expect("a response");
                assert_eq!(read_all(response).await.expect("a length"), LARGE);
            })
        }),
        ("fetch with a response body that is not read", |s| {
            Box::pin(async move {
                for path in ["/redirect", "/flaky", "/large"] {
                    let fetch = s.fetcher.fetch(s.get(path)).stream_body();
                    let response = fetch.await.expect("a response");
                    yield_now().await;
                    drop(response);
                }
            })
        }),
        (
            "fetches whose response bodies are read at the same time",
            |s| {
                Box::pin(async move {
                    let read = || async {
                        let fetch = s.fetcher.fetch(s.get("/large")).stream_body();
                        read_all(fetch.await.expect("a response")).await
                    };
                    let (one, two) = tokio::join!(read(), read());
                    assert_eq!(one.expect("a length"), LARGE);
                    assert_eq!(two.expect("a length"), LARGE);
                })
            },
        ),
        ("fetch with a streamed request body", |s| {
            Box::pin(async move {
                let body = Body::stream(chunk_stream(&["one", "two", "three"], StreamEnd::End));
                let request = Request::post(format!("{}/echo", s.origin)).body(body);
                let response = s.fetcher.fetch(request).await.expect("a response");
                assert_eq!(response.text(), "onetwothree");
            })
        }),
        ("gather", |s| {
            Box::pin(async move {
                assert_eq!(s.fetcher.gather(s.mixed_requests()).await.len(), 7);
            })
        }),
        ("gather from a stream", |s| {
            Box::pin(async move {
                let inputs = InputStream(s.mixed_requests().into_iter());
                assert_eq!(s.fetcher.batch_from_stream(inputs).gather().await.len(), 7);
            })
        }),
        ("gather with a handler", |s| {
            Box::pin(async move {
                let batch = s.fetcher.batch(s.mixed_requests()).read_with(read_all);
                assert_eq!(batch.gather().await.len(), 7);
            })
        }),
        ("gather with a deadline", |s| {
            Box::pin(async move {
                let inputs = [s.get("/ok/1"), s.get("/stall"), s.get("/ok/2")];
                let batch = s.fetcher.batch(inputs).deadline(Duration::from_millis(30));
                assert_eq!(batch.gather().await.len(), 3);
            })
        }),
        ("gather with a rate", |s| {
            Box::pin(async move {
                let batch = s
                    .fetcher
                    .batch(s.mixed_requests())
                    .rate(Rate::new(1, Duration::from_millis(2)));
                assert_eq!(batch.gather().await.len(), 7);
            })
        }),
        ("gather with a final round", |s| {
            Box::pin(async move {
                let retry = Retry::off().final_round(true);
                let batch = s.fetcher.batch(s.mixed_requests()).retry(retry);
                assert_eq!(batch.gather().await.len(), 7);
            })
        }),
        ("try_gather", |s| {
            Box::pin(async move {
                let batch = s.fetcher.batch(s.mixed_requests());
                batch.try_gather().await.expect_err("one input is invalid");
            })
        }),
        ("as_completed", |s| {
            Box::pin(async move {
                let mut results = s.fetcher.as_completed(s.mixed_requests());
                let mut count = 0;
                while results.next().await.is_some() {
                    count += 1;
                }
                assert_eq!(count, 7);
            })
        }),
        ("as_completed with a small buffer", |s| {
            Box::pin(async move {
                let inputs = vec![s.get("/large"); 6];
                let mut results = s.fetcher.batch(inputs).max_buffered_bytes(1).as_completed();
                let mut count = 0;
                while results.next().await.is_some() {
                    yield_now().await;
                    count += 1;
                }
                assert_eq!(count, 6);
            })
        }),
        ("in_order", |s| {
            Box::pin(async move {
                let mut results = s.fetcher.batch(s.mixed_requests()).look_ahead(3).in_order();
                let mut count = 0;
                while results.next().await.is_some() {
                    count += 1;
                }
                assert_eq!(count, 7);
            })
        }),
        ("follow_links", |s| {
            Box::pin(async move {
                let next = s.clone();
                let limits = FollowLimits::default();
                let inputs = [s.get("/ok/9")];
                let mut results =
                    s.fetcher
                        .as_completed(inputs)
                        .follow_links(limits, move |completed| {
                            (completed.depth < 2)
                                .then(|| next.get(&format!("/ok/{}", completed.depth)))
                        });
                while let Some(completed) = results.next().await {
                    completed.result.expect("a response");
                }
            })
        }),
        ("follow_next_link", |s| {
            Box::pin(async move {
                let pages = s.fetcher.as_completed([s.get("/page/0")]);
                let mut results = pages.follow_next_link(FollowLimits::default());
                let mut count = 0;
                while let Some(completed) = results.next().await {
                    completed.result.expect("a response");
                    count += 1;
                }
                assert_eq!(count, 4);
            })
        }),
        ("save_to", |s| {
            Box::pin(async move {
                let target = s.directory.path("saved");
                let _ = std::fs::remove_file(&target);
                let request = s.get("/large").save_to(&target);
                let response = s.fetcher.fetch(request).await.expect("a response");
                assert_eq!(response.saved_bytes(), Some(LARGE as u64));
            })
        }),
        ("steering", |s| {
            Box::pin(async move {
                let batch = s.fetcher.batch(s.mixed_requests());
                let handle = batch.handle();
                let steer = async {
                    handle.pause();
                    yield_now().await;
                    handle.set_concurrency(1);
                    handle.resume();
                    yield_now().await;
                    handle.set_concurrency(SLOTS);
                    handle.drain();
                };
                let ((), results) = tokio::join!(steer, batch.gather());
                assert_eq!(results.len(), 7);
            })
        }),
    ]
}

struct InputStream(std::vec::IntoIter<RequestBuilder>);

impl Stream for InputStream {
    type Item = RequestBuilder;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<RequestBuilder>> {
        Poll::Ready(self.0.next())
    }
}

fn fetcher_builder() -> FetcherBuilder {
    Fetcher::builder()
        .no_proxy()
        .concurrency(SLOTS)
        .concurrency_per_host(SLOTS)
        .retry(Retry::default().base_delay(Duration::from_millis(1)))
}

/// Whether the future completes within `polls` polls. The task polls it when it is woken.
async fn completes_when_woken(mut future: BoxFuture, polls: usize) -> bool {
    let mut count = 0;
    poll_fn(|cx| {
        count += 1;
        match future.as_mut().poll(cx) {
            Poll::Pending if count < polls => Poll::Pending,
            poll => Poll::Ready(poll.is_ready()),
        }
    })
    .await
}

/// Records that it was woken.
#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Whether the future completes within `polls` polls, one in each turn of the scheduler. So the
/// drop comes at every step of the tasks that the future has spawned.
async fn completes_in_turns(mut future: BoxFuture, polls: usize) -> bool {
    let flag = Arc::new(WakeFlag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut turns_since_wake = 0;
    for _ in 0..polls {
        if future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            return true;
        }
        turns_since_wake = if flag.0.swap(false, SeqCst) {
            0
        } else {
            turns_since_wake + 1
        };
        if turns_since_wake < 10 {
            yield_now().await;
        } else {
            // Nothing but a timer can wake the future.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    false
}

/// Checks that nothing of a dropped future is left.
async fn check_unused(setup: &Setup, context: &str) {
    let is_unused = async {
        loop {
            let snapshot = setup.fetcher.snapshot();
            let in_use = snapshot.open_connections() - snapshot.idle_connections();
            let progress = snapshot.progress();
            let unfinished = progress.in_flight() + progress.waiting().total();
            if (in_use, unfinished, snapshot.open_batches()) == (0, 0, 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(HANG_GUARD, is_unused).await;
    waited.unwrap_or_else(|_| panic!("{context}: {}", setup.fetcher.snapshot()));
    let barrier = setup.fetcher.gather(vec![setup.get("/barrier"); SLOTS]);
    let responses = tokio::time::timeout(HANG_GUARD, barrier).await;
    let responses = responses.unwrap_or_else(|_| panic!("{context}: a slot is lost"));
    assert!(
        responses.iter().all(Result::is_ok),
        "{context}: {responses:?}"
    );
}

/// Drops each future after every number of polls.
async fn drop_after_each_poll<F>(setup: Setup, completes: impl Fn(BoxFuture, usize) -> F)
where
    F: Future<Output = bool>,
{
    check_unused(&setup, "before the first future").await;
    for (name, make_future) in futures() {
        for polls in 0.. {
            let context = format!("{name}, dropped after {polls} polls");
            let future = make_future(setup.clone());
            let is_complete = polls > 0 && completes(future, polls).await;
            check_unused(&setup, &context).await;
            let target = setup.directory.path("saved");
            let saved = std::fs::metadata(target).map_or(LARGE as u64, |file| file.len());
            assert_eq!(saved, LARGE as u64, "{context}");
            if is_complete {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_future_leaves_nothing_in_process() {
    let fetcher = fetcher_builder()
        .host(
            IN_PROCESS_ORIGIN,
            Host::new().token_source(async || {
                yield_now().await;
                Ok("token".to_owned())
            }),
        )
        .transport(app())
        .build()
        .expect("valid settings");
    let setup = Setup {
        fetcher,
        origin: IN_PROCESS_ORIGIN.to_owned(),
        directory: Arc::new(TempDir::new()),
    };
    drop_after_each_poll(setup, completes_in_turns).await;
    // All tasks of a runtime without a server are the client's.
    let tasks = Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 1, "{tasks} tasks are left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_future_leaves_nothing_over_http1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("a bound socket"));
    tokio::spawn(async move { axum::serve(listener, app()).await });
    let setup = Setup {
        fetcher: fetcher_builder().build().expect("valid settings"),
        origin,
        directory: Arc::new(TempDir::new()),
    };
    drop_after_each_poll(setup, completes_when_woken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_future_leaves_nothing_over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("a bound socket"));
    let app = app();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let setup = Setup {
        fetcher: fetcher_builder()
            .http2_prior_knowledge()
            .build()
            .expect("valid settings"),
        origin,
        directory: Arc::new(TempDir::new()),
    };
    drop_after_each_poll(setup, completes_when_woken).await;
}
