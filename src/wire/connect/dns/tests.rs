use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::runtime::Builder;
use tokio::task::AbortHandle;
use tokio::time::{advance, sleep, timeout};

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
        user_resolver: Some(Arc::new(source)),
        ..DnsConfig::default()
    }))
}

async fn look_up(resolver: &Resolver, name: &str) -> Result<ResolvedAddresses, Error> {
    let clock = HopClock::new(Instant::now());
    resolver.look_up(name, &clock).await
}

async fn lookup_error_kind(resolver: &Resolver, name: &str) -> ErrorKind {
    look_up(resolver, name).await.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_lookup_until_it_expires() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    for round in 1..=2 {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { look_up(&resolver, "a.example").await.unwrap() })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap()[..], [(ADDRESS, 0).into()]);
        }
        assert_eq!(lookups.load(SeqCst), round);
        advance(Duration::from_secs(29)).await;
        look_up(&resolver, "a.example").await.unwrap();
        assert_eq!(lookups.load(SeqCst), round);
        advance(Duration::from_secs(2)).await;
    }
    look_up(&resolver, "b.example").await.unwrap();
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
    let cancelled = timeout(Duration::from_millis(1), look_up(&resolver, "a.example")).await;
    assert!(cancelled.is_err());
    look_up(&resolver, "a.example").await.unwrap();
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
    let tasks: Vec<_> = (0..3 * MAX_CONCURRENT_USER_LOOKUPS)
        .map(|n| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move { look_up(&resolver, &format!("{n}.example")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(max_in_flight.load(SeqCst), MAX_CONCURRENT_USER_LOOKUPS);
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded() {
    let resolver = resolver(|_: String| async { Ok(vec![ADDRESS]) });
    for n in 0..2 * MAX_CACHED_NAMES {
        look_up(&resolver, &format!("{n}.example")).await.unwrap();
    }
    assert!(resolver.cached_name_count() <= MAX_CACHED_NAMES);
}

#[tokio::test]
async fn an_unlimited_cache_ttl_is_accepted() {
    let resolver = Resolver::new(DnsConfig {
        cache_ttl: Duration::MAX,
        user_resolver: Some(Arc::new(|_: String| async { Ok(vec![ADDRESS]) })),
    });
    for _ in 0..2 {
        look_up(&resolver, "a.example").await.unwrap();
        look_up(&resolver, "localhost").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_name_is_looked_up_again() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![ADDRESS]));
    look_up(&resolver, "a.example").await.unwrap();
    resolver.remove_from_cache("a.example");
    look_up(&resolver, "a.example").await.unwrap();
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
    look_up(&resolver, "fine").await.unwrap();
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
        let cancelled = timeout(Duration::from_millis(20), look_up(&resolver, "a.example")).await;
        assert!(cancelled.is_err());
    });
    drop(runtime);
    new_runtime()
        .block_on(look_up(&resolver, "a.example"))
        .unwrap();
    assert_eq!(lookups.load(SeqCst), 2);
}

