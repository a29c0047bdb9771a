//! Concurrency and rate limits of fetchers, batches and hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{Fetcher, Host, KeyLimits, Mock, MockResponse, Rate, Request, Retry, RetryBudget};
use tokio::join;
use tokio::time::{Instant, sleep};

use super::{all_ok, builder, fetcher, ms, received_at_ms, responding_after_ms, secs, urls};

const A: &str = "http://a.example/*";
const B: &str = "http://b.example/*";

#[tokio::test(start_paused = true)]
async fn batch_has_concurrency_100_by_default() {
    let mock = responding_after_ms(100);
    let started = Instant::now();
    assert!(all_ok(&fetcher(&mock).gather(urls("a", 250)).await));
    assert_eq!((mock.max_in_flight(), started.elapsed()), (100, ms(300)));
}

#[tokio::test(start_paused = true)]
async fn batch_concurrency_overrides_default() {
    let mock = responding_after_ms(100);
    let started = Instant::now();
    fetcher(&mock)
        .batch(urls("a", 1000))
        .concurrency(500)
        .gather()
        .await;
    assert_eq!((mock.max_in_flight(), started.elapsed()), (500, ms(200)));
}

#[tokio::test(start_paused = true)]
async fn batch_cannot_exceed_fetcher_limits() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock)
        .concurrency(5)
        .concurrency_per_host(3)
        .build()
        .unwrap();
    let both = urls("a", 20).chain(urls("b", 20));
    fetcher
        .batch(both)
        .concurrency(50)
        .concurrency_per_host(50)
        .gather()
        .await;
    assert_eq!(
        (
            mock.max_in_flight(),
            mock.max_in_flight_to(A),
            mock.max_in_flight_to(B)
        ),
        (5, 3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn batches_share_fetcher_concurrency() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency(10).build().unwrap();
    let started = Instant::now();
    join!(fetcher.gather(urls("a", 40)), fetcher.gather(urls("b", 40)));
    assert_eq!((mock.max_in_flight(), started.elapsed()), (10, ms(800)));
}

#[tokio::test(start_paused = true)]
async fn batches_share_fetcher_concurrency_per_host_but_not_their_own() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency_per_host(4).build().unwrap();
    join!(fetcher.gather(urls("a", 20)), fetcher.gather(urls("a", 20)));
    assert_eq!(mock.max_in_flight(), 4);

    let mock = responding_after_ms(100);
    let fetcher = super::fetcher(&mock);
    let (one, two) = (fetcher.batch(urls("a", 20)), fetcher.batch(urls("a", 20)));
    join!(
        one.concurrency_per_host(3).gather(),
        two.concurrency_per_host(2).gather()
    );
    assert_eq!(mock.max_in_flight(), 5);
}

#[tokio::test(start_paused = true)]
async fn single_fetches_share_fetcher_concurrency() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency(3).build().unwrap();
    let started = Instant::now();
    let tasks: Vec<_> = urls("a", 9)
        .map(|url| tokio::spawn(fetcher.fetch(url)))
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!((mock.max_in_flight(), started.elapsed()), (3, ms(300)));
}

#[tokio::test(start_paused = true)]
async fn rate_spaces_starts_evenly() {
    let mock = responding_after_ms(5000);
    let started = Instant::now();
    fetcher(&mock)
        .batch(urls("a", 20))
        .rate(Rate::per_second(10))
        .gather()
        .await;
    let expected: Vec<u128> = (0..20).map(|n| n * 100).collect();
    assert_eq!(received_at_ms(&mock, "", started), expected);
}

#[tokio::test(start_paused = true)]
async fn burst_starts_at_once_before_rate_applies() {
    let mock = responding_after_ms(1);
    let started = Instant::now();
    fetcher(&mock)
        .batch(urls("a", 10))
        .rate(Rate::per_second(10).burst(4))
        .gather()
        .await;
    assert_eq!(
        received_at_ms(&mock, "", started),
        [0, 0, 0, 0, 100, 200, 300, 400, 500, 600]
    );
}

