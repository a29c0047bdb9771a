//! What is told of a batch under way: it adds up in each instant, and says what the rest waits for.

use std::cell::Cell;

use fanout::{ErrorKind, Fetcher, Host, Mock, MockResponse, Progress, Rate, Retry, WaitReason};
use tokio::time::{Instant, sleep};

use super::{all_ok, answers_in, fetcher, ms, over, secs, urls};

fn adds_up(progress: &Progress) {
    let sum = progress.completed() + progress.in_flight() + progress.waiting().total();
    assert_eq!(sum, progress.inputs_pulled(), "{progress:?}");
    assert_eq!(
        progress.completed(),
        progress.succeeded() + progress.failed()
    );
    assert!(
        progress
            .total()
            .is_none_or(|total| progress.inputs_pulled() <= total)
    );
}

#[tokio::test(start_paused = true)]
async fn each_look_adds_up_whatever_a_batch_goes_through() {
    let mock = Mock::new()
        .on("http://a.example/*", MockResponse::text("x").delay(ms(13)))
        .on("http://b.example/*", MockResponse::status(503).delay(ms(7)))
        .on(
            "http://c.example/*",
            MockResponse::error(ErrorKind::Closed).delay(ms(3)),
        )
        .on(
            "http://d.example/*",
            MockResponse::status(302).header("location", "http://a.example/moved"),
        )
        .on(
            "http://e.example/*",
            MockResponse::status(429).header("retry-after", "1"),
        )
        .fallback(MockResponse::text("y").delay(ms(1)));
    let fetcher = over(&mock)
        .concurrency(20)
        .host("http://a.example", Host::new().rate(Rate::per_second(50)))
        .host("http://b.example", Host::new().concurrency(2))
        .build()
        .unwrap();
    let hosts = ["a", "b", "c", "d", "e", "f"];
    let inputs: Vec<String> = (0..600)
        .map(|n| match n % 50 {
            0 => "no URL".to_owned(),
            _ => format!("http://{}.example/{n}", hosts[n % hosts.len()]),
        })
        .collect();
    let batches = [
        fetcher.batch(&inputs).concurrency(10).look_ahead(64),
        fetcher.batch(&inputs).rate(Rate::per_second(300)),
    ];
    let handles = batches.each_ref().map(fanout::Batch::handle);
    let looks = Cell::new(0);
    let look = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut last = [0; 2];
        while !handles.iter().all(|handle| handle.progress().has_ended()) {
            sleep(ms(random.u64(..40))).await;
            for (handle, last) in handles.iter().zip(&mut last) {
                let progress = handle.progress();
                adds_up(&progress);
                assert!(progress.completed() >= *last);
                *last = progress.completed();
                match random.u8(..20) {
                    0 => handle.pause(),
                    1..=5 => handle.resume(),
                    6 => handle.set_concurrency(random.usize(1..20)),
                    _ => {}
                }
            }
            let snapshot = fetcher.snapshot();
            let of_batches: usize = handles
                .iter()
                .map(|handle| handle.progress().inputs_pulled())
                .sum();
            assert_eq!(snapshot.progress().inputs_pulled(), of_batches);
            adds_up(snapshot.progress());
            looks.set(looks.get() + 1);
            // Whoever was paused last must not stay so.
            if looks.get() > 1_000 {
                handles.iter().for_each(fanout::BatchHandle::resume);
            }
        }
    };
    let [one, other] = batches;
    let mut in_order = other.in_order();
    let read = async {
        let mut count = 0;
        while in_order.next().await.is_some() {
            count += 1;
        }
        count
    };
    let (results, count, ()) = tokio::join!(one.gather(), read, look);
    assert_eq!((results.len(), count), (600, 600));
    for handle in &handles {
        let progress = handle.progress();
        adds_up(&progress);
        assert_eq!((progress.inputs_pulled(), progress.completed()), (600, 600));
        let redirected = inputs
            .iter()
            .filter(|url| url.contains("d.example"))
            .count();
        assert!(progress.retries() > 0 && redirected > 0);
    }
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(handles[0].progress().failed(), failed);
    let attempts = mock.request_count() - mock.request_count_to("http://d.example/*");
    let retries: usize = handles
        .iter()
        .map(|handle| handle.progress().retries())
        .sum();
    // Each valid input was sent once, and once more for each retry.
    assert_eq!(attempts, 2 * (600 - 12) + retries);
    assert!(looks.get() > 20);
}

