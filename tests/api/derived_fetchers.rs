//! Fetchers derived with `to_builder` share connections and limits, and no secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::server::FaultServer;
use fanout::{
    Breaker, ErrorKind, Fetcher, FetcherBuilder, Host, KeyLimits, Mock, MockRequest, MockResponse,
    Proxy, Rate, Retry, RetryBudget, Timeouts,
};
use proptest::prelude::*;
use tokio::time::Instant;

const A: &str = "http://a.example";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn urls(host: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("http://{host}.example/{n}"))
        .collect()
}

fn builder_over(mock: &Mock) -> FetcherBuilder {
    Fetcher::builder().transport(mock.clone())
}

/// Returns the value of a header in each request.
fn sent_values(mock: &Mock, name: &str) -> Vec<String> {
    let text = |request: &MockRequest| match request.headers().get(name) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => String::new(),
    };
    mock.requests().iter().map(text).collect()
}

#[tokio::test]
async fn derived_fetchers_share_limits_and_connections() {
    let server = FaultServer::start();
    let parent = Fetcher::builder()
        .no_proxy()
        .concurrency(2)
        .build()
        .unwrap();
    let sibling = parent
        .to_builder()
        .default_header("x-who", "sibling")
        .build()
        .unwrap();
    let inputs = |who: &str| {
        (0..20)
            .map(|n| server.url(&format!("/delay/5/{who}-{n}")))
            .collect::<Vec<_>>()
    };
    let (of_parent, of_sibling) = (inputs("parent"), inputs("sibling"));
    let (a, b) = tokio::join!(parent.gather(&of_parent), sibling.gather(&of_sibling));
    assert!(a.iter().chain(&b).all(Result::is_ok));
    let counts = server.counts();
    assert_eq!((counts.requests, counts.max_in_flight), (40, 2));
    assert!(counts.total_connections <= 10, "{counts:?}");
    let mut by_sibling = 0;
    for entry in server.log() {
        let is_siblings = entry.path.contains("sibling");
        assert_eq!(entry.headers.contains_key("x-who"), is_siblings);
        by_sibling += usize::from(is_siblings);
    }
    assert_eq!(by_sibling, 20);
}

