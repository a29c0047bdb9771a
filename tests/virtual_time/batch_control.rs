//! `BatchHandle`: each command takes effect at once, in every ending of a batch, and every input
//! still gets one result.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{
    Batch, BatchHandle, Completed, Error, ErrorKind, FollowLimits, Mock, MockResponse, Rate,
    Response, Result,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::{all_ok, builder, fetcher, ms, received_at_ms, responding_after_ms, secs, urls};

#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Gather,
    TryGather,
    AsCompleted,
    InOrder,
}

pub(super) const ENDINGS: [Ending; 4] = [
    Ending::Gather,
    Ending::TryGather,
    Ending::AsCompleted,
    Ending::InOrder,
];

impl Ending {
    /// Returns all results in the order of delivery. If `try_gather` fails, returns only its error.
    pub(super) async fn run<R: Send + 'static>(self, batch: Batch<'_, (), R>) -> Vec<Result<R>> {
        let mut results = Vec::new();
        match self {
            Self::Gather => results = batch.gather().await,
            Self::TryGather => match batch.try_gather().await {
                Ok(responses) => results.extend(responses.into_iter().map(Ok)),
                Err(error) => results.push(Err(error)),
            },
            Self::AsCompleted => {
                let mut done = batch.as_completed();
                while let Some(completed) = done.next().await {
                    results.push(completed.result);
                }
            }
            Self::InOrder => {
                let mut done = batch.in_order();
                while let Some(completed) = done.next().await {
                    assert_eq!(completed.index, results.len());
                    results.push(completed.result);
                }
            }
        }
        results
    }
}

/// Runs a batch of 100 requests to one host with concurrency 10, and calls `command` with its
/// handle after `after_ms` milliseconds.
async fn run_with_command(
    mock: &Mock,
    ending: Ending,
    after_ms: u64,
    command: impl FnOnce(BatchHandle),
) -> Vec<Result<Response>> {
    let batch = fetcher(mock).batch(urls("a", 100)).concurrency(10);
    let handle = batch.handle();
    let command = async {
        sleep(ms(after_ms)).await;
        command(handle);
    };
    tokio::join!(ending.run(batch), command).0
}

pub(super) fn is_unsent(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled && !error.maybe_sent() && error.attempts().is_empty()
}

/// Counts the responses, the requests aborted on the wire, and the requests never sent.
pub(super) fn count_outcomes<R>(results: &[Result<R>]) -> (usize, usize, usize) {
    let ok = results.iter().filter(|result| result.is_ok()).count();
    let errors = results.iter().filter_map(|result| result.as_ref().err());
    let unsent = errors.filter(|error| is_unsent(error)).count();
    let aborted = results.iter().filter_map(|result| result.as_ref().err());
    let aborted = aborted
        .filter(|error| error.kind() == ErrorKind::Cancelled && error.attempts().len() == 1)
        .count();
    (ok, aborted, unsent)
}

