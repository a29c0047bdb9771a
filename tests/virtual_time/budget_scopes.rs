//! Budgets of hosts, keys, batches and the Fetcher apply together.

use fanout::{Budget, BudgetScope, ErrorKind, Host, KeyLimits, Mock, MockResponse, Request};
use tokio::time::Instant;

use super::{
    all_ok, builder, fetcher, one_per_second, received_at_ms, requests_with_cost,
    responding_after_ms, secs,
};

#[tokio::test(start_paused = true)]
async fn budget_of_the_fetcher_applies_to_all_hosts_batches_and_siblings() {
    let mock = responding_after_ms(1);
    let fetcher = builder(&mock)
        .budget(one_per_second("tokens"))
        .build()
        .unwrap();
    let sibling = fetcher.to_builder().build().unwrap();
    let started = Instant::now();
    let (of_a, of_b, single) = tokio::join!(
        fetcher.gather(requests_with_cost("a", 2, "tokens", 5)),
        sibling.gather(requests_with_cost("b", 2, "tokens", 5)),
        fetcher.fetch(Request::get("http://c.example/").cost("tokens", 5)),
    );
    assert!(all_ok(&of_a) && all_ok(&of_b) && single.is_ok());
    let mut received = received_at_ms(&mock, "http", started);
    received.sort_unstable();
    assert_eq!(received, [0, 0, 5_000, 10_000, 15_000]);
}

#[tokio::test(start_paused = true)]
async fn budget_of_a_batch_applies_to_its_requests_alone() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let limited = |host| {
        let batch = fetcher.batch(requests_with_cost(host, 2, "tokens", 10));
        batch.budget(one_per_second("tokens")).gather()
    };
    let unlimited = fetcher.gather(requests_with_cost("c", 50, "tokens", 10));
    let (of_a, of_b, of_c) = tokio::join!(limited("a"), limited("b"), unlimited);
    assert!(all_ok(&of_a) && all_ok(&of_b) && all_ok(&of_c));
    assert_eq!(received_at_ms(&mock, "http://a", started), [0, 10_000]);
    assert_eq!(received_at_ms(&mock, "http://b", started), [0, 10_000]);
    assert_eq!(received_at_ms(&mock, "http://c", started), [0; 50]);
}

