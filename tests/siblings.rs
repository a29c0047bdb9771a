//! Siblings share connections and limits, and nothing that is secret.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fanout::{
    Answer, Breaker, Error, ErrorKind, Fetcher, FetcherBuilder, Host, Mock, Proxy, Rate, Received,
    Retry, RetryBudget, Timeouts,
};
use proptest::prelude::*;
use server::FaultServer;
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

fn over(mock: &Mock) -> FetcherBuilder {
    Fetcher::builder().transport(mock.clone())
}

/// The values of a header, request by request.
fn sent(mock: &Mock, name: &str) -> Vec<String> {
    let text = |request: &Received| match request.headers().get(name) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => String::new(),
    };
    mock.requests().iter().map(text).collect()
}

#[tokio::test]
async fn siblings_have_their_limits_and_connections_together() {
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
    assert_eq!((counts.requests, counts.most_in_flight), (40, 2));
    assert!(counts.connections_ever <= 10, "{counts:?}");
    let mut by_sibling = 0;
    for entry in server.log() {
        let is_siblings = entry.path.contains("sibling");
        assert_eq!(entry.headers.contains_key("x-who"), is_siblings);
        by_sibling += usize::from(is_siblings);
    }
    assert_eq!(by_sibling, 20);
}

#[tokio::test]
async fn a_connection_of_one_serves_the_other() {
    let server = FaultServer::start();
    let parent = Fetcher::builder()
        .no_proxy()
        .host(server.origin(), Host::new().bearer("parent's"))
        .build()
        .unwrap();
    let sibling = parent
        .to_builder()
        .host(server.origin(), Host::new().bearer("sibling's"))
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
    assert_eq!(server.counts().connections_ever, 1);
}

