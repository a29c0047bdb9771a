//! Siblings (Fetchers from `to_builder`) with a concurrency and a rate of their own.

use fanout::{ErrorKind, Fetcher, FetcherBuilder, Mock, MockResponse, Rate, Retry, WaitReason};
use tokio::join;
use tokio::time::{Instant, sleep, timeout};

use super::{all_ok, builder, fetcher, ms, received_at_ms, responding_after_ms, secs, urls};

const A: &str = "http://a.example/*";
const B: &str = "http://b.example/*";
const C: &str = "http://c.example/*";

fn every_ms(interval: u128, count: u128) -> Vec<u128> {
    (0..count).map(|n| n * interval).collect()
}

#[tokio::test(start_paused = true)]
async fn concurrency_of_a_sibling_limits_all_its_batches_and_fetches_together() {
    let mock = responding_after_ms(100);
    let parent = fetcher(&mock);
    let sibling = parent.to_builder().concurrency(3).build().unwrap();
    let clone = sibling.clone();
    let started = Instant::now();
    let fetches: Vec<_> = urls("a", 4)
        .map(|url| tokio::spawn(clone.fetch(url)))
        .collect();
    let (one, two, of_parent) = join!(
        sibling.gather(urls("a", 4)),
        clone.batch(urls("a", 4)).concurrency(50).gather(),
        parent.gather(urls("b", 50)),
    );
    for fetch in fetches {
        fetch.await.unwrap().unwrap();
    }
    assert!(all_ok(&one) && all_ok(&two) && all_ok(&of_parent));
    assert_eq!(
        (mock.max_in_flight_to(A), mock.max_in_flight_to(B)),
        (3, 50)
    );
    assert_eq!(started.elapsed(), ms(400));
}

#[tokio::test(start_paused = true)]
async fn rate_of_a_sibling_spaces_all_its_batches_and_fetches() {
    let mock = responding_after_ms(5);
    let parent = fetcher(&mock);
    let sibling = parent
        .to_builder()
        .rate(Rate::per_second(10))
        .build()
        .unwrap();
    let started = Instant::now();
    let fetches = async {
        for url in urls("a", 3) {
            sibling.fetch(url).await.unwrap();
        }
    };
    join!(
        sibling.gather(urls("a", 4)),
        sibling.gather(urls("a", 5)),
        fetches,
        parent.gather(urls("b", 20)),
    );
    assert_eq!(
        received_at_ms(&mock, "http://a", started),
        every_ms(100, 12)
    );
    assert_eq!(received_at_ms(&mock, "http://b", started), [0; 20]);
}

#[tokio::test(start_paused = true)]
async fn siblings_have_separate_limits_within_the_shared_concurrency() {
    let mock = responding_after_ms(100);
    let parent = builder(&mock).concurrency(6).build().unwrap();
    let with = |setting: fn(FetcherBuilder) -> FetcherBuilder| {
        setting(parent.to_builder()).build().unwrap()
    };
    let ten_per_second = with(|sibling| sibling.rate(Rate::per_second(10)));
    let five_per_second = with(|sibling| sibling.rate(Rate::per_second(5)));
    let two_in_flight = with(|sibling| sibling.concurrency(2));
    let started = Instant::now();
    join!(
        ten_per_second.gather(urls("a", 20)),
        five_per_second.gather(urls("b", 10)),
        two_in_flight.gather(urls("c", 40)),
        parent.gather(urls("d", 40)),
    );
    // The rates need at most 2 slots, and the sibling with a concurrency needs 2. The other 2 are
    // left for the parent.
    assert_eq!(
        received_at_ms(&mock, "http://a", started),
        every_ms(100, 20)
    );
    assert_eq!(
        received_at_ms(&mock, "http://b", started),
        every_ms(200, 10)
    );
    assert_eq!((mock.max_in_flight(), mock.max_in_flight_to(C)), (6, 2));
    assert_eq!(started.elapsed(), ms(2000));
}