#[tokio::test]
async fn connections_are_reused_across_derived_fetchers() {
    let server = FaultServer::start();
    let parent = Fetcher::builder()
        .no_proxy()
        .host(server.origin(), Host::new().bearer_auth("parent's"))
        .build()
        .unwrap();
    let sibling = parent
        .to_builder()
        .host(server.origin(), Host::new().bearer_auth("sibling's"))
        .build()
        .unwrap();
    for fetcher in [&parent, &sibling, &parent] {
        fetcher.fetch(server.url("/ok/1")).await.unwrap();
    }
    drop(parent);
    sibling.fetch(server.url("/ok/2")).await.unwrap();
    let log = server.log();
    let shown: Vec<_> = log
        .iter()
        .map(|entry| entry.headers["authorization"].to_str().unwrap())
        .collect();
    let (parents, siblings) = ("Bearer parent's", "Bearer sibling's");
    assert_eq!(shown, [parents, siblings, parents, siblings]);
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn host_limits_apply_across_derived_fetchers() {
    let mock = Mock::new()
        .on(
            "http://busy.example/first",
            MockResponse::status(429).header("retry-after", "30"),
        )
        .fallback(MockResponse::text("x").delay(ms(10)));
    let parent = builder_over(&mock)
        .rate_per_host(Rate::per_second(10).burst(1))
        .host(
            "http://b.example",
            Host::new()
                .concurrency(1)
                .rate(Rate::per_second(1_000).burst(1_000)),
        )
        .retry(Retry::off())
        .build()
        .unwrap();
    // The credentials are new. The limits are shared.
    let sibling = parent
        .to_builder()
        .host("http://b.example", Host::new().bearer_auth("x"))
        .build()
        .unwrap();
    let begun = Instant::now();
    let (inputs, others) = (urls("a", 10), urls("b", 10));
    tokio::join!(parent.gather(&inputs), sibling.gather(&inputs));
    assert_eq!(begun.elapsed(), ms(1_910));
    let begun = Instant::now();
    tokio::join!(parent.gather(&others), sibling.gather(&others));
    assert_eq!(begun.elapsed(), ms(200));
    assert_eq!(mock.max_in_flight_to("http://b.example/*"), 1);

    assert_eq!(
        parent
            .fetch("http://busy.example/first")
            .await
            .unwrap()
            .status(),
        429
    );
    let begun = Instant::now();
    sibling.fetch("http://busy.example/second").await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(29),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn derived_fetcher_inherits_settings_unless_overridden() {
    let mock = Mock::new()
        .on(
            "http://a.example/moved",
            MockResponse::status(302).header("location", "/"),
        )
        .on("http://a.example/bad", 503)
        .on("http://a.example/large", "x".repeat(100))
        .on(
            "http://a.example/slow",
            MockResponse::text("x").delay(Duration::from_secs(10)),
        )
        .fallback("x");
    let parent = builder_over(&mock)
        .user_agent("parent/1")
        .default_header("x-a", "parent")
        .default_header("x-b", "parent")
        .host(A, Host::new().header("x-key", "parent"))
        .max_redirects(0)
        .retry(Retry::off())
        .max_body_size(50)
        .timeouts(Timeouts::default().response_head(ms(100)))
        .https_only(false)
        .allowed_ports([80])
        .build()
        .unwrap();
    let same = parent.to_builder().build().unwrap();
    let other = same
        .to_builder()
        .user_agent("other/1")
        .default_header("x-b", "other")
        .host(A, Host::new().header("x-token", "other"))
        .max_redirects(5)
        .retry(Retry::default().max_retries(1))
        .max_body_size(200)
        .timeouts(Timeouts::default())
        .allowed_ports([80, 81])
        .build()
        .unwrap();
    for (fetcher, is_same) in [
        (&parent, true),
        (&same, true),
        (&other, false),
        (&parent, true),
    ] {
        let before = mock.request_count();
        let fetch = |path: &str| fetcher.fetch(format!("{A}/{path}"));
        assert_eq!(
            fetch("moved").await.unwrap().status(),
            if is_same { 302 } else { 200 }
        );
        assert_eq!(
            fetch("bad").await.unwrap().attempts().len(),
            if is_same { 1 } else { 2 }
        );
        assert_eq!(fetch("large").await.is_ok(), !is_same);
        assert_eq!(fetch("slow").await.is_ok(), !is_same);
        let port = fetcher.fetch("http://a.example:81/").await;
        assert_eq!(port.is_ok(), !is_same);
        let batch = fetcher.batch([format!("{A}/bad")]).gather().await;
        assert_eq!(
            batch[0].as_ref().unwrap().attempts().len(),
            if is_same { 1 } else { 2 }
        );
        let requests = mock.requests();
        for request in requests[before..]
            .iter()
            .filter(|request| !request.url().contains(":81"))
        {
            let header = |name| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap())
            };
            let (agent, b) = if is_same {
                ("parent/1", "parent")
            } else {
                ("other/1", "other")
            };
            assert_eq!(
                (header("user-agent"), header("x-a"), header("x-b")),
                (Some(agent), Some("parent"), Some(b))
            );
            assert_eq!(header("x-key").is_some(), is_same);
            assert_eq!(header("x-token").is_some(), !is_same);
        }
    }
}

