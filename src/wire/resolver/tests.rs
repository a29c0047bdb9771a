use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::runtime::Builder;
use tokio::time::{advance, sleep};

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A resolver that counts how often it is lookups, and answers the n-th time with `answer(n)`.
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
async fn a_name_wanted_by_many_is_asked_for_once_until_it_expires() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    for round in 1..=2 {
        let wanting: Vec<_> = (0..50)
            .map(|_| {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { resolver.look_up("a.example").await.unwrap() })
            })
            .collect();
        for task in wanting {
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
async fn an_absent_host_is_remembered_a_short_while_and_a_failed_lookup_not_at_all() {
    let (absent, lookups) = counting_resolver(|n| match n {
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(vec![]),
    });
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(
                lookup_error_kind(&absent, "a.example").await,
                ErrorKind::HostNotFound
            );
        }
        advance(Duration::from_secs(6)).await;
    }
    assert_eq!(lookups.load(SeqCst), 2);

    let (failing, lookups) = counting_resolver(|_| Err(io::Error::other("no servers")));
    for n in 1..=3 {
        assert_eq!(
            lookup_error_kind(&failing, "a.example").await,
            ErrorKind::Dns
        );
        assert_eq!(lookups.load(SeqCst), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_goes_on_when_who_asked_for_it_leaves() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    let left = timeout(Duration::from_millis(1), resolver.look_up("a.example")).await;
    assert!(left.is_err());
    resolver.look_up("a.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn so_many_names_are_asked_for_at_once() {
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
    let wanting: Vec<_> = (0..3 * MAX_CONCURRENT_LOOKUPS)
        .map(|n| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { resolver.look_up(&format!("{n}.example")).await })
        })
        .collect();
    for task in wanting {
        task.await.unwrap().unwrap();
    }
    assert_eq!(max_in_flight.load(SeqCst), MAX_CONCURRENT_LOOKUPS);
}

#[tokio::test(start_paused = true)]
async fn no_more_names_are_remembered_than_there_is_room_for() {
    let resolver = resolver(|_: String| async { Ok(vec![ADDRESS]) });
    for n in 0..2 * MAX_CACHED_NAMES {
        resolver.look_up(&format!("{n}.example")).await.unwrap();
    }
    assert!(resolver.cached_names() <= MAX_CACHED_NAMES);
}

#[tokio::test]
async fn a_name_may_be_kept_for_ever() {
    let resolver = Resolver::new(DnsConfig {
        cache_ttl: Duration::MAX,
        ..DnsConfig::default()
    });
    for _ in 0..2 {
        resolver.look_up("localhost").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_led_nowhere_is_asked_for_again() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    resolver.look_up("a.example").await.unwrap();
    resolver.invalidate("a.example");
    resolver.look_up("a.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_or_never_answers_fails_its_lookup_alone() {
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
    assert_eq!(
        lookup_error_kind(&resolver, "at.once").await,
        ErrorKind::Panicked
    );
    assert_eq!(
        lookup_error_kind(&resolver, "later").await,
        ErrorKind::Panicked
    );
    assert_eq!(lookup_error_kind(&resolver, "never").await, ErrorKind::Dns);
    resolver.look_up("fine").await.unwrap();
}

#[test]
fn a_lookup_lost_with_its_runtime_is_begun_again() {
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
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let one = runtime();
    one.block_on(async {
        let a_moment = Duration::from_millis(20);
        let left = timeout(a_moment, resolver.look_up("a.example")).await;
        assert!(left.is_err());
    });
    drop(one);
    runtime().block_on(resolver.look_up("a.example")).unwrap();
    assert_eq!(lookups.load(SeqCst), 2);
}

#[tokio::test]
async fn the_system_knows_localhost_and_nothing_under_invalid() {
    let resolver = Resolver::new(DnsConfig::default());
    let found = resolver.look_up("localhost").await.unwrap();
    assert!(found.iter().all(|address| address.ip().is_loopback()));
    for name in ["invalid", "nowhere.invalid", "nowhere.invalid."] {
        assert_eq!(
            lookup_error_kind(&resolver, name).await,
            ErrorKind::HostNotFound
        );
    }
}

#[test]
fn the_words_for_an_absent_host_are_known() {
    for (words, kind) in [
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
        let error = format!("failed to lookup address information: {words}");
        assert_eq!(
            LookupError::from(io::Error::other(error)).kind,
            kind,
            "{words}"
        );
    }
}
