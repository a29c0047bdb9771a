//! A `Fetcher` in tasks, in server handlers, on several runtimes and outside a runtime.
//!
//! The clocks are real, so the tests wait for events and check counts and error kinds.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use fanout::{ErrorKind, Fetcher, Mock, MockResponse, Rate, Response, Result, Retry};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

/// The time after which a wait fails.
const HANG_GUARD: Duration = Duration::from_secs(60);

fn urls(host: &'static str, count: usize) -> impl Iterator<Item = String> + Send + 'static {
    (0..count).map(move |n| format!("http://{host}.example/{n}"))
}

fn fetcher_over(mock: &Mock) -> Fetcher {
    Fetcher::builder().transport(mock.clone()).build().unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn error_kinds(results: &[Result<Response>]) -> Vec<Option<ErrorKind>> {
    results
        .iter()
        .map(|result| result.as_ref().err().map(fanout::Error::kind))
        .collect()
}

/// Polls `future` once and checks that it is pending.
async fn poll_once<F: Future + Unpin>(future: &mut F) {
    let once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending()));
    assert!(once.await, "it was over at once");
}

struct Product {
    name: &'static str,
    url: String,
}

#[tokio::test]
async fn batch_in_spawned_task_borrows_inputs() {
    let fetcher = fetcher_over(&Mock::new().fallback(200));
    let products = [
        Product {
            name: "one",
            url: "http://a.example/1".to_owned(),
        },
        Product {
            name: "two",
            url: "http://a.example/2".to_owned(),
        },
    ];
    let prefix = String::from("http://b.example/");
    let task = tokio::spawn(async move {
        let mut names = Vec::new();
        let mut done = fetcher.as_completed(products.iter().map(|product| (product, &product.url)));
        while let Some(completed) = done.next().await {
            completed.result.unwrap();
            names.push(completed.tag.name);
        }
        let mut in_order = fetcher
            .batch((0..3).map(|n| format!("{prefix}{n}")))
            .in_order();
        while let Some(completed) = in_order.next().await {
            completed.result.unwrap();
        }
        let borrowed: Vec<String> = (0..3).map(|n| format!("{prefix}{n}")).collect();
        assert_eq!(fetcher.gather(&borrowed).await.len(), 3);
        assert_eq!(
            fetcher
                .gather(borrowed.iter().map(|url| (url.len(), url)))
                .await
                .len(),
            3
        );
        assert!(fetcher.batch(&borrowed).try_gather().await.is_ok());
        names.sort_unstable();
        names
    });
    assert_eq!(task.await.unwrap(), ["one", "two"]);
}

#[tokio::test]
async fn fetch_future_can_be_spawned() {
    let fetcher = fetcher_over(&Mock::new().fallback("x"));
    let tasks: Vec<_> = urls("a", 20)
        .map(|url| tokio::spawn(fetcher.fetch(url)))
        .collect();
    drop(fetcher);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().text(), "x");
    }
}

async fn sum(State(fetcher): State<Fetcher>) -> String {
    let mut done = fetcher.as_completed(urls("a", 10));
    let mut sum = 0;
    while let Some(completed) = done.next().await {
        sum += completed
            .result
            .map_or(0, |response| response.bytes().len());
    }
    let gathered = fetcher.gather(urls("b", 10)).await;
    let one = fetcher.fetch("http://c.example/").await;
    format!("{} {} {}", sum, gathered.len(), one.is_ok())
}

#[tokio::test]
async fn batch_runs_inside_axum_handler() {
    let mock = Mock::new().fallback("four");
    let app = Router::new()
        .route("/sum", get(sum))
        .with_state(fetcher_over(&mock));
    let client = Fetcher::builder().transport(app).build().unwrap();
    let answers = client.gather(vec!["http://app.example/sum"; 20]).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().text() == "40 10 true")
    );
    assert_eq!(mock.request_count(), 20 * 21);
}