#[test]
fn changing_a_shared_setting_fails_with_its_name() {
    struct Nowhere;
    impl fanout::Resolve for Nowhere {
        fn resolve(&self, _: &str) -> fanout::ResolveFuture {
            Box::pin(async { Ok(Vec::new()) })
        }
    }
    type Setting = fn(FetcherBuilder) -> FetcherBuilder;
    let settings: &[(&str, Setting)] = &[
        ("concurrency_per_host", |builder| {
            builder.concurrency_per_host(3)
        }),
        ("rate_per_host", |builder| {
            builder.rate_per_host(Rate::per_second(3))
        }),
        ("breaker", |builder| builder.breaker(Breaker::off())),
        ("retry_budget", |builder| {
            builder.retry_budget(RetryBudget::off())
        }),
        ("limit_by", |builder| builder.limit_by(|_| "all")),
        ("limits_for", |builder| {
            let limited = builder.limits_for("all", KeyLimits::new());
            limited.limit_by(|_| "all")
        }),
        ("idle_timeout", |builder| builder.idle_timeout(ms(10))),
        ("transport", |builder| builder.transport(Mock::new())),
        ("public_addresses_only", |builder| {
            builder.public_addresses_only(true)
        }),
        ("proxy", |builder| {
            builder.proxy(Proxy::all("http://127.0.0.1:1").unwrap())
        }),
        ("no_proxy", FetcherBuilder::no_proxy),
        ("resolver", |builder| builder.resolver(Nowhere)),
        ("dns_cache_ttl", |builder| builder.dns_cache_ttl(ms(10))),
        ("http1_only", FetcherBuilder::http1_only),
        #[cfg(feature = "http2")]
        (
            "http2_prior_knowledge",
            FetcherBuilder::http2_prior_knowledge,
        ),
        #[cfg(feature = "tls")]
        ("add_root_certificates", |builder| {
            builder.add_root_certificates(crate::support::server::ca_pem())
        }),
        #[cfg(feature = "tls")]
        ("client_certificate", |builder| {
            let own = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
            let key = own.signing_key.serialize_pem();
            builder.client_certificate("https://a.example", own.cert.pem(), key)
        }),
        #[cfg(feature = "tls")]
        ("danger_accept_invalid_certificates", |builder| {
            builder.danger_accept_invalid_certificates(true)
        }),
        #[cfg(feature = "tls")]
        ("danger_accept_invalid_host_names", |builder| {
            builder.danger_accept_invalid_host_names(true)
        }),
    ];
    let parent = Fetcher::builder()
        .no_proxy()
        .concurrency(3)
        .build()
        .unwrap();
    for (name, setting) in settings {
        assert!(setting(Fetcher::builder()).build().is_ok() || *name == "public_addresses_only");
        let error = setting(parent.to_builder()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let text = error.to_string();
        assert!(
            text.contains(&format!("`{name}` is shared")),
            "{name}: {text}"
        );
        assert!(
            setting(parent.to_builder())
                .retry(Retry::off())
                .build()
                .is_err()
        );
    }
    for limited in [
        Host::new().concurrency(1),
        Host::new().rate(Rate::per_second(1)),
    ] {
        let error = parent.to_builder().host(A, limited).build().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("the limits of the host {A} are shared")),
            "{text}"
        );
    }
    let twice = parent
        .to_builder()
        .host(A, Host::new())
        .host(A, Host::new());
    assert!(twice.build().is_err());
}

/// Returns a host with a token source, and the number of its calls.
fn counted_token_source(name: &'static str) -> (Host, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = move || {
        let number = count.fetch_add(1, Relaxed);
        async move {
            tokio::time::sleep(ms(50)).await;
            Ok(format!("{name}-{number}"))
        }
    };
    (Host::new().token_source(source), asked)
}