#[tokio::test(start_paused = true)]
async fn rate_above_timer_resolution_is_kept() {
    let mock = responding_after_ms(1);
    let started = Instant::now();
    fetcher(&mock)
        .batch(urls("a", 10_001))
        .rate(Rate::per_second(5000))
        .gather()
        .await;
    let elapsed = started.elapsed();
    assert!((ms(1980)..=ms(2020)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn batches_share_fetcher_rate() {
    let mock = responding_after_ms(1);
    let fetcher = builder(&mock).rate(Rate::per_second(10)).build().unwrap();
    let started = Instant::now();
    join!(fetcher.gather(urls("a", 10)), fetcher.gather(urls("b", 10)));
    let expected: Vec<u128> = (0..20).map(|n| n * 100).collect();
    assert_eq!(received_at_ms(&mock, "", started), expected);
    // The batches alternate.
    assert_eq!(
        received_at_ms(&mock, "http://b.", started)[..8],
        [100, 300, 500, 700, 900, 1100, 1300, 1500]
    );
}

#[tokio::test(start_paused = true)]
async fn rate_is_reached_beside_a_busy_batch() {
    let mock = responding_after_ms(50);
    let fetcher = builder(&mock).concurrency(12).build().unwrap();
    let busy = tokio::spawn(
        fetcher
            .batch(urls("busy", 10_000))
            .concurrency(1_000)
            .gather(),
    );
    let rate = Rate::per_second(40);
    let started = Instant::now();
    join!(
        fetcher.batch(urls("a", 200)).rate(rate).gather(),
        fetcher.batch(urls("b", 200)).rate_per_host(rate).gather()
    );
    busy.abort();
    for host in ["http://a.", "http://b."] {
        let starts = received_at_ms(&mock, host, started);
        let took = starts[199] - starts[0];
        assert!(
            took <= 5_240,
            "{host}: 199 intervals took {took} ms, where 4,975 is ideal"
        );
        for &from in &starts {
            let second = from..from + 1_000;
            let count = starts.iter().filter(|at| second.contains(at)).count();
            assert!(
                count <= 43,
                "{host}: {count} starts in the second from {from} ms"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rate_per_host_is_independent_for_each_host() {
    let mock = responding_after_ms(1);
    let fetcher = builder(&mock)
        .rate_per_host(Rate::per_second(10))
        .build()
        .unwrap();
    let started = Instant::now();
    join!(
        fetcher.gather(urls("a", 5).chain(urls("b", 5))),
        fetcher.gather(urls("a", 5))
    );
    assert_eq!(
        received_at_ms(&mock, "http://b.", started),
        [0, 100, 200, 300, 400]
    );
    assert_eq!(
        received_at_ms(&mock, "http://a.", started),
        [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    );

    let mock = responding_after_ms(1);
    let fetcher = super::fetcher(&mock);
    let started = Instant::now();
    let rated_batch = |host| {
        fetcher
            .batch(urls(host, 3))
            .rate_per_host(Rate::per_second(10))
            .gather()
    };
    join!(rated_batch("a"), rated_batch("a"));
    assert_eq!(
        received_at_ms(&mock, "", started),
        [0, 0, 100, 100, 200, 200]
    );
}

#[tokio::test(start_paused = true)]
async fn retries_count_toward_rate() {
    let mock = Mock::new()
        .on("http://a.example/0", 500)
        .then(500)
        .then(200)
        .fallback(200);
    let started = Instant::now();
    let retry = Retry::default().base_delay(ms(0));
    fetcher(&mock)
        .batch(urls("a", 3))
        .retry(retry)
        .rate(Rate::per_second(10))
        .gather()
        .await;
    assert_eq!(received_at_ms(&mock, "", started), [0, 100, 200, 300, 400]);
    assert_eq!(
        received_at_ms(&mock, "http://a.example/0", started),
        [0, 100, 200]
    );
}

#[tokio::test(start_paused = true)]
async fn host_overrides_limits_and_headers() {
    let mock = responding_after_ms(100);
    let host = Host::new().concurrency(1).header("x-client", "nightly");
    let rated_host = Host::new().rate(Rate::per_second(2));
    let fetcher = builder(&mock)
        .concurrency_per_host(4)
        .host("http://a.example", host)
        .host("http://b.example:80/", rated_host)
        .build()
        .unwrap();
    let started = Instant::now();
    fetcher
        .gather(urls("a", 5).chain(urls("b", 5)).chain(urls("c", 20)))
        .await;
    assert_eq!(
        received_at_ms(&mock, "http://a.", started),
        [0, 100, 200, 300, 400]
    );
    assert_eq!(
        received_at_ms(&mock, "http://b.", started),
        [0, 500, 1000, 1500, 2000]
    );
    assert_eq!(mock.max_in_flight_to("http://c.example/*"), 4);
    for request in mock.requests() {
        let is_a = request.url().starts_with("http://a.");
        assert_eq!(request.headers().contains_key("x-client"), is_a);
    }
}

#[tokio::test(start_paused = true)]
async fn limit_by_groups_requests_into_lanes() {
    let mock = responding_after_ms(100);
    let top_level_domain = |request: &Request| {
        request
            .url()
            .unwrap()
            .domain()
            .unwrap()
            .rsplit_once('.')
            .unwrap()
            .1
            .to_owned()
    };
    let fetcher = builder(&mock)
        .concurrency_per_host(2)
        .limit_by(top_level_domain)
        .build()
        .unwrap();
    fetcher
        .gather(
            urls("a", 10)
                .chain(urls("b", 10))
                .chain((0..10).map(|n| format!("http://c.test/{n}"))),
        )
        .await;
    assert_eq!(mock.max_in_flight_to("*.example/*"), 2);
    assert_eq!(mock.max_in_flight_to("*.test/*"), 2);
    assert_eq!(mock.max_in_flight(), 4);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_limits() {
    let mock = responding_after_ms(100);
    let tenant = |request: &Request| {
        let tenant = request.headers().get("x-tenant");
        tenant.unwrap().to_str().unwrap().to_owned()
    };
    let fetcher = builder(&mock)
        .limit_by(tenant)
        .concurrency_per_host(2)
        .host("http://a.example", Host::new().concurrency(1))
        .limits_for("gold", KeyLimits::new().concurrency(5))
        .limits_for("slow", KeyLimits::new().rate(Rate::per_second(4)))
        .build()
        .unwrap();
    let started = Instant::now();
    let of = |tenant: &'static str| {
        let with_path = move |n| format!("http://a.example/{tenant}/{n}");
        (0..10).map(move |n| Request::get(with_path(n)).header("x-tenant", tenant))
    };
    let results = fetcher
        .gather(of("gold").chain(of("slow")).chain(of("basic")))
        .await;
    assert!(all_ok(&results));
    assert_eq!(mock.max_in_flight_to("http://a.example/gold/*"), 5);
    assert_eq!(mock.max_in_flight_to("http://a.example/basic/*"), 2);
    let of_slow = received_at_ms(&mock, "http://a.example/slow", started);
    assert!(of_slow.into_iter().eq((0..10).map(|n| n * 250)));
}

#[test]
fn limits_for_a_key_require_limit_by_and_are_set_once() {
    let limited = || Fetcher::builder().limits_for("gold", KeyLimits::new());
    let error = limited().build().unwrap_err();
    assert!(error.to_string().contains("requires `limit_by`"), "{error}");
    let twice = limited()
        .limit_by(|_| "gold")
        .limits_for("gold", KeyLimits::new());
    let error = twice.build().unwrap_err();
    assert!(
        error.to_string().contains("`gold` were set twice"),
        "{error}"
    );
    assert!(limited().limit_by(|_| "gold").build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn small_batch_is_not_delayed_by_large_batch() {
    let mock = responding_after_ms(100);
    let fetcher = builder(&mock).concurrency(10).build().unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let large_batch = {
        let (fetcher, done) = (fetcher.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut large_batch = fetcher.as_completed(urls("a", 100_000));
            while large_batch.next().await.is_some() {
                done.fetch_add(1, Relaxed);
            }
        })
    };
    sleep(ms(1050)).await;
    let done_before = done.load(Relaxed);
    assert_eq!(done_before, 100);
    let started = Instant::now();
    assert!(all_ok(&fetcher.gather(urls("a", 10)).await));
    // The small batch gets half of the slots from the first freed slot on.
    assert_eq!(started.elapsed(), ms(50 + 200));
    assert!(done.load(Relaxed) - done_before <= 20, "{done:?}");
    large_batch.abort();
}

#[tokio::test(start_paused = true)]
async fn hosts_of_a_batch_start_round_robin() {
    let mock = responding_after_ms(100);
    let started = Instant::now();
    let inputs = urls("a", 1000).chain(urls("b", 10));
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .look_ahead(2000)
        .as_completed();
    let mut completed_of_b = 0;
    while completed_of_b < 10 {
        let completed = done.next().await.unwrap();
        completed_of_b += usize::from(completed.index >= 1000);
    }
    // Inputs of the second host are pulled early only if a slot is idle, which never happens here.
    assert!(started.elapsed() <= secs(11));
}

#[tokio::test(start_paused = true)]
async fn failed_request_frees_its_slot() {
    let mock = Mock::new().fallback(MockResponse::error(fanout::ErrorKind::Closed).delay(ms(100)));
    let started = Instant::now();
    let results = fetcher(&mock)
        .batch(urls("a", 100))
        .concurrency(10)
        .retry(Retry::off())
        .gather()
        .await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(started.elapsed(), secs(1));
}

#[tokio::test(start_paused = true)]
async fn rate_is_used_to_98_percent() {
    for per_second in [10, 100, 1_000, 5_000] {
        let mock = responding_after_ms(1);
        let started = Instant::now();
        let count = 2 * per_second as usize;
        let batch = fetcher(&mock).batch(urls("a", count));
        assert!(all_ok(
            &batch.rate(Rate::per_second(per_second)).gather().await
        ));
        let max_interval = 1.0 / (f64::from(per_second) * 0.98);
        let start_times = received_at_ms(&mock, "", started);
        for (n, at) in start_times.iter().enumerate().skip(count / 2) {
            let latest = (n as f64 * max_interval * 1000.0).ceil() as u128;
            assert!(*at <= latest, "{per_second}/s: {n} at {at} ms");
        }
    }
}

/// A delayed timer causes no catch-up starts beyond the rate.
#[tokio::test(start_paused = true)]
async fn delayed_timers_cause_no_second_above_rate() {
    let throttled = MockResponse::status(503).delay(ms(1));
    let mock = responding_after_ms(1).on("http://a.example/*", throttled);
    let fetcher = builder(&mock)
        .rate(Rate::per_second(200))
        .retry(Retry::default().throttled_base_delay(ms(1)))
        .retry_budget(RetryBudget::off())
        .build()
        .unwrap();
    let started = Instant::now();
    let batches = async {
        join!(
            fetcher.gather(urls("a", 100)),
            fetcher.gather(urls("b", 1_000))
        )
    };
    let delay_timers = async {
        for _ in 0..3 {
            sleep(ms(1_300)).await;
            tokio::time::advance(ms(1_700)).await;
        }
    };
    join!(batches, delay_timers);
    let start_times = received_at_ms(&mock, "", started);
    assert_eq!(start_times.len(), 1_300);
    for (first, at) in start_times.iter().enumerate() {
        let starts_within_a_second =
            start_times[first..].partition_point(|other| other - at < 1_000);
        assert!(
            starts_within_a_second <= 202,
            "{starts_within_a_second} from {at} ms on"
        );
    }
}