#[tokio::test(start_paused = true)]
async fn shared_concurrency_is_the_ceiling_of_all_siblings() {
    let mock = responding_after_ms(100);
    let parent = builder(&mock).concurrency(4).build().unwrap();
    let [one, two] = [3, 500].map(|limit| parent.to_builder().concurrency(limit).build().unwrap());
    let started = Instant::now();
    join!(one.gather(urls("a", 20)), two.gather(urls("b", 20)));
    assert_eq!((mock.max_in_flight(), started.elapsed()), (4, ms(1000)));
    assert!(mock.max_in_flight_to(A) <= 3);
}

#[tokio::test(start_paused = true)]
async fn concurrency_of_a_sibling_is_the_default_of_its_batches_and_fetches() {
    let mock = responding_after_ms(100);
    let wide = fetcher(&mock)
        .to_builder()
        .concurrency(300)
        .build()
        .unwrap();
    assert!(all_ok(&wide.gather(urls("a", 300)).await));
    assert_eq!(mock.max_in_flight(), 300);
    let fetches: Vec<_> = urls("b", 300)
        .map(|url| tokio::spawn(wide.fetch(url)))
        .collect();
    for fetch in fetches {
        fetch.await.unwrap().unwrap();
    }
    assert_eq!(mock.max_in_flight_to(B), 300);
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_sibling_outlast_its_batches_and_the_sibling() {
    let mock = responding_after_ms(5);
    let parent = fetcher(&mock);
    let slow = |parent: &Fetcher| parent.to_builder().rate(Rate::per_second(1)).build();
    let sibling = slow(&parent).unwrap();
    let started = Instant::now();
    sibling.gather(urls("a", 1)).await;
    sibling.gather(urls("a", 1)).await;
    sibling.fetch("http://a.example/").await.unwrap();
    let last = sibling.gather(urls("a", 2));
    drop(sibling);
    last.await;
    assert_eq!(
        received_at_ms(&mock, "http://a", started),
        every_ms(1000, 5)
    );
    let other = slow(&parent).unwrap();
    other.fetch("http://b.example/").await.unwrap();
    assert_eq!(started.elapsed(), ms(4010));
}

#[tokio::test(start_paused = true)]
async fn batch_handle_changes_the_batch_within_the_limits_of_its_sibling() {
    let mock = responding_after_ms(100);
    let sibling = fetcher(&mock).to_builder().concurrency(4).build().unwrap();
    let (one, two) = (sibling.batch(urls("a", 40)), sibling.batch(urls("b", 40)));
    let handles = [one.handle(), two.handle()];
    let change = async {
        sleep(ms(150)).await;
        handles[0].set_concurrency(1);
        sleep(ms(1000)).await;
        handles[0].set_concurrency(50);
        handles[1].set_rate(Some(Rate::per_second(10)));
        sleep(ms(1000)).await;
        handles[1].set_rate(None);
        handles[1].pause();
        sleep(ms(1000)).await;
        handles[1].resume();
    };
    let (one, two, ()) = join!(one.gather(), two.gather(), change);
    assert!(all_ok(&one) && all_ok(&two));
    assert_eq!(mock.max_in_flight(), 4);
}

#[tokio::test(start_paused = true)]
async fn progress_names_the_limit_of_the_sibling_as_the_reason() {
    let mock = responding_after_ms(100);
    let parent = fetcher(&mock);
    for (setting, reason) in [
        (parent.to_builder().concurrency(1), WaitReason::Concurrency),
        (
            parent.to_builder().rate(Rate::per_second(2)),
            WaitReason::Rate,
        ),
    ] {
        let sibling = setting.build().unwrap();
        let (one, two) = (sibling.batch(urls("a", 3)), sibling.batch(urls("b", 3)));
        let handles = [one.handle(), two.handle()];
        let watch = async {
            sleep(ms(50)).await;
            for handle in handles {
                let progress = handle.progress();
                let waiting = progress.waiting();
                let count = match reason {
                    WaitReason::Rate => waiting.for_rate(),
                    _ => waiting.for_concurrency(),
                };
                assert!(count >= 2 && count == waiting.total(), "{progress}");
                let hosts = progress.busiest_hosts();
                assert_eq!(hosts[0].wait_reason(), reason);
            }
        };
        join!(one.gather(), two.gather(), watch);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_and_redirects_count_against_the_rate_of_a_sibling() {
    let mock = Mock::new()
        .on(
            A,
            MockResponse::status(302).header("location", "http://b.example/"),
        )
        .on(C, MockResponse::status(503))
        .fallback(MockResponse::text("x"));
    let sibling = fetcher(&mock)
        .to_builder()
        .rate(Rate::per_second(1))
        .retry(Retry::default().max_retries(1))
        .build()
        .unwrap();
    let started = Instant::now();
    let (redirected, retried) = join!(
        sibling.fetch("http://a.example/"),
        sibling.fetch("http://c.example/")
    );
    assert_eq!(redirected.unwrap().status(), 200);
    assert_eq!(retried.unwrap().status(), 503);
    assert_eq!(received_at_ms(&mock, "", started), every_ms(1000, 4));
}

#[tokio::test(start_paused = true)]
async fn cancelled_fetch_of_a_sibling_frees_its_slot() {
    let mock = responding_after_ms(1000);
    let sibling = fetcher(&mock).to_builder().concurrency(1).build().unwrap();
    let started = Instant::now();
    let cancelled = sibling.fetch("http://a.example/1");
    assert!(timeout(ms(100), cancelled).await.is_err());
    let queued = sibling.fetch("http://a.example/2");
    join!(
        async {
            sibling.fetch("http://a.example/3").await.unwrap();
        },
        async {
            assert!(timeout(ms(100), queued).await.is_err());
        },
    );
    assert_eq!(started.elapsed(), ms(1100));
}

#[tokio::test(start_paused = true)]
async fn deadline_before_the_next_start_of_a_sibling_ends_its_requests_at_once() {
    let mock = responding_after_ms(1);
    let sibling = fetcher(&mock)
        .to_builder()
        .rate(Rate::per_minute(1))
        .build()
        .unwrap();
    let started = Instant::now();
    let results = sibling.batch(urls("a", 3)).deadline(secs(5)).gather().await;
    assert!(results[0].is_ok());
    for late in &results[1..] {
        assert_eq!(late.as_ref().unwrap_err().kind(), ErrorKind::Deadline);
    }
    assert_eq!(started.elapsed(), ms(1));
}

#[tokio::test(start_paused = true)]
async fn sibling_of_a_limited_sibling_shares_its_limits_and_sets_no_others() {
    let mock = responding_after_ms(100);
    let parent = fetcher(&mock);
    let limited = parent.to_builder().concurrency(2).build().unwrap();
    let same = limited.to_builder().retry(Retry::off()).build().unwrap();
    drop(parent);
    join!(limited.gather(urls("a", 6)), same.gather(urls("a", 6)));
    assert_eq!(mock.max_in_flight(), 2);

    type Setting = fn(FetcherBuilder) -> FetcherBuilder;
    let settings: [(&str, Setting); 2] = [
        ("concurrency", |builder| builder.concurrency(1)),
        ("rate", |builder| builder.rate(Rate::per_second(1))),
    ];
    for (name, setting) in settings {
        for parent in [&limited, &same] {
            let error = setting(parent.to_builder()).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            let text = error.to_string();
            assert!(text.contains(&format!("`{name}` cannot be set")), "{text}");
        }
    }
    let unlimited = fetcher(&mock).to_builder().build().unwrap();
    let sibling = unlimited.to_builder().concurrency(5).build().unwrap();
    assert!(all_ok(&sibling.gather(urls("b", 20)).await));
    assert_eq!(mock.max_in_flight_to(B), 5);
}

#[test]
fn sibling_limit_spans_runtimes() {
    let mock = responding_after_ms(2);
    let sibling = fetcher(&mock).to_builder().concurrency(2).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().unwrap();
                runtime.block_on(async {
                    for url in urls("a", 3) {
                        sibling.fetch(url).await.unwrap();
                    }
                    assert!(all_ok(&sibling.gather(urls("a", 10)).await));
                });
            });
        }
    });
    assert!(mock.max_in_flight() <= 2);
}