#[tokio::test(start_paused = true)]
async fn token_source_is_shared_until_replaced() {
    let mock = Mock::new().fallback(MockResponse::text("x").delay(ms(10)));
    let ((parents, asked), (others, asked_other)) = (
        counted_token_source("parent"),
        counted_token_source("other"),
    );
    let parent = builder_over(&mock)
        .default_header("x-who", "parent")
        .host(A, parents)
        .build()
        .unwrap();
    let same = parent.to_builder().build().unwrap();
    let other = parent
        .to_builder()
        .default_header("x-who", "other")
        .host(A, others)
        .build()
        .unwrap();
    let without = parent
        .to_builder()
        .default_header("x-who", "without")
        .host(A, Host::new())
        .build()
        .unwrap();
    let inputs = urls("a", 20);
    let begun = Instant::now();
    let (a, b, c, d) = tokio::join!(
        parent.gather(&inputs),
        same.gather(&inputs),
        other.gather(&inputs),
        without.gather(&inputs)
    );
    assert!([a, b, c, d].iter().flatten().all(Result::is_ok));
    assert_eq!((asked.load(Relaxed), asked_other.load(Relaxed)), (1, 1));
    assert!(begun.elapsed() >= ms(60));
    let shown = sent_values(&mock, "x-who")
        .into_iter()
        .zip(sent_values(&mock, "authorization"));
    for (who, token) in shown {
        let own = match &*who {
            "without" => String::new(),
            who => format!("Bearer {who}-0"),
        };
        assert_eq!(token, own);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_renewed_for_its_source_only() {
    let refuses = |request: &MockRequest| {
        let token = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        MockResponse::status(if token == "Bearer other-0" { 401 } else { 200 }).delay(ms(10))
    };
    let mock = Mock::new().fallback(MockResponse::from_fn(refuses));
    let ((parents, asked), (others, asked_other)) = (
        counted_token_source("parent"),
        counted_token_source("other"),
    );
    let parent = builder_over(&mock).host(A, parents).build().unwrap();
    let other = parent.to_builder().host(A, others).build().unwrap();
    let inputs = urls("a", 20);
    for _ in 0..2 {
        let (a, b) = tokio::join!(parent.gather(&inputs), other.gather(&inputs));
        assert!(
            a.iter()
                .chain(&b)
                .all(|result| result.as_ref().unwrap().status() == 200)
        );
    }
    assert_eq!((asked.load(Relaxed), asked_other.load(Relaxed)), (1, 2));
}

/// The kinds of secrets that a fetcher has.
#[derive(Clone, Debug)]
struct Secrets {
    host: u8,
    default: bool,
    request: bool,
    cookies: bool,
}

fn secrets() -> impl Strategy<Value = Secrets> {
    (0..5u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(host, default, request, cookies)| Secrets {
            host,
            default,
            request,
            cookies,
        },
    )
}

/// Overrides every setting of the other fetcher.
fn with(builder: FetcherBuilder, who: &'static str, secrets: &Secrets) -> Fetcher {
    let host = match secrets.host {
        0 => Host::new(),
        1 => Host::new().bearer_auth(format!("{who}-secret")),
        2 => Host::new().basic_auth(format!("{who}-secret"), ""),
        3 => Host::new().header("x-api-key", format!("{who}-secret")),
        _ => counted_token_source(who).0,
    };
    let default = if secrets.default {
        format!("{who}-secret")
    } else {
        "none".to_owned()
    };
    let builder = builder.cookies(secrets.cookies);
    let builder = builder
        .default_header("x-who", who)
        .default_header("x-default", default);
    builder.host(A, host).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_never_carry_another_fetchers_secrets(first in secrets(), second in secrets(), concurrency in 1..8usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let answer = |request: &MockRequest| {
                let who = request.headers()["x-who"].to_str().unwrap().to_owned();
                let number: usize = request.url().rsplit('/').next().unwrap().parse().unwrap();
                let answer = match number % 4 {
                    0 => MockResponse::status(302).header("location", format!("http://b.example/{}", number + 1)),
                    1 => MockResponse::status(302).header("location", format!("http://a.example/{}", number + 1)),
                    2 if number % 8 == 2 => MockResponse::status(503),
                    _ => MockResponse::status(200),
                };
                answer.header("set-cookie", format!("session={who}-cookie")).delay(ms(10))
            };
            let mock = Mock::new().fallback(MockResponse::from_fn(answer));
            let parent = with(builder_over(&mock).concurrency(concurrency), "alice", &first);
            let sibling = with(parent.to_builder(), "bob", &second);
            let inputs = |who: &str, secrets: &Secrets| {
                let request = |url| {
                    let request = fanout::Request::get(url);
                    if secrets.request {
                        request.bearer_auth(format!("{who}-own"))
                    } else {
                        request
                    }
                };
                urls("a", 12).into_iter().map(request).collect::<Vec<_>>()
            };
            let (ones, twos) = (inputs("alice", &first), inputs("bob", &second));
            for _ in 0..2 {
                let (a, b) = tokio::join!(parent.gather(&ones), sibling.gather(&twos));
                assert_eq!(a.len() + b.len(), 24);
            }
            let mut seen = [0, 0];
            for request in mock.requests() {
                let who = request.headers()["x-who"].to_str().unwrap();
                let other = if who == "alice" { "bob" } else { "alice" };
                let encoded = if who == "alice" { "Basic Ym9i" } else { "Basic YWxp" };
                seen[usize::from(who == "bob")] += 1;
                for (name, value) in request.headers() {
                    let value = value.to_str().unwrap();
                    assert!(!value.contains(other) && !value.contains(encoded), "{name}: {value} of {who}");
                }
            }
            assert!(seen[0] > 24 && seen[1] > 24);
        });
    }
}

#[tokio::test]
async fn followed_requests_use_the_credentials_of_their_fetcher() {
    let page = |request: &MockRequest| {
        let answer = MockResponse::text("x");
        if request.url().ends_with("/1") {
            answer.header("link", "</2>; rel=next")
        } else {
            answer
        }
    };
    let mock = Mock::new().fallback(MockResponse::from_fn(page));
    let parent = builder_over(&mock)
        .host(A, Host::new().bearer_auth("parent's"))
        .build()
        .unwrap();
    let sibling = parent
        .to_builder()
        .host(A, Host::new().bearer_auth("sibling's"))
        .build()
        .unwrap();
    let mut done = sibling
        .as_completed([format!("{A}/1")])
        .follow_next_link(fanout::FollowLimits::default());
    while done.next().await.is_some() {}
    assert_eq!(sent_values(&mock, "authorization"), ["Bearer sibling's"; 2]);
}