#[tokio::test]
async fn localhost_and_names_under_invalid_are_resolved_without_name_servers() {
    let resolver = Resolver::new(DnsConfig::default());
    let addresses = look_up(&resolver, "localhost").await.unwrap();
    assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    for name in ["invalid", "nowhere.invalid", "nowhere.invalid."] {
        let kind = lookup_error_kind(&resolver, name).await;
        assert_eq!(kind, ErrorKind::HostNotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn names_under_localhost_are_loopback_without_a_lookup() {
    let (resolver, lookups) = counting_resolver(|_| Ok(vec![IpAddr::from([192, 0, 2, 1])]));
    for name in ["localhost", "localhost.", "foo.localhost", "a.b.localhost."] {
        let addresses = look_up(&resolver, name).await.unwrap();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
    assert_eq!(lookups.load(SeqCst), 0);
    for name in ["localhost.example", "notlocalhost", "foo-localhost"] {
        let addresses = look_up(&resolver, name).await.unwrap();
        assert!(!addresses[0].ip().is_loopback(), "{name}");
    }
    assert_eq!(lookups.load(SeqCst), 3);
}

/// Returns a resolver that never responds for names under `silent.example`, and the number of
/// lookups in progress.
fn partly_silent_resolver() -> (Arc<Resolver>, Arc<AtomicUsize>) {
    struct InProgress(Arc<AtomicUsize>);
    impl Drop for InProgress {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let in_progress = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&in_progress);
    let source = move |name: String| {
        count.fetch_add(1, SeqCst);
        let lookup = InProgress(Arc::clone(&count));
        async move {
            let _lookup = lookup;
            if name.ends_with("silent.example") {
                pending::<()>().await;
            }
            sleep(Duration::from_millis(10)).await;
            Ok(vec![ADDRESS])
        }
    };
    (resolver(source), in_progress)
}

/// Starts requests for `count` silent names. Each waits for its lookup until it is aborted.
fn look_up_silent_names(resolver: &Arc<Resolver>, count: usize) -> Vec<AbortHandle> {
    let look_up_silent = |n: usize| {
        let resolver = Arc::clone(resolver);
        let request = async move { look_up(&resolver, &format!("{n}.silent.example")).await };
        tokio::spawn(request).abort_handle()
    };
    (0..count).map(look_up_silent).collect()
}

#[tokio::test(start_paused = true)]
async fn silent_names_delay_other_names_by_at_most_half_a_second_per_128() {
    let (resolver, _) = partly_silent_resolver();
    look_up_silent_names(&resolver, 300);
    sleep(Duration::from_millis(1)).await;
    let begin = Instant::now();
    for n in 0..50 {
        look_up(&resolver, &format!("{n}.live.example"))
            .await
            .unwrap();
    }
    // The last 44 silent names leave 84 permits after one second.
    assert!(begin.elapsed() >= Duration::from_millis(990));
    assert!(begin.elapsed() < Duration::from_millis(1000 + 50 * 15));
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_lookup_permit_is_queued_time() {
    let (resolver, _) = partly_silent_resolver();
    look_up_silent_names(&resolver, MAX_CONCURRENT_USER_LOOKUPS);
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    let clock = HopClock::new(begin);
    clock.reset_for_new_hop(begin);
    let mut request = std::pin::pin!(resolver.look_up("live.example", &clock));
    let early = timeout(Duration::from_millis(50), request.as_mut());
    assert!(early.await.is_err());
    assert!(clock.is_paused());
    request.await.unwrap();
    assert!(!clock.is_paused());
    assert_eq!(clock.in_hop_queue_wait_nanos(), 400_000_000);
    assert_eq!(clock.hop_started_at(), begin + Duration::from_millis(400));
    assert_eq!(clock.pause_time_without_queue_waits(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn abandoned_lookups_are_dropped_and_return_their_permits() {
    let (resolver, in_progress) = partly_silent_resolver();
    let silent = look_up_silent_names(&resolver, 300);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(in_progress.load(SeqCst), MAX_CONCURRENT_USER_LOOKUPS);
    silent.iter().for_each(AbortHandle::abort);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(in_progress.load(SeqCst), 0, "neither running nor waiting");
    assert_eq!(resolver.cached_name_count(), 0);
    let begin = Instant::now();
    look_up(&resolver, "live.example").await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(20));

    let silent = look_up_silent_names(&resolver, 300);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(in_progress.load(SeqCst), 300);
    silent.iter().for_each(AbortHandle::abort);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(in_progress.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_joins_an_abandoned_lookup_gets_its_result() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lookups);
    let resolver = resolver(move |_: String| {
        count.fetch_add(1, SeqCst);
        async {
            sleep(Duration::from_millis(700)).await;
            Ok(vec![ADDRESS])
        }
    });
    let cancelled = timeout(
        Duration::from_millis(100),
        look_up(&resolver, "slow.example"),
    );
    assert!(cancelled.await.is_err());
    sleep(Duration::from_millis(100)).await;
    look_up(&resolver, "slow.example").await.unwrap();
    assert_eq!(lookups.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn only_unresolved_names_return_their_slots_and_1024_at_most() {
    let (resolver, _) = partly_silent_resolver();
    look_up(&resolver, "known.example").await.unwrap();
    assert!(
        resolver
            .join_lookup_if_out_of_permits("new.example")
            .is_none()
    );
    advance(Duration::from_secs(60)).await;
    look_up_silent_names(&resolver, MAX_CONCURRENT_USER_LOOKUPS);
    sleep(Duration::from_millis(1)).await;
    assert!(resolver.is_out_of_lookup_permits());
    for name in ["known.example", "0.silent.example", "foo.localhost"] {
        assert!(
            resolver.join_lookup_if_out_of_permits(name).is_none(),
            "{name}"
        );
    }
    let waiting: Vec<_> = (0..MAX_WAITING_LOOKUPS_WITHOUT_SLOT)
        .map(|n| {
            resolver
                .join_lookup_if_out_of_permits(&format!("{n}.example"))
                .unwrap()
        })
        .collect();
    assert!(
        resolver
            .join_lookup_if_out_of_permits("one.more.example")
            .is_none()
    );
    drop(waiting);
    sleep(Duration::from_millis(1)).await;
    assert!(
        resolver
            .join_lookup_if_out_of_permits("one.more.example")
            .is_some()
    );
}

#[test]
fn wait_for_a_blocking_thread_is_queued_time() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocking = tokio::task::spawn_blocking(move || released.recv());
        let clock = HopClock::new(Instant::now());
        clock.reset_for_new_hop(Instant::now());
        let resolver = Resolver::new(DnsConfig::default());
        // The system's resolver needs no name server for an address.
        let mut request = std::pin::pin!(resolver.look_up("127.0.0.1", &clock));
        let early = timeout(Duration::from_millis(50), request.as_mut());
        assert!(early.await.is_err());
        assert!(clock.is_paused());
        release.send(()).unwrap();
        request.await.unwrap();
        blocking.await.unwrap().unwrap();
        assert!(!clock.is_paused());
        assert!(clock.in_hop_queue_wait_nanos() >= 49_000_000);
    });
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
        assert_eq!(error.error_kind, kind, "{message}");
    }
}