/// What is waited for once all have been handed in.
async fn waits(fetcher: &Fetcher, batch: fanout::Batch<'static>) -> Progress {
    let handle = batch.handle();
    let task = tokio::spawn(batch.gather());
    sleep(ms(50)).await;
    let progress = handle.progress();
    adds_up(&progress);
    let snapshot = fetcher.snapshot();
    assert_eq!(snapshot.progress().waiting(), progress.waiting());
    task.abort();
    let _ = task.await;
    progress
}

#[tokio::test(start_paused = true)]
async fn it_says_what_the_rest_waits_for() {
    let mock = Mock::new()
        .on(
            "http://busy.example/*",
            MockResponse::status(503).header("retry-after", "100"),
        )
        .on(
            "http://flaky.example/*",
            MockResponse::error(ErrorKind::Closed),
        )
        .fallback(MockResponse::text("x").delay(secs(1)));
    let retry = Retry::default()
        .base_delay(secs(1000))
        .max_delay(secs(1000));
    let plain = over(&mock).retry(retry.clone()).build().unwrap();

    let progress = waits(&plain, plain.batch(urls("a", 10)).concurrency(4)).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().concurrency()),
        (4, 6)
    );
    let progress = waits(&plain, plain.batch(urls("a", 10)).concurrency_per_host(3)).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().concurrency()),
        (3, 7)
    );

    let rate = Rate::per_second(1).burst(2);
    let progress = waits(&plain, plain.batch(urls("a", 10)).rate(rate)).await;
    assert_eq!((progress.in_flight(), progress.waiting().rate()), (2, 8));
    let progress = waits(&plain, plain.batch(urls("a", 10)).rate_per_host(rate)).await;
    assert_eq!((progress.in_flight(), progress.waiting().rate()), (2, 8));
    let limited = over(&mock).rate(rate).build().unwrap();
    let progress = waits(&limited, limited.batch(urls("a", 10))).await;
    assert_eq!((progress.in_flight(), progress.waiting().rate()), (2, 8));
    let limited = over(&mock).concurrency(2).build().unwrap();
    let progress = waits(&limited, limited.batch(urls("a", 10))).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().concurrency()),
        (2, 8)
    );

    // One was answered, and it and the others wait for the host; or each waits by itself.
    let progress = waits(&plain, plain.batch(urls("busy", 10)).concurrency(1)).await;
    assert_eq!((progress.retries(), progress.waiting().backoff()), (1, 10));
    let progress = waits(&plain, plain.batch(urls("flaky", 10))).await;
    assert_eq!(progress.waiting().backoff() + progress.in_flight(), 10);
    assert!(progress.retries() >= 10);

    // Five in a row were refused, and the rest is left alone.
    let down = over(&Mock::new().fallback(MockResponse::error(ErrorKind::Connect)));
    let down = down.retry(Retry::off()).build().unwrap();
    let progress = waits(&down, down.batch(urls("a", 10)).concurrency(1)).await;
    assert_eq!((progress.completed(), progress.waiting().breaker()), (5, 5));
    let host = &progress.busiest_hosts()[0];
    assert_eq!(
        (host.waiting(), host.wait_reason()),
        (5, WaitReason::Breaker)
    );

    let never = || std::future::pending::<Result<String, std::io::Error>>();
    let with_token = Host::new().token_source(never);
    let with_token = over(&mock)
        .host("http://a.example", with_token)
        .build()
        .unwrap();
    let progress = waits(&with_token, with_token.batch(urls("a", 10))).await;
    assert_eq!((progress.in_flight(), progress.waiting().token()), (0, 10));

    let paused = plain.batch(urls("a", 10));
    paused.handle().pause();
    let progress = waits(&plain, paused).await;
    assert_eq!(progress.waiting().paused(), 10);
    assert_eq!(
        progress.to_string(),
        "0 of 10 done (0 failed), 0 in flight, 10 waiting (paused 10), 0.0/s"
    );
}

