use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::runtime::Builder;
use tokio::time::{advance, sleep};

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Returns a resolver whose n-th lookup, counted from 0, takes 10 ms and returns `answer(n)`, and
/// the number of lookups so far.
fn counting_resolver<A>(answer: A) -> (Arc<Resolver>, Arc<AtomicUsize>)
where
    A: Fn(usize) -> io::Result<Vec<IpAddr>> + Clone + Send + Sync + 'static,
{
    let lookups = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lookups);
    let source = move |_: String| {
        let (n, answer) = (count.fetch_add(1, SeqCst), answer.clone());
        async move {
            sleep(Duration::from_millis(10)).await;
            answer(n)
        }
    };
    (resolver(source), lookups)
}

fn resolver(source: impl Resolve) -> Arc<Resolver> {
    Arc::new(Resolver::new(DnsConfig {
        resolver: Some(Arc::new(source)),
        ..DnsConfig::default()
    }))
}

async fn lookup_error_kind(resolver: &Resolver, name: &str) -> ErrorKind {
    resolver.look_up(name).await.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_lookup_until_it_expires() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    for round in 1..=2 {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { resolver.look_up("a.example").await.unwrap() })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap()[..], [(ADDRESS, 0).into()]);
        }
        assert_eq!(lookups.load(SeqCst), round);
        advance(Duration::from_secs(29)).await;
        resolver.look_up("a.example").await.unwrap();
        assert_eq!(lookups.load(SeqCst), round);
        advance(Duration::from_secs(2)).await;
    }
    resolver.look_up("b.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_host_is_cached_for_5_s_and_a_failed_lookup_is_not_cached() {
    let (absent, lookups) = counting_resolver(|n| match n {
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(vec![]),
    });
    for _ in 0..2 {
        for _ in 0..3 {
            let kind = lookup_error_kind(&absent, "a.example").await;
            assert_eq!(kind, ErrorKind::HostNotFound);
        }
        advance(Duration::from_secs(6)).await;
    }
    assert_eq!(lookups.load(SeqCst), 2);

    let (failing, lookups) = counting_resolver(|_| Err(io::Error::other("no servers")));
    for n in 1..=3 {
        let kind = lookup_error_kind(&failing, "a.example").await;
        assert_eq!(kind, ErrorKind::Dns);
        assert_eq!(lookups.load(SeqCst), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_continues_when_its_first_request_is_cancelled() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    let cancelled = timeout(Duration::from_millis(1), resolver.look_up("a.example")).await;
    assert!(cancelled.is_err());
    resolver.look_up("a.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_lookups_are_limited() {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let max_in_flight = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&in_flight), Arc::clone(&max_in_flight));
    let resolver = resolver(move |_: String| {
        peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        let now = Arc::clone(&now);
        async move {
            sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, SeqCst);
            Ok(vec![ADDRESS])
        }
    });
    let tasks: Vec<_> = (0..3 * MAX_CONCURRENT_LOOKUPS)
        .map(|n| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { resolver.look_up(&format!("{n}.example")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(max_in_flight.load(SeqCst), MAX_CONCURRENT_LOOKUPS);
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded() {
    let resolver = resolver(|_: String| async { Ok(vec![ADDRESS]) });
    for n in 0..2 * MAX_CACHED_NAMES {
        resolver.look_up(&format!("{n}.example")).await.unwrap();
    }
    assert!(resolver.cached_names() <= MAX_CACHED_NAMES);
}

#[tokio::test]
async fn an_unlimited_cache_ttl_is_accepted() {
    let resolver = Resolver::new(DnsConfig {
        cache_ttl: Duration::MAX,
        ..DnsConfig::default()
    });
    for _ in 0..2 {
        resolver.look_up("localhost").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_name_is_looked_up_again() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    resolver.look_up("a.example").await.unwrap();
    resolver.invalidate("a.example");
    resolver.look_up("a.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_or_hangs_fails_only_its_own_lookup() {
    let resolver = resolver(|name: String| {
        assert_ne!(name, "at.once");
        async move {
            assert_ne!(name, "later");
            match &*name {
                "never" => pending().await,
                _ => Ok(vec![ADDRESS]),
            }
        }
    });
    for (name, kind) in [
        ("at.once", ErrorKind::Panicked),
        ("later", ErrorKind::Panicked),
        ("never", ErrorKind::Dns),
    ] {
        assert_eq!(lookup_error_kind(&resolver, name).await, kind);
    }
    resolver.look_up("fine").await.unwrap();
}

#[test]
fn a_lookup_lost_with_its_runtime_is_started_again() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lookups);
    let resolver = resolver(move |_: String| {
        let first = count.fetch_add(1, SeqCst) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok(vec![ADDRESS])
        }
    });
    let new_runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let runtime = new_runtime();
    runtime.block_on(async {
        let cancelled = timeout(Duration::from_millis(20), resolver.look_up("a.example")).await;
        assert!(cancelled.is_err());
    });
    drop(runtime);
    new_runtime()
        .block_on(resolver.look_up("a.example"))
        .unwrap();
    assert_eq!(lookups.load(SeqCst), 2);
}

#[tokio::test]
async fn the_system_resolves_localhost_and_no_name_under_invalid() {
    let resolver = Resolver::new(DnsConfig::default());
    let addresses = resolver.look_up("localhost").await.unwrap();
    assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    for name in ["invalid", "nowhere.invalid", "nowhere.invalid."] {
        let kind = lookup_error_kind(&resolver, name).await;
        assert_eq!(kind, ErrorKind::HostNotFound);
    }
}

#[test]
fn getaddrinfo_messages_are_classified() {
    for (message, kind) in [
        ("Name or service not known", ErrorKind::HostNotFound),
        ("Name does not resolve", ErrorKind::HostNotFound),
        (
            "nodename nor servname provided, or not known",
            ErrorKind::HostNotFound,
        ),
        ("Temporary failure in name resolution", ErrorKind::Dns),
        ("Non-recoverable failure in name resolution", ErrorKind::Dns),
        ("Try again", ErrorKind::Dns),
    ] {
        let error = format!("failed to lookup address information: {message}");
        let error = LookupError::from(io::Error::other(error));
        assert_eq!(error.kind, kind, "{message}");
    }
}
