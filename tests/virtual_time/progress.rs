//! `Progress`: its counts are consistent at every instant, and it reports the reasons for waiting.

use std::cell::Cell;

use fanout::{ErrorKind, Fetcher, Host, Mock, MockResponse, Progress, Rate, Retry, WaitReason};
use tokio::time::{Instant, sleep};

use super::{all_ok, builder, fetcher, ms, responding_after_ms, secs, urls};

fn assert_counts_add_up(progress: &Progress) {
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
async fn progress_counts_add_up_under_random_commands() {
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
    let fetcher = builder(&mock)
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
    let snapshot_count = Cell::new(0);
    let observe = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut last_completed = [0; 2];
        while !handles.iter().all(|handle| handle.progress().has_ended()) {
            sleep(ms(random.u64(..40))).await;
            for (handle, last_completed) in handles.iter().zip(&mut last_completed) {
                let progress = handle.progress();
                assert_counts_add_up(&progress);
                assert!(progress.completed() >= *last_completed);
                *last_completed = progress.completed();
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
            assert_counts_add_up(snapshot.progress());
            snapshot_count.set(snapshot_count.get() + 1);
            // A batch that is still paused would never end.
            if snapshot_count.get() > 1_000 {
                handles.iter().for_each(fanout::BatchHandle::resume);
            }
        }
    };
    let [first, second] = batches;
    let mut in_order = second.in_order();
    let consume = async {
        let mut count = 0;
        while in_order.next().await.is_some() {
            count += 1;
        }
        count
    };
    let (results, count, ()) = tokio::join!(first.gather(), consume, observe);
    assert_eq!((results.len(), count), (600, 600));
    for handle in &handles {
        let progress = handle.progress();
        assert_counts_add_up(&progress);
        assert_eq!((progress.inputs_pulled(), progress.completed()), (600, 600));
        let redirect_count = inputs
            .iter()
            .filter(|url| url.contains("d.example"))
            .count();
        assert!(progress.retries() > 0 && redirect_count > 0);
    }
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(handles[0].progress().failed(), failed);
    let attempts = mock.request_count() - mock.request_count_to("http://d.example/*");
    let retries: usize = handles
        .iter()
        .map(|handle| handle.progress().retries())
        .sum();
    // Each valid input is sent once, plus once per retry.
    assert_eq!(attempts, 2 * (600 - 12) + retries);
    assert!(snapshot_count.get() > 20);
}

/// Returns the progress of `batch` 50 ms after its start, when all inputs are submitted.
async fn progress_after_submission(fetcher: &Fetcher, batch: fanout::Batch<'static>) -> Progress {
    let handle = batch.handle();
    let task = tokio::spawn(batch.gather());
    sleep(ms(50)).await;
    let progress = handle.progress();
    assert_counts_add_up(&progress);
    let snapshot = fetcher.snapshot();
    assert_eq!(snapshot.progress().waiting(), progress.waiting());
    task.abort();
    let _ = task.await;
    progress
}

#[tokio::test(start_paused = true)]
async fn progress_reports_wait_reasons() {
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
    let fetcher = builder(&mock).retry(retry.clone()).build().unwrap();

    let progress =
        progress_after_submission(&fetcher, fetcher.batch(urls("a", 10)).concurrency(4)).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_concurrency()),
        (4, 6)
    );
    let progress = progress_after_submission(
        &fetcher,
        fetcher.batch(urls("a", 10)).concurrency_per_host(3),
    )
    .await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_concurrency()),
        (3, 7)
    );

    let rate = Rate::per_second(1).burst(2);
    let progress =
        progress_after_submission(&fetcher, fetcher.batch(urls("a", 10)).rate(rate)).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_rate()),
        (2, 8)
    );
    let progress =
        progress_after_submission(&fetcher, fetcher.batch(urls("a", 10)).rate_per_host(rate)).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_rate()),
        (2, 8)
    );
    let limited_fetcher = builder(&mock).rate(rate).build().unwrap();
    let progress =
        progress_after_submission(&limited_fetcher, limited_fetcher.batch(urls("a", 10))).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_rate()),
        (2, 8)
    );
    let limited_fetcher = builder(&mock).concurrency(2).build().unwrap();
    let progress =
        progress_after_submission(&limited_fetcher, limited_fetcher.batch(urls("a", 10))).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_concurrency()),
        (2, 8)
    );

    // A Retry-After pauses the whole host. Without one, each failed request backs off by itself.
    let progress =
        progress_after_submission(&fetcher, fetcher.batch(urls("busy", 10)).concurrency(1)).await;
    assert_eq!(
        (progress.retries(), progress.waiting().for_backoff()),
        (1, 10)
    );
    let progress = progress_after_submission(&fetcher, fetcher.batch(urls("flaky", 10))).await;
    assert_eq!(progress.waiting().for_backoff() + progress.in_flight(), 10);
    assert!(progress.retries() >= 10);

    // Five consecutive connect failures trip the breaker. The other five requests wait.
    let refusing_fetcher = builder(&Mock::new().fallback(MockResponse::error(ErrorKind::Connect)));
    let refusing_fetcher = refusing_fetcher.retry(Retry::off()).build().unwrap();
    let progress = progress_after_submission(
        &refusing_fetcher,
        refusing_fetcher.batch(urls("a", 10)).concurrency(1),
    )
    .await;
    assert_eq!(
        (progress.completed(), progress.waiting().for_breaker()),
        (5, 5)
    );
    let host = &progress.busiest_hosts()[0];
    assert_eq!(
        (host.waiting(), host.wait_reason()),
        (5, WaitReason::Breaker)
    );

    let pending_token = std::future::pending;
    let with_token = Host::new().token_source(pending_token);
    let with_token = builder(&mock)
        .host("http://a.example", with_token)
        .build()
        .unwrap();
    let progress = progress_after_submission(&with_token, with_token.batch(urls("a", 10))).await;
    assert_eq!(
        (progress.in_flight(), progress.waiting().for_token()),
        (0, 10)
    );

    let paused = fetcher.batch(urls("a", 10));
    paused.handle().pause();
    let progress = progress_after_submission(&fetcher, paused).await;
    assert_eq!(progress.waiting().while_paused(), 10);
    assert_eq!(
        progress.to_string(),
        "0 of 10 done (0 failed), 0 in flight, 10 waiting (paused 10), 0.0/s"
    );
}