#[tokio::test(start_paused = true)]
async fn rates_pauses_and_limits_of_hosts_hold_for_all_of_them() {
    let mock = Mock::new()
        .on(
            "http://busy.example/first",
            Answer::status(429).header("retry-after", "30"),
        )
        .otherwise(Answer::text("x").delay(ms(10)));
    let parent = over(&mock)
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
    // Its credentials are new; its limits stay.
    let sibling = parent
        .to_builder()
        .host("http://b.example", Host::new().bearer("x"))
        .build()
        .unwrap();
    let begun = Instant::now();
    let (inputs, others) = (urls("a", 10), urls("b", 10));
    tokio::join!(parent.gather(&inputs), sibling.gather(&inputs));
    assert_eq!(begun.elapsed(), ms(1_910));
    let begun = Instant::now();
    tokio::join!(parent.gather(&others), sibling.gather(&others));
    assert_eq!(begun.elapsed(), ms(200));
    assert_eq!(mock.most_in_flight_to("http://b.example/*"), 1);

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
async fn a_sibling_has_what_its_parent_has_until_it_is_told_otherwise() {
    let mock = Mock::new()
        .on(
            "http://a.example/moved",
            Answer::status(302).header("location", "/"),
        )
        .on("http://a.example/bad", 503)
        .on("http://a.example/large", "x".repeat(100))
        .on(
            "http://a.example/slow",
            Answer::text("x").delay(Duration::from_secs(10)),
        )
        .otherwise("x");
    let parent = over(&mock)
        .user_agent("parent/1")
        .default_header("x-a", "parent")
        .default_header("x-b", "parent")
        .host(A, Host::new().header("x-key", "parent"))
        .max_redirects(0)
        .retry(Retry::off())
        .body_cap(50)
        .timeouts(Timeouts::default().first_byte(ms(100)))
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
        .body_cap(200)
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
        let before = mock.total();
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
fn a_setting_of_what_is_shared_fails_by_its_name() {
    struct Nowhere;
    impl fanout::Resolve for Nowhere {
        fn resolve(&self, _: &str) -> fanout::Resolving {
            Box::pin(async { Ok(Vec::new()) })
        }
    }
    type Setting = fn(FetcherBuilder) -> FetcherBuilder;
    let settings: &[(&str, Setting)] = &[
        ("concurrency", |builder| builder.concurrency(3)),
        ("rate", |builder| builder.rate(Rate::per_second(3))),
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
        ("dns_cache", |builder| builder.dns_cache(ms(10))),
        ("http1_only", FetcherBuilder::http1_only),
        #[cfg(feature = "http2")]
        (
            "http2_prior_knowledge",
            FetcherBuilder::http2_prior_knowledge,
        ),
        #[cfg(feature = "tls")]
        ("add_root_certificates", |builder| {
            builder.add_root_certificates(server::ca_pem())
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

/// Tokens of this name, and how often they were asked for.
fn tokens(name: &'static str) -> (Host, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source = move || {
        let number = count.fetch_add(1, Relaxed);
        async move {
            tokio::time::sleep(ms(50)).await;
            Ok::<_, Error>(format!("{name}-{number}"))
        }
    };
    (Host::new().token_source(source), asked)
}

#[tokio::test(start_paused = true)]
async fn a_token_source_is_asked_once_for_all_who_have_it_and_replaced_for_one_alone() {
    let mock = Mock::new().otherwise(Answer::text("x").delay(ms(10)));
    let ((parents, asked), (others, asked_other)) = (tokens("parent"), tokens("other"));
    let parent = over(&mock)
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
    let shown = sent(&mock, "x-who")
        .into_iter()
        .zip(sent(&mock, "authorization"));
    for (who, token) in shown {
        let own = match &*who {
            "without" => String::new(),
            who => format!("Bearer {who}-0"),
        };
        assert_eq!(token, own);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_to_one_is_renewed_for_that_source_alone() {
    let refuses = |request: &Received| {
        let token = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        Answer::status(if token == "Bearer other-0" { 401 } else { 200 }).delay(ms(10))
    };
    let mock = Mock::new().otherwise(Answer::with(refuses));
    let ((parents, asked), (others, asked_other)) = (tokens("parent"), tokens("other"));
    let parent = over(&mock).host(A, parents).build().unwrap();
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

/// What one of two siblings says, each with secrets of its own.
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

/// All that it sets is its own, so that nothing of the other may be left.
fn with(builder: FetcherBuilder, who: &'static str, secrets: &Secrets) -> Fetcher {
    let host = match secrets.host {
        0 => Host::new(),
        1 => Host::new().bearer(format!("{who}-secret")),
        2 => Host::new().basic(format!("{who}-secret"), ""),
        3 => Host::new().header("x-api-key", format!("{who}-secret")),
        _ => tokens(who).0,
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
    fn the_secrets_of_one_are_never_in_the_requests_of_the_other(first in secrets(), second in secrets(), concurrency in 1..8usize) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let answer = |request: &Received| {
                let who = request.headers()["x-who"].to_str().unwrap().to_owned();
                let number: usize = request.url().rsplit('/').next().unwrap().parse().unwrap();
                let answer = match number % 4 {
                    0 => Answer::status(302).header("location", format!("http://b.example/{}", number + 1)),
                    1 => Answer::status(302).header("location", format!("http://a.example/{}", number + 1)),
                    2 if number % 8 == 2 => Answer::status(503),
                    _ => Answer::status(200),
                };
                answer.header("set-cookie", format!("session={who}-cookie")).delay(ms(10))
            };
            let mock = Mock::new().otherwise(Answer::with(answer));
            let parent = with(over(&mock).concurrency(concurrency), "alice", &first);
            let sibling = with(parent.to_builder(), "bob", &second);
            let inputs = |who: &str, secrets: &Secrets| {
                let request = |url| match secrets.request {
                    true => fanout::Request::get(url).bearer(format!("{who}-own")),
                    false => fanout::Request::get(url),
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
async fn a_follow_up_is_asked_as_its_own_fetcher_asks() {
    let page = |request: &Received| {
        let answer = Answer::text("x");
        match request.url().ends_with("/1") {
            true => answer.header("link", "</2>; rel=next"),
            false => answer,
        }
    };
    let mock = Mock::new().otherwise(Answer::with(page));
    let parent = over(&mock)
        .host(A, Host::new().bearer("parent's"))
        .build()
        .unwrap();
    let sibling = parent
        .to_builder()
        .host(A, Host::new().bearer("sibling's"))
        .build()
        .unwrap();
    let mut done = sibling
        .as_completed([format!("{A}/1")])
        .follow(fanout::Follow::next_link());
    while done.next().await.is_some() {}
    assert_eq!(sent(&mock, "authorization"), ["Bearer sibling's"; 2]);
}
