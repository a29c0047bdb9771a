//! The settings of budgets: which of them `build` and the setters reject.

use fanout::{Budget, ErrorKind, Fetcher, FetcherBuilder, Host, KeyLimits, Mock};

use super::builder;

/// Returns the message of the error with which `build` fails.
fn build_error(builder: FetcherBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    error.to_string()
}

#[test]
fn build_rejects_two_budgets_of_one_name_in_one_scope() {
    let (per_minute, total) = (
        Budget::per_minute("tokens", 60),
        Budget::total("tokens", 60),
    );
    let host = Host::new().budget(per_minute.clone()).budget(total.clone());
    let key_limits = KeyLimits::new()
        .budget(per_minute.clone())
        .budget(total.clone());
    for (builder, owner) in [
        (
            Fetcher::builder().host("http://a.example", host),
            "for the host http://a.example",
        ),
        (
            Fetcher::builder()
                .limit_by(|_| "gold")
                .limits_for("gold", key_limits),
            "for the key `gold`",
        ),
        (
            Fetcher::builder()
                .budget(per_minute.clone())
                .budget(total.clone()),
            "",
        ),
    ] {
        let error = build_error(builder);
        assert!(
            error.contains("the budget `tokens` was set twice"),
            "{error}"
        );
        assert!(error.contains(owner), "{error}");
    }
    let host = Host::new().budget(per_minute.clone());
    let builder = Fetcher::builder()
        .host("http://a.example", host)
        .budget(total);
    assert!(builder.build().is_ok());
}

#[test]
fn build_rejects_a_default_cost_above_the_capacity() {
    let budget = Budget::per_minute("tokens", 60).burst(5).default_cost(6);
    let error = build_error(Fetcher::builder().budget(budget));
    assert!(
        error.contains("the default cost 6 of the budget `tokens` is above its capacity 5"),
        "{error}"
    );
}

#[test]
fn sibling_cannot_set_budgets_of_hosts_or_further_limits_beside_inherited_ones() {
    let fetcher = Fetcher::new();
    let budget = || Budget::per_minute("tokens", 60);
    let host = Host::new().budget(budget());
    let error = build_error(fetcher.to_builder().host("http://a.example", host));
    assert!(error.contains("shared with the parent"), "{error}");
    let sibling = fetcher.to_builder().budget(budget()).build().unwrap();
    let error = build_error(sibling.to_builder().budget(budget()));
    assert!(error.contains("`budget` cannot be set"), "{error}");
}

#[test]
#[should_panic(expected = "the budget `tokens` was set twice")]
fn batch_with_two_budgets_of_one_name_panics() {
    let batch = Fetcher::new().batch(["http://a.example/"]);
    let _ = batch
        .budget(Budget::per_minute("tokens", 60))
        .budget(Budget::total("tokens", 60));
}

#[tokio::test(start_paused = true)]
async fn invalid_budgets_from_host_fn_fail_the_request() {
    let fetcher = builder(&Mock::new())
        .host_fn(|_| {
            let host = Host::new().budget(Budget::total("tokens", 60));
            Some(host.budget(Budget::total("tokens", 60)))
        })
        .build()
        .unwrap();
    let error = fetcher.fetch("http://a.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error.to_string().contains("`tokens` was set twice"),
        "{error}"
    );
}
