//! A handle on a batch: what it orders holds at once, in every ending, and one result per input stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{
    Batch, BatchHandle, Completed, Error, ErrorKind, Follow, Mock, MockResponse, Rate, Response,
    Result,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::{all_ok, answers_in, fetcher, ms, over, received, secs, urls};

#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Ending {
    Gather,
    TryGather,
    AsCompleted,
    InOrder,
}

const ENDINGS: [Ending; 4] = [
    Ending::Gather,
    Ending::TryGather,
    Ending::AsCompleted,
    Ending::InOrder,
];

impl Ending {
    /// All results, in the order they are given; of `try_gather` only its error, if it has one.
    pub(super) async fn of<R: Send + 'static>(self, batch: Batch<'_, (), R>) -> Vec<Result<R>> {
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

/// A batch of a hundred to one host, ten at once, each taking 100 ms; and an order that is given after so long.
async fn steered(
    mock: &Mock,
    ending: Ending,
    after: u64,
    order: impl FnOnce(BatchHandle),
) -> Vec<Result<Response>> {
    let batch = fetcher(mock).batch(urls("a", 100)).concurrency(10);
    let handle = batch.handle();
    let order = async {
        sleep(ms(after)).await;
        order(handle);
    };
    tokio::join!(ending.of(batch), order).0
}

fn is_unsent(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled && !error.maybe_sent() && error.attempts().is_empty()
}

/// How many are responses, how many were cut off on the wire, and how many were never sent.
pub(super) fn counted<R>(results: &[Result<R>]) -> (usize, usize, usize) {
    let ok = results.iter().filter(|result| result.is_ok()).count();
    let errors = results.iter().filter_map(|result| result.as_ref().err());
    let unsent = errors.filter(|error| is_unsent(error)).count();
    let cut_off = results.iter().filter_map(|result| result.as_ref().err());
    let cut_off = cut_off
        .filter(|error| error.kind() == ErrorKind::Cancelled && error.attempts().len() == 1)
        .count();
    (ok, cut_off, unsent)
}

#[tokio::test(start_paused = true)]
async fn a_drained_batch_finishes_what_is_on_the_wire_and_sends_nothing_new() {
    for ending in ENDINGS {
        let mock = answers_in(100);
        let started = Instant::now();
        let results = steered(&mock, ending, 250, |handle| handle.drain()).await;
        match ending {
            Ending::TryGather => {
                assert!(is_unsent(results[0].as_ref().unwrap_err()));
                assert_eq!(started.elapsed(), ms(250));
            }
            _ => {
                assert_eq!(counted(&results), (30, 0, 70), "{ending:?}");
                assert_eq!(started.elapsed(), ms(300));
            }
        }
        // What `try_gather` cancels is dropped where it runs.
        yield_now().await;
        assert_eq!(
            (mock.request_count(), mock.in_flight()),
            (30, 0),
            "{ending:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_batch_ends_at_once_with_one_result_per_input() {
    for ending in ENDINGS {
        let mock = answers_in(100);
        let started = Instant::now();
        let results = steered(&mock, ending, 250, |handle| handle.cancel()).await;
        match ending {
            Ending::TryGather => {
                assert_eq!(
                    results[0].as_ref().unwrap_err().kind(),
                    ErrorKind::Cancelled
                );
            }
            _ => assert_eq!(counted(&results), (20, 10, 70), "{ending:?}"),
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
async fn a_paused_batch_starts_nothing_and_goes_on_in_the_same_order() {
    for ending in ENDINGS {
        let mock = answers_in(100);
        let started = Instant::now();
        let results = steered(&mock, ending, 250, |handle| {
            handle.pause();
            handle.pause();
            tokio::spawn(async move {
                sleep(secs(3600)).await;
                handle.resume();
            });
        })
        .await;
        assert!(all_ok(&results), "{ending:?}");
        // Those on the wire at 250 ms were done at 300 ms; the ten after them went an hour later.
        let times = received(&mock, "http://a", started);
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
async fn a_pause_costs_others_no_slot_and_its_own_no_timeout() {
    let mock = answers_in(100);
    let fetcher = over(&mock).concurrency(10).build().unwrap();
    let batch = fetcher.batch(urls("a", 100));
    let handle = batch.handle();
    let paused = tokio::spawn(batch.gather());
    sleep(ms(150)).await;
    handle.pause();
    // Its last ten are on the wire until 200 ms; after that the other has all the slots.
    sleep(ms(50)).await;
    let started = Instant::now();
    assert!(all_ok(&fetcher.gather(urls("b", 100)).await));
    assert_eq!(started.elapsed(), secs(1));
    sleep(secs(24 * 3600)).await;
    assert_eq!(mock.request_count_to("http://a.example/*"), 20);
    handle.resume();
    let results = paused.await.unwrap();
    assert!(all_ok(&results));
    let waited = results[99].as_ref().unwrap().timings().queued();
    assert!(waited >= secs(24 * 3600));
}

#[tokio::test(start_paused = true)]
async fn a_paused_batch_still_has_its_deadline() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        let mock = answers_in(100);
        let batch = fetcher(&mock)
            .batch(urls("a", 100))
            .concurrency(10)
            .deadline(secs(5));
        batch.handle().pause();
        let started = Instant::now();
        let results = ending.of(batch).await;
        assert_eq!((results.len(), mock.request_count()), (100, 0));
        let ended = |result: &Result<Response>| result.as_ref().unwrap_err().kind();
        assert!(
            results
                .iter()
                .map(ended)
                .all(|kind| kind == ErrorKind::Deadline)
        );
        assert_eq!(started.elapsed(), secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_batch_is_ended_without_being_resumed() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        for end in [BatchHandle::drain, BatchHandle::cancel] {
            let mock = answers_in(100);
            let results = steered(&mock, ending, 150, |handle| {
                handle.pause();
                end(&handle);
            });
            let (ok, cut_off, unsent) = counted(&results.await);
            assert_eq!((ok + cut_off, unsent, mock.request_count()), (20, 80, 20));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ordered_before_the_first_poll_holds_from_the_beginning() {
    for ending in ENDINGS {
        let mock = answers_in(100);
        let batch = fetcher(&mock).batch(urls("a", 10)).concurrency(10);
        let handle = batch.handle();
        handle.pause();
        handle.resume();
        handle.set_concurrency(5);
        handle.set_rate(Rate::per_second(10).burst(5));
        let started = Instant::now();
        assert!(all_ok(&ending.of(batch).await));
        let times = received(&mock, "http://a", started);
        assert_eq!(
            times,
            [0, 0, 0, 0, 0, 100, 200, 300, 400, 500],
            "{ending:?}"
        );

        let batch = fetcher(&mock).batch(urls("b", 10));
        batch.handle().drain();
        let results = ending.of(batch).await;
        match ending {
            Ending::Gather => assert_eq!(counted(&results), (0, 0, 10)),
            Ending::TryGather => {
                assert_eq!(
                    results[0].as_ref().unwrap_err().kind(),
                    ErrorKind::Cancelled
                );
            }
            _ => assert!(results.is_empty(), "no input is taken"),
        }
        assert_eq!(mock.request_count_to("http://b.example/*"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_higher_concurrency_starts_more_at_once_and_widens_the_window() {
    for ending in ENDINGS {
        let mock = answers_in(100);
        let batch = fetcher(&mock).batch(urls("a", 1000)).concurrency(1);
        let handle = batch.handle();
        let started = Instant::now();
        let order = async {
            sleep(ms(150)).await;
            handle.set_concurrency(100);
        };
        let results = tokio::join!(ending.of(batch), order).0;
        assert!(all_ok(&results));
        // The second was on the wire at 150 ms; 99 more go with it, and then as each one ends.
        let times = received(&mock, "http://a", started);
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
async fn a_lower_concurrency_lets_those_on_the_wire_end_and_starts_none_before_they_are_fewer() {
    let mock = answers_in(1000);
    let batch = fetcher(&mock).batch(urls("a", 15)).concurrency(10);
    let handle = batch.handle();
    let started = Instant::now();
    let order = async {
        sleep(ms(500)).await;
        handle.set_concurrency(2);
    };
    let results = tokio::join!(batch.gather(), order).0;
    assert!(all_ok(&results));
    let times = received(&mock, "http://a", started);
    assert_eq!(times[..10], [0; 10]);
    assert_eq!(times[10..], [1000, 1000, 2000, 2000, 3000]);
}

#[tokio::test(start_paused = true)]
async fn the_fetchers_own_limit_stays_the_ceiling() {
    let mock = answers_in(100);
    let fetcher = over(&mock).concurrency(7).build().unwrap();
    let batch = fetcher.batch(urls("a", 50));
    batch.handle().set_concurrency(1000);
    assert!(all_ok(&batch.gather().await));
    assert_eq!(mock.max_in_flight(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_holds_from_the_next_start_on_and_none_lets_all_go() {
    for ending in ENDINGS {
        let mock = answers_in(10);
        let batch = fetcher(&mock)
            .batch(urls("a", 20))
            .rate(Rate::per_hour(1).burst(2));
        let handle = batch.handle();
        let started = Instant::now();
        let order = async {
            sleep(ms(500)).await;
            handle.set_rate(Rate::per_second(10).burst(1));
            sleep(ms(1000)).await;
            handle.set_rate(None);
        };
        let results = tokio::join!(ending.of(batch), order).0;
        assert!(all_ok(&results));
        let times = received(&mock, "http://a", started);
        let slow: Vec<u128> = [0, 0]
            .into_iter()
            .chain((0..9).map(|n| 600 + 100 * n))
            .collect();
        assert_eq!(times[..11], slow, "{ending:?}");
        assert_eq!(times[11..], [1500; 9]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_to_be_tried_again_ends_with_its_last_result() {
    for is_drained in [true, false] {
        let mock = Mock::new()
            .on(
                "http://a.example/0",
                MockResponse::status(503).header("retry-after", "60"),
            )
            .fallback(MockResponse::text("x").delay(ms(100)));
        let batch = fetcher(&mock).batch(urls("a", 3)).concurrency(1);
        let handle = batch.handle();
        let order = async {
            sleep(secs(30)).await;
            match is_drained {
                true => handle.drain(),
                false => handle.cancel(),
            }
        };
        let started = Instant::now();
        let results = tokio::join!(batch.gather(), order).0;
        assert_eq!(started.elapsed(), secs(30));
        assert_eq!(results[0].as_ref().unwrap().status(), 503);
        assert_eq!(counted(&results), (1, 0, 2), "their host was paused");
        assert_eq!(mock.request_count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_again_after_a_drain_neither_a_retry_nor_a_redirect() {
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
    let order = async {
        sleep(ms(50)).await;
        handle.drain();
    };
    let results = tokio::join!(batch.gather(), order).0;
    let redirected = results[0].as_ref().unwrap_err();
    assert_eq!(redirected.kind(), ErrorKind::Cancelled);
    assert!(redirected.maybe_sent());
    assert_eq!(redirected.redirects().len(), 1);
    assert_eq!(results[1].as_ref().unwrap().status(), 503);
    assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn gather_answers_the_inputs_that_were_not_taken_and_streams_take_no_more() {
    for ending in ENDINGS {
        let taken = Arc::new(AtomicUsize::new(0));
        let inputs = urls("a", 1000).inspect(|_| {
            taken.fetch_add(1, Relaxed);
        });
        let mock = answers_in(100);
        let batch = fetcher(&mock).batch(inputs).concurrency(10).look_ahead(50);
        let handle = batch.handle();
        let order = async {
            sleep(ms(150)).await;
            handle.drain();
        };
        let results = tokio::join!(ending.of(batch), order).0;
        let taken = taken.load(Relaxed);
        match ending {
            Ending::Gather => assert_eq!((results.len(), taken), (1000, 1000)),
            Ending::TryGather => assert_eq!(results.len(), 1),
            _ => {
                assert_eq!(results.len(), taken);
                assert!(taken <= 50 + 20, "{taken}");
            }
        }
        if ending != Ending::TryGather {
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
        }
        assert_eq!(mock.request_count(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_batch_follows_nothing_more() {
    let mock = answers_in(100);
    let links = |page: &Completed| {
        let from = page.request.url_str().to_owned();
        (0..10).map(move |n| format!("{from}{n}"))
    };
    let mut pages = fetcher(&mock)
        .batch(urls("a", 1))
        .concurrency(10)
        .as_completed()
        .follow(Follow::new(links));
    let handle = pages.handle();
    let drain = async {
        sleep(ms(250)).await;
        assert_eq!(handle.progress().total(), Some(1 + 10 + 100));
        handle.drain();
        handle.cancel();
        handle.drain();
    };
    let read = async {
        let mut unsent = 0;
        while let Some(page) = pages.next().await {
            unsent += usize::from(page.result.is_err_and(|error| is_unsent(&error)));
        }
        unsent
    };
    let unsent = tokio::join!(read, drain).0;
    let progress = handle.progress();
    // One at 0 ms, ten at 100 ms, ten of the hundred after them at 200 ms.
    assert_eq!((mock.request_count(), progress.succeeded()), (21, 11));
    assert_eq!((progress.completed(), unsent), (111, 90));
    assert_eq!(pages.skipped(), 100 * 10);
}

#[tokio::test(start_paused = true)]
async fn try_gather_fails_though_all_that_it_took_went_well() {
    let mock = answers_in(100);
    let batch = fetcher(&mock)
        .batch(urls("a", 20))
        .concurrency(10)
        .look_ahead(10);
    let handle = batch.handle();
    let order = async {
        sleep(ms(50)).await;
        handle.drain();
    };
    let error = tokio::join!(batch.try_gather(), order).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(mock.request_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_handler_under_way_is_finished_by_a_drain_and_cut_off_by_a_cancel() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        for is_drained in [true, false] {
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
                    Ok::<_, Error>(length)
                });
            let handle = batch.handle();
            let order = async {
                sleep(ms(50)).await;
                match is_drained {
                    true => handle.drain(),
                    false => {
                        sleep(ms(100)).await;
                        handle.cancel();
                    }
                }
            };
            let results = tokio::join!(ending.of(batch), order).0;
            let (ok, cut_off, unsent) = counted(&results);
            match is_drained {
                true => {
                    assert_eq!((ok, cut_off, unsent), (9, 1, 10));
                    assert_eq!(handle.progress().body_bytes(), 9 * 4);
                    // The first was to be tried again, and its handler has not had it.
                    let error = results.iter().find_map(|result| {
                        let error = result.as_ref().err()?;
                        error.response()
                    });
                    assert_eq!(error.unwrap().status(), 503);
                }
                false => assert_eq!(ok, 0),
            }
            assert_eq!(results.len(), 20);
            assert_eq!(mock.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_is_no_hindrance_to_a_drain_or_a_cancel() {
    for ending in [Ending::AsCompleted, Ending::InOrder] {
        for is_drained in [true, false] {
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
            let order = async {
                sleep(ms(250)).await;
                match is_drained {
                    true => handle.drain(),
                    false => handle.cancel(),
                }
            };
            let results = tokio::join!(ending.of(batch), order).0;
            assert_eq!(results.len(), 100);
            assert_eq!(mock.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_outlives_its_batch_and_its_fetcher_and_holds_neither() {
    let (mock, kept) = (answers_in(100), Arc::new(()));
    let fetcher = fetcher(&mock);
    let inputs = urls("a", 10).map({
        let kept = Arc::clone(&kept);
        move |url| (Arc::clone(&kept), url)
    });
    let batch = fetcher.batch(inputs);
    let handle = batch.handle();
    assert_eq!(batch.gather().await.len(), 10);
    assert_eq!(Arc::strong_count(&kept), 1);

    let never = fetcher.batch(urls("a", 10)).handle();
    let dropped = fetcher.batch(urls("a", 10)).as_completed();
    let of_dropped = dropped.handle();
    drop((dropped, fetcher));
    for handle in [handle, never, of_dropped] {
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
fn a_handle_is_used_from_a_thread_without_a_runtime() {
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let mock = answers_in(20);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 100)).concurrency(1);
    let handle = batch.handle();
    is_shared(&handle);
    handle.pause();
    let elsewhere = std::thread::spawn({
        let mock = mock.clone();
        move || {
            while handle.progress().waiting().paused() == 0 {
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
    elsewhere.join().unwrap();
    assert_eq!(results.len(), 100);
    let (ok, cut_off, unsent) = counted(&results);
    assert_eq!((ok, cut_off, unsent), (mock.request_count(), 0, 100 - ok));
    assert!((10..100).contains(&ok), "{ok}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "pause it")]
async fn a_concurrency_of_nothing_is_refused() {
    fetcher(&answers_in(1))
        .batch(urls("a", 1))
        .handle()
        .set_concurrency(0);
}