#[tokio::test(start_paused = true)]
async fn busiest_hosts_are_ordered_by_waiting_requests() {
    let mock = responding_after_ms(1000);
    let fetcher = fetcher(&mock);
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
    let batch = fetcher
        .batch(inputs.collect::<Vec<_>>())
        .concurrency_per_host(2)
        .rate(Rate::per_second(1000).burst(100));
    let progress = progress_after_submission(&fetcher, batch).await;
    assert_eq!(progress.total(), Some(100));
    let hosts = progress.busiest_hosts().iter();
    let hosts: Vec<_> = hosts
        .map(|host| {
            (
                host.host(),
                host.waiting(),
                host.in_flight(),
                host.wait_reason(),
            )
        })
        .collect();
    let expected_host = |host, waiting| (host, waiting, 2, WaitReason::Concurrency);
    assert_eq!(
        hosts,
        [
            expected_host("http://b.example", 28),
            expected_host("http://e.example", 28),
            expected_host("http://g.example", 18),
            expected_host("http://f.example", 7),
            expected_host("http://d.example", 5),
        ]
    );
    assert_eq!(
        progress.busiest_hosts()[0].to_string(),
        "http://b.example: 28 waiting (concurrency), 2 in flight"
    );
}

#[tokio::test(start_paused = true)]
async fn completed_per_second_and_eta_cover_the_last_ten_seconds() {
    let mock = responding_after_ms(1000);
    let batch = fetcher(&mock)
        .batch(urls("a", 1000).collect::<Vec<_>>())
        .concurrency(10);
    let handle = batch.handle();
    assert_eq!(handle.progress().total(), Some(1000));
    assert_eq!(handle.progress().eta(), None);
    let observe = async {
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
        let remaining_seconds = progress.eta().unwrap().as_secs_f64();
        assert!((remaining_seconds - 80.0).abs() < 8.0, "{progress}");
        // The concurrency drops to a tenth. Ten seconds later the old rate has no effect.
        handle.set_concurrency(1);
        while started.elapsed() < ms(45_500) {
            sleep(ms(100)).await;
            handle.progress();
        }
        assert!((handle.progress().completed_per_second() - 1.0).abs() < 0.2);
        handle.set_concurrency(100);
    };
    let results = tokio::join!(batch.gather(), observe).0;
    assert!(all_ok(&results));
    let progress = handle.progress();
    assert_eq!(progress.eta(), Some(secs(0)));
    let overall_rate = 1000.0 / progress.elapsed().as_secs_f64();
    assert!((progress.completed_per_second() - overall_rate).abs() < 0.01);
    assert_eq!(progress.body_bytes(), 1000);
}

#[tokio::test(start_paused = true)]
async fn results_not_consumed_count_as_undelivered() {
    let mock = responding_after_ms(10);
    let mut done = fetcher(&mock).batch(urls("a", 20)).as_completed();
    let handle = done.handle();
    done.next().await.unwrap();
    sleep(secs(1)).await;
    let progress = handle.progress();
    assert_counts_add_up(&progress);
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
