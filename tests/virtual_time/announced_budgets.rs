//! Response headers that announce the limits of resources, and the budgets with their names.

use fanout::{Budget, Fetcher, Host, Mock, MockResponse, Request, RequestBuilder};
use tokio::time::Instant;

use super::{builder, ms, received_at_ms};

const HOST: &str = "http://a.example";
const DATE: (&str, &str) = ("date", "Sun, 09 Sep 2001 01:46:40 GMT");

/// A budget with a capacity of 200 units that is refilled by 100 units per second.
fn budget_of_200_units(name: &'static str) -> Budget {
    Budget::per_minute(name, 6_259).burst(200)
}

fn fetcher_with_budgets<const N: usize>(mock: &Mock, budgets: [Budget; N]) -> Fetcher {
    let host = budgets.into_iter().fold(Host::new(), Host::budget);
    builder(mock).host(HOST, host).build().unwrap()
}

fn response_with_headers(headers: &[(&'static str, &'static str)]) -> MockResponse {
    let response = MockResponse::status(200);
    headers.iter().fold(response, |response, (name, value)| {
        response.header(*name, *value)
    })
}

fn request_that_costs(path: &str, name: &'static str, units: u64) -> RequestBuilder {
    Request::get(format!("{HOST}{path}")).cost(name, units)
}

/// Fetches two requests one after the other, each of which costs 100 units of the budget
/// `budget_name`. The response to the first has `headers`. Returns the start of the second in
/// milliseconds.
async fn start_after_headers(
    budget_name: &'static str,
    headers: &[(&'static str, &'static str)],
    respect_headers: bool,
) -> u128 {
    let mock = Mock::new()
        .on("*", response_with_headers(headers))
        .then(200);
    let host = Host::new().budget(budget_of_200_units(budget_name));
    let fetcher = builder(&mock)
        .host(HOST, host)
        .respect_rate_limit_headers(respect_headers)
        .build()
        .unwrap();
    let started = Instant::now();
    for path in ["/first", "/second"] {
        let request = request_that_costs(path, budget_name, 100);
        fetcher.fetch(request).await.unwrap();
    }
    received_at_ms(&mock, "http://a.example/second", started)[0]
}

#[tokio::test(start_paused = true)]
async fn header_of_each_provider_lowers_the_budget_of_its_suffix() {
    let openai = [
        ("x-ratelimit-limit-tokens", "6259"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m2.5s"),
    ];
    assert_eq!(start_after_headers("tokens", &openai, true).await, 1_000);
    assert_eq!(start_after_headers("images", &openai, true).await, 0);
    assert_eq!(start_after_headers("tokens", &openai, false).await, 0);
    let anthropic = [
        DATE,
        ("anthropic-ratelimit-input-tokens-limit", "6259"),
        ("anthropic-ratelimit-input-tokens-remaining", "50"),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "2001-09-09T03:47:40+02:00",
        ),
    ];
    assert_eq!(
        start_after_headers("input-tokens", &anthropic, true).await,
        500
    );
    // A reset before the budget could be full is the end of a fixed window.
    let window = [openai[0], openai[1], ("x-ratelimit-reset-tokens", "10s")];
    assert_eq!(start_after_headers("tokens", &window, true).await, 10_000);
    let azure = [
        ("x-ratelimit-limit-tokens", "-1"),
        ("x-ratelimit-remaining-tokens", "-1"),
        ("x-ratelimit-reset-tokens", "0"),
    ];
    assert_eq!(start_after_headers("tokens", &azure, true).await, 0);
}

#[tokio::test(start_paused = true)]
async fn header_never_raises_a_budget() {
    let full = response_with_headers(&[
        ("x-ratelimit-limit-tokens", "6259"),
        ("x-ratelimit-remaining-tokens", "6259"),
        ("x-ratelimit-reset-tokens", "0s"),
    ]);
    let mock = Mock::new().on("*", full);
    let fetcher = fetcher_with_budgets(&mock, [budget_of_200_units("tokens")]);
    let started = Instant::now();
    for _ in 0..4 {
        let request = request_that_costs("/", "tokens", 100);
        fetcher.fetch(request).await.unwrap();
    }
    assert_eq!(received_at_ms(&mock, HOST, started), [0, 0, 1_000, 2_000]);
}

/// The response to the older request arrives after the response to the newer one.
#[tokio::test(start_paused = true)]
async fn older_response_never_overrides_a_newer_one() {
    let tokens_left = |remaining: &'static str| {
        response_with_headers(&[
            ("x-ratelimit-limit-tokens", "6259"),
            ("x-ratelimit-remaining-tokens", remaining),
            ("x-ratelimit-reset-tokens", "1m2s"),
        ])
    };
    for (newer, third_start) in [
        (tokens_left("6000"), 500),
        (MockResponse::status(200), 1_500),
    ] {
        let mock = Mock::new()
            .on("http://a.example/older", tokens_left("0").delay(ms(500)))
            .on("http://a.example/newer", newer.delay(ms(100)))
            .fallback(200);
        let fetcher = fetcher_with_budgets(&mock, [budget_of_200_units("tokens")]);
        let started = Instant::now();
        let both = ["/older", "/newer"].map(|path| request_that_costs(path, "tokens", 50));
        fetcher.gather(both).await;
        let third = request_that_costs("/third", "tokens", 100);
        fetcher.fetch(third).await.unwrap();
        assert_eq!(
            received_at_ms(&mock, "http://a.example/third", started),
            [third_start]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_limit_applies_to_the_host_unless_it_has_a_budget_of_requests() {
    let used_up = response_with_headers(&[
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "1m0s"),
    ]);
    let requests = Budget::per_minute("requests", 60).burst(2);
    let tokens = Budget::per_minute("tokens", 60);
    for (budget, seconds) in [(tokens, 60), (requests, 1)] {
        let mock = Mock::new().on("*", used_up.clone()).then(200);
        let fetcher = fetcher_with_budgets(&mock, [budget]);
        let started = Instant::now();
        for _ in 0..2 {
            fetcher.fetch(HOST).await.unwrap();
        }
        assert_eq!(started.elapsed().as_millis() / 1_000, seconds);
    }
}

/// GitHub Docs, "Rate limits for the REST API": the search has a limit of its own.
#[tokio::test(start_paused = true)]
async fn github_resource_lowers_its_own_budget_only() {
    let search_used_up = response_with_headers(&[
        DATE,
        ("x-ratelimit-limit", "30"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1000000031"),
        ("x-ratelimit-resource", "search"),
    ]);
    let budgets = || {
        [
            Budget::per_minute("search", 30),
            Budget::per_hour("core", 5_000),
        ]
    };
    for (budgets, second_search, repository) in
        [(Some(budgets()), 31_000, 0), (None, 31_000, 31_000)]
    {
        let mock = Mock::new()
            .on("http://a.example/search/1", search_used_up.clone())
            .fallback(200);
        let fetcher = match budgets {
            Some(budgets) => fetcher_with_budgets(&mock, budgets),
            None => fetcher_with_budgets(&mock, []),
        };
        let started = Instant::now();
        let search = |path: &str| request_that_costs(path, "search", 1);
        fetcher.fetch(search("/search/1")).await.unwrap();
        let next = [request_that_costs("/repos", "core", 1), search("/search/2")];
        fetcher.gather(next).await;
        let start_of = |url: &str| received_at_ms(&mock, url, started);
        assert_eq!(start_of("http://a.example/search/2"), [second_search]);
        assert_eq!(start_of("http://a.example/repos"), [repository]);
    }
}