#[tokio::test(start_paused = true)]
async fn budgets_of_one_name_in_several_scopes_all_apply() {
    let mock = responding_after_ms(1);
    let host = Host::new().budget(Budget::total("tokens", 30));
    let fetcher = builder(&mock)
        .host("http://a.example", host)
        .budget(Budget::total("tokens", 60))
        .build()
        .unwrap();
    let mut failed_count = 0;
    for (host, of_batch) in [("a", 40), ("b", 20)] {
        let batch = fetcher.batch(requests_with_cost(host, 9, "tokens", 5));
        let batch = batch.budget(Budget::total("tokens", of_batch));
        for error in batch.gather().await.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Budget);
            failed_count += 1;
        }
    }
    let sent_to = |host| mock.request_count_to(format!("http://{host}.example/*"));
    // The total of host `a` permits 6 requests, and the total of the second batch 4.
    assert_eq!((sent_to("a"), sent_to("b"), failed_count), (6, 4, 8));
    let snapshot = fetcher.snapshot();
    let levels: Vec<_> = snapshot
        .progress()
        .budgets()
        .iter()
        .map(|budget| (budget.scope(), budget.host(), budget.level()))
        .collect();
    assert_eq!(
        levels,
        [
            (BudgetScope::Fetcher, None, 60 - 50),
            (BudgetScope::Host, Some("http://a.example"), 0),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn progress_of_an_ended_batch_has_the_final_levels() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(requests_with_cost("a", 3, "cents", 5));
    let batch = batch.budget(Budget::total("cents", 100));
    let handle = batch.handle();
    let other = fetcher
        .batch(["http://a.example"])
        .budget(Budget::total("other", 1));
    let other = other.as_completed();
    assert!(all_ok(&batch.gather().await));
    drop(other);
    let progress = handle.progress();
    let [cents] = progress.budgets() else {
        panic!("{progress:?}");
    };
    assert_eq!(
        (cents.name(), cents.scope(), cents.level(), cents.capacity()),
        ("cents", BudgetScope::Batch, 85, 100)
    );
}

#[tokio::test(start_paused = true)]
async fn limits_for_a_key_have_budgets() {
    let mock = responding_after_ms(1);
    let key = |request: &Request| request.url().unwrap().path().trim_matches('/').to_owned();
    let fetcher = builder(&mock)
        .limit_by(key)
        .limits_for("slow", KeyLimits::new().budget(one_per_second("tokens")))
        .host(
            "http://a.example",
            Host::new().budget(Budget::total("tokens", 1)),
        )
        .build()
        .unwrap();
    let started = Instant::now();
    let paths = ["slow", "slow", "fast", "fast"];
    let requests =
        paths.map(|path| Request::get(format!("http://a.example/{path}")).cost("tokens", 10));
    assert!(all_ok(&fetcher.gather(requests).await));
    assert_eq!(
        received_at_ms(&mock, "http://a.example/slow", started),
        [0, 10_000]
    );
    assert_eq!(
        received_at_ms(&mock, "http://a.example/fast", started),
        [0, 0]
    );
}

#[tokio::test(start_paused = true)]
async fn host_fn_returns_budgets_with_settle_functions() {
    let mock = Mock::new().fallback(MockResponse::text("x"));
    let fetcher = builder(&mock)
        .host_fn(|origin| {
            let budget = one_per_second("tokens").settle(|_| Some(4));
            origin
                .ends_with("a.example")
                .then(|| Host::new().budget(budget))
        })
        .build()
        .unwrap();
    let started = Instant::now();
    let requests = requests_with_cost("a", 4, "tokens", 1);
    let requests = requests.chain(requests_with_cost("b", 4, "tokens", 1));
    assert!(all_ok(
        &fetcher.batch(requests).concurrency(1).gather().await
    ));
    // Each request costs 4 in truth. The debt of -2 after the third one is paid off in 3 s.
    assert_eq!(received_at_ms(&mock, "http://a", started), [0, 0, 0, 3_000]);
}

#[tokio::test(start_paused = true)]
async fn first_settle_function_of_a_name_that_returns_a_cost_settles_all_budgets_of_the_name() {
    let mock = responding_after_ms(1);
    for (of_host, of_batch, of_fetcher, actual) in [
        (Some(3), Some(4), Some(5), 3),
        (None, Some(4), Some(5), 4),
        (None, None, Some(5), 5),
        (None, None, None, 10),
    ] {
        let total = || Budget::total("tokens", 100);
        let fetcher = builder(&mock)
            .host(
                "http://a.example",
                Host::new().budget(total().settle(move |_| of_host)),
            )
            .budget(total().settle(move |_| of_fetcher))
            .build()
            .unwrap();
        let batch = fetcher.batch(requests_with_cost("a", 1, "tokens", 10));
        let batch = batch.budget(total().settle(move |_| of_batch));
        let handle = batch.handle();
        assert!(all_ok(&batch.gather().await));
        let progress = handle.progress();
        assert_eq!(progress.budgets().len(), 3);
        for budget in progress.budgets() {
            assert_eq!(budget.level(), 100 - actual, "{budget}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batch_that_waits_for_the_fetchers_budget_delays_no_request_without_cost() {
    let mock = responding_after_ms(1);
    let fetcher = builder(&mock)
        .budget(one_per_second("tokens"))
        .build()
        .unwrap();
    let costly = fetcher.gather(requests_with_cost("a", 5, "tokens", 10));
    let started = Instant::now();
    let free = async {
        let results = fetcher
            .gather(requests_with_cost("a", 50, "tokens", 0))
            .await;
        (all_ok(&results), started.elapsed())
    };
    let (costly, (are_free_ok, elapsed_of_free)) = tokio::join!(costly, free);
    assert!(all_ok(&costly) && are_free_ok);
    assert!(elapsed_of_free < secs(1), "{elapsed_of_free:?}");
    assert_eq!(
        started.elapsed(),
        secs(40) + std::time::Duration::from_millis(1)
    );
}

#[tokio::test(start_paused = true)]
async fn budget_of_a_sibling_applies_to_the_sibling_and_its_siblings_alone() {
    let mock = responding_after_ms(1);
    let fetcher = builder(&mock)
        .budget(Budget::total("tokens", 1_000))
        .build()
        .unwrap();
    let settled = one_per_second("tokens").settle(|_| Some(5));
    let sibling = fetcher.to_builder().budget(settled).build().unwrap();
    let heir = sibling.to_builder().build().unwrap();
    let started = Instant::now();
    let requests = |host| requests_with_cost(host, 2, "tokens", 10);
    let of_sibling = sibling.batch(requests("a"));
    let handle = of_sibling.handle();
    let watch = async {
        tokio::task::yield_now().await;
        tokio::time::sleep(secs(1)).await;
        let progress = handle.progress();
        let scopes = progress.budgets().iter().map(fanout::BudgetLevel::scope);
        let expected = [BudgetScope::Fetcher, BudgetScope::Sibling];
        assert!(scopes.eq(expected), "{progress:?}");
    };
    let (of_a, of_b, of_c, ()) = tokio::join!(
        of_sibling.gather(),
        heir.fetch(requests("b").next().unwrap()),
        fetcher.gather(requests("c")),
        watch
    );
    assert!(all_ok(&of_a) && of_b.is_ok() && all_ok(&of_c));
    assert_eq!(received_at_ms(&mock, "http://c", started), [0, 0]);
    let mut of_siblings = received_at_ms(&mock, "http://a", started);
    of_siblings.extend(received_at_ms(&mock, "http://b", started));
    of_siblings.sort_unstable();
    // Each request is settled at 5 units after 1 ms, so the next one waits for 5 more.
    assert_eq!(of_siblings, [0, 5_000, 10_000]);
    // The function of the sibling's budget settles the budget of the Fetcher, too.
    let snapshot = fetcher.snapshot();
    assert_eq!(
        snapshot.progress().budgets()[0].level(),
        1_000 - 3 * 5 - 2 * 10
    );
}