#[test]
fn static_fetcher_serves_several_runtimes_at_once() {
    static MOCK: LazyLock<Mock> = LazyLock::new(|| {
        Mock::new().fallback(MockResponse::text("x").delay(Duration::from_millis(1)))
    });
    static FETCHER: LazyLock<Fetcher> = LazyLock::new(|| {
        let builder = Fetcher::builder().transport(MOCK.clone()).concurrency(7);
        builder.rate(Rate::per_second(2000)).build().unwrap()
    });
    thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let runtime = if number % 2 == 0 {
                    current_thread()
                } else {
                    multi_thread()
                };
                for _ in 0..3 {
                    let results = runtime.block_on(async {
                        timeout(HANG_GUARD, FETCHER.gather(urls("a", 40)))
                            .await
                            .unwrap()
                    });
                    assert!(results.iter().all(Result::is_ok));
                    runtime
                        .block_on(FETCHER.fetch("http://b.example/"))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(MOCK.request_count(), 6 * 3 * 41);
    assert!(MOCK.max_in_flight() <= 7);
    assert_eq!(MOCK.in_flight(), 0);
}

#[test]
fn fetcher_survives_runtime_shutdown_with_requests_in_flight() {
    let mock = Mock::new()
        .on("http://a.example/*", MockResponse::hang())
        .fallback(200);
    let fetcher = Fetcher::builder()
        .transport(mock.clone())
        .concurrency(3)
        .build()
        .unwrap();
    for runtime in [current_thread(), multi_thread(), current_thread()] {
        let before = mock.request_count();
        runtime.block_on(async {
            let (batch, single) = (fetcher.clone(), fetcher.fetch("http://a.example/"));
            tokio::spawn(async move { batch.gather(urls("a", 100)).await.len() });
            tokio::spawn(single);
            while mock.request_count() < before + 3 {
                sleep(Duration::from_millis(1)).await;
            }
        });
        drop(runtime);
        assert_eq!(mock.in_flight(), 0);
        let results = current_thread()
            .block_on(async { timeout(HANG_GUARD, fetcher.gather(urls("b", 20))).await });
        assert!(results.unwrap().iter().all(Result::is_ok));
    }
}

#[test]
fn polling_outside_a_runtime_panics_with_explanation() {
    let fetcher = fetcher_over(&Mock::new().fallback(200));
    let batch = || fetcher.batch(urls("a", 3));
    let deadline = Duration::from_secs(1);
    let polls: [Box<dyn Future<Output = ()>>; 5] = [
        Box::new(async { drop(fetcher.fetch("http://a.example/").await) }),
        Box::new(async { drop(batch().gather().await) }),
        Box::new(async { drop(batch().deadline(deadline).gather().await) }),
        Box::new(async { drop(batch().as_completed().next().await) }),
        Box::new(async { drop(batch().deadline(deadline).in_order().next().await) }),
    ];
    for poll in polls {
        let mut poll = Box::into_pin(poll);
        let mut context = Context::from_waker(Waker::noop());
        let panic = catch_unwind(AssertUnwindSafe(|| {
            poll.as_mut().poll(&mut context).is_ready()
        }))
        .unwrap_err();
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap();
        assert!(text.contains("fanout needs a tokio runtime"), "{text}");
    }
    assert!(
        current_thread()
            .block_on(fetcher.fetch("http://a.example/"))
            .is_ok()
    );
}

#[test]
fn fetcher_is_created_and_dropped_outside_a_runtime() {
    let fetcher = Fetcher::new();
    drop((
        fetcher.fetch("http://a.example/"),
        fetcher.gather(urls("a", 3)),
        fetcher,
    ));
}

/// Starts a batch on a runtime, shuts the runtime down and reads the results on another one.
fn read_after_runtime_shutdown(
    fetcher: &Fetcher,
    inputs: usize,
    ready_to_end: impl Fn() -> bool,
) -> Vec<Option<ErrorKind>> {
    for first in [current_thread(), multi_thread()] {
        let mut gather = pin!(fetcher.gather(urls("a", inputs)));
        first.block_on(async {
            poll_once(&mut gather).await;
            timeout(HANG_GUARD, async {
                while !ready_to_end() {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .unwrap();
        });
        drop(first);
        let results = current_thread().block_on(async { timeout(HANG_GUARD, gather).await });
        let kinds = error_kinds(&results.expect("a result for each, once the runtime has ended"));
        assert_eq!(kinds.len(), inputs);
        if kinds.iter().any(|kind| *kind != Some(ErrorKind::Cancelled)) {
            return kinds;
        }
    }
    vec![Some(ErrorKind::Cancelled); inputs]
}

#[test]
fn runtime_shutdown_cancels_requests_in_flight() {
    let mock = Mock::new().on("*", MockResponse::hang());
    let fetcher = fetcher_over(&mock);
    let kinds = read_after_runtime_shutdown(&fetcher, 300, || mock.in_flight() == 100);
    assert_eq!(kinds, [Some(ErrorKind::Cancelled); 300]);
}

#[test]
fn runtime_shutdown_cancels_requests_waiting_for_a_rate() {
    let mock = Mock::new().on("*", 200);
    let rate = Rate::per_hour(1);
    let fetcher = Fetcher::builder()
        .transport(mock.clone())
        .rate(rate)
        .build()
        .unwrap();
    // Uses up the rate, after which nothing is in flight.
    current_thread()
        .block_on(fetcher.fetch("http://a.example/"))
        .unwrap();
    let kinds = read_after_runtime_shutdown(&fetcher, 300, || mock.in_flight() == 0);
    assert_eq!(kinds, [Some(ErrorKind::Cancelled); 300]);
}

#[test]
fn runtime_shutdown_ends_backoffs_with_the_last_result() {
    let mock = Mock::new().on("*", ErrorKind::Closed);
    let hour = Duration::from_secs(3600);
    let retry = Retry::default()
        .base_delay(1000 * hour)
        .max_delay(1000 * hour);
    let fetcher = Fetcher::builder()
        .transport(mock.clone())
        .retry(retry)
        .build()
        .unwrap();
    let kinds = read_after_runtime_shutdown(&fetcher, 30, || {
        mock.request_count() >= 30 && mock.in_flight() == 0
    });
    assert_eq!(kinds, [Some(ErrorKind::Closed); 30]);
}

#[test]
fn runtime_shutdown_cancels_a_waiting_fetch() {
    let fetcher = Fetcher::builder()
        .transport(Mock::new().on("*", 200))
        .rate(Rate::per_hour(1))
        .build()
        .unwrap();
    let first = current_thread();
    first.block_on(fetcher.fetch("http://a.example/")).unwrap();
    let mut waiting = fetcher.fetch("http://a.example/");
    first.block_on(poll_once(&mut waiting));
    drop(first);
    let result = current_thread().block_on(async { timeout(HANG_GUARD, waiting).await });
    assert_eq!(result.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn batch_runs_on_the_runtime_that_first_polled_it() {
    let mock = Mock::new().fallback(MockResponse::text("x").delay(Duration::from_millis(1)));
    let fetcher = fetcher_over(&mock);
    let (began, reads) = (multi_thread(), current_thread());
    let mut gather = fetcher.gather(urls("a", 5000));
    began.block_on(poll_once(&mut gather));
    let results = reads.block_on(async { timeout(HANG_GUARD, gather).await.unwrap() });
    assert!(results.len() == 5000 && results.iter().all(Result::is_ok));
}

#[test]
fn requests_continue_after_the_fetcher_is_dropped() {
    let mock = Mock::new().fallback(MockResponse::text("x").delay(Duration::from_millis(5)));
    let gather = fetcher_over(&mock).gather(urls("a", 10));
    let results = current_thread().block_on(gather);
    assert!(results.iter().all(Result::is_ok));
    drop(Arc::new(mock));
}

/// The fetch was cancelled and the runtime has no other work, so the engine has removed the
/// runtime's entry while a worker still exists.
#[test]
fn late_runtime_shutdown_leaves_other_runtimes_jobs_running() {
    let slow = MockResponse::text("x").delay(Duration::from_millis(20));
    let mock = Mock::new()
        .on("http://never.example/", MockResponse::hang())
        .fallback(slow);
    let fetcher = fetcher_over(&mock);
    let early = current_thread();
    let given_up = early.block_on(async {
        let fetch = fetcher.fetch("http://never.example/");
        timeout(Duration::from_millis(10), fetch).await.is_err()
    });
    assert!(given_up);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let batch = fetcher.clone();
    let next = thread::spawn(move || {
        current_thread().block_on(async move {
            let mut done = batch.batch(urls("a", 50)).concurrency(2).as_completed();
            let mut ok = 0;
            while let Some(completed) = done.next().await {
                let _ = begun.send(());
                ok += usize::from(completed.result.is_ok());
            }
            ok
        })
    });
    has_begun.recv().unwrap();
    // The worker is polled once more and must not take the other runtime's jobs.
    early.block_on(async { sleep(Duration::from_millis(5)).await });
    drop(early);
    assert_eq!(next.join().unwrap(), 50);
}

/// Fetches in each way, and returns the errors of all requests.
async fn errors_of_all_endings(fetcher: &Fetcher, urls: [&str; 2]) -> Vec<fanout::Error> {
    let mut errors = Vec::new();
    for url in urls {
        errors.push(fetcher.fetch(url).await.unwrap_err());
    }
    let batch = || {
        let batch = fetcher.batch(urls).rate(Rate::per_second(100));
        batch.deadline(Duration::from_secs(60))
    };
    errors.extend(batch().gather().await.into_iter().map(Result::unwrap_err));
    let mut done = batch().as_completed();
    while let Some(completed) = done.next().await {
        errors.push(completed.result.unwrap_err());
    }
    let mut done = batch().in_order();
    while let Some(completed) = done.next().await {
        errors.push(completed.result.unwrap_err());
    }
    errors.push(batch().try_gather().await.unwrap_err());
    errors
}

#[test]
fn runtime_without_a_time_driver_gives_an_error_that_names_it() {
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let mock = Mock::new().fallback(200);
    let over_sockets = Fetcher::builder().no_proxy().build().unwrap();
    for fetcher in [over_sockets, fetcher_over(&mock)] {
        let urls = ["http://127.0.0.1:9/", "http://nowhere.invalid/"];
        let errors = runtime.block_on(errors_of_all_endings(&fetcher, urls));
        assert_eq!(errors.len(), 9);
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::MissingRuntimeDriver);
            assert!(error.to_string().contains("`enable_time`"), "{error}");
            assert!(!error.maybe_sent());
        }
    }
    assert_eq!(mock.requests().len(), 0);
    // The same Fetcher works on a complete runtime.
    let fetcher = fetcher_over(&mock);
    for _ in 0..2 {
        let incomplete = runtime.block_on(fetcher.fetch("http://a.example/"));
        let kind = incomplete.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::MissingRuntimeDriver);
        let response = current_thread().block_on(fetcher.fetch("http://a.example/"));
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[test]
fn runtime_without_an_io_driver_gives_an_error_that_names_it() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.enable_time().build().unwrap();
        let fetcher = Fetcher::builder().no_proxy().build().unwrap();
        let urls = ["http://127.0.0.1:9/", "https://localhost:9/"];
        let errors = runtime.block_on(errors_of_all_endings(&fetcher, urls));
        assert_eq!(errors.len(), 9);
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::MissingRuntimeDriver, "{error}");
            assert!(error.to_string().contains("`enable_io`"), "{error}");
            assert!(!error.maybe_sent());
        }
    }
}