#[tokio::test(start_paused = true)]
async fn drain_finishes_in_flight_requests_and_starts_no_others() {
    for ending in ENDINGS {
        let mock = responding_after_ms(100);
        let started = Instant::now();
        let results = run_with_command(&mock, ending, 250, |handle| handle.drain()).await;
        match ending {
            Ending::TryGather => {
                assert!(is_unsent(results[0].as_ref().unwrap_err()));
                assert_eq!(started.elapsed(), ms(250));
            }
            _ => {
                assert_eq!(count_outcomes(&results), (30, 0, 70), "{ending:?}");
                assert_eq!(started.elapsed(), ms(300));
            }
        }
        // A worker drops its cancelled exchange only when it runs again.
        yield_now().await;
        assert_eq!(
            (mock.request_count(), mock.in_flight()),
            (30, 0),
            "{ending:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_ends_batch_immediately_with_one_result_per_input() {
    for ending in ENDINGS {
        let mock = responding_after_ms(100);
        let started = Instant::now();
        let results = run_with_command(&mock, ending, 250, |handle| handle.cancel()).await;
        match ending {
            Ending::TryGather => {
                assert_eq!(
                    results[0].as_ref().unwrap_err().kind(),
                    ErrorKind::Cancelled
                );
            }
            _ => assert_eq!(count_outcomes(&results), (20, 10, 70), "{ending:?}"),
        }
        assert_eq!(started.elapsed(), ms(250));
        yield_now().await;
        assert_eq!(
            (mock.request_count(), mock.in_flight()),
            (30, 0),
            "{ending:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn paused_batch_starts_nothing_and_resumes_in_input_order() {
    for ending in ENDINGS {
        let mock = responding_after_ms(100);
        let started = Instant::now();
        let results = run_with_command(&mock, ending, 250, |handle| {
            handle.pause();
            handle.pause();
            tokio::spawn(async move {
                sleep(secs(3600)).await;
                handle.resume();
            });
        })
        .await;
        assert!(all_ok(&results), "{ending:?}");
        // The requests in flight at 250 ms finish at 300 ms. The next ten start an hour later.
        let times = received_at_ms(&mock, "http://a", started);
        assert_eq!((times[29], times[30]), (200, 3_600_250), "{ending:?}");
        assert_eq!(started.elapsed(), secs(3600) + ms(250 + 700));
        let urls: Vec<String> = mock
            .requests()
            .iter()
            .map(|request| request.url().to_owned())
            .collect();
        assert!(
            urls.iter()
                .eq(self::urls("a", 100).collect::<Vec<_>>().iter())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn paused_batch_holds_no_slot_and_runs_no_timeout() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency(10).build().unwrap();
    let batch = fetcher.batch(urls("a", 100));
    let handle = batch.handle();
    let paused = tokio::spawn(batch.gather());
    sleep(ms(150)).await;
    handle.pause();
    // The paused batch has ten requests on the wire until 200 ms. Then the second batch has all
    // slots.
    sleep(ms(50)).await;
    let started = Instant::now();
    assert!(all_ok(&fetcher.gather(urls("b", 100)).await));
    assert_eq!(started.elapsed(), secs(1));
    sleep(secs(24 * 3600)).await;
    assert_eq!(mock.request_count_to("http://a.example/*"), 20);
    handle.resume();
    let results = paused.await.unwrap();
    assert!(all_ok(&results));
    let queued_time = results[99].as_ref().unwrap().timings().queued();
    assert!(queued_time >= secs(24 * 3600));
}

#[tokio::test(start_paused = true)]
async fn deadline_applies_to_paused_batch() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        let mock = responding_after_ms(100);
        let batch = fetcher(&mock)
            .batch(urls("a", 100))
            .concurrency(10)
            .deadline(secs(5));
        batch.handle().pause();
        let started = Instant::now();
        let results = ending.run(batch).await;
        assert_eq!((results.len(), mock.request_count()), (100, 0));
        let error_kind = |result: &Result<Response>| result.as_ref().unwrap_err().kind();
        assert!(
            results
                .iter()
                .map(error_kind)
                .all(|kind| kind == ErrorKind::Deadline)
        );
        assert_eq!(started.elapsed(), secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn drain_and_cancel_end_paused_batch() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        for end in [BatchHandle::drain, BatchHandle::cancel] {
            let mock = responding_after_ms(100);
            let results = run_with_command(&mock, ending, 150, |handle| {
                handle.pause();
                end(&handle);
            });
            let (ok, aborted, unsent) = count_outcomes(&results.await);
            assert_eq!((ok + aborted, unsent, mock.request_count()), (20, 80, 20));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn commands_before_first_poll_apply_from_the_start() {
    for ending in ENDINGS {
        let mock = responding_after_ms(100);
        let batch = fetcher(&mock).batch(urls("a", 10)).concurrency(10);
        let handle = batch.handle();
        handle.pause();
        handle.resume();
        handle.set_concurrency(5);
        handle.set_rate(Rate::per_second(10).burst(5));
        let started = Instant::now();
        assert!(all_ok(&ending.run(batch).await));
        let times = received_at_ms(&mock, "http://a", started);
        assert_eq!(
            times,
            [0, 0, 0, 0, 0, 100, 200, 300, 400, 500],
            "{ending:?}"
        );

        let batch = fetcher(&mock).batch(urls("b", 10));
        batch.handle().drain();
        let results = ending.run(batch).await;
        match ending {
            Ending::Gather => assert_eq!(count_outcomes(&results), (0, 0, 10)),
            Ending::TryGather => {
                assert_eq!(
                    results[0].as_ref().unwrap_err().kind(),
                    ErrorKind::Cancelled
                );
            }
            _ => assert!(results.is_empty(), "no input is pulled"),
        }
        assert_eq!(mock.request_count_to("http://b.example/*"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn raised_concurrency_starts_more_requests_and_widens_look_ahead() {
    for ending in ENDINGS {
        let mock = responding_after_ms(100);
        let batch = fetcher(&mock).batch(urls("a", 1000)).concurrency(1);
        let handle = batch.handle();
        let started = Instant::now();
        let command = async {
            sleep(ms(150)).await;
            handle.set_concurrency(100);
        };
        let results = tokio::join!(ending.run(batch), command).0;
        assert!(all_ok(&results));
        // The second request is on the wire at 150 ms. Then 99 more start and another as each ends.
        let times = received_at_ms(&mock, "http://a", started);
        assert_eq!(
            (times[1], times[2], times[100]),
            (100, 150, 150),
            "{ending:?}"
        );
        assert_eq!(mock.max_in_flight(), 100);
        assert!(started.elapsed() <= ms(150 + 1000));
    }
}

#[tokio::test(start_paused = true)]
async fn lowered_concurrency_keeps_in_flight_requests_and_delays_new_starts() {
    let mock = responding_after_ms(1000);
    let batch = fetcher(&mock).batch(urls("a", 15)).concurrency(10);
    let handle = batch.handle();
    let started = Instant::now();
    let command = async {
        sleep(ms(500)).await;
        handle.set_concurrency(2);
    };
    let results = tokio::join!(batch.gather(), command).0;
    assert!(all_ok(&results));
    let times = received_at_ms(&mock, "http://a", started);
    assert_eq!(times[..10], [0; 10]);
    assert_eq!(times[10..], [1000, 1000, 2000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn set_concurrency_cannot_exceed_fetcher_limit() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency(7).build().unwrap();
    let batch = fetcher.batch(urls("a", 50));
    batch.handle().set_concurrency(1000);
    assert!(all_ok(&batch.gather().await));
    assert_eq!(mock.max_in_flight(), 7);
}

#[tokio::test(start_paused = true)]
async fn set_rate_applies_to_next_start_and_none_removes_the_rate() {
    for ending in ENDINGS {
        let mock = responding_after_ms(10);
        let batch = fetcher(&mock)
            .batch(urls("a", 20))
            .rate(Rate::per_hour(1).burst(2));
        let handle = batch.handle();
        let started = Instant::now();
        let command = async {
            sleep(ms(500)).await;
            handle.set_rate(Rate::per_second(10).burst(1));
            sleep(ms(1000)).await;
            handle.set_rate(None);
        };
        let results = tokio::join!(ending.run(batch), command).0;
        assert!(all_ok(&results));
        let times = received_at_ms(&mock, "http://a", started);
        let slow: Vec<u128> = [0, 0]
            .into_iter()
            .chain((0..9).map(|n| 600 + 100 * n))
            .collect();
        assert_eq!(times[..11], slow, "{ending:?}");
        assert_eq!(times[11..], [1500; 9]);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_and_cancel_end_waiting_retry_with_its_last_result() {
    for is_drain in [true, false] {
        let mock = Mock::new()
            .on(
                "http://a.example/0",
                MockResponse::status(503).header("retry-after", "60"),
            )
            .fallback(MockResponse::text("x").delay(ms(100)));
        let batch = fetcher(&mock).batch(urls("a", 3)).concurrency(1);
        let handle = batch.handle();
        let command = async {
            sleep(secs(30)).await;
            if is_drain {
                handle.drain();
            } else {
                handle.cancel();
            }
        };
        let started = Instant::now();
        let results = tokio::join!(batch.gather(), command).0;
        assert_eq!(started.elapsed(), secs(30));
        assert_eq!(results[0].as_ref().unwrap().status(), 503);
        assert_eq!(
            count_outcomes(&results),
            (1, 0, 2),
            "requests to the paused host are never sent"
        );
        assert_eq!(mock.request_count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_stops_retries_and_redirects() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::status(302)
                .header("location", "http://b.example/")
                .delay(ms(100)),
        )
        .on(
            "http://a.example/1",
            MockResponse::status(503).delay(ms(100)),
        )
        .on(
            "http://a.example/2",
            MockResponse::error(ErrorKind::Closed).delay(ms(100)),
        )
        .fallback(MockResponse::text("x"));
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 3));
    let handle = batch.handle();
    let command = async {
        sleep(ms(50)).await;
        handle.drain();
    };
    let results = tokio::join!(batch.gather(), command).0;
    let redirect_error = results[0].as_ref().unwrap_err();
    assert_eq!(redirect_error.kind(), ErrorKind::Cancelled);
    assert!(redirect_error.maybe_sent());
    assert_eq!(redirect_error.redirects().len(), 1);
    assert_eq!(results[1].as_ref().unwrap().status(), 503);
    assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_drain_gather_returns_all_results_and_streams_pull_no_more_inputs() {
    for ending in ENDINGS {
        let pulled = Arc::new(AtomicUsize::new(0));
        let inputs = urls("a", 1000).inspect(|_| {
            pulled.fetch_add(1, Relaxed);
        });
        let mock = responding_after_ms(100);
        let batch = fetcher(&mock).batch(inputs).concurrency(10).look_ahead(50);
        let handle = batch.handle();
        let command = async {
            sleep(ms(150)).await;
            handle.drain();
        };
        let results = tokio::join!(ending.run(batch), command).0;
        let pulled = pulled.load(Relaxed);
        match ending {
            Ending::Gather => assert_eq!((results.len(), pulled), (1000, 1000)),
            Ending::TryGather => assert_eq!(results.len(), 1),
            _ => {
                assert_eq!(results.len(), pulled);
                assert!(pulled <= 50 + 20, "{pulled}");
            }
        }
        if ending != Ending::TryGather {
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
        }
        assert_eq!(mock.request_count(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn drained_batch_follows_no_links() {
    let mock = responding_after_ms(100);
    let links = |page: &Completed| {
        let from = page.request.url_str().to_owned();
        (0..10).map(move |n| format!("{from}{n}"))
    };
    let mut pages = fetcher(&mock)
        .batch(urls("a", 1))
        .concurrency(10)
        .as_completed()
        .follow_links(FollowLimits::default(), links);
    let handle = pages.handle();
    let drain = async {
        sleep(ms(250)).await;
        assert_eq!(handle.progress().total(), Some(1 + 10 + 100));
        handle.drain();
        handle.cancel();
        handle.drain();
    };
    let consume = async {
        let mut unsent = 0;
        while let Some(page) = pages.next().await {
            unsent += usize::from(page.result.is_err_and(|error| is_unsent(&error)));
        }
        unsent
    };
    let unsent = tokio::join!(consume, drain).0;
    let progress = handle.progress();
    // One request starts at 0 ms, ten at 100 ms, and ten of the next hundred at 200 ms.
    assert_eq!((mock.request_count(), progress.succeeded()), (21, 11));
    assert_eq!((progress.completed(), unsent), (111, 90));
    assert_eq!(pages.skipped_requests(), 100 * 10);
}

#[tokio::test(start_paused = true)]
async fn drained_try_gather_fails_if_inputs_remain() {
    let mock = responding_after_ms(100);
    let batch = fetcher(&mock)
        .batch(urls("a", 20))
        .concurrency(10)
        .look_ahead(10);
    let handle = batch.handle();
    let command = async {
        sleep(ms(50)).await;
        handle.drain();
    };
    let error = tokio::join!(batch.try_gather(), command).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(mock.request_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn drain_finishes_running_handlers_and_cancel_drops_them() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        for is_drain in [true, false] {
            let mock = Mock::new()
                .on(
                    "http://a.example/0",
                    MockResponse::status(503).delay(ms(100)),
                )
                .fallback(MockResponse::text("four").delay(ms(100)));
            let batch = fetcher(&mock)
                .batch(urls("a", 20))
                .concurrency(10)
                .deadline(secs(3600))
                .read_with(|mut body| async move {
                    sleep(ms(100)).await;
                    let mut length = 0;
                    while let Some(chunk) = body.next().await {
                        length += chunk?.len();
                    }
                    Ok(length)
                });
            let handle = batch.handle();
            let command = async {
                sleep(ms(50)).await;
                if is_drain {
                    handle.drain();
                } else {
                    sleep(ms(100)).await;
                    handle.cancel();
                }
            };
            let results = tokio::join!(ending.run(batch), command).0;
            let (ok, aborted, unsent) = count_outcomes(&results);
            if is_drain {
                assert_eq!((ok, aborted, unsent), (9, 1, 10));
                assert_eq!(handle.progress().body_bytes(), 9 * 4);
                // The first request was about to be retried, so its handler never got the response.
                let response = results.iter().find_map(|result| {
                    let error = result.as_ref().err()?;
                    error.response()
                });
                assert_eq!(response.unwrap().status(), 503);
            } else {
                assert_eq!(ok, 0);
            }
            assert_eq!(results.len(), 20);
            assert_eq!(mock.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn full_body_buffer_does_not_block_drain_or_cancel() {
    for ending in [Ending::AsCompleted, Ending::InOrder] {
        for is_drain in [true, false] {
            let mock = Mock::new().fallback(
                MockResponse::text("x".repeat(1000))
                    .delay(ms(100))
                    .body_delay(ms(100)),
            );
            let batch = fetcher(&mock)
                .batch(urls("a", 100))
                .concurrency(10)
                .max_buffered_bytes(1500);
            let handle = batch.handle();
            let command = async {
                sleep(ms(250)).await;
                if is_drain {
                    handle.drain();
                } else {
                    handle.cancel();
                }
            };
            let results = tokio::join!(ending.run(batch), command).0;
            assert_eq!(results.len(), 100);
            assert_eq!(mock.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn handle_outlives_batch_and_fetcher_without_keeping_them_alive() {
    let (mock, resource) = (responding_after_ms(100), Arc::new(()));
    let fetcher = fetcher(&mock);
    let inputs = urls("a", 10).map({
        let resource = Arc::clone(&resource);
        move |url| (Arc::clone(&resource), url)
    });
    let batch = fetcher.batch(inputs);
    let handle = batch.handle();
    assert_eq!(batch.gather().await.len(), 10);
    assert_eq!(Arc::strong_count(&resource), 1);

    let unpolled_handle = fetcher.batch(urls("a", 10)).handle();
    let dropped = fetcher.batch(urls("a", 10)).as_completed();
    let dropped_handle = dropped.handle();
    drop((dropped, fetcher));
    for handle in [handle, unpolled_handle, dropped_handle] {
        handle.pause();
        handle.resume();
        handle.set_concurrency(5);
        handle.set_rate(None);
        handle.cancel_host("http://a.example").unwrap();
        handle.drain();
        handle.cancel();
        assert!(handle.clone().progress().has_ended());
    }
    assert_eq!(mock.request_count(), 10);
}

#[test]
fn handle_works_on_thread_without_runtime() {
    fn assert_shareable<T: Send + Sync + Clone + 'static>(_: &T) {}
    let mock = responding_after_ms(20);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 100)).concurrency(1);
    let handle = batch.handle();
    assert_shareable(&handle);
    handle.pause();
    let controller = std::thread::spawn({
        let mock = mock.clone();
        move || {
            while handle.progress().waiting().while_paused() == 0 {
                std::thread::yield_now();
            }
            assert_eq!(mock.request_count(), 0);
            handle.set_concurrency(10);
            handle.resume();
            while handle.progress().completed() < 10 {
                std::thread::yield_now();
            }
            handle.drain();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let results = runtime.block_on(batch.gather());
    controller.join().unwrap();
    assert_eq!(results.len(), 100);
    let (ok, aborted, unsent) = count_outcomes(&results);
    assert_eq!((ok, aborted, unsent), (mock.request_count(), 0, 100 - ok));
    assert!((10..100).contains(&ok), "{ok}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "pause it")]
async fn set_concurrency_to_zero_panics() {
    fetcher(&responding_after_ms(1))
        .batch(urls("a", 1))
        .handle()
        .set_concurrency(0);
}