#[tokio::test(start_paused = true)]
async fn the_slowest_hosts_are_those_with_the_most_to_do() {
    let mock = answers_in(1000);
    let plain = fetcher(&mock);
    let inputs = [
        ("a", 3),
        ("b", 30),
        ("c", 1),
        ("d", 7),
        ("e", 30),
        ("f", 9),
        ("g", 20),
    ]
    .into_iter()
    .flat_map(|(host, count)| urls(host, count));
    let batch = plain
        .batch(inputs.collect::<Vec<_>>())
        .concurrency_per_host(2)
        .rate(Rate::per_second(1000).burst(100));
    let progress = waits(&plain, batch).await;
    assert_eq!(progress.total(), Some(100));
    let hosts = progress.busiest_hosts().iter();
    let named: Vec<_> = hosts
        .map(|host| {
            (
                host.host(),
                host.waiting(),
                host.in_flight(),
                host.wait_reason(),
            )
        })
        .collect();
    let of = |host, waiting| (host, waiting, 2, WaitReason::Concurrency);
    assert_eq!(
        named,
        [
            of("http://b.example", 28),
            of("http://e.example", 28),
            of("http://g.example", 18),
            of("http://f.example", 7),
            of("http://d.example", 5),
        ]
    );
    assert_eq!(
        progress.busiest_hosts()[0].to_string(),
        "http://b.example: 28 waiting (concurrency), 2 in flight"
    );
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_the_last_ten_seconds_and_the_time_left_follows() {
    let mock = answers_in(1000);
    let batch = fetcher(&mock)
        .batch(urls("a", 1000).collect::<Vec<_>>())
        .concurrency(10);
    let handle = batch.handle();
    assert_eq!(handle.progress().total(), Some(1000));
    assert_eq!(handle.progress().eta(), None);
    let look = async {
        let started = Instant::now();
        while started.elapsed() < ms(20_500) {
            sleep(ms(100)).await;
            handle.progress();
        }
        let progress = handle.progress();
        assert_eq!(progress.completed(), 200);
        assert!(
            (progress.completed_per_second() - 10.0).abs() < 1.0,
            "{progress}"
        );
        let left = progress.eta().unwrap().as_secs_f64();
        assert!((left - 80.0).abs() < 8.0, "{progress}");
        // Ten times as fast: ten seconds later nothing is left of the old rate.
        handle.set_concurrency(1);
        while started.elapsed() < ms(45_500) {
            sleep(ms(100)).await;
            handle.progress();
        }
        assert!((handle.progress().completed_per_second() - 1.0).abs() < 0.2);
        handle.set_concurrency(100);
    };
    let results = tokio::join!(batch.gather(), look).0;
    assert!(all_ok(&results));
    let progress = handle.progress();
    assert_eq!(progress.eta(), Some(secs(0)));
    let whole = 1000.0 / progress.elapsed().as_secs_f64();
    assert!((progress.completed_per_second() - whole).abs() < 0.01);
    assert_eq!(progress.body_bytes(), 1000);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_taken_waits_for_the_consumer() {
    let mock = answers_in(10);
    let mut done = fetcher(&mock).batch(urls("a", 20)).as_completed();
    let handle = done.handle();
    done.next().await.unwrap();
    sleep(secs(1)).await;
    let progress = handle.progress();
    adds_up(&progress);
    assert_eq!(
        (progress.completed(), progress.waiting().undelivered()),
        (20, 19)
    );
    done.next().await.unwrap();
    assert_eq!(handle.progress().waiting().undelivered(), 18);
    assert!(!handle.progress().has_ended());
    while done.next().await.is_some() {}
    assert!(handle.progress().has_ended());
    assert_eq!(handle.progress().waiting().undelivered(), 0);
}
